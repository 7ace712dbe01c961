/* What rows of logits say about a text's tokens, how far the rows of two models are apart, and the numbers
 * that sum a text up: perplexity, Kullback-Leibler divergence, change of probabilities. All logarithms are
 * natural. */
#ifndef QUOLL_DIVERGENCE_H
#define QUOLL_DIVERGENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One token. What compares is 0 where there is no base. */
struct token_score {
    double nll;      /* −ln p(token) */
    double base_nll; /* −ln p_base(token) */
    double kl;       /* Σ p_base ln(p_base / p) over the vocabulary */
    bool same_top;   /* both find the same token likeliest (the first of equals) */
};

/* ln Σ e^x of n > 0 logits; NaN where one is. */
double logits_log_sum_exp(const float *row, int64_t n);
/* The first largest of them; 0 where all are NaN. */
int64_t logits_top(const float *row, int64_t n);
/* row: n logits in front of the token; base: another model's in the same place (any constant may be added
 * to a row), NULL: none. */
struct token_score token_score(const float *row, const float *base, int64_t n, int32_t token);

struct estimate {
    double value;
    double error; /* standard error; 0 of one token */
};

/* Standard errors take tokens for independent, and go through functions to first order. They are those of
 * llama.cpp's perplexity: sqrt((mean of squares − square of mean) / (n − 1)). */
struct divergence {
    int64_t n;
    struct estimate ppl;                 /* exp(mean nll) */
    struct estimate ppl_base, ppl_ratio; /* ratio: exp(mean of nll − base_nll) */
    struct estimate kl;                  /* mean */
    double kl_min, kl_p01, kl_p10, kl_median, kl_p90, kl_p99, kl_p999, kl_max;
    /* Of p(token) − p_base(token), in percentage points; rms: root mean square. */
    struct estimate dp, dp_rms;
    double dp_p01, dp_p10, dp_median, dp_p90, dp_p99;
    struct estimate top1_same; /* percent of tokens */
};

/* n > 0; −1: out of memory. */
int divergence_of(struct divergence *d, const struct token_score *s, size_t n);
/* The perplexity alone. */
struct estimate perplexity_of(const struct token_score *s, size_t n);
/* Of n > 0 sorted values, at fraction f: between two of them in proportion, as numpy and R do. */
double quantile(const double *sorted, size_t n, double f);

#endif

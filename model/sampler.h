/* The sampler chain: logits → id. Steps and their default order are INTERFACE's; sampler.c defines each
 * step and names its source. */
#ifndef QUOLL_SAMPLER_H
#define QUOLL_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct logit_bias {
    int32_t id;
    float bias; /* −INFINITY bans */
};

enum { SAMPLER_MAX_STEPS = 16 };

struct sampler_options {
    uint64_t seed;
    float temp;                                /* ≤ 0: greedy */
    int top_k;                                 /* ≤ 0: off */
    float top_p;                               /* ≥ 1: off */
    float min_p;                               /* ≤ 0: off */
    float typical;                             /* ≥ 1: off */
    float tfs;                                 /* tail-free; ≥ 1: off */
    float top_n_sigma;                         /* ≤ 0: off */
    float xtc_probability, xtc_threshold;      /* probability ≤ 0 or threshold > 0.5: off */
    float repeat_penalty;                      /* 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    int repeat_last_n;                         /* ids the three look back on; −1: all; 0: off */
    float dry_multiplier;                      /* 0: off */
    float dry_base;
    int dry_allowed_length, dry_penalty_last_n; /* last_n −1: all; 0: off */
    /* (vocab_size): ids that no repetition reaches across; NULL: none. Copied. */
    const bool *dry_breaker;
    int mirostat; /* 0, or 2: then temperature and mirostat 2 alone */
    float mirostat_tau, mirostat_eta;
    const struct logit_bias *logit_bias; /* copied */
    size_t n_logit_bias;
    /* NULL: the default order; else names separated by ';' ("top_k;temperature"). Steps not named are
     * off. Names: penalties dry top_n_sigma top_k typ_p tfs top_p min_p xtc temperature. */
    const char *samplers;
};

#define SAMPLER_DEFAULT_STEPS "penalties;dry;top_n_sigma;top_k;typ_p;tfs;top_p;min_p;xtc;temperature"

void sampler_defaults(struct sampler_options *o);
/* Is this a list of steps as in o->samplers? −1: no, err says which name is none. */
int sampler_check_steps(const char *samplers, char *err, size_t errlen);

struct sampler;

/* −1: a name in o->samplers or an id in o->logit_bias that does not exist, a number out of its range. */
int sampler_new(struct sampler **out, const struct sampler_options *o, int vocab_size, char *err,
                size_t errlen);
void sampler_free(struct sampler *s); /* NULL is fine */
/* An id already seen (the prompt's, then each picked one), for penalties and DRY. −1: out of memory. */
int sampler_accept(struct sampler *s, int32_t id);
void sampler_reset(struct sampler *s); /* forgets what was seen; the random state goes on */
/* Picks an id; logits (vocab_size) are not changed. Does not accept it. NaN counts as −inf; where nothing
 * is left (every logit −inf or NaN) the answer is 0. Equal logits: the lower id comes first. */
int32_t sampler_pick(struct sampler *s, const float *logits);

/* What is left of the vocabulary after the chain. */
struct candidate {
    int32_t id;
    float logit;
    float p; /* the softmax of what is left */
};

/* The distribution that sampler_pick draws from: *n candidates (lent until the next call), the most
 * probable one first where the chain has sorted them. May draw random numbers (XTC). */
const struct candidate *sampler_distribution(struct sampler *s, const float *logits, size_t *n);
/* The rest of a pick: mirostat learns that candidate c of the last distribution was chosen. */
void sampler_choose(struct sampler *s, const struct candidate *c);
float sampler_mirostat_mu(const struct sampler *s);

#endif

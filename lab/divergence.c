#include "lab/divergence.h"

#include "kernels/mathf.h"

#include <stdlib.h>

/* ---- Rows ----------------------------------------------------------------------------------------
 *
 * Sixteen partial sums by index modulo 16, in double: a row has up to a quarter of a million terms, and a
 * divergence of 10⁻⁵ is the difference of two sums. The loops over lanes become vectors. */

enum { LANES = 16, BLOCK = 4096 };

/* e^x, x ≤ 0 or NaN; what is below 10⁻³⁷ counts as that. */
MATHF_INLINE float exp_below(float x)
{
    return mathf_exp_inside(x < EXP_MIN ? EXP_MIN : x);
}

/* The function `name` of an inlined name_body, compiled twice: for CPUs with AVX2, and without. The bits are
 * the same. */
#define TWO_VERSIONS(name, parameters, arguments)                          \
    __attribute__((target("avx2,fma"))) static void name##_avx2 parameters \
    {                                                                      \
        name##_body arguments;                                             \
    }                                                                      \
    static void name##_any parameters                                      \
    {                                                                      \
        name##_body arguments;                                             \
    }                                                                      \
    static void name parameters                                            \
    {                                                                      \
        if (__builtin_cpu_supports("avx2"))                                \
            name##_avx2 arguments;                                         \
        else                                                               \
            name##_any arguments;                                          \
    }

MATHF_INLINE double sum_lanes(const double s[LANES])
{
    double t[LANES / 2];
    for (int j = 0; j < 8; j++)
        t[j] = s[j] + s[j + 8];
    for (int j = 0; j < 4; j++)
        t[j] += t[j + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

MATHF_INLINE void row_max_body(const float *x, int64_t n, float *max)
{
    float m[LANES];
    for (int j = 0; j < LANES; j++)
        m[j] = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
#pragma omp simd
        for (int j = 0; j < LANES; j++)
            m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    }
    for (int j = 0; i + j < n; j++)
        m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    *max = m[0];
    for (int j = 1; j < LANES; j++)
        *max = m[j] > *max ? m[j] : *max;
}
TWO_VERSIONS(row_max, (const float *x, int64_t n, float *max), (x, n, max))

/* *sum = Σ e^(x − max) */
MATHF_INLINE void row_sum_body(const float *x, int64_t n, float max, double *sum)
{
    double s[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
#pragma omp simd
        for (int j = 0; j < LANES; j++)
            s[j] += (double)exp_below(x[i + j] - max);
    }
    for (int j = 0; i + j < n; j++)
        s[j] += (double)exp_below(x[i + j] - max);
    *sum = sum_lanes(s);
}
TWO_VERSIONS(row_sum, (const float *x, int64_t n, float max, double *sum), (x, n, max, sum))

struct pair_sums {
    double p, q; /* Σ e^(p − p_max), Σ e^(q − q_max) */
    double d;    /* Σ e^(p − p_max) (p − q) */
};

MATHF_INLINE void pair_sum_body(const float *p, const float *q, int64_t n, float p_max, float q_max,
                                struct pair_sums *sums)
{
    double sp[LANES] = {0}, sq[LANES] = {0}, sd[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            double e = (double)exp_below(p[i + j] - p_max);
            sp[j] += e;
            sq[j] += (double)exp_below(q[i + j] - q_max);
            sd[j] += e * ((double)p[i + j] - (double)q[i + j]);
        }
    }
    for (int j = 0; i + j < n; j++) {
        double e = (double)exp_below(p[i + j] - p_max);
        sp[j] += e;
        sq[j] += (double)exp_below(q[i + j] - q_max);
        sd[j] += e * ((double)p[i + j] - (double)q[i + j]);
    }
    *sums = (struct pair_sums){sum_lanes(sp), sum_lanes(sq), sum_lanes(sd)};
}
TWO_VERSIONS(pair_sum,
             (const float *p, const float *q, int64_t n, float p_max, float q_max, struct pair_sums *sums),
             (p, q, n, p_max, q_max, sums))

double logits_log_sum_exp(const float *row, int64_t n)
{
    float max;
    double sum;
    row_max(row, n, &max);
    row_sum(row, n, max, &sum);
    return (double)max + log(sum);
}

int64_t logits_top(const float *row, int64_t n)
{
    float best = -INFINITY;
    int64_t block = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        float max;
        row_max(row + i, n - i < BLOCK ? n - i : BLOCK, &max);
        if (max > best) {
            best = max;
            block = i;
        }
    }
    for (int64_t i = block; i < n; i++)
        if (row[i] == best)
            return i;
    return 0;
}

struct token_score token_score(const float *row, const float *base, int64_t n, int32_t token)
{
    if (!base)
        return (struct token_score){.nll = logits_log_sum_exp(row, n) - (double)row[token]};
    int64_t top = logits_top(row, n), base_top = logits_top(base, n);
    float row_at = row[top], base_at = base[base_top];
    struct pair_sums s;
    pair_sum(base, row, n, base_at, row_at, &s);
    double all = (double)row_at + log(s.q), base_all = (double)base_at + log(s.p);
    double kl = s.d / s.p - (base_all - all);
    return (struct token_score){.nll = all - (double)row[token],
                                .base_nll = base_all - (double)base[token],
                                .kl = kl < 0 ? 0 : kl, /* rounding; the true one never is */
                                .same_top = top == base_top};
}

/* ---- A text -------------------------------------------------------------------------------------- */

/* What a token adds to a mean. */
typedef double (*term_fn)(const struct token_score *s);

static double term_nll(const struct token_score *s)
{
    return s->nll;
}

static double term_base_nll(const struct token_score *s)
{
    return s->base_nll;
}

static double term_log_ratio(const struct token_score *s)
{
    return s->nll - s->base_nll;
}

static double term_kl(const struct token_score *s)
{
    return s->kl;
}

static double term_dp(const struct token_score *s)
{
    return exp(-s->nll) - exp(-s->base_nll);
}

static double term_dp_squared(const struct token_score *s)
{
    return term_dp(s) * term_dp(s);
}

static double term_same_top(const struct token_score *s)
{
    return s->same_top;
}

static struct estimate mean_of(const struct token_score *s, size_t n, term_fn term)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += term(&s[i]);
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (term(&s[i]) - mean) * (term(&s[i]) - mean);
    double error = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0;
    return (struct estimate){mean, error};
}

static struct estimate exp_of(struct estimate e)
{
    return (struct estimate){exp(e.value), exp(e.value) * e.error};
}

static struct estimate times(struct estimate e, double by)
{
    return (struct estimate){e.value * by, e.error * by};
}

struct estimate perplexity_of(const struct token_score *s, size_t n)
{
    return exp_of(mean_of(s, n, term_nll));
}

double quantile(const double *sorted, size_t n, double f)
{
    double at = f * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

/* NaN behind all others. */
static int by_value(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    if (isnan(x) || isnan(y))
        return (isnan(x) != 0) - (isnan(y) != 0);
    return (x > y) - (x < y);
}

static void sort_terms(double *sorted, const struct token_score *s, size_t n, term_fn term, double by)
{
    for (size_t i = 0; i < n; i++)
        sorted[i] = by * term(&s[i]);
    qsort(sorted, n, sizeof *sorted, by_value);
}

int divergence_of(struct divergence *d, const struct token_score *s, size_t n)
{
    double *v = malloc(n * sizeof *v);
    if (!v)
        return -1;
    const double percent = 100;
    *d = (struct divergence){.n = (int64_t)n,
                             .ppl = perplexity_of(s, n),
                             .ppl_base = exp_of(mean_of(s, n, term_base_nll)),
                             .ppl_ratio = exp_of(mean_of(s, n, term_log_ratio)),
                             .kl = mean_of(s, n, term_kl),
                             .dp = times(mean_of(s, n, term_dp), percent),
                             .top1_same = times(mean_of(s, n, term_same_top), percent)};
    struct estimate square = mean_of(s, n, term_dp_squared);
    double rms = sqrt(square.value);
    d->dp_rms = (struct estimate){percent * rms, rms > 0 ? percent * 0.5 / rms * square.error : 0};

    sort_terms(v, s, n, term_kl, 1);
    d->kl_min = v[0];
    d->kl_p01 = quantile(v, n, 0.01);
    d->kl_p10 = quantile(v, n, 0.1);
    d->kl_median = quantile(v, n, 0.5);
    d->kl_p90 = quantile(v, n, 0.9);
    d->kl_p99 = quantile(v, n, 0.99);
    d->kl_p999 = quantile(v, n, 0.999);
    d->kl_max = v[n - 1];
    sort_terms(v, s, n, term_dp, percent);
    d->dp_p01 = quantile(v, n, 0.01);
    d->dp_p10 = quantile(v, n, 0.1);
    d->dp_median = quantile(v, n, 0.5);
    d->dp_p90 = quantile(v, n, 0.9);
    d->dp_p99 = quantile(v, n, 0.99);
    free(v);
    return 0;
}

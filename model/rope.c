#include "model/rope.h"

#include "quant/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* YaRN (Peng et al. 2023, arXiv:2309.00071, section 3.2): frequencies that turn often within the original
 * length stay, slow ones are interpolated, with a ramp over the index in between. */
static double yarn_frequency(const struct rope_config *r, double inv, int i, int dim)
{
    double bound[2];
    const double turns[2] = {r->beta_fast, r->beta_slow};
    for (int k = 0; k < 2; k++)
        bound[k] = dim * log(r->original_len / (turns[k] * 2 * pi)) / (2 * log(r->theta));
    double low = fmax(floor(bound[0]), 0), high = fmin(ceil(bound[1]), dim - 1);
    if (low == high)
        high += 0.001;
    double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
    return inv / r->factor * ramp + inv * (1 - ramp);
}

double rope_yarn_attention(double factor, double mscale)
{
    return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1;
}

/* Llama 3.1: wavelengths beyond the original length / low_freq are stretched, those below
 * original / high_freq stay, with a ramp over the frequency in between. */
static double llama3_frequency(const struct rope_config *r, double inv)
{
    double turns = r->original_len * inv / (2 * pi), scaled; /* turns within the original length */
    double smooth = (turns - r->low_freq) / (r->high_freq - r->low_freq);
    if (turns < r->low_freq)
        scaled = inv / r->factor;
    else if (turns > r->high_freq)
        scaled = inv;
    else
        scaled = (1 - smooth) * inv / r->factor + smooth * inv;
    /* By the divisor that a GGUF's rope_freqs tensor has, a float: so a folder and its GGUF have the same
     * bits. */
    return inv / (double)(float)(inv / scaled);
}

static double frequency(const struct rope_config *r, int i, int dim, const float *factors)
{
    double inv = pow(r->theta, -2.0 * i / dim);
    switch (r->scaling) {
    case ROPE_SCALING_LINEAR: /* position interpolation (Chen et al. 2023, arXiv:2306.15595): positions p /
                                 factor */
        return inv / r->factor;
    case ROPE_SCALING_YARN:
        return yarn_frequency(r, inv, i, dim);
    case ROPE_SCALING_LLAMA3:
        return llama3_frequency(r, inv);
    case ROPE_SCALING_LONGROPE:
        return inv / (double)factors[i];
    default:
        return inv;
    }
}

static int check_divisors(const float *divisors, int n, const char *tensor, char *err, size_t errlen)
{
    for (int i = 0; divisors && i < n; i++)
        if (!(isfinite(divisors[i]) && divisors[i] > 0))
            return err_set(err, errlen, "tensor '%s': divisor %d is %g", tensor, i, (double)divisors[i]);
    return 0;
}

struct rope *rope_new(const struct rope_config *c, int rotary_dim, int n_sections, const float *divisors,
                      const float *long_factors, const float *short_factors, char *err, size_t errlen)
{
    int n = rotary_dim / 2, dim = rotary_dim / n_sections;
    if (c->scaling == ROPE_SCALING_LONGROPE && (!long_factors || !short_factors)) {
        (void)err_set(err, errlen, "RoPE scaling 'longrope' needs factors, and there are none");
        return NULL;
    }
    if (check_divisors(divisors, n, "rope_freqs.weight", err, errlen) ||
        check_divisors(long_factors, n, "rope_factors_long.weight", err, errlen) ||
        check_divisors(short_factors, n, "rope_factors_short.weight", err, errlen))
        return NULL;
    struct rope *r = calloc(1, sizeof *r);
    double *inv_freq = malloc(2 * (size_t)n * sizeof *inv_freq);
    if (!r || !inv_freq) {
        free(r);
        free(inv_freq);
        (void)err_set(err, errlen, "out of memory");
        return NULL;
    }
    *r = (struct rope){n, c->attention_factor, *c, inv_freq};
    for (int i = 0; i < n; i++) {
        int in_section = i % (dim / 2);
        for (int row = 0; row < 2; row++)
            inv_freq[row * n + i] = frequency(c, in_section, dim, row ? long_factors : short_factors);
        if (divisors)
            inv_freq[i] /= (double)divisors[i];
    }
    return r;
}

void rope_free(struct rope *r)
{
    if (!r)
        return;
    free(r->inv_freq);
    free(r);
}

bool rope_depends_on_length(const struct rope *r)
{
    return r->config.scaling == ROPE_SCALING_DYNAMIC || r->config.scaling == ROPE_SCALING_LONGROPE;
}

int64_t rope_length_key(const struct rope *r, int64_t len)
{
    if (!rope_depends_on_length(r) || len <= r->config.original_len)
        return 0;
    return r->config.scaling == ROPE_SCALING_DYNAMIC ? len : 1;
}

void rope_for_length(const struct rope *r, int64_t len, double *inv_freq)
{
    const struct rope_config *c = &r->config;
    int64_t key = rope_length_key(r, len);
    if (c->scaling != ROPE_SCALING_DYNAMIC || key == 0) {
        memcpy(inv_freq, r->inv_freq + key * r->n_freqs, (size_t)r->n_freqs * sizeof *inv_freq);
        return;
    }
    /* NTK-aware: the base grows so that the slowest frequency fits the text (the transformers library's
     * formula; after bloc97 and emozilla, 2023). */
    int dim = 2 * r->n_freqs;
    double stretched = c->factor * (double)len / c->original_len - (c->factor - 1);
    double base = c->theta * pow(stretched, dim / (dim - 2.0));
    for (int i = 0; i < r->n_freqs; i++)
        inv_freq[i] = pow(base, -2.0 * i / dim);
}

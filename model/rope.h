/* Rotary position embedding (Su et al. 2021, arXiv:2104.09864): the frequencies, with every scaling. */
#ifndef QUOLL_ROPE_H
#define QUOLL_ROPE_H

#include "model/model.h"

/* Angle of pair i at position p is p · inv_freq[i]; cos and sin are multiplied by the attention factor. */
struct rope {
    int n_freqs; /* rotary_dim / 2 */
    double attention_factor;
    struct rope_config config;
    /* Rows of n_freqs in host memory: row 0, and for LONGROPE row 1, of long texts. DYNAMIC has row 0 only
     * and makes others where they are needed. */
    double *inv_freq;
};

/* divisors (n_freqs): the rope_freqs tensor; long_factors, short_factors: longrope's. NULL: none.
 * NULL with a message: out of memory, or a divisor that is not a positive number. */
struct rope *rope_new(const struct rope_config *r, int rotary_dim, int n_sections, const float *divisors,
                      const float *long_factors, const float *short_factors, char *err, size_t errlen);
void rope_free(struct rope *r); /* NULL is fine */

/* YaRN's own attention factor (arXiv:2309.00071, section 3.4); mscale 1 unless a model says otherwise. */
double rope_yarn_attention(double factor, double mscale);
/* Do the frequencies depend on the length of the text? */
bool rope_depends_on_length(const struct rope *r);
/* Two lengths with the same frequencies have the same key. */
int64_t rope_length_key(const struct rope *r, int64_t len);
/* The frequencies for a text of this length. */
void rope_for_length(const struct rope *r, int64_t len, double *inv_freq);

#endif

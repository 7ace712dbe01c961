/* Inside quant/: the quantisers' search for scales and codes, once for all formats (fit_search.h says how).
 *
 * Everywhere w holds one weight per element, the importance of its squared error: finite, at least 0; NULL:
 * all 1. Elements of weight 0 still count a little (2⁻²⁰ of the block's largest weight), so that they
 * become something sensible. */
#ifndef QUOLL_QUANT_FIT_H
#define QUOLL_QUANT_FIT_H

#include "quant/formats.h"

/* The values a code can stand for: all integers lo … hi, or the 16 of a code book, ascending. */
struct codes {
    int lo, hi;
    const int8_t *book; /* NULL: every integer */
};

extern const struct codes iq4_codes; /* iq4_values */
extern const struct codes fp4_codes; /* fp4_values in order; 0 is there twice */

/* What is known of sub-blocks of 16 or 32, x ≈ d q: for lattices, whose codes are not found one by one. */
struct fit_functions {
    /* Blocks of 32: x ≈ d q with q among the codes; x ≈ d q + m with q = 0 … q_max. */
    void (*block)(struct block_32 *b, const float *x, const float *w, const struct codes *codes);
    void (*block_min)(struct block_32 *b, const float *x, const float *w, int q_max);
    /* q = −q_max … q_max, the largest magnitude exactly on the last: with codes this fine, cutting it off
     * never pays. */
    void (*block_extreme)(struct block_32 *b, const float *x, int q_max);

    /* n elements, x ≈ d (q − zero), q = 0 … 2^bits − 1, zero = 1 … 2^bits − 1, d a half float. Not finite:
     * d is NaN. */
    void (*group_zero)(float *d, int *zero, uint8_t *q, const float *x, const float *w, int64_t n, int bits);

    /* Super-blocks of 256 in sub-blocks of sub_len: x ≈ d scale q with scale = scale_lo … −scale_lo − 1;
     * x ≈ d scale q − dmin min with q = 0 … q_max, scale and min = 0 … scale_max. */
    void (*super)(struct block_256 *b, const float *x, const float *w, int sub_len, const struct codes *codes,
                  int scale_lo);
    void (*super_min)(struct block_256 *b, const float *x, const float *w, int sub_len, int q_max,
                      int scale_max);

    /* n ≤ 32 elements: the scale for which x ≈ d q is best, not rounded, and the weighted squared error that
     * d, as given, leaves (codes into q). x and w are not checked: finite, far from overflow. */
    float (*scale)(const float *x, const float *w, int n, const struct codes *codes);
    float (*assign)(int8_t *q, const float *x, const float *w, int n, const struct codes *codes, float d);
};

/* The same functions compiled for two CPU levels, to the same bits; fit_functions() is the faster one that
 * this CPU has. */
extern const struct fit_functions fit_plain, fit_avx2;
const struct fit_functions *fit_functions(void);

#endif

/* Inside quant/: the quantisers' search for scales, once for all formats (see fit.c). */
#ifndef QUOLL_QUANT_FIT_H
#define QUOLL_QUANT_FIT_H

#include "quant/formats.h"

/* The values a code can stand for: all integers lo … hi, or the 16 of a code book, ascending. */
struct codes {
    int lo, hi;
    const int8_t *book; /* NULL: every integer */
    const float *edges; /* the 15 halfway points between the book's values */
};

extern const struct codes iq4_codes; /* iq4_values */

/* Blocks of 32: x ≈ d q with q among the codes; x ≈ d q + m with q = 0 … q_max. */
void fit_32(struct block_32 *b, const float *x, const struct codes *codes);
/* q = −q_max … q_max, the largest magnitude exactly on the last: with codes this fine, cutting it off never
 * pays. */
void fit_32_extreme(struct block_32 *b, const float *x, int q_max);
void fit_32_min(struct block_32 *b, const float *x, int q_max);

/* x ≈ d (q − zero), q = 0 … q_max: rounded to nearest between the least and the greatest value. */
void fit_32_zero(struct block_zero *b, const float *x, int q_max);

/* Super-blocks of 256 in sub-blocks of sub_len: x ≈ d scale q with scale = scale_lo … −scale_lo − 1;
 * x ≈ d scale q − dmin min with q = 0 … q_max, scale and min = 0 … scale_max. */
void fit_256(struct block_256 *b, const float *x, int sub_len, const struct codes *codes, int scale_lo);
void fit_256_min(struct block_256 *b, const float *x, int sub_len, int q_max, int scale_max);

#endif

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

/* The points that an index of IQ1, IQ2 or IQ3 can stand for, and the blocks they are used in:
 * x ≈ d unit (2 scale + 1) (± p), with a shift instead of signs (p ± 1/8). */
struct lattice {
    const float *points; /* [len][n], n a multiple of 8 */
    int n, len;          /* len: elements per index, 4 or 8 */
    int sub_len, scale_max;
    float unit, largest, least; /* magnitudes of the points' elements, but 0 */
    bool even_signs;            /* of every eight elements an even number is negative */
    enum { SHIFT_NONE, SHIFT_BY_SUB, SHIFT_BY_GROUP } shift;
};

struct lattice_block {
    float d;
    uint8_t scale[16];
    uint16_t index[64];
    bool down[64];     /* of each index: the shift is −1/8 */
    uint8_t signs[32]; /* bit i: element 8 k + i is negative */
};

/* The points of a grid of grids.h (8 bytes per index, or 4), as `points` has them; made on the first call. */
const float *lattice_iq1(void), *lattice_iq2_xxs(void), *lattice_iq2_xs(void), *lattice_iq2_s(void),
    *lattice_iq3_xxs(void), *lattice_iq3_s(void);

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

    void (*lattice)(struct lattice_block *b, const float *x, const float *w, const struct lattice *l);

    /* n elements, up to 256 and a multiple of 8: x ≈ d q, d a half float. */
    void (*codes)(float *d, int8_t *q, const float *x, const float *w, int n, const struct codes *codes);
    /* The same with d one of n_scales, ascending: which. false: not finite. */
    bool (*listed)(int *scale, int8_t *q, const float *x, const float *w, int n, const struct codes *codes,
                   const float *scales, int n_scales);
};

/* The same functions compiled for two CPU levels, to the same bits; fit_functions() is the faster one that
 * this CPU has. */
extern const struct fit_functions fit_plain, fit_avx2;
const struct fit_functions *fit_functions(void);

#endif

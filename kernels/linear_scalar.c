/* The reference product: textbook loops over the packed data, in the numerics contract's order. Every
 * other level gives these bits. */
#include "kernels/linear_decode.h"

#include <math.h>

#define MAC_TOKENS 1
#define MAC_ANY_BITS
#define FMA_TOKENS 1

/* Σ (code − zero) · activation over groups g0 … g1 − 1 of one row of a block: exact. */
static int32_t block_sum(const struct pack_format f, const uint8_t (*w)[GROUP_BYTES], const int8_t *q,
                         int row, int g0, int g1)
{
    int32_t sum = 0;
    for (int g = g0; g < g1; g++)
        for (int i = 0; i < 4; i++)
            sum += ((int32_t)w[g][4 * row + i] - f.zero) * q[4 * g + i];
    return sum;
}

static void mac_tokens(const struct pack_format f, const struct chunk *c, int n_blocks,
                       const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    (void)n;
    for (int r = 0; r < TILE_ROWS; r++) {
        float acc = 0.0f, mins = 0.0f;
        for (int b = 0; b < n_blocks; b++) {
            const struct act_block *a = &x[b * width];
            int32_t sum, min;
            switch (f.scales) {
            case SCALE_BLOCK:
            case SCALE_BLOCK_MIN:
            case SCALE_BLOCK_ZERO:
                sum = block_sum(f, c->w[b], a->q, r, 0, GROUPS);
                if (f.scales == SCALE_BLOCK_ZERO)
                    sum -= (int32_t)c->m[b][r] * (a->sum[0] + a->sum[1]);
                acc = fmaf((float)sum, c->d[b][r] * a->d, acc);
                if (scales_have_min(f.scales))
                    mins = fmaf(c->m[b][r], a->ds, mins);
                break;
            case SCALE_BLOCK16:
                for (int half = 0; half < 2; half++) {
                    sum = block_sum(f, c->w[b], a->q, r, half * GROUPS / 2, (half + 1) * GROUPS / 2);
                    acc = fmaf((float)sum, c->d[2 * b + half][r] * a->d, acc);
                }
                break;
            case SCALE_SUPER32:
            case SCALE_SUPER32_MIN:
                sum = (int32_t)c->scale[b][r] * block_sum(f, c->w[b], a->q, r, 0, GROUPS);
                acc = fmaf((float)sum, a->d, acc);
                if (scales_have_min(f.scales)) {
                    min = (int32_t)c->min[b][r] * (a->sum[0] + a->sum[1]);
                    mins = fmaf((float)min, a->d, mins);
                }
                break;
            case SCALE_SUPER16:
            case SCALE_SUPER16_MIN:
                sum = (int32_t)c->scale[2 * b][r] * block_sum(f, c->w[b], a->q, r, 0, GROUPS / 2) +
                      (int32_t)c->scale[2 * b + 1][r] * block_sum(f, c->w[b], a->q, r, GROUPS / 2, GROUPS);
                acc = fmaf((float)sum, a->d, acc);
                if (scales_have_min(f.scales)) {
                    min = (int32_t)c->min[2 * b][r] * a->sum[0] + (int32_t)c->min[2 * b + 1][r] * a->sum[1];
                    mins = fmaf((float)min, a->d, mins);
                }
                break;
            case SCALE_NONE:
                break;
            }
        }
        float *y = &total[0][r];
        if (scales_are_super(f.scales)) {
            *y = fmaf(acc, c->d[0][r], *y);
            if (scales_have_min(f.scales))
                *y = fmaf(-c->m[0][r], mins, *y);
        } else {
            *y += acc;
            if (scales_have_min(f.scales))
                *y += mins;
        }
    }
}

/* The reference has one way only: decode, then multiply. */
INLINE void mac_packed(const struct pack_format f, struct chunk *c, const struct chunk_view *packed,
                       int n_blocks, const struct act_block *x, float (*total)[TILE_ROWS])
{
    for (int b = 0; b < n_blocks; b++)
        decode_block(c->w[b], f, packed->low + b * f.low_bits * GROUP_BYTES,
                     packed->high + b * f.high_bits * GROUP_BYTES);
    mac_tokens(f, c, n_blocks, x, 1, 1, total);
}

static void fma_tokens(const float (*w)[TILE_ROWS], int n_cols, const float *x, int64_t stride, int n,
                       float (*total)[TILE_ROWS])
{
    (void)stride;
    (void)n;
    for (int r = 0; r < TILE_ROWS; r++) {
        float acc = 0.0f;
        for (int k = 0; k < n_cols; k++)
            acc = fmaf(w[k][r], x[k], acc);
        total[0][r] += acc;
    }
}

static void quantise(struct act_block *dst, int64_t stride, const float *x, int64_t n)
{
    for (int64_t b = 0; b < n / ACT_LEN; b++)
        act_quantise(dst + b * stride, x + b * ACT_LEN, ACT_LEN);
}

#include "kernels/linear_tiles.h"

const struct linear_kernels linear_scalar = LINEAR_KERNELS(quantise);

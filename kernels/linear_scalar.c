/* The reference product: textbook loops over the packed data, in the numerics contract's order. Every
 * other level gives these bits. */
#include "kernels/linear_decode.h"

#include <math.h>

#define MAC_TOKENS 1
#define MAC_ANY_BITS
#define FMA_TOKENS 4
#define FMA_CHUNKS 1

INLINE int tokens_at_once(const struct pack_format f)
{
    (void)f;
    return MAC_TOKENS;
}

/* Eight codes at a time: shifts and masks of 64-bit words. */
typedef uint64_t word __attribute__((may_alias, aligned(1)));

/* `bits` bits of every byte, from bit `shift` on. */
INLINE uint64_t bits_of(uint64_t bytes, int shift, int bits)
{
    return bytes >> shift & 0x0101010101010101u * ((1u << bits) - 1);
}

/* Indices of a code book to its values + zero. */
INLINE void decode_code_book(uint8_t *restrict w, const int8_t book[16], int zero)
{
    for (int i = 0; i < GROUP_BYTES; i++)
        w[i] = (uint8_t)(book[w[i]] + zero);
}

/* The codes of one block of 32 columns. */
INLINE void decode_block(uint8_t (*restrict w)[GROUP_BYTES], const struct pack_format f,
                         const uint8_t *restrict low, const uint8_t *restrict high)
{
    UNROLL
    for (int g = 0; g < GROUPS; g++) {
        word *restrict o = (word *)(void *)w[g];
        const word *l = (const word *)(const void *)(low + plane_of(f.low_bits, g) * GROUP_BYTES);
        const word *h = (const word *)(const void *)(high + plane_of(f.high_bits, g) * GROUP_BYTES);
        for (int i = 0; i < GROUP_BYTES / 8; i++) {
            uint64_t q = bits_of(l[i], plane_shift(f.low_bits, g), f.low_bits);
            if (f.high_bits)
                q |= bits_of(h[i], plane_shift(f.high_bits, g), f.high_bits) << f.low_bits;
            o[i] = q;
        }
        if (f.code_book)
            decode_code_book(w[g], f.code_book, f.zero);
    }
}

INLINE void decode_blocks(struct chunk *restrict c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    for (int b = 0; b < n_blocks; b++)
        decode_block(c->w[b], f, v.low + b * f.low_bits * GROUP_BYTES,
                     v.high + b * f.high_bits * GROUP_BYTES);
}

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
                    sum += c->offset[b][r][0] * (a->sum[0] + a->sum[1]);
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
                sum = c->scale[b][r][0] * block_sum(f, c->w[b], a->q, r, 0, GROUPS);
                acc = fmaf((float)sum, a->d, acc);
                if (scales_have_min(f.scales)) {
                    min = c->min[b][r][0] * (a->sum[0] + a->sum[1]);
                    mins = fmaf((float)min, a->d, mins);
                }
                break;
            case SCALE_SUPER16:
            case SCALE_SUPER16_MIN:
                sum = c->scale[2 * b][r][0] * block_sum(f, c->w[b], a->q, r, 0, GROUPS / 2) +
                      c->scale[2 * b + 1][r][0] * block_sum(f, c->w[b], a->q, r, GROUPS / 2, GROUPS);
                acc = fmaf((float)sum, a->d, acc);
                if (scales_have_min(f.scales)) {
                    min = c->min[b][r][0] * a->sum[0] + c->min[b][r][1] * a->sum[1];
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
                       int n_blocks, const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    decode_blocks(c, f, *packed, n_blocks);
    mac_tokens(f, c, n_blocks, x, width, n, total);
}

static void fma_tokens(const float (*w)[TILE_ROWS], int n_cols, const float *x, int64_t stride, int width,
                       int n, float (*total)[TILE_ROWS])
{
    (void)stride;
    for (int t = 0; t < n; t++)
        for (int r = 0; r < TILE_ROWS; r++) {
            float acc = 0.0f;
            for (int k = 0; k < n_cols; k++)
                acc = fmaf(w[k][r], x[k * width + t], acc);
            total[t][r] += acc;
        }
}

static float packed_weight(enum qtype type, const uint8_t *src, int i)
{
    uint16_t half;
    float x;
    if (type == QTYPE_F32) {
        memcpy(&x, src + (size_t)i * sizeof x, sizeof x);
        return x;
    }
    memcpy(&half, src + (size_t)i * sizeof half, sizeof half);
    return type == QTYPE_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

static void fma_packed(enum qtype type, const uint8_t *src, int n_cols, int n_chunks, const float *x,
                       float *total)
{
    (void)n_chunks;
    for (int r = 0; r < TILE_ROWS; r++) {
        float acc = 0.0f;
        for (int k = 0; k < n_cols; k++)
            acc = fmaf(packed_weight(type, src, k * TILE_ROWS + r), x[k], acc);
        total[r] += acc;
    }
}

static void quantise(struct act_block *dst, int64_t stride, const float *x, int64_t n)
{
    for (int64_t b = 0; b < n / ACT_LEN; b++)
        act_quantise(dst + b * stride, x + b * ACT_LEN, ACT_LEN);
}

/* Eight sums each, unknown to the compiler. */
static int64_t peak_dots(int64_t n)
{
    int32_t sum[8] = {0}, q = 3;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) {
            __asm__ volatile("" : "+r"(q));
            sum[k] += k * q;
        }
    for (int k = 0; k < 8; k++)
        __asm__ volatile("" : : "r"(sum[k]));
    return 8 * n;
}

static int64_t peak_fmas(int64_t n)
{
    float sum[8] = {0}, x = 3;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) {
            __asm__ volatile("" : "+x"(x));
            sum[k] = fmaf(x, x, sum[k]);
        }
    for (int k = 0; k < 8; k++)
        __asm__ volatile("" : : "x"(sum[k]));
    return 8 * n;
}

#include "kernels/linear_tiles.h"

const struct linear_kernels linear_scalar = LINEAR_KERNELS(quantise);

/* Inside quant/: what is done with unpacked blocks, once for all formats. The two dot products are
 * the specification, bit for bit, of every fast kernel (numerics contract, rules 2 and 3).
 *
 *   K in chunks of 256, the last may be short. A chunk's accumulators start at +0; total starts at +0
 *   and takes the chunks in order. a, d_a, ds_a, sum_a: the activations' struct act_block.
 *
 *   blocks of 32, for each of the chunk's blocks in order:
 *       isum  = Σ q·a                        exact, int32
 *       acc   = fmaf(isum, d_w · d_a, acc)   the product of the scales is rounded first
 *       mins  = fmaf(m, ds_a, mins)          formats with a minimum only
 *   at the chunk's end:
 *       total = total + acc
 *       total = total + mins                 formats with a minimum only
 *
 *   blocks of 32 of asymmetric integers: as above without a minimum, with
 *       isum  = Σ q·a − zero·Σ a             exact, int32
 *
 *   super-blocks of 256, one is one chunk, for each 32 activations in order:
 *       S     = Σ scale·(Σ q·a)              exact, int32, |S| < 2²⁴: no rounding on the way to float
 *       acc   = fmaf(S, d_a, acc)
 *       M     = Σ min·(Σ a)                  formats with minima only
 *       mins  = fmaf(M, d_a, mins)           formats with minima only
 *   at the chunk's end:
 *       total = fmaf(acc, d, total)
 *       total = fmaf(−dmin, mins, total)     formats with minima only
 *
 * q has its zero point subtracted: zero points never become float terms. */
#ifndef QUOLL_QUANT_BLOCKS_H
#define QUOLL_QUANT_BLOCKS_H

#include "quant/formats.h"

#include <math.h>

/* Defines TYPE_dot(row, x, n) as an expression, compiled twice: for CPUs with the FMA instruction and
 * without, where libm's fmaf gives the same bits, slowly. (target_clones would say it shorter, but clang 14
 * names the result differently, and ThreadSanitizer crashes in its resolver.) */
#define DEFINE_DOT(type, expression)                                                                      \
    __attribute__((target("fma"))) static float type##_dot_fma(const void *row, const void *x, int64_t n) \
    {                                                                                                     \
        return expression;                                                                                \
    }                                                                                                     \
    static float type##_dot_libm(const void *row, const void *x, int64_t n)                               \
    {                                                                                                     \
        return expression;                                                                                \
    }                                                                                                     \
    float type##_dot(const void *row, const void *x, int64_t n)                                           \
    {                                                                                                     \
        return __builtin_cpu_supports("fma") ? type##_dot_fma(row, x, n) : type##_dot_libm(row, x, n);    \
    }

/* So that the format's unpacking, passed as a pointer, is inlined too. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Reads a block, of any alignment, into its shape. */
typedef void unpack_32(struct block_32 *b, const void *block);
typedef void unpack_256(struct block_256 *b, const void *block);
typedef void unpack_zero(struct block_zero *b, const void *block);
/* Writes a shape to a block. */
typedef void store_32(void *block, const struct block_32 *b);
typedef void store_256(void *block, const struct block_256 *b);
typedef void store_zero(void *block, const struct block_zero *b);
/* Quantises one block's values and writes it, to any alignment. w: their weights, NULL: all 1. */
typedef void pack_block(void *block, const float *x, const float *w);

ALWAYS_INLINE void decode_32(float *dst, const void *src, int64_t n, int64_t block_bytes, bool has_min,
                             unpack_32 *unpack)
{
    const uint8_t *block = src;
    for (; n > 0; n -= 32, dst += 32, block += block_bytes) {
        struct block_32 b;
        unpack(&b, block);
        for (int i = 0; i < 32; i++)
            dst[i] = has_min ? b.d * (float)b.q[i] + b.m : b.d * (float)b.q[i];
    }
}

/* d·scale and dmin·min are exact in float (11 + 8 bits), so only the last step rounds, as in GGUF. */
ALWAYS_INLINE void decode_256(float *dst, const void *src, int64_t n, int64_t block_bytes, bool has_min,
                              unpack_256 *unpack)
{
    const uint8_t *block = src;
    for (; n > 0; n -= QK_K, dst += QK_K, block += block_bytes) {
        struct block_256 b;
        unpack(&b, block);
        for (int j = 0; j < QK_K / 16; j++) {
            float scale = b.d * (float)b.scale[j], min = has_min ? b.dmin * (float)b.min[j] : 0;
            for (int i = 16 * j; i < 16 * (j + 1); i++)
                dst[i] = has_min ? scale * (float)b.q[i] - min : scale * (float)b.q[i];
        }
    }
}

ALWAYS_INLINE void decode_zero(float *dst, const void *src, int64_t n, int64_t block_bytes,
                               unpack_zero *unpack)
{
    const uint8_t *block = src;
    for (; n > 0; n -= 32, dst += 32, block += block_bytes) {
        struct block_zero b;
        unpack(&b, block);
        for (int i = 0; i < 32; i++)
            dst[i] = b.d * (float)(b.q[i] - b.zero);
    }
}

static inline void encode_blocks(void *dst, const float *src, const float *importance, int64_t n,
                                 int block_len, int64_t block_bytes, pack_block *pack)
{
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += block_len, block += block_bytes)
        pack(block, src + i, importance ? importance + i : NULL);
}

/* The table's grid and set_codes: what a block's codes stand for, and other codes for its scales. Codes of a
 * book are numbers of its entries. */
#define DEFINE_CODES_32(type, lo_, hi_, book_, has_min)                     \
    void type##_grid(struct code_grid *g, const void *block)                \
    {                                                                       \
        struct block_32 b;                                                  \
        unpack(&b, block);                                                  \
        *g = (struct code_grid){.lo = (lo_), .hi = (hi_), .book = (book_)}; \
        for (int j = 0; j < 2; j++) {                                       \
            g->scale[j] = b.d;                                              \
            g->offset[j] = (has_min) ? b.m : 0;                             \
        }                                                                   \
    }                                                                       \
    void type##_set_codes(void *block, const int16_t *code)                 \
    {                                                                       \
        const int8_t *const book = (book_);                                 \
        struct block_32 b;                                                  \
        unpack(&b, block);                                                  \
        for (int i = 0; i < 32; i++)                                        \
            b.q[i] = book ? book[code[i]] : (int8_t)code[i];                \
        store(block, &b);                                                   \
    }

#define DEFINE_CODES_256(type, lo_, hi_, book_, has_min)                    \
    void type##_grid(struct code_grid *g, const void *block)                \
    {                                                                       \
        struct block_256 b;                                                 \
        unpack(&b, block);                                                  \
        *g = (struct code_grid){.lo = (lo_), .hi = (hi_), .book = (book_)}; \
        for (int j = 0; j < 16; j++) {                                      \
            g->scale[j] = b.d * (float)b.scale[j];                          \
            g->offset[j] = (has_min) ? -b.dmin * (float)b.min[j] : 0;       \
        }                                                                   \
    }                                                                       \
    void type##_set_codes(void *block, const int16_t *code)                 \
    {                                                                       \
        const int8_t *const book = (book_);                                 \
        struct block_256 b;                                                 \
        unpack(&b, block);                                                  \
        for (int i = 0; i < QK_K; i++)                                      \
            b.q[i] = book ? book[code[i]] : (int8_t)code[i];                \
        store(block, &b);                                                   \
    }

#define DEFINE_CODES_ZERO(type, bits, unpack_, store_)             \
    void type##_grid(struct code_grid *g, const void *block)       \
    {                                                              \
        struct block_zero b;                                       \
        unpack_(&b, block);                                        \
        *g = (struct code_grid){.lo = 0, .hi = (1 << (bits)) - 1}; \
        for (int j = 0; j < 2; j++) {                              \
            g->scale[j] = b.d;                                     \
            g->offset[j] = -b.d * (float)b.zero;                   \
        }                                                          \
    }                                                              \
    void type##_set_codes(void *block, const int16_t *code)        \
    {                                                              \
        struct block_zero b;                                       \
        unpack_(&b, block);                                        \
        for (int i = 0; i < 32; i++)                               \
            b.q[i] = (uint8_t)code[i];                             \
        store_(block, &b);                                         \
    }

ALWAYS_INLINE int32_t dot_i8(const int8_t *q, const int8_t *a, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i] * a[i];
    return sum;
}

ALWAYS_INLINE float dot_32(const void *row, const void *x, int64_t n, int64_t block_bytes, bool has_min,
                           unpack_32 *unpack)
{
    const uint8_t *block = row;
    const struct act_block *a = x;
    float total = 0;
    while (n > 0) {
        float acc = 0, mins = 0;
        for (int i = 0; i < CHUNK_LEN / 32 && n > 0; i++, n -= 32, a++, block += block_bytes) {
            struct block_32 b;
            unpack(&b, block);
            acc = fmaf((float)dot_i8(b.q, a->q, 32), b.d * a->d, acc);
            if (has_min)
                mins = fmaf(b.m, a->ds, mins);
        }
        total += acc;
        if (has_min)
            total += mins;
    }
    return total;
}

ALWAYS_INLINE float dot_zero(const void *row, const void *x, int64_t n, int64_t block_bytes,
                             unpack_zero *unpack)
{
    const uint8_t *block = row;
    const struct act_block *a = x;
    float total = 0;
    while (n > 0) {
        float acc = 0;
        for (int i = 0; i < CHUNK_LEN / 32 && n > 0; i++, n -= 32, a++, block += block_bytes) {
            struct block_zero b;
            unpack(&b, block);
            int32_t sum = -b.zero * (a->sum[0] + a->sum[1]);
            for (int k = 0; k < 32; k++)
                sum += b.q[k] * a->q[k];
            acc = fmaf((float)sum, b.d * a->d, acc);
        }
        total += acc;
    }
    return total;
}

ALWAYS_INLINE float dot_256(const void *row, const void *x, int64_t n, int64_t block_bytes, bool has_min,
                            unpack_256 *unpack)
{
    const uint8_t *block = row;
    const struct act_block *a = x;
    float total = 0;
    for (; n > 0; n -= QK_K, block += block_bytes) {
        struct block_256 b;
        unpack(&b, block);
        float acc = 0, mins = 0;
        for (int i = 0; i < QK_K / 32; i++, a++) {
            const int8_t *q = b.q + 32 * i;
            int32_t s =
                b.scale[2 * i] * dot_i8(q, a->q, 16) + b.scale[2 * i + 1] * dot_i8(q + 16, a->q + 16, 16);
            acc = fmaf((float)s, a->d, acc);
            if (has_min) {
                int32_t m = b.min[2 * i] * a->sum[0] + b.min[2 * i + 1] * a->sum[1];
                mins = fmaf((float)m, a->d, mins);
            }
        }
        total = fmaf(acc, b.d, total);
        if (has_min)
            total = fmaf(-b.dmin, mins, total);
    }
    return total;
}

#endif

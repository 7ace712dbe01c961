/* A packed chunk of 16 rows × up to 256 columns as plain arrays. Included by each level's file, so that
 * the compiler vectorises these loops for that level; always inlined with a constant format. */
#ifndef QUOLL_LINEAR_DECODE_H
#define QUOLL_LINEAR_DECODE_H

#include "kernels/linear.h"

#include <stdalign.h>
#include <string.h>

#ifdef __AVX2__
#include "kernels/simd.h"
#endif

struct chunk {
    /* Codes: [block][group][4 row + column % 4], unsigned; a weight is w − zero. */
    alignas(64) uint8_t w[CHUNK_BLOCKS][GROUPS][GROUP_BYTES];
    alignas(64) float d[CHUNK_BLOCKS][TILE_ROWS]; /* k-quants: [0] */
    float m[CHUNK_BLOCKS][TILE_ROWS];
    float scale[MAX_CODES][TILE_ROWS]; /* integers, exact; per 32 or per 16 columns */
    float min[MAX_CODES][TILE_ROWS];
};

/* Loops over tokens, groups and halves must vanish, or their arrays would not live in registers. */
#ifdef QUOLL_EMULATE_AVX512
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define INLINE static inline __attribute__((always_inline))

/* One row of 16 half floats to float. */
INLINE void decode_halves(float *restrict dst, const uint16_t *restrict src)
{
#ifdef __AVX2__
    _mm256_store_ps(dst, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)src)));
    _mm256_store_ps(dst + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + 8))));
#else
    for (int r = 0; r < TILE_ROWS; r++)
        dst[r] = f16_to_f32(src[r]);
#endif
}

/* Codes of the non-linear 4-bit types to values + 128. */
INLINE void decode_code_book(uint8_t *restrict w)
{
#ifdef __AVX2__
    __m128i table = _mm_loadu_si128((const __m128i *)(const void *)iq4_values);
    __m256i book = _mm256_xor_si256(_mm256_broadcastsi128_si256(table), _mm256_set1_epi8((char)-128));
    for (int i = 0; i < GROUP_BYTES; i += 32) {
        __m256i q = _mm256_load_si256((const __m256i *)(const void *)(w + i));
        _mm256_store_si256((__m256i *)(void *)(w + i), _mm256_shuffle_epi8(book, q));
    }
#else
    for (int i = 0; i < GROUP_BYTES; i++)
        w[i] = (uint8_t)(iq4_values[w[i]] + 128);
#endif
}

/* The codes of one block of 32 columns. */
INLINE void decode_block(uint8_t (*restrict w)[GROUP_BYTES], const struct pack_format f,
                         const uint8_t *restrict low, const uint8_t *restrict high)
{
    for (int g = 0; g < GROUPS; g++) {
        uint8_t *restrict o = w[g];
        const uint8_t *p = low + (f.low_bits == 8 ? g : f.low_bits == 4 ? g % 4 : g / 4) * GROUP_BYTES;
        int shift = f.low_bits == 8 ? 0 : f.low_bits == 4 ? g / 4 * 4 : g % 4 * 2;
        if (f.high_bits == 0) {
            for (int i = 0; i < GROUP_BYTES; i++)
                o[i] = (uint8_t)(p[i] >> shift & ((1 << f.low_bits) - 1));
        } else {
            const uint8_t *h = high + (f.high_bits == 2 ? g / 4 : 0) * GROUP_BYTES;
            int hshift = f.high_bits == 2 ? g % 4 * 2 : g;
            for (int i = 0; i < GROUP_BYTES; i++)
                o[i] = (uint8_t)((p[i] >> shift & ((1 << f.low_bits) - 1)) |
                                 (h[i] >> hshift & ((1 << f.high_bits) - 1)) << f.low_bits);
        }
        if (f.code_book)
            decode_code_book(o);
    }
}

/* Integer scale j (of n_codes) of 16 rows. */
INLINE void decode_codes(uint8_t *restrict dst, const struct pack_format f, const uint8_t *codes, int j)
{
    if (f.code_bits == 8) {
        memcpy(dst, codes + j * TILE_ROWS, TILE_ROWS);
        return;
    }
    int half = f.n_codes / 2, quarter = f.n_codes / 4;
    const uint8_t *lo = codes + j % half * TILE_ROWS;
    const uint8_t *hi = codes + (half + j % quarter) * TILE_ROWS;
    int lo_shift = j / half * 4, hi_shift = j / quarter * 2;
    for (int r = 0; r < TILE_ROWS; r++)
        dst[r] = (uint8_t)((lo[r] >> lo_shift & 15) | (hi[r] >> hi_shift & 3) << 4);
}

INLINE void decode_scales(struct chunk *restrict c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    uint8_t code[TILE_ROWS];
    if (!scales_are_super(f.scales)) {
        for (int b = 0; b < n_blocks; b++) {
            decode_halves(c->d[b], v.d + b * TILE_ROWS);
            if (scales_have_min(f.scales))
                decode_halves(c->m[b], v.m + b * TILE_ROWS);
        }
        return;
    }
    decode_halves(c->d[0], v.d);
    if (scales_have_min(f.scales))
        decode_halves(c->m[0], v.m);
    int n = f.scales == SCALE_SUPER32 || f.scales == SCALE_SUPER32_MIN ? 8 : 16;
    for (int j = 0; j < n; j++) {
        decode_codes(code, f, v.codes, j);
        if (f.scales == SCALE_SUPER16_MIN) { /* Q2_K: scale and minimum in one byte */
            for (int r = 0; r < TILE_ROWS; r++) {
                c->scale[j][r] = (float)(code[r] & 15);
                c->min[j][r] = (float)(code[r] >> 4);
            }
        } else if (f.scales == SCALE_SUPER16 && f.code_bits == 8) { /* Q6_K: signed bytes */
            for (int r = 0; r < TILE_ROWS; r++)
                c->scale[j][r] = (float)(int8_t)code[r];
        } else {
            for (int r = 0; r < TILE_ROWS; r++)
                c->scale[j][r] = (float)((int)code[r] - f.code_zero);
        }
    }
    if (f.scales == SCALE_SUPER32_MIN)
        for (int j = 0; j < n; j++) {
            decode_codes(code, f, v.codes, n + j);
            for (int r = 0; r < TILE_ROWS; r++)
                c->min[j][r] = (float)code[r];
        }
}

INLINE void decode_chunk(struct chunk *restrict c, const struct pack_format f, const uint8_t *src, int n_blocks)
{
    struct chunk_view v = chunk_view(&f, src, n_blocks);
    for (int b = 0; b < n_blocks; b++)
        decode_block(c->w[b], f, v.low + b * f.low_bits * GROUP_BYTES, v.high + b * f.high_bits * GROUP_BYTES);
    decode_scales(c, f, v, n_blocks);
}

/* The same chunk as float weights [column][row], exactly as qtypes[].to_f32 computes them. */
INLINE void decode_floats(float (*restrict dst)[TILE_ROWS], const struct pack_format f,
                          const struct chunk *restrict c, int n_blocks)
{
    for (int b = 0; b < n_blocks; b++)
        for (int half = 0; half < 2; half++) {
            float d[TILE_ROWS], m[TILE_ROWS];
            int sub = f.scales >= SCALE_SUPER16 ? 2 * b + half : b;
            for (int r = 0; r < TILE_ROWS; r++) {
                if (scales_are_super(f.scales)) {
                    d[r] = c->d[0][r] * c->scale[sub][r];
                    m[r] = scales_have_min(f.scales) ? c->m[0][r] * c->min[sub][r] : 0.0f;
                } else {
                    d[r] = c->d[b][r];
                    m[r] = scales_have_min(f.scales) ? -c->m[b][r] : 0.0f;
                }
            }
            for (int k = 16 * half; k < 16 * half + 16; k++)
                for (int r = 0; r < TILE_ROWS; r++) {
                    int q = (int)c->w[b][k / 4][4 * r + k % 4] - f.zero;
                    float x = d[r] * (float)q;
                    dst[ACT_LEN * b + k][r] = scales_have_min(f.scales) ? x - m[r] : x;
                }
        }
}

/* Float types: n_cols columns of 16 rows. */
INLINE void decode_f32(float (*restrict dst)[TILE_ROWS], const uint8_t *src, int n_cols)
{
    memcpy(dst, src, (size_t)n_cols * sizeof *dst);
}

INLINE void decode_f16(float (*restrict dst)[TILE_ROWS], const uint8_t *src, int n_cols)
{
    for (int k = 0; k < n_cols; k++)
        decode_halves(dst[k], (const uint16_t *)(const void *)src + k * TILE_ROWS);
}

INLINE void decode_bf16(float (*restrict dst)[TILE_ROWS], const uint8_t *src, int n_cols)
{
    const uint16_t *restrict s = (const uint16_t *)(const void *)src;
    for (int k = 0; k < n_cols; k++)
        for (int r = 0; r < TILE_ROWS; r++) {
            uint32_t bits = (uint32_t)s[k * TILE_ROWS + r] << 16;
            memcpy(&dst[k][r], &bits, sizeof bits);
        }
}

#endif

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
#ifdef MAC_NIBBLES /* codes of 8 bits: w has the lower halves, high the upper ones */
    alignas(64) uint8_t high[CHUNK_BLOCKS][GROUPS][GROUP_BYTES];
#endif
    alignas(64) float d[2 * CHUNK_BLOCKS][TILE_ROWS]; /* per 32 or per 16 columns; k-quants: [0] */
    alignas(64) float m[CHUNK_BLOCKS][TILE_ROWS];
    /* Integers in pairs, which one instruction multiplies with a pair of sums and adds (vpmaddwd, vpdpwssd).
     * A scale, of 32 or of 16 columns, is there twice: it meets two sums of products, which add up. In offset
     * and min the pair belongs to a block's halves: it meets the two sums of a block of activations. */
    alignas(64) int16_t scale[MAX_CODES][TILE_ROWS][2];
    alignas(64) int16_t offset[CHUNK_BLOCKS][TILE_ROWS][2]; /* −zero · scale, or −(a row's own zero point) */
    alignas(64) int16_t min[CHUNK_BLOCKS][TILE_ROWS][2];
};

/* Loops over tokens, groups and halves must vanish, or their arrays would not live in registers. */
#ifdef QUOLL_SMALL_KERNELS
#define UNROLL
#elif defined(__clang__)
/* A loop of no turns (a type without such codes) cannot be unrolled, and need not be. */
#pragma GCC diagnostic ignored "-Wpass-failed"
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

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

/* 16 scales of a byte each. */
INLINE void decode_byte_scales(float *restrict dst, enum scale_format d, const uint8_t *restrict src)
{
#ifdef __AVX2__
    if (d == D_E4M3) { /* as e4m3_half_to_f32 */
        const __m256i nan = _mm256_set1_epi32(0x7f);
        for (int r = 0; r < TILE_ROWS; r += 8) {
            __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(src + r)));
            __m256i bits = _mm256_slli_epi32(_mm256_and_si256(x, nan), 20);
            __m256 y = _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0x1p119f));
            _mm256_store_ps(dst + r, _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x, nan)), y));
        }
        return;
    }
#endif
    for (int r = 0; r < TILE_ROWS; r++)
        dst[r] = d == D_E8M0 ? e8m0_half_to_f32(src[r]) : e4m3_half_to_f32(src[r]);
}

/* Codes of 8 bits. */
INLINE bool is_wide(const struct pack_format f)
{
    return decoded_bits(&f) == 8;
}

/* vpmaddubsw sums pairs of products in 16 bits: so many groups' results fit there, of codes of 7 bits at
 * most; each is at most 2 · (2^bits − 1) · 127. */
INLINE int groups_in_16_bits(const struct pack_format f)
{
    int bits = decoded_bits(&f);
    return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}

/* 16 integers, one of each row. */
#ifdef __AVX2__
typedef __m256i rows16;
#else
typedef struct {
    int16_t v[TILE_ROWS];
} rows16;
#endif

/* Integer code j of 16 rows, or half a byte of it, or the byte with its sign; less the format's zero. */
enum code_part { CODE_WHOLE, CODE_SIGNED, CODE_LOW_NIBBLE, CODE_HIGH_NIBBLE };

#ifdef __AVX2__

INLINE rows16 decode_code(const struct pack_format f, const uint8_t *codes, int j, enum code_part part)
{
    const __m128i nibble = _mm_set1_epi8(15);
    __m128i code;
    if (f.code_bits == 8) {
        code = _mm_loadu_si128((const __m128i *)(const void *)(codes + j * TILE_ROWS));
        if (part == CODE_LOW_NIBBLE)
            code = _mm_and_si128(code, nibble);
        if (part == CODE_HIGH_NIBBLE)
            code = _mm_and_si128(_mm_srli_epi16(code, 4), nibble);
    } else {
        const int half = f.n_codes / 2, quarter = f.n_codes / 4;
        __m128i lo = _mm_loadu_si128((const __m128i *)(const void *)(codes + j % half * TILE_ROWS));
        __m128i hi =
            _mm_loadu_si128((const __m128i *)(const void *)(codes + (half + j % quarter) * TILE_ROWS));
        lo = _mm_and_si128(j < half ? lo : _mm_srli_epi16(lo, 4), nibble);
        hi = _mm_and_si128(_mm_srl_epi16(hi, _mm_cvtsi32_si128(j / quarter * 2)), _mm_set1_epi8(3));
        code = _mm_or_si128(lo, _mm_slli_epi16(hi, 4));
    }
    rows16 x = part == CODE_SIGNED ? _mm256_cvtepi8_epi16(code) : _mm256_cvtepu8_epi16(code);
    return f.code_zero ? _mm256_sub_epi16(x, _mm256_set1_epi16((int16_t)f.code_zero)) : x;
}

/* The negative of 16 rows' zero points of one or two bytes. */
INLINE rows16 decode_zero_points(const uint8_t *zeros, int bits)
{
    rows16 x = bits == 16 ? _mm256_loadu_si256((const __m256i *)(const void *)zeros)
                          : _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)zeros));
    return _mm256_sub_epi16(_mm256_setzero_si256(), x);
}

INLINE rows16 same_rows(int x)
{
    return _mm256_set1_epi16((int16_t)x);
}

INLINE rows16 times(rows16 x, int by)
{
    return _mm256_mullo_epi16(x, _mm256_set1_epi16((int16_t)by));
}

INLINE void store_pairs(int16_t (*dst)[2], rows16 a, rows16 b)
{
    __m256i lo = _mm256_unpacklo_epi16(a, b), hi = _mm256_unpackhi_epi16(a, b);
    _mm256_store_si256((__m256i *)(void *)dst, _mm256_permute2x128_si256(lo, hi, 0x20));
    _mm256_store_si256((__m256i *)(void *)(dst + 8), _mm256_permute2x128_si256(lo, hi, 0x31));
}

#else

INLINE rows16 decode_code(const struct pack_format f, const uint8_t *codes, int j, enum code_part part)
{
    const int half = f.n_codes / 2, quarter = f.n_codes / 4;
    rows16 x;
    for (int r = 0; r < TILE_ROWS; r++) {
        int code;
        if (f.code_bits == 8)
            code = codes[j * TILE_ROWS + r];
        else
            code = (codes[j % half * TILE_ROWS + r] >> (j / half * 4) & 15) |
                   (codes[(half + j % quarter) * TILE_ROWS + r] >> (j / quarter * 2) & 3) << 4;
        if (part == CODE_SIGNED)
            code = (int8_t)code;
        else if (part == CODE_LOW_NIBBLE)
            code &= 15;
        else if (part == CODE_HIGH_NIBBLE)
            code >>= 4;
        x.v[r] = (int16_t)(code - f.code_zero);
    }
    return x;
}

INLINE rows16 decode_zero_points(const uint8_t *zeros, int bits)
{
    rows16 x;
    for (int r = 0; r < TILE_ROWS; r++) {
        int zero = zeros[bits / 8 * r];
        if (bits == 16)
            zero |= zeros[2 * r + 1] << 8;
        x.v[r] = (int16_t)-zero;
    }
    return x;
}

INLINE rows16 same_rows(int value)
{
    rows16 x;
    for (int r = 0; r < TILE_ROWS; r++)
        x.v[r] = (int16_t)value;
    return x;
}

INLINE rows16 times(rows16 x, int by)
{
    for (int r = 0; r < TILE_ROWS; r++)
        x.v[r] = (int16_t)(x.v[r] * by);
    return x;
}

INLINE void store_pairs(int16_t (*dst)[2], rows16 a, rows16 b)
{
    for (int r = 0; r < TILE_ROWS; r++) {
        dst[r][0] = a.v[r];
        dst[r][1] = b.v[r];
    }
}

#endif

/* The integer scales of a super-block's block b, or of its halves. */
INLINE void put_integer_scales(struct chunk *restrict c, const struct pack_format f, int b, rows16 s0,
                               rows16 s1)
{
    const bool by_16 = scales_by_16(f.scales);
    const int j = by_16 ? 2 * b : b;
    store_pairs(c->scale[j], s0, s0);
    if (by_16)
        store_pairs(c->scale[j + 1], s1, s1);
    if (scales_have_zero(f.scales))
        store_pairs(c->offset[b], times(s0, -f.zero), times(s1, -f.zero));
}

/* These and the minima likewise, from a format's codes. */
INLINE void decode_integer_scales(struct chunk *restrict c, const struct pack_format f, const uint8_t *codes,
                                  int b)
{
    const bool by_16 = scales_by_16(f.scales);
    const int j = by_16 ? 2 * b : b;
    enum code_part part = CODE_WHOLE;
    if (f.scales == SCALE_SUPER16_MIN) /* with a minimum in one byte */
        part = CODE_LOW_NIBBLE;
    else if (f.scales == SCALE_SUPER16 && f.code_bits == 8)
        part = CODE_SIGNED;
    rows16 s0 = f.n_codes ? decode_code(f, codes, j, part) : same_rows(1);
    rows16 s1 = by_16 ? decode_code(f, codes, j + 1, part) : s0;
    put_integer_scales(c, f, b, s0, s1);
    if (f.scales == SCALE_SUPER16_MIN) {
        store_pairs(c->min[b], decode_code(f, codes, j, CODE_HIGH_NIBBLE),
                    decode_code(f, codes, j + 1, CODE_HIGH_NIBBLE));
    } else if (f.scales == SCALE_SUPER32_MIN) { /* minima follow the eight scales */
        rows16 min = decode_code(f, codes, CHUNK_BLOCKS + b, CODE_WHOLE);
        store_pairs(c->min[b], min, min);
    }
}

INLINE void decode_scales(struct chunk *restrict c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    for (int b = 0; b < n_scales(f.scales, n_blocks); b++) {
        if (f.d == D_F16)
            decode_halves(c->d[b], (const uint16_t *)(const void *)v.d + b * TILE_ROWS);
        else
            decode_byte_scales(c->d[b], f.d, v.d + b * TILE_ROWS);
        if (scales_have_min(f.scales))
            decode_halves(c->m[b], v.m + b * TILE_ROWS);
    }
    if (f.scales == SCALE_BLOCK_ZERO)
        for (int b = 0; b < n_blocks; b++) {
            rows16 zero = decode_zero_points(v.codes + b * TILE_ROWS * f.code_bits / 8, f.code_bits);
            store_pairs(c->offset[b], zero, zero);
        }
    if (scales_are_super(f.scales)) {
        UNROLL
        for (int b = 0; b < CHUNK_BLOCKS; b++)
            decode_integer_scales(c, f, v.codes, b);
    }
}

/* The same chunk as float weights [column][row], exactly as qtypes[].to_f32 computes them. */
INLINE void decode_floats(float (*restrict dst)[TILE_ROWS], const struct pack_format f,
                          const struct chunk *restrict c, int n_blocks)
{
    for (int b = 0; b < n_blocks; b++)
        for (int half = 0; half < 2; half++) {
            float d[TILE_ROWS], m[TILE_ROWS];
            int sub = scales_by_16(f.scales) ? 2 * b + half : b;
            for (int r = 0; r < TILE_ROWS; r++) {
                if (scales_are_super(f.scales)) {
                    d[r] = c->d[0][r] * (float)c->scale[sub][r][0];
                    m[r] = scales_have_min(f.scales) ? c->m[0][r] * (float)c->min[b][r][half] : 0.0f;
                } else {
                    d[r] = c->d[sub][r];
                    m[r] = scales_have_min(f.scales) ? -c->m[b][r] : 0.0f;
                }
            }
            for (int k = 16 * half; k < 16 * half + 16; k++)
                for (int r = 0; r < TILE_ROWS; r++) {
                    int q = (int)c->w[b][k / 4][4 * r + k % 4] - f.zero;
#ifdef MAC_NIBBLES
                    if (is_wide(f))
                        q += c->high[b][k / 4][4 * r + k % 4] << 4;
#endif
                    if (f.scales == SCALE_BLOCK_ZERO)
                        q += c->offset[b][r][0];
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

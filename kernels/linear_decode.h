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
    for (int r = 0; r < TILE_ROWS; r++)
        dst[r] = d == D_E8M0 ? e8m0_half_to_f32(src[r]) : e4m3_half_to_f32(src[r]);
}

/* Codes of 8 bits. */
INLINE bool is_wide(const struct pack_format f)
{
    return decoded_bits(&f) == 8;
}

/* vpmaddubsw sums pairs of products in 16 bits: so many groups' results fit there, of codes of 6 bits at
 * most; each is at most 2 · (2^bits − 1) · 127. */
INLINE int groups_in_16_bits(const struct pack_format f)
{
    int bits = decoded_bits(&f);
    return bits <= 4 ? 8 : bits == 5 ? 4 : 2;
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

/* The integer scales of a super-block's block b, or of its halves, and its minima likewise. */
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
    rows16 s0 = decode_code(f, codes, j, part), s1 = by_16 ? decode_code(f, codes, j + 1, part) : s0;
    store_pairs(c->scale[j], s0, s0);
    if (by_16)
        store_pairs(c->scale[j + 1], s1, s1);
    if (scales_have_zero(f.scales))
        store_pairs(c->offset[b], times(s0, -f.zero), times(s1, -f.zero));
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

/* Eight rows of codes, `stride` bytes apart, into their words of all groups: w points to the first row's. */
#ifdef __AVX2__
static __attribute__((unused)) void interleave_rows(uint8_t *restrict w, const int8_t *restrict q,
                                                    size_t stride)
{
    const __m256i sign = _mm256_set1_epi8((char)-128);
    for (int b = 0; b < CHUNK_BLOCKS; b++, q += ACT_LEN) {
        /* An 8 × 8 transposition of 32-bit words: pairs of rows, pairs of pairs, halves. */
        __m256i row[8], pair[8], quad[8];
        UNROLL
        for (int r = 0; r < 8; r++) {
            row[r] = _mm256_loadu_si256((const __m256i *)(const void *)(q + (size_t)r * stride));
            row[r] = _mm256_xor_si256(row[r], sign);
        }
        UNROLL
        for (int r = 0; r < 8; r += 2) {
            pair[r] = _mm256_unpacklo_epi32(row[r], row[r + 1]);
            pair[r + 1] = _mm256_unpackhi_epi32(row[r], row[r + 1]);
        }
        UNROLL
        for (int r = 0; r < 8; r += 4) {
            quad[r] = _mm256_unpacklo_epi64(pair[r], pair[r + 2]);
            quad[r + 1] = _mm256_unpackhi_epi64(pair[r], pair[r + 2]);
            quad[r + 2] = _mm256_unpacklo_epi64(pair[r + 1], pair[r + 3]);
            quad[r + 3] = _mm256_unpackhi_epi64(pair[r + 1], pair[r + 3]);
        }
        UNROLL
        for (int g = 0; g < 4; g++) {
            __m256i *lo = (__m256i *)(void *)(w + (b * GROUPS + g) * GROUP_BYTES);
            __m256i *hi = (__m256i *)(void *)(w + (b * GROUPS + g + 4) * GROUP_BYTES);
            _mm256_store_si256(lo, _mm256_permute2x128_si256(quad[g], quad[g + 4], 0x20));
            _mm256_store_si256(hi, _mm256_permute2x128_si256(quad[g], quad[g + 4], 0x31));
        }
    }
}
#else
static __attribute__((unused)) void interleave_rows(uint8_t *restrict w, const int8_t *restrict q,
                                                    size_t stride)
{
    for (int r = 0; r < 8; r++, q += stride)
        for (int i = 0; i < CHUNK_LEN; i++)
            w[i / 4 * GROUP_BYTES + 4 * r + i % 4] = (uint8_t)(q[i] + 128);
}
#endif

#ifdef MAC_NIBBLES
static __attribute__((unused)) void split_nibbles(struct chunk *c)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i *low = (__m256i *)(void *)c->w, *high = (__m256i *)(void *)c->high;
    for (size_t i = 0; i < sizeof c->w / sizeof *low; i++) {
        high[i] = _mm256_and_si256(_mm256_srli_epi16(low[i], 4), nibble);
        low[i] = _mm256_and_si256(low[i], nibble);
    }
}
#endif

/* Types that qtypes[].unpack reads, row by row; their chunks are whole super-blocks. */
static __attribute__((unused)) void decode_rows(struct chunk *c, enum qtype type, const uint8_t *src)
{
    const bool by_16 = scales_by_16(pack_formats[type].scales);
    struct block_256 b[8];
    for (int r0 = 0; r0 < TILE_ROWS; r0 += 8) {
        for (int r = 0; r < 8; r++, src += qtypes[type].block_bytes) {
            qtypes[type].unpack(&b[r], src);
            c->d[0][r0 + r] = b[r].d;
            for (int j = 0; j < MAX_CODES; j++) {
                int16_t scale = b[r].scale[j];
                c->offset[j / 2][r0 + r][j % 2] = (int16_t)(-128 * scale);
                if (by_16 || j % 2 == 0) {
                    int16_t *pair = c->scale[by_16 ? j : j / 2][r0 + r];
                    pair[0] = pair[1] = scale;
                }
            }
        }
        interleave_rows(c->w[0][0] + 4 * r0, b[0].q, sizeof b[0]);
    }
#ifdef MAC_NIBBLES
    split_nibbles(c);
#endif
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

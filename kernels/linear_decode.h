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
    alignas(64) float d[2 * CHUNK_BLOCKS][TILE_ROWS]; /* per 32 or per 16 columns; k-quants: [0] */
    alignas(64) float m[CHUNK_BLOCKS][TILE_ROWS];     /* or zero points, less the format's: exact integers */
    alignas(64) float scale[MAX_CODES][TILE_ROWS];    /* integers, exact; per 32 or per 16 columns */
    alignas(64) float min[MAX_CODES][TILE_ROWS];
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

/* Codes that signed bytes hold, once 128 is subtracted: where vpmaddubsw multiplies, it takes |w| and the
 * activation with w's sign. */
INLINE bool is_wide(const struct pack_format f)
{
    return decoded_bits(&f) == 8;
}

/* Otherwise it takes unsigned codes: so many groups' results (pairs of products, summed) fit 16 bits; each is
 * at most 2 · (2^bits − 1) · 127. */
INLINE int groups_in_16_bits(const struct pack_format f)
{
    int bits = decoded_bits(&f);
    return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}

/* Integer scale j of 16 rows as float: code − zero, or half a byte of it, or the byte with its sign. */
enum code_part { CODE_WHOLE, CODE_SIGNED, CODE_LOW_NIBBLE, CODE_HIGH_NIBBLE };

#ifdef __AVX2__
INLINE void decode_codes(float *restrict dst, const struct pack_format f, const uint8_t *codes, int j,
                         enum code_part part)
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
    const __m256i zero = _mm256_set1_epi32(f.code_zero);
    for (int h = 0; h < 2; h++, code = _mm_srli_si128(code, 8)) {
        __m256i x = part == CODE_SIGNED ? _mm256_cvtepi8_epi32(code) : _mm256_cvtepu8_epi32(code);
        _mm256_store_ps(dst + 8 * h, _mm256_cvtepi32_ps(_mm256_sub_epi32(x, zero)));
    }
}
#else
INLINE void decode_codes(float *restrict dst, const struct pack_format f, const uint8_t *codes, int j,
                         enum code_part part)
{
    const int half = f.n_codes / 2, quarter = f.n_codes / 4;
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
        dst[r] = (float)(code - f.code_zero);
    }
}
#endif

/* 16 rows' zero points as float, less the format's. */
INLINE void decode_zeros(float *restrict dst, const struct pack_format f, const uint8_t *restrict zeros)
{
    for (int r = 0; r < TILE_ROWS; r++) {
        int zero = zeros[f.code_bits / 8 * r];
        if (f.code_bits == 16)
            zero |= zeros[2 * r + 1] << 8;
        dst[r] = (float)(zero - f.zero);
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
    if (f.scales == SCALE_BLOCK_ZERO) {
        for (int b = 0; b < n_blocks; b++)
            decode_zeros(c->m[b], f, v.codes + b * TILE_ROWS * f.code_bits / 8);
        return;
    }
    UNROLL
    for (int j = 0; j < f.n_codes; j++) {
        switch (f.scales) {
        case SCALE_SUPER32:
            decode_codes(c->scale[j], f, v.codes, j, CODE_WHOLE);
            break;
        case SCALE_SUPER32_MIN: /* scales, then minima */
            decode_codes(j < 8 ? c->scale[j] : c->min[j - 8], f, v.codes, j, CODE_WHOLE);
            break;
        case SCALE_SUPER16:
            decode_codes(c->scale[j], f, v.codes, j, f.code_bits == 8 ? CODE_SIGNED : CODE_WHOLE);
            break;
        case SCALE_SUPER16_MIN: /* both in one byte */
            decode_codes(c->scale[j], f, v.codes, j, CODE_LOW_NIBBLE);
            decode_codes(c->min[j], f, v.codes, j, CODE_HIGH_NIBBLE);
            break;
        default:
            break;
        }
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

/* Types that qtypes[].unpack reads, row by row; their chunks are whole super-blocks. */
static __attribute__((unused)) void decode_rows(struct chunk *c, enum qtype type, const uint8_t *src)
{
    const bool by_16 = scales_by_16(pack_formats[type].scales);
    struct block_256 b[8];
    for (int r0 = 0; r0 < TILE_ROWS; r0 += 8) {
        for (int r = 0; r < 8; r++, src += qtypes[type].block_bytes) {
            qtypes[type].unpack(&b[r], src);
            c->d[0][r0 + r] = b[r].d;
            for (int j = 0; j < CHUNK_BLOCKS << by_16; j++)
                c->scale[j][r0 + r] = (float)b[r].scale[by_16 ? j : 2 * j];
        }
        interleave_rows(c->w[0][0] + 4 * r0, b[0].q, sizeof b[0]);
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
                    d[r] = c->d[0][r] * c->scale[sub][r];
                    m[r] = scales_have_min(f.scales) ? c->m[0][r] * c->min[sub][r] : 0.0f;
                } else {
                    d[r] = c->d[sub][r];
                    m[r] = scales_have_min(f.scales) ? -c->m[b][r] : 0.0f;
                }
            }
            for (int k = 16 * half; k < 16 * half + 16; k++)
                for (int r = 0; r < TILE_ROWS; r++) {
                    int q = (int)c->w[b][k / 4][4 * r + k % 4] - f.zero;
                    if (f.scales == SCALE_BLOCK_ZERO)
                        q -= (int)c->m[b][r];
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

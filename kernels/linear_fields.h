/* Packed chunks of FIELD_FORMATS as plain arrays: IQ1, IQ2, IQ3 and TQ1_0. Included by linear_tiles.h for
 * every level.
 *
 * The plain C way is the specification: a row's block is put together again and read by quant/. With vectors,
 * lanes are rows. An index is one load from the code book, the entry of eight columns (IQ3: four) of one row;
 * two loads fill a vector's half, so that two shuffles of two vectors give the groups that struct chunk
 * wants, four columns of eight rows each. All else is done to 16 rows at once. */
#ifndef QUOLL_LINEAR_FIELDS_H
#define QUOLL_LINEAR_FIELDS_H

#include "kernels/linear_decode.h"

#define FIELD_FORMAT(KIND, BITS, ZERO) ((struct pack_format){.scales = KIND, .low_bits = BITS, .zero = ZERO})

#ifndef __AVX2__

static void decode_fields(struct chunk *c, enum qtype type, const struct pack_format f, const uint8_t *src)
{
    const bool by_16 = scales_by_16(f.scales);
    uint8_t bytes[MAX_ROW_CHUNK_BYTES];
    struct block_256 block;
    for (int r = 0; r < TILE_ROWS; r++) {
        pack_fields_read(bytes, type, src, r);
        qtypes[type].unpack(&block, bytes);
        c->d[0][r] = block.d;
        for (int j = 0; j < MAX_CODES; j++) {
            const int16_t scale = block.scale[j];
            c->offset[j / 2][r][j % 2] = (int16_t)(-f.zero * scale);
            int16_t *pair = c->scale[by_16 ? j : j / 2][r];
            pair[0] = pair[1] = scale;
        }
        for (int k = 0; k < CHUNK_LEN; k++)
            c->w[k / ACT_LEN][k % ACT_LEN / 4][4 * r + k % 4] = (uint8_t)(block.q[k] + f.zero);
    }
}

#define DEFINE_DECODE_FIELDS(TYPE, kind, bits, zero, ...)                          \
    static void decode_fields_##TYPE(struct chunk *c, const uint8_t *src)          \
    {                                                                              \
        decode_fields(c, QTYPE_##TYPE, FIELD_FORMAT((kind), (bits), (zero)), src); \
    }
FIELD_FORMATS(DEFINE_DECODE_FIELDS)

#else

#include "quant/grids.h"

/* Where a type's indices, signs and scales lie: places (`_at`) are bytes of a block in the file, `_step`
 * bytes from one part of 32 columns to the next. */
struct grid_type {
    enum grid_of { GRID_OF_8, GRID_OF_4 } entry; /* columns of an entry */
    const void *grid;
    int index_at, index_step;
    /* Bits of an index above the eight in its byte: those of index i begin at bit i · high_step of high_bytes
     * bytes per 32 columns. Without any, INDEX_9: indices have 16 bits, of which 9 are theirs. */
    enum { INDEX_8, INDEX_9, INDEX_HIGH } index;
    int high_at, high_bytes, high_bits, high_step;
    /* Signs of eight columns are a byte; or 7 bits, the eighth making the number of negative ones even, of
     * words with four of them, or of an index. IQ1: a bit for eight columns says that values are shifted
     * down; it is beside the high bits, at signs_at + signs_step · i. */
    enum { SIGNS_8, SIGNS_7, SIGNS_IN_INDEX, SHIFTS } signs;
    int signs_at, signs_step;
    /* Scales 2 s + 1: s of four bits above the signs; nibbles of bytes, one or two for 32 columns; three bits
     * above the high bits; of 16-bit words, four each, the scale d above them. */
    enum { S_ABOVE_SIGNS, S_NIBBLE, S_NIBBLES, S_ABOVE_HIGH, S_TRIPLES } s;
    int s_at;
    int d_at;
    float d_factor;
};

#define GRID_IQ1_S                                                                                           \
    ((struct grid_type){GRID_OF_8, iq1_grid, 2, 4, INDEX_HIGH, 34, 2, 3, 3, SHIFTS, 15, 0, S_ABOVE_HIGH, 34, \
                        0, 0.125f})
#define GRID_IQ1_M                                                                                           \
    ((struct grid_type){GRID_OF_8, iq1_grid, 0, 4, INDEX_HIGH, 32, 2, 3, 4, SHIFTS, 3, 4, S_TRIPLES, 48, 48, \
                        0.125f})
#define GRID_IQ2_XXS                                                                                         \
    ((struct grid_type){GRID_OF_8, iq2_xxs_grid, 2, 8, INDEX_8, 0, 0, 0, 0, SIGNS_7, 6, 8, S_ABOVE_SIGNS, 6, \
                        0, 0.125f})
#define GRID_IQ2_XS                                                                                         \
    ((struct grid_type){GRID_OF_8, iq2_xs_grid, 2, 8, INDEX_9, 0, 0, 0, 0, SIGNS_IN_INDEX, 2, 8, S_NIBBLES, \
                        66, 0, 0.125f})
#define GRID_IQ2_S                                                                                           \
    ((struct grid_type){GRID_OF_8, iq2_s_grid, 2, 4, INDEX_HIGH, 66, 1, 2, 2, SIGNS_8, 34, 4, S_NIBBLES, 74, \
                        0, 0.125f})
#define GRID_IQ3_XXS                                                                                       \
    ((struct grid_type){GRID_OF_4, iq3_xxs_grid, 2, 8, INDEX_8, 0, 0, 0, 0, SIGNS_7, 66, 4, S_ABOVE_SIGNS, \
                        66, 0, 0.25f})
#define GRID_IQ3_S                                                                                           \
    ((struct grid_type){GRID_OF_4, iq3_s_grid, 2, 8, INDEX_HIGH, 66, 1, 1, 1, SIGNS_8, 74, 4, S_NIBBLE, 106, \
                        0, 1.0f})

INLINE __m256i load_fields(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* A byte of each of 16 rows, as integers. */
INLINE rows16 load_row_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE rows16 bits_of_rows(rows16 x, int shift, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(x, shift), _mm256_set1_epi16((int16_t)mask));
}

/* s of block b's half `half`; of types that have one for the block, in either. */
INLINE rows16 grid_s(const struct grid_type g, const uint8_t *src, int b, int half)
{
    if (g.s == S_ABOVE_SIGNS) {
        const uint8_t *signs = src + TILE_ROWS * (g.signs_at + b * g.signs_step);
        __m256i lo = _mm256_srli_epi32(load_fields(signs), 28);
        __m256i hi = _mm256_srli_epi32(load_fields(signs + 32), 28);
        return _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
    }
    if (g.s == S_NIBBLE)
        return bits_of_rows(load_row_bytes(src + TILE_ROWS * (g.s_at + b / 2)), 4 * (b % 2), 15);
    if (g.s == S_NIBBLES)
        return bits_of_rows(load_row_bytes(src + TILE_ROWS * (g.s_at + b)), 4 * half, 15);
    if (g.s == S_ABOVE_HIGH)
        return bits_of_rows(load_fields(src + TILE_ROWS * (g.s_at + 2 * b)), 12, 7);
    const int j = 2 * b + half;
    return bits_of_rows(load_fields(src + TILE_ROWS * (g.s_at + j / 4 * 2)), j % 4 * 3, 7);
}

INLINE void grid_d(float d[TILE_ROWS], const struct grid_type g, const uint8_t *src)
{
    alignas(32) uint16_t bits[TILE_ROWS];
    src += TILE_ROWS * g.d_at;
    rows16 x = load_fields(src);
    if (g.s == S_TRIPLES) {
        x = _mm256_srli_epi16(x, 12);
        UNROLL
        for (int m = 1; m < 4; m++) {
            rows16 part = _mm256_srli_epi16(load_fields(src + 2 * TILE_ROWS * m), 12);
            x = _mm256_or_si256(x, _mm256_slli_epi16(part, 4 * m));
        }
    }
    _mm256_store_si256((__m256i *)(void *)bits, x);
    decode_halves(d, bits);
    for (int r = 0; r < TILE_ROWS; r++)
        d[r] *= g.d_factor;
}

/* The indices of 32 columns of 16 rows: [word][row][4], a word being four of them (INDEX_9: two of two). */
union grid_indices {
    alignas(32) uint16_t words[2 * 4 * TILE_ROWS];
};

/* Bits 8 and up of the indices of word w of four rows, in the order of `words`. */
INLINE __m256i high_index_bits(const struct grid_type g, const uint8_t *high, int w)
{
    /* Each row's bits in all its four lanes … */
    __m256i x;
    if (g.high_bytes == 1) {
        int32_t four;
        memcpy(&four, high, sizeof four);
        const __m256i rows =
            _mm256_setr_epi32((int)0x80008000, (int)0x80008000, (int)0x80018001, (int)0x80018001,
                              (int)0x80028002, (int)0x80028002, (int)0x80038003, (int)0x80038003);
        x = _mm256_shuffle_epi8(_mm256_set1_epi32(four), rows);
    } else {
        int64_t four;
        memcpy(&four, high, sizeof four);
        const __m256i rows = _mm256_setr_epi32(0x01000100, 0x01000100, 0x03020302, 0x03020302, 0x05040504,
                                               0x05040504, 0x07060706, 0x07060706);
        x = _mm256_shuffle_epi8(_mm256_set1_epi64x(four), rows);
    }
    /* … shifted so that a lane's own begin at bit 8: to the left by multiplying, past bit 8 the last one to
     * the right. */
    const int first = 4 * w * g.high_step, last = first + 3 * g.high_step;
    const int64_t by0 = 1 << (8 - first), by1 = by0 >> g.high_step, by2 = by1 >> g.high_step;
    const int64_t by3 = by2 >> g.high_step;
    __m256i left = _mm256_mullo_epi16(x, _mm256_set1_epi64x(by0 | by1 << 16 | by2 << 32 | by3 << 48));
    if (last > 8)
        left = _mm256_blend_epi16(left, _mm256_srli_epi16(x, last > 8 ? last - 8 : 0), 0x88);
    return _mm256_and_si256(left, _mm256_set1_epi16((int16_t)(((1 << g.high_bits) - 1) << 8)));
}

INLINE void grid_indices(union grid_indices *to, const struct grid_type g, const uint8_t *src, int b)
{
    const uint8_t *from = src + TILE_ROWS * (g.index_at + b * g.index_step);
    const uint8_t *high = src + TILE_ROWS * (g.high_at + b * g.high_bytes);
    __m256i *words = (__m256i *)(void *)to->words;
    if (g.index == INDEX_9) {
        UNROLL
        for (int i = 0; i < 4; i++)
            _mm256_store_si256(words + i,
                               _mm256_and_si256(load_fields(from + 32 * i), _mm256_set1_epi16(511)));
    } else if (g.index == INDEX_HIGH) {
        const int n_words = g.entry == GRID_OF_8 ? 1 : 2;
        UNROLL
        for (int i = 0; i < 4 * n_words; i++) {
            __m256i x = high_index_bits(g, high + i % 4 * 4 * g.high_bytes, i / 4);
            _mm256_store_si256(words + i, _mm256_or_si256(x, load_row_bytes(from + 16 * i)));
        }
    }
}

/* Index i of row r. */
INLINE size_t grid_index(const struct grid_type g, const union grid_indices *indices, const uint8_t *bytes,
                         int i, int r)
{
    if (g.index == INDEX_9)
        return indices->words[i / 2 * 2 * TILE_ROWS + 2 * r + i % 2];
    const int at = i / 4 * 4 * TILE_ROWS + 4 * r + i % 4;
    return g.index == INDEX_8 ? bytes[at] : indices->words[at];
}

/* Two rows' entries of eight columns. */
INLINE __m128i two_entries(const uint64_t *a, const uint64_t *b)
{
    __m128 x = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)a));
    return _mm_castps_si128(_mm_loadh_pi(x, (const __m64 *)(const void *)b));
}

/* Entries of columns 8k … 8k + 7, rows 8h … 8h + 7: groups 2k and 2k + 1. */
INLINE void grid_entries(__m256i group[2], const struct grid_type g, const union grid_indices *indices,
                         const uint8_t *bytes, int k, int h)
{
    if (g.entry == GRID_OF_8) {
        const uint64_t *e[8];
        UNROLL
        for (int r = 0; r < 8; r++)
            e[r] = (const uint64_t *)g.grid + grid_index(g, indices, bytes, k, 8 * h + r);
        __m256i a = _mm256_set_m128i(two_entries(e[4], e[5]), two_entries(e[0], e[1]));
        __m256i b = _mm256_set_m128i(two_entries(e[6], e[7]), two_entries(e[2], e[3]));
        __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
        group[0] = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88));
        group[1] = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd));
        return;
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        int32_t e[8];
        UNROLL
        for (int r = 0; r < 8; r++)
            e[r] = ((const int32_t *)g.grid)[grid_index(g, indices, bytes, 2 * k + i, 8 * h + r)];
        group[i] = _mm256_setr_epi32(e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]);
    }
}

/* The sign bytes of 32 columns of eight rows, one row's four in a lane; IQ1: the words with the shifts. */
INLINE __m256i grid_signs(const struct grid_type g, const uint8_t *src, int b, int h)
{
    if (g.signs == SHIFTS) {
        const uint8_t *high = src + TILE_ROWS * (g.high_at + b * g.high_bytes) + 16 * h;
        return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)high));
    }
    const uint8_t *at = src + TILE_ROWS * (g.signs_at + b * g.signs_step) + 32 * h;
    __m256i x = load_fields(at);
    if (g.signs == SIGNS_8)
        return x;
    if (g.signs == SIGNS_7) {
        const __m256i byte = _mm256_set1_epi32(127);
        __m256i spread = _mm256_and_si256(x, byte);
        UNROLL
        for (int i = 1; i < 4; i++)
            spread = _mm256_or_si256(
                spread, _mm256_and_si256(_mm256_slli_epi32(x, i), _mm256_slli_epi32(byte, 8 * i)));
        x = spread;
    } else { /* the words have those of columns 0, 8 and 16, 24 */
        __m256i y = _mm256_srli_epi16(load_fields(at + 4 * TILE_ROWS), 9);
        x = _mm256_or_si256(_mm256_srli_epi16(x, 9), _mm256_slli_epi16(y, 8));
        const __m256i order =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
        x = _mm256_shuffle_epi8(x, order);
    }
    /* the eighth sign: 0x80 where a number of four bits, one half of the seven, has an odd number of ones */
    const __m256i odd = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low = _mm256_shuffle_epi8(odd, _mm256_and_si256(x, nibble));
    __m256i high = _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
    return _mm256_or_si256(x, _mm256_xor_si256(low, high));
}

/* The codes of group 2k + i from its entries. */
INLINE __m256i grid_codes(const struct grid_type g, int zero, __m256i entries, __m256i signs, int k, int i)
{
    if (g.signs == SHIFTS) { /* entries are 8 v + 128, weights 8 v ± 1 */
        const __m256i down =
            _mm256_srai_epi32(_mm256_slli_epi32(signs, 31 - g.signs_at - k * g.signs_step), 31);
        const __m256i two = _mm256_and_si256(down, _mm256_set1_epi8(2));
        return _mm256_sub_epi8(entries, _mm256_add_epi8(two, _mm256_set1_epi8((char)(128 - 1 - zero))));
    }
    /* The byte of signs four times, in each its own bit; what is added makes bytes negative where that is set
     * and positive where it is not. */
    const __m256i first =
        _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    const __m256i bits = _mm256_set1_epi32(i ? (int)0x80402010 : 0x08040201);
    const __m256i plus = _mm256_set1_epi32(i ? 0x01406070 : 0x787c7e7f);
    __m256i s = _mm256_shuffle_epi8(signs, _mm256_add_epi8(first, _mm256_set1_epi8((char)k)));
    s = _mm256_add_epi8(_mm256_and_si256(s, bits), plus);
    return _mm256_add_epi8(_mm256_sign_epi8(entries, s), _mm256_set1_epi8((char)zero));
}

INLINE void decode_grid(struct chunk *c, const struct pack_format f, const struct grid_type g,
                        const uint8_t *src)
{
    grid_d(c->d[0], g, src);
    for (int b = 0; b < CHUNK_BLOCKS; b++) {
        rows16 s0 = grid_s(g, src, b, 0), s1 = scales_by_16(f.scales) ? grid_s(g, src, b, 1) : s0;
        const rows16 one = same_rows(1);
        put_integer_scales(c, f, b, _mm256_add_epi16(_mm256_add_epi16(s0, s0), one),
                           _mm256_add_epi16(_mm256_add_epi16(s1, s1), one));
        const uint8_t *bytes = src + TILE_ROWS * (g.index_at + b * g.index_step);
        union grid_indices indices;
        grid_indices(&indices, g, src, b);
        for (int h = 0; h < 2; h++) {
            const __m256i signs = grid_signs(g, src, b, h);
            UNROLL
            for (int k = 0; k < 4; k++) {
                __m256i group[2];
                grid_entries(group, g, &indices, bytes, k, h);
                UNROLL
                for (int i = 0; i < 2; i++)
                    _mm256_store_si256((__m256i *)(void *)(c->w[b][2 * k + i] + 32 * h),
                                       grid_codes(g, f.zero, group[i], signs, k, i));
            }
        }
    }
}

/* TQ1_0: a byte has digits of base 3, each that of a column `step` columns after the one before; the word of
 * four columns' bytes of each row becomes n groups, the first at w. */
INLINE void decode_digits(uint8_t *restrict w, const uint8_t *restrict words, int n, int step)
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        /* Less 128, for comparisons have signs: tripled modulo 256 a byte has the next digit in front. */
        __m256i x = _mm256_xor_si256(load_fields(words + 32 * h), _mm256_set1_epi8(-128));
        UNROLL
        for (int i = 0; i < n; i++) {
            /* 2, less 1 each when 3 · byte is below 256 and 512 */
            __m256i less1 = _mm256_cmpgt_epi8(_mm256_set1_epi8(86 - 128), x);
            __m256i less2 = _mm256_cmpgt_epi8(_mm256_set1_epi8(171 - 128), x);
            __m256i q = _mm256_add_epi8(_mm256_add_epi8(_mm256_set1_epi8(2), less1), less2);
            _mm256_store_si256((__m256i *)(void *)(w + i * step * TILE_ROWS + 32 * h), q);
            x = _mm256_add_epi8(x, _mm256_add_epi8(x, x));
        }
    }
}

INLINE void decode_base_3(struct chunk *c, const struct pack_format f, const uint8_t *src)
{
    uint8_t *w = c->w[0][0];
    for (int i = 0; i < 8; i++)
        decode_digits(w + GROUP_BYTES * i, src + GROUP_BYTES * i, 5, 32);
    for (int i = 0; i < 4; i++)
        decode_digits(w + GROUP_BYTES * (40 + i), src + GROUP_BYTES * (8 + i), 5, 16);
    decode_digits(w + GROUP_BYTES * 60, src + GROUP_BYTES * 12, 4, 4);
    decode_halves(c->d[0], (const uint16_t *)(const void *)(src + GROUP_BYTES * 13));
    for (int b = 0; b < CHUNK_BLOCKS; b++)
        put_integer_scales(c, f, b, same_rows(1), same_rows(1));
}

#define DEFINE_DECODE_GRID(TYPE, kind, bits, zero, ...)                         \
    static void decode_fields_##TYPE(struct chunk *c, const uint8_t *src)       \
    {                                                                           \
        decode_grid(c, FIELD_FORMAT((kind), (bits), (zero)), GRID_##TYPE, src); \
    }
GRID_FORMATS(DEFINE_DECODE_GRID)

static void decode_fields_TQ1_0(struct chunk *c, const uint8_t *src)
{
    decode_base_3(c, FIELD_FORMAT(SCALE_SUPER32, 2, 1), src);
}

#endif

#endif

/* Products with 256-bit vectors: eight rows per vector, a tile is two vectors. Included by linear_avxvnni.c,
 * where QUOLL_AVXVNNI says that four byte products are one vpdpbusd, and by linear_avx2.c, where they come
 * from vpmaddubsw (unsigned × signed, pairs summed to 16 bits); as many of its results as cannot overflow are
 * added before vpmaddwd widens them to 32 bits, which multiplies them by an integer scale for nothing. Codes
 * of 8 bits would overflow at once: they are two codes of 4 bits, of which the upper one counts sixteen
 * times. */
#ifdef QUOLL_AVXVNNI
#define MAC_ANY_BITS
#else
#define MAC_NIBBLES
#endif
#include "kernels/linear_decode.h"
#include "kernels/simd.h"

#include <math.h>

#define MAC_TOKENS 4
#define FMA_TOKENS 4
#define FMA_CHUNKS 4

/* The compiler takes x for a new value. Sums so treated are added up in the order written: compilers would
 * make balanced trees of integer sums, whose leaves do not fit the registers (half of the loop was spills).
 */
#define FORGET(x) __asm__("" : "+x"(x))
/* And computes it every time. */
#define KEEP(x) __asm__ volatile("" : "+x"(x))

INLINE __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE __m256i load_pairs(const int16_t (*pairs)[2])
{
    return _mm256_load_si256((const __m256i *)(const void *)pairs);
}

/* The codes of one block: decoded ones (of 8 bits: their halves), or (in registers) packed ones. */
struct codes {
    bool are_packed;
    const uint8_t (*decoded)[GROUP_BYTES], (*decoded_high)[GROUP_BYTES];
    const uint8_t *low, *high;
};

INLINE struct codes codes_of(const struct pack_format f, const struct chunk *c,
                             const struct chunk_view *packed, int b)
{
    if (packed)
        return (struct codes){true, NULL, NULL, packed->low + b * f.low_bits * GROUP_BYTES,
                              packed->high + b * f.high_bits * GROUP_BYTES};
#ifdef MAC_NIBBLES
    return (struct codes){false, c->w[b], c->high[b], NULL, NULL};
#else
    return (struct codes){false, c->w[b], NULL, NULL, NULL};
#endif
}

/* Bytes shifted right (left when negative); the bits that cross bytes are masked away by the caller. */
INLINE __m256i shift_right(__m256i x, int by)
{
    return by > 0 ? _mm256_srli_epi16(x, by) : by < 0 ? _mm256_slli_epi16(x, -by) : x;
}

/* Group g of rows 8h … 8h + 7, before the code book. */
INLINE __m256i unpack_bits(const struct pack_format f, const struct codes c, int g, int h)
{
    __m256i q = load256(c.low + plane_of(f.low_bits, g) * GROUP_BYTES + 32 * h);
    if (f.low_bits < 8) {
        q = shift_right(q, plane_shift(f.low_bits, g));
        q = _mm256_and_si256(q, _mm256_set1_epi8((char)((1 << f.low_bits) - 1)));
    }
    if (f.high_bits) {
        __m256i high = load256(c.high + plane_of(f.high_bits, g) * GROUP_BYTES + 32 * h);
        high = shift_right(high, plane_shift(f.high_bits, g) - f.low_bits);
        const __m256i mask = _mm256_set1_epi8((char)(((1 << f.high_bits) - 1) << f.low_bits));
        q = _mm256_or_si256(q, _mm256_and_si256(high, mask));
    }
    return q;
}

/* The 16 values of the code book. */
INLINE __m256i book_values(const struct pack_format f)
{
    const __m128i book = _mm_loadu_si128((const __m128i *)(const void *)f.code_book);
    return _mm256_broadcastsi128_si256(_mm_add_epi8(book, _mm_set1_epi8((char)f.zero)));
}

/* Group g of rows 8h … 8h + 7. decode_block in linear_scalar.c is its specification. */
INLINE __m256i unpack_codes(const struct pack_format f, const struct codes c, int g, int h)
{
    const __m256i q = unpack_bits(f, c, g, h);
    return f.code_book ? _mm256_shuffle_epi8(book_values(f), q) : q;
}

/* Four activations, or two sums of them, of one token in every lane. */
INLINE __m256i broadcast4(const void *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}

/* acc and mins of eight rows (half h of the tile) take in one token's block b of the chunk: s is
 * Σ scale · (code − zero) · activation, of other formats than SCALE_BLOCK16. */
INLINE void add_block(const struct pack_format f, const struct chunk *c, int b, int h,
                      const struct act_block *x, __m256 d, __m256i sums, __m256 s, __m256 *acc, __m256 *mins)
{
    if (scales_are_super(f.scales)) {
        *acc = _mm256_fmadd_ps(s, d, *acc);
        if (scales_have_min(f.scales)) {
            __m256i m = _mm256_madd_epi16(load_pairs(c->min[b] + 8 * h), sums);
            *mins = _mm256_fmadd_ps(_mm256_cvtepi32_ps(m), d, *mins);
        }
    } else {
        __m256 dd = _mm256_mul_ps(_mm256_load_ps(c->d[b] + 8 * h), d);
        *acc = _mm256_fmadd_ps(s, dd, *acc);
        if (scales_have_min(f.scales))
            *mins = _mm256_fmadd_ps(_mm256_load_ps(c->m[b] + 8 * h), _mm256_set1_ps(x->ds), *mins);
    }
}

#ifdef QUOLL_AVXVNNI

INLINE int tokens_at_once(const struct pack_format f)
{
    (void)f;
    return MAC_TOKENS;
}

INLINE void decode_blocks(struct chunk *c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    for (int b = 0; b < n_blocks; b++) {
        const struct codes codes = codes_of(f, c, &v, b);
        UNROLL
        for (int i = 0; i < 2 * GROUPS; i++)
            _mm256_store_si256((__m256i *)(void *)(c->w[b][i / 2] + i % 2 * 32),
                               unpack_codes(f, codes, i / 2, i % 2));
    }
}

/* sum[t][h] += Σ code · activation over groups g0 … g1 − 1, for n tokens. */
INLINE void block_sums(const struct pack_format f, const struct codes c, const struct act_block *x, int g0,
                       int g1, int n, __m256i sum[MAC_TOKENS][2])
{
    UNROLL
    for (int g = g0; g < g1; g++) {
        __m256i w[2];
        UNROLL
        for (int h = 0; h < 2; h++)
            w[h] = c.are_packed ? unpack_codes(f, c, g, h) : load256(c.decoded[g] + 32 * h);
        UNROLL
        for (int t = 0; t < n; t++) {
            const __m256i a = broadcast4(x[t].q + 4 * g);
            UNROLL
            for (int h = 0; h < 2; h++)
                sum[t][h] = _mm256_dpbusd_avx_epi32(sum[t][h], w[h], a);
        }
    }
}

/* Integer scales of eight rows as float, exact: of a pair the two are the same. */
INLINE __m256 float_scales(const int16_t (*pairs)[2])
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(load_pairs(pairs), _mm256_set1_epi32(1)));
}

/* acc and mins take in block b of the chunk, whose codes are given, for n tokens. Formats with scales by 16
 * go through the sums' registers twice. */
INLINE void mac_block(const struct pack_format f, const struct chunk *c, const struct codes codes, int b,
                      const struct act_block *x, int n, __m256 acc[MAC_TOKENS][2], __m256 mins[MAC_TOKENS][2])
{
    const bool super = scales_are_super(f.scales);
    const int parts = scales_by_16(f.scales) ? 2 : 1;
    /* −zero times both sums of a block of activations, or times the first or the second: where a sum starts
     * takes out the zero point. */
    const __m256i zeros = _mm256_set1_epi16((int16_t)-f.zero);
    const __m256i zeros_of[2] = {_mm256_and_si256(zeros, _mm256_set1_epi32(0xffff)),
                                 _mm256_slli_epi32(zeros, 16)};
    __m256i sum[MAC_TOKENS][2];
    __m256 s[MAC_TOKENS][2];
    UNROLL
    for (int p = 0; p < parts; p++) {
        const int j = parts * b + p;
        UNROLL
        for (int t = 0; t < n; t++)
            UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256i sums = broadcast4(x[t].sum);
            sum[t][h] = _mm256_setzero_si256();
            if (f.scales == SCALE_BLOCK_ZERO)
                sum[t][h] = _mm256_madd_epi16(load_pairs(c->offset[b] + 8 * h), sums);
            else if (scales_have_zero(f.scales))
                sum[t][h] = _mm256_madd_epi16(parts == 2 ? zeros_of[p] : zeros, sums);
        }
        block_sums(f, codes, x, p * (GROUPS / 2), parts == 2 ? (p + 1) * (GROUPS / 2) : GROUPS, n, sum);
        UNROLL
        for (int t = 0; t < n; t++)
            UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256 isum = _mm256_cvtepi32_ps(sum[t][h]);
            if (f.scales == SCALE_BLOCK16) {
                __m256 dd = _mm256_mul_ps(_mm256_load_ps(c->d[j] + 8 * h), _mm256_set1_ps(x[t].d));
                acc[t][h] = _mm256_fmadd_ps(isum, dd, acc[t][h]);
            } else if (super && p == 1) { /* integers below 2²⁴: exact */
                s[t][h] = _mm256_fmadd_ps(isum, float_scales(c->scale[j] + 8 * h), s[t][h]);
            } else {
                s[t][h] = super ? _mm256_mul_ps(isum, float_scales(c->scale[j] + 8 * h)) : isum;
            }
        }
    }
    if (f.scales == SCALE_BLOCK16)
        return;
    UNROLL
    for (int t = 0; t < n; t++)
        UNROLL
    for (int h = 0; h < 2; h++)
        add_block(f, c, b, h, x + t, _mm256_set1_ps(x[t].d), broadcast4(x[t].sum), s[t][h], &acc[t][h],
                  &mins[t][h]);
}

#else

INLINE __m256i low_nibbles(__m256i x)
{
    return _mm256_and_si256(x, _mm256_set1_epi8(15));
}

INLINE __m256i high_nibbles(__m256i x)
{
    return low_nibbles(_mm256_srli_epi16(x, 4));
}

/* unpack_codes, of 8 bits, in halves; what a code book says is looked up in halves. */
INLINE void unpack_halves(const struct pack_format f, const struct codes c, int g, int h, __m256i *low,
                          __m256i *high)
{
    const __m256i q = unpack_bits(f, c, g, h);
    if (f.code_book) {
        const __m256i values = book_values(f);
        *low = _mm256_shuffle_epi8(low_nibbles(values), q);
        *high = _mm256_shuffle_epi8(high_nibbles(values), q);
    } else {
        *low = low_nibbles(q);
        *high = high_nibbles(q);
    }
}

INLINE void decode_blocks(struct chunk *c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    for (int b = 0; b < n_blocks; b++) {
        const struct codes codes = codes_of(f, c, &v, b);
        UNROLL
        for (int i = 0; i < 2 * GROUPS; i++) {
            __m256i *low = (__m256i *)(void *)(c->w[b][i / 2] + i % 2 * 32);
            __m256i *high = (__m256i *)(void *)(c->high[b][i / 2] + i % 2 * 32);
            if (is_wide(f))
                unpack_halves(f, codes, i / 2, i % 2, low, high);
            else
                _mm256_store_si256(low, unpack_codes(f, codes, i / 2, i % 2));
        }
    }
}

/* How many tokens' sums the registers hold: codes of 8 bits have two sums for everything. */
INLINE int tokens_at_once(const struct pack_format f)
{
    return is_wide(f) ? MAC_TOKENS / 2 : MAC_TOKENS;
}

/* sum[t][h] += scale[h] · Σ code · activation over groups g0 … g1 − 1, for eight rows (half h of the tile)
 * and n tokens; when `first` it is set. */
INLINE void block_sums(const struct pack_format f, const struct codes c, const struct act_block *x, int g0,
                       int g1, int n, const __m256i scale[2], bool first, __m256i sum[MAC_TOKENS][2])
{
    const int span = is_wide(f) ? GROUPS : groups_in_16_bits(f);
    UNROLL
    for (int s = g0; s < g1; s += span) {
        __m256i part[MAC_TOKENS][2], upper[MAC_TOKENS][2]; /* upper: of the upper halves of 8 bits */
        const int end = s + span < g1 ? s + span : g1;
        UNROLL
        for (int g = s; g < end; g++) {
            __m256i a[MAC_TOKENS];
            UNROLL
            for (int t = 0; t < n; t++)
                a[t] = broadcast4(x[t].q + 4 * g);
            UNROLL
            for (int h = 0; h < 2; h++) {
                __m256i w, high;
                if (c.are_packed && is_wide(f)) {
                    unpack_halves(f, c, g, h, &w, &high);
                } else {
                    w = c.are_packed ? unpack_codes(f, c, g, h) : load256(c.decoded[g] + 32 * h);
                    high = is_wide(f) ? load256(c.decoded_high[g] + 32 * h) : w;
                }
                UNROLL
                for (int t = 0; t < n; t++) {
                    __m256i p = _mm256_maddubs_epi16(w, a[t]);
                    part[t][h] = g == s ? p : _mm256_add_epi16(part[t][h], p);
                    FORGET(part[t][h]);
                    if (is_wide(f)) {
                        p = _mm256_maddubs_epi16(high, a[t]);
                        upper[t][h] = g == s ? p : _mm256_add_epi16(upper[t][h], p);
                        FORGET(upper[t][h]);
                    }
                }
            }
        }
        UNROLL
        for (int t = 0; t < n; t++)
            UNROLL
        for (int h = 0; h < 2; h++) {
            __m256i p = _mm256_madd_epi16(part[t][h], scale[h]);
            if (is_wide(f))
                p = _mm256_add_epi32(p, _mm256_madd_epi16(upper[t][h], _mm256_slli_epi16(scale[h], 4)));
            sum[t][h] = first && s == g0 ? p : _mm256_add_epi32(sum[t][h], p);
        }
    }
}

/* acc and mins take in block b of the chunk, whose codes are given, for n tokens. */
INLINE void mac_block(const struct pack_format f, const struct chunk *c, const struct codes codes, int b,
                      const struct act_block *x, int n, __m256 acc[MAC_TOKENS][2], __m256 mins[MAC_TOKENS][2])
{
    const bool by_16 = scales_by_16(f.scales), super = scales_are_super(f.scales);
    /* −zero times both sums of a block of activations, or times the first or the second. */
    const __m256i zeros = _mm256_set1_epi16((int16_t)-f.zero);
    const __m256i zero0 = _mm256_and_si256(zeros, _mm256_set1_epi32(0xffff));
    const __m256i zero1 = _mm256_andnot_si256(_mm256_set1_epi32(0xffff), zeros);
    __m256i sum[MAC_TOKENS][2], sum1[MAC_TOKENS][2], scale[2];
    UNROLL
    for (int h = 0; h < 2; h++)
        scale[h] = super ? load_pairs(c->scale[by_16 ? 2 * b : b] + 8 * h) : _mm256_set1_epi16(1);
    block_sums(f, codes, x, 0, by_16 ? GROUPS / 2 : GROUPS, n, scale, true, sum);
    if (by_16 && super) {
        UNROLL
        for (int h = 0; h < 2; h++)
            scale[h] = load_pairs(c->scale[2 * b + 1] + 8 * h);
        block_sums(f, codes, x, GROUPS / 2, GROUPS, n, scale, false, sum);
    } else if (by_16) {
        block_sums(f, codes, x, GROUPS / 2, GROUPS, n, scale, true, sum1);
    }
    UNROLL
    for (int t = 0; t < n; t++) {
        const __m256 d = _mm256_set1_ps(x[t].d);
        const __m256i sums = broadcast4(x[t].sum);
        UNROLL
        for (int h = 0; h < 2; h++) {
            __m256i s = sum[t][h];
            if (f.scales == SCALE_BLOCK16) {
                s = _mm256_add_epi32(s, _mm256_madd_epi16(zero0, sums));
                __m256i s1 = _mm256_add_epi32(sum1[t][h], _mm256_madd_epi16(zero1, sums));
                __m256 d0 = _mm256_mul_ps(_mm256_load_ps(c->d[2 * b] + 8 * h), d);
                __m256 d1 = _mm256_mul_ps(_mm256_load_ps(c->d[2 * b + 1] + 8 * h), d);
                acc[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), d0, acc[t][h]);
                acc[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s1), d1, acc[t][h]);
                continue;
            }
            if (f.scales == SCALE_BLOCK_ZERO || (super && scales_have_zero(f.scales)))
                s = _mm256_add_epi32(s, _mm256_madd_epi16(load_pairs(c->offset[b] + 8 * h), sums));
            else if (scales_have_zero(f.scales))
                s = _mm256_add_epi32(s, _mm256_madd_epi16(zeros, sums));
            add_block(f, c, b, h, x + t, d, sums, _mm256_cvtepi32_ps(s), &acc[t][h], &mins[t][h]);
        }
    }
}

#endif

/* packed: the chunk's codes as they are packed, NULL: c->w has them decoded. */
INLINE void mac_codes(const struct pack_format f, const struct chunk *c, const struct chunk_view *packed,
                      int n_blocks, const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    const bool super = scales_are_super(f.scales);
    __m256 acc[MAC_TOKENS][2], mins[MAC_TOKENS][2];
    UNROLL
    for (int t = 0; t < n; t++)
        UNROLL
    for (int h = 0; h < 2; h++)
        acc[t][h] = mins[t][h] = _mm256_setzero_ps();

    for (int b = 0; b < n_blocks; b++, x += width)
        mac_block(f, c, codes_of(f, c, packed, b), b, x, n, acc, mins);

    UNROLL
    for (int t = 0; t < n; t++)
        UNROLL
    for (int h = 0; h < 2; h++) {
        __m256 y = _mm256_load_ps(total[t] + 8 * h);
        if (super) {
            y = _mm256_fmadd_ps(acc[t][h], _mm256_load_ps(c->d[0] + 8 * h), y);
            if (scales_have_min(f.scales))
                y = _mm256_fnmadd_ps(_mm256_load_ps(c->m[0] + 8 * h), mins[t][h], y);
        } else {
            y = _mm256_add_ps(y, acc[t][h]);
            if (scales_have_min(f.scales))
                y = _mm256_add_ps(y, mins[t][h]);
        }
        _mm256_store_ps(total[t] + 8 * h, y);
    }
}

INLINE void mac_tokens(const struct pack_format f, const struct chunk *c, int n_blocks,
                       const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    mac_codes(f, c, NULL, n_blocks, x, width, n, total);
}

INLINE void mac_packed(const struct pack_format f, const struct chunk *c, const struct chunk_view *packed,
                       int n_blocks, const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    mac_codes(f, c, packed, n_blocks, x, width, n, total);
}

INLINE void fma_tokens(const float (*w)[TILE_ROWS], int n_cols, const float *x, int64_t stride, int width,
                       int n, float (*total)[TILE_ROWS])
{
    __m256 acc[FMA_TOKENS][2];
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    for (int k = 0; k < n_cols; k++, x += width) {
        __m256 w0 = _mm256_load_ps(w[k]), w1 = _mm256_load_ps(w[k] + 8);
        UNROLL
        for (int t = 0; t < n; t++) {
            __m256 a = _mm256_broadcast_ss(x + t / FLOAT_PANEL * stride + t % FLOAT_PANEL);
            acc[t][0] = _mm256_fmadd_ps(w0, a, acc[t][0]);
            acc[t][1] = _mm256_fmadd_ps(w1, a, acc[t][1]);
        }
    }
    UNROLL
    for (int t = 0; t < n; t++)
        UNROLL
    for (int h = 0; h < 2; h++)
        _mm256_store_ps(total[t] + 8 * h, _mm256_add_ps(_mm256_load_ps(total[t] + 8 * h), acc[t][h]));
}

/* Eight weights of a float type from element i on. */
INLINE __m256 load_weights(enum qtype type, const uint8_t *src, int i)
{
    if (type == QTYPE_F32)
        return _mm256_loadu_ps((const float *)(const void *)src + i);
    const __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(src + 2 * i));
    if (type == QTYPE_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

INLINE void fma_packed(enum qtype type, const uint8_t *src, int n_cols, int n_chunks, const float *x,
                       float *total)
{
    __m256 acc[FMA_CHUNKS][2];
    UNROLL
    for (int j = 0; j < n_chunks; j++)
        acc[j][0] = acc[j][1] = _mm256_setzero_ps();
    for (int k = 0; k < n_cols; k++) {
        UNROLL
        for (int j = 0; j < n_chunks; j++) {
            const int col = j * CHUNK_LEN + k;
            const __m256 a = _mm256_broadcast_ss(x + col);
            acc[j][0] = _mm256_fmadd_ps(load_weights(type, src, col * TILE_ROWS), a, acc[j][0]);
            acc[j][1] = _mm256_fmadd_ps(load_weights(type, src, col * TILE_ROWS + 8), a, acc[j][1]);
        }
    }
    UNROLL
    for (int j = 0; j < n_chunks; j++)
        UNROLL
    for (int h = 0; h < 2; h++)
        _mm256_store_ps(total + 8 * h, _mm256_add_ps(_mm256_load_ps(total + 8 * h), acc[j][h]));
}

#ifdef QUOLL_AVXVNNI

static int64_t peak_dots(int64_t n)
{
    enum { SUMS = 12 };
    __m256i sum[SUMS], w = _mm256_set1_epi8(1);
    UNROLL
    for (int k = 0; k < SUMS; k++)
        sum[k] = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i++) {
        KEEP(w);
        UNROLL
        for (int k = 0; k < SUMS; k++)
            sum[k] = _mm256_dpbusd_avx_epi32(sum[k], w, w);
    }
    UNROLL
    for (int k = 0; k < SUMS; k++)
        KEEP(sum[k]);
    return n * SUMS * 32;
}

#else

static int64_t peak_dots(int64_t n)
{
    enum { SUMS = 4, SPAN = 8 };
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[SUMS], w = ones, a = ones;
    UNROLL
    for (int k = 0; k < SUMS; k++)
        sum[k] = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i++) {
        UNROLL
        for (int k = 0; k < SUMS; k++) {
            __m256i part = _mm256_setzero_si256();
            UNROLL
            for (int g = 0; g < SPAN; g++) {
                KEEP(w);
                part = _mm256_add_epi16(part, _mm256_maddubs_epi16(w, a));
            }
            sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(part, ones));
        }
    }
    UNROLL
    for (int k = 0; k < SUMS; k++)
        KEEP(sum[k]);
    return n * SUMS * SPAN * 32;
}

#endif

static int64_t peak_fmas(int64_t n)
{
    enum { SUMS = 12 };
    __m256 sum[SUMS], x = _mm256_setzero_ps();
    UNROLL
    for (int k = 0; k < SUMS; k++)
        sum[k] = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i++) {
        KEEP(x);
        UNROLL
        for (int k = 0; k < SUMS; k++)
            sum[k] = _mm256_fmadd_ps(x, x, sum[k]);
    }
    UNROLL
    for (int k = 0; k < SUMS; k++)
        KEEP(sum[k]);
    return n * SUMS * 8;
}

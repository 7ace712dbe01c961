/* Products with 512-bit vectors: a tile's 16 rows are one vector. Included by linear_vnni.c, where
 * QUOLL_VNNI says that four byte products are one vpdpbusd; by linear_avx512.c, where they are vpmaddubsw and
 * vpmaddwd, as in linear_avx2.c; and by linear_amx.c, where QUOLL_AMX says that only the scaling of sums is
 * wanted. */

#ifndef QUOLL_VNNI
#define MAC_NIBBLES
#endif
#include "kernels/linear_decode.h"
#include "kernels/simd.h"

#define MAC_TOKENS 16
#define FMA_TOKENS 16
#define FMA_CHUNKS 4

/* As in linear_avx2.c: x is a new value to the compiler, which keeps sums in the order written (FORGET) and
 * computes them every time (KEEP). */
#ifdef QUOLL_EMULATE_AVX512
#define FORGET(x) ((void)(x))
#define KEEP(x)   __asm__ volatile("" : "+m"(x))
#else
#define FORGET(x) __asm__("" : "+v"(x))
#define KEEP(x)   __asm__ volatile("" : "+v"(x))
#endif

INLINE __m512i load512(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

/* Bytes shifted right (left when negative); the bits that cross bytes are masked away by the caller. */
INLINE __m512i shift_right(__m512i x, int by)
{
    return by > 0 ? _mm512_srl_epi16(x, _mm_cvtsi32_si128(by)) : _mm512_sll_epi16(x, _mm_cvtsi32_si128(-by));
}

/* Group g of a block's packed codes. decode_block in linear_scalar.c is its specification. */
INLINE __m512i load_codes(const struct pack_format f, const uint8_t *low, const uint8_t *high, int g)
{
    __m512i q = load512(low + plane_of(f.low_bits, g) * GROUP_BYTES);
    if (f.low_bits < 8) {
        q = shift_right(q, plane_shift(f.low_bits, g));
        q = _mm512_and_si512(q, _mm512_set1_epi8((char)((1 << f.low_bits) - 1)));
    }
    if (f.high_bits) {
        __m512i bits = load512(high + plane_of(f.high_bits, g) * GROUP_BYTES);
        bits = shift_right(bits, plane_shift(f.high_bits, g) - f.low_bits);
        const __m512i mask = _mm512_set1_epi8((char)(((1 << f.high_bits) - 1) << f.low_bits));
        q = _mm512_or_si512(q, _mm512_and_si512(bits, mask));
    }
    if (f.code_book) {
        const __m128i book = _mm_loadu_si128((const __m128i *)(const void *)f.code_book);
        const __m128i values = _mm_add_epi8(book, _mm_set1_epi8((char)f.zero));
        q = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), q);
    }
    return q;
}

INLINE __m512i load_pairs(const int16_t (*pairs)[2])
{
    return _mm512_load_si512((const void *)pairs);
}

enum { TOGETHER = 4 }; /* tokens whose sums of a block are made at once, at most */

/* Four activations, or two sums of them, of one token in every lane. */
INLINE __m512i broadcast4(const void *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}

#ifdef QUOLL_VNNI

#define MAC_ANY_BITS

/* The codes of a block. */
struct codes {
    __m512i w[GROUPS];
};

INLINE int tokens_at_once(const struct pack_format f)
{
    (void)f;
    return MAC_TOKENS;
}

INLINE void decode_blocks(struct chunk *c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    for (int b = 0; b < n_blocks; b++) {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            _mm512_store_si512(c->w[b][g], load_codes(f, v.low + b * f.low_bits * GROUP_BYTES,
                                                      v.high + b * f.high_bits * GROUP_BYTES, g));
    }
}

INLINE struct codes codes_of(const struct pack_format f, const struct chunk *c,
                             const struct chunk_view *packed, int b)
{
    struct codes k;
    UNROLL
    for (int g = 0; g < GROUPS; g++)
        k.w[g] = packed ? load_codes(f, packed->low + b * f.low_bits * GROUP_BYTES,
                                     packed->high + b * f.high_bits * GROUP_BYTES, g)
                        : load512(c->w[b][g]);
    return k;
}

/* sum[t] += Σ code · activation over groups g0 … g1 − 1, for n tokens: their chains of sums side by side, for
 * each instruction waits for the one before. */
INLINE void block_sums(const struct pack_format f, const struct codes *k, const struct act_block *x, int g0,
                       int g1, int n, __m512i sum[TOGETHER])
{
    (void)f;
    UNROLL
    for (int g = g0; g < g1; g++)
        UNROLL
    for (int t = 0; t < n; t++)
        sum[t] = _mm512_dpbusd_epi32(sum[t], k->w[g], broadcast4(x[t].q + 4 * g));
}

/* Of 16 pairs of integers with a token's pair: the sum of the two products. */
INLINE __m512i pair_product(__m512i pairs, __m512i pair)
{
    return _mm512_dpwssd_epi32(_mm512_setzero_si512(), pairs, pair);
}

#else

struct codes {
    __m512i w[GROUPS], high[GROUPS];
};

INLINE int tokens_at_once(const struct pack_format f)
{
    return is_wide(f) ? MAC_TOKENS / 4 : MAC_TOKENS / 2;
}

INLINE __m512i low_nibbles(__m512i x)
{
    return _mm512_and_si512(x, _mm512_set1_epi8(15));
}

INLINE __m512i high_nibbles(__m512i x)
{
    return low_nibbles(_mm512_srli_epi16(x, 4));
}

INLINE void decode_blocks(struct chunk *c, const struct pack_format f, const struct chunk_view v,
                          int n_blocks)
{
    for (int b = 0; b < n_blocks; b++) {
        UNROLL
        for (int g = 0; g < GROUPS; g++) {
            __m512i q = load_codes(f, v.low + b * f.low_bits * GROUP_BYTES,
                                   v.high + b * f.high_bits * GROUP_BYTES, g);
            _mm512_store_si512(c->w[b][g], is_wide(f) ? low_nibbles(q) : q);
            if (is_wide(f))
                _mm512_store_si512(c->high[b][g], high_nibbles(q));
        }
    }
}

INLINE struct codes codes_of(const struct pack_format f, const struct chunk *c,
                             const struct chunk_view *packed, int b)
{
    struct codes k;
    UNROLL
    for (int g = 0; g < GROUPS; g++) {
        __m512i q = packed ? load_codes(f, packed->low + b * f.low_bits * GROUP_BYTES,
                                        packed->high + b * f.high_bits * GROUP_BYTES, g)
                           : load512(c->w[b][g]);
        k.w[g] = packed && is_wide(f) ? low_nibbles(q) : q;
        k.high[g] = !is_wide(f) ? q : packed ? high_nibbles(q) : load512(c->high[b][g]);
    }
    return k;
}

INLINE void block_sums(const struct pack_format f, const struct codes *k, const struct act_block *x, int g0,
                       int g1, int n, __m512i sum[TOGETHER])
{
    const int span = is_wide(f) ? GROUPS : groups_in_16_bits(f);
    const __m512i ones = _mm512_set1_epi16(1);
    UNROLL
    for (int s = g0; s < g1; s += span) {
        __m512i part[TOGETHER], upper[TOGETHER]; /* upper: of the upper halves of 8 bits */
        const int end = s + span < g1 ? s + span : g1;
        UNROLL
        for (int g = s; g < end; g++)
            UNROLL
        for (int t = 0; t < n; t++) {
            const __m512i a = broadcast4(x[t].q + 4 * g);
            __m512i p = _mm512_maddubs_epi16(k->w[g], a);
            part[t] = g == s ? p : _mm512_add_epi16(part[t], p);
            FORGET(part[t]);
            if (is_wide(f)) {
                p = _mm512_maddubs_epi16(k->high[g], a);
                upper[t] = g == s ? p : _mm512_add_epi16(upper[t], p);
                FORGET(upper[t]);
            }
        }
        UNROLL
        for (int t = 0; t < n; t++) {
            sum[t] = _mm512_add_epi32(sum[t], _mm512_madd_epi16(part[t], ones));
            if (is_wide(f))
                sum[t] = _mm512_add_epi32(sum[t], _mm512_madd_epi16(upper[t], _mm512_slli_epi16(ones, 4)));
        }
    }
}

INLINE __m512i pair_product(__m512i pairs, __m512i pair)
{
    return _mm512_madd_epi16(pairs, pair);
}

#endif

/* Integer scales as float, exact: of a pair the two are the same. */
INLINE __m512 float_scales(const int16_t (*pairs)[2])
{
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(load_pairs(pairs), _mm512_set1_epi32(1)));
}

/* acc[t] takes in the sums of block b of n tokens: of all its codes, or of its halves. */
INLINE void scale_sums(const struct pack_format f, const struct chunk *c, int b, const struct act_block *x,
                       int n, const __m512i sum[TOGETHER], const __m512i sum1[TOGETHER], __m512 *acc)
{
    UNROLL
    for (int t = 0; t < n; t++) {
        const __m512 d = _mm512_set1_ps(x[t].d), s = _mm512_cvtepi32_ps(sum[t]);
        if (f.scales == SCALE_BLOCK16) {
            const __m512 s1 = _mm512_cvtepi32_ps(sum1[t]);
            acc[t] = _mm512_fmadd_ps(s, _mm512_mul_ps(_mm512_load_ps(c->d[2 * b]), d), acc[t]);
            acc[t] = _mm512_fmadd_ps(s1, _mm512_mul_ps(_mm512_load_ps(c->d[2 * b + 1]), d), acc[t]);
        } else if (scales_by_16(f.scales)) { /* integers below 2²⁴: exact */
            __m512 both = _mm512_mul_ps(s, float_scales(c->scale[2 * b]));
            both = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum1[t]), float_scales(c->scale[2 * b + 1]), both);
            acc[t] = _mm512_fmadd_ps(both, d, acc[t]);
        } else if (scales_are_super(f.scales)) {
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(s, float_scales(c->scale[b])), d, acc[t]);
        } else {
            acc[t] = _mm512_fmadd_ps(s, _mm512_mul_ps(_mm512_load_ps(c->d[b]), d), acc[t]);
        }
    }
}

/* total[t] takes in what a chunk's blocks have come to. */
INLINE void add_chunk(const struct pack_format f, const struct chunk *c, int n, const __m512 *acc,
                      float (*total)[TILE_ROWS])
{
    UNROLL
    for (int t = 0; t < n; t++) {
        __m512 y = _mm512_load_ps(total[t]);
        y = scales_are_super(f.scales) ? _mm512_fmadd_ps(acc[t], _mm512_load_ps(c->d[0]), y)
                                       : _mm512_add_ps(y, acc[t]);
        _mm512_store_ps(total[t], y);
    }
}

/* total[t] takes in a chunk's minima. They are a small product of their own, after the other: either set of
 * sums fits the registers. */
INLINE void mac_mins(const struct pack_format f, const struct chunk *c, int n_blocks,
                     const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    const bool super = scales_are_super(f.scales);
    __m512 acc[MAC_TOKENS];
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t] = _mm512_setzero_ps();
    for (int b = 0; b < n_blocks; b++, x += width) {
        UNROLL
        for (int t = 0; t < n; t++)
            if (super) {
                __m512i m = pair_product(load_pairs(c->min[b]), broadcast4(x[t].sum));
                acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(m), _mm512_set1_ps(x[t].d), acc[t]);
            } else {
                acc[t] = _mm512_fmadd_ps(_mm512_load_ps(c->m[b]), _mm512_set1_ps(x[t].ds), acc[t]);
            }
    }
    UNROLL
    for (int t = 0; t < n; t++) {
        __m512 y = _mm512_load_ps(total[t]);
        y = super ? _mm512_fnmadd_ps(_mm512_load_ps(c->m[0]), acc[t], y) : _mm512_add_ps(y, acc[t]);
        _mm512_store_ps(total[t], y);
    }
}

#ifndef QUOLL_AMX

/* acc[t] takes in block b of the chunk, whose codes are k, for n tokens. */
INLINE void mac_block(const struct pack_format f, const struct chunk *c, const struct codes *k, int b,
                      const struct act_block *x, int n, __m512 *acc)
{
    const bool by_16 = scales_by_16(f.scales);
    /* −zero times both sums of a block of activations, or times the first or the second: where a sum starts
     * takes out the zero point. */
    const __m512i zeros = _mm512_set1_epi16((int16_t)-f.zero);
    const __m512i zero0 = _mm512_and_si512(zeros, _mm512_set1_epi32(0xffff));
    const __m512i zero1 = _mm512_slli_epi32(zeros, 16);
    __m512i sum[TOGETHER], sum1[TOGETHER]; /* sum1, of formats with scales by 16: of the second half */
    UNROLL
    for (int t = 0; t < n; t++) {
        const __m512i sums = broadcast4(x[t].sum);
        sum[t] = sum1[t] = _mm512_setzero_si512();
        if (f.scales == SCALE_BLOCK_ZERO)
            sum[t] = pair_product(load_pairs(c->offset[b]), sums);
        else if (scales_have_zero(f.scales))
            sum[t] = pair_product(by_16 ? zero0 : zeros, sums);
        if (scales_have_zero(f.scales) && by_16)
            sum1[t] = pair_product(zero1, sums);
    }
    block_sums(f, k, x, 0, by_16 ? GROUPS / 2 : GROUPS, n, sum);
    if (by_16)
        block_sums(f, k, x, GROUPS / 2, GROUPS, n, sum1);
    scale_sums(f, c, b, x, n, sum, sum1, acc);
}

/* packed: the chunk's codes as they are packed, NULL: c has them decoded. */
INLINE void mac_codes(const struct pack_format f, const struct chunk *c, const struct chunk_view *packed,
                      int n_blocks, const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    const int together = scales_by_16(f.scales) ? TOGETHER / 2 : TOGETHER; /* those have two sums each */
    __m512 acc[MAC_TOKENS];
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t] = _mm512_setzero_ps();

    const struct act_block *block = x;
    for (int b = 0; b < n_blocks; b++, block += width) {
        const struct codes k = codes_of(f, c, packed, b);
        UNROLL
        for (int t = 0; t < n; t += together)
            mac_block(f, c, &k, b, block + t, n < together ? n : together, acc + t);
    }
    add_chunk(f, c, n, acc, total);
    if (scales_have_min(f.scales))
        mac_mins(f, c, n_blocks, x, width, n, total);
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
    __m512 acc[FMA_TOKENS];
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t] = _mm512_setzero_ps();
    for (int k = 0; k < n_cols; k++, x += width) {
        __m512 row = _mm512_load_ps(w[k]);
        UNROLL
        for (int t = 0; t < n; t++)
            acc[t] =
                _mm512_fmadd_ps(row, _mm512_set1_ps(x[t / FLOAT_PANEL * stride + t % FLOAT_PANEL]), acc[t]);
    }
    UNROLL
    for (int t = 0; t < n; t++)
        _mm512_store_ps(total[t], _mm512_add_ps(_mm512_load_ps(total[t]), acc[t]));
}

/* A column's 16 weights of a float type. */
INLINE __m512 load_weights(enum qtype type, const uint8_t *src, int col)
{
    if (type == QTYPE_F32)
        return _mm512_loadu_ps((const void *)(src + 4 * TILE_ROWS * col));
    const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)(src + 2 * TILE_ROWS * col));
    if (type == QTYPE_F16)
        return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE void fma_packed(enum qtype type, const uint8_t *src, int n_cols, int n_chunks, const float *x,
                       float *total)
{
    __m512 acc[FMA_CHUNKS];
    UNROLL
    for (int j = 0; j < n_chunks; j++)
        acc[j] = _mm512_setzero_ps();
    for (int k = 0; k < n_cols; k++) {
        UNROLL
        for (int j = 0; j < n_chunks; j++) {
            const int col = j * CHUNK_LEN + k;
            acc[j] = _mm512_fmadd_ps(load_weights(type, src, col), _mm512_set1_ps(x[col]), acc[j]);
        }
    }
    UNROLL
    for (int j = 0; j < n_chunks; j++)
        _mm512_store_ps(total, _mm512_add_ps(_mm512_load_ps(total), acc[j]));
}

/* Sixteen sums each. */
static int64_t peak_dots(int64_t n)
{
    const struct act_block x[TOGETHER] = {{.d = 0}};
    const struct pack_format f = {.scales = SCALE_BLOCK_MIN, .low_bits = 4};
    __m512i sum[2][TOGETHER];
    struct codes k;
    memset(&k, 0, sizeof k);
    memset(sum, 0, sizeof sum);
    for (int64_t i = 0; i < n; i++) {
        KEEP(k.w[0]);
        block_sums(f, &k, x, 0, GROUPS, TOGETHER, sum[0]);
        block_sums(f, &k, x, 0, GROUPS, TOGETHER, sum[1]);
    }
    UNROLL
    for (int t = 0; t < 2 * TOGETHER; t++)
        KEEP(sum[t / TOGETHER][t % TOGETHER]);
    return n * 2 * TOGETHER * GROUPS * 64;
}

static int64_t peak_fmas(int64_t n)
{
    __m512 sum[16], x = _mm512_setzero_ps();
    UNROLL
    for (int t = 0; t < 16; t++)
        sum[t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i++) {
        KEEP(x);
        UNROLL
        for (int t = 0; t < 16; t++)
            sum[t] = _mm512_fmadd_ps(x, x, sum[t]);
    }
    UNROLL
    for (int t = 0; t < 16; t++)
        KEEP(sum[t]);
    return n * 16 * 16;
}

#endif

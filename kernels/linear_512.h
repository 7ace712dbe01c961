/* Products with 512-bit vectors: a tile's 16 rows are one vector. Included by linear_vnni.c, where
 * QUOLL_VNNI says that four byte products are one vpdpbusd, and by linear_avx512.c, where they are
 * vpmaddubsw (as in linear_avx2.c) and vpmaddwd. */

#include "kernels/linear_decode.h"
#include "kernels/simd.h"

#define MAC_TOKENS 16
#define FMA_TOKENS 16

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

/* Four activations of one token in every lane. */
INLINE __m512i broadcast4(const int8_t *q)
{
    int32_t x;
    memcpy(&x, q, sizeof x);
    return _mm512_set1_epi32(x);
}

#ifdef QUOLL_VNNI

#define MAC_ANY_BITS

/* Σ code · activation over groups g0 … g1 − 1, from `start`. */
INLINE __m512i block_sum(const struct pack_format f, const __m512i w[GROUPS], const int8_t *q, int g0, int g1,
                         __m512i start)
{
    (void)f;
    UNROLL
    for (int g = g0; g < g1; g++)
        start = _mm512_dpbusd_epi32(start, w[g], broadcast4(q + 4 * g));
    return start;
}

/* Codes are unsigned already. */
INLINE __m512i operand(const struct pack_format f, __m512i w)
{
    (void)f;
    return w;
}

/* The sum's start takes out the zero point: −zero · Σ activation. */
INLINE int start_sum(const struct pack_format f, int activation_sum)
{
    return -f.zero * activation_sum;
}

#else

INLINE __m512i block_sum(const struct pack_format f, const __m512i w[GROUPS], const int8_t *q, int g0, int g1,
                         __m512i start)
{
    const int span = groups_in_16_bits(f);
    UNROLL
    for (int s = g0; s < g1; s += span) {
        __m512i part = _mm512_setzero_si512();
        const int end = s + span < g1 ? s + span : g1;
        UNROLL
        for (int g = s; g < end; g++) {
            __m512i a = broadcast4(q + 4 * g), magnitude = w[g];
            if (is_wide(f)) { /* |w| · (a with w's sign) fits 16 bits */
                magnitude = _mm512_abs_epi8(w[g]);
                a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w[g]), _mm512_setzero_si512(), a);
            }
            part = _mm512_add_epi16(part, _mm512_maddubs_epi16(magnitude, a));
            FORGET(part);
        }
        start = _mm512_add_epi32(start, _mm512_madd_epi16(part, _mm512_set1_epi16(1)));
    }
    return start;
}

/* Codes of 8 bits become signed weights. */
INLINE __m512i operand(const struct pack_format f, __m512i w)
{
    return is_wide(f) ? _mm512_xor_si512(w, _mm512_set1_epi8((char)-128)) : w;
}

INLINE int start_sum(const struct pack_format f, int activation_sum)
{
    return is_wide(f) ? 0 : -f.zero * activation_sum;
}

#endif

/* packed: the chunk's codes as they are packed, NULL: c->w has them decoded. */
INLINE void mac_codes(const struct pack_format f, const struct chunk *c, const struct chunk_view *packed,
                      int n_blocks, const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    __m512 acc[MAC_TOKENS];
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t] = _mm512_setzero_ps();

    const struct act_block *block = x;
    for (int b = 0; b < n_blocks; b++, block += width) {
        __m512i w[GROUPS];
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            w[g] = operand(f, packed ? load_codes(f, packed->low + b * f.low_bits * GROUP_BYTES,
                                                  packed->high + b * f.high_bits * GROUP_BYTES, g)
                                     : load512(c->w[b][g]));
        UNROLL
        for (int t = 0; t < n; t++) {
            const struct act_block *a = &block[t];
            const __m512 d = _mm512_set1_ps(a->d);
            if (scales_by_16(f.scales)) {
                __m512i s0 = block_sum(f, w, a->q, 0, GROUPS / 2, _mm512_set1_epi32(start_sum(f, a->sum[0])));
                __m512i s1 =
                    block_sum(f, w, a->q, GROUPS / 2, GROUPS, _mm512_set1_epi32(start_sum(f, a->sum[1])));
                if (f.scales == SCALE_BLOCK16) {
                    acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s0),
                                             _mm512_mul_ps(_mm512_load_ps(c->d[2 * b]), d), acc[t]);
                    acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s1),
                                             _mm512_mul_ps(_mm512_load_ps(c->d[2 * b + 1]), d), acc[t]);
                    continue;
                }
                /* Integer scales times integer sums stay below 2²⁴: products of floats are exact. */
                __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(s0), _mm512_load_ps(c->scale[2 * b]));
                s = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s1), _mm512_load_ps(c->scale[2 * b + 1]), s);
                acc[t] = _mm512_fmadd_ps(s, d, acc[t]);
            } else {
                __m512i sum =
                    block_sum(f, w, a->q, 0, GROUPS, _mm512_set1_epi32(start_sum(f, a->sum[0] + a->sum[1])));
                __m512 s = _mm512_cvtepi32_ps(sum);
                if (f.scales == SCALE_BLOCK_ZERO) /* integers below 2²⁴ in float: exact */
                    s = _mm512_fnmadd_ps(_mm512_load_ps(c->m[b]),
                                         _mm512_set1_ps((float)(a->sum[0] + a->sum[1])), s);
                if (scales_are_super(f.scales))
                    acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(s, _mm512_load_ps(c->scale[b])), d, acc[t]);
                else
                    acc[t] = _mm512_fmadd_ps(s, _mm512_mul_ps(_mm512_load_ps(c->d[b]), d), acc[t]);
            }
        }
    }

    /* Minima are a small product of their own: apart, so that both sets of sums fit the registers. */
    UNROLL
    for (int t = 0; t < n; t++) {
        __m512 y = _mm512_load_ps(total[t]);
        if (scales_are_super(f.scales))
            y = _mm512_fmadd_ps(acc[t], _mm512_load_ps(c->d[0]), y);
        else
            y = _mm512_add_ps(y, acc[t]);
        if (scales_have_min(f.scales)) {
            __m512 mins = _mm512_setzero_ps();
            for (int b = 0; b < n_blocks; b++) {
                const struct act_block *a = &x[b * width + t];
                if (f.scales == SCALE_BLOCK_MIN) {
                    mins = _mm512_fmadd_ps(_mm512_load_ps(c->m[b]), _mm512_set1_ps(a->ds), mins);
                    continue;
                }
                __m512 m;
                if (f.scales == SCALE_SUPER16_MIN) {
                    m = _mm512_mul_ps(_mm512_set1_ps(a->sum[0]), _mm512_load_ps(c->min[2 * b]));
                    m = _mm512_fmadd_ps(_mm512_set1_ps(a->sum[1]), _mm512_load_ps(c->min[2 * b + 1]), m);
                } else {
                    m = _mm512_mul_ps(_mm512_set1_ps((float)(a->sum[0] + a->sum[1])),
                                      _mm512_load_ps(c->min[b]));
                }
                mins = _mm512_fmadd_ps(m, _mm512_set1_ps(a->d), mins);
            }
            y = f.scales == SCALE_BLOCK_MIN ? _mm512_add_ps(y, mins)
                                            : _mm512_fnmadd_ps(_mm512_load_ps(c->m[0]), mins, y);
        }
        _mm512_store_ps(total[t], y);
    }
}

INLINE void mac_tokens(const struct pack_format f, const struct chunk *c, int n_blocks,
                       const struct act_block *x, int width, int n, float (*total)[TILE_ROWS])
{
    mac_codes(f, c, NULL, n_blocks, x, width, n, total);
}

INLINE void mac_packed(const struct pack_format f, const struct chunk *c, const struct chunk_view *packed,
                       int n_blocks, const struct act_block *x, float (*total)[TILE_ROWS])
{
    mac_codes(f, c, packed, n_blocks, x, 1, 1, total);
}

INLINE void fma_tokens(const float (*w)[TILE_ROWS], int n_cols, const float *x, int64_t stride, int n,
                       float (*total)[TILE_ROWS])
{
    __m512 acc[FMA_TOKENS];
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t] = _mm512_setzero_ps();
    for (int k = 0; k < n_cols; k++) {
        __m512 row = _mm512_load_ps(w[k]);
        UNROLL
        for (int t = 0; t < n; t++)
            acc[t] = _mm512_fmadd_ps(row, _mm512_set1_ps(x[t * stride + k]), acc[t]);
    }
    UNROLL
    for (int t = 0; t < n; t++)
        _mm512_store_ps(total[t], _mm512_add_ps(_mm512_load_ps(total[t]), acc[t]));
}

/* Sixteen sums each. */
static int64_t peak_dots(int64_t n)
{
    __m512i sum[16], w[GROUPS];
    const int8_t q[ACT_LEN] = {0};
    const struct pack_format f = {.scales = SCALE_BLOCK_MIN, .low_bits = 4};
    UNROLL
    for (int g = 0; g < GROUPS; g++)
        w[g] = _mm512_setzero_si512();
    UNROLL
    for (int t = 0; t < 16; t++)
        sum[t] = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i++) {
        KEEP(w[0]);
        UNROLL
        for (int t = 0; t < 16; t++)
            sum[t] = block_sum(f, w, q, 0, GROUPS, sum[t]);
    }
    UNROLL
    for (int t = 0; t < 16; t++)
        KEEP(sum[t]);
    return n * 16 * GROUPS * 64;
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

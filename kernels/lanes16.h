/* Sixteen floats at a time: two AVX2 registers, or one of AVX-512 where a file defines LANES16_AVX512
 * before it includes this. Kernels written on it serve both levels; lanes never meet but in v16_sum and
 * v16_max_lane. The functions repeat mathf.h operation by operation. */
#ifndef QUOLL_LANES16_H
#define QUOLL_LANES16_H

#include "kernels/mathf.h"
#include "kernels/simd.h"

#include <stdint.h>

#define LANES_INLINE static inline __attribute__((always_inline))

#ifdef __clang__
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 16")
#endif

/* e^x of mathf_exp without branches, of n registers in step: each operation waits four cycles for the one
 * before it. The conversion of a NaN to an integer is 2^31, whose shift by 23 is 0, so that a NaN stays one.
 * large: x may be above EXP_MAX. */
LANES_INLINE void m256_exp(__m256 *x, int n, bool large)
{
    __m256 k[8], r[8], p[8];
#define EACH LANES_UNROLL for (int i = 0; i < n; i++)
    EACH k[i] = _mm256_round_ps(_mm256_mul_ps(x[i], _mm256_set1_ps(EXP_LOG2E)),
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    EACH r[i] = _mm256_fmadd_ps(k[i], _mm256_set1_ps(-EXP_LN2_HI), x[i]);
    EACH r[i] = _mm256_fmadd_ps(k[i], _mm256_set1_ps(-EXP_LN2_LO), r[i]);
    EACH p[i] = _mm256_fmadd_ps(_mm256_set1_ps(EXP_C6), r[i], _mm256_set1_ps(EXP_C5));
    EACH p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(EXP_C4));
    EACH p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(EXP_C3));
    EACH p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(EXP_C2));
    EACH p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(1));
    EACH p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(1));
    EACH k[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtps_epi32(k[i]), 23));
    EACH p[i] = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p[i]), _mm256_castps_si256(k[i])));
    if (large)
        EACH p[i] = _mm256_blendv_ps(p[i], _mm256_set1_ps(INFINITY),
                                     _mm256_cmp_ps(x[i], _mm256_set1_ps(EXP_MAX), _CMP_GT_OQ));
    EACH x[i] = _mm256_andnot_ps(_mm256_cmp_ps(x[i], _mm256_set1_ps(EXP_MIN), _CMP_LT_OQ), p[i]);
#undef EACH
}

LANES_INLINE float m256_max_lane(__m256 v)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

/* The rest of mathf_sum16 after its first step. */
LANES_INLINE float m256_sum(__m256 t)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

#ifndef LANES16_AVX512

/* One register. */
typedef __m256 vec;
enum { VEC_LEN = 8 };

LANES_INLINE vec vec_set1(float x)
{
    return _mm256_set1_ps(x);
}

LANES_INLINE vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

LANES_INLINE vec vec_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

LANES_INLINE vec vec_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

LANES_INLINE void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

LANES_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

LANES_INLINE vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

typedef struct {
    __m256 lo, hi;
} v16;

LANES_INLINE v16 v16_set1(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (v16){v, v};
}

LANES_INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

LANES_INLINE v16 v16_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8)))};
}

/* 16 signed bytes. */
LANES_INLINE v16 v16_from_i8(__m128i b)
{
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
}

LANES_INLINE void v16_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}

#define V16_BINARY(name, op)                                                      \
    LANES_INLINE v16 v16_##name(v16 a, v16 b)                                     \
    {                                                                             \
        return (v16){_mm256_##op##_ps(a.lo, b.lo), _mm256_##op##_ps(a.hi, b.hi)}; \
    }

LANES_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

LANES_INLINE v16 v16_neg(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

LANES_INLINE v16 v16_exp(v16 x)
{
    __m256 y[2] = {x.lo, x.hi};
    m256_exp(y, 2, true);
    return (v16){y[0], y[1]};
}

/* Of as many values as registers hold in step, in place. None is above EXP_MAX. */
enum { EXP_LANES = 32 };
LANES_INLINE void v16_exp_low(v16 x[EXP_LANES / 16])
{
    __m256 y[4] = {x[0].lo, x[0].hi, x[1].lo, x[1].hi};
    m256_exp(y, 4, false);
    x[0] = (v16){y[0], y[1]};
    x[1] = (v16){y[2], y[3]};
}

/* Lane by lane: x < y ? yes : no; of a NaN, no. */
LANES_INLINE v16 v16_less(v16 x, v16 y, v16 yes, v16 no)
{
    return (v16){_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
                 _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))};
}

/* Lanes begin ≤ j < end of v, other elsewhere. */
LANES_INLINE v16 v16_keep(v16 v, int begin, int end, v16 other)
{
    if (begin <= 0 && end >= 16)
        return v;
    __m256i lo = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i hi = _mm256_add_epi32(lo, _mm256_set1_epi32(8));
    __m256i b = _mm256_set1_epi32(begin - 1), e = _mm256_set1_epi32(end);
    __m256i in_lo = _mm256_and_si256(_mm256_cmpgt_epi32(lo, b), _mm256_cmpgt_epi32(e, lo));
    __m256i in_hi = _mm256_and_si256(_mm256_cmpgt_epi32(hi, b), _mm256_cmpgt_epi32(e, hi));
    return (v16){_mm256_blendv_ps(other.lo, v.lo, _mm256_castsi256_ps(in_lo)),
                 _mm256_blendv_ps(other.hi, v.hi, _mm256_castsi256_ps(in_hi))};
}

LANES_INLINE float v16_max_lane(v16 v)
{
    return m256_max_lane(_mm256_max_ps(v.lo, v.hi));
}

LANES_INLINE float v16_sum(v16 v)
{
    return m256_sum(_mm256_add_ps(v.lo, v.hi));
}

#else

typedef __m512 v16, vec;
enum { VEC_LEN = 16 };

LANES_INLINE v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}

LANES_INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

LANES_INLINE v16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* 16 signed bytes. */
LANES_INLINE v16 v16_from_i8(__m128i b)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b));
}

LANES_INLINE void v16_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

#define V16_BINARY(name, op)                  \
    LANES_INLINE v16 v16_##name(v16 a, v16 b) \
    {                                         \
        return _mm512_##op##_ps(a, b);        \
    }

LANES_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

LANES_INLINE vec vec_set1(float x)
{
    return v16_set1(x);
}

LANES_INLINE vec vec_load(const float *p)
{
    return v16_load(p);
}

LANES_INLINE vec vec_load_f16(const uint16_t *p)
{
    return v16_load_f16(p);
}

LANES_INLINE vec vec_load_i8(const int8_t *p)
{
    return v16_from_i8(_mm_loadu_si128((const __m128i *)(const void *)p));
}

LANES_INLINE void vec_store(float *p, vec v)
{
    v16_store(p, v);
}

LANES_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return v16_fma(a, b, c);
}

LANES_INLINE vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

LANES_INLINE v16 v16_neg(v16 a)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN)));
}

/* As m256_exp. */
LANES_INLINE void m512_exp(__m512 *x, int n, bool large)
{
    enum { NEAREST = 0 }; /* to an integer, half to even */
    __m512 k[4], r[4], p[4];
#define EACH LANES_UNROLL for (int i = 0; i < n; i++)
    EACH k[i] = _mm512_roundscale_ps(_mm512_mul_ps(x[i], _mm512_set1_ps(EXP_LOG2E)), NEAREST);
    EACH r[i] = _mm512_fmadd_ps(k[i], _mm512_set1_ps(-EXP_LN2_HI), x[i]);
    EACH r[i] = _mm512_fmadd_ps(k[i], _mm512_set1_ps(-EXP_LN2_LO), r[i]);
    EACH p[i] = _mm512_fmadd_ps(_mm512_set1_ps(EXP_C6), r[i], _mm512_set1_ps(EXP_C5));
    EACH p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(EXP_C4));
    EACH p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(EXP_C3));
    EACH p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(EXP_C2));
    EACH p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(1));
    EACH p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(1));
    EACH k[i] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtps_epi32(k[i]), 23));
    EACH p[i] = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p[i]), _mm512_castps_si512(k[i])));
    if (large)
        EACH p[i] = _mm512_mask_mov_ps(p[i], _mm512_cmp_ps_mask(x[i], _mm512_set1_ps(EXP_MAX), _CMP_GT_OQ),
                                       _mm512_set1_ps(INFINITY));
    EACH x[i] = _mm512_mask_mov_ps(p[i], _mm512_cmp_ps_mask(x[i], _mm512_set1_ps(EXP_MIN), _CMP_LT_OQ),
                                   _mm512_setzero_ps());
#undef EACH
}

LANES_INLINE v16 v16_exp(v16 x)
{
    m512_exp(&x, 1, true);
    return x;
}

/* Of as many values as registers hold in step, in place. None is above EXP_MAX. */
enum { EXP_LANES = 64 };
LANES_INLINE void v16_exp_low(v16 x[EXP_LANES / 16])
{
    m512_exp(x, 4, false);
}

LANES_INLINE v16 v16_less(v16 x, v16 y, v16 yes, v16 no)
{
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), yes);
}

/* Lanes begin ≤ j < end of v, other elsewhere. */
LANES_INLINE v16 v16_keep(v16 v, int begin, int end, v16 other)
{
    if (begin <= 0 && end >= 16)
        return v;
    int b = begin < 0 ? 0 : begin > 16 ? 16 : begin, e = end < 0 ? 0 : end > 16 ? 16 : end;
    unsigned below_end = (1u << e) - 1, below_begin = (1u << b) - 1;
    return _mm512_mask_mov_ps(other, (__mmask16)(below_end & ~below_begin), v);
}

LANES_INLINE __m256 v16_half(v16 v, int i)
{
    __m512d d = _mm512_castps_pd(v);
    return _mm256_castpd_ps(i ? _mm512_extractf64x4_pd(d, 1) : _mm512_extractf64x4_pd(d, 0));
}

LANES_INLINE float v16_max_lane(v16 v)
{
    return m256_max_lane(_mm256_max_ps(v16_half(v, 0), v16_half(v, 1)));
}

LANES_INLINE float v16_sum(v16 v)
{
    return m256_sum(_mm256_add_ps(v16_half(v, 0), v16_half(v, 1)));
}

#endif

V16_BINARY(add, add)
V16_BINARY(sub, sub)
V16_BINARY(mul, mul)
V16_BINARY(div, div)
V16_BINARY(max, max)

LANES_INLINE v16 v16_zero(void)
{
    return v16_set1(0);
}

/* ---- mathf.h on 16 lanes ----------------------------------------------------------------------- */

LANES_INLINE v16 v16_abs(v16 x)
{
    return v16_less(x, v16_zero(), v16_neg(x), x);
}

/* p z + c */
LANES_INLINE v16 v16_step(v16 p, v16 z, float c)
{
    return v16_fma(p, z, v16_set1(c));
}

LANES_INLINE v16 v16_tanh(v16 x)
{
    v16 a = v16_abs(x), z = v16_mul(x, x), one = v16_set1(1);
    v16 p = v16_step(v16_set1(TANH_C4), z, TANH_C3);
    p = v16_step(p, z, TANH_C2);
    p = v16_step(p, z, TANH_C1);
    p = v16_step(p, z, TANH_C0);
    v16 near = v16_fma(v16_mul(x, z), p, x);
    v16 far = v16_add(one, v16_exp(v16_mul(v16_set1(2), a)));
    far = v16_sub(one, v16_div(v16_set1(2), far));
    far = v16_less(x, v16_zero(), v16_neg(far), far);
    return v16_less(a, v16_set1(TANH_NEAR), near, far);
}

LANES_INLINE v16 v16_softcap(v16 x, float cap)
{
    v16 c = v16_set1(cap);
    return v16_mul(c, v16_tanh(v16_div(x, c)));
}

LANES_INLINE v16 v16_silu(v16 x)
{
    return v16_div(x, v16_add(v16_set1(1), v16_exp(v16_neg(x))));
}

LANES_INLINE v16 v16_gelu_tanh(v16 x)
{
    v16 u = v16_mul(v16_neg(x), v16_step(v16_set1(GELU_C3), v16_mul(x, x), GELU_C1));
    return v16_div(x, v16_add(v16_set1(1), v16_exp(u)));
}

LANES_INLINE v16 v16_gelu_erf(v16 x)
{
    v16 four = v16_set1(4), t = v16_div(four, v16_add(four, v16_abs(x)));
    v16 p = v16_step(v16_set1(ERF_C10), t, ERF_C9);
    p = v16_step(p, t, ERF_C8);
    p = v16_step(p, t, ERF_C7);
    p = v16_step(p, t, ERF_C6);
    p = v16_step(p, t, ERF_C5);
    p = v16_step(p, t, ERF_C4);
    p = v16_step(p, t, ERF_C3);
    p = v16_step(p, t, ERF_C2);
    p = v16_step(p, t, ERF_C1);
    v16 e = v16_exp(v16_mul(v16_mul(v16_set1(-0.5f), x), x));
    v16 tail = v16_mul(e, v16_mul(p, t));
    return v16_mul(x, v16_less(x, v16_zero(), tail, v16_sub(v16_set1(1), tail)));
}

LANES_INLINE v16 v16_relu(v16 x)
{
    return v16_less(x, v16_zero(), v16_zero(), x);
}

#endif

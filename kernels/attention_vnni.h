/* Byte dot products of quantised keys by vpdpbusd: four products and their sum in every lane of 32 bits.
 * Included by attention_<isa>.c, which defines LEVEL(name), and LANES16_AVX512 where a register has 64 bytes.
 */
#include "kernels/kv.h"
#include "kernels/lanes16.h"

/* 64 bytes, of which four belong to each of 16 positions; or 16 sums. */
#ifdef LANES16_AVX512

#define BYTE_ROWS 8
typedef __m512i isum;

LANES_INLINE isum isum_load(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

LANES_INLINE isum isum_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}

LANES_INLINE isum isum_xor(isum a, isum b)
{
    return _mm512_xor_si512(a, b);
}

LANES_INLINE isum isum_and(isum a, isum b)
{
    return _mm512_and_si512(a, b);
}

LANES_INLINE isum isum_shift(isum a)
{
    return _mm512_srli_epi16(a, 4);
}

LANES_INLINE isum isum_dot(isum sum, isum keys, isum q)
{
    return _mm512_dpbusd_epi32(sum, keys, q);
}

LANES_INLINE v16 isum_floats(isum s)
{
    return _mm512_cvtepi32_ps(s);
}

#else

#define BYTE_ROWS 3
typedef struct {
    __m256i lo, hi;
} isum;

LANES_INLINE isum isum_load(const uint8_t *p)
{
    return (isum){_mm256_loadu_si256((const __m256i *)(const void *)p),
                  _mm256_loadu_si256((const __m256i *)(const void *)(p + 32))};
}

LANES_INLINE isum isum_set1(int32_t x)
{
    return (isum){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

LANES_INLINE isum isum_xor(isum a, isum b)
{
    return (isum){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}

LANES_INLINE isum isum_and(isum a, isum b)
{
    return (isum){_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}

LANES_INLINE isum isum_shift(isum a)
{
    return (isum){_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)};
}

LANES_INLINE isum isum_dot(isum sum, isum keys, isum q)
{
    return (isum){_mm256_dpbusd_avx_epi32(sum.lo, keys.lo, q.lo),
                  _mm256_dpbusd_avx_epi32(sum.hi, keys.hi, q.hi)};
}

LANES_INLINE v16 isum_floats(isum s)
{
    return (v16){_mm256_cvtepi32_ps(s.lo), _mm256_cvtepi32_ps(s.hi)};
}

#endif

/* Four bytes in every lane. */
LANES_INLINE isum broadcast_4(const int8_t *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return isum_set1(word);
}

/* sum[r] = −offset Σ q, of row r's query q[r · stride] */
LANES_INLINE void start_sums(isum sum[BYTE_ROWS], const struct act_block *q, int stride, int n, int offset)
{
    LANES_UNROLL
    for (int r = 0; r < n; r++)
        sum[r] = isum_set1(-offset * (q[r * stride].sum[0] + q[r * stride].sum[1]));
}

/* vpdpbusd takes one unsigned operand: the key plus 128, which is its sign's bit turned over. */
LANES_INLINE void block_sums_q8_0(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const isum signs = isum_set1((int32_t)0x80808080);
    start_sums(sum, q, stride, n, 128);
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        isum k = isum_xor(isum_load(quants + 64 * g), signs);
        LANES_UNROLL
        for (int r = 0; r < n; r++)
            sum[r] = isum_dot(sum[r], k, broadcast_4(q[r * stride].q + 4 * g));
    }
}

/* Codes are the key plus 8. */
LANES_INLINE void block_sums_q4_0(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const isum low = isum_set1(0x0f0f0f0f);
    start_sums(sum, q, stride, n, 8);
    LANES_UNROLL
    for (int g = 0; g < 4; g++) {
        isum pairs = isum_load(quants + 64 * g), k0 = isum_and(pairs, low);
        isum k1 = isum_and(isum_shift(pairs), low);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            sum[r] = isum_dot(sum[r], k0, broadcast_4(q[r * stride].q + 4 * g));
            sum[r] = isum_dot(sum[r], k1, broadcast_4(q[r * stride].q + 16 + 4 * g));
        }
    }
}

#include "kernels/attention_bytes.h"

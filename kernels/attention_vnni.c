/* Attention kernels of AVX512-VNNI: the byte dot products of quantised keys. */
#define LANES16_AVX512
#define LEVEL(name) name##_vnni
#define BYTE_ROWS   8

#include "kernels/kv.h"
#include "kernels/lanes16.h"

typedef __m512i isum;

LANES_INLINE v16 isum_floats(isum s)
{
    return _mm512_cvtepi32_ps(s);
}

LANES_INLINE __m512i load_bytes(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

/* Four bytes in every lane of 32 bits. */
LANES_INLINE __m512i broadcast_4(const int8_t *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

/* sum[r] = −offset Σ q, of row r's query q[r · stride] */
LANES_INLINE void start_sums(isum sum[BYTE_ROWS], const struct act_block *q, int stride, int n, int offset)
{
    LANES_UNROLL
    for (int r = 0; r < n; r++)
        sum[r] = _mm512_set1_epi32(-offset * (q[r * stride].sum[0] + q[r * stride].sum[1]));
}

/* vpdpbusd takes one unsigned operand: the key plus 128, the sign's bit turned over. */
LANES_INLINE void block_sums_q8_0(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    start_sums(sum, q, stride, n, 128);
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        __m512i k = _mm512_xor_si512(load_bytes(quants + 64 * g), _mm512_set1_epi8(INT8_MIN));
        LANES_UNROLL
        for (int r = 0; r < n; r++)
            sum[r] = _mm512_dpbusd_epi32(sum[r], k, broadcast_4(q[r * stride].q + 4 * g));
    }
}

/* Codes are the key plus 8. */
LANES_INLINE void block_sums_q4_0(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const __m512i low = _mm512_set1_epi8(15);
    start_sums(sum, q, stride, n, 8);
    LANES_UNROLL
    for (int g = 0; g < 4; g++) {
        __m512i pairs = load_bytes(quants + 64 * g), k0 = _mm512_and_si512(pairs, low);
        __m512i k1 = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            sum[r] = _mm512_dpbusd_epi32(sum[r], k0, broadcast_4(q[r * stride].q + 4 * g));
            sum[r] = _mm512_dpbusd_epi32(sum[r], k1, broadcast_4(q[r * stride].q + 16 + 4 * g));
        }
    }
}

#include "kernels/attention_bytes.h"

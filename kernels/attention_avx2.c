/* Attention kernels of AVX2. Sums over floats are in attention_lanes.h; here are the byte dot products of
 * quantised keys. */
#define LEVEL(name) name##_avx2
#define MAX_ROWS    6

#include "kernels/attention_lanes.h"

/* x is a new value to the compiler, which else turns the chain of additions into trees whose leaves do not
 * fit in the registers. */
#define FORGET(x) __asm__("" : "+x"(x))

#define BYTE_ROWS 3
typedef struct {
    __m256i lo, hi;
} isum;

LANES_INLINE v16 isum_floats(isum s)
{
    return (v16){_mm256_cvtepi32_ps(s.lo), _mm256_cvtepi32_ps(s.hi)};
}

LANES_INLINE __m256i load_bytes(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* Four bytes in every lane of 32 bits. */
LANES_INLINE __m256i broadcast_4(const void *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

/* vpmaddubsw takes one unsigned operand: |q| with the sign moved to the key. Both are at most 127 in
 * magnitude, so a pair's sum, 2 · 127², fits in 16 bits. */
LANES_INLINE void block_sums_q8_0(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const __m256i ones = _mm256_set1_epi16(1);
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i k0 = load_bytes(quants + 64 * g), k1 = load_bytes(quants + 64 * g + 32);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            __m256i x = broadcast_4(q[r * stride].q + 4 * g), abs = _mm256_abs_epi8(x);
            __m256i lo = _mm256_madd_epi16(_mm256_maddubs_epi16(abs, _mm256_sign_epi8(k0, x)), ones);
            __m256i hi = _mm256_madd_epi16(_mm256_maddubs_epi16(abs, _mm256_sign_epi8(k1, x)), ones);
            sum[r].lo = g == 0 ? lo : _mm256_add_epi32(sum[r].lo, lo);
            sum[r].hi = g == 0 ? hi : _mm256_add_epi32(sum[r].hi, hi);
            FORGET(sum[r].lo);
            FORGET(sum[r].hi);
        }
    }
}

/* Codes are 0 … 15, so 16-bit sums of all 8 groups fit (8 · 2 · 15 · 127 = 30,480); the zero point leaves as
 * 8 Σ q. */
LANES_INLINE void block_sums_q4_0(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i k0 = load_bytes(quants + 64 * (g / 2)), k1 = load_bytes(quants + 64 * (g / 2) + 32);
        k0 = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(k0, 4) : k0, low);
        k1 = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(k1, 4) : k1, low);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            __m256i x = broadcast_4(q[r * stride].q + 16 * (g % 2) + 4 * (g / 2));
            __m256i lo = _mm256_maddubs_epi16(k0, x), hi = _mm256_maddubs_epi16(k1, x);
            sum[r].lo = g == 0 ? lo : _mm256_add_epi16(sum[r].lo, lo);
            sum[r].hi = g == 0 ? hi : _mm256_add_epi16(sum[r].hi, hi);
            FORGET(sum[r].lo);
            FORGET(sum[r].hi);
        }
    }
    LANES_UNROLL
    for (int r = 0; r < n; r++) {
        __m256i zero = _mm256_set1_epi32(8 * (q[r * stride].sum[0] + q[r * stride].sum[1]));
        sum[r].lo = _mm256_sub_epi32(_mm256_madd_epi16(sum[r].lo, ones), zero);
        sum[r].hi = _mm256_sub_epi32(_mm256_madd_epi16(sum[r].hi, ones), zero);
    }
}

#include "kernels/attention_bytes.h"

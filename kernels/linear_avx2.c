/* Products with AVX2, and the quantisation of activations that every level above it uses. */
#include "kernels/linear_256.h"
#include "kernels/linear_tiles.h"

/* Rule 3 of the contract: act_quantise in quant/act.c is its specification. */
void act_quantise_avx2(struct act_block *dst, int64_t stride, const float *x, int64_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (; n > 0; n -= ACT_LEN, x += ACT_LEN, dst += stride) {
        __m256 v[4];
        __m256i m = _mm256_setzero_si256();
        UNROLL
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i m4 = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
        m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4e));
        m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0xb1));
        const int amax_bits = _mm_cvtsi128_si32(m4);
        const float amax = _mm_cvtss_f32(_mm_castsi128_ps(m4));
        if (amax_bits >= 0x7f800000 || amax < 0x1p-100f) {
            act_quantise(dst, x, ACT_LEN);
            continue;
        }
        const __m256 inv = _mm256_set1_ps(127.0f / amax);
        __m256i q[4];
        UNROLL
        for (int i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv)); /* half to even, by MXCSR */
        /* packs work within 128-bit halves: the last permutation puts the 32-bit pieces in order */
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)dst->q, bytes);
        __m256i lo = _mm256_add_epi32(q[0], q[1]), hi = _mm256_add_epi32(q[2], q[3]);
        __m256i both = _mm256_hadd_epi32(lo, hi); /* per half: lo, lo, hi, hi */
        both = _mm256_hadd_epi32(both, both);
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        dst->sum[0] = (int16_t)_mm_cvtsi128_si32(s);
        dst->sum[1] = (int16_t)_mm_extract_epi32(s, 1);
        dst->unused[0] = dst->unused[1] = 0;
        dst->d = amax / 127.0f;
        dst->ds = dst->d * (float)(dst->sum[0] + dst->sum[1]);
    }
}

const struct linear_kernels linear_avx2 = LINEAR_KERNELS(act_quantise_avx2);

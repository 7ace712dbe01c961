/* rows_scalar.c on AVX2. 512-bit registers would gain nothing: these rows are short. */
#include "kernels/cpu.h"
#include "kernels/lanes16.h"

void norm_row_avx2(float *dst, const float *src, const float *weight, int dim, float eps)
{
    v16 s = v16_zero();
    int whole = dim / 16 * 16;
    for (int i = 0; i < whole; i += 16) {
        v16 x = v16_load(src + i);
        s = v16_fma(x, x, s);
    }
    if (whole < dim) { /* zeros leave a sum of squares as it is */
        float tail[16] = {0};
        memcpy(tail, src + whole, (size_t)(dim - whole) * sizeof *tail);
        v16 x = v16_load(tail);
        s = v16_fma(x, x, s);
    }
    float r = 1 / sqrtf(v16_sum(s) / (float)dim + eps);
    v16 rs = v16_set1(r);
    for (int i = 0; i < whole; i += 16)
        v16_store(dst + i, v16_mul(v16_mul(v16_load(src + i), rs), v16_load(weight + i)));
    for (int i = whole; i < dim; i++)
        dst[i] = (src[i] * r) * weight[i];
}

void gate_silu_avx2(float *dst, const float *gate, const float *up, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 x = v16_load(gate + i);
        v16 silu = v16_div(x, v16_add(v16_set1(1), v16_exp(v16_neg(x))));
        v16_store(dst + i, v16_mul(silu, v16_load(up + i)));
    }
    for (; i < n; i++)
        dst[i] = mathf_silu(gate[i]) * up[i];
}

void rope_adjacent_avx2(float *x, const float *table, int n_pairs)
{
    int i = 0;
    for (; i + 4 <= n_pairs; i += 4) {
        __m256 v = _mm256_loadu_ps(x + 2 * i), cs = _mm256_loadu_ps(table + 2 * i);
        __m256 swapped = _mm256_permute_ps(v, 0xb1);
        __m256 by_sin = _mm256_mul_ps(swapped, _mm256_movehdup_ps(cs));
        _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(cs), by_sin));
    }
    for (; i < n_pairs; i++)
        mathf_rotate(&x[2 * i], &x[2 * i + 1], &table[2 * i]);
}

void rope_half_avx2(float *x, const float *table, int n_pairs)
{
    int i = 0;
    for (; i + 8 <= n_pairs; i += 8) {
        __m256 t0 = _mm256_loadu_ps(table + 2 * i), t1 = _mm256_loadu_ps(table + 2 * i + 8);
        /* cos and sin apart; the 64-bit permutation undoes the shuffle's order of halves */
        __m256 c = _mm256_shuffle_ps(t0, t1, 0x88), s = _mm256_shuffle_ps(t0, t1, 0xdd);
        c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(c), 0xd8));
        s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(s), 0xd8));
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + n_pairs + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + n_pairs + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
    for (; i < n_pairs; i++)
        mathf_rotate(&x[i], &x[i + n_pairs], &table[2 * i]);
}

void f16_row_avx2(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(dst + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        dst[i] = f32_to_f16(src[i]);
}

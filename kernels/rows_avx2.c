/* rows_scalar.c on AVX2. 512-bit registers would gain nothing: these rows are short. */
#include "kernels/cpu.h"
#include "kernels/lanes16.h"

/* n < 16 floats, then zeros. */
LANES_INLINE v16 load_part(const float *p, int64_t n)
{
    float x[16] = {0};
    memcpy(x, p, (size_t)n * sizeof *x);
    return v16_load(x);
}

LANES_INLINE void store_part(float *p, v16 v, int64_t n)
{
    float x[16];
    v16_store(x, v);
    memcpy(p, x, (size_t)n * sizeof *x);
}

/* dst = (src − mean) · r · weight + bias; RMSNorm has neither mean nor bias, and no operation for them. */
LANES_INLINE v16 normed(v16 x, bool layer, float mean, float r, v16 weight, v16 bias)
{
    if (!layer)
        return v16_mul(v16_mul(x, v16_set1(r)), weight);
    x = v16_mul(v16_sub(x, v16_set1(mean)), v16_set1(r));
    return v16_add(v16_mul(x, weight), bias);
}

LANES_INLINE void norm_row(float *dst, const float *src, const float *weight, const float *bias, int dim,
                           float eps, bool layer)
{
    const v16 one = v16_set1(1), zero = v16_zero();
    const int whole = dim / 16 * 16, rest = dim - whole;
    float mean = 0;
    if (layer) {
        v16 s = zero;
        for (int i = 0; i < whole; i += 16)
            s = v16_add(s, v16_load(src + i));
        if (rest) /* zeros leave a sum as it is */
            s = v16_add(s, load_part(src + whole, rest));
        mean = v16_sum(s) / (float)dim;
    }
    v16 s = zero, means = v16_set1(mean);
    for (int i = 0; i < whole; i += 16) {
        v16 x = v16_load(src + i);
        x = layer ? v16_sub(x, means) : x;
        s = v16_fma(x, x, s);
    }
    if (rest) {
        v16 x = load_part(src + whole, rest);
        x = layer ? v16_keep(v16_sub(x, means), 0, rest, zero) : x;
        s = v16_fma(x, x, s);
    }
    float r = 1 / sqrtf(v16_sum(s) / (float)dim + eps);
    for (int i = 0; i < whole; i += 16)
        v16_store(dst + i, normed(v16_load(src + i), layer, mean, r, weight ? v16_load(weight + i) : one,
                                  bias ? v16_load(bias + i) : zero));
    if (rest)
        store_part(dst + whole,
                   normed(load_part(src + whole, rest), layer, mean, r,
                          weight ? load_part(weight + whole, rest) : one,
                          bias ? load_part(bias + whole, rest) : zero),
                   rest);
}

void norm_rms_avx2(float *dst, const float *src, const float *weight, const float *bias, int dim, float eps)
{
    (void)bias;
    norm_row(dst, src, weight, NULL, dim, eps, false);
}

void norm_layer_avx2(float *dst, const float *src, const float *weight, const float *bias, int dim, float eps)
{
    norm_row(dst, src, weight, bias, dim, eps, true);
}

typedef v16 act_fn(v16 x);

LANES_INLINE void gate_row(float *dst, const float *gate, const float *up, int64_t n, act_fn *act)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 y = act(v16_load(gate + i));
        v16_store(dst + i, up ? v16_mul(y, v16_load(up + i)) : y);
    }
    if (i < n) {
        v16 y = act(load_part(gate + i, n - i));
        store_part(dst + i, up ? v16_mul(y, load_part(up + i, n - i)) : y, n - i);
    }
}

#define GATE(name)                                                                     \
    void gate_##name##_avx2(float *dst, const float *gate, const float *up, int64_t n) \
    {                                                                                  \
        gate_row(dst, gate, up, n, v16_##name);                                        \
    }
GATE(silu)
GATE(gelu_tanh)
GATE(gelu_erf)
GATE(relu)

void scale_avx2(float *dst, const float *src, int64_t n, float s)
{
    int64_t i = 0;
    for (v16 ss = v16_set1(s); i + 16 <= n; i += 16)
        v16_store(dst + i, v16_mul(ss, v16_load(src + i)));
    for (; i < n; i++)
        dst[i] = s * src[i];
}

void softcap_avx2(float *x, int64_t n, float cap)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(x + i, v16_softcap(v16_load(x + i), cap));
    if (i < n)
        store_part(x + i, v16_softcap(load_part(x + i, n - i), cap), n - i);
}

void add_avx2(float *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(dst + i, v16_add(v16_load(dst + i), v16_load(src + i)));
    for (; i < n; i++)
        dst[i] += src[i];
}

/* The mixture of elements i … i + n − 1, n ≤ 16, of one token. */
LANES_INLINE v16 mixture(const struct combine_args *a, int64_t token, int64_t i, int64_t n)
{
    const float *weight = a->weight + token * a->n_used;
    const int32_t *row = a->row + token * a->n_used;
    v16 sum = v16_zero();
    for (int slot = 0; slot < a->n_used; slot++) {
        const float *src = a->src + (int64_t)row[slot] * a->dim + i;
        sum = v16_fma(v16_set1(weight[slot]), n == 16 ? v16_load(src) : load_part(src, n), sum);
    }
    return sum;
}

void combine_avx2(const struct combine_args *a, int64_t token, int64_t begin, int64_t end)
{
    float *dst = a->dst + token * a->dim;
    int64_t i = begin;
    for (; i + 16 <= end; i += 16) {
        v16 sum = mixture(a, token, i, 16);
        v16_store(dst + i, a->add ? v16_add(v16_load(dst + i), sum) : sum);
    }
    if (i < end) {
        v16 sum = mixture(a, token, i, end - i);
        store_part(dst + i, a->add ? v16_add(load_part(dst + i, end - i), sum) : sum, end - i);
    }
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

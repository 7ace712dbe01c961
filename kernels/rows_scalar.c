/* Reference kernels of rows: norms, gates, the other functions of single elements, the mixture of experts'
 * sums, rotation, conversion to half floats. */
#include "kernels/cpu.h"
#include "kernels/mathf.h"

MATHF_INLINE void norm_rms_scalar_body(float *dst, const float *src, const float *weight, const float *bias,
                                       int dim, float eps)
{
    (void)bias;
    float s[16] = {0};
    for (int i = 0; i < dim; i++)
        s[i % 16] = fmaf(src[i], src[i], s[i % 16]);
    float r = 1 / sqrtf(mathf_sum16(s) / (float)dim + eps);
    for (int i = 0; i < dim; i++)
        dst[i] = (src[i] * r) * (weight ? weight[i] : 1);
}
FMA_VERSIONS(norm_rms_scalar,
             (float *dst, const float *src, const float *weight, const float *bias, int dim, float eps),
             (dst, src, weight, bias, dim, eps))

/* The mean first, then the variance of the differences: E(x²) − E(x)² would cancel. */
MATHF_INLINE void norm_layer_scalar_body(float *dst, const float *src, const float *weight, const float *bias,
                                         int dim, float eps)
{
    float s[16] = {0}, s2[16] = {0};
    for (int i = 0; i < dim; i++)
        s[i % 16] += src[i];
    float mean = mathf_sum16(s) / (float)dim;
    for (int i = 0; i < dim; i++)
        s2[i % 16] = fmaf(src[i] - mean, src[i] - mean, s2[i % 16]);
    float r = 1 / sqrtf(mathf_sum16(s2) / (float)dim + eps);
    for (int i = 0; i < dim; i++)
        dst[i] = ((src[i] - mean) * r) * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
}
FMA_VERSIONS(norm_layer_scalar,
             (float *dst, const float *src, const float *weight, const float *bias, int dim, float eps),
             (dst, src, weight, bias, dim, eps))

/* dst = f(gate) · up, or f(gate) */
#define GATE(name, f)                                                                                      \
    MATHF_INLINE void gate_##name##_scalar_body(float *dst, const float *gate, const float *up, int64_t n) \
    {                                                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                    \
            dst[i] = up ? f(gate[i]) * up[i] : f(gate[i]);                                                 \
    }                                                                                                      \
    FMA_VERSIONS(gate_##name##_scalar, (float *dst, const float *gate, const float *up, int64_t n),        \
                 (dst, gate, up, n))
GATE(silu, mathf_silu)
GATE(gelu_tanh, mathf_gelu_tanh)
GATE(gelu_erf, mathf_gelu_erf)
GATE(relu, mathf_relu)

void scale_scalar(float *dst, const float *src, int64_t n, float s)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = s * src[i];
}

MATHF_INLINE void softcap_scalar_body(float *x, int64_t n, float cap)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = mathf_softcap(x[i], cap);
}
FMA_VERSIONS(softcap_scalar, (float *x, int64_t n, float cap), (x, n, cap))

void add_scalar(float *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i];
}

MATHF_INLINE void combine_scalar_body(const struct combine_args *a, int64_t token, int64_t begin, int64_t end)
{
    const float *weight = a->weight + token * a->n_used;
    const int32_t *row = a->row + token * a->n_used;
    float *dst = a->dst + token * a->dim;
    for (int64_t i = begin; i < end; i++) {
        float sum = 0;
        for (int slot = 0; slot < a->n_used; slot++)
            sum = fmaf(weight[slot], a->src[(int64_t)row[slot] * a->dim + i], sum);
        dst[i] = a->add ? dst[i] + sum : sum;
    }
}
FMA_VERSIONS(combine_scalar, (const struct combine_args *a, int64_t token, int64_t begin, int64_t end),
             (a, token, begin, end))

MATHF_INLINE void rope_adjacent_scalar_body(float *x, const float *table, int n_pairs)
{
    for (int i = 0; i < n_pairs; i++)
        mathf_rotate(&x[2 * i], &x[2 * i + 1], &table[2 * i]);
}
FMA_VERSIONS(rope_adjacent_scalar, (float *x, const float *table, int n_pairs), (x, table, n_pairs))

MATHF_INLINE void rope_half_scalar_body(float *x, const float *table, int n_pairs)
{
    for (int i = 0; i < n_pairs; i++)
        mathf_rotate(&x[i], &x[i + n_pairs], &table[2 * i]);
}
FMA_VERSIONS(rope_half_scalar, (float *x, const float *table, int n_pairs), (x, table, n_pairs))

void f16_row_scalar(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = f32_to_f16(src[i]);
}

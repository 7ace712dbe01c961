/* Reference kernels of one row: RMSNorm, gate, rotation, conversion to half floats. */
#include "kernels/cpu.h"
#include "kernels/mathf.h"

MATHF_INLINE void norm_row_scalar_body(float *dst, const float *src, const float *weight, int dim, float eps)
{
    float s[16] = {0};
    for (int i = 0; i < dim; i++)
        s[i % 16] = fmaf(src[i], src[i], s[i % 16]);
    float r = 1 / sqrtf(mathf_sum16(s) / (float)dim + eps);
    for (int i = 0; i < dim; i++)
        dst[i] = (src[i] * r) * weight[i];
}
FMA_VERSIONS(norm_row_scalar, (float *dst, const float *src, const float *weight, int dim, float eps),
             (dst, src, weight, dim, eps))

MATHF_INLINE void gate_silu_scalar_body(float *dst, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = mathf_silu(gate[i]) * up[i];
}
FMA_VERSIONS(gate_silu_scalar, (float *dst, const float *gate, const float *up, int64_t n),
             (dst, gate, up, n))

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

/* Products of packed weights with rows of activations: what the kernels of few and of many tokens share. */
#ifndef QUOLL_CUDA_LINEAR_CUH
#define QUOLL_CUDA_LINEAR_CUH

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weights.cuh"

enum {
    FEW_TOKENS = 8, /* as many as one pass over the weights serves without tensor cores */
    ACT_BYTES = sizeof(struct act_block),
};

struct linear_target {
    struct device_matrix w;
    const float *bias;
    float *out;
    int add, unused;
};

/* Up to three matrices of one type and width. */
struct linear_work {
    struct linear_target part[3];
    int n_parts, n_tiles; /* of all parts */
    int n_tokens, unused;
    const uint8_t *act; /* (n_tokens, cols / 32) struct act_block, or … */
    const float *x;     /* … (n_tokens, cols) */
    struct device_grids grids;
};

/* Tile `tile` of all parts: its part, and its number there. */
DEVICE const struct linear_target &target_of(const struct linear_work &a, int *tile)
{
    int i = 0;
    while (i + 1 < a.n_parts && *tile >= a.part[i].w.n_tiles)
        *tile -= a.part[i++].w.n_tiles;
    return a.part[i];
}

DEVICE void store_sum(const struct linear_target &p, int64_t token, int64_t row, float y)
{
    float *out = p.out + token * p.w.rows + row;
    if (p.bias)
        y += p.bias[row];
    *out = p.add ? *out + y : y;
}

void cuda_linear_few(const struct linear_work *a);       /* quantised weights and activations, ≤ FEW_TOKENS */
void cuda_linear_few_float(const struct linear_work *a); /* F32, F16, BF16 */
void cuda_linear_many(const struct linear_work *a);      /* quantised weights and activations */
void cuda_linear_many_float(const struct linear_work *a); /* all types, activations in float */
bool cuda_linear_many_half(const struct linear_work *a);  /* F16, not exact; false: not for this shape */

#endif

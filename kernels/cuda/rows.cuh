/* Operators on rows that others take in: a norm, a gate, 8-bit activations of what they made. */
#ifndef QUOLL_CUDA_ROWS_CUH
#define QUOLL_CUDA_ROWS_CUH

#include "kernels/cuda/state.cuh"

enum { ACT_LANES = 8 /* lanes that quantise a block of 32 together, four elements each */ };

DEVICE float apply_act(enum act act, float x)
{
    switch (act) {
    case ACT_SILU:
        return mathf_silu(x);
    case ACT_GELU_TANH:
        return mathf_gelu_tanh(x);
    case ACT_GELU_ERF:
        return mathf_gelu_erf(x);
    default:
        return mathf_relu(x);
    }
}

/* Elements 4 lane … of a block (numerics contract, rule 3), lane = 0 … 7 of the eight lanes that are here
 * together: all lanes of the warp must be. dst may be in shared memory. NULL: this lane's eight have no block. */
DEVICE void quantise_block(struct act_block *dst, const float x[4], int lane)
{
    uint32_t amax_bits = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t bits = float_bits(x[i]) & 0x7fffffff;
        amax_bits = bits > amax_bits ? bits : amax_bits;
    }
    for (int step = 1; step < ACT_LANES; step *= 2) {
        const uint32_t other = shuffle_xor(0xffffffff, amax_bits, step);
        amax_bits = other > amax_bits ? other : amax_bits;
    }
    const float amax = bits_float(amax_bits);
    const bool fault = amax_bits >= 0x7f800000, none = fault || amax < 0x1p-100f;
    const float inv = none ? 0 : 127.0f / amax;
    uint32_t q = 0;
    int sum = 0;
    for (int i = 0; i < 4; i++) {
        const int code = none ? 0 : (int)rintf(x[i] * inv);
        q |= (uint32_t)(code & 255) << 8 * i;
        sum += code;
    }
    sum += shuffle_xor(0xffffffff, sum, 1);
    sum += shuffle_xor(0xffffffff, sum, 2);
    const int other = shuffle_xor(0xffffffff, sum, 4);
    if (!dst)
        return;
    ((uint32_t *)(void *)dst->q)[lane] = q;
    if (lane == 0) {
        const float d = fault ? NAN : none ? 0 : amax / 127.0f;
        dst->d = d;
        dst->ds = fault ? NAN : none ? 0 : d * (float)(sum + other);
        dst->sum[0] = (int16_t)sum;
        dst->sum[1] = (int16_t)other;
        dst->unused[0] = dst->unused[1] = 0;
    }
}

/* The sums of squares (of differences from the mean) of one row, by all threads of a block: 16 partial sums by
 * index modulo 16, each in the order of its elements. part: 16 floats of shared memory. */
struct norm_sums {
    float mean, r;
};

DEVICE struct norm_sums sum_row(const float *x, int dim, float eps, enum norm_kind kind, float *part)
{
    struct norm_sums s = {0, 0};
    const int j = (int)threadIdx.x;
    if (kind == NORM_LAYER) {
        if (j < 16) {
            float sum = 0;
            for (int i = j; i < dim; i += 16)
                sum += x[i];
            part[j] = sum;
        }
        sync_block();
        s.mean = mathf_sum16(part) / (float)dim;
        sync_block();
    }
    if (j < 16) {
        float sum = 0;
        if (kind == NORM_LAYER)
            for (int i = j; i < dim; i += 16)
                sum = fmaf(x[i] - s.mean, x[i] - s.mean, sum);
        else
#pragma unroll 8
            for (int i = j; i < dim; i += 16)
                sum = fmaf(x[i], x[i], sum);
        part[j] = sum;
    }
    sync_block();
    s.r = 1 / sqrtf(mathf_sum16(part) / (float)dim + eps);
    return s;
}

DEVICE float norm_element(const struct norm_sums &s, float x, const float *weight, const float *bias, int i,
                          enum norm_kind kind)
{
    const float w = weight ? weight[i] : 1;
    return kind == NORM_RMS ? (x * s.r) * w : ((x - s.mean) * s.r) * w + (bias ? bias[i] : 0);
}

/* The operators themselves; act not NULL: with (rows, dim / 32) blocks of activations of the result. */
void cuda_norm_into(const struct norm_args *a, struct act_block *act);
void cuda_gate_into(const struct gate_args *a, struct act_block *act);

#endif

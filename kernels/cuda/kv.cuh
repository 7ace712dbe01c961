/* Inside a page of the KV cache on the device. A head's 64 values are 64 rows, as on the CPU (kernels/kv.h): of
 * quantised types their blocks' quants, then the scales, half floats [head_dim / 32][64]. Its 64 keys are cut
 * in pieces of 16 bytes, and a piece of all positions lies together, so that 32 lanes, each with a position
 * of its own, read 512 bytes in a row:
 *
 *     F32, F16   [pieces of 4, of 8 elements][64], the last piece narrower where head_dim is no multiple
 *     Q8_0       per block of 32 elements [2 halves][64] pieces; then the scales, as those of values
 *     Q4_0       per block [64] pieces: low nibbles are elements 0–15, high ones 16–31; then the scales */
#ifndef QUOLL_CUDA_KV_CUH
#define QUOLL_CUDA_KV_CUH

#include "kernels/cuda/state.cuh"

enum { KV_DIM_MAX = 512 };

/* Bytes of one position without scales. */
DEVICE int kv_row_bytes(int type, int head_dim)
{
    return type == QTYPE_F32 ? 4 * head_dim : type == QTYPE_F16 ? 2 * head_dim : type == QTYPE_Q8_0 ? head_dim : head_dim / 2;
}

/* Where element c of the key at position i begins; bytes: of an element. */
DEVICE int kv_key_at(int head_dim, int bytes, int i, int c)
{
    const int each = 16 / bytes, first = c / each * each;
    const int width = head_dim - first < each ? head_dim - first : each;
    return (first * KV_PAGE + i * width + c % each) * bytes;
}

/* Where the scale of block b at position i begins, of keys and values alike. */
DEVICE int kv_scale_at(int type, int head_dim, int i, int b)
{
    return KV_PAGE * kv_row_bytes(type, head_dim) + 2 * (b * KV_PAGE + i);
}

#endif

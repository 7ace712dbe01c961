/* Rows of the embedding, dequantised as the types' to_f32 do it. */
#include "kernels/cuda/weights.cuh"

/* A block of threads takes a chunk of one token's row: a thread a block of 32 columns. */
template <int TYPE> DEVICE void embed_chunk(float *dst, const uint8_t *chunk, int row, int n_blocks, int b,
                                            const struct device_grids &grids)
{
    float x[ACT_LEN];
    block_to_floats<TYPE>(x, chunk, row, n_blocks, b, grids);
    for (int i = 0; i < ACT_LEN; i++)
        dst[i] = x[i];
}

__global__ void embed_rows(float *dst, struct device_matrix w, const int32_t *id, struct device_grids grids)
{
    begin_kernel();
    const int64_t token = blockIdx.x;
    const int64_t k = (int64_t)blockIdx.y * CHUNK_LEN, row = id[token];
    const int n_cols = chunk_columns(w, k), r = (int)(row % TILE_ROWS);
    const uint8_t *chunk = w.data + row / TILE_ROWS * w.tile_bytes + chunk_offset(w, k);
    float *to = dst + token * w.cols + k;
    if (w.is_float) {
        for (int c = (int)threadIdx.x; c < n_cols; c += (int)blockDim.x)
            to[c] = float_weight(w.type, chunk, r, c, n_cols);
        return;
    }
    const int b = (int)threadIdx.x;
    if (b >= n_cols / ACT_LEN)
        return;
    to += b * ACT_LEN;
    switch (w.type) {
#define EMBED(TYPE)                                                                      \
    case QTYPE_##TYPE:                                                                   \
        embed_chunk<QTYPE_##TYPE>(to, chunk, r, n_cols / ACT_LEN, b, grids);             \
        break;
        QUANTISED_TYPES(EMBED)
    default:
        break;
    }
}

void cuda_embed(struct worker *w, float *dst, const struct packed *table, const int32_t *id, int n)
{
    (void)w;
    const int32_t *ids = (const int32_t *)cuda_staged(id, (size_t)n * sizeof *id);
    const struct device_matrix m = device_matrix_of(table);
    launch(embed_rows, dim3((unsigned)n, (unsigned)((m.cols + CHUNK_LEN - 1) / CHUNK_LEN)), WARP, 0, dst, m, ids,
           cuda_grids);
}

/* Whole matrices on the device, and their elements as floats. */
#ifndef QUOLL_CUDA_WEIGHTS_CUH
#define QUOLL_CUDA_WEIGHTS_CUH

#include "kernels/cuda/decode.cuh"

struct device_matrix {
    const uint8_t *data;
    int64_t rows, cols, tile_bytes;
    int type; /* enum qtype */
    int block_len, block_bytes;
    int n_tiles;
    int is_float, unused; /* no gaps: the host executor looks at kernels' arguments */
};

static inline struct device_matrix device_matrix_of(const struct packed *p)
{
    return {(const uint8_t *)p->data,
            p->rows,
            p->cols,
            p->tile_bytes,
            p->type,
            cuda_types[p->type].block_len,
            cuda_types[p->type].block_bytes,
            (int)p->n_tiles,
            cuda_types[p->type].x_is_f32,
            0};
}

DEVICE int64_t chunk_offset(const struct device_matrix &w, int64_t col)
{
    return TILE_ROWS * (col / w.block_len * w.block_bytes);
}

DEVICE int chunk_columns(const struct device_matrix &w, int64_t col)
{
    return w.cols - col < CHUNK_LEN ? (int)(w.cols - col) : (int)CHUNK_LEN;
}

/* Element `col` of a row of a chunk of F32, F16 or BF16. */
DEVICE float float_weight(int type, const uint8_t *chunk, int row, int col, int n_cols)
{
    const int bytes = type == QTYPE_F32 ? 4 : 2, each = 16 / bytes, first = col / each * each;
    const int width = n_cols - first < each ? n_cols - first : each;
    const uint8_t *p = chunk + (first * TILE_ROWS + row * width + col % each) * bytes;
    if (type == QTYPE_F32)
        return *(const float *)(const void *)p;
    const uint16_t h = *(const uint16_t *)(const void *)p;
    return type == QTYPE_F16 ? half_to_float(h) : bfloat_to_float(h);
}

/* The 32 weights of block b, exactly as the type's to_f32 has them. */
template <int TYPE>
DEVICE void block_to_floats(float x[ACT_LEN], const uint8_t *chunk, int row, int n_blocks, int b,
                            const struct device_grids &grids)
{
    constexpr struct format F = format_of(TYPE);
    lane_chunk<TYPE> lane;
    lane.place(chunk, row, n_blocks, grids);
    lane.load_scales(n_blocks);
    uint32_t w[GROUPS];
    lane.block(w, lane.fetch(b), b);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float d, m = 0;
        if (is_super(F.scales)) {
            d = lane.d(0) * (float)lane.scale(b, h);
            if (has_min(F.scales))
                m = lane.m(0) * (float)lane.min(b, h);
        } else {
            d = lane.d(F.scales == SCALE_BLOCK16 ? 2 * b + h : b);
            if (has_min(F.scales))
                m = -lane.m(b);
        }
        const int zero = F.scales == SCALE_BLOCK_ZERO ? lane.zero(b) : F.zero;
#pragma unroll
        for (int c = 16 * h; c < 16 * h + 16; c++) {
            const uint32_t byte = w[c / 4] >> c % 4 * 8 & 255;
            const int q = (F.scales == SCALE_BLOCK_ZERO ? (int)byte : (int)(int8_t)byte) - zero;
            const float y = d * (float)q;
            x[c] = has_min(F.scales) ? y - m : y;
        }
    }
}

#endif

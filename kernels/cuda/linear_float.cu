/* Products with activations in float: F32, F16 and BF16, and with --compute f32 all other types, dequantised.
 *
 * Few tokens: as for quantised types (linear_few.cuh), a lane owns a chunk of a row. Many: a block of threads has
 * 64 rows and 64 tokens, a thread four by four of them, 32 columns at a time. Either way each output's sum runs
 * in one thread, in the contract's order. */
#include "kernels/cuda/linear.cuh"

/* ---- Few tokens ---------------------------------------------------------------------------------------- */

/* Element e of a piece of 16 bytes. */
template <int TYPE> DEVICE float piece_element(const word4 &p, int e)
{
    if constexpr (TYPE == QTYPE_F32)
        return bits_float(p.v[e]);
    else if constexpr (TYPE == QTYPE_F16)
        return half_to_float((uint16_t)(p.v[e / 2] >> e % 2 * 16));
    else
        return bits_float(e % 2 ? p.v[e / 2] & 0xffff0000u : p.v[e / 2] << 16);
}

template <int TYPE, int T>
DEVICE void few_chunk(float *put, const struct linear_work &a, const struct device_matrix &w, int tile, int chunk,
                      int row)
{
    constexpr int EACH = TYPE == QTYPE_F32 ? 4 : 8, AHEAD = T > 1 ? 2 : 8;
    const int64_t col = (int64_t)chunk * CHUNK_LEN;
    const int n_cols = chunk_columns(w, col), n_pieces = n_cols / EACH;
    const uint8_t *data = w.data + tile * w.tile_bytes + chunk_offset(w, col);
    const float *x = a.x + col;
    const bool aligned = w.cols % 4 == 0;
    float acc[T];
#pragma unroll
    for (int t = 0; t < T; t++)
        acc[t] = 0;
    for (int first = 0; first < n_pieces; first += AHEAD) {
        word4 piece[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (first + i < n_pieces)
                piece[i] = load_once<word4>(data + ((first + i) * TILE_ROWS + row) * 16);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (first + i >= n_pieces)
                continue;
            const int k = (first + i) * EACH;
#pragma unroll
            for (int t = 0; t < T; t++) {
                if (T > 1 && t >= a.n_tokens)
                    continue;
                const float *xt = x + t * w.cols + k;
#pragma unroll
                for (int h = 0; h < EACH / 4; h++) {
                    float4_ v;
                    if (aligned)
                        v = *(const float4_ *)(const void *)(xt + 4 * h);
                    else
                        for (int e = 0; e < 4; e++)
                            v.v[e] = xt[4 * h + e];
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        acc[t] = fmaf(piece_element<TYPE>(piece[i], 4 * h + e), v.v[e], acc[t]);
                }
            }
        }
    }
    for (int k = n_pieces * EACH; k < n_cols; k++) {
        const float y = float_weight(TYPE, data, row, k, n_cols);
#pragma unroll
        for (int t = 0; t < T; t++)
            if (T == 1 || t < a.n_tokens)
                acc[t] = fmaf(y, x[t * w.cols + k], acc[t]);
    }
#pragma unroll
    for (int t = 0; t < T; t++)
        put[t * TILE_ROWS + row] = acc[t];
}

template <int TYPE, int T> __global__ void __launch_bounds__(FEW_THREADS, 2) linear_few_float(struct linear_work a, int at_once)
{
    few_prefetch(a, at_once);
    begin_kernel();
    __shared__ float put[2][FEW_HALVES][T * TILE_ROWS];
    const int half = (int)threadIdx.x / 16, row = (int)threadIdx.x % 16, tiles_at_once = FEW_HALVES / at_once;
    const int n_chunks = (int)((a.part[0].w.cols + CHUNK_LEN - 1) / CHUNK_LEN);
    const int n_sums = tiles_at_once * TILE_ROWS * (T > 1 ? a.n_tokens : 1);
    int buffer = 0;
    for (int tile0 = (int)blockIdx.x * tiles_at_once; tile0 < a.n_tiles; tile0 += (int)gridDim.x * tiles_at_once) {
        float total[T];
#pragma unroll
        for (int k = 0; k < T; k++)
            total[k] = 0;
        for (int chunk0 = 0; chunk0 < n_chunks; chunk0 += at_once, buffer ^= 1) {
            const int chunk = chunk0 + half % at_once;
            int tile = tile0 + half / at_once;
            if (tile < a.n_tiles && chunk < n_chunks) {
                const struct linear_target &p = target_of(a, &tile);
                few_chunk<TYPE, T>(put[buffer][half], a, p.w, tile, chunk, row);
            }
            sync_block();
            const int n = n_chunks - chunk0 < at_once ? n_chunks - chunk0 : at_once;
#pragma unroll
            for (int k = 0; k < T; k++) {
                const int i = (int)threadIdx.x + k * FEW_THREADS;
                const int r = i % TILE_ROWS, sub = i / TILE_ROWS % tiles_at_once, t = i / TILE_ROWS / tiles_at_once;
                for (int c = 0; c < n && i < n_sums; c++)
                    total[k] += put[buffer][sub * at_once + c][t * TILE_ROWS + r];
            }
        }
        few_store<T>(a, tile0, tiles_at_once, n_sums, total);
    }
}

template <int TYPE> static void launch_few(const struct linear_work *a)
{
    const int at_once = few_at_once(a);
    const dim3 grid = few_grid(a, at_once);
    if (a->n_tokens == 1)
        launch(linear_few_float<TYPE, 1>, grid, FEW_THREADS, 0, *a, at_once);
    else
        launch(linear_few_float<TYPE, FEW_TOKENS>, grid, FEW_THREADS, 0, *a, at_once);
}

void cuda_linear_few_float(const struct linear_work *a)
{
    if (a->part[0].w.type == QTYPE_F32)
        launch_few<QTYPE_F32>(a);
    else if (a->part[0].w.type == QTYPE_F16)
        launch_few<QTYPE_F16>(a);
    else
        launch_few<QTYPE_BF16>(a);
}

/* ---- Many tokens --------------------------------------------------------------------------------------- */

enum {
    MANY_THREADS = 256,
    MANY_ROWS = 64,
    MANY_TOKENS = 64,
    STEP = 32, /* columns at a time: a quantised block */
    STRIDE = MANY_ROWS + 4,
};

/* 32 columns of 64 rows, [column][row]; rows past the end: zero. */
DEVICE void stage_weights(float (*to)[STRIDE], const struct device_matrix &w, int tile0, int64_t col,
                          const struct device_grids &grids)
{
    const int64_t chunk_col = col / CHUNK_LEN * CHUNK_LEN;
    const int n_cols = chunk_columns(w, chunk_col), k0 = (int)(col - chunk_col), row = (int)threadIdx.x % MANY_ROWS;
    const int r = row % TILE_ROWS, tile = tile0 + row / TILE_ROWS;
    const uint8_t *chunk = w.data + tile * w.tile_bytes + chunk_offset(w, chunk_col);
    if (w.is_float) {
        for (int k = (int)threadIdx.x / MANY_ROWS; k < STEP; k += MANY_THREADS / MANY_ROWS)
            to[k][row] = tile < w.n_tiles && k0 + k < n_cols ? float_weight(w.type, chunk, r, k0 + k, n_cols) : 0;
        return;
    }
    if (threadIdx.x >= MANY_ROWS)
        return;
    float x[ACT_LEN];
    for (int k = 0; k < ACT_LEN; k++)
        x[k] = 0;
    if (tile < w.n_tiles)
        switch (w.type) {
#define TO_FLOATS(TYPE)                                                                            \
    case QTYPE_##TYPE:                                                                             \
        block_to_floats<QTYPE_##TYPE>(x, chunk, r, n_cols / ACT_LEN, k0 / ACT_LEN, grids);         \
        break;
            QUANTISED_TYPES(TO_FLOATS)
        default:
            break;
        }
    for (int k = 0; k < ACT_LEN; k++)
        to[k][row] = x[k];
}

__global__ void __launch_bounds__(MANY_THREADS) linear_many_float(struct linear_work a)
{
    begin_kernel();
    __shared__ float w[STEP][STRIDE], x[STEP][STRIDE];
    const struct linear_target &p = a.part[0];
    const int tile0 = (int)blockIdx.x * (MANY_ROWS / TILE_ROWS), token0 = (int)blockIdx.y * MANY_TOKENS;
    const int ty = (int)threadIdx.x / 16 * 4, tx = (int)threadIdx.x % 16 * 4;
    const bool busy = token0 + ty < a.n_tokens && (int64_t)tile0 * TILE_ROWS + tx < p.w.rows;
    float acc[4][4], total[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++)
        acc[i / 4][i % 4] = total[i / 4][i % 4] = 0;
    for (int64_t col = 0; col < p.w.cols; col += STEP) {
        const int n = p.w.cols - col < STEP ? (int)(p.w.cols - col) : (int)STEP;
        stage_weights(w, p.w, tile0, col, a.grids);
        for (int i = (int)threadIdx.x; i < STEP * MANY_TOKENS; i += MANY_THREADS) {
            const int k = i % STEP, t = i / STEP;
            x[k][t] = k < n && token0 + t < a.n_tokens ? a.x[(token0 + t) * p.w.cols + col + k] : 0;
        }
        sync_block();
        for (int k = 0; k < n && busy; k++) {
            const float4_ wv = *(const float4_ *)(const void *)&w[k][tx], xv = *(const float4_ *)(const void *)&x[k][ty];
#pragma unroll
            for (int i = 0; i < 16; i++)
                acc[i / 4][i % 4] = fmaf(wv.v[i % 4], xv.v[i / 4], acc[i / 4][i % 4]);
        }
        if (col + STEP >= p.w.cols || (col + STEP) % CHUNK_LEN == 0)
#pragma unroll
            for (int i = 0; i < 16; i++) {
                total[i / 4][i % 4] += acc[i / 4][i % 4];
                acc[i / 4][i % 4] = 0;
            }
        sync_block();
    }
    for (int i = 0; i < 16; i++) {
        const int64_t row = (int64_t)tile0 * TILE_ROWS + tx + i % 4;
        const int token = token0 + ty + i / 4;
        if (row < p.w.rows && token < a.n_tokens)
            store_sum(p, token, row, total[i / 4][i % 4]);
    }
}

void cuda_linear_many_float(const struct linear_work *a)
{
    struct linear_work one = *a;
    for (int i = 0; i < a->n_parts; i++) {
        one.part[0] = a->part[i];
        one.n_parts = 1;
        launch(linear_many_float,
               dim3(blocks_for(a->part[i].w.n_tiles, MANY_ROWS / TILE_ROWS), blocks_for(a->n_tokens, MANY_TOKENS)),
               MANY_THREADS, 0, one);
    }
}

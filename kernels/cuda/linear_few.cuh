/* Quantised products of up to 8 tokens, where reading the weights is all the work.
 *
 * Half a warp's lanes are the 16 rows of a tile, so that a load of 16 bytes by each is 256 bytes in a row, and the
 * activations, which all lanes need, are one broadcast. A lane owns a chunk of 256 columns of its row: the
 * contract's order runs inside it. Other half warps have the row's other chunks, 16 in a block of threads;
 * their sums meet in shared memory, where one thread for each row and token adds them in order. */
#ifndef QUOLL_CUDA_LINEAR_FEW_CUH
#define QUOLL_CUDA_LINEAR_FEW_CUH

#include "kernels/cuda/linear.cuh"

/* Where a half warp puts down its chunk: accumulators of each token, minima likewise, then d and dmin. */
template <int TYPE, int T> struct few_layout {
    static constexpr struct format F = format_of(TYPE);
    static constexpr int MINS = has_min(F.scales) ? T : 0, D = is_super(F.scales) ? 1 : 0,
                         M = D && has_min(F.scales) ? 1 : 0;
    static constexpr int FLOATS = (T + MINS + D + M) * TILE_ROWS;
};

template <int TYPE, int T>
DEVICE void few_chunk(float *put, const struct linear_work &a, const struct device_matrix &w, int tile, int chunk,
                      int row)
{
    constexpr struct format F = format_of(TYPE);
    typedef few_layout<TYPE, T> layout;
    const int64_t col = (int64_t)chunk * CHUNK_LEN;
    const int n_blocks = chunk_columns(w, col) / ACT_LEN;
    const int64_t act_stride = w.cols / ACT_LEN * ACT_BYTES;
    const uint8_t *act = a.act + col / ACT_LEN * ACT_BYTES;
    lane_chunk<TYPE> lane;
    typename lane_chunk<TYPE>::raw raw[CHUNK_BLOCKS];
    lane.place(w.data + tile * w.tile_bytes + chunk_offset(w, col), row, n_blocks, a.grids);
#pragma unroll
    for (int b = 0; b < CHUNK_BLOCKS; b++)
        if (b < n_blocks)
            raw[b] = lane.fetch(b);
    lane.load_scales(n_blocks);
    float acc[T], mins[T];
#pragma unroll
    for (int t = 0; t < T; t++)
        acc[t] = mins[t] = 0;
#pragma unroll
    for (int b = 0; b < CHUNK_BLOCKS; b++) {
        if (b >= n_blocks)
            continue;
        uint32_t q[GROUPS];
        lane.block(q, raw[b], b);
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (T > 1 && t >= a.n_tokens)
                continue;
            const word4 *x = (const word4 *)(const void *)(act + t * act_stride + b * ACT_BYTES);
            const word4 head = x[0], x0 = x[1], x1 = x[2];
            const float d_a = bits_float(head.v[0]);
            const int sum0 = (int16_t)head.v[2], sum1 = (int16_t)(head.v[2] >> 16);
            int s0 = 0, s1 = 0;
#pragma unroll
            for (int g = 0; g < 4; g++) {
                if constexpr (F.scales == SCALE_BLOCK_ZERO && F.low == 8) {
                    s0 = dot4_unsigned(q[g], x0.v[g], s0);
                    s1 = dot4_unsigned(q[g + 4], x1.v[g], s1);
                } else {
                    s0 = dot4(q[g], x0.v[g], s0);
                    s1 = dot4(q[g + 4], x1.v[g], s1);
                }
            }
            if constexpr (F.zero != 0) {
                s0 -= F.zero * sum0;
                s1 -= F.zero * sum1;
            }
            if constexpr (F.scales == SCALE_BLOCK16) {
                acc[t] = fmaf((float)s0, lane.d(2 * b) * d_a, acc[t]);
                acc[t] = fmaf((float)s1, lane.d(2 * b + 1) * d_a, acc[t]);
            } else if constexpr (!is_super(F.scales)) {
                int sum = s0 + s1;
                if constexpr (F.scales == SCALE_BLOCK_ZERO)
                    sum -= lane.zero(b) * (sum0 + sum1);
                acc[t] = fmaf((float)sum, lane.d(b) * d_a, acc[t]);
                if constexpr (has_min(F.scales))
                    mins[t] = fmaf(lane.m(b), bits_float(head.v[1]), mins[t]);
            } else {
                const int sum = by_16(F.scales) ? lane.scale(b, 0) * s0 + lane.scale(b, 1) * s1
                                                : lane.scale(b, 0) * (s0 + s1);
                acc[t] = fmaf((float)sum, d_a, acc[t]);
                if constexpr (has_min(F.scales)) {
                    const int min = by_16(F.scales) ? lane.min(b, 0) * sum0 + lane.min(b, 1) * sum1
                                                    : lane.min(b, 0) * (sum0 + sum1);
                    mins[t] = fmaf((float)min, d_a, mins[t]);
                }
            }
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        put[t * TILE_ROWS + row] = acc[t];
        if constexpr (has_min(F.scales))
            put[(T + t) * TILE_ROWS + row] = mins[t];
    }
    if constexpr (is_super(F.scales)) {
        put[(T + layout::MINS) * TILE_ROWS + row] = lane.d(0);
        if constexpr (has_min(F.scales))
            put[(T + layout::MINS + 1) * TILE_ROWS + row] = lane.m(0);
    }
}

/* at_once: half warps that share a tile's chunks, a power of two up to 16; the others have other tiles. */
template <int TYPE, int T> __global__ void __launch_bounds__(FEW_THREADS, T > 1 ? 1 : 2) linear_few(struct linear_work a, int at_once)
{
    few_prefetch(a, at_once);
    begin_kernel();
    constexpr struct format F = format_of(TYPE);
    typedef few_layout<TYPE, T> layout;
    __shared__ float put[2][FEW_HALVES][layout::FLOATS];
    const int half = (int)threadIdx.x / 16, row = (int)threadIdx.x % 16, tiles_at_once = FEW_HALVES / at_once;
    const int64_t cols = a.part[0].w.cols;
    const int n_chunks = (int)((cols + CHUNK_LEN - 1) / CHUNK_LEN);
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
                if (i >= n_sums)
                    continue;
                const int r = i % TILE_ROWS, sub = i / TILE_ROWS % tiles_at_once, t = i / TILE_ROWS / tiles_at_once;
                for (int c = 0; c < n; c++) {
                    const float *from = put[buffer][sub * at_once + c] + r;
                    const float acc = from[t * TILE_ROWS];
                    if constexpr (is_super(F.scales)) {
                        total[k] = fmaf(acc, from[(T + layout::MINS) * TILE_ROWS], total[k]);
                        if constexpr (has_min(F.scales))
                            total[k] = fmaf(-from[(T + layout::MINS + 1) * TILE_ROWS], from[(T + t) * TILE_ROWS],
                                            total[k]);
                    } else {
                        total[k] += acc;
                        if constexpr (has_min(F.scales))
                            total[k] += from[(T + t) * TILE_ROWS];
                    }
                }
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
        launch(linear_few<TYPE, 1>, grid, FEW_THREADS, 0, *a, at_once);
    else
        launch(linear_few<TYPE, FEW_TOKENS>, grid, FEW_THREADS, 0, *a, at_once);
}

#endif

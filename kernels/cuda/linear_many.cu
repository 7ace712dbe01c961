/* Quantised products of many tokens, on the tensor cores, to the same bits: a product of 32 columns is one exact sum
 * of bytes, and what follows is the contract's order in float, one thread for each output.
 *
 * A block of threads has 64 rows (four tiles) and 64 tokens. A chunk of 256 columns at a time is decoded to
 * signed bytes in shared memory, with the scales beside them; eight warps, four by two, have 16 rows and 32
 * tokens each. Without --exact, and for up to 64 tokens, blocks may share a row's chunks; what each has summed is
 * then added up. */
#include "kernels/cuda/linear.cuh"

enum {
    THREADS = 256,
    ROWS = 64,
    TOKENS = 64,
    BLOCKS_PER_SM = 2,
    WARP_TOKENS = 32,
    FRAGMENTS = WARP_TOKENS / 8,
    W_STRIDE = CHUNK_LEN + 16, /* bytes: rows in different banks */
    ACT_STRIDE = CHUNK_BLOCKS * ACT_BYTES + 16,
};

/* The chunk in shared memory; scales as [block or half][row]. */
template <int KIND> struct staged_chunk {
    static constexpr enum scale_kind K = (enum scale_kind)KIND;
    static constexpr int N_D = is_super(K) ? 1 : by_16(K) ? 2 * CHUNK_BLOCKS : CHUNK_BLOCKS;
    static constexpr int N_SCALE = !is_super(K) ? 0 : by_16(K) ? 2 * CHUNK_BLOCKS : CHUNK_BLOCKS;
    static constexpr int N_M = K == SCALE_BLOCK_MIN ? CHUNK_BLOCKS : has_min(K) ? 1 : 0;
    static constexpr int N_MIN = is_super(K) && has_min(K) ? N_SCALE : 0;
    static constexpr int N_ZERO = K == SCALE_BLOCK_ZERO ? CHUNK_BLOCKS : 0;
    static constexpr size_t BYTES =
        (size_t)ROWS * W_STRIDE + (size_t)TOKENS * ACT_STRIDE +
        sizeof(float) * ROWS * (size_t)(N_D + N_M) + sizeof(int) * ROWS * (size_t)(N_SCALE + N_MIN + N_ZERO);
    uint8_t *w, *act;
    float *d, *m;
    int *scale, *min, *zero;

    __device__ __forceinline__ explicit staged_chunk(uint8_t *p)
    {
        w = p;
        act = w + ROWS * W_STRIDE;
        d = (float *)(void *)(act + TOKENS * ACT_STRIDE);
        m = d + N_D * ROWS;
        scale = (int *)(void *)(m + N_M * ROWS);
        min = scale + N_SCALE * ROWS;
        zero = min + N_MIN * ROWS;
    }
};

/* Four codes below 128, less zero, as signed bytes. */
DEVICE uint32_t less_zero(uint32_t w, int zero)
{
    return ((w | 0x80808080u) - 0x01010101u * (uint32_t)zero) ^ 0x80808080u;
}

/* The 32 columns of block b of one row. */
template <int TYPE> DEVICE void stage_block(uint8_t *to, const uint8_t *chunk, int row, int n_blocks, int b,
                                            const struct device_grids &grids)
{
    constexpr struct format F = format_of(TYPE);
    lane_chunk<TYPE> lane;
    lane.place(chunk, row, n_blocks, grids);
    uint32_t w[GROUPS];
    lane.block(w, lane.fetch(b), b);
    word4 half[2];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        if constexpr (F.scales == SCALE_BLOCK_ZERO && F.low == 8)
            w[g] ^= 0x80808080; /* its zero point is 128 less, too */
        else if constexpr (F.zero != 0)
            w[g] = less_zero(w[g], F.zero);
        half[g / 4].v[g % 4] = w[g];
    }
    ((word4 *)(void *)to)[0] = half[0];
    ((word4 *)(void *)to)[1] = half[1];
}

/* One row's scales. */
template <int TYPE> DEVICE void stage_scales(const staged_chunk<format_of(TYPE).scales> &c, const uint8_t *chunk,
                                             int row, int at, int n_blocks, const struct device_grids &grids)
{
    constexpr struct format F = format_of(TYPE);
    lane_chunk<TYPE> lane;
    lane.place(chunk, row, n_blocks, grids);
    lane.load_scales(n_blocks);
    if constexpr (is_super(F.scales)) {
        c.d[at] = lane.d(0);
        if constexpr (has_min(F.scales))
            c.m[at] = lane.m(0);
    }
#pragma unroll
    for (int b = 0; b < CHUNK_BLOCKS; b++) {
        if (b >= n_blocks)
            continue;
        if constexpr (is_super(F.scales)) {
#pragma unroll
            for (int h = 0; h < (by_16(F.scales) ? 2 : 1); h++) {
                const int i = by_16(F.scales) ? 2 * b + h : b;
                c.scale[i * ROWS + at] = lane.scale(b, h);
                if constexpr (has_min(F.scales))
                    c.min[i * ROWS + at] = lane.min(b, h);
            }
        } else if constexpr (F.scales == SCALE_BLOCK16) {
            c.d[2 * b * ROWS + at] = lane.d(2 * b);
            c.d[(2 * b + 1) * ROWS + at] = lane.d(2 * b + 1);
        } else {
            c.d[b * ROWS + at] = lane.d(b);
            if constexpr (has_min(F.scales))
                c.m[b * ROWS + at] = lane.m(b);
            if constexpr (F.scales == SCALE_BLOCK_ZERO)
                c.zero[b * ROWS + at] = lane.zero(b) - (F.low == 8 ? 128 : 0);
        }
    }
}

template <int TYPE>
DEVICE void stage_weights(const staged_chunk<format_of(TYPE).scales> &c, const struct device_matrix &w, int tile0,
                          int64_t col, const struct device_grids &grids)
{
    const int n_blocks = chunk_columns(w, col) / ACT_LEN, tid = (int)threadIdx.x;
    const uint8_t *chunk = w.data + chunk_offset(w, col);
    for (int i = tid; i < ROWS * CHUNK_BLOCKS; i += THREADS) {
        const int row = i % TILE_ROWS, b = i / TILE_ROWS % CHUNK_BLOCKS, t = i / TILE_ROWS / CHUNK_BLOCKS;
        if (b < n_blocks && tile0 + t < w.n_tiles)
            stage_block<TYPE>(c.w + (t * TILE_ROWS + row) * W_STRIDE + b * ACT_LEN,
                              chunk + (tile0 + t) * w.tile_bytes, row, n_blocks, b, grids);
    }
    if (tid < ROWS && tile0 + tid / TILE_ROWS < w.n_tiles)
        stage_scales<TYPE>(c, chunk + (tile0 + tid / TILE_ROWS) * w.tile_bytes, tid % TILE_ROWS, tid, n_blocks, grids);
}

DEVICE void stage_acts(uint8_t *to, const struct linear_work &a, int64_t cols, int token0, int64_t col, int n_blocks)
{
    const int words = n_blocks * ACT_BYTES / 16;
    const int64_t stride = cols / ACT_LEN * ACT_BYTES;
    for (int i = (int)threadIdx.x; i < TOKENS * words; i += THREADS) {
        const int t = i / words, k = i % words;
        word4 x = {{0, 0, 0, 0}};
        if (token0 + t < a.n_tokens)
            x = *(const word4 *)(const void *)(a.act + (token0 + t) * stride + col / ACT_LEN * ACT_BYTES + k * 16);
        *(word4 *)(void *)(to + t * ACT_STRIDE + k * 16) = x;
    }
}

/* Sums of one warp: [fragment][output], an output being (row g or g + 8, token 2 t or 2 t + 1) of the mma. */
struct warp_sums {
    float acc[FRAGMENTS][4], mins[FRAGMENTS][4], total[FRAGMENTS][4];
};

template <int KIND> DEVICE void multiply_block(struct warp_sums &s, const staged_chunk<KIND> &c, int b, int row0,
                                               int token0)
{
    constexpr enum scale_kind K = (enum scale_kind)KIND;
    const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    uint32_t w[4];
    for (int h = 0; h < 2; h++)
        for (int r = 0; r < 2; r++)
            w[2 * h + r] = load32(c.w + (row0 + g + 8 * r) * W_STRIDE + b * ACT_LEN + 16 * h + 4 * t);
#pragma unroll
    for (int n = 0; n < FRAGMENTS; n++) {
        const uint8_t *column = c.act + (token0 + 8 * n + g) * ACT_STRIDE + b * ACT_BYTES + 16;
        const uint32_t x[2] = {load32(column + 4 * t), load32(column + 16 + 4 * t)};
        int sum[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        if constexpr (by_16(K)) {
            mma_k16(sum[0], w, x[0]);
            mma_k16(sum[1], w + 2, x[1]);
        } else {
            mma_k32(sum[0], w, x);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = row0 + g + i / 2 * 8;
            const uint32_t *head =
                (const uint32_t *)(const void *)(c.act + (token0 + 8 * n + 2 * t + i % 2) * ACT_STRIDE + b * ACT_BYTES);
            const float d_a = bits_float(head[0]);
            float &acc = s.acc[n][i], &mins = s.mins[n][i];
            if constexpr (K == SCALE_BLOCK16) {
                acc = fmaf((float)sum[0][i], c.d[2 * b * ROWS + row] * d_a, acc);
                acc = fmaf((float)sum[1][i], c.d[(2 * b + 1) * ROWS + row] * d_a, acc);
            } else if constexpr (!is_super(K)) {
                int y = sum[0][i];
                if constexpr (K == SCALE_BLOCK_ZERO)
                    y -= c.zero[b * ROWS + row] * ((int16_t)head[2] + (int16_t)(head[2] >> 16));
                acc = fmaf((float)y, c.d[b * ROWS + row] * d_a, acc);
                if constexpr (has_min(K))
                    mins = fmaf(c.m[b * ROWS + row], bits_float(head[1]), mins);
            } else {
                int y, min = 0;
                if constexpr (by_16(K))
                    y = c.scale[2 * b * ROWS + row] * sum[0][i] + c.scale[(2 * b + 1) * ROWS + row] * sum[1][i];
                else
                    y = c.scale[b * ROWS + row] * sum[0][i];
                acc = fmaf((float)y, d_a, acc);
                if constexpr (has_min(K)) {
                    const int sum0 = (int16_t)head[2], sum1 = (int16_t)(head[2] >> 16);
                    if constexpr (by_16(K))
                        min = c.min[2 * b * ROWS + row] * sum0 + c.min[(2 * b + 1) * ROWS + row] * sum1;
                    else
                        min = c.min[b * ROWS + row] * (sum0 + sum1);
                    mins = fmaf((float)min, d_a, mins);
                }
            }
        }
    }
}

template <int KIND> DEVICE void end_chunk(struct warp_sums &s, const staged_chunk<KIND> &c, int row0)
{
    constexpr enum scale_kind K = (enum scale_kind)KIND;
    const int g = (int)threadIdx.x % WARP / 4;
#pragma unroll
    for (int n = 0; n < FRAGMENTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = row0 + g + i / 2 * 8;
            float &total = s.total[n][i];
            if constexpr (is_super(K)) {
                total = fmaf(s.acc[n][i], c.d[row], total);
                if constexpr (has_min(K))
                    total = fmaf(-c.m[row], s.mins[n][i], total);
            } else {
                total += s.acc[n][i];
                if constexpr (has_min(K))
                    total += s.mins[n][i];
            }
            s.acc[n][i] = s.mins[n][i] = 0;
        }
}

/* Decodes by the type of the weights, of those that have this kind of scales. */
template <int KIND> DEVICE void stage_any(const staged_chunk<KIND> &c, const struct device_matrix &w, int tile0,
                                          int64_t col, const struct device_grids &grids)
{
    switch (w.type) {
#define STAGE(TYPE)                                                                  \
    case QTYPE_##TYPE:                                                               \
        if constexpr (format_of(QTYPE_##TYPE).scales == (enum scale_kind)KIND)       \
            stage_weights<QTYPE_##TYPE>(c, w, tile0, col, grids);                    \
        break;
        QUANTISED_TYPES(STAGE)
    default:
        break;
    }
}

template <int KIND> __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) linear_many(struct linear_work a)
{
    begin_kernel();
    SHARED_MEMORY(memory);
    const staged_chunk<KIND> c(memory);
    const int warp = (int)threadIdx.x / WARP, row0 = warp % 4 * TILE_ROWS, col0 = warp / 4 * WARP_TOKENS;
    const int token0 = (int)blockIdx.y * TOKENS;
    int tile0;
    const struct linear_target &p = part_of(a, (int)blockIdx.x, ROWS / TILE_ROWS, &tile0);
    const int n_chunks = (int)((p.w.cols + CHUNK_LEN - 1) / CHUNK_LEN), split = (int)blockIdx.z;
    const int end = n_chunks * (split + 1) / (int)a.n_splits;
    struct warp_sums s;
#pragma unroll
    for (int n = 0; n < FRAGMENTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s.acc[n][i] = s.mins[n][i] = s.total[n][i] = 0;
    for (int chunk = n_chunks * split / (int)a.n_splits; chunk < end; chunk++) {
        const int64_t col = (int64_t)chunk * CHUNK_LEN;
        const int n_blocks = chunk_columns(p.w, col) / ACT_LEN;
        stage_any<KIND>(c, p.w, tile0, col, a.grids);
        stage_acts(c.act, a, p.w.cols, token0, col, n_blocks);
        sync_block();
        for (int b = 0; b < n_blocks; b++)
            multiply_block<KIND>(s, c, b, row0, col0);
        end_chunk<KIND>(s, c, row0);
        sync_block();
    }
    const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const struct split_place to = split_place_of(a, p);
#pragma unroll
    for (int n = 0; n < FRAGMENTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t row = (int64_t)tile0 * TILE_ROWS + row0 + g + i / 2 * 8;
            const int token = token0 + col0 + 8 * n + 2 * t + i % 2;
            if (row < p.w.rows && token < a.n_tokens)
                store_split(a, p, to, token, row, s.total[n][i]);
        }
}

/* Up to 64 tokens reading the weights is the work: enough blocks to keep all of the memory busy, of 1,024 columns at
 * least, which are more bytes than the sums that are put down for them. */
int64_t cuda_many_splits(const struct linear_work *a)
{
    enum { LEAST_CHUNKS = 4 };
    if (a->n_tokens <= FEW_TOKENS || a->n_tokens > TOKENS)
        return 1;
    const int64_t n_chunks = (a->part[0].w.cols + CHUNK_LEN - 1) / CHUNK_LEN;
    return splits_for(row_blocks(a, ROWS / TILE_ROWS), BLOCKS_PER_SM, n_chunks / LEAST_CHUNKS);
}

template <int KIND> static void launch_many(const struct linear_work *a)
{
    const dim3 grid((unsigned)row_blocks(a, ROWS / TILE_ROWS), blocks_for(a->n_tokens, TOKENS), (unsigned)a->n_splits);
    launch(linear_many<KIND>, grid, THREADS, staged_chunk<KIND>::BYTES, *a);
}

void cuda_linear_many(const struct linear_work *a)
{
    switch (a->part[0].w.type) {
#define MANY(TYPE)                                          \
    case QTYPE_##TYPE:                                      \
        launch_many<format_of(QTYPE_##TYPE).scales>(a);     \
        break;
        QUANTISED_TYPES(MANY)
    default:
        break;
    }
}

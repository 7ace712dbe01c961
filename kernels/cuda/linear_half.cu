/* Products of F16 and BF16 weights with many tokens on the tensor cores: half floats times half floats, sums in
 * float. Not exact: activations are rounded to 11 bits, and the order of a sum is the hardware's. Run after run
 * gives the same bits.
 *
 * Weights stay as they lie (kernels/cuda.h): a tile of 16 rows is lines of 8 columns, 16 bytes a row, so 16
 * columns of a tile are 512 bytes in a row, which are one fragment of the tensor cores as they stand, and 32
 * columns are one KiB to copy. Activations are brought into the same shape: tiles of 16 tokens, columns
 * padded with zeros to 32. A power of two for each token keeps its halves in range.
 *
 * BF16 weights become half floats in registers, after they were copied, so that activations keep 11 bits: exact
 * for weights between 2^-14 and 65504, and to 2^-25 below. A model that has larger ones goes without.
 *
 * A block of threads has some tiles of rows and of tokens, 32 columns at a time; the next ones are copied to
 * shared memory meanwhile (cp.async). */
#include "kernels/cuda/linear.cuh"

enum {
    STEP = 32,               /* columns at a time */
    PIECE = 8,               /* columns in 16 bytes */
    TILE_STEP = 2 * STEP * TILE_ROWS, /* bytes of a tile in a step */
    STEP_PIECES = TILE_STEP / 16,
    MAKE_THREADS = 128,
};

static inline __host__ __device__ int64_t n_steps_of(int64_t cols)
{
    return (cols + STEP - 1) / STEP;
}

/* ---- The input as half floats ---------------------------------------------------------------------------- */

/* Tiles of 16 tokens, (n_steps, TILE_STEP bytes) each; then a factor for each token that undoes its scaling. */
static size_t panel_bytes(int n_tokens, int64_t cols)
{
    return (size_t)((n_tokens + TILE_ROWS - 1) / TILE_ROWS) * (size_t)n_steps_of(cols) * TILE_STEP;
}

size_t cuda_half_bytes(int n_tokens, int64_t cols)
{
    const size_t factors = (size_t)n_tokens * sizeof(float);
    return panel_bytes(n_tokens, cols) + (factors + 255) / 256 * 256;
}

/* One token, or one that only fills a tile: zeros. Its largest element is brought to 2^14 … 2^15. */
__global__ void __launch_bounds__(MAKE_THREADS) make_halves(uint8_t *dst, float *factor, const float *x, int n_tokens,
                                                            int unused, int64_t cols)
{
    begin_kernel();
    __shared__ uint32_t most[MAKE_THREADS / WARP];
    (void)unused;
    const int token = (int)blockIdx.x, tid = (int)threadIdx.x;
    const bool there = token < n_tokens;
    const float *row = x + (there ? token : 0) * cols;
    uint32_t amax = 0;
    for (int64_t i = tid; i < cols && there; i += MAKE_THREADS) {
        const uint32_t bits = float_bits(row[i]) & 0x7fffffff;
        amax = bits > amax ? bits : amax;
    }
    for (int step = 1; step < WARP; step *= 2) {
        const uint32_t other = shuffle_xor(0xffffffff, amax, step);
        amax = other > amax ? other : amax;
    }
    if (tid % WARP == 0)
        most[tid / WARP] = amax;
    sync_block();
    for (int w = 0; w < MAKE_THREADS / WARP; w++)
        amax = most[w] > amax ? most[w] : amax;
    /* the exponent that makes it 14; a row of zeros, tiny numbers, infinities or NaNs is left alone */
    const int e = (int)(amax >> 23) - 127, by = e < -100 || e > 127 ? 0 : 14 - e;
    const float scale = bits_float((uint32_t)(127 + by) << 23);
    uint8_t *to = dst + token / TILE_ROWS * n_steps_of(cols) * TILE_STEP + token % TILE_ROWS * 16;
    for (int64_t p = tid; p < n_steps_of(cols) * (STEP / PIECE); p += MAKE_THREADS) {
        word4 piece;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int64_t c = p * PIECE + 2 * k;
            const float lo = there && c < cols ? row[c] * scale : 0, hi = there && c + 1 < cols ? row[c + 1] * scale : 0;
            piece.v[k] = half_pair(lo, hi);
        }
        *(word4 *)(void *)(to + p * (16 * TILE_ROWS)) = piece;
    }
    if (there && tid == 0)
        factor[token] = bits_float((uint32_t)(127 - by) << 23);
}

void cuda_make_halves(void *dst, const float *x, int n_tokens, int64_t cols)
{
    const int padded = (n_tokens + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    float *factor = (float *)(void *)((uint8_t *)dst + panel_bytes(n_tokens, cols));
    launch(make_halves, dim3((unsigned)padded), MAKE_THREADS, 0, (uint8_t *)dst, factor, x, n_tokens, 0, cols);
}

/* ---- The product ------------------------------------------------------------------------------------------ */

/* A warp has WARP_ROWS tiles of rows and WARP_TOKENS of tokens, ROW_WARPS × TOKEN_WARPS of them are a block. */
template <int ROW_WARPS, int TOKEN_WARPS, int WARP_ROWS, int WARP_TOKENS, int STAGES, int PER_SM> struct half_shape {
    static constexpr int N_THREADS = ROW_WARPS * TOKEN_WARPS * WARP, N_STAGES = STAGES, BLOCKS_PER_SM = PER_SM;
    static constexpr int ROWS = ROW_WARPS * WARP_ROWS, TOKENS = TOKEN_WARPS * WARP_TOKENS; /* tiles */
    static constexpr int OF_WARP_ROWS = WARP_ROWS, OF_WARP_TOKENS = WARP_TOKENS, N_ROW_WARPS = ROW_WARPS;
    static constexpr int STAGE = (ROWS + TOKENS) * TILE_STEP;
};
typedef half_shape<2, 2, 2, 2, 4, 4> small_shape;  /* 64 rows × 64 tokens */
typedef half_shape<2, 4, 4, 2, 3, 2> medium_shape; /* 128 × 128 */
typedef half_shape<2, 4, 4, 4, 4, 1> large_shape;  /* 128 × 256 */

/* Two BF16 as two half floats. */
DEVICE uint32_t halves_of_bfloats(uint32_t p)
{
    return half_pair(bits_float(p << 16), bits_float(p & 0xffff0000u));
}

template <typename SHAPE>
DEVICE void copy_step(uint8_t *stage, const struct linear_work &a, const struct device_matrix &w, int tile0, int token0,
                      int64_t step)
{
    constexpr int EACH = SHAPE::N_THREADS / STEP_PIECES; /* tiles at once */
    const int within = (int)threadIdx.x % STEP_PIECES, first = (int)threadIdx.x / STEP_PIECES;
    const int n_token_tiles = (a.n_tokens + TILE_ROWS - 1) / TILE_ROWS;
    const bool in_row = step * STEP + within / TILE_ROWS * PIECE < w.cols;
#pragma unroll
    for (int i = 0; i < SHAPE::ROWS / EACH; i++) {
        const int t = first + i * EACH;
        const bool there = in_row && tile0 + t < w.n_tiles;
        copy_async(stage + t * TILE_STEP + within * 16,
                   w.data + (there ? (tile0 + t) * w.tile_bytes + step * TILE_STEP + within * 16 : 0), there);
    }
#pragma unroll
    for (int i = 0; i < SHAPE::TOKENS / EACH; i++) {
        const int t = first + i * EACH;
        const bool there = token0 + t < n_token_tiles;
        copy_async(stage + (SHAPE::ROWS + t) * TILE_STEP + within * 16,
                   a.half + (there ? ((token0 + t) * n_steps_of(w.cols) + step) * TILE_STEP + within * 16 : 0), there);
    }
}

template <int TYPE, typename SHAPE>
__global__ void __launch_bounds__(SHAPE::N_THREADS, SHAPE::BLOCKS_PER_SM) linear_half(struct linear_work a)
{
    begin_kernel();
    SHARED_MEMORY(memory);
    constexpr int M = SHAPE::OF_WARP_ROWS, N = SHAPE::OF_WARP_TOKENS, AHEAD = SHAPE::N_STAGES - 1;
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int warp_row = warp % SHAPE::N_ROW_WARPS * M, warp_token = warp / SHAPE::N_ROW_WARPS * N;
    const int token0 = (int)blockIdx.x * SHAPE::TOKENS; /* neighbours share weights */
    int tile0;
    const struct linear_target &p = part_of(a, (int)blockIdx.y, SHAPE::ROWS, &tile0);
    const int64_t n_steps = n_steps_of(p.w.cols);
    const int64_t begin = n_steps * blockIdx.z / a.n_splits, end = n_steps * (blockIdx.z + 1) / a.n_splits;
    float sum[M][2 * N][4];
#pragma unroll
    for (int i = 0; i < M * 2 * N * 4; i++)
        sum[i / (8 * N)][i / 4 % (2 * N)][i % 4] = 0;
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
        if (begin + s < end)
            copy_step<SHAPE>(memory + s * SHAPE::STAGE, a, p.w, tile0, token0, begin + s);
        copy_group();
    }
    int stage = 0;
    for (int64_t step = begin; step < end; step++) {
        copy_wait<AHEAD - 1>();
        sync_block(); /* this step is there, and the last one's place is free */
        const int next = stage == 0 ? AHEAD : stage - 1;
        if (step + AHEAD < end)
            copy_step<SHAPE>(memory + next * SHAPE::STAGE, a, p.w, tile0, token0, step + AHEAD);
        copy_group();
        const uint8_t *rows = memory + stage * SHAPE::STAGE + warp_row * TILE_STEP;
        const uint8_t *tokens = memory + stage * SHAPE::STAGE + (SHAPE::ROWS + warp_token) * TILE_STEP;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            uint32_t w[M][4], x[N][4];
#pragma unroll
            for (int n = 0; n < N; n++)
                load_matrices(x[n], tokens + n * TILE_STEP + k * (TILE_STEP / 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                load_matrices(w[m], rows + m * TILE_STEP + k * (TILE_STEP / 2));
                if constexpr (TYPE == QTYPE_BF16)
                    for (int r = 0; r < 4; r++)
                        w[m][r] = halves_of_bfloats(w[m][r]);
            }
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < 2 * N; n++) {
                    const uint32_t b[2] = {x[n / 2][n % 2], x[n / 2][2 + n % 2]};
                    mma_half(sum[m][n], w[m], b);
                }
        }
        stage = stage == AHEAD ? 0 : stage + 1;
    }
    copy_wait<0>();
    const float *factor = (const float *)(const void *)(a.half + (a.n_tokens + TILE_ROWS - 1) / TILE_ROWS * n_steps * TILE_STEP);
    const struct split_place to = split_place_of(a, p);
#pragma unroll
    for (int n = 0; n < 2 * N; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int token = (token0 + warp_token) * TILE_ROWS + 8 * n + lane % 4 * 2 + h;
            if (token >= a.n_tokens)
                continue;
            const float f = factor[token];
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int64_t row = (int64_t)(tile0 + warp_row + m) * TILE_ROWS + lane / 4 + 8 * r;
                    const float y = sum[m][n][2 * r + h] * f;
                    if (row < p.w.rows)
                        store_split(a, p, to, token, row, y);
                }
        }
}

/* ---- The cut ------------------------------------------------------------------------------------------------ */

bool cuda_half_takes(const struct packed *w, int n_tokens)
{
    return n_tokens > FEW_TOKENS && w->cols % PIECE == 0 &&
           (w->type == QTYPE_F16 || (w->type == QTYPE_BF16 && !cuda.has_wide_bfloats));
}

template <typename SHAPE> static int64_t token_blocks(const struct linear_work *a)
{
    return blocks_for(a->n_tokens, SHAPE::TOKENS * TILE_ROWS);
}

static bool is_small(const struct linear_work *a)
{
    return a->n_tokens <= small_shape::TOKENS * TILE_ROWS;
}

/* Up to 64 tokens reading the weights is the work: enough blocks to keep all of the memory busy, of 512 columns at
 * least, which are more bytes than the sums that are put down for them. */
int64_t cuda_half_splits(const struct linear_work *a)
{
    enum { LEAST_STEPS = 16 };
    return is_small(a) ? splits_for(row_blocks(a, small_shape::ROWS), small_shape::BLOCKS_PER_SM,
                                    n_steps_of(a->part[0].w.cols) / LEAST_STEPS)
                       : 1;
}

template <int TYPE, typename SHAPE> static void launch_half(const struct linear_work *a)
{
    const dim3 grid((unsigned)token_blocks<SHAPE>(a), (unsigned)row_blocks(a, SHAPE::ROWS), (unsigned)a->n_splits);
    launch(linear_half<TYPE, SHAPE>, grid, SHAPE::N_THREADS, (size_t)SHAPE::N_STAGES * SHAPE::STAGE, *a);
}

template <int TYPE> static void launch_type(const struct linear_work *a)
{
    /* the large shape needs less of the shared memory's speed, where there are enough of its blocks */
    if (is_small(a))
        launch_half<TYPE, small_shape>(a);
    else if (row_blocks(a, large_shape::ROWS) * token_blocks<large_shape>(a) < 2 * cuda.n_sms)
        launch_half<TYPE, medium_shape>(a);
    else
        launch_half<TYPE, large_shape>(a);
}

void cuda_linear_half(const struct linear_work *a)
{
    if (a->part[0].w.type == QTYPE_F16)
        launch_type<QTYPE_F16>(a);
    else
        launch_type<QTYPE_BF16>(a);
}

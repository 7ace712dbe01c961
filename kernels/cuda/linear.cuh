/* Products of packed weights with rows of activations: what the kernels of few and of many tokens share. */
#ifndef QUOLL_CUDA_LINEAR_CUH
#define QUOLL_CUDA_LINEAR_CUH

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weights.cuh"

enum {
    FEW_TOKENS = 8, /* as many as one pass over the weights serves without tensor cores */
    FEW_THREADS = 256,
    FEW_HALVES = FEW_THREADS / 16,
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
    const float *x;     /* … (n_tokens, cols), or … */
    const uint8_t *half; /* … what cuda_make_halves made of it */
    float *partial;      /* n_splits > 1: (n_splits, n_tokens, rows of all parts) */
    int64_t n_splits;    /* over the columns, added up afterwards; not exact */
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

/* Rows of all parts. */
static inline __host__ __device__ int64_t rows_of(const struct linear_work &a)
{
    int64_t n = 0;
    for (int i = 0; i < a.n_parts; i++)
        n += a.part[i].w.rows;
    return n;
}

DEVICE void store_sum(const struct linear_target &p, int64_t token, int64_t row, float y)
{
    float *out = p.out + token * p.w.rows + row;
    if (p.bias)
        y += p.bias[row];
    *out = p.add ? *out + y : y;
}

/* ---- Many tokens: a block of threads has some tiles of one part ------------------------------------------- */

/* The block's part, and its first tile there: blocks of rows do not reach from one part into the next. */
DEVICE const struct linear_target &part_of(const struct linear_work &a, int block, int tiles, int *tile0)
{
    int i = 0, n;
    while (n = (a.part[i].w.n_tiles + tiles - 1) / tiles, i + 1 < a.n_parts && block >= n) {
        i++;
        block -= n;
    }
    *tile0 = block * tiles;
    return a.part[i];
}

static inline int64_t row_blocks(const struct linear_work *a, int tiles)
{
    int64_t n = 0;
    for (int i = 0; i < a->n_parts; i++)
        n += blocks_for(a->part[i].w.n_tiles, tiles);
    return n;
}

/* Where the sums of split blockIdx.z of the columns go, those of part p: row r of a token at row[r], the next token
 * `stride` later. */
struct split_place {
    float *row;
    int64_t stride;
};

DEVICE struct split_place split_place_of(const struct linear_work &a, const struct linear_target &p)
{
    const int64_t n_rows = rows_of(a);
    float *row = a.partial + (int64_t)blockIdx.z * a.n_tokens * n_rows;
    for (int i = 0; &a.part[i] != &p; i++)
        row += a.part[i].w.rows;
    return {row, n_rows};
}

DEVICE void store_split(const struct linear_work &a, const struct linear_target &p, const struct split_place &to,
                        int64_t token, int64_t row, float y)
{
    if (a.n_splits > 1)
        to.row[token * to.stride + row] = y;
    else
        store_sum(p, token, row, y);
}

/* Into how many parts sums are split, so that n_blocks blocks of threads become as many as run at once. */
static inline int64_t splits_for(int64_t n_blocks, int per_sm, int64_t most)
{
    enum { LIMIT = 8 };
    const int64_t want = (int64_t)per_sm * cuda.n_sms / n_blocks;
    most = most < LIMIT ? most : (int64_t)LIMIT;
    return want < 1 || most < 1 ? 1 : want < most ? want : most;
}

/* ---- Few tokens: half a warp has a chunk of 16 rows ------------------------------------------------------ */

/* Half warps that share a tile's chunks, a power of two up to FEW_HALVES; the others have other tiles. */
static inline int few_at_once(const struct linear_work *a)
{
    const int64_t n_chunks = (a->part[0].w.cols + CHUNK_LEN - 1) / CHUNK_LEN;
    int at_once = 1;
    while (at_once < FEW_HALVES && at_once < n_chunks)
        at_once *= 2;
    return at_once;
}

static inline dim3 few_grid(const struct linear_work *a, int at_once)
{
    enum { BLOCKS_PER_SM = 4 };
    const unsigned need = blocks_for(a->n_tiles, FEW_HALVES / at_once), most = (unsigned)(BLOCKS_PER_SM * cuda.n_sms);
    return dim3(need < most ? need : most);
}

/* What a half warp begins with is on its way before the input is there. */
DEVICE void few_prefetch(const struct linear_work &a, int at_once)
{
    enum { LINE = 128 };
    const int half = (int)threadIdx.x / 16, lane = (int)threadIdx.x % 16;
    const int64_t col = (int64_t)(half % at_once) * CHUNK_LEN;
    int tile = (int)blockIdx.x * (FEW_HALVES / at_once) + half / at_once;
    if (tile >= a.n_tiles || col >= a.part[0].w.cols)
        return;
    const struct device_matrix &w = target_of(a, &tile).w;
    const uint8_t *from = w.data + tile * w.tile_bytes + chunk_offset(w, col);
    const int bytes = (int)chunk_offset(w, chunk_columns(w, col));
    for (int i = lane * LINE; i < bytes; i += 16 * LINE)
        prefetch(from + i);
}

/* The sums of tiles_at_once tiles from tile0 on: of [token][tile][row], a thread has those FEW_THREADS apart. */
template <int T>
DEVICE void few_store(const struct linear_work &a, int tile0, int tiles_at_once, int n_sums, const float total[T])
{
#pragma unroll
    for (int k = 0; k < T; k++) {
        const int i = (int)threadIdx.x + k * FEW_THREADS;
        const int r = i % TILE_ROWS, sub = i / TILE_ROWS % tiles_at_once, t = i / TILE_ROWS / tiles_at_once;
        int tile = tile0 + sub;
        if (i >= n_sums || tile >= a.n_tiles)
            continue;
        const struct linear_target &p = target_of(a, &tile);
        const int64_t at = (int64_t)tile * TILE_ROWS + r;
        if (at < p.w.rows)
            store_sum(p, t, at, total[k]);
    }
}

/* ---- The kernels' launches -------------------------------------------------------------------------------- */

void cuda_linear_few_float(const struct linear_work *a);  /* F32, F16, BF16 */
void cuda_linear_many(const struct linear_work *a);       /* quantised weights and activations */
int64_t cuda_many_splits(const struct linear_work *a);    /* for cuda_linear_many; not exact if more than one */
void cuda_linear_many_float(const struct linear_work *a); /* all types, activations in float */

/* F16 and BF16 on the tensor cores, not exact (linear_half.cu): the input as half floats, (n_tokens, cols), in so
 * many bytes; whether a matrix is taken; into how many splits its columns go best. */
size_t cuda_half_bytes(int n_tokens, int64_t cols);
void cuda_make_halves(void *dst, const float *x, int n_tokens, int64_t cols);
bool cuda_half_takes(const struct packed *w, int n_tokens);
int64_t cuda_half_splits(const struct linear_work *a);
void cuda_linear_half(const struct linear_work *a);

#endif

/* Attention of prompts on the tensor cores: half floats, sums in float, softmax as it goes (Milakov & Gimelshein
 * 2018; Dao 2023, "FlashAttention-2"). Not exact: queries and probabilities are rounded to 11 bits.
 *
 * A block of threads has 64 rows of one KV head (attention.cuh), a warp 16 of them; all take page after page of 64
 * positions together:
 *
 *     s (16 × 64) = q (16 × head_dim) · keys, masked by what each row sees; p = 2^(s − running maximum)
 *     o (16 × head_dim) = o · 2^(old maximum − new) + p (16 × 64) · values
 *
 * The fragment that holds s is, as half floats, the fragment that p has to be. Keys of a page lie in pieces of 8
 * elements, 16 bytes a position (kv.cuh): 8 positions of a piece are a matrix that the tensor cores take. Values are
 * rows, and are read with rows and columns exchanged. While a page's scores are made its values are copied, and the
 * next page's keys while its output is. Quantised pages become half floats on their way to shared memory. */
#include "kernels/cuda/attention.cuh"

enum {
    THREADS = 128,
    WARPS = THREADS / WARP,
    WARP_ROWS = 16,
    ROWS = WARPS * WARP_ROWS,
    FRAGMENTS = KV_PAGE / 8,
    FEW_TOKENS = 8, /* of a sequence: for fewer, half of a warp's rows and more would be idle */
};

/* Queries as tiles of 16 rows, head_dim / 8 lines of 16 bytes a row; keys as in a page; values padded so that their
 * rows are in different banks. */
struct half_memory {
    uint8_t *q, *k, *v;
};

static inline __host__ __device__ int value_stride(int head_dim)
{
    return 2 * head_dim + 16;
}

static size_t memory_bytes(int head_dim)
{
    return (size_t)(2 * (ROWS + KV_PAGE) * head_dim + KV_PAGE * value_stride(head_dim));
}

DEVICE void store_halves(uint8_t *to, const float x[8])
{
    word4 piece;
#pragma unroll
    for (int i = 0; i < 4; i++)
        piece.v[i] = half_pair(x[2 * i], x[2 * i + 1]);
    *(word4 *)(void *)to = piece;
}

/* n rows, scaled; without a softcap to powers of two. Others are zero. */
DEVICE void load_rows(uint8_t *q, const struct attend_args &a, int kv_head, int row0, int n, float scale)
{
    const int pieces = a.head_dim / 8;
    for (int i = (int)threadIdx.x; i < ROWS * pieces; i += THREADS) {
        const int r = i / pieces, p = i % pieces;
        float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (r < n) {
            const float4_ *from = (const float4_ *)(const void *)(a.q + row_at(a, kv_head, row0 + r) + 8 * p);
            const float4_ lo = from[0], hi = from[1];
#pragma unroll
            for (int k = 0; k < 8; k++)
                x[k] = (k < 4 ? lo.v[k % 4] : hi.v[k % 4]) * scale;
        }
        store_halves(q + (r / WARP_ROWS * pieces + p) * 16 * WARP_ROWS + r % WARP_ROWS * 16, x);
    }
}

/* 16 codes of Q8_0 and their scale as two pieces of half floats. */
DEVICE void store_codes(uint8_t *to, int step, const word4 &codes, float d)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float x[8];
#pragma unroll
        for (int k = 0; k < 8; k++)
            x[k] = d * (float)(int8_t)(codes.v[2 * h + k / 4] >> k % 4 * 8);
        store_halves(to + h * step, x);
    }
}

DEVICE void copy_keys(uint8_t *k, const struct attend_args &a, int kv_head, int64_t number)
{
    const uint8_t *from = a.k_pages + (number * a.n_kv_heads + kv_head) * a.k_head_bytes;
    enum { PIECE = 16 * KV_PAGE };
    if (a.type_k == QTYPE_F16) {
        for (int i = (int)threadIdx.x; i < KV_PAGE * a.head_dim / 8; i += THREADS)
            copy_async(k + i * 16, from + i * 16, true);
        return;
    }
    for (int i = (int)threadIdx.x; i < KV_PAGE * a.head_dim / 16; i += THREADS) {
        const int pos = i % KV_PAGE, half = i / KV_PAGE;
        const word4 codes = *(const word4 *)(const void *)(from + i * 16);
        const uint8_t *d = from + kv_scale_at(a.type_k, a.head_dim, pos, half / 2);
        store_codes(k + 2 * half * PIECE + pos * 16, PIECE, codes, half_to_float(*(const uint16_t *)(const void *)d));
    }
}

/* Positions begin … end − 1 of the page; others, which nobody may multiply with, are zero. */
DEVICE void copy_values(uint8_t *v, const struct attend_args &a, int kv_head, int64_t number, int begin, int end)
{
    const uint8_t *from = a.v_pages + (number * a.n_kv_heads + kv_head) * a.v_head_bytes;
    const int stride = value_stride(a.head_dim);
    if (a.type_v == QTYPE_F16) {
        const int pieces = a.head_dim / 8;
        for (int i = (int)threadIdx.x; i < KV_PAGE * pieces; i += THREADS) {
            const int pos = i / pieces;
            copy_async(v + pos * stride + i % pieces * 16, from + i * 16, pos >= begin && pos < end);
        }
        return;
    }
    const int pieces = a.head_dim / 16;
    for (int i = (int)threadIdx.x; i < KV_PAGE * pieces; i += THREADS) {
        const int pos = i / pieces;
        word4 codes = {{0, 0, 0, 0}};
        float d = 0;
        if (pos >= begin && pos < end) {
            codes = *(const word4 *)(const void *)(from + i * 16);
            d = half_to_float(
                *(const uint16_t *)(const void *)(from + kv_scale_at(a.type_v, a.head_dim, pos, i % pieces / 2)));
        }
        store_codes(v + pos * stride + i % pieces * 32, 16, codes, d);
    }
}

/* What a lane has of its warp: rows lane / 4 and lane / 4 + 8, and of each two columns in every 8. Positions are
 * counted from the run's first page on. */
template <int D> struct row_pair {
    int begin[2], end[2];
    float max[2], sum[2]; /* sum: of this lane's columns */
    float o[D / 8][4];
};

/* Of 16 queries and the page's keys. */
template <int D> DEVICE void make_scores(float s[FRAGMENTS][4], const uint8_t *q, const uint8_t *k, int head_dim)
{
    const int lane = (int)threadIdx.x % WARP;
    const uint8_t *row = k + lane / 8 % 2 * (16 * KV_PAGE) + (lane / 16 * 8 + lane % 8) * 16;
#pragma unroll
    for (int i = 0; i < FRAGMENTS * 4; i++)
        s[i / 4][i % 4] = 0;
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        if (16 * j >= head_dim)
            continue;
        uint32_t x[4];
        load_matrices(x, q + j * 512);
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i += 2) {
            uint32_t y[4];
            load_matrix_rows(y, row + 2 * j * (16 * KV_PAGE) + i * 128);
            mma_half(s[i], x, y);
            mma_half(s[i + 1], x, y + 2);
        }
    }
}

/* Scores become probabilities, relative to the largest score so far, and what was there before is scaled. */
template <int D>
DEVICE void soften(struct row_pair<D> &rows, float s[FRAGMENTS][4], int from, bool masked, float softcap, int head_dim)
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float max = rows.max[r], sum = 0;
#pragma unroll
        for (int i = 0; i < 2 * FRAGMENTS; i++) {
            float &x = s[i / 2][2 * r + i % 2];
            if (softcap != 0)
                x = mathf_softcap(x, softcap) * EXP_LOG2E;
            const int pos = from + i / 2 * 8 + lane % 4 * 2 + i % 2;
            if (masked && (pos < rows.begin[r] || pos >= rows.end[r]))
                x = -INFINITY;
            max = x > max ? x : max;
        }
        for (int step = 1; step < 4; step *= 2) {
            const float other = shuffle_xor(0xffffffff, max, step);
            max = other > max ? other : max;
        }
        const float base = max == -INFINITY ? 0 : max, factor = fast_exp2(rows.max[r] - base);
#pragma unroll
        for (int i = 0; i < 2 * FRAGMENTS; i++) {
            float &x = s[i / 2][2 * r + i % 2];
            x = fast_exp2(x - base);
            sum += x;
        }
        rows.sum[r] = fmaf(rows.sum[r], factor, sum);
        rows.max[r] = max;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            if (8 * n < head_dim) {
                rows.o[n][2 * r] *= factor;
                rows.o[n][2 * r + 1] *= factor;
            }
    }
}

template <int D>
DEVICE void add_values(struct row_pair<D> &rows, const float p[FRAGMENTS][4], const uint8_t *v, int head_dim)
{
    const int lane = (int)threadIdx.x % WARP, stride = value_stride(head_dim);
    const uint8_t *row = v + lane % 16 * stride + lane / 16 * 16;
#pragma unroll
    for (int k = 0; k < FRAGMENTS / 2; k++) {
        const uint32_t x[4] = {half_pair(p[2 * k][0], p[2 * k][1]), half_pair(p[2 * k][2], p[2 * k][3]),
                               half_pair(p[2 * k + 1][0], p[2 * k + 1][1]), half_pair(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            if (8 * n >= head_dim)
                continue;
            uint32_t y[4];
            load_matrix_columns(y, row + 16 * k * stride + n * 16);
            mma_half(rows.o[n], x, y);
            mma_half(rows.o[n + 1], x, y + 2);
        }
    }
}

/* The two rows' places in the run, and what they see; rows past its end see nothing. */
template <int D> DEVICE void begin_rows(struct row_pair<D> &rows, const struct attend_args &a, int row0, int n, int64_t base)
{
    const int first = (int)threadIdx.x / WARP * WARP_ROWS + (int)threadIdx.x % WARP / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int at = first + 8 * r;
        const struct device_slot s = a.slot[(row0 + (at < n ? at : 0)) / a.group];
        rows.begin[r] = at < n && s.begin < s.end ? (int)(s.begin - base) : 0;
        rows.end[r] = at < n && s.begin < s.end ? (int)(s.end - base) : 0;
        rows.max[r] = -INFINITY;
        rows.sum[r] = 0;
    }
#pragma unroll
    for (int i = 0; i < D / 2; i++)
        rows.o[i / 4][i % 4] = 0;
}

template <int D>
DEVICE void store_rows(const struct row_pair<D> &rows, const struct attend_args &a, int kv_head, int row0, int n)
{
    const int lane = (int)threadIdx.x % WARP, first = (int)threadIdx.x / WARP * WARP_ROWS + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int at = first + 8 * r;
        float sum = rows.sum[r];
        sum += shuffle_xor(0xffffffff, sum, 1);
        sum += shuffle_xor(0xffffffff, sum, 2);
        if (at >= n)
            continue;
        const float inv = rows.begin[r] < rows.end[r] ? 1 / sum : 0;
        float *out = a.out + row_at(a, kv_head, row0 + at) + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            if (8 * i < a.head_dim)
                *(word2 *)(void *)(out + 8 * i) = {{float_bits(rows.o[i][2 * r] * inv), float_bits(rows.o[i][2 * r + 1] * inv)}};
    }
}

/* The first and one past the last of positions that any of a warp's rows sees, and that all see. */
struct seen {
    int any_begin, any_end, all_begin, all_end;
};

template <int D> DEVICE struct seen seen_by_warp(const struct row_pair<D> &rows)
{
    struct seen s = {INT32_MAX, 0, 0, INT32_MAX};
    for (int r = 0; r < 2; r++) {
        const int begin = rows.begin[r], end = rows.end[r];
        s.any_begin = begin < end && begin < s.any_begin ? begin : s.any_begin;
        s.any_end = end > s.any_end ? end : s.any_end;
        s.all_begin = begin > s.all_begin ? begin : s.all_begin;
        s.all_end = end < s.all_end ? end : s.all_end;
    }
    for (int step = 4; step < WARP; step *= 2) {
        int x = shuffle_xor(0xffffffff, s.any_begin, step);
        s.any_begin = x < s.any_begin ? x : s.any_begin;
        x = shuffle_xor(0xffffffff, s.any_end, step);
        s.any_end = x > s.any_end ? x : s.any_end;
        x = shuffle_xor(0xffffffff, s.all_begin, step);
        s.all_begin = x > s.all_begin ? x : s.all_begin;
        x = shuffle_xor(0xffffffff, s.all_end, step);
        s.all_end = x < s.all_end ? x : s.all_end;
    }
    return s;
}

/* D: at least head_dim. */
template <int D> __global__ void __launch_bounds__(THREADS, D <= 128 ? 3 : 2) attend_half(struct attend_args a)
{
    begin_kernel();
    SHARED_MEMORY(memory);
    const struct half_memory mem = {memory, memory + 2 * ROWS * a.head_dim,
                                    memory + 2 * (ROWS + KV_PAGE) * a.head_dim};
    const int n_rows = a.n_tokens * a.group, kv_head = (int)blockIdx.y;
    const float scale = a.softcap != 0 ? a.scale : a.scale * EXP_LOG2E;
    const uint8_t *q = mem.q + (int)threadIdx.x / WARP * (2 * WARP_ROWS * a.head_dim);
    /* later rows of a prompt see more, so they come first */
    const int first_row = (int)(gridDim.x - 1 - blockIdx.x) * ROWS;
    const int end = first_row + ROWS < n_rows ? first_row + ROWS : n_rows;
    for (int row = first_row, n; row < end; row += n) {
        int64_t least, most;
        struct row_pair<D> rows;
        n = run_at(a, row, end, &least, &most);
        const int64_t first_page = least / KV_PAGE;
        const int n_seen = most > 0 ? (int)(most - first_page * KV_PAGE) : 0, skip = (int)(least % KV_PAGE);
        const int32_t *pages = a.slot[row / a.group].pages + (n_seen ? first_page : 0);
        begin_rows(rows, a, row, n, first_page * KV_PAGE);
        const struct seen seen = seen_by_warp(rows);
        sync_block(); /* the last run is done */
        load_rows(mem.q, a, kv_head, row, n, scale);
        if (n_seen)
            copy_keys(mem.k, a, kv_head, *pages);
        copy_group();
        for (int from = 0; from < n_seen; from += KV_PAGE, pages++) {
            const bool sees = seen.any_begin < from + KV_PAGE && seen.any_end > from;
            float s[FRAGMENTS][4];
            sync_block(); /* the last page's values are read */
            copy_values(mem.v, a, kv_head, *pages, from ? 0 : skip, n_seen - from);
            copy_group();
            copy_wait<1>();
            sync_block(); /* the keys are there */
            if (sees)
                make_scores<D>(s, q, mem.k, a.head_dim);
            sync_block();
            if (from + KV_PAGE < n_seen)
                copy_keys(mem.k, a, kv_head, pages[1]);
            copy_group();
            if (sees)
                soften<D>(rows, s, from, seen.all_begin > from || seen.all_end < from + KV_PAGE, a.softcap, a.head_dim);
            copy_wait<1>();
            sync_block(); /* the values are there */
            if (sees)
                add_values<D>(rows, s, mem.v, a.head_dim);
        }
        copy_wait<0>();
        store_rows<D>(rows, a, kv_head, row, n);
    }
}

static bool is_half_or_bytes(int type)
{
    return type == QTYPE_F16 || type == QTYPE_Q8_0;
}

bool cuda_attention_half(const struct attend_args *a, const struct attention_args *args)
{
    int n_runs = 1;
    for (int i = 1; i < args->n_tokens; i++)
        n_runs += args->slot[i].pages != args->slot[i - 1].pages;
    if (args->n_tokens <= FEW_TOKENS * n_runs || !is_half_or_bytes(a->type_k) || !is_half_or_bytes(a->type_v) ||
        a->head_dim % 16 || a->head_dim > 256)
        return false;
    const dim3 grid(blocks_for((int64_t)a->n_tokens * a->group, ROWS), (unsigned)a->n_kv_heads);
    const size_t shared = memory_bytes(a->head_dim);
    if (a->head_dim <= 64)
        launch(attend_half<64>, grid, THREADS, shared, *a);
    else if (a->head_dim <= 128)
        launch(attend_half<128>, grid, THREADS, shared, *a);
    else
        launch(attend_half<256>, grid, THREADS, shared, *a);
    return true;
}

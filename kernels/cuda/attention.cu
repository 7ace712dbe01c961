/* Attention over the paged KV cache, in the numerics contract's order (rule 4): blocks of 64 positions, each with
 * a maximum, a sum and an output of its own, merged in the order of their positions.
 *
 * As on the CPU (kernels/attention.c), the queries that read one KV head are rows: row i of a batch is token
 * i / group, head i % group of the KV head's group. A block of threads takes up to R rows and one KV head,
 *
 *     whole    through all pages of their sequence, merging as it goes: prompts;
 *     split    through one page, whose results are put into scratch, and a second kernel merges: few tokens.
 *
 * A thread has one position's score of several rows, then one channel's output of all rows, so that every
 * sum runs in one thread and keys and values are read once for all heads of the group. Without --exact prompts
 * are attention_half.cu's. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/rows.cuh"

enum {
    THREADS = 128,
    HALF_WARPS = THREADS / 16, /* one has a row's softmax */
    ROWS_MAX = HALF_WARPS,
    MERGE_THREADS = 128,
};

/* Shared memory of a block of threads. */
struct attend_memory {
    float *q, *s, *o; /* (R, head_dim) floats or blocks of activations; (R, 64); (R, head_dim) */
    float *m, *l, *old_factor, *new_factor;
    int *begin, *end; /* of each row within the page */
};

static size_t memory_floats(int rows, int head_dim)
{
    return (size_t)rows * (size_t)(2 * ((head_dim + 3) / 4 * 4) + KV_PAGE + 8);
}

DEVICE struct attend_memory attend_memory_at(uint8_t *p, int rows, int head_dim)
{
    const int width = (head_dim + 3) / 4 * 4;
    struct attend_memory m;
    m.q = (float *)(void *)p;
    m.s = m.q + rows * width;
    m.o = m.s + rows * KV_PAGE;
    m.m = m.o + rows * width;
    m.l = m.m + rows;
    m.old_factor = m.l + rows;
    m.new_factor = m.old_factor + rows;
    m.begin = (int *)(void *)(m.new_factor + rows);
    m.end = m.begin + rows;
    return m;
}

/* Queries of n rows, as floats or quantised. */
DEVICE void load_queries(const struct attend_memory &mem, const struct attend_args &a, int kv_head, int row0, int n)
{
    const int width = (a.head_dim + 3) / 4 * 4;
    if (a.type_k == QTYPE_F32 || a.type_k == QTYPE_F16) {
        for (int i = (int)threadIdx.x; i < n * width; i += THREADS) {
            const int r = i / width, c = i % width;
            mem.q[i] = c < a.head_dim ? a.q[row_at(a, kv_head, row0 + r) + c] : 0;
        }
        return;
    }
    const int n_blocks = a.head_dim / ACT_LEN, each = THREADS / ACT_LANES, lane = (int)threadIdx.x % ACT_LANES;
    struct act_block *to = (struct act_block *)(void *)mem.q;
    for (int base = 0; base < n * n_blocks; base += each) {
        const int i = base + (int)threadIdx.x / ACT_LANES;
        float x[4] = {0, 0, 0, 0};
        if (i < n * n_blocks)
            for (int k = 0; k < 4; k++)
                x[k] = a.q[row_at(a, kv_head, row0 + i / n_blocks) + i % n_blocks * ACT_LEN + 4 * lane + k];
        quantise_block(i < n * n_blocks ? to + i : NULL, x, lane);
    }
}

/* ---- Scores ------------------------------------------------------------------------------------------- */

/* Rows parity, parity + 2 …: a thread has half of them. */
template <int R> DEVICE void scores_of_floats(const struct attend_memory &mem, const struct attend_args &a,
                                              const uint8_t *keys, int i, int first)
{
    constexpr int N = (R + 1) / 2;
    const int width = (a.head_dim + 3) / 4 * 4, bytes = a.type_k == QTYPE_F32 ? 4 : 2;
    const int whole = a.head_dim / 8 * 8;
    float s[N];
    for (int n = 0; n < N; n++)
        s[n] = 0;
    for (int c = 0; c < whole; c += 8) {
        float k[8];
        if (bytes == 2) {
            const word4 v = *(const word4 *)(const void *)(keys + c * KV_PAGE * 2 + i * 16);
#pragma unroll
            for (int e = 0; e < 8; e++)
                k[e] = half_to_float((uint16_t)(v.v[e / 2] >> e % 2 * 16));
        } else {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float4_ v = *(const float4_ *)(const void *)(keys + (c + 4 * h) * KV_PAGE * 4 + i * 16);
                for (int e = 0; e < 4; e++)
                    k[4 * h + e] = v.v[e];
            }
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (first + 2 * n >= R)
                continue;
            const float4_ *q = (const float4_ *)(const void *)(mem.q + (first + 2 * n) * width + c);
            const float4_ q0 = q[0], q1 = q[1];
#pragma unroll
            for (int e = 0; e < 8; e++)
                s[n] = fmaf(e < 4 ? q0.v[e % 4] : q1.v[e % 4], k[e], s[n]);
        }
    }
    for (int c = whole; c < a.head_dim; c++) {
        const uint8_t *p = keys + kv_key_at(a.head_dim, bytes, i, c);
        const float k = bytes == 4 ? *(const float *)(const void *)p : half_to_float(*(const uint16_t *)(const void *)p);
        for (int n = 0; n < N; n++)
            if (first + 2 * n < R)
                s[n] = fmaf(mem.q[(first + 2 * n) * width + c], k, s[n]);
    }
    for (int n = 0; n < N; n++)
        if (first + 2 * n < R)
            mem.s[(first + 2 * n) * KV_PAGE + i] = s[n];
}

template <int R> DEVICE void scores_of_quants(const struct attend_memory &mem, const struct attend_args &a,
                                              const uint8_t *keys, int i, int first)
{
    constexpr int N = (R + 1) / 2;
    const int n_blocks = a.head_dim / ACT_LEN;
    const struct act_block *q8 = (const struct act_block *)(const void *)mem.q;
    float s[N];
    for (int n = 0; n < N; n++)
        s[n] = 0;
    for (int b = 0; b < n_blocks; b++) {
        uint32_t k[GROUPS];
        if (a.type_k == QTYPE_Q8_0) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const word4 v = *(const word4 *)(const void *)(keys + ((2 * b + h) * KV_PAGE + i) * 16);
                for (int e = 0; e < 4; e++)
                    k[4 * h + e] = v.v[e];
            }
        } else {
            const word4 v = *(const word4 *)(const void *)(keys + (b * KV_PAGE + i) * 16);
            for (int e = 0; e < 4; e++) { /* less 8, which no byte borrows for: 8 … 23 − 8 … */
                k[e] = (((v.v[e] & 0x0f0f0f0f) | 0x80808080) - 0x08080808) ^ 0x80808080;
                k[4 + e] = (((v.v[e] >> 4 & 0x0f0f0f0f) | 0x80808080) - 0x08080808) ^ 0x80808080;
            }
        }
        const float d = half_to_float(*(const uint16_t *)(const void *)(keys + kv_scale_at(a.type_k, a.head_dim, i, b)));
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (first + 2 * n >= R)
                continue;
            const struct act_block *q = &q8[(first + 2 * n) * n_blocks + b];
            const word4 *bytes = (const word4 *)(const void *)q->q;
            const word4 q0 = bytes[0], q1 = bytes[1];
            int sum = 0;
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
                sum = dot4(k[g], g < 4 ? q0.v[g % 4] : q1.v[g % 4], sum);
            s[n] = fmaf((float)sum, d * q->d, s[n]);
        }
    }
    for (int n = 0; n < N; n++)
        if (first + 2 * n < R)
            mem.s[(first + 2 * n) * KV_PAGE + i] = s[n];
}

/* ---- Softmax ------------------------------------------------------------------------------------------ */

/* Half a warp has a row, a lane its positions j, j + 16, j + 32, j + 48. merge: the row has seen a page before. */
DEVICE void softmax_row(const struct attend_memory &mem, const struct attend_args &a, int r, bool active, bool merge)
{
    const int j = (int)threadIdx.x % 16;
    const int begin = active ? mem.begin[r] : KV_PAGE, end = active ? mem.end[r] : 0;
    float s[4], m = -INFINITY, l = 0;
    for (int t = 0; t < 4; t++) {
        const int i = j + 16 * t;
        s[t] = 0;
        if (i >= begin && i < end) {
            s[t] = mem.s[r * KV_PAGE + i] * a.scale;
            s[t] = a.softcap != 0 ? mathf_softcap(s[t], a.softcap) : s[t];
            m = s[t] > m ? s[t] : m;
        }
    }
    for (int step = 8; step > 0; step /= 2) {
        const float other = shuffle_xor(0xffffffff, m, step);
        m = other > m ? other : m;
    }
    for (int t = 0; t < 4; t++) {
        const int i = j + 16 * t;
        s[t] = i >= begin && i < end ? mathf_exp(s[t] - m) : 0;
        l += s[t];
    }
    for (int step = 8; step > 0; step /= 2)
        l += shuffle_xor(0xffffffff, l, step);
    if (!active || begin >= end)
        return;
    for (int t = 0; t < 4; t++)
        mem.s[r * KV_PAGE + j + 16 * t] = s[t];
    if (j > 0)
        return;
    if (merge) {
        const float before = mem.m[r], max = m > before ? m : before;
        mem.old_factor[r] = mathf_exp(before - max);
        mem.new_factor[r] = mathf_exp(m - max);
        l = fmaf(mem.l[r], mem.old_factor[r], l * mem.new_factor[r]);
        m = max;
    }
    mem.m[r] = m;
    mem.l[r] = l;
}

/* ---- Values ------------------------------------------------------------------------------------------- */

DEVICE float value_at(const uint8_t *values, int type, int row_bytes, int i, int c)
{
    const uint8_t *row = values + i * row_bytes;
    if (type == QTYPE_F16)
        return half_to_float(((const uint16_t *)(const void *)row)[c]);
    if (type == QTYPE_F32)
        return ((const float *)(const void *)row)[c];
    if (type == QTYPE_Q8_0)
        return (float)(int8_t)row[c];
    const int pair = row[c / 32 * 16 + c % 16];
    return (float)((c % 32 < 16 ? pair & 15 : pair >> 4) - 8);
}

/* Channel c of all rows: o_b[r] = Σ p v over what the row sees, in the order of positions. */
template <int R> DEVICE void values_of_channel(float o[R], const struct attend_memory &mem, const struct attend_args &a,
                                               const uint8_t *values, int c, int begin, int end)
{
    const int row_bytes = kv_row_bytes(a.type_v, a.head_dim);
    const bool quantised = a.type_v == QTYPE_Q8_0 || a.type_v == QTYPE_Q4_0;
    const uint16_t *d =
        (const uint16_t *)(const void *)(values + kv_scale_at(a.type_v, a.head_dim, 0, quantised ? c / ACT_LEN : 0));
    for (int r = 0; r < R; r++)
        o[r] = 0;
#pragma unroll 8
    for (int i = begin; i < end; i++) {
        const float v = value_at(values, a.type_v, row_bytes, i, c), scale = quantised ? half_to_float(d[i]) : 1;
#pragma unroll
        for (int r = 0; r < R; r++) {
            float p = mem.s[r * KV_PAGE + i];
            p = quantised ? p * scale : p;
            o[r] = i >= mem.begin[r] && i < mem.end[r] ? fmaf(p, v, o[r]) : o[r];
        }
    }
}

/* ---- One page ----------------------------------------------------------------------------------------- */

/* Scores, softmax and outputs of n ≤ R rows of one sequence; merge[r] false: (o, m, l) become the page's. */
template <int R> DEVICE void attend_page(const struct attend_memory &mem, const struct attend_args &a, int kv_head,
                                         int row0, int n, int64_t page, int64_t number)
{
    const int tid = (int)threadIdx.x, width = (a.head_dim + 3) / 4 * 4;
    const uint8_t *keys = a.k_pages + (number * a.n_kv_heads + kv_head) * a.k_head_bytes;
    const uint8_t *values = a.v_pages + (number * a.n_kv_heads + kv_head) * a.v_head_bytes;
    sync_block(); /* the last page's results are read */
    if (tid < R) {
        const struct device_slot s = a.slot[(row0 + (tid < n ? tid : 0)) / a.group];
        const int64_t b = s.begin - page * KV_PAGE, e = s.end - page * KV_PAGE;
        const bool any = tid < n && page >= first_page(s) && page < end_page(s);
        mem.begin[tid] = !any ? KV_PAGE : b < 0 ? 0 : (int)b;
        mem.end[tid] = !any ? 0 : e > KV_PAGE ? (int)KV_PAGE : (int)e;
    }
    sync_block();
    int begin = KV_PAGE, end = 0;
    for (int r = 0; r < R; r++) {
        begin = mem.begin[r] < begin ? mem.begin[r] : begin;
        end = mem.end[r] > end ? mem.end[r] : end;
    }
    const int i = tid % KV_PAGE, first = tid / KV_PAGE;
    if (i >= begin && i < end && first < R) {
        if (a.type_k == QTYPE_F32 || a.type_k == QTYPE_F16)
            scores_of_floats<R>(mem, a, keys, i, first);
        else
            scores_of_quants<R>(mem, a, keys, i, first);
    }
    sync_block();
    const int r = tid / 16;
    const struct device_slot s = a.slot[(row0 + (r < n ? r : 0)) / a.group];
    softmax_row(mem, a, r < R ? r : 0, r < n, !a.part_o && page != first_page(s));
    sync_block();
    for (int c = tid; c < a.head_dim; c += THREADS) {
        float o[R];
        values_of_channel<R>(o, mem, a, values, c, begin, end);
#pragma unroll
        for (int k = 0; k < R; k++) {
            if (k >= n || mem.begin[k] >= mem.end[k])
                continue;
            float *to = &mem.o[k * width + c];
            const bool merge = page != first_page(a.slot[(row0 + k) / a.group]);
            *to = merge && !a.part_o ? fmaf(*to, mem.old_factor[k], o[k] * mem.new_factor[k]) : o[k];
        }
    }
}

template <int R> __global__ void __launch_bounds__(THREADS, 4) attend_whole(struct attend_args a)
{
    begin_kernel();
    SHARED_MEMORY(memory);
    const struct attend_memory mem = attend_memory_at(memory, R, a.head_dim);
    const int n_rows = a.n_tokens * a.group, kv_head = (int)blockIdx.y, width = (a.head_dim + 3) / 4 * 4;
    /* later rows of a prompt see more, so they come first */
    const int first_row = (int)(gridDim.x - 1 - blockIdx.x) * R, end = first_row + R < n_rows ? first_row + R : n_rows;
    for (int row = first_row, n; row < end; row += n) {
        int64_t least, most;
        n = run_at(a, row, end, &least, &most);
        const int64_t page_begin = least / KV_PAGE, page_end = (most + KV_PAGE - 1) / KV_PAGE;
        sync_block();
        load_queries(mem, a, kv_head, row, n);
        const int32_t *pages = a.slot[row / a.group].pages;
        for (int64_t page = page_begin; page < page_end; page++)
            attend_page<R>(mem, a, kv_head, row, n, page, pages[page]);
        sync_block();
        for (int i = (int)threadIdx.x; i < n * a.head_dim; i += THREADS) {
            const int r = i / a.head_dim, c = i % a.head_dim;
            const struct device_slot s = a.slot[(row + r) / a.group];
            a.out[row_at(a, kv_head, row + r) + c] = s.begin < s.end ? mem.o[r * width + c] / mem.l[r] : 0;
        }
    }
}

/* ---- Split -------------------------------------------------------------------------------------------- */

template <int R> __global__ void __launch_bounds__(THREADS, 4) attend_split(struct attend_args a)
{
    begin_kernel();
    SHARED_MEMORY(memory);
    const struct attend_memory mem = attend_memory_at(memory, R, a.head_dim);
    const int n_rows = a.n_tokens * a.group, kv_head = (int)blockIdx.z, width = (a.head_dim + 3) / 4 * 4;
    const int first_row = (int)blockIdx.y * R, end = first_row + R < n_rows ? first_row + R : n_rows;
    const int64_t page = blockIdx.x;
    for (int row = first_row, n; row < end; row += n) {
        int64_t least, most;
        n = run_at(a, row, end, &least, &most);
        const int64_t page_begin = least / KV_PAGE, page_end = (most + KV_PAGE - 1) / KV_PAGE;
        if (page < page_begin || page >= page_end)
            continue;
        sync_block();
        load_queries(mem, a, kv_head, row, n);
        attend_page<R>(mem, a, kv_head, row, n, page, a.slot[row / a.group].pages[page]);
        sync_block();
        for (int i = (int)threadIdx.x; i < n * a.head_dim; i += THREADS) {
            const int r = i / a.head_dim, c = i % a.head_dim;
            const int64_t at = ((int64_t)kv_head * n_rows + row + r) * a.n_pages + page;
            if (mem.begin[r] >= mem.end[r])
                continue;
            a.part_o[at * a.head_dim + c] = mem.o[r * width + c];
            if (c == 0) {
                a.part_m[at] = mem.m[r];
                a.part_l[at] = mem.l[r];
            }
        }
    }
}

/* One row: the running maximum over pages is the only thing that pages share, and a maximum has no order; with
 * it every page's two factors are known at once, and a channel's sum is one multiply-add per page. */
__global__ void __launch_bounds__(MERGE_THREADS) attend_merge(struct attend_args a)
{
    begin_kernel();
    __shared__ float max[2][MERGE_THREADS], old_factor[MERGE_THREADS], new_factor[MERGE_THREADS];
    const int n_rows = a.n_tokens * a.group, row = (int)blockIdx.x, kv_head = (int)blockIdx.y;
    const int tid = (int)threadIdx.x;
    const struct device_slot s = a.slot[row / a.group];
    const int64_t first = first_page(s), end = end_page(s), base = ((int64_t)kv_head * n_rows + row) * a.n_pages;
    float *out = a.out + row_at(a, kv_head, row);
    float o[KV_DIM_MAX / MERGE_THREADS] = {0}, l = 0, running = -INFINITY;
    for (int64_t page0 = first; page0 < end; page0 += MERGE_THREADS) {
        const int n = end - page0 < MERGE_THREADS ? (int)(end - page0) : (int)MERGE_THREADS;
        const float mine = tid < n ? a.part_m[base + page0 + tid] : -INFINITY;
        int from = 0;
        max[0][tid] = mine;
        sync_block();
        for (int step = 1; step < MERGE_THREADS; step *= 2, from ^= 1) {
            const float x = max[from][tid], y = tid >= step ? max[from][tid - step] : -INFINITY;
            max[from ^ 1][tid] = y > x ? y : x;
            sync_block();
        }
        const float before_in = tid > 0 ? max[from][tid - 1] : -INFINITY;
        const float before = before_in > running ? before_in : running;
        const float after = mine > before ? mine : before;
        old_factor[tid] = mathf_exp(before - after);
        new_factor[tid] = mathf_exp(mine - after);
        sync_block();
        const float last = max[from][n - 1];
        running = last > running ? last : running;
        for (int i = 0; i < n; i++) {
            const int64_t at = base + page0 + i;
            const bool fresh = page0 + i == first;
            const float f = old_factor[i], g = new_factor[i], l_b = a.part_l[at];
            l = fresh ? l_b : fmaf(l, f, l_b * g);
#pragma unroll
            for (int k = 0; k < KV_DIM_MAX / MERGE_THREADS; k++) {
                const int c = tid + k * MERGE_THREADS;
                if (c >= a.head_dim)
                    break;
                const float o_b = a.part_o[at * a.head_dim + c];
                o[k] = fresh ? o_b : fmaf(o[k], f, o_b * g);
            }
        }
        sync_block();
    }
#pragma unroll
    for (int k = 0; k < KV_DIM_MAX / MERGE_THREADS; k++) {
        const int c = tid + k * MERGE_THREADS;
        if (c < a.head_dim)
            out[c] = s.begin < s.end ? o[k] / l : 0;
    }
}

/* ---- The cut ------------------------------------------------------------------------------------------ */

size_t cuda_attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads)
{
    (void)n_tokens, (void)n_heads, (void)head_dim, (void)max_len, (void)n_threads;
    return 0; /* the backend's workspace: what is split depends on the lengths */
}

template <int R> static void attend(const struct attend_args &a, bool split, int64_t pages)
{
    const unsigned n_chunks = (unsigned)((a.n_tokens * a.group + R - 1) / R);
    const size_t shared = memory_floats(R, a.head_dim) * sizeof(float);
    if (split)
        launch(attend_split<R>, dim3((unsigned)pages, n_chunks, (unsigned)a.n_kv_heads), THREADS, shared, a);
    else
        launch(attend_whole<R>, dim3(n_chunks, (unsigned)a.n_kv_heads), THREADS, shared, a);
}

void cuda_attention(struct worker *w, const struct attention_args *args)
{
    enum { FEW_BLOCKS = 8 /* blocks of threads a multiprocessor wants */ };
    (void)w;
    const struct kv_layout *kv = args->kv;
    const int64_t max_split = (int64_t)256 << 20;
    struct attend_args a = {args->out,
                            args->q,
                            args->n_tokens,
                            args->n_heads,
                            kv->n_kv_heads,
                            args->n_heads / kv->n_kv_heads,
                            kv->head_dim,
                            0,
                            args->scale,
                            args->softcap,
                            cuda_slots(args->slot, args->n_tokens),
                            (const uint8_t *)args->k_pages,
                            (const uint8_t *)args->v_pages,
                            kv->k_head_bytes,
                            kv->v_head_bytes,
                            kv->type_k,
                            kv->type_v,
                            NULL,
                            NULL,
                            NULL,
                            0};
    int64_t pages = 1;
    for (int i = 0; i < args->n_tokens; i++) {
        const int64_t n = (args->slot[i].end + KV_PAGE - 1) / KV_PAGE;
        pages = n > pages ? n : pages;
    }
    pages = cuda_slice_pages > pages ? cuda_slice_pages : pages;
    if (!cuda.exact && cuda_attention_half(&a, args))
        return;
    /* Tokens of one sequence after another share pages; those of different sequences share nothing, so rows
     * beyond a token's own are of no use. */
    const bool same = args->n_tokens > 1 && args->slot[0].pages == args->slot[1].pages;
    const int64_t rows = (int64_t)args->n_tokens * a.group;
    int r = !same && a.group < ROWS_MAX ? a.group : ROWS_MAX;
    r = r > 4 ? 8 : r > 1 ? 4 : 1;
    const int64_t n_blocks = (rows + r - 1) / r * a.n_kv_heads, n_parts = rows * a.n_kv_heads * pages;
    const bool split = n_blocks < (int64_t)FEW_BLOCKS * cuda.n_sms && pages > 1 &&
                       n_parts * (a.head_dim + 2) * (int64_t)sizeof(float) <= max_split;
    if (split) {
        a.n_pages = pages;
        a.part_o = (float *)cuda_workspace((size_t)n_parts * (size_t)(a.head_dim + 2) * sizeof(float));
        if (!a.part_o)
            return;
        a.part_m = a.part_o + n_parts * a.head_dim;
        a.part_l = a.part_m + n_parts;
    }
    if (r == 8)
        attend<8>(a, split, pages);
    else if (r == 4)
        attend<4>(a, split, pages);
    else
        attend<1>(a, split, pages);
    if (split)
        launch(attend_merge, dim3((unsigned)rows, (unsigned)a.n_kv_heads), MERGE_THREADS, 0, a);
}

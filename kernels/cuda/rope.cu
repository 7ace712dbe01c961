/* Rotary position embedding, and the step that follows it, storing keys and values. */
#include "kernels/cuda/kv.cuh"

#include <stdlib.h>

/* ---- Tables ------------------------------------------------------------------------------------------- */

/* Cosines and sines of all positions up to the furthest one seen, computed by the host: the device's own
 * functions of double need not round the same way. One set of frequencies each. */
enum { MAX_TABLES = 4, FIRST_CAPACITY = 4096, EXTEND = 256 };

static struct table {
    double *inv_freq, scale;
    int n_freqs;
    int64_t filled, capacity; /* positions */
    float *rows;              /* on the device: (capacity, n_freqs, 2) */
} tables[MAX_TABLES];

static void table_free(struct table *t)
{
    free(t->inv_freq);
    (void)cudaFree(t->rows);
    *t = {};
}

void cuda_rope_release(void)
{
    for (int i = 0; i < MAX_TABLES; i++)
        table_free(&tables[i]);
}

static void fill(float *dst, const double *inv_freq, int n, double pos, double scale)
{
    for (int i = 0; i < n; i++) {
        const double angle = pos * inv_freq[i];
        dst[2 * i] = (float)(cos(angle) * scale);
        dst[2 * i + 1] = (float)(sin(angle) * scale);
    }
}

static size_t table_bytes(const struct table *t, int64_t n)
{
    return (size_t)n * (size_t)t->n_freqs * 2 * sizeof(float);
}

/* The table has rows for positions up to pos. */
static void extend(struct table *t, int64_t pos)
{
    if (pos < t->filled || cuda.error[0])
        return;
    if (pos >= t->capacity) {
        int64_t capacity = t->capacity ? t->capacity : (int64_t)FIRST_CAPACITY;
        while (capacity <= pos)
            capacity *= 2;
        void *rows = cuda_grow(t->rows, table_bytes(t, t->filled), table_bytes(t, capacity), "RoPE's table");
        if (!rows)
            return;
        t->rows = (float *)rows;
        t->capacity = capacity;
    }
    int64_t end = (pos / EXTEND + 1) * EXTEND;
    end = end < t->capacity ? end : t->capacity;
    float *made = (float *)malloc(table_bytes(t, end - t->filled));
    if (!made) {
        (void)cuda_check(cudaErrorMemoryAllocation, "RoPE's table");
        return;
    }
    for (int64_t p = t->filled; p < end; p++)
        fill(made + (p - t->filled) * 2 * t->n_freqs, t->inv_freq, t->n_freqs, (double)p, t->scale);
    (void)cuda_check(cudaMemcpyAsync(t->rows + t->filled * 2 * t->n_freqs, made, table_bytes(t, end - t->filled),
                                     cudaMemcpyHostToDevice, cuda.stream),
                     "RoPE's table");
    (void)cuda_check(cudaStreamSynchronize(cuda.stream), "RoPE's table");
    free(made);
    t->filled = end;
}

void cuda_rope_reach(int64_t pos)
{
    for (int i = 0; i < MAX_TABLES; i++)
        if (tables[i].inv_freq)
            extend(&tables[i], pos);
}

static struct table *find_table(const struct rope_table_args *a)
{
    static int next;
    for (int i = 0; i < MAX_TABLES; i++)
        if (tables[i].inv_freq && tables[i].n_freqs == a->n_freqs && tables[i].scale == a->scale &&
            memcmp(tables[i].inv_freq, a->inv_freq, (size_t)a->n_freqs * sizeof *a->inv_freq) == 0)
            return &tables[i];
    struct table *t = &tables[next];
    next = (next + 1) % MAX_TABLES;
    cuda_forget_graphs();
    table_free(t);
    t->inv_freq = (double *)malloc((size_t)a->n_freqs * sizeof *a->inv_freq);
    if (!t->inv_freq) {
        (void)cuda_check(cudaErrorMemoryAllocation, "RoPE's table");
        return NULL;
    }
    memcpy(t->inv_freq, a->inv_freq, (size_t)a->n_freqs * sizeof *a->inv_freq);
    t->n_freqs = a->n_freqs;
    t->scale = a->scale;
    return t;
}

__global__ void take_rows(float *dst, const float *table, const int64_t *pos, int64_t n, int width)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = table[pos[i / width] * width + i % width];
}

/* Positions of several sections, frequencies that differ from token to token: the slice's own table. */
static void upload_table(const struct rope_table_args *a)
{
    const size_t bytes = (size_t)a->n_tokens * (size_t)a->n_freqs * 2 * sizeof(float);
    float *made = (float *)malloc(bytes);
    if (!made) {
        (void)cuda_check(cudaErrorMemoryAllocation, "RoPE's table");
        return;
    }
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int f = 0; f < a->n_freqs; f++) {
            const int section = f * a->n_sections / a->n_freqs, row = a->freq_row ? a->freq_row[t] : 0;
            fill(made + (t * a->n_freqs + f) * 2, a->inv_freq + (int64_t)row * a->n_freqs + f, 1,
                 (double)a->pos[(int64_t)section * a->n_tokens + t], a->scale);
        }
    if (!cuda.error[0]) {
        (void)cuda_check(cudaMemcpyAsync(a->dst, made, bytes, cudaMemcpyHostToDevice, cuda.stream), "RoPE's table");
        (void)cuda_check(cudaStreamSynchronize(cuda.stream), "RoPE's table");
    }
    free(made);
}

void cuda_rope_table(struct worker *w, const struct rope_table_args *a)
{
    (void)w;
    enum { THREADS = 128 };
    if (a->n_sections > 1 || a->freq_row) {
        upload_table(a);
        return;
    }
    struct table *t = find_table(a);
    if (!t)
        return;
    for (int i = 0; i < a->n_tokens; i++)
        extend(t, a->pos[i]);
    const int64_t *pos = (const int64_t *)cuda_staged(a->pos, (size_t)a->n_tokens * sizeof *a->pos);
    const int64_t n = (int64_t)a->n_tokens * a->n_freqs * 2;
    launch(take_rows, dim3(blocks_for(n, THREADS)), THREADS, 0, a->dst, (const float *)t->rows, pos, n, 2 * a->n_freqs);
}

/* ---- Quantised keys and values ------------------------------------------------------------------------ */

/* quant/fit_search.h for one block of 32 without importance: a half warp's lanes are its 16 trials. All lanes of
 * the warp are here; x: shared memory. */
struct block_fit {
    float d;   /* a half float */
    int q[2];  /* lane's codes: elements lane and lane + 16 */
};

DEVICE float nearest_code(float v, float lo, float hi)
{
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    return v + 0x1.8p23f - 0x1.8p23f;
}

DEVICE float stored_half(float d, int exponent)
{
    const double v = ldexp((double)d, -exponent);
    return half_to_float(float_to_half((float)(v < -65504 ? -65504 : v > 65504 ? 65504 : v)));
}

struct trial {
    float d, inverse, error;
};

/* The 16 lanes' trials against the best so far. */
DEVICE void try_scales(struct trial *best, const float *x, double factor, float mean, float lo, float hi,
                       float inverse, int lane)
{
    float ee = 0, eq = 0, qq = 0;
    for (int i = 0; i < 32; i++) {
        const float xi = (float)((double)x[i] * factor);
        const float v = xi * inverse, q = nearest_code(v, lo, hi), e = v - q;
        const float w = sqrtf(mean + xi * xi), we = w * e;
        ee += we * e;
        eq += we * q;
        qq += w * q * q;
    }
    const float slope = qq > 0 ? eq / qq : 0;
    struct trial mine;
    mine.d = qq > 0 ? (1 + slope) / inverse : 0;
    mine.inverse = inverse;
    mine.error = (ee - slope * eq) / (inverse * inverse);
    struct trial first = mine;
    for (int i = 0; i < 16; i++) {
        const int from = (lane & ~15) + i;
        struct trial other;
        other.d = shuffle(0xffffffff, mine.d, from);
        other.inverse = shuffle(0xffffffff, mine.inverse, from);
        other.error = shuffle(0xffffffff, mine.error, from);
        if (i == 0 || other.error < first.error)
            first = other;
    }
    if (first.error < best->error)
        *best = first;
}

DEVICE struct block_fit fit_block(const float *x, int type, int lane)
{
    const int half_lane = lane % 16;
    float max = 0, extreme = 0;
    bool finite = true;
    for (int i = 0; i < 32; i++) {
        const float a = fabsf(x[i]);
        finite &= a <= 0x1.fffffep127f;
        max = a > max ? a : max;
    }
    int exponent = 0;
    if (max > 0) {
        (void)frexpf(max, &exponent);
        exponent = 1 - exponent;
    }
    const double factor = ldexp(1.0, exponent);
    const float lo = type == QTYPE_Q8_0 ? -127 : -8, hi = type == QTYPE_Q8_0 ? 127 : 7;
    float d;
    if (type == QTYPE_Q8_0) {
        d = (float)((double)max * factor) / 127;
    } else {
        const float steps[8] = {-1, -0.7f, -0.4f, -0.1f, 0, 0.3f, 0.6f, 1};
        float part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const float xi = (float)((double)x[i] * factor);
            extreme = fabsf(xi) > fabsf(extreme) ? xi : extreme;
            part[i % 8] += xi * xi;
        }
        const float squares =
            ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
        const float mean = max > 0 ? squares / 32 : 1;
        struct trial best = {0, 1, INFINITY};
        const bool none = fabsf(extreme) < 0x1p-60f;
        float step = 0;
        for (int i = 0; i < 8; i++)
            step = half_lane % 8 == i ? steps[i] : step;
        float inverse = half_lane < 8 ? (lo - step) / extreme : (hi + step) / extreme;
        try_scales(&best, x, factor, mean, lo, hi, inverse, lane);
        const float width = 1 / hi * 0.04f;
        struct trial finer = best;
        inverse = best.inverse * (1 + (float)(half_lane - 8) * width);
        try_scales(&finer, x, factor, mean, lo, hi, inverse, lane);
        best = best.d != 0 ? finer : best;
        d = none ? 0 : best.d;
    }
    struct block_fit fit = {NAN, {0, 0}};
    if (!finite)
        return fit;
    fit.d = stored_half(d, exponent);
    const float unit = (float)ldexp((double)fit.d, exponent), inverse = unit != 0 ? 1 / unit : 0;
    for (int i = 0; i < 2; i++)
        fit.q[i] = (int)nearest_code((float)((double)x[half_lane + 16 * i] * factor) * inverse, lo, hi);
    return fit;
}

/* ---- Rotation and the cache --------------------------------------------------------------------------- */

struct store_args {
    float *q, *k;
    const float *v, *table;
    int n_heads, n_kv_heads, head_dim, rotary_dim, n_sections, pairing;
    const struct device_slot *slot;
    uint8_t *k_pages, *v_pages;
    int type_k, type_v;
    int64_t k_head_bytes, v_head_bytes;
};

DEVICE void rotate(float *x, const float *table, const struct store_args &a)
{
    const int n_pairs = a.rotary_dim / 2 / a.n_sections;
    for (int i = (int)threadIdx.x; i < a.rotary_dim / 2; i += (int)blockDim.x) {
        const int section = i / n_pairs, p = i % n_pairs;
        float *s = x + section * 2 * n_pairs;
        const float *t = table + 2 * i;
        if (a.pairing == ROPE_ADJACENT)
            mathf_rotate(&s[2 * p], &s[2 * p + 1], t);
        else
            mathf_rotate(&s[p], &s[p + n_pairs], t);
    }
}

/* x, in shared memory, becomes position i of a head's keys or values. */
DEVICE void store_head(uint8_t *page, const float *x, int type, int head_dim, int i, bool is_key)
{
    const int bytes = type == QTYPE_F32 ? 4 : 2, row_bytes = kv_row_bytes(type, head_dim);
    if (type == QTYPE_F32 || type == QTYPE_F16) {
        for (int c = (int)threadIdx.x; c < head_dim; c += (int)blockDim.x) {
            uint8_t *to = page + (is_key ? kv_key_at(head_dim, bytes, i, c) : i * row_bytes + c * bytes);
            if (type == QTYPE_F32)
                *(float *)(void *)to = x[c];
            else
                *(uint16_t *)(void *)to = float_to_half(x[c]);
        }
        return;
    }
    const int lane = (int)threadIdx.x % WARP, half = (int)threadIdx.x / 16, n_halves = (int)blockDim.x / 16;
    for (int base = 0; base < head_dim / ACT_LEN; base += n_halves) {
        const int b = base + half < head_dim / ACT_LEN ? base + half : 0;
        const struct block_fit fit = fit_block(x + ACT_LEN * b, type, lane);
        if (base + half >= head_dim / ACT_LEN)
            continue;
        const int c = lane % 16;
        if (type == QTYPE_Q8_0)
            for (int h = 0; h < 2; h++)
                page[is_key ? ((2 * b + h) * KV_PAGE + i) * 16 + c : i * row_bytes + ACT_LEN * b + 16 * h + c] =
                    (uint8_t)fit.q[h];
        else
            page[is_key ? (b * KV_PAGE + i) * 16 + c : i * row_bytes + 16 * b + c] =
                (uint8_t)((fit.q[0] + 8) | (fit.q[1] + 8) << 4);
        if (c == 0)
            *(uint16_t *)(void *)(page + kv_scale_at(type, head_dim, i, b)) = float_to_half(fit.d);
    }
}

/* A block of threads takes one head of one token. */
__global__ void rotate_and_store(struct store_args a)
{
    begin_kernel();
    __shared__ float x[KV_DIM_MAX];
    const int64_t token = blockIdx.x;
    int head = (int)blockIdx.y;
    const float *table = a.table ? a.table + token * a.rotary_dim : NULL;
    if (head < a.n_heads) {
        if (a.pairing != ROPE_NONE)
            rotate(a.q + (token * a.n_heads + head) * a.head_dim, table, a);
        return;
    }
    head -= a.n_heads;
    const bool is_key = head < a.n_kv_heads;
    head = is_key ? head : head - a.n_kv_heads;
    const int64_t row = (token * a.n_kv_heads + head) * a.head_dim;
    const float *src = (is_key ? a.k : a.v) + row;
    for (int c = (int)threadIdx.x; c < a.head_dim; c += (int)blockDim.x)
        x[c] = src[c];
    sync_block();
    if (is_key && a.pairing != ROPE_NONE) {
        rotate(x, table, a);
        sync_block();
        for (int c = (int)threadIdx.x; c < a.head_dim; c += (int)blockDim.x)
            a.k[row + c] = x[c];
    }
    const struct device_slot slot = a.slot[token];
    const int64_t page = slot.pages[slot.pos / KV_PAGE];
    const int64_t head_bytes = is_key ? a.k_head_bytes : a.v_head_bytes;
    uint8_t *to = (is_key ? a.k_pages : a.v_pages) + (page * a.n_kv_heads + head) * head_bytes;
    store_head(to, x, is_key ? a.type_k : a.type_v, a.head_dim, (int)(slot.pos % KV_PAGE), is_key);
}

void cuda_rope_store(struct worker *w, const struct rope_store_args *a)
{
    (void)w;
    const struct kv_layout *kv = a->kv;
    const struct store_args s = {a->q,
                                 a->k,
                                 a->v,
                                 a->table,
                                 a->n_heads,
                                 kv->n_kv_heads,
                                 kv->head_dim,
                                 a->rotary_dim,
                                 a->n_sections,
                                 a->pairing,
                                 cuda_slots(a->slot, a->n_tokens),
                                 (uint8_t *)a->k_pages,
                                 (uint8_t *)a->v_pages,
                                 kv->type_k,
                                 kv->type_v,
                                 kv->k_head_bytes,
                                 kv->v_head_bytes};
    launch(rotate_and_store, dim3((unsigned)a->n_tokens, (unsigned)(a->n_heads + 2 * kv->n_kv_heads)), 64, 0, s);
}

/* The device: opened once, its memory, the slices of batches and their graphs, and the table of operators. */
#include "kernels/cuda/state.cuh"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct cuda_state cuda;
struct device_grids cuda_grids;
const struct qtype_info *cuda_types;

static const struct cuda_host *host;

bool cuda_check(cudaError_t e, const char *what)
{
    if (e != cudaSuccess && !cuda.error[0])
        (void)snprintf(cuda.error, sizeof cuda.error, "CUDA: %s: %s", what, cudaGetErrorString(e));
    return !cuda.error[0];
}

__attribute__((format(printf, 3, 4))) static const struct ops *refuse(char *err, size_t errlen, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err, errlen, fmt, ap);
    va_end(ap);
    return NULL;
}

/* ---- Memory ----------------------------------------------------------------------------------------- */

struct block {
    char *p;
    size_t bytes;
};

static struct {
    struct block *list;
    size_t n, capacity;
} blocks; /* what alloc has given */

static void *take(size_t bytes)
{
    void *p = NULL;
    if (cuda.error[0])
        return NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) == cudaSuccess)
        return p;
    (void)cudaGetLastError(); /* running out of memory is told by NULL, and is no reason to stop */
    return NULL;
}

static void *cuda_alloc(size_t bytes)
{
    if (blocks.n == blocks.capacity) {
        const size_t more = blocks.capacity ? 2 * blocks.capacity : 64;
        struct block *grown = (struct block *)realloc(blocks.list, more * sizeof *grown);
        if (!grown)
            return NULL;
        blocks.list = grown;
        blocks.capacity = more;
    }
    char *p = (char *)take(bytes);
    if (!p)
        return NULL;
    if (!cuda_check(cudaMemsetAsync(p, 0, bytes ? bytes : 1, cuda.stream), "clearing memory") ||
        !cuda_check(cudaStreamSynchronize(cuda.stream), "clearing memory")) {
        (void)cudaFree(p);
        return NULL;
    }
    blocks.list[blocks.n++] = (struct block){p, bytes};
    return p;
}

static void cuda_release(void *p, size_t bytes)
{
    (void)bytes;
    cuda_forget_graphs(); /* they may point there */
    (void)cudaStreamSynchronize(cuda.stream);
    for (size_t i = 0; i < blocks.n; i++)
        if (blocks.list[i].p == p) {
            blocks.list[i] = blocks.list[--blocks.n];
            break;
        }
    (void)cudaFree(p);
}

bool cuda_is_device(const void *p)
{
    for (size_t i = 0; i < blocks.n; i++)
        if ((const char *)p >= blocks.list[i].p && (const char *)p < blocks.list[i].p + blocks.list[i].bytes)
            return true;
    return false;
}

static void cuda_upload(void *dst, const void *src, size_t bytes)
{
    if (cuda.error[0])
        return;
    (void)cuda_check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, cuda.stream), "upload");
    (void)cuda_check(cudaStreamSynchronize(cuda.stream), "upload");
}

static void cuda_download(void *dst, const void *src, size_t bytes)
{
    if (!cuda.error[0]) {
        (void)cuda_check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, cuda.stream), "download");
        (void)cuda_check(cudaStreamSynchronize(cuda.stream), "download");
    }
    if (cuda.error[0])
        memset(dst, 0, bytes); /* nobody computes with what was there before */
}

void *cuda_grow(void *old, size_t bytes, size_t larger, const char *what)
{
    cuda_forget_graphs();
    void *p = take(larger);
    if (!p) {
        (void)cuda_check(cudaErrorMemoryAllocation, what);
        return NULL;
    }
    if (bytes)
        (void)cuda_check(cudaMemcpyAsync(p, old, bytes, cudaMemcpyDeviceToDevice, cuda.stream), what);
    (void)cuda_check(cudaStreamSynchronize(cuda.stream), what);
    (void)cudaFree(old);
    return p;
}

static struct block workspace;

void *cuda_workspace(size_t bytes)
{
    if (bytes > workspace.bytes) {
        cuda_forget_graphs();
        (void)cuda_check(cudaStreamSynchronize(cuda.stream), "workspace");
        (void)cudaFree(workspace.p);
        workspace.p = (char *)take(bytes);
        workspace.bytes = workspace.p ? bytes : 0;
        if (!workspace.p)
            (void)cuda_check(cudaErrorMemoryAllocation, "workspace");
    }
    return workspace.p;
}

/* ---- Packed weights ---------------------------------------------------------------------------------- */

/* Pinned buffers in which threads pack what the copy engine then fetches. */
enum { N_STAGES = 16 };
static const int64_t STAGE_BYTES = 4 << 20;

static struct stage {
    uint8_t *p;
    size_t bytes;
    cudaEvent_t done;
    bool busy;
} stages[N_STAGES];
static pthread_mutex_t stage_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stage_free = PTHREAD_COND_INITIALIZER;

static struct stage *stage_take(size_t bytes)
{
    struct stage *s = NULL;
    pthread_mutex_lock(&stage_lock);
    while (!s) {
        for (int i = 0; i < N_STAGES && !s; i++)
            if (!stages[i].busy)
                s = &stages[i];
        if (!s)
            pthread_cond_wait(&stage_free, &stage_lock);
    }
    s->busy = true;
    (void)cudaSetDevice(cuda.device); /* every thread has one of its own */
    if (!s->done)
        (void)cuda_check(cudaEventCreateWithFlags(&s->done, cudaEventDisableTiming), "an event");
    else
        (void)cuda_check(cudaEventSynchronize(s->done), "uploading weights");
    if (s->bytes < bytes && !cuda.error[0]) {
        (void)cudaFreeHost(s->p);
        s->p = NULL;
        s->bytes = 0;
        void *p = NULL;
        if (cuda_check(cudaMallocHost(&p, bytes), "pinned memory")) {
            s->p = (uint8_t *)p;
            s->bytes = bytes;
        }
    }
    pthread_mutex_unlock(&stage_lock);
    return s;
}

static void stage_give(struct stage *s)
{
    pthread_mutex_lock(&stage_lock);
    s->busy = false;
    pthread_cond_signal(&stage_free);
    pthread_mutex_unlock(&stage_lock);
}

static void release_stages(void)
{
    for (int i = 0; i < N_STAGES; i++) {
        (void)cudaFreeHost(stages[i].p);
        if (stages[i].done)
            (void)cudaEventDestroy(stages[i].done);
        stages[i] = {};
    }
}

static int64_t type_bytes(enum qtype t, int64_t n)
{
    return n / cuda_types[t].block_len * cuda_types[t].block_bytes;
}

static int cuda_packed_lend(struct packed *p, enum qtype type, int64_t rows, int64_t cols)
{
    *p = {};
    if (type >= QTYPE_N_MATRIX || rows < 1 || cols < 1 || cols % cuda_types[type].block_len)
        return -1;
    p->type = type;
    p->rows = rows;
    p->cols = cols;
    p->n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    p->tile_bytes = TILE_ROWS * type_bytes(type, cols);
    p->is_lent = true;
    return 0;
}

static int cuda_packed_alloc(struct packed *p, enum qtype type, int64_t rows, int64_t cols)
{
    if (cuda_packed_lend(p, type, rows, cols))
        return -1;
    p->is_lent = false;
    p->data = cuda_alloc(packed_bytes(p));
    return p->data ? 0 : -1;
}

static void cuda_packed_release(struct packed *p)
{
    if (!p->is_lent && p->data)
        cuda_release(p->data, packed_bytes(p));
    *p = {};
}

/* Whether any of n BF16 weights is beyond the largest half float. */
static bool has_wide(const uint8_t *w, int64_t n)
{
    enum { TOO_LARGE = 0x4780 /* 65,536 */ };
    bool wide = false;
    for (int64_t i = 0; i < n; i++) {
        uint16_t bits; /* a file's tensors lie anywhere */
        memcpy(&bits, w + 2 * i, sizeof bits);
        wide |= (bits & 0x7fff) >= TOO_LARGE;
    }
    return wide;
}

/* Some tiles at a time, whole: rows past the last stay zero. */
static void cuda_pack(struct packed *p, int64_t row0, int64_t n_rows, const void *src)
{
    const int64_t row_bytes = type_bytes(p->type, p->cols);
    const int64_t at_once = p->tile_bytes < STAGE_BYTES ? STAGE_BYTES / p->tile_bytes : 1;
    if (p->type == QTYPE_BF16 && has_wide((const uint8_t *)src, n_rows * p->cols))
        __atomic_store_n(&cuda.has_wide_bfloats, true, __ATOMIC_RELAXED); /* other threads pack, too */
    for (int64_t row = row0; row < row0 + n_rows && !cuda.error[0]; row += at_once * TILE_ROWS) {
        const int64_t left = row0 + n_rows - row, rows = left < at_once * TILE_ROWS ? left : at_once * TILE_ROWS;
        const int64_t n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
        const size_t bytes = (size_t)(n_tiles * p->tile_bytes);
        struct stage *s = stage_take(bytes > (size_t)STAGE_BYTES ? bytes : (size_t)STAGE_BYTES);
        if (rows % TILE_ROWS && s->p)
            memset(s->p + (n_tiles - 1) * p->tile_bytes, 0, (size_t)p->tile_bytes);
        for (int64_t t = 0; t < n_tiles && s->p; t++) {
            const uint8_t *from = (const uint8_t *)src + (row - row0 + t * TILE_ROWS) * row_bytes;
            const int64_t rest = rows - t * TILE_ROWS;
            for (int64_t k = 0; k < p->cols; k += CHUNK_LEN)
                host->pack_chunk(s->p + t * p->tile_bytes + TILE_ROWS * type_bytes(p->type, k), p->type,
                                 from + type_bytes(p->type, k), row_bytes, (int)(rest < TILE_ROWS ? rest : (int64_t)TILE_ROWS),
                                 (int)(p->cols - k < CHUNK_LEN ? p->cols - k : (int64_t)CHUNK_LEN));
        }
        if (s->p) {
            pthread_mutex_lock(&stage_lock);
            char *to = (char *)p->data + row / TILE_ROWS * p->tile_bytes;
            if (cuda_check(cudaMemcpyAsync(to, s->p, bytes, cudaMemcpyHostToDevice, cuda.stream), "uploading weights"))
                (void)cuda_check(cudaEventRecord(s->done, cuda.stream), "uploading weights");
            pthread_mutex_unlock(&stage_lock);
        }
        stage_give(s);
    }
}

/* ---- What describes a slice -------------------------------------------------------------------------- */

/* Pinned memory and its copy on the device. begin fills the front and keeps what is where; operators that
 * are given something else put it behind. */
enum { MAX_STAGED = 8 };
static const size_t STAGING_MIN = 1 << 20, STAGING_ALIGN = 64;

static struct {
    char *pinned, *device;
    size_t bytes, used, kept;
    struct {
        const void *host;
        size_t bytes, at;
    } item[MAX_STAGED];
    int n;
} staging;

/* Room for so many bytes in all; what is there stays only when it is enough. */
static bool staging_reserve(size_t bytes)
{
    if (bytes <= staging.bytes)
        return true;
    cuda_forget_graphs();
    (void)cuda_check(cudaStreamSynchronize(cuda.stream), "staging");
    (void)cudaFreeHost(staging.pinned);
    (void)cudaFree(staging.device);
    staging = {};
    bytes = bytes < STAGING_MIN ? STAGING_MIN : bytes + bytes / 2;
    void *p = NULL;
    staging.device = (char *)take(bytes);
    if (!staging.device)
        return cuda_check(cudaErrorMemoryAllocation, "staging");
    if (!cuda_check(cudaMallocHost(&p, bytes), "pinned memory"))
        return false;
    staging.pinned = (char *)p;
    staging.bytes = bytes;
    return true;
}

/* The next bytes, in staging.pinned; copied by staging_send. */
static size_t staging_put(const void *src, size_t bytes)
{
    const size_t at = (staging.used + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    if (src)
        memcpy(staging.pinned + at, src, bytes);
    staging.used = at + bytes;
    return at;
}

static void staging_send(size_t from)
{
    if (staging.used > from)
        (void)cuda_check(cudaMemcpyAsync(staging.device + from, staging.pinned + from, staging.used - from,
                                         cudaMemcpyHostToDevice, cuda.stream),
                         "describing a slice");
}

/* Room behind what is kept. */
static bool staging_room(size_t bytes)
{
    bytes += 2 * STAGING_ALIGN;
    if (staging.used + bytes <= staging.bytes)
        return true;
    if (!cuda_check(cudaStreamSynchronize(cuda.stream), "staging"))
        return false;
    if (staging.kept + bytes <= staging.bytes) {
        staging.used = staging.kept;
        return true;
    }
    if (staging.kept) {
        (void)snprintf(cuda.error, sizeof cuda.error, "CUDA: a slice needs more than it announced");
        return false;
    }
    return staging_reserve(bytes);
}

const void *cuda_staged(const void *src, size_t bytes)
{
    for (int i = 0; i < staging.n; i++) {
        const char *begin = (const char *)staging.item[i].host;
        if ((const char *)src >= begin && (const char *)src + bytes <= begin + staging.item[i].bytes)
            return staging.device + staging.item[i].at + ((const char *)src - begin);
    }
    if (cuda.error[0] || !staging_room(bytes))
        return NULL;
    const size_t at = staging_put(src, bytes);
    staging_send(at);
    return staging.device + at;
}

static int64_t slot_pages(const struct kv_slot *s)
{
    const int64_t end = s->end > s->pos ? s->end : s->pos + 1;
    return (end + KV_PAGE - 1) / KV_PAGE;
}

/* Bytes that n slots take at most. */
static size_t slots_bytes(const struct kv_slot *slot, int n)
{
    size_t bytes = (size_t)n * sizeof(struct device_slot) + STAGING_ALIGN;
    for (int i = 0; i < n; i++)
        if (i == 0 || slot[i].pages != slot[i - 1].pages || slot_pages(&slot[i]) > slot_pages(&slot[i - 1]))
            bytes += (size_t)slot_pages(&slot[i]) * sizeof(int32_t) + STAGING_ALIGN;
    return bytes;
}

/* Neighbours with the same page table share its copy: of the longest of them. */
static void slots_put(size_t at, const struct kv_slot *slot, int n)
{
    struct device_slot *to = (struct device_slot *)(void *)(staging.pinned + at);
    for (int i = 0, same; i < n; i += same) {
        int64_t pages = 0;
        for (same = 0; i + same < n && slot[i + same].pages == slot[i].pages; same++)
            pages = slot_pages(&slot[i + same]) > pages ? slot_pages(&slot[i + same]) : pages;
        const size_t table = staging_put(slot[i].pages, (size_t)pages * sizeof(int32_t));
        for (int k = i; k < i + same; k++)
            to[k] = {(const int32_t *)(const void *)(staging.device + table), slot[k].pos, slot[k].begin,
                     slot[k].end};
    }
}

const struct device_slot *cuda_slots(const struct kv_slot *slot, int n)
{
    for (int i = 0; i < staging.n; i++)
        if (staging.item[i].host == slot && staging.item[i].bytes >= (size_t)n * sizeof *slot)
            return (const struct device_slot *)(void *)(staging.device + staging.item[i].at);
    if (cuda.error[0] || !staging_room(slots_bytes(slot, n) + STAGING_ALIGN))
        return NULL;
    const size_t at = staging_put(NULL, (size_t)n * sizeof(struct device_slot));
    slots_put(at, slot, n);
    staging_send(at);
    return (const struct device_slot *)(void *)(staging.device + at);
}

/* ---- Results that are delivered ----------------------------------------------------------------------- */

enum { MAX_DELIVERIES = 64 };

static struct {
    char *pinned;
    size_t bytes, used;
    struct {
        int64_t offset; /* of the place from slice_args.logits */
        size_t at, bytes;
    } item[MAX_DELIVERIES];
    int n;
    char *base; /* slice_args.logits of this slice */
} delivery;

static bool delivery_reserve(size_t bytes)
{
    if (bytes <= delivery.bytes)
        return true;
    cuda_forget_graphs();
    (void)cuda_check(cudaStreamSynchronize(cuda.stream), "results");
    (void)cudaFreeHost(delivery.pinned);
    delivery.pinned = NULL;
    delivery.bytes = 0;
    void *p = NULL;
    if (!cuda_check(cudaMallocHost(&p, bytes), "pinned memory"))
        return false;
    delivery.pinned = (char *)p;
    delivery.bytes = bytes;
    return true;
}

static void cuda_deliver(void *dst, const void *src, size_t bytes)
{
    if (cuda.error[0])
        return;
    if (!delivery.base || delivery.n == MAX_DELIVERIES || delivery.used + bytes > delivery.bytes) {
        cuda_download(dst, src, bytes);
        return;
    }
    delivery.item[delivery.n].offset = (char *)dst - delivery.base;
    delivery.item[delivery.n].at = delivery.used;
    delivery.item[delivery.n].bytes = bytes;
    delivery.n++;
    (void)cuda_check(cudaMemcpyAsync(delivery.pinned + delivery.used, src, bytes, cudaMemcpyDeviceToHost, cuda.stream),
                     "results");
    delivery.used += bytes;
}

/* ---- Slices and graphs --------------------------------------------------------------------------------- */

/* A slice of few tokens is the same launches every time but for what staging holds: they are recorded when
 * the second one like it comes, and replayed from then on. */
enum { MAX_GRAPHS = 16, GRAPH_TOKENS = 16 };

struct graph_key {
    const void *owner;
    int n, n_want;
    int64_t pages; /* attention's grid is made for sequences of so many */
    bool exact;
};

static struct graph {
    struct graph_key key;
    bool seen;
    cudaGraphExec_t exec; /* NULL: seen once */
    int n_deliveries;
    size_t delivery_at[MAX_DELIVERIES], delivery_bytes[MAX_DELIVERIES];
    int64_t delivery_offset[MAX_DELIVERIES];
} graphs[MAX_GRAPHS];
static int next_graph;
static struct graph *recording;
int64_t cuda_slice_pages;

void cuda_forget_graphs(void)
{
    for (int i = 0; i < MAX_GRAPHS; i++) {
        if (graphs[i].exec)
            (void)cudaGraphExecDestroy(graphs[i].exec);
        graphs[i] = {};
    }
}

static struct graph *find_graph(const struct graph_key *key)
{
    for (int i = 0; i < MAX_GRAPHS; i++) {
        const struct graph_key *k = &graphs[i].key;
        if (graphs[i].seen && k->owner == key->owner && k->n == key->n && k->n_want == key->n_want &&
            k->pages == key->pages && k->exact == key->exact)
            return &graphs[i];
    }
    struct graph *g = &graphs[next_graph];
    next_graph = (next_graph + 1) % MAX_GRAPHS;
    if (g->exec)
        (void)cudaGraphExecDestroy(g->exec);
    *g = {};
    g->key = *key;
    return g;
}

static void put_item(const void *src, size_t bytes)
{
    staging.item[staging.n].host = src;
    staging.item[staging.n].bytes = bytes;
    staging.item[staging.n].at = staging_put(src, bytes);
    staging.n++;
}

/* Everything that describes the slice, in one copy; the fixed part first, so that its place depends on the
 * numbers of tokens only. */
static bool announce(const struct slice_args *a)
{
    const size_t n = (size_t)a->n;
    size_t bytes = STAGING_MIN / 2 + n * (sizeof *a->id + sizeof *a->want + 2 * sizeof *a->pos);
    for (int i = 0; i < 2; i++)
        if (a->slot[i])
            bytes += slots_bytes(a->slot[i], a->n);
    staging.used = staging.kept = 0;
    staging.n = 0;
    if (!staging_reserve(bytes) || !delivery_reserve(a->logits_bytes))
        return false;
    delivery.n = 0;
    delivery.used = 0;
    delivery.base = (char *)a->logits;
    if (a->id)
        put_item(a->id, n * sizeof *a->id);
    if (a->pos)
        put_item(a->pos, n * sizeof *a->pos);
    size_t at[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        if (a->slot[i]) {
            at[i] = staging_put(NULL, n * sizeof(struct device_slot));
            staging.item[staging.n].host = a->slot[i];
            staging.item[staging.n].bytes = n * sizeof *a->slot[i];
            staging.item[staging.n].at = at[i];
            staging.n++;
        }
    if (a->want)
        put_item(a->want, (size_t)a->n_want * sizeof *a->want);
    for (int i = 0; i < 2; i++)
        if (a->slot[i])
            slots_put(at[i], a->slot[i], a->n);
    staging.kept = staging.used;
    for (int i = 0; a->pos && i < a->n; i++)
        cuda_rope_reach(a->pos[i]);
    staging_send(0);
    return !cuda.error[0];
}

/* Pages of the longest sequence, rounded up so that few graphs serve all lengths. */
static int64_t graph_pages(const struct slice_args *a)
{
    int64_t most = 1, pages = 4;
    for (int k = 0; k < 2; k++)
        for (int i = 0; a->slot[k] && i < a->n; i++)
            most = slot_pages(&a->slot[k][i]) > most ? slot_pages(&a->slot[k][i]) : most;
    while (pages < most)
        pages += pages / 2;
    return pages;
}

static bool cuda_begin(const struct slice_args *a)
{
    recording = NULL;
    cuda_slice_pages = 0;
    if (cuda.error[0] || !announce(a) || !a->repeats || a->n > GRAPH_TOKENS)
        return false;
    const struct graph_key key = {a->owner, a->n, a->n_want, graph_pages(a), cuda.exact};
    struct graph *g = find_graph(&key);
    cuda_slice_pages = key.pages;
    if (g->exec) {
        delivery.n = g->n_deliveries;
        for (int i = 0; i < g->n_deliveries; i++) {
            delivery.item[i].at = g->delivery_at[i];
            delivery.item[i].bytes = g->delivery_bytes[i];
            delivery.item[i].offset = g->delivery_offset[i];
        }
        return cuda_check(cudaGraphLaunch(g->exec, cuda.stream), "a graph's launch");
    }
    if (g->seen && cuda_check(cudaStreamBeginCapture(cuda.stream, cudaStreamCaptureModeThreadLocal), "a graph"))
        recording = g;
    g->seen = true;
    return false;
}

/* What was recorded becomes a graph, and runs. */
static void end_recording(void)
{
    struct graph *g = recording;
    cudaGraph_t graph = NULL;
    recording = NULL;
    const bool ended = cuda_check(cudaStreamEndCapture(cuda.stream, &graph), "a graph");
    if (ended && cuda_check(cudaGraphInstantiate(&g->exec, graph, 0), "a graph")) {
        g->n_deliveries = delivery.n;
        for (int i = 0; i < delivery.n; i++) {
            g->delivery_at[i] = delivery.item[i].at;
            g->delivery_bytes[i] = delivery.item[i].bytes;
            g->delivery_offset[i] = delivery.item[i].offset;
        }
        (void)cuda_check(cudaGraphLaunch(g->exec, cuda.stream), "a graph's launch");
    }
    if (graph)
        (void)cudaGraphDestroy(graph);
}

static int cuda_finish(char *err, size_t errlen)
{
    if (recording)
        end_recording();
    if (!cuda.error[0])
        (void)cuda_check(cudaGetLastError(), "a kernel");
    if (!cuda.error[0])
        (void)cuda_check(cudaStreamSynchronize(cuda.stream), "the forward pass");
    if (cuda.error[0]) {
        (void)snprintf(err, errlen, "%s", cuda.error);
    } else {
        for (int i = 0; i < delivery.n; i++)
            memcpy(delivery.base + delivery.item[i].offset, delivery.pinned + delivery.item[i].at,
                   delivery.item[i].bytes);
    }
    delivery.n = 0;
    delivery.base = NULL;
    staging.n = 0;
    staging.kept = staging.used = 0;
    cuda_slice_pages = 0;
    return cuda.error[0] ? -1 : 0;
}

/* ---- Opening -------------------------------------------------------------------------------------------- */

static const void *device_copy(const void *src, size_t bytes)
{
    void *p = cuda_alloc(bytes);
    if (p)
        cuda_upload(p, src, bytes);
    return p;
}

static bool upload_grids(void)
{
    cuda_grids.iq1 = (const uint64_t *)device_copy(host->iq1, 2048 * sizeof *host->iq1);
    cuda_grids.iq2_xxs = (const uint64_t *)device_copy(host->iq2_xxs, 256 * sizeof *host->iq2_xxs);
    cuda_grids.iq2_xs = (const uint64_t *)device_copy(host->iq2_xs, 512 * sizeof *host->iq2_xs);
    cuda_grids.iq2_s = (const uint64_t *)device_copy(host->iq2_s, 1024 * sizeof *host->iq2_s);
    cuda_grids.iq3_xxs = (const uint32_t *)device_copy(host->iq3_xxs, 256 * sizeof *host->iq3_xxs);
    cuda_grids.iq3_s = (const uint32_t *)device_copy(host->iq3_s, 512 * sizeof *host->iq3_s);
    return cuda_grids.iq1 && cuda_grids.iq2_xxs && cuda_grids.iq2_xs && cuda_grids.iq2_s && cuda_grids.iq3_xxs &&
           cuda_grids.iq3_s;
}

static void cuda_close(void)
{
    if (!cuda.is_open)
        return;
    cuda_forget_graphs();
    cuda_rope_release();
    release_stages();
    (void)cudaFreeHost(staging.pinned);
    (void)cudaFree(staging.device);
    (void)cudaFreeHost(delivery.pinned);
    (void)cudaFree(workspace.p);
    for (size_t i = 0; i < blocks.n; i++)
        (void)cudaFree(blocks.list[i].p);
    free(blocks.list);
    if (cuda.stream)
        (void)cudaStreamDestroy(cuda.stream);
    staging = {};
    delivery = {};
    workspace = {};
    blocks = {};
    cuda_grids = {};
    cuda = {};
}

static char device_name[256];

static const struct ops cuda_ops = [] {
    struct ops o = {};
    o.name = "cuda";
    o.device = device_name;
    o.packed_layout = 1;
    o.alloc = cuda_alloc;
    o.release = cuda_release;
    o.upload = cuda_upload;
    o.download = cuda_download;
    o.packed_alloc = cuda_packed_alloc;
    o.packed_release = cuda_packed_release;
    o.packed_lend = cuda_packed_lend;
    o.pack = cuda_pack;
    o.begin = cuda_begin;
    o.finish = cuda_finish;
    o.deliver = cuda_deliver;
    o.close = cuda_close;
    o.scratch_bytes = cuda_scratch_bytes;
    o.attention_scratch_bytes = cuda_attention_scratch_bytes;
    o.embed = cuda_embed;
    o.gather = cuda_gather;
    o.norm = cuda_norm;
    o.linear = cuda_linear;
    o.rope_table = cuda_rope_table;
    o.rope_store = cuda_rope_store;
    o.attention = cuda_attention;
    o.gate = cuda_gate;
    o.scale = cuda_scale;
    o.softcap = cuda_softcap;
    o.add = cuda_add;
    o.permute = cuda_permute;
    o.route = cuda_route;
    o.combine = cuda_combine;
    return o;
}();

enum { MIN_CAPABILITY = 80 };

extern "C" int quoll_cuda_version(void)
{
    return CUDA_PLUGIN_VERSION;
}

extern "C" int quoll_cuda_memory(int device, size_t *free_bytes, size_t *total_bytes, char *err, size_t errlen)
{
    cudaError_t e = cudaSetDevice(device);
    if (e == cudaSuccess)
        e = cudaMemGetInfo(free_bytes, total_bytes);
    if (e == cudaSuccess)
        return 0;
    (void)refuse(err, errlen, "CUDA: device %d: %s", device, cudaGetErrorString(e));
    return -1;
}

extern "C" const struct ops *quoll_cuda_open(const struct cuda_host *h, int device, bool exact, char *err,
                                             size_t errlen)
{
    const bool probing = device < 0;
    int n = 0, major = 0, minor = 0, compiled = 0;
    device = probing ? 0 : device;
    if (errlen)
        err[0] = 0;
    if (cuda.is_open && device != cuda.device)
        return refuse(err, errlen, "CUDA: device %d is open already", cuda.device);
    if (cuda.is_open) {
        cuda.exact = exact;
        return probing ? NULL : &cuda_ops;
    }
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver)
        return refuse(err, errlen, "CUDA: there is no NVIDIA driver here, or one too old for this build");
    if (e != cudaSuccess)
        return refuse(err, errlen, "CUDA: %s", cudaGetErrorString(e));
    if (n == 0)
        return refuse(err, errlen, "CUDA: there is no GPU here");
    if (device >= n)
        return refuse(err, errlen, "CUDA: no device %d: there are %d", device, n);
    if ((e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) != cudaSuccess ||
        (e = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) != cudaSuccess)
        return refuse(err, errlen, "CUDA: device %d: %s", device, cudaGetErrorString(e));
    if (10 * major + minor < MIN_CAPABILITY)
        return refuse(err, errlen, "CUDA: device %d has compute capability %d.%d: 8.0 is the least", device, major,
                      minor);
    if (probing)
        return NULL;
    struct cudaDeviceProp properties;
    if ((e = cudaGetDeviceProperties(&properties, device)) != cudaSuccess)
        return refuse(err, errlen, "CUDA: device %d: %s", device, cudaGetErrorString(e));
    (void)snprintf(device_name, sizeof device_name, "%s", properties.name);
    host = h;
    cuda_types = h->types;
    cuda = {};
    cuda.is_open = true;
    cuda.device = device;
    cuda.capability = 10 * major + minor;
    cuda.exact = exact;
    if (!cuda_check(cudaSetDevice(device), "opening the device") ||
        !cuda_check(cuda_compiled_for(&compiled), "the kernels") ||
        !cuda_check(cudaDeviceGetAttribute(&cuda.n_sms, cudaDevAttrMultiProcessorCount, device), "the device") ||
        !cuda_check(cudaDeviceGetAttribute(&cuda.max_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                    "the device") ||
        !cuda_check(cudaStreamCreateWithFlags(&cuda.stream, cudaStreamNonBlocking), "a stream") || !upload_grids()) {
        char why[sizeof cuda.error];
        (void)snprintf(why, sizeof why, "%s", cuda.error[0] ? cuda.error : "CUDA: out of memory");
        cuda_close();
        return refuse(err, errlen, "%s", why);
    }
    cuda.overlaps = compiled >= 90; /* begin_kernel waits: not in code for older ones, which a newer GPU can run */
    return &cuda_ops;
}

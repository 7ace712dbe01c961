/* make bench-kernels: how fast each kernel is alone, beside what the machine's limits allow.
 *
 *     build/release/bench-kernels [-t THREADS] [--isa LEVEL] [NAME …]      NAME: part of a row's name
 *
 * One token is measured against the read bandwidth (its weights are larger than any cache), prompts against
 * the rate of byte products (float types: of fused multiply-adds) of registers alone. Each number is the
 * best of several runs: other work on the machine only ever slows one down. */
#include "kernels/kernels.h"
#include "tools/bench_limits.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 4096, COLS = 4096, LONG_ROWS = 49152, PROMPT = 512, RUNS = 5 };

static struct bench {
    const struct ops *ops;
    struct team *team;
    int n_threads;
    double read, dots, fmas; /* limits: bytes, byte products, float products per second */
    char **names;
    int n_names;
} bench;

static bool is_asked(const char *name)
{
    for (int i = 0; i < bench.n_names; i++)
        if (strstr(name, bench.names[i]))
            return true;
    return bench.n_names == 0;
}

/* Seconds of the fastest of RUNS runs. */
static double fastest(void (*fn)(struct worker *w, void *arg), void *arg)
{
    double best = 1e30;
    for (int i = 0; i < RUNS; i++) {
        double start = machine_seconds();
        team_run(bench.team, fn, arg);
        double seconds = machine_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static float *random_floats(int64_t n)
{
    float *x = malloc(sizeof *x * (size_t)n);
    uint32_t state = 1;
    for (int64_t i = 0; x && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)state * 0x1p-31f;
    }
    return x;
}

/* ---- Products ------------------------------------------------------------------------------------- */

static void run_linear(struct worker *w, void *arg)
{
    bench.ops->linear(w, arg);
}

static void bench_linear(enum qtype t, float *x, float *y)
{
    static const int tokens[] = {1, 4, 16, 64, PROMPT};
    if (!is_asked(qtypes[t].name))
        return;
    const int64_t row_bytes = qtype_bytes(t, COLS);
    uint8_t *rows = malloc((size_t)(ROWS * row_bytes));
    struct packed w;
    uint64_t state = 1;
    if (!rows || bench.ops->packed_alloc(&w, t, LONG_ROWS, COLS)) {
        free(rows);
        return;
    }
    qtype_random(t, rows, ROWS * (int64_t)COLS, &state);
    for (int64_t row = 0; row < LONG_ROWS; row += ROWS)
        bench.ops->pack(&w, row, ROWS, rows);
    printf("%-8s", qtypes[t].name);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        int n = tokens[i];
        struct packed part = w;
        if (n > 1) { /* what a thread's share of one layer is */
            part.rows = ROWS;
            part.n_tiles = ROWS / TILE_ROWS;
        }
        void *scratch = bench.ops->alloc(bench.ops->scratch_bytes(n, COLS));
        struct linear_args a = {
            .x = x, .n_tokens = n, .n_parts = 1, .part = {{.w = &part, .out = y}}, .scratch = scratch};
        double seconds = fastest(run_linear, &a);
        double products = (double)part.rows * COLS * n;
        if (n == 1) {
            double bytes = (double)part.rows * (double)row_bytes;
            printf(" %7.2f GB/s %4.0f %%", bytes / seconds * 1e-9, 100 * bytes / seconds / bench.read);
        }
        double limit = qtypes[t].x_is_f32 ? bench.fmas : bench.dots;
        printf(" | %6.1f %4.0f %%", products / seconds * 1e-9, 100 * products / seconds / limit);
        bench.ops->release(scratch, bench.ops->scratch_bytes(n, COLS));
    }
    printf("\n");
    fflush(stdout);
    bench.ops->packed_release(&w);
    free(rows);
}

static int bench_products(void)
{
    float *x = random_floats(PROMPT * COLS), *y = malloc(sizeof *y * (size_t)PROMPT * LONG_ROWS);
    if (!x || !y)
        return tool_error("out of memory");
    printf("\nproducts of %d × %d weights, G multiply-adds/s and %% of the limit, by tokens at once\n", ROWS,
           COLS);
    printf("%-8s %19s | %13s | %13s | %13s | %13s | %13s\n", "type", "1: weights read", "1", "4", "16", "64",
           "512");
    for (int t = 0; t < QTYPE_N_MATRIX; t++)
        bench_linear((enum qtype)t, x, y);
    free(x);
    free(y);
    return 0;
}

/* ---- Attention ------------------------------------------------------------------------------------ */

static const struct heads {
    const char *name;
    int head_dim, n_kv_heads, group; /* queries per KV head */
} heads[] = {{"64x3x3", 64, 3, 3}, {"64x2x7", 64, 2, 7}, {"128x2x6", 128, 2, 6}, {"128x8x4", 128, 8, 4}};

/* The last n_tokens of a sequence, in some layers, so that one token's pages are in no cache. */
static const struct span {
    int len, n_tokens, n_layers;
} spans[] = {{8192, 1, 12}, {512, 512, 1}, {8192, 64, 1}};
enum { N_SPANS = sizeof spans / sizeof *spans, SPAN_LEN = 8192, SPAN_LAYERS = 12 };

struct attention_job {
    struct rope_store_args store; /* fills the first layer */
    struct attention_args a;
    int n_layers;
};

static void run_store(struct worker *w, void *arg)
{
    bench.ops->rope_store(w, &((const struct attention_job *)arg)->store);
}

static void run_attention(struct worker *w, void *arg)
{
    const struct attention_job *job = arg;
    const int64_t n_pages = SPAN_LEN / KV_PAGE;
    for (int i = 0; i < job->n_layers; i++) {
        struct attention_args a = job->a;
        a.k_pages = (const uint8_t *)a.k_pages + i * n_pages * a.kv->k_page_bytes;
        a.v_pages = (const uint8_t *)a.v_pages + i * n_pages * a.kv->v_page_bytes;
        bench.ops->attention(w, &a);
    }
}

static void bench_span(struct attention_job *job, const struct span *span)
{
    static struct kv_slot slot[PROMPT];
    const struct kv_layout *kv = job->a.kv;
    double seen = 0; /* positions, by all queries of a head */
    for (int i = 0; i < span->n_tokens; i++) {
        int64_t pos = span->len - span->n_tokens + i;
        slot[i] = (struct kv_slot){job->store.slot->pages, pos, 0, pos + 1};
        seen += (double)(pos + 1);
    }
    size_t bytes = bench.ops->attention_scratch_bytes(span->n_tokens, job->a.n_heads, kv->head_dim, span->len,
                                                      bench.n_threads);
    job->a.slot = slot;
    job->a.n_tokens = span->n_tokens;
    job->a.scratch = bench.ops->alloc(bytes);
    job->a.scratch_bytes = bytes;
    job->n_layers = span->n_layers;
    double seconds = fastest(run_attention, job) / span->n_layers;
    double products = 2 * seen * job->a.n_heads * kv->head_dim;
    if (span->n_tokens == 1) {
        double read = (double)span->len / KV_PAGE * (double)(kv->k_page_bytes + kv->v_page_bytes);
        printf(" %7.2f GB/s %4.0f %%", read / seconds * 1e-9, 100 * read / seconds / bench.read);
    }
    printf(" | %6.1f %4.0f %%", products / seconds * 1e-9, 100 * products / seconds / bench.fmas);
    bench.ops->release(job->a.scratch, bytes);
}

static int bench_heads(enum qtype t, const struct heads *h, const float *x, float *q, const int32_t *pages)
{
    static struct kv_slot slot[SPAN_LEN];
    const int64_t n_pages = SPAN_LEN / KV_PAGE;
    struct kv_layout kv;
    kv_layout_init(&kv, t, t, h->n_kv_heads, h->head_dim);
    const size_t k_layer = (size_t)(n_pages * kv.k_page_bytes), v_layer = (size_t)(n_pages * kv.v_page_bytes);
    uint8_t *k = bench.ops->alloc(k_layer * SPAN_LAYERS), *v = bench.ops->alloc(v_layer * SPAN_LAYERS);
    int n_heads = h->n_kv_heads * h->group, rc = k && v ? 0 : -1;
    for (int i = 0; i < SPAN_LEN; i++)
        slot[i] = (struct kv_slot){pages, i, 0, i + 1};
    if (rc == 0) {
        struct attention_job job = {
            .store = {.q = q,
                      .k = q,
                      .v = x,
                      .n_tokens = SPAN_LEN,
                      .n_heads = 0,
                      .pairing = ROPE_NONE,
                      .slot = slot,
                      .kv = &kv,
                      .k_pages = k,
                      .v_pages = v},
            .a = {.out = q,
                  .q = x,
                  .n_heads = n_heads,
                  .scale = 1.0f / 8,
                  .kv = &kv,
                  .k_pages = k,
                  .v_pages = v},
        };
        memcpy(q, x, sizeof *q * SPAN_LEN * (size_t)(h->n_kv_heads * h->head_dim));
        team_run(bench.team, run_store, &job);
        for (size_t i = 1; i < SPAN_LAYERS; i++) {
            memcpy(k + i * k_layer, k, k_layer);
            memcpy(v + i * v_layer, v, v_layer);
        }
        printf("%-6s %-8s", qtypes[t].name, h->name);
        for (int i = 0; i < N_SPANS; i++)
            bench_span(&job, &spans[i]);
        printf("\n");
        fflush(stdout);
    }
    bench.ops->release(k, k_layer * SPAN_LAYERS);
    bench.ops->release(v, v_layer * SPAN_LAYERS);
    return rc;
}

static int bench_attention(void)
{
    static const enum qtype types[] = {QTYPE_F16, QTYPE_Q8_0, QTYPE_Q4_0};
    static int32_t pages[SPAN_LEN / KV_PAGE];
    float *x = random_floats(SPAN_LEN * 1024), *q = malloc(sizeof *q * SPAN_LEN * 1024);
    if (!is_asked("attention") || !x || !q) {
        free(x);
        free(q);
        return is_asked("attention") ? tool_error("out of memory") : 0;
    }
    for (int i = 0; i < SPAN_LEN / KV_PAGE; i++)
        pages[i] = i;
    printf("\nattention, G multiply-adds/s and %% of float products, by KV type and head_dim x KV heads x "
           "queries each\n%-15s %19s | %13s | %13s | %13s\n",
           "", "1 token at 8192: KV", "the same", "512 at 0", "64 at 8128");
    int rc = 0;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof heads / sizeof *heads && rc == 0; i++)
            rc = bench_heads(types[t], &heads[i], x, q, pages);
    free(x);
    free(q);
    return rc ? tool_error("out of memory") : 0;
}

int main(int argc, char **argv)
{
    int isa = (int)isa_best(), at = 1;
    bench.n_threads = 2;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "-t") == 0)
            bench.n_threads = atoi(argv[at + 1]);
        else if (strcmp(argv[at], "--isa") == 0)
            isa = isa_by_name(argv[at + 1]);
        else
            break;
    }
    if (bench.n_threads < 1 || isa < 0 || !isa_supported((enum isa)isa))
        return usage_error("bench-kernels [-t THREADS] [--isa LEVEL] [NAME …]");
    bench.names = argv + at;
    bench.n_names = argc - at;
    bench.ops = ops_cpu((enum isa)isa);
    bench.team = team_new(bench.n_threads);
    struct bench_limits limits;
    if (!bench.team || bench_limits(&limits, (enum isa)isa, bench.n_threads))
        return tool_error("out of memory");
    bench.read = limits.read;
    bench.dots = limits.dots;
    bench.fmas = limits.fmas;
    printf("%s, level %s, %d threads: reads %.1f GB/s, %.0f G byte products/s, %.0f G float products/s\n",
           machine_cpu_name(), isa_name((enum isa)isa), bench.n_threads, bench.read * 1e-9, bench.dots * 1e-9,
           bench.fmas * 1e-9);
    int rc = bench_products();
    rc = rc ? rc : bench_attention();
    team_free(bench.team);
    return rc;
}

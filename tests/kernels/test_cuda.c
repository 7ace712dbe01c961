/* Each of CUDA's operators against the CPU's, to the last bit, over odd sizes; those of the tensor cores in
 * half floats within what rounding explains: on the host executor, its threads in three orders and with
 * device memory out of the host's reach, or with QUOLL_TEST_CUDA=1 on a GPU. And the layout of packed
 * weights: unpacking undoes packing. */
#include "kernels/pack.h"
#include "tests/cuda/backend.h"
#include "tests/kernels/support.h"
#include "tests/quant/random_blocks.h"

static uint32_t block_state = 1;

/* Both backends, opened anew for each test. */
static const struct ops *cpu, *gpu;

static bool open_both(int order, bool exact)
{
    cpu = ops_cpu(isa_best());
    gpu = cuda_test_ops(exact);
#ifndef QUOLL_NO_EXECUTOR
    if (!cuda_is_real()) {
        exec_set_order((enum exec_order)(order % 3));
        exec_set_strict(order % 4 == 0); /* it costs time */
    }
#else
    (void)order;
#endif
    return gpu != NULL;
}

static void close_both(void)
{
    char err[512];
    ck_assert_msg(gpu->finish(err, sizeof err) == 0, "%s", err);
    gpu->close();
#ifndef QUOLL_NO_EXECUTOR
    if (!cuda_is_real())
        ck_assert_int_eq((int)exec_bytes_held(), 0);
#endif
}

static void *to_gpu(const void *src, size_t bytes)
{
    void *p = gpu->alloc(bytes);
    ck_assert_ptr_nonnull(p);
    if (src)
        gpu->upload(p, src, bytes);
    return p;
}

static float *from_gpu(const float *src, int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    ck_assert_ptr_nonnull(x);
    gpu->download(x, src, (size_t)n * sizeof *x);
    return x;
}

static float *copy_of(const float *src, int64_t n)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    memcpy(x, src, (size_t)n * sizeof *x);
    return x;
}

/* One thread on the CPU. */
struct call {
    void (*fn)(struct worker *w, const void *arg);
    const void *arg;
};

static void call(struct worker *w, void *arg)
{
    const struct call *c = arg;
    c->fn(w, c->arg);
}

static void on_cpu(void (*fn)(struct worker *w, const void *arg), const void *arg)
{
    struct team *team = team_new(1);
    struct call c = {fn, arg};
    team_run(team, call, &c);
    team_free(team);
}

static void check_floats(const float *want, const float *on_gpu, int64_t n, const char *what)
{
    float *got = from_gpu(on_gpu, n);
    int64_t at = first_difference(want, got, n);
    ck_assert_msg(at < 0, "%s: element %lld is %a, not %a", what, (long long)at, (double)got[at < 0 ? 0 : at],
                  (double)want[at < 0 ? 0 : at]);
    free(got);
}

/* Values of a size near 1. */
static void check_close(const float *want, const float *on_gpu, int64_t n, float bound, const char *what)
{
    float *got = from_gpu(on_gpu, n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(got[i] - want[i]) <= bound, "%s: element %lld is %g, not %g", what, (long long)i,
                      (double)got[i], (double)want[i]);
    ck_assert_msg(n < 100 || first_difference(want, got, n) >= 0,
                  "%s: the same bits, so the exact kernel was there", what);
    free(got);
}

static float largest(const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* ---- Layout ------------------------------------------------------------------------------------- */

START_TEST(unpacking_inverts_packing) /* loop over types */
{
    static const int widths[] = {256, 64, 32, 128, 192, 224, 7};
    enum qtype t = (enum qtype)_i;
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
        const int cols = widths[k], rows = k % 2 ? 16 : 5;
        if (cols % qtypes[t].block_len)
            continue;
        const size_t row_bytes = (size_t)qtype_bytes(t, cols);
        uint8_t *src = malloc((size_t)rows * row_bytes), *chunk = calloc(TILE_ROWS, row_bytes);
        uint8_t *back = malloc(row_bytes);
        for (size_t i = 0; i < (size_t)rows * row_bytes; i++) {
            block_state = block_state * 1664525 + 1013904223;
            src[i] = (uint8_t)(block_state >> 24); /* any bits are a block */
        }
        cuda_pack_chunk(chunk, t, src, (int64_t)row_bytes, rows, cols);
        for (int r = 0; r < rows; r++) {
            cuda_unpack_chunk(back, t, chunk, r, cols);
            ck_assert_msg(memcmp(back, src + (size_t)r * row_bytes, row_bytes) == 0,
                          "%s, row %d of %d columns", qtypes[t].name, r, cols);
        }
        free(src);
        free(chunk);
        free(back);
    }
}
END_TEST

/* ---- Products ----------------------------------------------------------------------------------- */

static const struct shape {
    int rows, cols, tokens;
} shapes[] = {
    {1, 256, 1}, {17, 64, 3}, {33, 544, 1}, {48, 800, 8}, {70, 288, 9}, {20, 4384, 2}, {5, 32, 66},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void linear(struct worker *w, const void *a)
{
    cpu->linear(w, a);
}

/* exact: the same bits, else sums of parts of the columns, so that --compute f32 is left out. */
static void check_linear(enum qtype t, const struct shape *s, int number, bool exact)
{
    const int64_t len = qtypes[t].block_len, cols = (s->cols + len - 1) / len * len - (len == 1 ? 5 : 0);
    const int64_t n_out = (int64_t)s->rows * s->tokens, row_bytes = qtype_bytes(t, cols);
    if (!open_both(number, exact))
        return;
    float *x = random_row((uint64_t)number, (size_t)(s->tokens * cols)),
          *bias = random_row(7, (size_t)s->rows);
    float *residual = random_row(9, (size_t)n_out), *first = calloc((size_t)n_out, sizeof *first);
    uint8_t *rows = malloc((size_t)(s->rows * row_bytes));
    random_blocks(rows, t, s->rows * cols, &block_state);
    struct packed host, device;
    ck_assert_int_eq(cpu->packed_alloc(&host, t, s->rows, cols), 0);
    ck_assert_int_eq(gpu->packed_alloc(&device, t, s->rows, cols), 0);
    cpu->pack(&host, 0, s->rows, rows);
    gpu->pack(&device, 0, s->rows, rows);
    float *gx = to_gpu(x, (size_t)(s->tokens * cols) * sizeof *x),
          *gbias = to_gpu(bias, (size_t)s->rows * sizeof *x);
    void *scratch = to_gpu(NULL, gpu->scratch_bytes(s->tokens, cols)),
         *own = cpu->alloc(cpu->scratch_bytes(s->tokens, cols));
    for (int compute = COMPUTE_FAST; compute <= (exact ? COMPUTE_F32 : COMPUTE_FAST); compute++) {
        float *second = copy_of(residual, n_out);
        float *gfirst = to_gpu(NULL, (size_t)n_out * sizeof *x),
              *gsecond = to_gpu(residual, (size_t)n_out * sizeof *x);
        struct linear_args a = {
            .x = x, .n_tokens = s->tokens, .n_parts = 2, .compute = (enum compute)compute, .scratch = own};
        a.part[0] = (struct linear_part){.w = &host, .bias = bias, .out = first};
        a.part[1] = (struct linear_part){.w = &host, .out = second, .add = true};
        on_cpu(linear, &a);
        a.x = gx;
        a.scratch = scratch;
        a.part[0] = (struct linear_part){.w = &device, .bias = gbias, .out = gfirst};
        a.part[1] = (struct linear_part){.w = &device, .out = gsecond, .add = true};
        gpu->linear(NULL, &a);
        char what[128];
        (void)snprintf(what, sizeof what, "%s, %d × %d, %d tokens, compute %d", qtypes[t].name, s->rows,
                       (int)cols, s->tokens, compute);
        if (exact) {
            check_floats(first, gfirst, n_out, what);
            check_floats(second, gsecond, n_out, what);
        } else {
            check_close(first, gfirst, n_out, 2e-6f * largest(first, n_out), what);
            check_close(second, gsecond, n_out, 2e-6f * largest(second, n_out), what);
        }
        free(second);
    }
    cpu->release(own, cpu->scratch_bytes(s->tokens, cols));
    cpu->packed_release(&host);
    gpu->packed_release(&device);
    close_both();
    free(x);
    free(bias);
    free(residual);
    free(first);
    free(rows);
}

START_TEST(linear_has_the_cpus_bits) /* loop over types × shapes */
{
    check_linear((enum qtype)(_i / N_SHAPES), &shapes[_i % N_SHAPES], _i, true);
}
END_TEST

START_TEST(split_products_are_close) /* loop over types */
{
    static const struct shape split = {20, 4384, 11}, parts = {60, 2304, 64};
    if (!qtypes[_i].x_is_f32)
        check_linear((enum qtype)_i, _i % 2 ? &split : &parts, _i, false);
}
END_TEST

/* Products of half floats: every shape of block, whole and cut, splits of the columns, several parts. */
static const struct shape half_shapes[] = {
    {33, 32, 9}, {70, 40, 17}, {20, 2056, 33}, {130, 96, 64}, {150, 168, 66}, {260, 72, 300}, {1000, 64, 150},
};
enum { N_HALF_SHAPES = sizeof half_shapes / sizeof *half_shapes };

START_TEST(half_products_are_close) /* loop over F16, BF16 × shapes */
{
    const struct shape *s = &half_shapes[_i / 2];
    const enum qtype t = _i % 2 ? QTYPE_BF16 : QTYPE_F16;
    const int64_t cols = s->cols, n_x = s->tokens * cols;
    enum { N_PARTS = 3 };
    const int n_rows[N_PARTS] = {s->rows, 17, s->rows / 2 + 1};
    if (!open_both(_i, false))
        return;
    float *x = random_row((uint64_t)_i, (size_t)n_x), *magnitude = copy_of(x, n_x);
    for (int64_t i = 0; i < n_x; i++) {
        /* tokens of very different sizes, more than half floats hold; one is zero */
        x[i] *= i / cols == 3 ? 0 : i / cols % 2 ? 3e6f : 1e-6f;
        magnitude[i] = fabsf(x[i]);
    }
    float *gx = to_gpu(x, (size_t)n_x * sizeof *x), *bias = random_row(7, (size_t)s->rows);
    float *gbias = to_gpu(bias, (size_t)s->rows * sizeof *bias);
    struct linear_args a = {.x = gx, .n_tokens = s->tokens, .n_parts = N_PARTS, .compute = COMPUTE_FAST};
    const size_t scratch_bytes = cpu->scratch_bytes(s->tokens, cols);
    void *scratch = cpu->alloc(scratch_bytes);
    struct linear_args c = a, most = a;
    c.scratch = most.scratch = scratch;
    c.x = x;
    most.x = magnitude;
    struct packed host[N_PARTS], device[N_PARTS], sizes[N_PARTS];
    for (int k = 0; k < N_PARTS; k++) {
        const int64_t n = (int64_t)n_rows[k] * cols, n_out = (int64_t)n_rows[k] * s->tokens;
        uint16_t *w = malloc((size_t)n * sizeof *w);
        float *from = random_row((uint64_t)k, (size_t)n), *out = random_row((uint64_t)k + 3, (size_t)n_out);
        ck_assert_ptr_nonnull(w);
        if (t == QTYPE_F16)
            for (int64_t i = 0; i < n; i++)
                w[i] = f32_to_f16(from[i]);
        else
            for (int64_t i = 0; i < n; i++)
                w[i] = f32_to_bf16(from[i]);
        ck_assert_int_eq(cpu->packed_alloc(&host[k], t, n_rows[k], cols), 0);
        ck_assert_int_eq(cpu->packed_alloc(&sizes[k], t, n_rows[k], cols), 0);
        ck_assert_int_eq(gpu->packed_alloc(&device[k], t, n_rows[k], cols), 0);
        cpu->pack(&host[k], 0, n_rows[k], w);
        gpu->pack(&device[k], 0, n_rows[k], w);
        for (int64_t i = 0; i < n; i++)
            w[i] &= 0x7fff;
        cpu->pack(&sizes[k], 0, n_rows[k], w);
        a.part[k] = (struct linear_part){.w = &device[k], .bias = k ? NULL : gbias, .add = k == 1};
        a.part[k].out = to_gpu(out, (size_t)n_out * sizeof *out);
        c.part[k] = (struct linear_part){.w = &host[k], .bias = k ? NULL : bias, .add = k == 1, .out = out};
        most.part[k] = (struct linear_part){.w = &sizes[k], .out = calloc((size_t)n_out, sizeof *out)};
        free(w);
        free(from);
    }
    on_cpu(linear, &c);
    on_cpu(linear, &most);
    gpu->linear(NULL, &a);
    for (int k = 0; k < N_PARTS; k++) {
        const int64_t n_out = (int64_t)n_rows[k] * s->tokens;
        float *got = from_gpu(a.part[k].out, n_out);
        bool same = true;
        for (int64_t i = 0; i < n_out; i++) {
            const float want = c.part[k].out[i];
            same = same && got[i] == want;
            /* an activation is off by 2⁻¹² of itself; sums of float round, too */
            ck_assert_msg(fabsf(got[i] - want) <= most.part[k].out[i] * 0x1p-11f + fabsf(want) * 0x1p-20f,
                          "%s, %d × %d, %d tokens, part %d: element %lld is %g, not %g", qtypes[t].name,
                          n_rows[k], s->cols, s->tokens, k, (long long)i, (double)got[i], (double)want);
        }
        ck_assert_msg(!same, "no tensor core has been here");
        free(got);
        free(c.part[k].out);
        free(most.part[k].out);
        cpu->packed_release(&host[k]);
        cpu->packed_release(&sizes[k]);
        gpu->packed_release(&device[k]);
    }
    cpu->release(scratch, scratch_bytes);
    close_both();
    free(x);
    free(magnitude);
    free(bias);
}
END_TEST

/* One weight beyond half floats: the exact kernels. */
START_TEST(wide_bfloats_stay_finite)
{
    enum { ROWS = 20, COLS = 64, TOKENS = 12, N = ROWS * TOKENS };
    uint16_t w[ROWS * COLS];
    if (!open_both(_i, false))
        return;
    float *x = random_row(1, TOKENS * COLS), *want = calloc(N, sizeof *want);
    float *gx = to_gpu(x, TOKENS * COLS * sizeof *x), *got = to_gpu(NULL, N * sizeof *want);
    for (int i = 0; i < ROWS * COLS; i++)
        w[i] = f32_to_bf16(x[i % COLS]);
    w[77] = f32_to_bf16(-1e30f);
    struct packed host, device;
    ck_assert_int_eq(cpu->packed_alloc(&host, QTYPE_BF16, ROWS, COLS), 0);
    ck_assert_int_eq(gpu->packed_alloc(&device, QTYPE_BF16, ROWS, COLS), 0);
    cpu->pack(&host, 0, ROWS, w);
    gpu->pack(&device, 0, ROWS, w);
    const size_t scratch_bytes = cpu->scratch_bytes(TOKENS, COLS);
    struct linear_args a = {.x = x, .n_tokens = TOKENS, .n_parts = 1, .compute = COMPUTE_FAST};
    a.scratch = cpu->alloc(scratch_bytes);
    a.part[0] = (struct linear_part){.w = &host, .out = want};
    on_cpu(linear, &a);
    cpu->release(a.scratch, scratch_bytes);
    a.x = gx;
    a.scratch = to_gpu(NULL, gpu->scratch_bytes(TOKENS, COLS));
    a.part[0] = (struct linear_part){.w = &device, .out = got};
    gpu->linear(NULL, &a);
    check_floats(want, got, N, "a weight of -1e30");
    cpu->packed_release(&host);
    gpu->packed_release(&device);
    close_both();
    free(x);
    free(want);
}
END_TEST

/* ---- Rows --------------------------------------------------------------------------------------- */

static void norm(struct worker *w, const void *a)
{
    cpu->norm(w, a);
}

static void gate(struct worker *w, const void *a)
{
    cpu->gate(w, a);
}

START_TEST(rows_have_the_cpus_bits)
{
    static const int dims[] = {1, 5, 16, 33, 576, 1025, 13000};
    const int dim = dims[_i % 7], n_rows = _i % 3 + 1;
    const int64_t n = (int64_t)dim * n_rows;
    if (!open_both(_i, true))
        return;
    float *src = random_row((uint64_t)_i, (size_t)n), *weight = random_row(3, (size_t)dim),
          *bias = random_row(4, (size_t)dim);
    float *want = calloc((size_t)n, sizeof *want);
    float *gsrc = to_gpu(src, (size_t)n * sizeof *src), *gweight = to_gpu(weight, (size_t)dim * sizeof *src);
    float *gbias = to_gpu(bias, (size_t)dim * sizeof *src), *got = to_gpu(NULL, (size_t)n * sizeof *src);
    for (int kind = 0; kind < N_NORMS; kind++) {
        struct norm_args a = {want,   src, weight, kind == NORM_LAYER ? bias : NULL,
                              n_rows, dim, 1e-5f,  (enum norm_kind)kind};
        on_cpu(norm, &a);
        a = (struct norm_args){got,    gsrc, gweight, kind == NORM_LAYER ? gbias : NULL,
                               n_rows, dim,  1e-5f,   (enum norm_kind)kind};
        gpu->norm(NULL, &a);
        check_floats(want, got, n, "norm");
    }
    for (int act = 0; act < N_ACTS; act++) {
        struct gate_args a = {want, src, act % 2 ? NULL : src, n, (enum act)act};
        on_cpu(gate, &a);
        a = (struct gate_args){got, gsrc, act % 2 ? NULL : gsrc, n, (enum act)act};
        gpu->gate(NULL, &a);
        check_floats(want, got, n, "gate");
    }
    /* in place, as norms of heads are */
    struct norm_args a = {want, src, weight, NULL, n_rows, dim, 1e-5f, NORM_RMS};
    on_cpu(norm, &a);
    a = (struct norm_args){gsrc, gsrc, gweight, NULL, n_rows, dim, 1e-5f, NORM_RMS};
    gpu->norm(NULL, &a);
    check_floats(want, gsrc, n, "norm in place");
    close_both();
    free(src);
    free(weight);
    free(bias);
    free(want);
}
END_TEST

/* ---- The cache and attention -------------------------------------------------------------------- */

static const struct attention_case {
    int n_heads, n_kv_heads, head_dim;
    enum qtype type_k, type_v;
    int len, n_tokens; /* of each of two sequences; the last n_tokens are asked for */
    float softcap;
    int window; /* 0: none */
} attention_cases[] = {
    {1, 1, 64, QTYPE_F16, QTYPE_F16, 1, 1, 0, 0},      {4, 2, 128, QTYPE_F16, QTYPE_F16, 200, 1, 0, 0},
    {8, 1, 80, QTYPE_F32, QTYPE_F16, 130, 3, 0, 0},    {16, 1, 96, QTYPE_F16, QTYPE_F32, 65, 2, 30, 0},
    {3, 3, 5, QTYPE_F16, QTYPE_F32, 70, 40, 0, 0},     {4, 4, 64, QTYPE_Q8_0, QTYPE_Q8_0, 150, 70, 0, 0},
    {4, 1, 256, QTYPE_Q4_0, QTYPE_Q8_0, 100, 1, 0, 0}, {6, 2, 64, QTYPE_Q8_0, QTYPE_Q4_0, 300, 9, 0, 70},
    {2, 1, 512, QTYPE_Q4_0, QTYPE_Q4_0, 20, 20, 0, 0}, {2, 1, 32, QTYPE_F16, QTYPE_F16, 9000, 1, 0, 0},
};
enum { N_ATTENTION = sizeof attention_cases / sizeof *attention_cases };

static void rope_store(struct worker *w, const void *a)
{
    cpu->rope_store(w, a);
}

static void attention(struct worker *w, const void *a)
{
    cpu->attention(w, a);
}

static void rope_table(struct worker *w, const void *a)
{
    cpu->rope_table(w, a);
}

/* exact: the same bits, else as close as half floats come. */
static void check_attention(const struct attention_case *c, int number, bool exact)
{
    const int n = 2 * c->len, n_pages = 2 * ((c->len + KV_PAGE - 1) / KV_PAGE), rotary = c->head_dim / 4 * 2;
    const int64_t q_len = (int64_t)c->n_heads * c->head_dim, kv_len = (int64_t)c->n_kv_heads * c->head_dim;
    if (!open_both(number, exact))
        return;
    struct kv_layout kv;
    ck_assert_int_eq(kv_layout_init(&kv, c->type_k, c->type_v, c->n_kv_heads, c->head_dim), 0);
    const size_t k_bytes = (size_t)(n_pages * kv.k_page_bytes), v_bytes = (size_t)(n_pages * kv.v_page_bytes);
    float *q = random_row(1, (size_t)(n * q_len)), *k = random_row(2, (size_t)(n * kv_len)),
          *v = random_row(3, (size_t)(n * kv_len));
    float *gq = to_gpu(q, (size_t)(n * q_len) * sizeof *q), *gk = to_gpu(k, (size_t)(n * kv_len) * sizeof *q);
    float *gv = to_gpu(v, (size_t)(n * kv_len) * sizeof *q);
    void *kp = cpu->alloc(k_bytes), *vp = cpu->alloc(v_bytes), *gkp = to_gpu(NULL, k_bytes),
         *gvp = to_gpu(NULL, v_bytes);
    float *table = calloc((size_t)n * (size_t)rotary + 1, sizeof *table),
          *gtable = to_gpu(NULL, ((size_t)n * (size_t)rotary + 1) * sizeof *table);
    int32_t *pages = calloc((size_t)n_pages, sizeof *pages);
    for (int i = 0; i < n_pages; i++) /* each sequence has every other page, from the end */
        pages[i] = n_pages - 1 - (i % (n_pages / 2) * 2 + i / (n_pages / 2));
    struct kv_slot *slot = calloc((size_t)n, sizeof *slot);
    int64_t *pos = calloc((size_t)n, sizeof *pos);
    double inv_freq[KV_PAGE * 4];
    for (int i = 0; i < rotary / 2; i++)
        inv_freq[i] = pow(10000, -2.0 * i / rotary);
    for (int i = 0; i < n; i++) {
        const int p = i % c->len;
        pos[i] = p;
        slot[i] = (struct kv_slot){pages + i / c->len * (n_pages / 2), p, 0, p + 1};
        if (c->window && p + 1 > c->window)
            slot[i].begin = p + 1 - c->window;
    }
    if (rotary) {
        struct rope_table_args t = {table, pos, 1, inv_freq, NULL, n, rotary / 2, 1.25};
        on_cpu(rope_table, &t);
        t.dst = gtable;
        gpu->rope_table(NULL, &t);
        check_floats(table, gtable, (int64_t)n * rotary, "RoPE's table");
    }
    struct rope_store_args s = {
        q,          k,      v,   n,
        c->n_heads, rotary, 1,   !rotary ? ROPE_NONE : number % 2 ? ROPE_HALF : ROPE_ADJACENT,
        table,      slot,   &kv, kp,
        vp};
    on_cpu(rope_store, &s);
    s.q = gq, s.k = gk, s.v = gv, s.table = gtable, s.k_pages = gkp, s.v_pages = gvp;
    gpu->rope_store(NULL, &s);
    check_floats(q, gq, n * q_len, "queries");
    check_floats(k, gk, n * kv_len, "keys");
    uint8_t *stored = malloc(v_bytes); /* values lie as the CPU has them */
    gpu->download(stored, gvp, v_bytes);
    for (size_t i = 0; i < v_bytes; i++)
        ck_assert_msg(stored[i] == ((const uint8_t *)vp)[i], "byte %zu of the values is %02x, not %02x", i,
                      stored[i], ((const uint8_t *)vp)[i]);
    free(stored);
    /* The last tokens of both sequences, and one that sees nothing. */
    const int m = 2 * c->n_tokens + 1;
    struct kv_slot *asked = calloc((size_t)m, sizeof *asked);
    for (int i = 0; i < m - 1; i++)
        asked[i] = slot[i / c->n_tokens * c->len + c->len - c->n_tokens + i % c->n_tokens];
    asked[m - 1] = (struct kv_slot){pages, 0, 0, 0};
    const size_t scratch_bytes = cpu->attention_scratch_bytes(m, c->n_heads, c->head_dim, c->len, 1);
    float *query = random_row(5, (size_t)(m * q_len)), *out = calloc((size_t)(m * q_len), sizeof *out);
    struct attention_args a = {
        out,          query, m, c->n_heads, 0.3f, c->softcap, asked, &kv, kp, vp, cpu->alloc(scratch_bytes),
        scratch_bytes};
    on_cpu(attention, &a);
    cpu->release(a.scratch, scratch_bytes);
    float *gout = to_gpu(query, (size_t)(m * q_len) * sizeof *out); /* anything but zeros */
    a.out = gout, a.q = to_gpu(query, (size_t)(m * q_len) * sizeof *out), a.k_pages = gkp, a.v_pages = gvp,
    a.scratch = NULL;
    gpu->attention(NULL, &a);
    char what[64];
    (void)snprintf(what, sizeof what, "attention, case %d", number / 2);
    if (exact)
        check_floats(out, gout, m * q_len, what);
    else
        check_close(out, gout, m * q_len, c->type_k == QTYPE_F16 ? 2e-3f : 1e-2f,
                    what);           /* the CPU's queries are bytes, too */
    if (exact && c->n_tokens == 1) { /* the same, a token alone: other pages are split */
        a.n_tokens = 1;
        gpu->attention(NULL, &a);
        check_floats(out, gout, q_len, "attention of one token");
    }
    cpu->release(kp, k_bytes);
    cpu->release(vp, v_bytes);
    close_both();
    free(q);
    free(k);
    free(v);
    free(table);
    free(pages);
    free(slot);
    free(pos);
    free(asked);
    free(query);
    free(out);
}

START_TEST(attention_has_the_cpus_bits) /* loop over cases × pairings */
{
    check_attention(&attention_cases[_i / 2], _i, true);
}
END_TEST

/* Prompts on the tensor cores: head_dim of every class, groups that fill a tile and that do not, several
 * tiles and pages, windows, a softcap, bytes in the cache. */
static const struct attention_case half_cases[] = {
    {1, 1, 64, QTYPE_F16, QTYPE_F16, 70, 20, 0, 0},     {4, 2, 128, QTYPE_F16, QTYPE_F16, 200, 66, 0, 0},
    {8, 1, 80, QTYPE_F16, QTYPE_F16, 130, 19, 0, 0},    {16, 1, 96, QTYPE_F16, QTYPE_F16, 65, 20, 30, 0},
    {4, 2, 256, QTYPE_F16, QTYPE_F16, 100, 40, 0, 0},   {6, 2, 64, QTYPE_F16, QTYPE_F16, 300, 129, 0, 70},
    {3, 3, 16, QTYPE_F16, QTYPE_F16, 70, 70, 0, 5},     {6, 2, 64, QTYPE_Q8_0, QTYPE_Q8_0, 150, 33, 0, 0},
    {2, 1, 96, QTYPE_Q8_0, QTYPE_F16, 140, 80, 20, 90}, {2, 2, 32, QTYPE_F16, QTYPE_Q8_0, 90, 17, 0, 0},
};
enum { N_HALF_CASES = sizeof half_cases / sizeof *half_cases };

START_TEST(half_attention_is_close) /* loop over cases × pairings */
{
    check_attention(&half_cases[_i / 2], _i, false);
}
END_TEST

START_TEST(memory_is_told)
{
    char err[512] = "";
    size_t before = 0, after = 0, total = 0, same = 0;
    if (cuda_is_real() || !open_both(0, true))
        return;
#ifndef QUOLL_NO_EXECUTOR
    ck_assert_int_eq(quoll_cuda_memory(0, &before, &total, err, sizeof err), 0);
    (void)to_gpu(NULL, 1 << 20);
    ck_assert_int_eq(quoll_cuda_memory(0, &after, &same, err, sizeof err), 0);
    ck_assert_int_eq((int)(before - after), 1 << 20);
    ck_assert(total == same && before < total);
    ck_assert_int_eq(quoll_cuda_memory(7, &after, &same, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "device 7"));
#endif
    close_both();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda operators");
    TCase *t = tcase_create("layout");
    tcase_add_loop_test(t, unpacking_inverts_packing, 0, QTYPE_N_MATRIX);
    suite_add_tcase(s, t);
    t = tcase_create("operators");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, linear_has_the_cpus_bits, 0, QTYPE_N_MATRIX * N_SHAPES);
    tcase_add_loop_test(t, attention_has_the_cpus_bits, 0, 2 * N_ATTENTION);
    suite_add_tcase(s, t);
    t = tcase_create("rows");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, rows_have_the_cpus_bits, 0, 7);
    tcase_add_test(t, memory_is_told);
    suite_add_tcase(s, t);
    t = tcase_create("not exact");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, split_products_are_close, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(t, half_products_are_close, 0, 2 * N_HALF_SHAPES);
    tcase_add_test(t, wide_bfloats_stay_finite);
    tcase_add_loop_test(t, half_attention_is_close, 0, 2 * N_HALF_CASES);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(suite)

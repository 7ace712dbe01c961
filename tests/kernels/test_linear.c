/* Packed products against the quantised rows' own dot products (quant/), to the last bit: every type,
 * every CPU level, one and two threads, awkward shapes. */
#include "kernels/kernels.h"
#include "kernels/pack.h"
#include "tests/kernels/support.h"
#include "tests/quant/random_blocks.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct shape {
    int rows, cols, tokens;
} shapes[] = {
    {1, 256, 1},   {16, 32, 1},   {17, 64, 3},   {16, 256, 16}, {33, 512, 1}, {3, 96, 31},
    {48, 576, 1},  {20, 800, 5},  {16, 64, 17},  {7, 32, 260},  {31, 160, 2}, {33, 32, 12},
    {20, 1312, 1}, {33, 2080, 4}, {17, 1056, 2}, {17, 288, 32}, {33, 96, 33}, {16, 352, 48},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static uint64_t state = 1;
static uint32_t block_state = 1;

static float uniform(void) /* −1 … 1 */
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 33) / (double)(1u << 30) - 1.0);
}

static float *random_floats(int64_t n)
{
    float *x = malloc(sizeof *x * (size_t)n);
    for (int64_t i = 0; i < n; i++)
        x[i] = uniform() * uniform() * 3.0f;
    return x;
}

struct job {
    const struct ops *ops;
    struct linear_args args;
    const struct norm_args *norm; /* operators before the product, NULL: none */
    const struct gate_args *gate;
};

static void run(struct worker *w, void *arg)
{
    struct job *job = arg;
    if (job->norm)
        job->ops->norm(w, job->norm);
    if (job->gate)
        job->ops->gate(w, job->gate);
    job->ops->linear(w, &job->args);
}

/* Shapes whose columns are whole blocks of the type. */
static int64_t whole_cols(enum qtype t, int64_t cols)
{
    int64_t len = qtypes[t].block_len;
    return (cols + len - 1) / len * len;
}

/* y (tokens, rows) by the types' own dot products. */
static void reference(float *y, enum qtype t, const uint8_t *rows, const float *x, const struct shape *s,
                      int64_t cols, enum compute compute)
{
    int64_t row_bytes = qtype_bytes(t, cols);
    struct act_block *act = malloc(sizeof *act * (size_t)(cols / ACT_LEN + 1));
    float *w = malloc(sizeof *w * (size_t)cols);
    for (int i = 0; i < s->tokens; i++) {
        if (!qtypes[t].x_is_f32)
            act_quantise(act, x + i * cols, cols);
        for (int r = 0; r < s->rows; r++) {
            const uint8_t *row = rows + r * row_bytes;
            if (compute == COMPUTE_F32) {
                qtypes[t].to_f32(w, row, cols);
                y[i * s->rows + r] = qtypes[QTYPE_F32].dot(w, x + i * cols, cols);
            } else {
                y[i * s->rows + r] =
                    qtypes[t].dot(row, qtypes[t].x_is_f32 ? (const void *)(x + i * cols) : act, cols);
            }
        }
    }
    free(act);
    free(w);
}

START_TEST(linear_matches_dot)
{
    enum qtype t = (enum qtype)(_i / N_SHAPES);
    const struct shape *s = &shapes[_i % N_SHAPES];
    int64_t cols = whole_cols(t, s->cols), row_bytes = qtype_bytes(t, cols);
    if (s->tokens > 256 && cols > s->cols)
        return; /* groups of tokens are cut alike for all types: those of small blocks show it */
    int64_t n_out = (int64_t)s->rows * s->tokens;
    float *x = random_floats(s->tokens * cols);
    float *bias = random_floats(s->rows), *residual = random_floats(n_out);
    uint8_t *rows = malloc((size_t)(s->rows * row_bytes));
    if (_i % 2 || !qtypes[t].from_f32) {
        random_blocks(rows, t, s->rows * cols, &block_state);
    } else {
        float *w = random_floats(s->rows * cols);
        qtypes[t].from_f32(rows, w, s->rows * cols);
        free(w);
    }
    float *expected = malloc(sizeof *expected * (size_t)n_out), *got = malloc(sizeof *got * (size_t)n_out);
    float *second = malloc(sizeof *second * (size_t)n_out);

    for (int compute = COMPUTE_FAST; compute <= COMPUTE_F32; compute++) {
        reference(expected, t, rows, x, s, cols, (enum compute)compute);
        for (int isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
            if (!isa_supported((enum isa)isa))
                continue;
            const struct ops *ops = ops_cpu((enum isa)isa);
            /* One thread on packed rows and on rows as they are, then two threads and two parts that share
             * the input, one with a bias and one added to a residual. */
            for (int variant = 0; variant < 3; variant++) {
                struct packed p;
                if (variant == 1) {
                    ops->packed_view(&p, t, s->rows, cols, rows);
                } else {
                    ck_assert_int_eq(ops->packed_alloc(&p, t, s->rows, cols), 0);
                    ops->pack(&p, 0, s->rows, rows);
                }
                size_t scratch_bytes = ops->scratch_bytes(s->tokens, cols);
                struct job job = {.ops = ops};
                job.args = (struct linear_args){
                    .x = x,
                    .n_tokens = s->tokens,
                    .n_parts = 1,
                    .part = {{.w = &p, .out = got}},
                    .compute = (enum compute)compute,
                    .scratch = ops->alloc(scratch_bytes),
                };
                if (variant == 2) {
                    memcpy(second, residual, sizeof *second * (size_t)n_out);
                    job.args.n_parts = 2;
                    job.args.part[0].bias = bias;
                    job.args.part[1] = (struct linear_part){.w = &p, .out = second, .add = true};
                }
                struct team *team = team_new(variant == 2 ? 2 : 1);
                team_run(team, run, &job);
                for (int64_t i = 0; i < n_out; i++) {
                    float want = variant == 2 ? expected[i] + bias[i % s->rows] : expected[i];
                    ck_assert_msg(
                        memcmp(&got[i], &want, sizeof want) == 0,
                        "%s, %s, compute %d, %dx%d, %d tokens, variant %d: token %d row %d is %a, not %a",
                        qtypes[t].name, isa_name((enum isa)isa), compute, s->rows, (int)cols, s->tokens,
                        variant, (int)i / s->rows, (int)i % s->rows, (double)got[i], (double)want);
                    if (variant == 2)
                        ck_assert(second[i] == residual[i] + expected[i]);
                }
                team_free(team);
                ops->release(job.args.scratch, scratch_bytes);
                ops->packed_release(&p);
            }
        }
    }
    free(x);
    free(bias);
    free(residual);
    free(rows);
    free(expected);
    free(got);
    free(second);
}
END_TEST

START_TEST(unpacking_inverts_packing)
{
    enum qtype t = (enum qtype)_i;
    enum { ROWS = 21 };
    int64_t cols = qtypes[t].block_len > 32 ? 512 : 576, row_bytes = qtype_bytes(t, cols);
    uint8_t *rows = malloc((size_t)(ROWS * row_bytes)), *back = malloc((size_t)row_bytes);
    for (int64_t i = 0; i < ROWS * row_bytes; i++)
        rows[i] = (uint8_t)(uniform() * 128.0f); /* any bits are a block */
    const struct ops *ops = ops_cpu(ISA_SCALAR);
    struct packed p;
    ck_assert_int_eq(ops->packed_alloc(&p, t, ROWS, cols), 0);
    ck_assert_int_eq(p.tile_bytes, 16 * row_bytes);
    ops->pack(&p, 0, 16, rows); /* tiles can be packed one by one */
    ops->pack(&p, 16, ROWS - 16, rows + 16 * row_bytes);
    for (int r = 0; r < ROWS; r++) {
        for (int64_t k = 0; k < cols; k += CHUNK_LEN)
            pack_unpack(back + qtype_bytes(t, k), &p, r, k);
        ck_assert_mem_eq(back, rows + r * row_bytes, (size_t)row_bytes);
    }
    ops->packed_release(&p);
    free(rows);
    free(back);
}
END_TEST

/* The largest sums: codes all ones or all zeros (Q8_0: −128 is 0x80) against activations of one sign. */
START_TEST(extreme_codes)
{
    enum { ROWS = 16, COLS = 256, TOKENS = 17 };
    enum qtype t = (enum qtype)_i;
    static const uint8_t patterns[] = {0x00, 0x80, 0xff, 0x7f};
    float x[TOKENS * COLS], got[TOKENS * ROWS], expected[TOKENS * ROWS];
    for (int i = 0; i < TOKENS * COLS; i++)
        x[i] = i / COLS == 0 ? -1.0f : i / COLS == 1 ? 1.0f : i % (i / COLS) ? 1.0f : -1.0f;
    uint8_t *rows = malloc((size_t)(ROWS * qtype_bytes(t, COLS)));
    for (size_t p = 0; p < sizeof patterns; p++) {
        random_blocks(rows, t, ROWS * COLS, &block_state);
        for (int64_t i = 0; i < ROWS * COLS / qtypes[t].block_len; i++) {
            uint8_t *b = rows + i * qtypes[t].block_bytes, *end = b + qtypes[t].block_bytes;
            if (qtypes[t].block_len < QK_K) /* scales and zero points are in front */
                memset(b + 4, patterns[p], (size_t)(end - b - 4));
            else /* in front or at the end */
                memset(b + 20, patterns[p], (size_t)(end - b - 40));
        }
        const struct shape s = {ROWS, COLS, TOKENS};
        reference(expected, t, rows, x, &s, COLS, COMPUTE_FAST);
        for (int isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
            if (!isa_supported((enum isa)isa))
                continue;
            const struct ops *ops = ops_cpu((enum isa)isa);
            static const int tokens[] = {1, 5, TOKENS};
            for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
                const int n = tokens[i];
                struct packed w;
                ops->packed_view(&w, t, ROWS, COLS, rows);
                size_t scratch_bytes = ops->scratch_bytes(n, COLS);
                struct job job = {.ops = ops};
                job.args = (struct linear_args){.x = x, .n_tokens = n, .n_parts = 1};
                job.args.part[0] = (struct linear_part){.w = &w, .out = got};
                job.args.scratch = ops->alloc(scratch_bytes);
                struct team *team = team_new(1);
                team_run(team, run, &job);
                ck_assert_msg(memcmp(got, expected, sizeof(float) * (size_t)(n * ROWS)) == 0,
                              "%s, %s, bytes %02x, %d tokens", qtypes[t].name, isa_name((enum isa)isa),
                              patterns[p], n);
                team_free(team);
                ops->release(job.args.scratch, scratch_bytes);
            }
        }
    }
    free(rows);
}
END_TEST

/* A bad activation shows in every product it takes part in, at every level. */
START_TEST(not_finite_propagates)
{
    enum { ROWS = 16, COLS = 256, TOKENS = 19 };
    enum qtype t = (enum qtype)(_i / 2);
    const int n = _i % 2 ? TOKENS : 3;
    float *x = random_floats(TOKENS * COLS), got[TOKENS * ROWS];
    uint8_t *rows = malloc((size_t)(ROWS * qtype_bytes(t, COLS)));
    random_blocks(rows, t, ROWS * COLS, &block_state);
    x[COLS + 100] = NAN;
    x[2 * COLS + 200] = INFINITY;
    x[(TOKENS - 1) * COLS + 255] = -INFINITY;
    for (int isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_supported((enum isa)isa))
            continue;
        const struct ops *ops = ops_cpu((enum isa)isa);
        struct packed p;
        ops->packed_view(&p, t, ROWS, COLS, rows);
        struct job job = {.ops = ops};
        job.args = (struct linear_args){.x = x, .n_tokens = n, .n_parts = 1, .part = {{.w = &p, .out = got}}};
        size_t scratch_bytes = ops->scratch_bytes(n, COLS);
        job.args.scratch = ops->alloc(scratch_bytes);
        struct team *team = team_new(1);
        team_run(team, run, &job);
        for (int r = 0; r < ROWS; r++) {
            ck_assert(isfinite(got[r]));
            ck_assert(!isfinite(got[ROWS + r]));
            ck_assert(!isfinite(got[2 * ROWS + r]));
            for (int i = 3; i < n; i++)
                ck_assert(isfinite(got[i * ROWS + r]) == (i != TOKENS - 1));
        }
        team_free(team);
        ops->release(job.args.scratch, scratch_bytes);
    }
    free(x);
    free(rows);
}
END_TEST

/* A norm or an activation that is part of a product gives the bits that it gives alone: inputs that threads
 * make for themselves, share, or interleave. */
START_TEST(fused_input_is_the_plain_sequence)
{
    enum { ROWS = 48 };
    static const int tokens[] = {1, 2, 5, 19}, widths[] = {96, 544, 8448};
    const int n = tokens[_i % 4], cols = widths[_i / 4 % 3];
    const bool normed = _i / 12 % 2;
    const enum qtype types[] = {QTYPE_Q4_0, QTYPE_F16};
    const int64_t len = (int64_t)n * cols;
    float *src = random_floats(len), *up = random_floats(len), *weight = random_floats(cols);
    float *x = malloc(sizeof *x * (size_t)len), *made = malloc(sizeof *x * (size_t)len);
    float want[2][19 * ROWS], got[2][19 * ROWS];
    uint8_t *rows[2];
    struct packed w[2];
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa)) {
        struct job job = {.ops = ops_cpu(isa)};
        const size_t scratch_bytes = job.ops->scratch_bytes(n, cols);
        job.args = (struct linear_args){.x = x, .n_tokens = n, .scratch = job.ops->alloc(scratch_bytes)};
        for (int i = 0; i < 2; i++) {
            rows[i] = malloc((size_t)(ROWS * qtype_bytes(types[i], cols)));
            random_blocks(rows[i], types[i], ROWS * (int64_t)cols, &block_state);
            job.ops->packed_view(&w[i], types[i], ROWS, cols, rows[i]);
        }
        const struct norm_args norm = {x, src, weight, NULL, n, cols, 1e-5f, NORM_RMS};
        const struct gate_args gate = {x, src, up, len, ACT_SILU};
        for (int threads = 1; threads <= 3; threads++)
            /* both types, then each alone: the kinds of input that are made differ */
            for (int first = 0; first < 2; first++)
                for (int last = first; last < 2; last++) {
                    struct team *team = team_new(threads);
                    job.args.n_parts = last - first + 1;
                    for (int i = first; i <= last; i++)
                        job.args.part[i - first] = (struct linear_part){.w = &w[i], .out = want[i]};
                    job.norm = normed ? &norm : NULL;
                    job.gate = normed ? NULL : &gate;
                    job.args.norm = NULL;
                    job.args.gate = NULL;
                    team_run(team, run, &job);
                    memcpy(made, x, sizeof *x * (size_t)len);
                    memset(x, 0, sizeof *x * (size_t)len);
                    for (int i = first; i <= last; i++)
                        job.args.part[i - first].out = got[i];
                    job.args.norm = job.norm;
                    job.args.gate = job.gate;
                    job.norm = NULL;
                    job.gate = NULL;
                    team_run(team, run, &job);
                    ck_assert_mem_eq(x, made, sizeof *x * (size_t)len);
                    for (int i = first; i <= last; i++)
                        ck_assert_msg(first_difference(got[i], want[i], n * ROWS) < 0,
                                      "%s, %d threads, %d tokens of %d columns, type %s", isa_name(isa),
                                      threads, n, cols, qtypes[types[i]].name);
                    team_free(team);
                }
        for (int i = 0; i < 2; i++)
            free(rows[i]);
        job.ops->release(job.args.scratch, scratch_bytes);
    }
    free(src);
    free(up);
    free(weight);
    free(x);
    free(made);
}
END_TEST

static Suite *linear_suite(void)
{
    Suite *s = suite_create("kernels/linear");
    TCase *tc = tcase_create("linear");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, linear_matches_dot, 0, QTYPE_N_MATRIX * N_SHAPES);
    tcase_add_loop_test(tc, fused_input_is_the_plain_sequence, 0, 24);
    tcase_add_loop_test(tc, unpacking_inverts_packing, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, extreme_codes, QTYPE_Q4_0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, not_finite_propagates, 0, 2 * QTYPE_N_MATRIX);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(linear_suite)

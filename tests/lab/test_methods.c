/* GPTQ, AWQ and reweighted rounding on matrices whose inputs go together. */
#include "lab/awq.h"
#include "lab/gptq.h"
#include "lab/rows.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLS = 256, ROWS = 70, N_X = 500 };

static const struct rows_format formats[] = {
    {QTYPE_Q4_0, 32},   {QTYPE_Q4_1, 32},    {QTYPE_Q5_0, 32},  {QTYPE_Q5_1, 32},   {QTYPE_Q8_0, 32},
    {QTYPE_IQ4_NL, 32}, {QTYPE_Q2_K, 256},   {QTYPE_Q3_K, 256}, {QTYPE_Q4_K, 256},  {QTYPE_Q5_K, 256},
    {QTYPE_Q6_K, 256},  {QTYPE_IQ4_XS, 256}, {QTYPE_INT2Z, 64}, {QTYPE_INT3Z, 128}, {QTYPE_INT4Z, 32},
    {QTYPE_INT4Z, 256}, {QTYPE_INT8Z, 128},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

struct example {
    float *w, *h; /* (ROWS, COLS), (COLS, COLS) */
};

static float uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

/* together: how much of every input all columns have in common. Some columns are much larger. */
static struct example example_new(float together)
{
    struct example e = {calloc(ROWS * COLS, sizeof(float)), calloc(COLS * COLS, sizeof(float))};
    ck_assert(e.w && e.h);
    uint64_t state = 7;
    for (int i = 0; i < ROWS * COLS; i++)
        e.w[i] = (uniform(&state) + uniform(&state) + uniform(&state)) * 0.03f;
    float x[COLS];
    for (int k = 0; k < N_X; k++) {
        float common = uniform(&state);
        for (int c = 0; c < COLS; c++)
            x[c] = (uniform(&state) * (1 - together) + common * together) * (c % 64 == 5 ? 8 : 1);
        for (int i = 0; i < COLS; i++)
            for (int j = 0; j < COLS; j++)
                e.h[i * COLS + j] += x[i] * x[j] / N_X;
    }
    return e;
}

static void example_free(struct example *e)
{
    free(e->w);
    free(e->h);
}

static float *copy(const float *x, size_t n)
{
    float *to = malloc(n * sizeof *to);
    ck_assert_ptr_nonnull(to);
    return memcpy(to, x, n * sizeof *to);
}

/* Σ e H eᵀ of the rows' errors. */
static double loss_of(const struct example *e, const struct rows_format *f, const void *bytes)
{
    float *got = malloc(sizeof *got * ROWS * COLS);
    ck_assert_ptr_nonnull(got);
    qtypes[f->type].to_f32(got, bytes, ROWS * COLS);
    double loss = 0;
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLS; c++)
            got[r * COLS + c] -= e->w[r * COLS + c];
        for (int i = 0; i < COLS; i++) {
            double sum = 0;
            for (int j = 0; j < COLS; j++)
                sum += (double)e->h[i * COLS + j] * (double)got[r * COLS + j];
            loss += sum * (double)got[r * COLS + i];
        }
    }
    free(got);
    return loss;
}

static void *gptq(const struct example *e, const struct rows_format *f, bool act_order, int n_threads)
{
    char err[256];
    struct gptq g;
    const struct gptq_options o = {.damp = 0.01, .act_order = act_order, .n_threads = n_threads};
    void *bytes = calloc(1, (size_t)qtype_bytes(f->type, ROWS * COLS));
    ck_assert_ptr_nonnull(bytes);
    ck_assert_msg(gptq_init(&g, copy(e->h, COLS * COLS), COLS, &o, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(gptq_quantise(&g, f, bytes, e->w, ROWS, NULL), 0);
    gptq_free(&g);
    return bytes;
}

START_TEST(gptq_beats_rounding)
{
    const struct rows_format *f = &formats[_i / 2];
    const bool act_order = _i % 2;
    struct example e = example_new(0.7f);
    void *rounded = calloc(1, (size_t)qtype_bytes(f->type, ROWS * COLS));
    ck_assert_ptr_nonnull(rounded);
    float importance[COLS];
    for (int c = 0; c < COLS; c++)
        importance[c] = e.h[c * (COLS + 1)];
    rows_quantise(f, rounded, e.w, importance, ROWS, COLS, 1);
    void *one = gptq(&e, f, act_order, 1), *two = gptq(&e, f, act_order, 2);
    const double before = loss_of(&e, f, rounded), after = loss_of(&e, f, one);
    ck_assert_msg(after < 0.6 * before, "%s: %g, rounded %g", qtypes[f->type].name, after, before);
    ck_assert_mem_eq(one, two, (size_t)qtype_bytes(f->type, ROWS * COLS));
    free(two);
    free(one);
    free(rounded);
    example_free(&e);
}
END_TEST

/* Inputs that have nothing to do with each other: no column can make up for another one. */
START_TEST(gptq_of_identity_rounds)
{
    const struct rows_format *f = &formats[_i];
    struct example e = example_new(0);
    float importance[COLS];
    for (int i = 0; i < COLS * COLS; i++)
        e.h[i] = i % (COLS + 1) == 0;
    for (int c = 0; c < COLS; c++)
        importance[c] = 1;
    const size_t n = (size_t)qtype_bytes(f->type, ROWS * COLS);
    void *rounded = calloc(1, n), *got = gptq(&e, f, false, 1);
    ck_assert_ptr_nonnull(rounded);
    rows_quantise(f, rounded, e.w, importance, ROWS, COLS, 1);
    ck_assert_double_le(loss_of(&e, f, got), loss_of(&e, f, rounded) * 1.0001);
    free(got);
    free(rounded);
    example_free(&e);
}
END_TEST

/* Columns without input, and an H of rank 1. */
START_TEST(gptq_of_poor_inputs)
{
    struct example e = example_new(0.5f);
    for (int c = 0; c < COLS; c++)
        for (int k = 0; k < COLS; k++)
            e.h[c * COLS + k] = c % 3 && k % 3 ? (float)(c % 7 + 1) * (float)(k % 7 + 1) : 0;
    const struct rows_format f = {QTYPE_INT4Z, 128};
    void *got = gptq(&e, &f, true, 1);
    ck_assert(isfinite(loss_of(&e, &f, got)));
    free(got);
    for (int i = 0; i < COLS * COLS; i++)
        e.h[i] = 0;
    got = gptq(&e, &f, false, 1);
    float w[COLS];
    qtypes[f.type].to_f32(w, got, COLS);
    for (int c = 0; c < COLS; c++)
        ck_assert_float_eq_tol(w[c], e.w[c], 0.02f);
    free(got);
    example_free(&e);
}
END_TEST

START_TEST(gptq_refuses_nan)
{
    char err[256];
    struct gptq g;
    const struct gptq_options o = {.damp = 0.01, .n_threads = 1};
    float *h = calloc(COLS * COLS, sizeof *h);
    ck_assert_ptr_nonnull(h);
    for (int i = 0; i < COLS * COLS; i++)
        h[i] = NAN;
    ck_assert_int_eq(gptq_init(&g, h, COLS, &o, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "second moments"));
    ck_assert_ptr_null(g.inverse);
}
END_TEST

START_TEST(awq_scales_what_is_large)
{
    struct example e = example_new(0.2f);
    struct awq_input in = {.cols = COLS, .h = e.h, .n = 1, .n_runs = 1, .shared = 1, .n_threads = 1};
    in.matrix[0].w = e.w;
    in.matrix[0].rows = ROWS;
    in.matrix[0].format = (struct rows_format){QTYPE_INT3Z, 128};
    float scale[COLS];
    double gain;
    ck_assert_int_eq(awq_search(scale, &in, &gain), 0);
    ck_assert_double_lt(gain, 0.9);
    ck_assert_float_gt(scale[5], 1.2f * scale[6]);
    for (int c = 0; c < COLS; c++)
        ck_assert(scale[c] > 0 && isfinite(scale[c]));

    in.n_runs = 4; /* heads of 64, two of which share their values' rows */
    in.shared = 2;
    ck_assert_int_eq(awq_search(scale, &in, NULL), 0);
    for (int c = 0; c < COLS; c++)
        ck_assert(scale[c] == scale[c / 128 * 128 + c % 64]);
    example_free(&e);
}
END_TEST

/* Reweighting leaves less Σ |error|^0.7. */
START_TEST(hqq_lets_outliers_go)
{
    const struct rows_format f = {QTYPE_INT2Z, 64};
    struct example e = example_new(0);
    for (int i = 0; i < ROWS * COLS; i += 50)
        e.w[i] *= 6;
    const size_t n = (size_t)qtype_bytes(f.type, ROWS * COLS);
    void *bytes = calloc(1, n);
    float *got = malloc(sizeof *got * ROWS * COLS);
    ck_assert(bytes && got);
    double sum[2] = {0};
    for (int k = 0; k < 2; k++) {
        if (k == 0)
            rows_quantise(&f, bytes, e.w, NULL, ROWS, COLS, 1);
        else
            ck_assert_int_eq(rows_quantise_hqq(&f, bytes, e.w, NULL, ROWS, COLS, 1), 0);
        qtypes[f.type].to_f32(got, bytes, ROWS * COLS);
        for (int i = 0; i < ROWS * COLS; i++)
            sum[k] += pow(fabs((double)got[i] - (double)e.w[i]), 0.7);
    }
    ck_assert_double_lt(sum[1], 0.97 * sum[0]);
    free(got);
    free(bytes);
    example_free(&e);
}
END_TEST

static Suite *methods_suite(void)
{
    Suite *s = suite_create("methods");
    TCase *t = tcase_create("methods");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, gptq_beats_rounding, 0, 2 * N_FORMATS);
    tcase_add_loop_test(t, gptq_of_identity_rounds, 0, N_FORMATS);
    tcase_add_test(t, gptq_of_poor_inputs);
    tcase_add_test(t, gptq_refuses_nan);
    tcase_add_test(t, awq_scales_what_is_large);
    tcase_add_test(t, hqq_lets_outliers_go);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(methods_suite)

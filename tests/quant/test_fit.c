/* The quantisers: how close they come, and what they do with values that no block can hold. */
#include "quant/fit.h"
#include "quant/quant.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 16 * 256 };

/* Relative root-mean-square error on normally distributed values: measured, plus 5 %. */
static const double rmse_bound[QTYPE_N_MATRIX] = {
    [QTYPE_F32] = 0,         [QTYPE_F16] = 0.000219,  [QTYPE_BF16] = 0.00175,  [QTYPE_Q4_0] = 0.0845,
    [QTYPE_Q4_1] = 0.0746,   [QTYPE_Q5_0] = 0.0420,   [QTYPE_Q5_1] = 0.0363,   [QTYPE_Q8_0] = 0.00560,
    [QTYPE_Q2_K] = 0.2745,   [QTYPE_Q3_K] = 0.1506,   [QTYPE_Q4_K] = 0.0742,   [QTYPE_Q5_K] = 0.0366,
    [QTYPE_Q6_K] = 0.0177,   [QTYPE_IQ4_NL] = 0.0769, [QTYPE_IQ4_XS] = 0.0775, [QTYPE_INT2Z] = 0.352,
    [QTYPE_INT3Z] = 0.172,   [QTYPE_INT4Z] = 0.0815,  [QTYPE_INT8Z] = 0.0045,  [QTYPE_IQ1_S] = 0.482,
    [QTYPE_IQ1_M] = 0.446,   [QTYPE_IQ2_XXS] = 0.352, [QTYPE_IQ2_XS] = 0.307,  [QTYPE_IQ2_S] = 0.257,
    [QTYPE_IQ3_XXS] = 0.191, [QTYPE_IQ3_S] = 0.139,   [QTYPE_TQ1_0] = 0.473,   [QTYPE_TQ2_0] = 0.473,
    [QTYPE_MXFP4] = 0.1155,  [QTYPE_NVFP4] = 0.0965,
};

struct arrays {
    float x[N], y[N], z[N];
    uint8_t bytes[N * 4], again[N * 4];
};

static struct arrays *s; /* one per test process */

static void setup(void)
{
    s = malloc(sizeof *s);
    ck_assert_ptr_nonnull(s);
    uint32_t state = 1;
    for (int i = 0; i < N; i++) { /* Box and Muller */
        state = state * 1664525 + 1013904223;
        double u = ((state >> 8) + 0.5) * 0x1p-24;
        state = state * 1664525 + 1013904223;
        double v = ((state >> 8) + 0.5) * 0x1p-24;
        s->x[i] = (float)(sqrt(-2 * log(u)) * cos(2 * 3.14159265358979 * v));
    }
}

static void teardown(void)
{
    free(s);
}

static double relative_error(const float *y, const float *x, int n)
{
    double error = 0, power = 0;
    for (int i = 0; i < n; i++) {
        error += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
        power += (double)x[i] * (double)x[i];
    }
    return sqrt(error / power);
}

static void there_and_back(const struct qtype_info *t, float *y, const float *x, int n)
{
    t->from_f32(s->bytes, x, n);
    t->to_f32(y, s->bytes, n);
}

START_TEST(normal_values)
{
    const struct qtype_info *t = &qtypes[_i];
    /* At weights' usual size too: there the common scales of super-blocks are denormal halves. */
    for (int shift = 0; shift < 2; shift++) {
        for (int i = 0; i < N; i++)
            s->z[i] = s->x[i] * (shift ? 0.02f : 1);
        there_and_back(t, s->y, s->z, N);
        double error = relative_error(s->y, s->z, N);
        ck_assert_msg(error <= rmse_bound[_i], "%s: %f", t->name, error);
    }
}
END_TEST

/* What a decoder gave, the quantiser keeps: to the last bit where its codes are unique, else nearly. */
START_TEST(decoded_values_stay)
{
    const struct qtype_info *t = &qtypes[_i];
    there_and_back(t, s->y, s->x, N);
    t->from_f32(s->again, s->y, N);
    if (t->block_len == 1 || _i == QTYPE_Q8_0)
        ck_assert_mem_eq(s->again, s->bytes, (size_t)qtype_bytes((enum qtype)_i, N));
    t->to_f32(s->z, s->again, N);
    double error = relative_error(s->z, s->y, N);
    ck_assert_msg(error <= rmse_bound[_i] / 3, "%s: %f", t->name, error);
}
END_TEST

START_TEST(zeros)
{
    const struct qtype_info *t = &qtypes[_i];
    memset(s->z, 0, sizeof s->z);
    there_and_back(t, s->y, s->z, N);
    ck_assert_mem_eq(s->y, s->z, sizeof s->z); /* +0, every one */
    for (int i = 0; i < N; i++)
        s->z[i] = -0.0f;
    there_and_back(t, s->y, s->z, N);
    for (int i = 0; i < N; i++)
        if (s->y[i] != 0)
            ck_abort_msg("%s: %g", t->name, (double)s->y[i]);
}
END_TEST

START_TEST(constants)
{
    const struct qtype_info *t = &qtypes[_i];
    const float values[] = {1, -1, 0.03f, -0.03f, 1000, -1000};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (int i = 0; i < 256; i++)
            s->z[i] = values[v];
        there_and_back(t, s->y, s->z, 256);
        double error = relative_error(s->y, s->z, 256);
        /* Scales of 3 bits and powers of two are coarse. */
        ck_assert_msg(error <= (_i == QTYPE_MXFP4   ? 0.15
                                : _i == QTYPE_NVFP4 ? 0.05
                                                    : 0.004),
                      "%s: %f as %f", t->name, (double)values[v], (double)s->y[0]);
    }
}
END_TEST

/* One value far above the others is not lost, nor are the other blocks' values. */
START_TEST(outliers)
{
    const struct qtype_info *t = &qtypes[_i];
    for (int at = 0; at < 256; at += 37)
        for (int sign = -1; sign <= 1; sign += 2) {
            memcpy(s->z, s->x, 512 * sizeof(float));
            s->z[at] = (float)sign * 500;
            there_and_back(t, s->y, s->z, 512);
            /* IQ2 has to weigh the others against it, and scales of 3 bits are coarse. */
            const bool coarse = (_i >= QTYPE_IQ2_XXS && _i <= QTYPE_IQ2_S) || _i == QTYPE_NVFP4;
            ck_assert_msg(fabsf(s->y[at] - s->z[at]) < (coarse ? 40 : 15), "%s: %f", t->name,
                          (double)s->y[at]);
            there_and_back(t, s->z, s->x + 256, 256);
            ck_assert_mem_eq(s->y + 256, s->z, 256 * sizeof(float));
        }
}
END_TEST

START_TEST(tiny_values)
{
    const struct qtype_info *t = &qtypes[_i];
    const float scales[] = {1e-6f, 1e-7f, 1e-8f, 1e-20f, 1e-38f, 1e-41f, FLT_TRUE_MIN};
    for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
        for (int i = 0; i < 512; i++)
            s->z[i] = s->x[i] * scales[k];
        there_and_back(t, s->y, s->z, 512);
        double error = 0, power = 0;
        for (int i = 0; i < 512; i++) {
            error += pow((double)s->y[i] - (double)s->z[i], 2);
            power += pow((double)s->z[i], 2);
        }
        /* Never worse than all zeros, but for the rounding of minima to halves. */
        ck_assert_double_le(sqrt(error / 512), sqrt(power / 512) + 0x1p-25);
    }
}
END_TEST

START_TEST(huge_values)
{
    const struct qtype_info *t = &qtypes[_i];
    const float scales[] = {1e5f, 1e7f, 1e19f, 1e30f, 5e37f};
    for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
        for (int i = 0; i < 512; i++)
            s->z[i] = s->x[i] * scales[k];
        s->z[3] = FLT_MAX;
        s->z[300] = -FLT_MAX;
        there_and_back(t, s->y, s->z, 512);
        if (_i == QTYPE_NVFP4) /* its scales end at 448 */
            ck_assert(s->y[3] == 2688 && s->y[300] == -2688);
        else /* F16 and BF16 may round to infinity */
            ck_assert(s->y[3] >= 65504 && s->y[300] <= -65504);
        for (int i = 0; i < 512; i++)
            if (t->block_len == 1 ? isnan(s->y[i]) : !isfinite(s->y[i]))
                ck_abort_msg("%s: %g", t->name, (double)s->y[i]);
    }
}
END_TEST

START_TEST(faults_stay_visible)
{
    const struct qtype_info *t = &qtypes[_i];
    const float faults[] = {NAN, -NAN, INFINITY, -INFINITY};
    there_and_back(t, s->z, s->x, 768);
    for (size_t k = 0; k < 4; k++)
        for (int at = 256; at < 512; at += 51) {
            float kept = s->x[at];
            s->x[at] = faults[k];
            there_and_back(t, s->y, s->x, 768);
            s->x[at] = kept;
            if (t->block_len == 1)
                ck_assert(isnan(faults[k]) ? isnan(s->y[at]) : s->y[at] == faults[k]);
            for (int i = 0; i < 768; i++) {
                bool beside = i / t->block_len != at / t->block_len;
                /* The scales of MXFP4 and NVFP4 cannot be NaN: infinite values, and no promise. */
                bool visible = _i == QTYPE_NVFP4 || (_i == QTYPE_MXFP4 ? isinf(s->y[i]) : isnan(s->y[i]));
                if (beside ? s->y[i] != s->z[i] : t->block_len > 1 && !visible)
                    ck_abort_msg("%s: element %d is %g", t->name, i, (double)s->y[i]);
            }
        }
}
END_TEST

/* Some columns matter a thousand times more than others, as activations of real models have it. */
static void skewed_importance(float *w)
{
    for (int i = 0; i < N; i++)
        w[i] = i % 13 == 0 ? 20 : i % 3 == 0 ? 1 : 0.02f;
}

static double weighted_error(const float *y, const float *x, const float *w)
{
    double error = 0;
    for (int i = 0; i < N; i++)
        error += (double)w[i] * pow((double)y[i] - (double)x[i], 2);
    return error;
}

START_TEST(importance_lowers_the_weighted_error)
{
    const struct qtype_info *t = &qtypes[_i];
    float *w = malloc(N * sizeof *w);
    ck_assert_ptr_nonnull(w);
    skewed_importance(w);
    there_and_back(t, s->y, s->x, N);
    t->quantise(s->again, s->x, w, N);
    t->to_f32(s->z, s->again, N);
    double with = weighted_error(s->z, s->x, w), without = weighted_error(s->y, s->x, w);
    if (t->block_len == 1 || _i == QTYPE_Q8_0)
        ck_assert_mem_eq(s->z, s->y, sizeof s->z);
    else
        /* One scale for 256 elements, or one of few scales, leaves little to choose. */
        ck_assert_msg(with < (_i >= QTYPE_TQ1_0 && _i <= QTYPE_MXFP4 ? 0.98 : 0.9) * without,
                      "%s: %g with, %g without", t->name, with, without);

    /* Only relative importance matters; none at all is the same as equal. */
    const float flat[] = {1, 1e-30f, 1e30f, 0};
    for (size_t k = 0; k < sizeof flat / sizeof *flat; k++) {
        for (int i = 0; i < N; i++)
            w[i] = flat[k];
        t->quantise(s->again, s->x, w, N);
        ck_assert_mem_eq(s->again, s->bytes, (size_t)qtype_bytes((enum qtype)_i, N));
    }
    free(w);
}
END_TEST

/* The search compiled for AVX2 finds the same, to the last bit. */
START_TEST(levels_agree)
{
#ifdef __x86_64__
    if (!__builtin_cpu_supports("avx2")) {
        test_skip("levels_agree", "this CPU has no AVX2");
        return;
    }
    const struct fit_functions *a = &fit_plain, *b = &fit_avx2;
    const struct codes eight = {-8, 7, NULL}, ternary = {-1, 1, NULL};
    const struct codes *const codes[] = {&eight, &ternary, &iq4_codes, &fp4_codes};
    float *w = malloc(N * sizeof *w);
    ck_assert_ptr_nonnull(w);
    skewed_importance(w);
    s->x[5] = 300;
    for (int i = 700; i < 720; i++)
        s->x[i] = 0;
    for (int with = 0; with < 2; with++)
        for (int i = 0; i < N; i += QK_K) {
            const float *x = s->x + i, *wi = with ? w + i : NULL;
            struct block_256 p, q;
            struct block_32 k, l;
            struct block_zero y, z;
            memset(&k, 0, sizeof k);
            memset(&l, 0, sizeof l);
            for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
                a->super(&p, x, wi, 16, codes[c], -32);
                b->super(&q, x, wi, 16, codes[c], -32);
                ck_assert_mem_eq(&p, &q, sizeof p);
                a->block(&k, x, wi, codes[c]);
                b->block(&l, x, wi, codes[c]);
                ck_assert_mem_eq(&k, &l, sizeof k);
            }
            const struct lattice lattices[] = {
                {lattice_iq2_xs(), 512, 8, 16, 15, 0.125f, 43, 8, true, SHIFT_NONE},
                {lattice_iq3_s(), 512, 4, 32, 15, 1, 15, 1, false, SHIFT_NONE},
                {lattice_iq1(), 2048, 8, 32, 7, 1, 1, 1, false, SHIFT_BY_SUB},
                {lattice_iq1(), 2048, 8, 16, 7, 1, 1, 1, false, SHIFT_BY_GROUP},
            };
            for (size_t c = 0; c < sizeof lattices / sizeof *lattices && i < 2 * QK_K; c++) {
                struct lattice_block m, n;
                memset(&m, 0, sizeof m);
                memset(&n, 0, sizeof n);
                a->lattice(&m, x, wi, &lattices[c]);
                b->lattice(&n, x, wi, &lattices[c]);
                ck_assert_mem_eq(&m, &n, sizeof m);
            }
            for (int q_max = 3; q_max < 32; q_max = 2 * q_max + 1) {
                a->super_min(&p, x, wi, 32, q_max, 63);
                b->super_min(&q, x, wi, 32, q_max, 63);
                ck_assert_mem_eq(&p, &q, sizeof p);
                a->block_min(&k, x, wi, q_max);
                b->block_min(&l, x, wi, q_max);
                ck_assert_mem_eq(&k, &l, sizeof k);
            }
            a->block_extreme(&k, x, 127);
            b->block_extreme(&l, x, 127);
            ck_assert_mem_eq(&k, &l, sizeof k);
            for (int bits = 2; bits <= 8; bits++) {
                a->group_zero(&y.d, &y.zero, y.q, x, wi, 32, bits);
                b->group_zero(&z.d, &z.zero, z.q, x, wi, 32, bits);
                ck_assert_mem_eq(&y, &z, sizeof y);
            }
        }
    free(w);
#endif
}
END_TEST

static Suite *fit_suite(void)
{
    Suite *suite = suite_create("quant/fit");
    TCase *tc = tcase_create("quantisers");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, normal_values, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, decoded_values_stay, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, zeros, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, constants, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, outliers, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, tiny_values, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, huge_values, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, faults_stay_visible, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, importance_lowers_the_weighted_error, 0, QTYPE_N_MATRIX);
    tcase_add_test(tc, levels_agree);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(fit_suite)

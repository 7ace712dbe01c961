/* Numbers of rows of logits against long double, and those of a text against values computed by hand. */
#include "lab/divergence.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

/* Logits like a model's: most are far below a few. */
static float *make_row(int64_t n, unsigned seed)
{
    float *row = malloc((size_t)n * sizeof *row);
    ck_assert_ptr_nonnull(row);
    uint32_t x = seed * 2654435761u + 1;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        float u = (float)(x >> 8) / (float)(1 << 24);
        row[i] = 3 - 20 * sqrtf(u);
    }
    return row;
}

static long double exact_log_sum(const float *row, int64_t n)
{
    long double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += expl((long double)row[i]);
    return logl(sum);
}

static const int64_t lengths[] = {1, 2, 15, 16, 17, 100, 4095, 4097, 50000};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

START_TEST(log_sums_are_exact)
{
    const int64_t n = lengths[_i];
    float *row = make_row(n, 3);
    ck_assert_double_eq_tol(logits_log_sum_exp(row, n), (double)exact_log_sum(row, n), 2e-7);
    for (int64_t i = 0; i < n; i++) /* far from 0, where e^x alone is no float */
        row[i] += 1000;
    double low = logits_log_sum_exp(row, n);
    ck_assert_double_eq_tol(low, 1000 + log(exp(low - 1000)), 1e-9);
    ck_assert(low > 990 && low < 1010);
    row[n / 2] = NAN;
    ck_assert(isnan(logits_log_sum_exp(row, n)));
    free(row);
}
END_TEST

START_TEST(the_first_largest_is_the_top)
{
    const int64_t n = lengths[_i];
    float *row = make_row(n, 4);
    for (int64_t at = 0; at < n; at += n / 7 + 1) {
        row[at] = 50;
        row[n - 1] = n - 1 == at ? 50 : row[n - 1];
        int64_t first = 0;
        while (row[first] != 50)
            first++;
        ck_assert_int_eq(logits_top(row, n), first);
    }
    for (int64_t i = 0; i < n; i++)
        row[i] = NAN;
    ck_assert_int_eq(logits_top(row, n), 0);
    free(row);
}
END_TEST

START_TEST(divergences_of_rows_are_exact)
{
    const int64_t n = lengths[_i];
    for (unsigned k = 1; k < 6; k++) {
        float *p = make_row(n, k), *q = make_row(n, k);
        float *noise = make_row(n, k + 100);
        for (int64_t i = 0; i < n; i++)
            q[i] = p[i] + 0.02f * (float)k * noise[i] + 5; /* a constant changes nothing */
        long double lp = exact_log_sum(p, n), lq = exact_log_sum(q, n), kl = 0;
        for (int64_t i = 0; i < n; i++)
            kl += expl((long double)p[i] - lp) * (((long double)p[i] - lp) - ((long double)q[i] - lq));
        const int32_t token = (int32_t)(n / 3);
        struct token_score s = token_score(q, p, n, token);
        ck_assert_double_eq_tol(s.kl, (double)kl, 1e-7 + 1e-6 * (double)kl);
        ck_assert_double_eq_tol(s.nll, (double)(lq - (long double)q[token]), 2e-6);
        ck_assert_double_eq_tol(s.base_nll, (double)(lp - (long double)p[token]), 2e-6);
        ck_assert(s.same_top == (logits_top(p, n) == logits_top(q, n)));
        struct token_score self = token_score(p, p, n, token);
        ck_assert(self.kl == 0 && self.same_top && self.nll == self.base_nll);
        ck_assert_double_eq_tol(token_score(p, NULL, n, token).nll, self.nll, 1e-12);
        free(p);
        free(q);
        free(noise);
    }
}
END_TEST

START_TEST(quantiles_lie_between_values)
{
    const double v[] = {1, 2, 4, 8};
    ck_assert_double_eq(quantile(v, 4, 0), 1);
    ck_assert_double_eq(quantile(v, 4, 1), 8);
    ck_assert_double_eq(quantile(v, 4, 0.5), 3);
    ck_assert_double_eq_tol(quantile(v, 4, 0.9), 6.8, 1e-12); /* numpy.quantile */
    ck_assert_double_eq(quantile(v, 1, 0.9), 1);
}
END_TEST

/* By hand (and numpy): nll 1, 2, 3; base 1, 1, 2. */
START_TEST(a_text_is_summed_up)
{
    const struct token_score s[] = {{1, 1, 0.1, true}, {2, 1, 0.4, false}, {3, 2, 0.2, true}};
    struct divergence d;
    ck_assert_int_eq(divergence_of(&d, s, 3), 0);
    ck_assert_int_eq(d.n, 3);
    ck_assert_double_eq_tol(d.ppl.value, 7.38905609893065, 1e-12);
    ck_assert_double_eq_tol(d.ppl.error, 7.38905609893065 * sqrt(2.0 / 3 / 2), 1e-12);
    ck_assert_double_eq_tol(d.ppl_base.value, exp(4.0 / 3), 1e-12);
    ck_assert_double_eq_tol(d.ppl_ratio.value, exp(2.0 / 3), 1e-12);
    ck_assert_double_eq_tol(d.ppl_ratio.error, exp(2.0 / 3) * sqrt(2.0 / 9 / 2), 1e-12);
    ck_assert_double_eq_tol(d.kl.value, 0.7 / 3, 1e-12);
    ck_assert_double_eq_tol(d.kl.error, sqrt((0.21 / 3 - 0.49 / 9) / 2), 1e-12);
    ck_assert_double_eq_tol(d.kl_median, 0.2, 1e-12);
    ck_assert_double_eq_tol(d.kl_p90, 0.36, 1e-12);
    ck_assert_double_eq(d.kl_max, 0.4);
    ck_assert_double_eq(d.kl_min, 0.1);
    const double dp[] = {0, 100 * (exp(-2) - exp(-1)), 100 * (exp(-3) - exp(-2))};
    const double mean = (dp[1] + dp[2]) / 3, square = (dp[1] * dp[1] + dp[2] * dp[2]) / 3;
    ck_assert_double_eq_tol(d.dp.value, mean, 1e-12);
    ck_assert_double_eq_tol(d.dp.error, sqrt((square - mean * mean) / 2), 1e-12);
    ck_assert_double_eq_tol(d.dp_rms.value, sqrt(square), 1e-12);
    ck_assert_double_eq_tol(d.dp_median, dp[2], 1e-12);
    ck_assert_double_eq_tol(d.top1_same.value, 200.0 / 3, 1e-12);
    ck_assert_double_eq_tol(d.top1_same.error, 100 * sqrt(2.0 / 9 / 2), 1e-12);
    ck_assert_int_eq(divergence_of(&d, s, 1), 0);
    ck_assert(d.ppl.error == 0 && d.dp_rms.error == 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/divergence");
    TCase *tc = tcase_create("divergence");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, log_sums_are_exact, 0, N_LENGTHS);
    tcase_add_loop_test(tc, the_first_largest_is_the_top, 0, N_LENGTHS);
    tcase_add_loop_test(tc, divergences_of_rows_are_exact, 0, N_LENGTHS);
    tcase_add_test(tc, quantiles_lie_between_values);
    tcase_add_test(tc, a_text_is_summed_up);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

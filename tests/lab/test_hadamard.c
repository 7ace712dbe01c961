/* Rotations are orthogonal, flat, and always the same. */
#include "lab/hadamard.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *zeros(int64_t n)
{
    double *x = calloc((size_t)n, sizeof *x);
    ck_assert_ptr_nonnull(x);
    return x;
}

static const int64_t orders[] = {1, 2, 3, 7, 8, 12, 20, 64, 80, 96, 144, 224, 256};
enum { N_ORDERS = sizeof orders / sizeof *orders };

/* Qᵀ, column by column, has rows of length 1 at right angles, and no element much larger than others. */
START_TEST(is_orthogonal_and_flat)
{
    const int64_t n = orders[_i];
    struct rotation r;
    ck_assert_int_eq(rotation_init(&r, n, 3), 0);
    double *q = zeros(n * n), *room = zeros(n * n);
    for (int64_t i = 0; i < n; i++)
        q[i * n + i] = 1;
    rotation_apply(&r, q, n, room);
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double dot = 0;
            for (int64_t k = 0; k < n; k++)
                dot += q[i * n + k] * q[j * n + k];
            ck_assert_double_eq_tol(dot, i == j, 1e-12);
            largest = fmax(largest, fabs(q[i * n + j]));
        }
    const double bound = r.m == 1 ? 1 / sqrt((double)n) : sqrt(2.0 / (double)n);
    ck_assert_double_le(largest, bound * (1 + 1e-12));
    free(q);
    free(room);
    rotation_free(&r);
}
END_TEST

/* Columns side by side get the bits that each gets by itself. */
START_TEST(columns_are_independent)
{
    enum { N = 96, WIDTH = 5 };
    struct rotation r;
    ck_assert_int_eq(rotation_init(&r, N, 1), 0);
    double x[N * WIDTH], room[N * WIDTH], one[WIDTH][N];
    for (int i = 0; i < N * WIDTH; i++)
        one[i % WIDTH][i / WIDTH] = x[i] = sin(i * i);
    rotation_apply(&r, x, WIDTH, room);
    for (int c = 0; c < WIDTH; c++) {
        rotation_apply(&r, one[c], 1, room);
        for (int i = 0; i < N; i++)
            ck_assert(one[c][i] == x[i * WIDTH + c]);
    }
    rotation_free(&r);
}
END_TEST

/* SplitMix64 of the seed 1234567 begins 6457827717110365317, 3203168211198807973, 9817491932198370423,
 * 4593380528125082431, 16408922859458223821: signs are the highest bits. */
START_TEST(signs_are_those_of_splitmix64)
{
    static const double expected[5] = {1, 1, -1, 1, -1};
    struct rotation r;
    ck_assert_int_eq(rotation_init(&r, 5, 1234567), 0);
    ck_assert_mem_eq(r.sign, expected, sizeof expected);
    rotation_free(&r);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("hadamard");
    TCase *tc = tcase_create("rotation");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, is_orthogonal_and_flat, 0, N_ORDERS);
    tcase_add_test(tc, columns_are_independent);
    tcase_add_test(tc, signs_are_those_of_splitmix64);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

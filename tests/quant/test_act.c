/* Rule 3 of the numerics contract, its edges included. */
#include "quant/quant.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* One block of zeros but for x[at] = value and x[31] = other. */
static struct act_block quantise_two(int at, float value, float other)
{
    float x[ACT_LEN] = {0};
    x[at] = value;
    x[31] = other;
    struct act_block b;
    memset(&b, 0xff, sizeof b);
    act_quantise(&b, x, ACT_LEN);
    return b;
}

static void check_zero(struct act_block b)
{
    const struct act_block zero = {0};
    ck_assert_mem_eq(&b, &zero, sizeof b);
}

static void check_nan(struct act_block b)
{
    ck_assert_float_nan(b.d);
    ck_assert_float_nan(b.ds);
    b.d = b.ds = 0;
    check_zero(b);
}

START_TEST(rounds_halves_to_even)
{
    /* amax 127: d = 1, so values are their own codes. */
    float x[2 * ACT_LEN] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f, 0.49999997f, 0.50000006f};
    x[16] = 127;
    x[17] = -126.75f;
    for (int i = 0; i < ACT_LEN; i++)
        x[ACT_LEN + i] = (float)(i - 16) * 2;
    struct act_block b[2];
    act_quantise(b, x, 2 * ACT_LEN);
    const int8_t want[ACT_LEN] = {0, 2, 2, 0, -2, -2, 126, -126, 0, 1, [16] = 127, [17] = -127};
    ck_assert_mem_eq(b[0].q, want, sizeof want);
    ck_assert(b[0].d == 1 && b[0].ds == 1);
    ck_assert_int_eq(b[0].sum[0], 1);
    ck_assert_int_eq(b[0].sum[1], 0);
    ck_assert(b[0].unused[0] == 0 && b[0].unused[1] == 0);

    ck_assert(b[1].d == 32.0f / 127.0f);
    int sum[2] = {0};
    for (int i = 0; i < ACT_LEN; i++) {
        float scaled = x[ACT_LEN + i] * (127.0f / 32.0f);
        ck_assert_int_eq(b[1].q[i], (int)nearbyintf(scaled));
        sum[i / 16] += b[1].q[i];
    }
    ck_assert_int_eq(b[1].sum[0], sum[0]);
    ck_assert_int_eq(b[1].sum[1], sum[1]);
    ck_assert(b[1].ds == b[1].d * (float)(sum[0] + sum[1]));
}
END_TEST

START_TEST(tiny_blocks_are_zero)
{
    check_zero(quantise_two(0, 0, 0));
    check_zero(quantise_two(3, -0.0f, 0));
    check_zero(quantise_two(3, FLT_TRUE_MIN, -FLT_MIN));
    check_zero(quantise_two(3, nextafterf(0x1p-100f, 0), 0));
    struct act_block b = quantise_two(3, -0x1p-100f, 0x1p-101f);
    ck_assert(b.d == 0x1p-100f / 127.0f);
    ck_assert_int_eq(b.q[3], -127);
    ck_assert_int_eq(b.q[31], 64); /* 63.5 */
}
END_TEST

START_TEST(huge_blocks_do_not_overflow)
{
    struct act_block b = quantise_two(15, -FLT_MAX, FLT_MAX);
    ck_assert(b.d == FLT_MAX / 127.0f);
    ck_assert_int_eq(b.q[15], -127);
    ck_assert_int_eq(b.q[31], 127);
    ck_assert_int_eq(b.sum[0], -127);
    ck_assert_int_eq(b.sum[1], 127);
    ck_assert(b.ds == 0);
}
END_TEST

START_TEST(faults_stay_visible)
{
    for (int at = 0; at < ACT_LEN - 1; at++) {
        check_nan(quantise_two(at, NAN, 1));
        check_nan(quantise_two(at, -NAN, INFINITY));
        check_nan(quantise_two(at, INFINITY, 1));
        check_nan(quantise_two(at, -INFINITY, FLT_MAX));
    }
    /* … in the block that has them, and nowhere else. */
    float x[3 * ACT_LEN];
    struct act_block b[3], alone;
    for (int i = 0; i < 3 * ACT_LEN; i++)
        x[i] = (float)i;
    x[40] = NAN;
    act_quantise(b, x, 3 * ACT_LEN);
    check_nan(b[1]);
    for (int i = 0; i < 3; i += 2) {
        act_quantise(&alone, x + i * ACT_LEN, ACT_LEN);
        ck_assert_mem_eq(&b[i], &alone, sizeof alone);
    }
}
END_TEST

/* |x − d q| ≤ d/2 and a whisker, at any magnitude. */
START_TEST(error_is_half_a_step)
{
    uint32_t state = 1;
    for (int exponent = -99; exponent < 127; exponent++) {
        float x[ACT_LEN];
        for (int i = 0; i < ACT_LEN; i++) {
            state = state * 1664525 + 1013904223;
            x[i] = ldexpf((float)(int32_t)state, exponent - 31);
        }
        struct act_block b;
        act_quantise(&b, x, ACT_LEN);
        for (int i = 0; i < ACT_LEN; i++)
            ck_assert_double_le(fabs((double)x[i] - (double)b.d * b.q[i]), (double)b.d * 0.50002);
    }
}
END_TEST

static Suite *act_suite(void)
{
    Suite *s = suite_create("quant/act");
    TCase *tc = tcase_create("blocks");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, rounds_halves_to_even);
    tcase_add_test(tc, tiny_blocks_are_zero);
    tcase_add_test(tc, huge_blocks_do_not_overflow);
    tcase_add_test(tc, faults_stay_visible);
    tcase_add_test(tc, error_is_half_a_step);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(act_suite)

/* The functions of mathf.h against double, over all of their domain. What the levels make of them is
 * tested where they are used: test_rows.c and test_attention.c. */
#include "kernels/mathf.h"
#include "tests/test.h"

#include <float.h>

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Distance of y from the exact value, in units of the last place of a float of that size. */
static double ulps(float y, double exact)
{
    int exponent;
    (void)frexp(exact, &exponent);
    return fabs((double)y - exact) / ldexp(1, exponent - FLT_MANT_DIG);
}

START_TEST(exp_is_within_one_ulp)
{
    double worst = 0;
    for (uint32_t bits = 0x20000000; bits < 0x42b20000; bits += 97) /* 1e-19 … 89 */
        for (uint32_t sign = 0; sign < 2; sign++) {
            float x = float_of(bits | sign << 31), y = mathf_exp(x);
            if (x > EXP_MAX || x < EXP_MIN)
                continue;
            double u = ulps(y, exp((double)x));
            worst = u > worst ? u : worst;
        }
    ck_assert_msg(worst < 1.0, "%g ulp", worst);
}
END_TEST

START_TEST(exp_of_the_edges)
{
    ck_assert(mathf_exp(0) == 1 && mathf_exp(-0.0f) == 1);
    ck_assert(mathf_exp(FLT_TRUE_MIN) == 1 && mathf_exp(-FLT_TRUE_MIN) == 1);
    ck_assert(mathf_exp(INFINITY) == INFINITY && mathf_exp(FLT_MAX) == INFINITY);
    ck_assert(mathf_exp(-INFINITY) == 0 && mathf_exp(-FLT_MAX) == 0);
    ck_assert(isnan(mathf_exp(NAN)) && isnan(mathf_exp(-NAN)));
    ck_assert(mathf_exp(EXP_MAX) < INFINITY && mathf_exp(nextafterf(EXP_MAX, 100)) == INFINITY);
    ck_assert(mathf_exp(EXP_MIN) >= FLT_MIN && mathf_exp(nextafterf(EXP_MIN, -100)) == 0);
}
END_TEST

START_TEST(exp_rises)
{
    float last = 0, x = -88;
    for (float y; x < 89 && (y = mathf_exp(x)) >= last; x += 0.0009765625f)
        last = y;
    ck_assert_msg(x >= 89, "e^%g", (double)x);
}
END_TEST

START_TEST(silu_is_near)
{
    double worst = 0;
    for (float x = -87; x < 100; x += 0.0078125f) {
        double y = (double)x / (1 + exp(-(double)x));
        worst = fmax(worst, x == 0 ? 0 : fabs((double)mathf_silu(x) - y) / fabs(y));
    }
    ck_assert_double_le(worst, 3e-7);
    ck_assert(mathf_silu(0) == 0 && mathf_silu(FLT_MAX) == FLT_MAX && mathf_silu(-FLT_MAX) == 0);
    ck_assert(isnan(mathf_silu(NAN)) && isnan(mathf_silu(-INFINITY)) && mathf_silu(INFINITY) == INFINITY);
}
END_TEST

/* The order of the 16 sums, spelled out. */
START_TEST(sum16_is_the_fixed_tree)
{
    float s[16];
    for (int i = 0; i < 16; i++)
        s[i] = ldexpf(1.0f + (float)(i * i % 7) / 8, i * 5 % 16 * 2);
    float even = ((s[0] + s[8]) + (s[4] + s[12])) + ((s[2] + s[10]) + (s[6] + s[14]));
    float odd = ((s[1] + s[9]) + (s[5] + s[13])) + ((s[3] + s[11]) + (s[7] + s[15]));
    ck_assert(mathf_sum16(s) == even + odd);
}
END_TEST

static Suite *mathf_suite(void)
{
    Suite *s = suite_create("kernels/mathf");
    TCase *t = tcase_create("mathf");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, exp_is_within_one_ulp);
    tcase_add_test(t, exp_of_the_edges);
    tcase_add_test(t, exp_rises);
    tcase_add_test(t, silu_is_near);
    tcase_add_test(t, sum16_is_the_fixed_tree);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(mathf_suite)

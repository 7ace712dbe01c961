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

static float silu(float x)
{
    return mathf_silu(x);
}

static float gelu_t(float x)
{
    return mathf_gelu_tanh(x);
}

static float gelu_e(float x)
{
    return mathf_gelu_erf(x);
}

static float relu(float x)
{
    return mathf_relu(x);
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
}
END_TEST

START_TEST(tanh_is_within_two_ulps)
{
    double worst = 0;
    for (uint32_t bits = 0x20000000; bits < 0x42b20000; bits += 89) /* 1e-19 … 89 */
        for (uint32_t sign = 0; sign < 2; sign++) {
            float x = float_of(bits | sign << 31);
            worst = fmax(worst, ulps(mathf_tanh(x), tanh((double)x)));
        }
    ck_assert_msg(worst < 2.0, "%g ulp", worst);
}
END_TEST

START_TEST(tanh_of_the_edges)
{
    ck_assert(mathf_tanh(0) == 0 && mathf_tanh(-0.0f) == 0);
    ck_assert(mathf_tanh(FLT_TRUE_MIN) == FLT_TRUE_MIN && mathf_tanh(-FLT_TRUE_MIN) == -FLT_TRUE_MIN);
    ck_assert(mathf_tanh(INFINITY) == 1 && mathf_tanh(-INFINITY) == -1);
    ck_assert(mathf_tanh(FLT_MAX) == 1 && mathf_tanh(-FLT_MAX) == -1);
    ck_assert(isnan(mathf_tanh(NAN)) && isnan(mathf_tanh(-NAN)));
    float last = -1; /* it rises, the seam of its two forms included */
    for (float x = -9.5f; x < 9.5f; x += 0.00006103515625f) {
        ck_assert(mathf_tanh(x) >= last);
        last = mathf_tanh(x);
    }
}
END_TEST

START_TEST(softcap_is_near)
{
    double worst = 0;
    for (float x = -300; x < 300; x += 0.0078125f)
        worst = fmax(worst, ulps(mathf_softcap(x, 30), x == 0 ? 0 : 30 * tanh((double)x / 30)));
    ck_assert_double_le(worst, 4);
    ck_assert(mathf_softcap(INFINITY, 30) == 30 && mathf_softcap(-FLT_MAX, 50) == -50);
}
END_TEST

static double gelu_tanh(double x)
{
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    return u < 0 ? x * exp(2 * u) / (1 + exp(2 * u)) : x / (1 + exp(-2 * u));
}

static double gelu_erf(double x)
{
    return x * 0.5 * erfc(-x / sqrt(2));
}

/* Relative errors; in the tail an exponent e^-y is as near as its argument can be given, y · 2^-23. */
START_TEST(gelus_are_near)
{
    double worst_tanh = 0, worst_erf = 0;
    for (float x = -13; x < 100; x += 0.0009765625f) {
        double d = (double)x, a = gelu_tanh(d), b = gelu_erf(d), tail = x < 0 ? d * d : 0;
        if (x == 0)
            continue;
        if (x > -9.9f)
            worst_tanh = fmax(worst_tanh, fabs((double)mathf_gelu_tanh(x) - a) / fabs(a) / (4 + 2 * tail));
        worst_erf = fmax(worst_erf, fabs((double)mathf_gelu_erf(x) - b) / fabs(b) / (4 + tail));
    }
    ck_assert_msg(worst_tanh < 0x1p-23, "%g of 2^-23", worst_tanh * 0x1p23);
    ck_assert_msg(worst_erf < 0x1p-23, "%g of 2^-23", worst_erf * 0x1p23);
}
END_TEST

START_TEST(activations_of_the_edges)
{
    float (*const f[])(float) = {silu, gelu_t, gelu_e, relu};
    for (int i = 0; i < 4; i++) {
        ck_assert(f[i](0) == 0 && f[i](FLT_MAX) == FLT_MAX && f[i](-FLT_MAX) == 0);
        ck_assert(isnan(f[i](NAN)) && f[i](INFINITY) == INFINITY);
        ck_assert(i == 3 ? f[i](-INFINITY) == 0 : isnan(f[i](-INFINITY)));
    }
    ck_assert(mathf_relu(-1e-30f) == 0 && mathf_relu(1e-30f) == 1e-30f);
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
    tcase_add_test(t, tanh_is_within_two_ulps);
    tcase_add_test(t, tanh_of_the_edges);
    tcase_add_test(t, softcap_is_near);
    tcase_add_test(t, gelus_are_near);
    tcase_add_test(t, activations_of_the_edges);
    tcase_add_test(t, sum16_is_the_fixed_tree);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(mathf_suite)

/* Half and bfloat16 conversions: every value, every rounding boundary. */
#include "quant/quant.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The definition of IEEE binary16, for finite values. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

/* Check's own assertions note every line they pass, too slow for loops over all values. */
#define REQUIRE(condition, h)                                 \
    do {                                                      \
        if (!(condition))                                     \
            ck_abort_msg("%04x: " #condition, (unsigned)(h)); \
    } while (0)

START_TEST(every_half_widens)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        uint32_t sign = (h & 0x8000) << 16;
        if ((h & 0x7fff) > 0x7c00) {
            REQUIRE(isnan(f) && bits_of(f) == (sign | 0x7fc00000 | (h & 0x3ff) << 13), h);
        } else if ((h & 0x7fff) == 0x7c00) {
            REQUIRE(bits_of(f) == (sign | 0x7f800000), h);
        } else {
            REQUIRE(bits_of(f) == bits_of((float)half_value((uint16_t)h)), h);
            REQUIRE(f32_to_f16(f) == h, h);
        }
    }
}
END_TEST

/* Between neighbouring halves: below the middle, the middle (exact in float) and above it. */
START_TEST(floats_round_to_the_nearest_half)
{
    for (uint32_t h = 0; h < 0x7bff; h++)
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float lower = f16_to_f32((uint16_t)(sign | h)), upper = f16_to_f32((uint16_t)(sign | (h + 1)));
            float middle = (float)(((double)lower + (double)upper) / 2);
            REQUIRE(f32_to_f16(nextafterf(middle, lower)) == (sign | h), h);
            REQUIRE(f32_to_f16(middle) == (sign | (h + (h & 1))), h);
            REQUIRE(f32_to_f16(nextafterf(middle, upper)) == (sign | (h + 1)), h);
        }
}
END_TEST

START_TEST(floats_outside_the_halves)
{
    ck_assert_uint_eq(f32_to_f16(nextafterf(65520, 0)), 0x7bff);
    ck_assert_uint_eq(f32_to_f16(65520), 0x7c00);
    ck_assert_uint_eq(f32_to_f16(-FLT_MAX), 0xfc00);
    ck_assert_uint_eq(f32_to_f16(INFINITY), 0x7c00);
    ck_assert_uint_eq(f32_to_f16(FLT_TRUE_MIN), 0);
    ck_assert_uint_eq(f32_to_f16(-FLT_MIN), 0x8000);
    ck_assert_uint_eq(f32_to_f16(float_of(0x7fc00000)), 0x7e00);
    ck_assert_uint_eq(f32_to_f16(float_of(0x7f800001)), 0x7e00); /* a payload that would be lost */
    ck_assert_uint_eq(f32_to_f16(float_of(0xff802000)), 0xfe01);
}
END_TEST

START_TEST(bfloats)
{
    for (uint32_t h = 0; h < 65536; h++) {
        REQUIRE(bits_of(bf16_to_f32((uint16_t)h)) == h << 16, h);
        bool is_nan = (h & 0x7fff) > 0x7f80;
        REQUIRE(f32_to_bf16(float_of(h << 16)) == (is_nan ? h | 0x40 : h), h);
        if ((h & 0x7fff) < 0x7f80) { /* the largest rounds up to infinity, as it should */
            REQUIRE(f32_to_bf16(float_of(h << 16 | 0x7fff)) == h, h);
            REQUIRE(f32_to_bf16(float_of(h << 16 | 0x8000)) == h + (h & 1), h);
            REQUIRE(f32_to_bf16(float_of(h << 16 | 0x8001)) == h + 1, h);
        }
    }
    ck_assert_uint_eq(f32_to_bf16(float_of(0x7f800001)), 0x7fc0);
    ck_assert_uint_eq(f32_to_bf16(float_of(0xffffffff)), 0xffff);
}
END_TEST

static Suite *float_suite(void)
{
    Suite *s = suite_create("quant/float");
    TCase *tc = tcase_create("conversions");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, every_half_widens);
    tcase_add_test(tc, floats_round_to_the_nearest_half);
    tcase_add_test(tc, floats_outside_the_halves);
    tcase_add_test(tc, bfloats);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(float_suite)

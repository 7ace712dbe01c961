/* Random weights: every type's are finite, of a real matrix's size, and many. */
#include "quant/quant.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 1 << 14 };

struct drawn {
    uint8_t *bytes;
    float *x;
    uint64_t state;
};

static struct drawn draw(enum qtype t, int64_t n, uint64_t state)
{
    size_t n_bytes = (size_t)qtype_bytes(t, n);
    struct drawn d = {malloc(n_bytes + 1), malloc((size_t)n * sizeof(float)), state};
    ck_assert(d.bytes && d.x);
    d.bytes[n_bytes] = 0xa5;
    qtype_random(t, d.bytes, n, &d.state);
    ck_assert_int_eq(d.bytes[n_bytes], 0xa5); /* not a byte more */
    qtypes[t].to_f32(d.x, d.bytes, n);
    return d;
}

static void drop(struct drawn *d)
{
    free(d->bytes);
    free(d->x);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

START_TEST(blocks_look_like_weights)
{
    enum qtype t = (enum qtype)_i;
    int len = qtypes[t].block_len;
    struct drawn d = draw(t, MANY, 7);
    double sum = 0, square = 0;
    for (int64_t i = 0; i < MANY; i += len) {
        float low = 0, high = 0;
        for (int k = 0; k < len; k++) {
            float x = d.x[i + k];
            ck_assert_msg(isfinite(x), "%s: %a", qtypes[t].name, (double)x);
            low = x < low ? x : low;
            high = x > high ? x : high;
            sum += x;
            square += (double)x * x;
        }
        float most = high > -low ? high : -low;
        ck_assert_msg(most >= 0.02f && most <= 0.2f, "%s: %g", qtypes[t].name, (double)most);
    }
    double rms = sqrt(square / MANY);
    ck_assert_msg(rms > 0.005 && rms < 0.2, "%s: rms %g", qtypes[t].name, rms);
    ck_assert_msg(fabs(sum / MANY) < 0.5 * rms, "%s: mean %g, rms %g", qtypes[t].name, sum / MANY, rms);
    qsort(d.x, MANY, sizeof *d.x, compare_floats);
    int n_values = 1;
    for (int i = 1; i < MANY; i++)
        n_values += d.x[i] != d.x[i - 1];
    ck_assert_msg(n_values >= 20, "%s: %d values", qtypes[t].name, n_values);
    drop(&d);
}
END_TEST

START_TEST(state_is_the_seed)
{
    enum qtype t = (enum qtype)_i;
    int64_t n = qtypes[t].block_len * 5;
    size_t n_bytes = (size_t)qtype_bytes(t, n);
    struct drawn a = draw(t, n, 11), b = draw(t, n, 11), c = draw(t, n, 12), next = draw(t, n, a.state);
    ck_assert_mem_eq(a.bytes, b.bytes, n_bytes);
    ck_assert(a.state == b.state && a.state != 11);
    ck_assert(memcmp(a.bytes, c.bytes, n_bytes) != 0);
    ck_assert(memcmp(a.bytes, next.bytes, n_bytes) != 0);
    drop(&a);
    drop(&b);
    drop(&c);
    drop(&next);
}
END_TEST

/* The quantisers never write a zero point outside the codes' range; nothing may read one. */
START_TEST(zero_points_are_in_range)
{
    struct drawn d = draw(QTYPE_INT8Z, MANY / 8, 5);
    for (int64_t i = 0; i < MANY / 8; i += 32) {
        struct block_int8z b;
        memcpy(&b, d.bytes + qtype_bytes(QTYPE_INT8Z, i), sizeof b);
        ck_assert_int_le(b.zero, 256);
    }
    drop(&d);
}
END_TEST

START_TEST(nothing_is_written_for_nothing)
{
    uint64_t state = 1;
    qtype_random(QTYPE_Q4_K, NULL, 0, &state);
    ck_assert(state == 1);
}
END_TEST

/* Types without blocks have rows of any length. */
START_TEST(any_number_of_floats)
{
    for (int64_t n = 1; n < 12000; n += n / 3 + 1) {
        struct drawn d = draw(QTYPE_BF16, n, 9);
        for (int64_t i = 0; i < n; i++)
            ck_assert(fabsf(d.x[i]) >= 0.02f && fabsf(d.x[i]) <= 0.2f);
        drop(&d);
    }
}
END_TEST

START_TEST(rows_that_do_not_divide_have_another_type)
{
    static const struct {
        enum qtype type, want;
        int64_t row_len;
    } cases[] = {
        {QTYPE_Q4_K, QTYPE_Q4_K, 4096}, {QTYPE_Q4_K, QTYPE_Q5_0, 896},     {QTYPE_Q5_K, QTYPE_Q5_1, 896},
        {QTYPE_Q6_K, QTYPE_Q8_0, 576},  {QTYPE_IQ2_XXS, QTYPE_IQ4_NL, 32}, {QTYPE_TQ1_0, QTYPE_Q4_0, 64},
        {QTYPE_Q4_0, QTYPE_F16, 33},    {QTYPE_Q6_K, QTYPE_F16, 100},      {QTYPE_NVFP4, QTYPE_Q4_0, 96},
        {QTYPE_BF16, QTYPE_BF16, 33},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_str_eq(qtypes[qtype_for_rows(cases[i].type, cases[i].row_len)].name,
                         qtypes[cases[i].want].name);
    for (int t = 0; t < QTYPE_N_MATRIX; t++)
        for (int64_t n = 1; n <= 512; n++)
            ck_assert(n % qtypes[qtype_for_rows((enum qtype)t, n)].block_len == 0);
}
END_TEST

static Suite *random_suite(void)
{
    Suite *s = suite_create("quant/random");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, blocks_look_like_weights, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(t, state_is_the_seed, 0, QTYPE_N_MATRIX);
    tcase_add_test(t, zero_points_are_in_range);
    tcase_add_test(t, nothing_is_written_for_nothing);
    tcase_add_test(t, any_number_of_floats);
    tcase_add_test(t, rows_that_do_not_divide_have_another_type);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(random_suite)

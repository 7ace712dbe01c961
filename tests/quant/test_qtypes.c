/* The table and, for each of its rows, decoding against golden values. */
#include "quant/quant.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tests/golden/quant/TYPE.bin: blocks, then their values (tests/golden/make_quant_fixtures.py). */
START_TEST(decodes_golden_blocks)
{
    const struct qtype_info *t = &qtypes[_i];
    char name[64];
    (void)snprintf(name, sizeof name, "quant/%s.bin", t->name);
    const char *path = test_golden(name);
    if (t->x_is_f32)
        return; /* test_float.c has all their values */
    ck_assert_msg(path != NULL, "%s is missing", name);

    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    static uint8_t bytes[32768];
    size_t size = fread(bytes, 1, sizeof bytes, f);
    (void)fclose(f);
    size_t n_blocks = size / (size_t)(t->block_bytes + 4 * t->block_len);
    size_t n = n_blocks * (size_t)t->block_len;
    ck_assert_uint_ge(n, 512);
    ck_assert_uint_eq(size, n_blocks * (size_t)t->block_bytes + 4 * n);

    float *got = malloc(4 * n);
    ck_assert_ptr_nonnull(got);
    t->to_f32(got, bytes, (int64_t)n);
    ck_assert_mem_eq(got, bytes + n_blocks * (size_t)t->block_bytes, 4 * n);
    /* From and to an odd address too: files promise no alignment. */
    memmove(bytes + 1, bytes, n_blocks * (size_t)t->block_bytes);
    float *again = malloc(4 * n);
    ck_assert_ptr_nonnull(again);
    t->to_f32(again, bytes + 1, (int64_t)n);
    ck_assert_mem_eq(again, got, 4 * n);
    free(again);
    free(got);
}
END_TEST

static Suite *qtypes_suite(void)
{
    Suite *s = suite_create("quant/qtypes");
    TCase *tc = tcase_create("table");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, decodes_golden_blocks, 0, QTYPE_N_MATRIX);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(qtypes_suite)

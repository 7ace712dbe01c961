/* The table and, for each of its rows, decoding against golden values. */
#include "quant/quant.h"
#include "tests/test.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GGUF's numbers and block sizes, typed here a second time on purpose. */
static const struct {
    const char *name;
    int gguf_id, block_len, block_bytes;
} spec[QTYPE_COUNT] = {
    {"f32", 0, 1, 4},         {"f16", 1, 1, 2},         {"bf16", 30, 1, 2},       {"q4_0", 2, 32, 18},
    {"q4_1", 3, 32, 20},      {"q5_0", 6, 32, 22},      {"q5_1", 7, 32, 24},      {"q8_0", 8, 32, 34},
    {"q2_k", 10, 256, 84},    {"q3_k", 11, 256, 110},   {"q4_k", 12, 256, 144},   {"q5_k", 13, 256, 176},
    {"q6_k", 14, 256, 210},   {"iq4_nl", 20, 32, 18},   {"iq4_xs", 23, 256, 136}, {"iq1_s", 19, 256, 50},
    {"iq1_m", 29, 256, 56},   {"iq2_xxs", 16, 256, 66}, {"iq2_xs", 17, 256, 74},  {"iq2_s", 22, 256, 82},
    {"iq3_xxs", 18, 256, 98}, {"iq3_s", 21, 256, 110},  {"tq1_0", 34, 256, 54},   {"tq2_0", 35, 256, 66},
    {"mxfp4", 39, 32, 17},    {"nvfp4", 40, 64, 36},    {"int2z", -1, 32, 11},    {"int3z", -1, 32, 15},
    {"int4z", -1, 32, 19},    {"int8z", -1, 32, 36},    {"i8", 24, 1, 1},         {"i16", 25, 1, 2},
    {"i32", 26, 1, 4},        {"i64", 27, 1, 8},        {"f64", 28, 1, 8},
};

START_TEST(rows_match_the_specification)
{
    const struct qtype_info *t = &qtypes[_i];
    ck_assert_str_eq(t->name, spec[_i].name);
    ck_assert_int_eq(t->gguf_id, spec[_i].gguf_id);
    ck_assert_int_eq(t->block_len, spec[_i].block_len);
    ck_assert_int_eq(t->block_bytes, spec[_i].block_bytes);
    ck_assert_int_eq(qtype_bytes((enum qtype)_i, 512), 512 / spec[_i].block_len * spec[_i].block_bytes);
    bool computes = _i < QTYPE_N_MATRIX;
    ck_assert((t->to_f32 != NULL) == computes);
    bool own_super = _i >= QTYPE_IQ1_S && _i <= QTYPE_TQ2_0;
    ck_assert((t->from_f32 != NULL) == computes);
    ck_assert((t->quantise != NULL) == (t->from_f32 != NULL));
    ck_assert((t->unpack != NULL) == own_super);
    ck_assert((t->dot != NULL) == computes);
    ck_assert(t->x_is_f32 == (_i <= QTYPE_BF16));

    char upper[16] = {0};
    for (size_t i = 0; t->name[i]; i++)
        upper[i] = (char)toupper((unsigned char)t->name[i]);
    ck_assert_int_eq(qtype_by_name(t->name), _i);
    ck_assert_int_eq(qtype_by_name(upper), _i);
    ck_assert_int_eq(qtype_by_gguf_id((uint32_t)t->gguf_id), t->gguf_id >= 0 ? _i : -1);
}
END_TEST

START_TEST(unknown_types)
{
    const char *const names[] = {"", "q4", "q4_", "q4_kk", "q4_k ", "f8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_int_eq(qtype_by_name(names[i]), -1);
    const uint32_t ids[] = {4, 5, 9, 15, 31, 36, 41, 1000, UINT32_MAX, 0x80000000};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        ck_assert_int_eq(qtype_by_gguf_id(ids[i]), -1);
}
END_TEST

/* tests/golden/quant/TYPE.bin: blocks, then their values (tests/golden/make_quant_fixtures.py). */
START_TEST(decodes_golden_blocks)
{
    const struct qtype_info *t = &qtypes[_i];
    char name[64];
    (void)snprintf(name, sizeof name, "quant/%s.bin", t->name);
    const char *path = test_golden(name);
    if (t->x_is_f32 || t->gguf_id < 0)
        return; /* test_float.c has all values of the former, test_intz.c draws the latter */
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
    tcase_add_loop_test(tc, rows_match_the_specification, 0, QTYPE_COUNT);
    tcase_add_test(tc, unknown_types);
    tcase_add_loop_test(tc, decodes_golden_blocks, 0, QTYPE_N_MATRIX);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(qtypes_suite)

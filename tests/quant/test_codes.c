/* Codes set one by one: what methods that choose them themselves rely on. */
#include "tests/test.h"

#include "quant/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_BLOCKS = 20, MAX_LEN = N_BLOCKS * QK_K };

static float uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

/* Every code of every block is read back as the grid says, set in any order, and nothing else changes. */
START_TEST(grid_is_what_decodes)
{
    const struct qtype_info *t = &qtypes[_i];
    if (!t->grid)
        return;
    static uint8_t bytes[MAX_LEN * 4];
    static float x[MAX_LEN], got[QK_K];
    const int n = N_BLOCKS * t->block_len;
    uint64_t state = 3;
    for (int i = 0; i < n; i++)
        x[i] = uniform(&state);
    t->quantise(bytes, x, NULL, n);
    for (int b = 0; b < N_BLOCKS; b++) {
        uint8_t *block = bytes + b * t->block_bytes;
        struct code_grid g;
        int16_t code[QK_K];
        t->grid(&g, block);
        ck_assert_int_lt(g.lo, g.hi);
        for (int turn = 0; turn <= g.hi - g.lo; turn++) {
            for (int i = 0; i < t->block_len; i++)
                code[i] = (int16_t)(g.lo + (i * 7 + turn) % (g.hi - g.lo + 1));
            t->set_codes(block, code);
            struct code_grid same;
            memset(&same, 0, sizeof same);
            t->grid(&same, block);
            ck_assert_mem_eq(same.scale, g.scale, sizeof(float) * (size_t)(t->block_len / 16));
            ck_assert_mem_eq(same.offset, g.offset, sizeof(float) * (size_t)(t->block_len / 16));
            t->to_f32(got, block, t->block_len);
            for (int i = 0; i < t->block_len; i++) {
                const float value = code_value(&g, i / 16, code[i]);
                ck_assert_float_le(fabsf(got[i] - value), 1e-5f * (fabsf(g.offset[i / 16]) + fabsf(value)));
            }
        }
    }
}
END_TEST

/* Rounding to the grid never loses to what the quantiser chose. */
START_TEST(nearest_is_nearest)
{
    const struct qtype_info *t = &qtypes[_i];
    if (!t->grid)
        return;
    uint8_t block[4 * QK_K];
    float x[QK_K] = {0}, got[QK_K];
    uint64_t state = 9;
    for (int i = 0; i < t->block_len; i++)
        x[i] = uniform(&state) * (i % 16 ? 1 : 3);
    t->quantise(block, x, NULL, t->block_len);
    t->to_f32(got, block, t->block_len);
    struct code_grid g;
    t->grid(&g, block);
    for (int i = 0; i < t->block_len; i++) {
        const int code = code_nearest(&g, i / 16, x[i]);
        ck_assert(code >= g.lo && code <= g.hi);
        const float off = fabsf(code_value(&g, i / 16, code) - x[i]);
        ck_assert_float_le(off, fabsf(got[i] - x[i]) + 1e-5f);
        for (int other = g.lo; other <= g.hi; other++)
            ck_assert_float_le(off, fabsf(code_value(&g, i / 16, other) - x[i]) + 1e-5f);
    }
    for (int i = 0; i < 3; i++) { /* anything gets a code */
        const int code = code_nearest(&g, 0, (const float[]){NAN, INFINITY, -INFINITY}[i]);
        ck_assert(code >= g.lo && code <= g.hi);
    }
}
END_TEST

/* Blocks of a group have one scale and zero point. */
START_TEST(groups_share_scales)
{
    const struct qtype_info *t = &qtypes[_i];
    if (!t->quantise_group)
        return;
    enum { GROUP = 160 };
    uint8_t bytes[4 * GROUP], codes[GROUP];
    float x[GROUP], got[GROUP];
    uint64_t state = 4;
    for (int i = 0; i < GROUP; i++)
        x[i] = uniform(&state);
    t->quantise_group(bytes, x, NULL, GROUP, codes);
    t->to_f32(got, bytes, GROUP);
    struct code_grid first, g;
    t->grid(&first, bytes);
    for (int i = 0; i < GROUP; i++) {
        t->grid(&g, bytes + i / 32 * t->block_bytes);
        ck_assert(g.scale[0] == first.scale[0] && g.offset[0] == first.offset[0]);
        ck_assert_float_eq_tol(got[i], code_value(&g, 0, codes[i]), 1e-5f);
        ck_assert_float_le(fabsf(got[i] - x[i]), 1.5f * g.scale[0]);
    }
}
END_TEST

static Suite *codes_suite(void)
{
    Suite *s = suite_create("codes");
    TCase *t = tcase_create("codes");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, grid_is_what_decodes, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(t, nearest_is_nearest, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(t, groups_share_scales, 0, QTYPE_N_MATRIX);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(codes_suite)

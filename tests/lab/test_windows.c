/* Windows of a text: which tokens count, by each protocol. */
#include "lab/windows.h"
#include "tests/test.h"

#include <string.h>

static char err[256];

static struct windows planned(enum protocol p, int64_t n_ctx, int64_t stride, int64_t n_ids)
{
    struct windows w;
    ck_assert_msg(windows_plan(&w, p, n_ctx, stride, n_ids, 7, 0, err, sizeof err) == 0, "%s", err);
    return w;
}

static void expect(const struct windows *w, int64_t i, int64_t begin, int64_t len, int64_t first, bool bos)
{
    struct window at = windows_at(w, i);
    ck_assert_int_eq(at.begin, begin);
    ck_assert_int_eq(at.len, len);
    ck_assert_int_eq(at.first, first);
    ck_assert(at.bos == bos);
}

START_TEST(llama_scores_second_halves)
{
    struct windows w = planned(PROTOCOL_LLAMA, 8, 0, 26);
    ck_assert_int_eq(w.n, 3);
    expect(&w, 0, 0, 8, 5, true);
    expect(&w, 2, 16, 8, 5, true);
    ck_assert_int_eq(windows_n_scored(&w), 9);
    ck_assert_int_eq(windows_plan(&w, PROTOCOL_LLAMA, 8, 0, 26, -1, 2, err, sizeof err), 0);
    ck_assert_int_eq(w.n, 2);
    expect(&w, 1, 8, 8, 5, false);         /* a model without BOS */
    w = planned(PROTOCOL_LLAMA, 7, 0, 14); /* 512 / 2 rounds down */
    expect(&w, 0, 0, 7, 4, true);
}
END_TEST

/* --ppl-stride: windows of n_ctx + stride / 2 rounded up to 256, ⌈(n − window) / stride⌉ of them. */
START_TEST(llama_with_a_stride)
{
    struct windows w = planned(PROTOCOL_LLAMA, 8, 4, 277);
    ck_assert_int_eq(windows_len(&w), 256);
    ck_assert_int_eq(w.n, 6);
    expect(&w, 0, 0, 256, 252, false);
    expect(&w, 5, 20, 256, 252, false);
    w = planned(PROTOCOL_LLAMA, 8, 4, 276);
    ck_assert_int_eq(w.n, 5);
    w = planned(PROTOCOL_LLAMA, 512, 256, 32894);
    expect(&w, 0, 0, 768, 512, false);
    w = planned(PROTOCOL_LLAMA, 384, 256, 32894); /* already a multiple */
    expect(&w, 0, 0, 512, 256, false);
}
END_TEST

START_TEST(gptq_scores_all_but_the_first)
{
    struct windows w = planned(PROTOCOL_GPTQ, 8, 0, 26);
    ck_assert_int_eq(w.n, 3);
    expect(&w, 1, 8, 8, 1, false);
    ck_assert_int_eq(windows_n_scored(&w), 21);
}
END_TEST

/* Every token but the text's first, once, with as much in front of it as the windows let it. */
START_TEST(strided_scores_each_token_once)
{
    for (int64_t n_ids = 2; n_ids < 40; n_ids++)
        for (int64_t n_ctx = 2; n_ctx < 12; n_ctx++)
            for (int64_t stride = 1; stride < n_ctx; stride++) {
                struct windows w = planned(PROTOCOL_STRIDED, n_ctx, stride, n_ids);
                int64_t next = 1;
                for (int64_t i = 0; i < w.n; i++) {
                    struct window at = windows_at(&w, i);
                    ck_assert_int_eq(at.begin + at.first, next);
                    ck_assert_int_ge(at.first, i ? n_ctx - stride : 1);
                    ck_assert_int_le(at.len, n_ctx);
                    next = at.begin + at.len;
                }
                ck_assert_int_eq(next, n_ids);
                ck_assert_int_eq(windows_n_scored(&w), n_ids - 1);
            }
    struct windows w = planned(PROTOCOL_STRIDED, 8, 0, 20);
    ck_assert_int_eq(w.stride, 4);
    w = planned(PROTOCOL_STRIDED, 8, 8, 20); /* side by side: the first of each has nothing in front */
    expect(&w, 2, 16, 4, 1, false);
}
END_TEST

static void refuse(enum protocol p, int64_t n_ctx, int64_t stride, int64_t n_ids, const char *why)
{
    struct windows w;
    ck_assert_int_eq(windows_plan(&w, p, n_ctx, stride, n_ids, -1, 0, err, sizeof err), -1);
    ck_assert_msg(strstr(err, why) != NULL, "'%s' does not say '%s'", err, why);
}

START_TEST(texts_can_be_too_short)
{
    refuse(PROTOCOL_LLAMA, 8, 0, 15, "15 tokens, protocol llama needs 16");
    refuse(PROTOCOL_LLAMA, 8, 4, 256, "needs 257");
    refuse(PROTOCOL_GPTQ, 8, 0, 7, "needs 8");
    refuse(PROTOCOL_STRIDED, 8, 4, 1, "needs 2");
    refuse(PROTOCOL_GPTQ, 8, 0, 0, "too short");
    refuse(PROTOCOL_LLAMA, 2, 0, 100, "context");
    refuse(PROTOCOL_GPTQ, INT64_MAX, 0, 100, "context");
    refuse(PROTOCOL_STRIDED, 8, 9, 100, "stride");
    refuse(PROTOCOL_LLAMA, 8, -1, 100, "stride");
    refuse(PROTOCOL_GPTQ, 8, 4, 100, "no stride");
}
END_TEST

START_TEST(protocols_have_names)
{
    for (int p = 0; p < N_PROTOCOLS; p++)
        ck_assert_int_eq(protocol_by_name(protocol_name((enum protocol)p)), p);
    ck_assert_int_eq(protocol_by_name("other"), -1);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/windows");
    TCase *tc = tcase_create("windows");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, llama_scores_second_halves);
    tcase_add_test(tc, llama_with_a_stride);
    tcase_add_test(tc, gptq_scores_all_but_the_first);
    tcase_add_test(tc, strided_scores_each_token_once);
    tcase_add_test(tc, texts_can_be_too_short);
    tcase_add_test(tc, protocols_have_names);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

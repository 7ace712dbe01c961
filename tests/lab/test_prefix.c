/* A prefix that is held: evaluated once, cut and grown as texts ask, lent with the same result. */
#include "lab/prefix.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

enum { N = 40 };

static char err[512];

START_TEST(common_beginnings_are_counted)
{
    const int32_t a[] = {1, 2, 3, 4}, b[] = {1, 2, 5};
    ck_assert_int_eq(common_prefix(a, 4, b, 3), 2);
    ck_assert_int_eq(common_prefix(a, 1, b, 3), 1);
    ck_assert_int_eq(common_prefix(a, 4, a, 4), 4);
    ck_assert_int_eq(common_prefix(a, 0, b, 3), 0);
    ck_assert_int_eq(common_prefix(NULL, 0, b, 3), 0);
}
END_TEST

static struct asker open_asker(struct fixture *f, const char *name)
{
    const char *path = test_golden(name);
    struct setting s = plain;
    s.n_seqs = 3;
    s.n_ctx = 3 * 64;
    *f = path ? fixture_open(path, &s) : (struct fixture){.vocab_size = 0};
    return (struct asker){
        .model = f->model, .cache = f->cache, .context = f->context, .n_seqs = 3, .n_ctx = 64};
}

START_TEST(what_is_held_is_lent)
{
    struct fixture f;
    const struct asker a = open_asker(&f, "gguf/llama-f16/model.gguf");
    if (!f.vocab_size) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    int32_t ids[N], other[N];
    make_ids(ids, N, f.vocab_size, 5);
    make_ids(other, N, f.vocab_size, 6);
    memcpy(other, ids, 20 * sizeof *ids);
    other[20] = (ids[20] + 1) % f.vocab_size;
    struct held_prefix h = {.n = 0};
    ck_assert_msg(held_prefix_set(&h, &a, ids, 30, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(cache_len(f.cache, 0), 30);
    ck_assert_int_eq(h.n, 30);
    ck_assert_int_eq(held_prefix_set(&h, &a, other, 35, err, sizeof err), 0);
    ck_assert_int_eq(cache_len(f.cache, 0), 35);
    ck_assert_mem_eq(h.id, other, 35 * sizeof *other);

    float *lent = malloc(N * (size_t)f.vocab_size * sizeof *lent),
          *alone = malloc(N * (size_t)f.vocab_size * sizeof *alone);
    ck_assert_int_eq(lend_prefix(&a, 1, 0, 33), 33);
    ck_assert_int_eq(cache_len(f.cache, 1), 33);
    fixture_eval(&f, 1, other + 33, N - 33, lent);
    fixture_eval(&f, 2, other, N, alone);
    ck_assert_mem_eq(lent, alone + 33 * f.vocab_size, (N - 33) * (size_t)f.vocab_size * sizeof *lent);
    ck_assert_int_eq(lend_prefix(&a, 1, 0, 36), 0); /* it does not hold so many */
    ck_assert_int_eq(cache_len(f.cache, 1), 0);
    ck_assert_int_eq(lend_prefix(&a, 1, 0, 0), 0);
    free(lent);
    free(alone);
    held_prefix_free(&h);
    fixture_close(&f);
}
END_TEST

/* A model that must see a prompt whole holds nothing. */
START_TEST(whole_prompts_hold_nothing)
{
    struct fixture f;
    const struct asker a = open_asker(&f, "models/llama-rope-dynamic");
    if (!f.vocab_size) {
        test_skip("models/llama-rope-dynamic", "no such golden file");
        return;
    }
    int32_t ids[N];
    make_ids(ids, N, f.vocab_size, 5);
    struct held_prefix h = {.n = 0};
    ck_assert_int_eq(held_prefix_set(&h, &a, ids, 30, err, sizeof err), 0);
    ck_assert_int_eq(h.n, 0);
    ck_assert_int_eq(lend_prefix(&a, 1, 0, 30), 0);
    held_prefix_free(&h);
    fixture_close(&f);
}
END_TEST

static bool stop_now(void)
{
    return true;
}

START_TEST(a_stopped_batch_appends_nothing)
{
    struct fixture f;
    struct asker a = open_asker(&f, "gguf/llama-f16/model.gguf");
    if (!f.vocab_size) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    a.stop = stop_now;
    struct growing_batch b = {.n = 0};
    ck_assert_int_eq(growing_batch_eval(&b, &a, NULL, NULL, err, sizeof err), 0); /* nothing to do */
    for (int i = 0; i < 3000; i++)                                                /* past a growth */
        ck_assert_int_eq(growing_batch_add(&b, 1, 1, false, err, sizeof err), 0);
    ck_assert_int_eq(b.n, 3000);
    ck_assert_int_eq(growing_batch_eval(&b, &a, NULL, NULL, err, sizeof err), CONTEXT_STOPPED);
    ck_assert_int_eq(b.n, 0);
    ck_assert_int_eq(cache_len(f.cache, 1), 0);
    growing_batch_free(&b);
    fixture_close(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/prefix");
    TCase *tc = tcase_create("prefix");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, common_beginnings_are_counted);
    tcase_add_test(tc, what_is_held_is_lent);
    tcase_add_test(tc, whole_prompts_hold_nothing);
    tcase_add_test(tc, a_stopped_batch_appends_nothing);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

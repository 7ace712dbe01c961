/* Batches: what is refused, and which rows come back. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static void refuse(struct fixture *f, const struct batch *b, const char *why)
{
    char err[256] = "";
    int64_t len0 = cache_len(f->cache, 0), len1 = cache_len(f->cache, 1);
    const float *logits;
    ck_assert_int_eq(context_eval(f->context, b, &logits, err, sizeof err), -1);
    ck_assert_msg(strstr(err, why) != NULL, "'%s' does not say '%s'", err, why);
    ck_assert_ptr_null(logits);
    ck_assert_int_eq(cache_len(f->cache, 0), len0);
    ck_assert_int_eq(cache_len(f->cache, 1), len1);
}

START_TEST(bad_batches_are_refused)
{
    const char *path = test_golden("gguf/llama-f16/model.gguf");
    if (!path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    struct setting s = plain;
    s.n_seqs = 2;
    s.n_ctx = 100;
    s.max_batch = 16;
    struct fixture f = fixture_open(path, &s);
    int32_t id[128];
    make_ids(id, 128, f.vocab_size, 5);
    fixture_eval(&f, 0, id, 10, NULL);

    refuse(&f, &(struct batch){.n = 0, .id = id}, "no tokens");
    refuse(&f, &(struct batch){.n = -1, .id = id}, "no tokens");
    refuse(&f, &(struct batch){.n = 2, .id = (int32_t[]){1, f.vocab_size}}, "token 1");
    refuse(&f, &(struct batch){.n = 1, .id = (int32_t[]){-1}}, "id -1");
    refuse(&f, &(struct batch){.n = 1, .id = id, .seq = (int32_t[]){2}}, "sequence 2");
    refuse(&f, &(struct batch){.n = 1, .id = id, .seq = (int32_t[]){-1}}, "sequence -1");
    refuse(&f, &(struct batch){.n = 1, .id = id, .pos = (int64_t[]){9}}, "position 9");
    refuse(&f, &(struct batch){.n = 2, .id = id, .pos = (int64_t[]){10, 12}}, "position 12");
    refuse(&f, &(struct batch){.n = 91, .id = id}, "context is full");

    /* Nothing was lost or taken: the rest of the context still fits, and not a token more. */
    fixture_eval(&f, 0, id, 90, NULL);
    refuse(&f, &(struct batch){.n = 1, .id = id}, "context is full");
    /* Two sequences have room for 100 positions together; page by page there may be a little more. */
    fixture_eval(&f, 1, id, 27, NULL);
    refuse(&f, &(struct batch){.n = 38, .id = id, .seq = (int32_t[38]){[0 ... 37] = 1}}, "context is full");
    fixture_close(&f);
}
END_TEST

START_TEST(wanted_rows_come_in_order)
{
    const char *path = test_golden("gguf/qwen2-f16/model.gguf");
    if (!path) {
        test_skip("gguf/qwen2-f16", "no such golden file");
        return;
    }
    struct setting s = plain;
    s.max_batch = 100;
    struct fixture f = fixture_open(path, &s);
    enum { N = 200 };
    int32_t id[N];
    uint8_t want[N];
    size_t row = (size_t)f.vocab_size;
    float *ref = malloc(N * row * sizeof *ref);
    ck_assert_ptr_nonnull(ref);
    char err[256];
    const float *logits;
    make_ids(id, N, f.vocab_size, 6);
    fixture_eval(&f, 0, id, N, ref); /* more rows than one piece of the output holds */

    cache_drop(f.cache, 0);
    ck_assert_int_eq(context_eval(f.context, &(struct batch){.n = N, .id = id}, &logits, err, sizeof err), 0);
    ck_assert_mem_eq(logits, ref + (N - 1) * row, row * sizeof *ref);

    cache_drop(f.cache, 0);
    for (int i = 0; i < N; i++)
        want[i] = i == 3 || i == 99 || i == 100 || i == 150;
    struct batch b = {.n = N, .id = id, .want_logits = want};
    ck_assert_int_eq(context_eval(f.context, &b, &logits, err, sizeof err), 0);
    for (int i = 0; i < N; i++)
        if (want[i]) {
            ck_assert_mem_eq(logits, ref + (size_t)i * row, row * sizeof *ref);
            logits += row;
        }
    ck_assert_int_eq(cache_len(f.cache, 0), N);
    free(ref);
    fixture_close(&f);
}
END_TEST

START_TEST(bad_contexts_are_refused)
{
    const char *path = test_golden("gguf/llama-f16/model.gguf");
    if (!path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    static const struct context_options bad[] = {
        {.n_threads = 0, .n_threads_batch = 1, .max_batch = 1},
        {.n_threads = 1, .n_threads_batch = -5, .max_batch = 1},
        {.n_threads = 1 << 20, .n_threads_batch = 1, .max_batch = 1},
        {.n_threads = 1, .n_threads_batch = 1, .max_batch = 0},
        {.n_threads = 1, .n_threads_batch = 1, .max_batch = 1 << 30},
    };
    struct fixture f = fixture_open(path, &plain);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char err[256] = "";
        struct context *x;
        ck_assert_int_eq(context_new(&x, f.model, f.cache, &bad[i], err, sizeof err), -1);
        ck_assert_ptr_null(x);
        ck_assert_str_ne(err, "");
    }
    fixture_close(&f);
}
END_TEST

static Suite *context_suite(void)
{
    Suite *s = suite_create("model/context");
    TCase *t = tcase_create("context");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, bad_batches_are_refused);
    tcase_add_test(t, wanted_rows_come_in_order);
    tcase_add_test(t, bad_contexts_are_refused);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(context_suite)

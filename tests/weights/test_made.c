/* Models given tensor by tensor: their directory, their limits, what they own. */
#include "tests/test.h"
#include "weights/weights.h"

#include <stdio.h>
#include <string.h>

static struct weights *make(const char *config)
{
    struct weights *w;
    char err[256];
    ck_assert_msg(weights_make(&w, "made", config, NULL, err, sizeof err) == 0, "%s", err);
    return w;
}

START_TEST(tensors_are_found_and_lent)
{
    struct weights *w = make("{\"a\": 1, \"b\": {\"c\": [true, false]}}");
    char err[256], text[] = "b.weight";
    ck_assert_uint_eq(weights_n_tensors(w), 0);
    ck_assert_ptr_nonnull(weights_meta_find(w, "config.b.c"));
    ck_assert_int_eq(weights_make_tensor(w, text, QTYPE_Q4_0, 2, (int64_t[]){64, 3}, err, sizeof err), 0);
    text[0] = 'a'; /* names are copied */
    ck_assert_int_eq(weights_make_tensor(w, text, QTYPE_F32, 1, (int64_t[]){5}, err, sizeof err), 0);
    ck_assert_int_eq(weights_make_done(w, err, sizeof err), 0);
    const struct tensor *a = weights_find(w, "a.weight"), *b = weights_find(w, "b.weight");
    ck_assert(a && b && weights_tensor(w, 0) == b);
    ck_assert_uint_eq(b->bytes, 3 * 2 * 18);
    ck_assert(b->dims[0] == 64 && b->dims[1] == 3 && b->dims[2] == 1 && b->n_dims == 2);
    ck_assert_uint_eq(a->bytes, 20);
    ck_assert_ptr_null(a->data);

    char *data = weights_make_buffer(w, 200);
    ck_assert_ptr_nonnull(data);
    memset(data, 7, 200);
    weights_make_data(w, 0, data);
    weights_make_data(w, 1, data); /* shared */
    ck_assert_int_eq(((const char *)b->data)[107], 7);
    ck_assert_ptr_eq(a->data, b->data);
    weights_prefetch(w, b, 0, b->bytes);
    weights_drop(w, b, 0, b->bytes);
    ck_assert_int_eq(data[0], 7);
    ck_assert_str_eq(weights_path(w), "made");
    ck_assert_ptr_null(weights_folder(w));
    ck_assert_uint_eq(weights_file_bytes(w), 200);
    weights_close(w);
}
END_TEST

/* Done twice: what came between is found too. */
START_TEST(more_may_follow)
{
    struct weights *w = make("{}");
    char err[256], name[32];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%d", i);
        ck_assert_int_eq(weights_make_tensor(w, name, QTYPE_F32, 1, (int64_t[]){1}, err, sizeof err), 0);
        if (i == 99)
            ck_assert_int_eq(weights_make_done(w, err, sizeof err), 0);
    }
    ck_assert_int_eq(weights_make_done(w, err, sizeof err), 0);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%d", i);
        ck_assert_ptr_eq(weights_find(w, name), weights_tensor(w, (size_t)i));
    }
    ck_assert_int_eq(weights_make_tensor(w, "t7", QTYPE_F32, 1, (int64_t[]){1}, err, sizeof err), 0);
    ck_assert_int_eq(weights_make_done(w, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "'t7' occurs twice") != NULL, "%s", err);
    weights_close(w);
}
END_TEST

START_TEST(impossible_tensors_are_refused)
{
    static const struct {
        int64_t dims[2];
        enum qtype type;
        const char *why;
    } cases[] = {
        {{33, 2}, QTYPE_Q4_0, "'x': its rows of 33 are no multiple of q4_0's block of 32"},
        {{INT64_MAX / 2, 16}, QTYPE_F32, "larger than any memory"},
        {{(int64_t)1 << 40, 1 << 20}, QTYPE_F32, "larger than any memory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct weights *w = make("{}");
        char err[256];
        ck_assert_int_eq(weights_make_tensor(w, "x", cases[i].type, 2, cases[i].dims, err, sizeof err), -1);
        ck_assert_msg(strncmp(err, "made: ", 6) == 0 && strstr(err, cases[i].why), "%s", err);
        weights_close(w);
    }
    /* each one possible, but not all of them */
    struct weights *w = make("{}");
    char err[256], name[32];
    int rc = 0, n = 0;
    for (; n < 100 && rc == 0; n++) {
        snprintf(name, sizeof name, "t%d", n);
        rc = weights_make_tensor(w, name, QTYPE_F32, 1, (int64_t[]){(int64_t)1 << 55}, err, sizeof err);
    }
    ck_assert_int_eq(n, 9);
    ck_assert_msg(strstr(err, "larger than any memory") != NULL, "%s", err);
    weights_close(w);
}
END_TEST

START_TEST(bad_configurations_are_refused)
{
    static const char *const bad[][2] = {{"", "no valid JSON"},
                                         {"{", "no valid JSON"},
                                         {"{\"a\": 1e999}", "too large"},
                                         {"{\"\\u0001\": 1}", "control"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct weights *w;
        char err[256];
        ck_assert_int_eq(weights_make(&w, "made", bad[i][0], NULL, err, sizeof err), -1);
        ck_assert_ptr_null(w);
        ck_assert_msg(strncmp(err, "made: ", 6) == 0 && strstr(err, bad[i][1]), "%s", err);
    }
    struct weights *w;
    char err[256];
    ck_assert_int_eq(weights_make(&w, "made", NULL, "/nowhere/config.json", err, sizeof err), -1);
    ck_assert_msg(strstr(err, "/nowhere/config.json: ") == err, "%s", err);
}
END_TEST

static Suite *made_suite(void)
{
    Suite *s = suite_create("weights/made");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, tensors_are_found_and_lent);
    tcase_add_test(t, more_may_follow);
    tcase_add_test(t, impossible_tensors_are_refused);
    tcase_add_test(t, bad_configurations_are_refused);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(made_suite)

/* The table of importances. */
#include "lab/importance.h"
#include "tests/test.h"

#include <stdio.h>

START_TEST(what_is_set_is_found)
{
    struct importance *t = importance_new();
    ck_assert_ptr_null(importance_find(t, "blk.0.attn_q.weight"));
    ck_assert_ptr_null(importance_find(NULL, "blk.0.attn_q.weight"));
    for (int i = 0; i < 1000; i++) { /* past several growths */
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", i);
        const float mean[4] = {(float)i, 1, 2, 3};
        ck_assert_int_eq(importance_set(t, name, 2, 2, mean), 0);
    }
    ck_assert_uint_eq(importance_n(t), 1000);
    for (int i = 0; i < 1000; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", i);
        const struct importance_entry *e = importance_find(t, name);
        ck_assert_ptr_nonnull(e);
        ck_assert_ptr_eq(e, importance_at(t, (size_t)i));
        ck_assert_str_eq(e->name, name);
        ck_assert_int_eq(e->cols, 2);
        ck_assert_int_eq(e->n_experts, 2);
        ck_assert(e->mean[0] == (float)i && e->mean[3] == 3);
    }
    ck_assert_ptr_null(importance_find(t, "blk.1000.ffn_down_exps.weight"));
    importance_free(t);
}
END_TEST

START_TEST(a_second_set_replaces)
{
    struct importance *t = importance_new();
    ck_assert_int_eq(importance_set(t, "a", 3, 1, (float[]){1, 2, 3}), 0);
    ck_assert_int_eq(importance_set(t, "a", 1, 2, (float[]){4, 5}), 0);
    ck_assert_uint_eq(importance_n(t), 1);
    const struct importance_entry *e = importance_find(t, "a");
    ck_assert(e->cols == 1 && e->n_experts == 2 && e->mean[0] == 4 && e->mean[1] == 5);
    ck_assert_int_eq(importance_set(t, "a", 0, 1, (float[]){1}), -1);
    ck_assert_int_eq(importance_set(t, "a", INT64_MAX / 2, 4, (float[]){1}), -1);
    importance_free(t);
    importance_free(NULL);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/importance");
    TCase *tc = tcase_create("table");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_is_set_is_found);
    tcase_add_test(tc, a_second_set_replaces);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

/* The table of architectures. */
#include "model/arch.h"
#include "tests/test.h"

#include <string.h>

START_TEST(every_row_is_found_by_its_name)
{
    int n = 0;
    for (; archs[n]; n++) {
        const struct arch *found = arch_find(archs[n]->name, strlen(archs[n]->name));
        ck_assert_ptr_nonnull(found);
        ck_assert_str_eq(found->name, archs[n]->name);
        ck_assert_ptr_nonnull(archs[n]->gguf_names);
        ck_assert_ptr_nonnull(archs[n]->hf_names);
        ck_assert_ptr_nonnull(archs[n]->hf_types[0]);
        ck_assert_int_eq(archs[n]->tensors[TENSORS_CORE], TENSOR_REQUIRED);
        ck_assert_int_ne(archs[n]->rope_pairing, ROPE_NONE);
    }
    ck_assert_int_ge(n, 2);
}
END_TEST

START_TEST(names_match_whole)
{
    ck_assert_str_eq(arch_find("llama", 5)->name, "llama");
    ck_assert_ptr_null(arch_find("llama", 4));
    ck_assert_ptr_null(arch_find("llama\0", 6));
    ck_assert_ptr_null(arch_find("Llama", 5));
    ck_assert_ptr_null(arch_find("", 0));
}
END_TEST

static Suite *archs_suite(void)
{
    Suite *s = suite_create("model/archs");
    TCase *t = tcase_create("archs");
    tcase_add_test(t, every_row_is_found_by_its_name);
    tcase_add_test(t, names_match_whole);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(archs_suite)

/* GGUF models in several files. */
#include "tests/test.h"
#include "tests/weights/folder_build.h"
#include "tests/weights/gguf_build.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char part_path[128];

static const char *part(int no, int count)
{
    (void)snprintf(part_path, sizeof part_path, "%s/m-%05d-of-%05d.gguf", folder, no, count);
    return part_path;
}

/* path is that of a file in the folder. */
static void write_bytes(const char *path, const void *data, size_t len)
{
    folder_put_bytes(strrchr(path, '/') + 1, data, len);
}

static void write_file(const char *path, struct gguf_build *b)
{
    gguf_build_finish(b);
    write_bytes(path, b->data, b->len);
}

/* Part no (from 1) of a model of three parts and four tensors. */
static struct gguf_build *new_part(int no)
{
    struct gguf_build *b = gguf_build_new(3);
    static const char *const names[] = {"a", "b", "c", "d"};
    if (no == 1)
        gguf_build_str(b, "general.architecture", "llama");
    gguf_build_int(b, "split.no", META_U16, no - 1);
    gguf_build_int(b, "split.count", META_U16, 3);
    gguf_build_int(b, "split.tensors.count", META_I32, 4);
    float x[4] = {(float)no, 2, 3, 4};
    gguf_build_tensor(b, names[no - 1], QTYPE_F32, 1, (int64_t[]){4}, x);
    if (no == 3)
        gguf_build_tensor(b, names[3], QTYPE_F32, 1, (int64_t[]){4}, x);
    return b;
}

static void write_part(int no)
{
    struct gguf_build *b = new_part(no);
    write_file(part(no, 3), b);
    gguf_build_free(b);
}

static void make_parts(void)
{
    folder_make();
    for (int no = 1; no <= 3; no++)
        write_part(no);
}

START_TEST(split_opens)
{
    struct weights *w;
    char err[512];
    ck_assert_msg(weights_open(&w, part(1, 3), NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(weights_n_files(w), 3);
    ck_assert_uint_eq(weights_n_tensors(w), 4);
    ck_assert_uint_eq(weights_n_meta(w), 4); /* the first part's */
    const struct tensor *t = weights_find(w, "d");
    float x;
    ck_assert_int_eq(t->file, 2);
    ck_assert_str_eq(weights_file_name(w, 2), part(3, 3));
    memcpy(&x, t->data, sizeof x);
    ck_assert(x == 3);
    memcpy(&x, weights_find(w, "b")->data, sizeof x);
    ck_assert(x == 2);
    weights_close(w);
}
END_TEST

/* Opening the first part fails, and names `culprit`. */
static void split_is_bad(const char *culprit, const char *expected)
{
    struct weights *w;
    char err[512], name[128];
    (void)snprintf(name, sizeof name, "%s: ", culprit);
    ck_assert_int_eq(weights_open(&w, part(1, 3), NULL, err, sizeof err), -1);
    ck_assert_msg(strncmp(err, name, strlen(name)) == 0, "%s", err);
    ck_assert_msg(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
}

START_TEST(split_opened_by_a_later_part)
{
    char expected[192];
    (void)snprintf(expected, sizeof expected, "part 2 of 3 of a split model: open the first part, %s ",
                   part(1, 3));
    path_is_bad(part(2, 3), expected);
}
END_TEST

START_TEST(split_without_its_name)
{
    struct gguf_build *b = new_part(1);
    gguf_build_finish(b);
    image_is_bad(b->data, b->len, "does not end in -00001-of-00003.gguf");
    gguf_build_free(b);
    b = new_part(2);
    gguf_build_finish(b);
    image_is_bad(b->data, b->len, "open the first part (key");
    gguf_build_free(b);
}
END_TEST

START_TEST(split_errors)
{
    char second[128], third[128];
    (void)snprintf(second, sizeof second, "%s", part(2, 3));
    (void)snprintf(third, sizeof third, "%s", part(3, 3));

    ck_assert_int_eq(unlink(second), 0);
    split_is_bad(second, "No such file");
    write_bytes(second, NULL, 0);
    split_is_bad(second, "empty");

    static const struct {
        const char *key;
        int64_t v;
        const char *expected;
    } wrong[] = {
        {"split.no", 2, "'split.no' is 2, not 1"},
        {"split.count", 4, "'split.count' is 4, but 3"},
        {"split.tensors.count", 5, "'split.tensors.count' is 5, but 4"},
    };
    for (int i = 0; i < 3; i++) {
        struct gguf_build *b = new_part(2);
        gguf_build_int(b, wrong[i].key, META_U16, wrong[i].v);
        write_file(second, b);
        gguf_build_free(b);
        split_is_bad(second, wrong[i].expected);
    }
    struct gguf_build *b = new_part(2);
    ck_assert(gguf_build_remove_tensor(b, "b"));
    write_file(second, b);
    split_is_bad(part(1, 3), "'split.tensors.count' is 4, but the files hold 3 tensors");
    gguf_build_tensor(b, "c", QTYPE_F32, 1, (int64_t[]){4}, NULL);
    write_file(second, b);
    split_is_bad(part(1, 3), "tensor 'c' occurs twice");
    gguf_build_raw(b, "split.no", 8, META_U8, "\1", 1);
    write_file(second, b);
    split_is_bad(second, "key 'split.no' occurs twice");
    gguf_build_free(b);
    write_part(2);

    b = new_part(3);
    gguf_build_finish(b);
    b->data[0] = 'X';
    write_bytes(third, b->data, b->len);
    split_is_bad(third, "is no GGUF file");
    gguf_build_free(b);
}
END_TEST

static Suite *gguf_split_suite(void)
{
    Suite *s = suite_create("weights/gguf_split");
    TCase *tc = tcase_create("split");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, make_parts, folder_remove);
    tcase_add_test(tc, split_opens);
    tcase_add_test(tc, split_opened_by_a_later_part);
    tcase_add_test(tc, split_without_its_name);
    tcase_add_test(tc, split_errors);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(gguf_split_suite)

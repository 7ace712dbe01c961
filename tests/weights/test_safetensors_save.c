/* Writing safetensors files. */
#include "tests/test.h"
#include "weights/weights.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[32];
static char path[64];

static void open_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/quoll-save-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/out.safetensors", folder);
}

static void remove_folder(void)
{
    (void)unlink(path);
    ck_assert_int_eq(rmdir(folder), 0); /* fails when a temporary file was left */
}

static const float logits[6] = {0, 1, -2, 3.5F, 4, 5};
static const int32_t ids[3] = {7, -8, 9};
static const int8_t bytes[5] = {1, 2, 3, -4, 5};

static const struct save_tensor tensors[] = {
    {"ids", QTYPE_I32, 1, {3}, ids},
    {"logits", QTYPE_F32, 2, {2, 3}, logits},
    {"odd \"name\" caf\xc3\xa9", QTYPE_I8, 4, {1, 5, 1, 1}, bytes},
    {"scalar", QTYPE_F32, 0, {0}, &logits[3]},
    {"none", QTYPE_F16, 2, {0, 4}, NULL},
};

static struct weights *save_and_open(size_t n)
{
    char err[512] = "";
    struct weights *w = NULL;
    ck_assert_msg(weights_save_safetensors(path, tensors, n, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    return w;
}

START_TEST(round_trip)
{
    struct weights *w = save_and_open(5);
    ck_assert_uint_eq(weights_n_tensors(w), 5);
    for (size_t i = 0; i < 5; i++) {
        const struct tensor *t = weights_find(w, tensors[i].name);
        ck_assert_ptr_nonnull(t);
        ck_assert_int_eq(t->type, tensors[i].type);
        for (int d = 0; d < tensors[i].n_dims; d++)
            ck_assert_int_eq(t->dims[tensors[i].n_dims - 1 - d], tensors[i].dims[d]);
        if (t->bytes > 0)
            ck_assert_mem_eq(t->data, tensors[i].data, t->bytes);
    }
    ck_assert_uint_eq(weights_find(w, "ids")->offset % 8, 0); /* the data's start is aligned */
    weights_close(w);
}
END_TEST

START_TEST(replaces_a_file)
{
    weights_close(save_and_open(5));
    struct weights *w = save_and_open(1);
    ck_assert_uint_eq(weights_n_tensors(w), 1);
    weights_close(w);
    w = save_and_open(0);
    ck_assert_uint_eq(weights_n_tensors(w), 0);
    weights_close(w);
}
END_TEST

static void save_is_bad(const char *to, const struct save_tensor *t, size_t n, const char *expected)
{
    char err[512] = "";
    ck_assert_int_eq(weights_save_safetensors(to, t, n, err, sizeof err), -1);
    ck_assert_msg(strncmp(err, to, strlen(to)) == 0, "%s", err);
    ck_assert_msg(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
}

START_TEST(what_cannot_be_saved)
{
    const struct save_tensor twice[] = {tensors[0], tensors[0]};
    const struct save_tensor quantised = {"q", QTYPE_Q4_0, 1, {32}, logits};
    const struct save_tensor no_utf8 = {"\xff", QTYPE_F32, 1, {1}, logits};
    const struct save_tensor no_name = {"", QTYPE_F32, 1, {1}, logits};
    const struct save_tensor huge = {"h", QTYPE_F32, 2, {INT64_MAX, 2}, logits};
    save_is_bad(path, twice, 2, "tensor 'ids' occurs twice");
    save_is_bad(path, &quantised, 1, "tensor 'q': a safetensors file cannot hold type q4_0");
    save_is_bad(path, &no_utf8, 1, "no UTF-8");
    save_is_bad(path, &no_name, 1, "is empty");
    save_is_bad(path, &huge, 1, "larger than any memory");
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(where_nothing_can_be_saved)
{
    save_is_bad("/nowhere/at/all.safetensors", tensors, 1, "cannot create it");
    save_is_bad(folder, tensors, 1, "cannot create it");
    if (access("/dev/full", W_OK) == 0)
        save_is_bad("/dev/full", tensors, 2, "No space left on device");
}
END_TEST

START_TEST(device_is_written_not_replaced)
{
    char err[512] = "";
    struct stat st;
    ck_assert_msg(weights_save_safetensors("/dev/null", tensors, 2, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(stat("/dev/null", &st), 0);
    ck_assert(S_ISCHR(st.st_mode));
}
END_TEST

START_TEST(old_file_survives_a_failure)
{
    weights_close(save_and_open(2));
    const struct save_tensor twice[] = {tensors[0], tensors[0]};
    save_is_bad(path, twice, 2, "occurs twice");
    struct weights *w;
    char err[512];
    ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
    ck_assert_uint_eq(weights_n_tensors(w), 2);
    weights_close(w);
}
END_TEST

static Suite *safetensors_save_suite(void)
{
    Suite *s = suite_create("weights/safetensors_save");
    TCase *tc = tcase_create("save");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, open_folder, remove_folder);
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, replaces_a_file);
    tcase_add_test(tc, what_cannot_be_saved);
    tcase_add_test(tc, where_nothing_can_be_saved);
    tcase_add_test(tc, device_is_written_not_replaced);
    tcase_add_test(tc, old_file_survives_a_failure);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(safetensors_save_suite)

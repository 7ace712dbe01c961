/* Files of every kind, the ways to hold them, and advice about their pages. */
#include "tests/test.h"
#include "tests/weights/gguf_build.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct gguf_build *model(void)
{
    struct gguf_build *b = gguf_build_new(3);
    enum { N = 1 << 16 };
    int32_t *x = calloc(N, sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (int i = 0; i < N; i++)
        x[i] = i;
    gguf_build_tensor(b, "first", QTYPE_I8, 1, (int64_t[]){100}, NULL);
    gguf_build_tensor(b, "numbers", QTYPE_I32, 1, (int64_t[]){N}, x);
    gguf_build_finish(b);
    free(x);
    return b;
}

START_TEST(not_models)
{
    static const struct {
        const char *bytes, *expected;
    } files[] = {
        {"", "is empty"},
        {"G", "is no GGUF, safetensors, PyTorch or llama2.c file"},
        {"GGU", "is no GGUF, safetensors, PyTorch or llama2.c file"},
        {"GGUF", "cut short: the header needs 4 bytes at byte 4"},
        {"hello, world", "is no GGUF, safetensors, PyTorch or llama2.c file"},
        {"lmgg\1\2\3\4", "a GGML file of 2023"},
        {"PK\003\004rest", "cut short: a zip archive without its directory"},
        {"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"},
        {"<!DOCTYPE html>", "a web page"},
        {"12345678{}", "header of"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        image_is_bad(files[i].bytes, strlen(files[i].bytes), files[i].expected);
}
END_TEST

START_TEST(not_files)
{
    char folder[] = "/tmp/quoll-files-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    path_is_bad(folder, "is a folder without weights");
    path_is_bad("/dev/null", "not a regular file");
    path_is_bad("/nowhere/at/all.gguf", "No such file");
    path_is_bad("", "No such file");
    (void)snprintf(path, sizeof path, "%s/fifo", folder);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    path_is_bad(path, "not a regular file"); /* and does not wait for a writer */
    ck_assert_int_eq(unlink(path), 0);
    (void)snprintf(path, sizeof path, "%s/short.safetensors", folder);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    (void)fputs("abc", f);
    ck_assert_int_eq(fclose(f), 0);
    path_is_bad(path, "cut short: 3 bytes"); /* the name says what it should be */
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(error_buffer_may_be_missing)
{
    struct weights *w;
    char one[1] = {'x'};
    ck_assert_int_eq(weights_open(&w, "/nowhere", NULL, NULL, 0), -1);
    ck_assert_int_eq(weights_open(&w, "/nowhere", NULL, one, 1), -1);
    ck_assert_int_eq(one[0], '\0');
    weights_close(NULL);
}
END_TEST

/* _i: 0 mapped, 1 read, 2 mapped and locked, 3 read and locked. */
START_TEST(every_way_to_hold_a_file)
{
    struct gguf_build *b = model();
    struct weights_options opt = {.no_mmap = (_i & 1) != 0, .mlock = (_i & 2) != 0};
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    struct weights *w;
    char err[512] = "";
    if (opt.mlock && limit.rlim_cur < (2 << 20)) {
        test_skip("mlock", "this process may lock too little memory");
        gguf_build_free(b);
        return;
    }
    ck_assert_msg(weights_open(&w, image_path(b->data, b->len), &opt, err, sizeof err) == 0, "%s", err);
    const struct tensor *t = weights_find(w, "numbers");
    ck_assert_mem_eq(t->data, b->data + t->offset, t->bytes);
    /* Dropped pages come back with the same bytes, whatever the range. */
    const struct {
        uint64_t from, n;
    } ranges[] = {{0, t->bytes}, {0, UINT64_MAX}, {4096, 8192}, {1, 1},
                  {t->bytes, 1}, {UINT64_MAX, 9}, {100, 0}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        weights_drop(w, t, ranges[i].from, ranges[i].n);
        weights_prefetch(w, t, ranges[i].from, ranges[i].n);
        ck_assert_mem_eq(t->data, b->data + t->offset, t->bytes);
    }
    ck_assert_mem_eq(weights_find(w, "first")->data, b->data + weights_find(w, "first")->offset, 100);
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

START_TEST(lock_that_is_not_allowed)
{
    struct gguf_build *b = model();
    struct rlimit none = {0, 0};
    struct weights_options opt = {.mlock = true};
    struct weights *w;
    char err[512] = "";
    ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &none), 0); /* of this test's own process */
    if (weights_open(&w, image_path(b->data, b->len), &opt, err, sizeof err) == 0) {
        test_skip("refused mlock", "this process may lock all memory");
        weights_close(w);
    } else
        ck_assert_msg(strstr(err, "cannot lock") != NULL, "%s", err);
    gguf_build_free(b);
}
END_TEST

START_TEST(lookup_among_many)
{
    enum { N = 3000 };
    struct gguf_build *b = gguf_build_new(3);
    char name[32];
    for (int i = 0; i < N; i++) {
        (void)snprintf(name, sizeof name, "blk.%d.weight", i * 7919 % N);
        gguf_build_tensor(b, name, QTYPE_I8, 1, (int64_t[]){32}, NULL);
        gguf_build_int(b, name, META_U32, i);
    }
    gguf_build_finish(b);
    struct weights *w = image_open(b->data, b->len);
    for (int i = 0; i < N; i++) {
        int64_t v;
        (void)snprintf(name, sizeof name, "blk.%d.weight", i);
        ck_assert_str_eq(weights_find(w, name)->name, name);
        ck_assert(meta_int(weights_meta_find(w, name), 0, &v));
        ck_assert_int_eq(v * 7919 % N, i);
    }
    ck_assert_ptr_null(weights_find(w, "blk.3000.weight"));
    ck_assert_ptr_null(weights_find(w, "zzz"));
    ck_assert_ptr_null(weights_find(w, ""));
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

static Suite *weights_suite(void)
{
    Suite *s = suite_create("weights/weights");
    TCase *tc = tcase_create("weights");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, not_models);
    tcase_add_test(tc, not_files);
    tcase_add_test(tc, error_buffer_may_be_missing);
    tcase_add_loop_test(tc, every_way_to_hold_a_file, 0, 4);
    tcase_add_test(tc, lock_that_is_not_allowed);
    tcase_add_test(tc, lookup_among_many);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(weights_suite)

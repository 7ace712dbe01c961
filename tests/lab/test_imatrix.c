/* Importance matrices: what is added, written and read, in both kinds of files. */
#include "lab/imatrix.h"
#include "tests/test.h"
#include "weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char err[512], path[64];

static void set_path(void)
{
    (void)snprintf(path, sizeof path, "/tmp/quoll-imatrix-%ld", (long)getpid());
}

static void add(struct imatrix *im, const char *name, int64_t cols, int n_experts, const double *sum,
                const double *count)
{
    ck_assert_msg(imatrix_add(im, name, cols, n_experts, sum, count, err, sizeof err) == 0, "%s", err);
}

/* A plain matrix, one of three experts (the last was not reached), one that nothing reached. */
static struct imatrix *sample(void)
{
    struct imatrix *im = imatrix_new();
    add(im, "blk.0.attn_q.weight", 3, 1, (double[]){2, 4, 8}, (double[]){2});
    add(im, "blk.0.ffn_up_exps.weight", 2, 3, (double[]){1, 2, 30, 40, 0, 0}, (double[]){1, 10, 0});
    add(im, "blk.1.attn_q.weight", 3, 1, (double[]){0, 0, 0}, (double[]){0});
    ck_assert_int_eq(imatrix_add_text(im, "a.txt", 5, err, sizeof err), 0);
    return im;
}

static void expect_means(const struct imatrix *im)
{
    struct importance *t = imatrix_importance(im);
    const struct importance_entry *q = importance_find(t, "blk.0.attn_q.weight");
    const struct importance_entry *x = importance_find(t, "blk.0.ffn_up_exps.weight");
    ck_assert(q && q->cols == 3 && q->n_experts == 1 && x && x->cols == 2 && x->n_experts == 3);
    ck_assert(q->mean[0] == 1 && q->mean[1] == 2 && q->mean[2] == 4);
    ck_assert(x->mean[1] == 2 && x->mean[2] == 3 && x->mean[3] == 4 && x->mean[4] == 0);
    importance_free(t);
}

START_TEST(what_is_written_is_read)
{
    struct imatrix *im = sample(), *back = imatrix_new();
    set_path();
    expect_means(im);
    ck_assert_msg(imatrix_write(im, path, 512, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(imatrix_read(back, path, 512, err, sizeof err) == 0, "%s", err);
    ck_assert_uint_eq(imatrix_n(back), 2); /* the unreached one is left out */
    ck_assert_int_eq(imatrix_n_chunks(back), 5);
    expect_means(back);
    /* As llama.cpp names and shapes things. */
    struct weights *w;
    ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
    const struct tensor *sums = weights_find(w, "blk.0.ffn_up_exps.weight.in_sum2");
    const struct tensor *counts = weights_find(w, "blk.0.ffn_up_exps.weight.counts");
    ck_assert(sums && counts && sums->dims[0] == 2 && sums->dims[1] == 3);
    ck_assert(counts->dims[0] == 1 && counts->dims[1] == 3 && counts->type == QTYPE_F32);
    struct wstr s;
    int64_t n;
    ck_assert(meta_str(weights_meta_find(w, "general.type"), 0, &s) && s.len == 7 &&
              memcmp(s.s, "imatrix", 7) == 0);
    ck_assert(meta_str(weights_meta_find(w, "imatrix.datasets"), 0, &s) && s.len == 5);
    ck_assert(meta_int(weights_meta_find(w, "imatrix.chunk_count"), 0, &n) && n == 5);
    ck_assert(meta_int(weights_meta_find(w, "imatrix.chunk_size"), 0, &n) && n == 512);
    weights_close(w);
    /* Merged with itself: the same means, twice the tokens. */
    ck_assert_int_eq(imatrix_read(back, path, 512, err, sizeof err), 0);
    ck_assert_int_eq(imatrix_n_chunks(back), 10);
    expect_means(back);
    struct importance *t;
    ck_assert_msg(importance_read(&t, path, err, sizeof err) == 0, "%s", err);
    ck_assert_uint_eq(importance_n(t), 2);
    importance_free(t);
    imatrix_free(im);
    imatrix_free(back);
    imatrix_free(NULL);
    unlink(path);
}
END_TEST

static void refuse(struct imatrix *im, int64_t cols, int n_experts, double sum, double count, const char *why)
{
    const double sums[] = {1, sum, 1}, counts[] = {1, count, 1};
    ck_assert_int_eq(
        imatrix_add(im, "blk.0.attn_q.weight", cols, n_experts, sums, counts + 1, err, sizeof err), -1);
    ck_assert_msg(strstr(err, why) != NULL, "'%s' does not say '%s'", err, why);
}

START_TEST(only_amounts_are_added)
{
    struct imatrix *im = sample();
    refuse(im, 3, 1, NAN, 1, "column 1");
    refuse(im, 3, 1, INFINITY, 1, "inf");
    refuse(im, 3, 1, -1, 1, "-1");
    refuse(im, 3, 1, 1, NAN, "nan tokens");
    refuse(im, 2, 1, 1, 1, "3 of 1 elsewhere");
    refuse(im, 0, 1, 1, 1, "0 columns");
    refuse(im, 3, 0, 1, 1, "0 experts");
    expect_means(im); /* nothing was added */
    imatrix_free(im);
    im = imatrix_new();
    ck_assert_int_eq(imatrix_write(im, "/tmp/never", 512, err, sizeof err), -1);
    imatrix_free(im);
}
END_TEST

/* ---- The older file -------------------------------------------------------------------------------------
 */

struct bytes {
    char at[512];
    size_t n;
};

static void put(struct bytes *b, const void *data, size_t n)
{
    memcpy(b->at + b->n, data, n);
    b->n += n;
}

static void put_i32(struct bytes *b, int32_t v)
{
    put(b, &v, sizeof v);
}

static struct bytes old_file(bool with_text)
{
    struct bytes b = {.n = 0};
    put_i32(&b, 2);
    put_i32(&b, 6);
    put(&b, "blk.0a", 6);
    put_i32(&b, 4); /* chunks: mean · 4 */
    put_i32(&b, 3);
    put(&b, (float[]){4, 8, 2}, 12);
    put_i32(&b, 1);
    put(&b, "b", 1);
    put_i32(&b, 1);
    put_i32(&b, 1);
    put(&b, (float[]){7}, 4);
    if (with_text) {
        put_i32(&b, 4);
        put_i32(&b, 5);
        put(&b, "x.txt", 5);
    }
    return b;
}

static int read_bytes_as_file(const struct bytes *b, size_t n, struct imatrix **im)
{
    set_path();
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(b->at, 1, n, f), n);
    fclose(f);
    *im = imatrix_new();
    int rc = imatrix_read(*im, path, 512, err, sizeof err);
    ck_assert_msg(rc == 0 || strncmp(err, path, strlen(path)) == 0, "%s", err);
    unlink(path);
    return rc;
}

START_TEST(older_files_are_read)
{
    for (int with_text = 0; with_text < 2; with_text++) {
        struct bytes b = old_file(with_text);
        struct imatrix *im;
        ck_assert_msg(read_bytes_as_file(&b, b.n, &im) == 0, "%s", err);
        ck_assert_int_eq(imatrix_n_chunks(im), with_text ? 4 : 0);
        struct importance *t = imatrix_importance(im);
        const struct importance_entry *e = importance_find(t, "blk.0a");
        ck_assert(e && e->cols == 3 && e->mean[0] == 1 && e->mean[1] == 2 && e->mean[2] == 0.5f);
        e = importance_find(t, "b");
        ck_assert(e && e->mean[0] == 7);
        importance_free(t);
        imatrix_free(im);
    }
}
END_TEST

START_TEST(broken_files_are_refused)
{
    struct bytes whole = old_file(false);
    struct imatrix *im;
    for (size_t n = 0; n < whole.n; n++) {
        ck_assert_int_eq(read_bytes_as_file(&whole, n, &im), -1);
        imatrix_free(im);
    }
    for (size_t at = 0; at < whole.n; at++) { /* read or refused, never worse */
        struct bytes b = whole;
        b.at[at] = (char)0xff;
        (void)read_bytes_as_file(&b, b.n, &im);
        imatrix_free(im);
    }
    im = imatrix_new();
    ck_assert_int_eq(imatrix_read(im, "/nowhere/x", 512, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "/nowhere/x: ") == err, "%s", err);
    const char *model = test_golden("gguf/llama-f16/model.gguf"); /* a GGUF of another kind */
    if (model) {
        ck_assert_int_eq(imatrix_read(im, model, 512, err, sizeof err), -1);
        ck_assert_msg(strstr(err, "no importance matrix") != NULL, "%s", err);
    }
    imatrix_free(im);
}
END_TEST

/* A GGUF whose sums and counts do not go together. */
static int write_part(void *arg, size_t i, struct save_file *f)
{
    const float v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct save_gguf_tensor *t = arg;
    return weights_save_part(f, v, (uint64_t)(t[i].dims[0] * t[i].dims[1]) * sizeof *v);
}

START_TEST(sums_and_counts_go_together)
{
    static const struct save_gguf_tensor cases[][2] = {
        {{"a.in_sum2", QTYPE_F32, 2, {2, 2, 1, 1}}, {"a.counts", QTYPE_F32, 2, {1, 3, 1, 1}}},
        {{"a.in_sum2", QTYPE_F32, 2, {2, 2, 1, 1}}, {"b.counts", QTYPE_F32, 2, {1, 2, 1, 1}}},
        {{"a.in_sum2", QTYPE_I32, 2, {2, 2, 1, 1}}, {"a.counts", QTYPE_F32, 2, {1, 2, 1, 1}}},
    };
    set_path();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct save_gguf g = {
            .tensor = cases[i], .n_tensors = 2, .write = write_part, .arg = (void *)cases[i]};
        struct imatrix *im = imatrix_new();
        ck_assert_msg(weights_save_gguf(path, &g, err, sizeof err) == 0, "%s", err);
        ck_assert_int_eq(imatrix_read(im, path, 512, err, sizeof err), -1);
        ck_assert_msg(strncmp(err, path, strlen(path)) == 0, "%s", err);
        imatrix_free(im);
    }
    unlink(path);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/imatrix");
    TCase *tc = tcase_create("imatrix");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_is_written_is_read);
    tcase_add_test(tc, only_amounts_are_added);
    tcase_add_test(tc, older_files_are_read);
    tcase_add_test(tc, broken_files_are_refused);
    tcase_add_test(tc, sums_and_counts_go_together);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

/* Files of logits: what a row loses, and files that are broken. */
#include "lab/divergence.h"
#include "lab/logits_file.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 3000, N_IDS = 8 };

static char err[512], path[64];

static void make_row(float *row, unsigned seed, float spread)
{
    uint32_t x = seed * 2654435761u + 1;
    for (int i = 0; i < VOCAB; i++) {
        x = x * 1664525u + 1013904223u;
        float u = (float)(x >> 8) / (float)(1 << 24);
        row[i] = 3 - spread * sqrtf(u);
    }
}

START_TEST(rows_keep_what_counts)
{
    float row[VOCAB], got[VOCAB];
    uint8_t *packed = malloc(logits_row_max_bytes(VOCAB));
    for (unsigned k = 0; k < 20; k++) {
        const int32_t token = (int32_t)(k * 149);
        make_row(row, k, 1 + 2 * (float)k);
        row[token] = k % 2 ? -30 : row[token];
        size_t n = logits_row_pack(packed, row, VOCAB, token);
        ck_assert_uint_le(n, logits_row_max_bytes(VOCAB));
        logits_row_unpack(got, packed, VOCAB);
        const double all = logits_log_sum_exp(row, VOCAB);
        double sum = 0, tail = 0, loss = 0;
        for (int i = 0; i < VOCAB; i++) {
            const double log_p = (double)row[i] - all;
            sum += exp((double)got[i]);
            if (i == token || log_p > -log(VOCAB) + 1e-5) {
                ck_assert_float_eq(got[i], (float)log_p);
            } else {
                const double off = fabs((double)got[i] - log_p);
                const double step = 3 * exp((-log(VOCAB) - log_p) / 3) / 254;
                ck_assert(step > 0.2 || off < 0.6 * step + 0.01);
                tail += exp(log_p);
                loss += exp(log_p) * off * off;
            }
        }
        ck_assert_double_eq_tol(sum, 1, 1e-6); /* the tail's sum is kept too */
        if (k > 4)
            ck_assert(tail > 1e-6); /* else nothing was tested */
        /* The divergence between the row and what came back. */
        ck_assert(loss <= 6e-5 * tail && token_score(got, row, VOCAB, token).kl < 3e-5 * tail + 1e-7);
    }
    free(packed);
}
END_TEST

START_TEST(rows_that_are_no_numbers_stay_so)
{
    float row[VOCAB], got[VOCAB];
    uint8_t *packed = malloc(logits_row_max_bytes(VOCAB));
    make_row(row, 1, 10);
    row[17] = -INFINITY;
    (void)logits_row_pack(packed, row, VOCAB, 3);
    logits_row_unpack(got, packed, VOCAB);
    ck_assert(isinf(got[17]) && got[17] < 0);
    ck_assert(isfinite(got[18]));
    row[17] = -300; /* so far below that float's e^x is 0 */
    (void)logits_row_pack(packed, row, VOCAB, 3);
    logits_row_unpack(got, packed, VOCAB);
    ck_assert(isfinite(got[17]) && got[17] < -45);
    for (int i = 0; i < VOCAB; i++) /* all equal */
        row[i] = 2;
    (void)logits_row_pack(packed, row, VOCAB, 3);
    logits_row_unpack(got, packed, VOCAB);
    for (int i = 0; i < VOCAB; i++)
        ck_assert_float_eq_tol(got[i], -logf(VOCAB), 1e-6f);
    row[5] = NAN;
    (void)logits_row_pack(packed, row, VOCAB, 3);
    logits_row_unpack(got, packed, VOCAB);
    ck_assert(isnan(got[0]));
    free(packed);
}
END_TEST

static const int32_t ids[N_IDS] = {1, 2, 3, 4, 5, 6, 7, 8};

static struct logits_header header(void)
{
    struct logits_header h = {.vocab_size = VOCAB, .text_hash = {1, 2, 3}};
    ck_assert_int_eq(windows_plan(&h.windows, PROTOCOL_LLAMA, 4, 0, N_IDS, 9, 0, err, sizeof err), 0);
    return h;
}

/* A whole file of two windows, one row each. */
static void write_file(void)
{
    const struct logits_header h = header();
    struct logits_writer *w;
    float row[VOCAB];
    uint8_t *packed = malloc(logits_row_max_bytes(VOCAB));
    (void)snprintf(path, sizeof path, "/tmp/quoll-logits-%ld", (long)getpid());
    ck_assert_msg(logits_writer_open(&w, path, &h, ids, err, sizeof err) == 0, "%s", err);
    for (unsigned k = 0; k < 2; k++) {
        make_row(row, k, 20);
        ck_assert_int_eq(logits_write(w, packed, logits_row_pack(packed, row, VOCAB, 1)), 0);
    }
    ck_assert_int_eq(logits_writer_close(w, 0), 0);
    free(packed);
}

/* Reads all of the file: −1 with err, or 0. */
static int read_file_back(void)
{
    struct logits_reader *r;
    uint8_t *packed = malloc(logits_row_max_bytes(VOCAB));
    int rc = logits_reader_open(&r, path, err, sizeof err);
    if (rc == 0) {
        int64_t n = windows_n_scored(&logits_reader_header(r)->windows);
        /* A header may have been changed to another vocabulary: its rows would not fit. */
        if (logits_reader_header(r)->vocab_size != VOCAB)
            n = 0;
        for (int64_t i = 0; rc == 0 && i < n; i++)
            rc = logits_read(r, packed, err, sizeof err);
        logits_reader_close(r);
    }
    free(packed);
    return rc;
}

START_TEST(files_come_back)
{
    struct logits_reader *r;
    float row[VOCAB], got[VOCAB];
    uint8_t *packed = malloc(logits_row_max_bytes(VOCAB));
    write_file();
    ck_assert_msg(logits_reader_open(&r, path, err, sizeof err) == 0, "%s", err);
    const struct logits_header *h = logits_reader_header(r), wanted = header();
    ck_assert_mem_eq(&h->text_hash, &wanted.text_hash, sizeof wanted.text_hash);
    ck_assert_int_eq(h->vocab_size, VOCAB);
    ck_assert_int_eq(h->windows.n, 2);
    ck_assert_int_eq(h->windows.n_ctx, 4);
    ck_assert_int_eq(h->windows.bos, 9);
    ck_assert_mem_eq(logits_reader_ids(r), ids, sizeof ids);
    for (unsigned k = 0; k < 2; k++) {
        make_row(row, k, 20);
        ck_assert_msg(logits_read(r, packed, err, sizeof err) == 0, "%s", err);
        logits_row_unpack(got, packed, VOCAB);
        ck_assert(token_score(got, row, VOCAB, 1).kl < 1e-5);
    }
    ck_assert_int_eq(logits_read(r, packed, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "ends early") != NULL, "%s", err);
    logits_reader_close(r);
    free(packed);
    unlink(path);
}
END_TEST

START_TEST(unfinished_files_go_away)
{
    const struct logits_header h = header();
    struct logits_writer *w;
    (void)snprintf(path, sizeof path, "/tmp/quoll-logits-%ld", (long)getpid());
    ck_assert_int_eq(logits_writer_open(&w, path, &h, ids, err, sizeof err), 0);
    ck_assert_int_eq(logits_writer_close(w, -1), -1);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_int_eq(logits_writer_open(&w, "/nowhere/x", &h, ids, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "/nowhere/x: ") == err, "%s", err);
    ck_assert_int_eq(logits_writer_close(NULL, 0), 0);
}
END_TEST

START_TEST(broken_files_are_refused)
{
    write_file();
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    static char bytes[1 << 16];
    const size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    ck_assert_uint_lt(n, sizeof bytes);
    for (size_t cut = 0; cut < n; cut += cut < 200 ? 1 : 97) {
        f = fopen(path, "wb");
        ck_assert_uint_eq(fwrite(bytes, 1, cut, f), cut);
        fclose(f);
        ck_assert_int_eq(read_file_back(), -1);
        ck_assert_msg(strncmp(err, path, strlen(path)) == 0, "%s", err);
    }
    /* Every byte of the header, ids and the first row's counts: read, or refused, never worse. */
    for (size_t at = 0; at < 136; at++)
        for (int k = 0; k < 3; k++) {
            const char was = bytes[at];
            bytes[at] = (char)(k == 0 ? 0xff : k == 1 ? 0x80 : was + 1);
            f = fopen(path, "wb");
            ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
            fclose(f);
            int rc = read_file_back();
            ck_assert(at >= 8 || rc == -1);                                   /* the magic */
            ck_assert(at < 120 || at >= 124 || rc == -1 || was == bytes[at]); /* the count of exact ones */
            bytes[at] = was;
        }
    unlink(path);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/logits_file");
    TCase *tc = tcase_create("logits");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, rows_keep_what_counts);
    tcase_add_test(tc, rows_that_are_no_numbers_stay_so);
    tcase_add_test(tc, files_come_back);
    tcase_add_test(tc, unfinished_files_go_away);
    tcase_add_test(tc, broken_files_are_refused);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

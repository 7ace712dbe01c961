/* The GGUF reader: good files, and hundreds of bad ones made from a good one. */
#include "tests/test.h"
#include "tests/weights/gguf_build.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* A small model with the kinds of keys and shapes that matter. */
static struct gguf_build *small(void)
{
    struct gguf_build *b = gguf_build_new(3);
    float a[12];
    for (int i = 0; i < 12; i++)
        a[i] = (float)i;
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_int(b, "general.alignment", META_U32, 32);
    gguf_build_strs(b, "tokens", (const char *[]){"<s>", "", "word"}, 3);
    gguf_build_array(b, "scores", META_F32, (float[]){1, 2}, 2);
    gguf_build_int(b, "flag", META_BOOL, 1);
    gguf_build_array(b, "flags", META_BOOL, (uint8_t[]){1, 0}, 2);
    gguf_build_tensor(b, "a", QTYPE_F32, 2, (int64_t[]){4, 3}, a);
    gguf_build_tensor(b, "b", QTYPE_Q4_0, 2, (int64_t[]){32, 2}, NULL);
    gguf_build_tensor(b, "c", QTYPE_Q8_0, 1, (int64_t[]){64}, NULL);
    gguf_build_tensor(b, "d", QTYPE_F16, 4, (int64_t[]){8, 2, 3, 1}, NULL);
    gguf_build_finish(b);
    return b;
}

/* The nth field of a kind. */
static const struct gguf_field *field(const struct gguf_build *b, const char *what, int nth)
{
    for (size_t i = 0; i < b->n_fields; i++)
        if (strcmp(b->fields[i].what, what) == 0 && nth-- == 0)
            return &b->fields[i];
    ck_abort_msg("no such field");
    return NULL;
}

static void patch(struct gguf_build *b, const char *what, int nth, uint64_t v)
{
    const struct gguf_field *f = field(b, what, nth);
    memcpy(b->data + f->at, &v, (size_t)f->bytes);
}

static void bad_and_free(struct gguf_build *b, const char *expected)
{
    image_is_bad(b->data, b->len, expected);
    gguf_build_free(b);
}

/* small() with one field changed. */
static void bad_field(const char *what, int nth, uint64_t v, const char *expected)
{
    struct gguf_build *b = small();
    patch(b, what, nth, v);
    bad_and_free(b, expected);
}

/* ---- Good files ------------------------------------------------------------------------------ */

START_TEST(small_file_opens)
{
    struct gguf_build *b = small();
    b->version = _i == 0 ? 2 : 3;
    gguf_build_finish(b);
    struct weights *w = image_open(b->data, b->len);
    ck_assert_str_eq(weights_format(w), _i == 0 ? "GGUF v2" : "GGUF v3");
    ck_assert_uint_eq(weights_n_tensors(w), 4);
    ck_assert_uint_eq(weights_n_meta(w), 6);
    ck_assert_uint_eq(weights_file_bytes(w), b->len);
    ck_assert_int_eq(weights_n_files(w), 1);
    ck_assert_str_eq(weights_meta(w, 2)->key, "tokens");
    const struct tensor *t = weights_find(w, "a");
    ck_assert_ptr_eq(t, weights_tensor(w, 0));
    ck_assert_int_eq(t->type, QTYPE_F32);
    ck_assert_int_eq(t->n_dims, 2);
    ck_assert_int_eq(t->dims[0], 4);
    ck_assert_int_eq(t->dims[1], 3);
    ck_assert_int_eq(t->dims[2], 1);
    ck_assert_uint_eq(t->bytes, 48);
    ck_assert_uint_eq(t->offset, b->data_at);
    ck_assert_mem_eq(t->data, b->data + b->data_at, 48);
    t = weights_find(w, "d");
    ck_assert_int_eq(t->n_dims, 4);
    ck_assert_uint_eq(t->bytes, 96);
    ck_assert_uint_eq(t->offset + t->bytes, b->len);
    ck_assert_ptr_null(weights_find(w, "e"));
    ck_assert_ptr_null(weights_find(w, ""));
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

START_TEST(no_tensors_is_a_vocabulary)
{
    struct gguf_build *b = gguf_build_new(3);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_finish(b);
    struct weights *w = image_open(b->data, b->len);
    ck_assert_uint_eq(weights_n_tensors(w), 0);
    ck_assert_ptr_null(weights_find(w, "a"));
    weights_close(w);
    ck_assert(gguf_build_remove_key(b, "general.architecture"));
    gguf_build_finish(b);
    w = image_open(b->data, b->len); /* the 24 bytes of a header */
    ck_assert_uint_eq(weights_n_meta(w), 0);
    ck_assert_ptr_null(weights_meta_find(w, "a"));
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

START_TEST(other_alignments)
{
    struct gguf_build *b = small();
    b->alignment = (uint64_t)8 << _i;
    gguf_build_int(b, "general.alignment", META_U32, (int64_t)b->alignment);
    gguf_build_finish(b);
    struct weights *w = image_open(b->data, b->len);
    ck_assert_uint_eq(weights_find(w, "a")->offset % b->alignment, 0);
    ck_assert_mem_eq(weights_find(w, "a")->data, b->data + b->data_at, 48);
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

START_TEST(long_and_odd_names)
{
    struct gguf_build *b = gguf_build_new(3);
    char name[1001];
    memset(name, 'n', 1000);
    name[1000] = '\0';
    gguf_build_tensor(b, name, QTYPE_F32, 1, (int64_t[]){1}, NULL);
    gguf_build_tensor(b, "caf\xc3\xa9", QTYPE_F32, 1, (int64_t[]){1}, NULL);
    gguf_build_finish(b);
    struct weights *w = image_open(b->data, b->len);
    ck_assert_ptr_nonnull(weights_find(w, name));
    ck_assert_ptr_nonnull(weights_find(w, "caf\xc3\xa9"));
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

START_TEST(large_vocabulary_opens_fast)
{
    enum { N = 150000 };
    struct gguf_build *b = gguf_build_new(3);
    const char **tokens = calloc(N, sizeof *tokens);
    ck_assert_ptr_nonnull(tokens);
    for (int i = 0; i < N; i++)
        tokens[i] = i % 2 ? "token" : "other token";
    gguf_build_strs(b, "tokens", tokens, N);
    gguf_build_strs(b, "merges", tokens, N);
    gguf_build_finish(b);
    free(tokens);
    double start = seconds();
    struct weights *w = image_open(b->data, b->len);
    ck_assert_double_lt(seconds() - start, 1.0); /* takes 5 ms; this bound only sees a wrong complexity */
    struct wstr s;
    ck_assert(meta_str(weights_meta_find(w, "merges"), N - 1, &s));
    ck_assert_mem_eq(s.s, "token", 5);
    weights_close(w);
    gguf_build_free(b);
}
END_TEST

/* ---- Bad files, one by one ------------------------------------------------------------------- */

START_TEST(bad_versions)
{
    bad_field("version", 0, 0, "GGUF version 0");
    bad_field("version", 0, 1, "GGUF version 1");
    bad_field("version", 0, 4, "GGUF version 4");
    bad_field("version", 0, 0x03000000, "big-endian");
    bad_field("version", 0, 0x02000000, "big-endian");
}
END_TEST

START_TEST(bad_counts)
{
    bad_field("count", 0, UINT64_MAX, "18446744073709551615 tensors");
    bad_field("count", 0, 1000, "1000 tensors");
    bad_field("count", 1, UINT64_MAX, "18446744073709551615 keys");
    bad_field("count", 1, (uint64_t)1 << 63, "9223372036854775808 keys");
    bad_field("count", 2, UINT64_MAX, "key 'tokens' says it has 18446744073709551615 elements");
    bad_field("count", 2, (uint64_t)1 << 61, "key 'tokens' says");
    bad_field("count", 3, (uint64_t)1 << 62, "key 'scores' says");
    bad_field("count", 4, UINT64_MAX, "key 'flags' says");
}
END_TEST

START_TEST(bad_keys)
{
    bad_field("string length", 0, UINT64_MAX, "key 1 of 6 needs 18446744073709551615 bytes at byte 32");
    bad_field("string length", 1, UINT64_MAX - 7, "key 'general.architecture' needs");
    bad_field("string length", 0, 0, "key 1 of 6 is empty (byte 24)");
    bad_field("type", 0, 13, "key 'general.architecture' has the unknown type 13 (byte 52)");
    bad_field("type", 0, UINT32_MAX, "unknown type 4294967295");
    bad_field("type", 3, META_ARRAY, "key 'tokens' is an array of arrays");
    bad_field("type", 3, 99, "key 'tokens' is an array of the unknown type 99");

    struct gguf_build *b = small();
    gguf_build_raw(b, "flag", 4, META_BOOL, "\1", 1);
    gguf_build_finish(b);
    bad_and_free(b, "key 'flag' occurs twice");
    b = small();
    gguf_build_raw(b, "odd", 3, META_BOOL, "\2", 1);
    gguf_build_finish(b);
    bad_and_free(b, "key 'odd': a boolean is 2");
    b = small();
    gguf_build_array(b, "odds", META_BOOL, "\1\0\xff", 3);
    gguf_build_finish(b);
    bad_and_free(b, "key 'odds': a boolean is 255");
    static const char *const names[] = {"a\033[2J", "new\nline", "c1 \xc2\x9b", "\x7f"};
    for (int i = 0; i < 4; i++) {
        b = small();
        gguf_build_int(b, names[i], META_U8, 1);
        gguf_build_finish(b);
        bad_and_free(b, "control character");
    }
    b = small();
    gguf_build_raw(b, "nul\0nul", 7, META_BOOL, "\1", 1);
    gguf_build_finish(b);
    bad_and_free(b, "control character");
    b = small();
    char *longest = calloc(1, 70000);
    ck_assert_ptr_nonnull(longest);
    memset(longest, 'k', 65536);
    gguf_build_int(b, longest, META_U8, 1);
    free(longest);
    gguf_build_finish(b);
    bad_and_free(b, "too long");
}
END_TEST

START_TEST(bad_alignments)
{
    static const int64_t values[] = {0, 1, 4, 24, 33, 1LL << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct gguf_build *b = small();
        gguf_build_int(b, "general.alignment", META_U32, values[i]);
        gguf_build_finish(b);
        bad_and_free(b, "key 'general.alignment' is");
    }
    struct gguf_build *b = small();
    gguf_build_str(b, "general.alignment", "32");
    gguf_build_finish(b);
    bad_and_free(b, "key 'general.alignment' is no integer (its type is str)");
    b = small();
    gguf_build_array(b, "general.alignment", META_U32, (uint32_t[]){32}, 1);
    gguf_build_finish(b);
    bad_and_free(b, "key 'general.alignment' is no integer (its type is array)");
}
END_TEST

/* small()'s "dims" fields: a 0 (n_dims), 1, 2; b 3, 4, 5; c 6, 7; d 8 … 12. "type" fields from 9 on are
 * those of the tensors. */
START_TEST(bad_shapes)
{
    bad_field("dims", 0, 0, "tensor 'a' has 0 dimensions");
    bad_field("dims", 0, 5, "tensor 'a' has 5 dimensions");
    bad_field("dims", 0, UINT32_MAX, "tensor 'a' has 4294967295 dimensions");
    bad_field("dims", 1, 0, "tensor 'a': dimension 0 is 0");
    bad_field("dims", 2, 0, "tensor 'a': dimension 1 is 0");
    bad_field("dims", 1, UINT64_MAX, "tensor 'a': dimension 0 is 18446744073709551615");
    bad_field("dims", 1, INT64_MAX, "tensor 'a': its shape is larger than any memory");
    bad_field("dims", 2, (uint64_t)1 << 62, "tensor 'a': its shape is larger than any memory");
    bad_field("dims", 4, 33, "tensor 'b': its rows of 33 are no multiple of q4_0's block of 32");
    bad_field("dims", 7, 65, "tensor 'c': its rows of 65");
    bad_field("dims", 11, (uint64_t)1 << 61, "tensor 'd': its shape is larger");
    bad_field("dims", 2, 1000, "tensor 'a' (offset 0, 16000 bytes) runs past the end");
}
END_TEST

START_TEST(bad_types)
{
    int first = 0; /* the first tensor's type field comes after those of the keys */
    struct gguf_build *b = small();
    while (field(b, "type", first)->at < field(b, "dims", 0)->at)
        first++;
    gguf_build_free(b);
    bad_field("type", first, 31, "tensor 'a' has type 31 (q4_0_4_4)");
    bad_field("type", first + 1, 9, "tensor 'b' has type 9 (q8_1)");
    bad_field("type", first + 1, 4, "tensor 'b' has type 4 (q4_2)");
    bad_field("type", first + 2, 38, "tensor 'c' has type 38 (iq4_nl_8_8)");
    bad_field("type", first + 2, 1000, "tensor 'c' has type 1000 (unknown)");
    bad_field("type", first + 3, UINT32_MAX, "tensor 'd' has type 4294967295 (unknown)");
    bad_field("type", first + 2, 12, "tensor 'c': its rows of 64 are no multiple of q4_k's block of 256");
}
END_TEST

START_TEST(bad_offsets)
{
    bad_field("offset", 0, 1, "tensor 'a': offset 1 is not aligned to 32");
    bad_field("offset", 1, 72, "tensor 'b': offset 72 is not aligned to 32");
    bad_field("offset", 3, UINT64_MAX - 31,
              "tensor 'd' (offset 18446744073709551584, 96 bytes) runs past the end");
    bad_field("offset", 3, (uint64_t)1 << 63, "tensor 'd'");
    bad_field("offset", 3, 1 << 20, "tensor 'd'");
    bad_field("offset", 1, 32, "tensors 'a' and 'b' overlap");
    bad_field("offset", 1, 0, "overlap");
    bad_field("offset", 3, 0, "tensors 'a' and 'd' overlap");
}
END_TEST

START_TEST(bad_tensor_names)
{
    struct gguf_build *b = small();
    gguf_build_tensor(b, "b", QTYPE_F32, 1, (int64_t[]){1}, NULL);
    gguf_build_finish(b);
    bad_and_free(b, "tensor 'b' occurs twice");
    b = small();
    gguf_build_tensor(b, "", QTYPE_F32, 1, (int64_t[]){1}, NULL);
    gguf_build_finish(b);
    bad_and_free(b, "tensor 5 of 5 is empty");
    b = small();
    gguf_build_tensor(b, "x\033]0;title\007", QTYPE_F32, 1, (int64_t[]){1}, NULL);
    gguf_build_finish(b);
    bad_and_free(b, "control character");
}
END_TEST

/* A header that promises much in a file that is large and empty: refused without reading it all. */
START_TEST(sparse_files)
{
    struct gguf_build *b = gguf_build_new(3);
    gguf_build_strs(b, "tokens", NULL, 0);
    gguf_build_finish(b);
    static const uint64_t counts[] = {1U << 29, 1U << 25, (1U << 24) + 1};
    for (int i = 0; i < 3; i++) {
        int fd = memfd_create("sparse", MFD_CLOEXEC);
        char path[64];
        ck_assert_int_ge(fd, 0);
        patch(b, "count", 2, counts[i]);
        ck_assert_int_eq(write(fd, b->data, b->len), (ssize_t)b->len);
        ck_assert_int_eq(ftruncate(fd, (off_t)5 << 30), 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        path_is_bad(path, "strings are more than this program takes");
        (void)close(fd);
    }
    gguf_build_free(b);
}
END_TEST

/* ---- Bad files by the hundred ---------------------------------------------------------------- */

START_TEST(cut_anywhere)
{
    struct gguf_build *b = small();
    for (size_t len = 0; len < b->len; len++)
        image_is_bad(b->data, len, "");
    ck_assert(image_is_safe(b->data, b->len));
    gguf_build_free(b);
}
END_TEST

START_TEST(every_field_wrong)
{
    static const uint64_t values[] = {
        0,          1,          2,          7,          8,          UINT64_MAX,        UINT64_MAX - 7,
        1ULL << 31, 1ULL << 32, 1ULL << 33, UINT32_MAX, 1ULL << 61, (1ULL << 61) + 1,  1ULL << 62,
        1ULL << 63, INT64_MAX,  INT32_MAX,  0xffff,     4096,       (1ULL << 63) + 32,
    };
    struct gguf_build *b = small();
    uint8_t saved[8];
    int n_bad = 0, n = 0;
    for (size_t i = 0; i < b->n_fields; i++) {
        const struct gguf_field *f = &b->fields[i];
        uint64_t old = 0;
        memcpy(saved, b->data + f->at, (size_t)f->bytes);
        memcpy(&old, saved, (size_t)f->bytes);
        for (size_t j = 0; j < sizeof values / sizeof *values + 4; j++) {
            const uint64_t near[] = {old + 1, old - 1, old + 32, old * 2};
            uint64_t v = j < 4 ? near[j] : values[j - 4];
            memcpy(b->data + f->at, &v, (size_t)f->bytes);
            n_bad += !image_is_safe(b->data, b->len);
            n++;
        }
        memcpy(b->data + f->at, saved, (size_t)f->bytes);
    }
    ck_assert(image_is_safe(b->data, b->len));
    ck_assert_int_gt(n, 900);
    ck_assert_int_gt(n_bad, n * 9 / 10);
    gguf_build_free(b);
}
END_TEST

START_TEST(random_bytes)
{
    struct gguf_build *b = small();
    uint8_t *copy = malloc(b->len);
    uint64_t state = 1 + (uint64_t)_i;
    int n_bad = 0;
    ck_assert_ptr_nonnull(copy);
    for (int i = 0; i < 1500; i++) {
        memcpy(copy, b->data, b->len);
        uint64_t n = 1 + test_random(&state) % 8;
        for (uint64_t k = 0; k < n; k++) /* the directory, not the data */
            copy[test_random(&state) % b->data_at] ^= (uint8_t)(1U << test_random(&state) % 8);
        n_bad += !image_is_safe(copy, b->len);
    }
    ck_assert_int_gt(n_bad, 1000);
    free(copy);
    gguf_build_free(b);

    struct rusage usage; /* of this test's process: no mutation made it take memory */
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &usage), 0);
    ck_assert_int_lt(usage.ru_maxrss, 512L * 1024);
}
END_TEST

START_TEST(noise)
{
    uint64_t state = 99;
    uint8_t data[512];
    for (int i = 0; i < 2000; i++) {
        for (size_t k = 0; k < sizeof data; k++)
            data[k] = (uint8_t)test_random(&state);
        memcpy(data, (const uint8_t[]){'G', 'G', 'U', 'F', 3, 0, 0, 0}, 8);
        memset(data + 9, 0, 7); /* small counts get further */
        memset(data + 17, 0, 7);
        size_t len = 24 + test_random(&state) % (sizeof data - 24);
        (void)image_is_safe(data, len);
    }
}
END_TEST

/* ---- Golden files ---------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t n_tensors, n_meta;
} golden[] = {
    {"llama-f32", 20, 26},   {"llama-f16", 20, 26},     {"llama-bf16", 20, 26},   {"qwen2-f32", 27, 22},
    {"qwen2-f16", 27, 22},   {"qwen3-f16", 24, 24},     {"gemma3-f16", 80, 27},   {"quant-q4_0", 11, 26},
    {"quant-q4_1", 11, 26},  {"quant-q5_0", 11, 26},    {"quant-q5_1", 11, 26},   {"quant-q8_0", 11, 26},
    {"quant-q2_k", 11, 26},  {"quant-q3_k", 11, 26},    {"quant-q4_k", 11, 26},   {"quant-q5_k", 11, 26},
    {"quant-q6_k", 11, 26},  {"quant-iq4_nl", 11, 26},  {"quant-iq4_xs", 11, 26}, {"quant-iq1_m", 11, 30},
    {"quant-iq1_s", 11, 30}, {"quant-iq2_s", 11, 30},   {"quant-iq2_xs", 11, 30}, {"quant-iq2_xxs", 11, 30},
    {"quant-iq3_s", 11, 30}, {"quant-iq3_xxs", 11, 30}, {"quant-tq1_0", 11, 26},  {"quant-tq2_0", 11, 26},
    {"quant-mxfp4", 11, 26}, {"quant-nvfp4", 11, 26},
};

START_TEST(golden_files)
{
    char name[64], err[512] = "";
    struct weights *w;
    (void)snprintf(name, sizeof name, "gguf/%s/model.gguf", golden[_i].name);
    const char *path = test_golden(name);
    if (!path) {
        test_skip(name, "not there");
        return;
    }
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_uint_eq(weights_n_tensors(w), golden[_i].n_tensors);
    ck_assert_uint_eq(weights_n_meta(w), golden[_i].n_meta);
    struct wstr arch;
    ck_assert(meta_str(weights_meta_find(w, "general.architecture"), 0, &arch));
    /* Tensors lie one behind the other up to the file's end. */
    uint64_t end = weights_tensor(w, 0)->offset;
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        ck_assert_uint_eq(t->offset, (end + 31) / 32 * 32);
        end = t->offset + t->bytes;
    }
    ck_assert_uint_le(end, weights_file_bytes(w));
    ck_assert_uint_gt(end + 32, weights_file_bytes(w));
    weights_close(w);
}
END_TEST

static Suite *gguf_suite(void)
{
    Suite *s = suite_create("weights/gguf");
    TCase *tc = tcase_create("good");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, small_file_opens, 0, 2);
    tcase_add_test(tc, no_tensors_is_a_vocabulary);
    tcase_add_loop_test(tc, other_alignments, 0, 8);
    tcase_add_test(tc, long_and_odd_names);
    tcase_add_test(tc, large_vocabulary_opens_fast);
    tcase_add_loop_test(tc, golden_files, 0, (int)(sizeof golden / sizeof *golden));
    suite_add_tcase(s, tc);

    tc = tcase_create("bad");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, bad_versions);
    tcase_add_test(tc, bad_counts);
    tcase_add_test(tc, bad_keys);
    tcase_add_test(tc, bad_alignments);
    tcase_add_test(tc, bad_shapes);
    tcase_add_test(tc, bad_types);
    tcase_add_test(tc, bad_offsets);
    tcase_add_test(tc, bad_tensor_names);
    tcase_add_test(tc, sparse_files);
    tcase_add_test(tc, cut_anywhere);
    tcase_add_test(tc, every_field_wrong);
    tcase_add_loop_test(tc, random_bytes, 0, 4);
    tcase_add_test(tc, noise);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(gguf_suite)

/* The safetensors reader: hand-made headers, good and bad. */
#include "tests/test.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct image {
    uint8_t bytes[2048];
    size_t len;
};

/* A file with this header and n_data bytes 0, 1, 2, … of data. */
static struct image make(const char *json, size_t n_data)
{
    struct image m = {.len = 8 + strlen(json) + n_data};
    uint64_t len = strlen(json);
    ck_assert_uint_le(m.len, sizeof m.bytes);
    memcpy(m.bytes, &len, 8);
    memcpy(m.bytes + 8, json, len);
    for (size_t i = 0; i < n_data; i++)
        m.bytes[8 + len + i] = (uint8_t)i;
    return m;
}

static void bad(const char *json, size_t n_data, const char *expected)
{
    struct image m = make(json, n_data);
    image_is_bad(m.bytes, m.len, expected);
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"\"},"
                           "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                           "\"ids\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[24,40]},"
                           "\"none\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[40,40]},"
                           "\"one\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[40,42]}}  ";

START_TEST(good_file)
{
    struct image m = make(good, 42);
    struct weights *w = image_open(m.bytes, m.len);
    struct wstr s;
    ck_assert_str_eq(weights_format(w), "safetensors");
    ck_assert_uint_eq(weights_n_tensors(w), 4);
    ck_assert_uint_eq(weights_n_meta(w), 2);
    ck_assert(meta_str(weights_meta_find(w, "format"), 0, &s));
    ck_assert_uint_eq(s.len, 2);
    ck_assert_mem_eq(s.s, "pt", 2);

    const struct tensor *t = weights_find(w, "w");
    ck_assert_int_eq(t->type, QTYPE_F32);
    ck_assert_int_eq(t->n_dims, 2);
    ck_assert_int_eq(t->dims[0], 3); /* the fastest, last in the file */
    ck_assert_int_eq(t->dims[1], 2);
    ck_assert_int_eq(t->dims[2], 1);
    ck_assert_uint_eq(t->bytes, 24);
    ck_assert_uint_eq(t->offset, 8 + strlen(good));
    ck_assert_mem_eq(t->data, m.bytes + t->offset, 24);
    t = weights_find(w, "ids");
    ck_assert_int_eq(t->type, QTYPE_I64);
    ck_assert_int_eq(*(const uint8_t *)t->data, 24);
    t = weights_find(w, "one");
    ck_assert_int_eq(t->n_dims, 1);
    ck_assert_int_eq(t->dims[0], 1);
    ck_assert_uint_eq(t->bytes, 2);
    t = weights_find(w, "none");
    ck_assert_int_eq(t->dims[0], 4);
    ck_assert_int_eq(t->dims[1], 0);
    ck_assert_uint_eq(t->bytes, 0);
    weights_close(w);
}
END_TEST

START_TEST(every_dtype)
{
    static const struct {
        const char *name;
        enum qtype type;
        size_t bytes;
    } dtypes[] = {{"F32", QTYPE_F32, 4}, {"F16", QTYPE_F16, 2}, {"BF16", QTYPE_BF16, 2},
                  {"I8", QTYPE_I8, 1},   {"I16", QTYPE_I16, 2}, {"I32", QTYPE_I32, 4},
                  {"I64", QTYPE_I64, 8}, {"F64", QTYPE_F64, 8}, {"U8", QTYPE_I8, 1},
                  {"BOOL", QTYPE_I8, 1}, {"U16", QTYPE_I16, 2}, {"U32", QTYPE_I32, 4},
                  {"U64", QTYPE_I64, 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char json[128];
        (void)snprintf(json, sizeof json, "{\"x\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                       dtypes[i].name, 3 * dtypes[i].bytes);
        struct image m = make(json, 3 * dtypes[i].bytes);
        struct weights *w = image_open(m.bytes, m.len);
        ck_assert_int_eq(weights_tensor(w, 0)->type, dtypes[i].type);
        ck_assert_uint_eq(weights_tensor(w, 0)->bytes, 3 * dtypes[i].bytes);
        weights_close(w);
    }
}
END_TEST

START_TEST(no_tensors)
{
    struct image m = make("{}", 0);
    struct weights *w = image_open(m.bytes, m.len);
    ck_assert_uint_eq(weights_n_tensors(w), 0);
    weights_close(w);
}
END_TEST

/* The entry of one tensor 'x' with these members, and 8 bytes of data. */
static void bad_entry(const char *members, const char *expected)
{
    char json[512];
    (void)snprintf(json, sizeof json, "{\"x\":{%s}}", members);
    bad(json, 8, expected);
}

START_TEST(bad_entries)
{
    bad_entry("\"shape\":[2],\"data_offsets\":[0,8]", "tensor 'x' has no dtype");
    bad_entry("\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]", "tensor 'x' has no dtype");
    bad_entry("\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,8]", "tensor 'x' has dtype 'C64'");
    bad_entry("\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]",
              "tensor 'x' has dtype 'F8_E4M3' (8-bit floats)");
    bad_entry("\"dtype\":\"\\u001b[2J\",\"shape\":[8],\"data_offsets\":[0,8]", "tensor 'x' has dtype '?'");
    bad_entry("\"dtype\":\"F32\",\"data_offsets\":[0,8]", "tensor 'x' has no list 'shape'");
    bad_entry("\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]", "tensor 'x' has no list 'shape'");
    bad_entry("\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]", "'shape'[0] is no size");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]", "'shape'[0] is no size");
    bad_entry("\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]", "'shape'[0] is no size");
    bad_entry("\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]", "'shape' has 5 numbers");
    bad_entry("\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]", "its shape takes 12 bytes");
    bad_entry("\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,8]", "its shape takes 16 bytes");
    bad_entry("\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]",
              "larger than any memory");
    bad_entry("\"dtype\":\"I8\",\"shape\":[0,4611686018427387904,4],\"data_offsets\":[0,0]",
              "larger than any memory");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2]", "no list 'data_offsets'");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]", "data_offsets do not lie");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]", "'data_offsets' has 3 numbers");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]", "data_offsets do not lie");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]", "data_offsets do not lie");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]", "'data_offsets'[0] is no size");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775800,9223372036854775807]",
              "data_offsets do not lie");
    bad_entry("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,99999999999999999999]",
              "number that is too large");
    bad_entry("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]",
              "4 of its 8 bytes of data belong to no");
    bad_entry("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]",
              "names something twice");
}
END_TEST

#define F32_ENTRY(from, to) "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" #from "," #to "]}"

START_TEST(bad_headers)
{
    bad("", 8, "wrong first bytes"); /* nothing says that it is safetensors */
    bad("[]", 0, "wrong first bytes");
    bad("{", 0, "no valid JSON");
    bad("{}x", 0, "no valid JSON");
    bad("{\"x\":" F32_ENTRY(0, 8) ",\"x\":" F32_ENTRY(8, 16) "}", 16, "names something twice");
    bad("{\"x\":" F32_ENTRY(0, 8) ",\"y\":" F32_ENTRY(0, 8) "}", 8, "tensors 'x' and 'y' overlap");
    bad("{\"x\":" F32_ENTRY(0, 8) ",\"y\":" F32_ENTRY(4, 12) "}", 12, "tensors 'x' and 'y' overlap");
    bad("{\"x\":" F32_ENTRY(0, 8) ",\"y\":" F32_ENTRY(12, 20) "}", 20, "4 of its 20 bytes");
    bad("{\"x\":[]}", 0, "tensor 'x' is described by no object");
    bad("{\"\":{}}", 0, "is empty");
    bad("{\"a\\nb\":{}}", 0, "control character");
    bad("{\"a\\u0000b\":{}}", 0, "no valid JSON");
    bad("{\"__metadata__\":[]}", 0, "'__metadata__' is no object");
    bad("{\"__metadata__\":{\"k\":1}}", 0, "key 'k' of '__metadata__' is no string");
    bad("{\"__metadata__\":{\"\\u001b\":\"v\"}}", 0, "control character");
    bad("{\"\xff\":{}}", 0, "no valid JSON");
}
END_TEST

START_TEST(header_length_lies)
{
    struct image m = make(good, 42);
    const uint64_t lies[] = {0, 1, m.len - 7, m.len, 1ULL << 31, 1ULL << 63, UINT64_MAX, UINT64_MAX - 8};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(m.bytes, &lies[i], 8);
        image_is_bad(m.bytes, m.len, "header");
    }
    uint64_t len = strlen(good) - 1; /* shortened by a blank: everything else moves by a byte */
    memcpy(m.bytes, &len, 8);
    image_is_bad(m.bytes, m.len, "1 of its 43 bytes of data belong to no tensor");
}
END_TEST

/* A header of `len` bytes: `begin`, then `fill`. */
static void large_header(const char *begin, int fill, size_t len, const char *expected)
{
    uint8_t *p = malloc(8 + len);
    uint64_t len64 = len;
    ck_assert_ptr_nonnull(p);
    memset(p + 8, fill, len);
    memcpy(p, &len64, 8);
    memcpy(p + 8, begin, strlen(begin));
    if (expected)
        image_is_bad(p, 8 + len, expected);
    else
        ck_assert(image_is_safe(p, 8 + len));
    free(p);
}

START_TEST(large_headers)
{
    const size_t most = 64 << 20;
    large_header("{}", ' ', most, NULL);
    large_header("{}", ' ', most + 1, "more than 67108864 (byte 0)");
    large_header("{}", ' ', 100 << 20, "more than 67108864 (byte 0)");
    large_header("{\"x\":", '[', 20000, "nested deeper than 64 (byte 76)");
    large_header("{\"x\":[0", ',', 2 << 20, "more than 1048576 values (byte 1048588)");
    large_header("{\"x", 'y', 1 << 20, "no valid JSON");
}
END_TEST

START_TEST(cut_anywhere)
{
    struct image m = make(good, 42);
    for (size_t len = 0; len < m.len; len++)
        image_is_bad(m.bytes, len, "");
}
END_TEST

START_TEST(random_bytes)
{
    uint64_t state = 7;
    int n_bad = 0;
    for (int i = 0; i < 3000; i++) {
        struct image m = make(good, 42);
        uint64_t n = 1 + test_random(&state) % 4;
        for (uint64_t k = 0; k < n; k++)
            m.bytes[test_random(&state) % (m.len - 42)] ^= (uint8_t)(1U << test_random(&state) % 8);
        n_bad += !image_is_safe(m.bytes, m.len);
    }
    ck_assert_int_gt(n_bad, 2000);
}
END_TEST

START_TEST(golden_files)
{
    static const struct {
        const char *name;
        size_t n_tensors;
    } files[] = {{"models/llama/model.safetensors", 21},
                 {"models/llama-gptq/model.safetensors", 63},
                 {"models/qwen2/expected.safetensors", 3},
                 {"models/llama-sharded/model-00002-of-00003.safetensors", 13},
                 {"gguf/llama-f32/expected.safetensors", 3}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = test_golden(files[i].name);
        struct weights *w;
        char err[512] = "";
        if (!path) {
            test_skip(files[i].name, "not there");
            continue;
        }
        ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
        ck_assert_uint_eq(weights_n_tensors(w), files[i].n_tensors);
        weights_close(w);
    }
}
END_TEST

static Suite *safetensors_suite(void)
{
    Suite *s = suite_create("weights/safetensors");
    TCase *tc = tcase_create("safetensors");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, good_file);
    tcase_add_test(tc, every_dtype);
    tcase_add_test(tc, no_tensors);
    tcase_add_test(tc, bad_entries);
    tcase_add_test(tc, bad_headers);
    tcase_add_test(tc, header_length_lies);
    tcase_add_test(tc, large_headers);
    tcase_add_test(tc, cut_anywhere);
    tcase_add_test(tc, random_bytes);
    tcase_add_test(tc, golden_files);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(safetensors_suite)

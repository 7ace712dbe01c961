/* PyTorch checkpoints: files written by torch.save (tests/golden/make_torch_fixtures.py) and archives made
 * here, good, bad and changed at random. */
#include "tests/test.h"
#include "tests/weights/image.h"
#include "tests/weights/zip_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- What torch.save wrote ------------------------------------------------------------------- */

static const struct expected {
    const char *name;
    enum qtype type;
    int n_dims;
    int64_t dims[3]; /* fastest first */
    int first;       /* value of element 0, each next one is one more */
} expected[] = {
    {"f32", QTYPE_F32, 2, {4, 3, 1}, 0},      {"f16", QTYPE_F16, 1, {6, 1, 1}, 16},
    {"bf16", QTYPE_BF16, 2, {3, 2, 1}, 32},   {"f64", QTYPE_F64, 3, {2, 1, 2}, 48},
    {"i8", QTYPE_I8, 1, {5, 1, 1}, 64},       {"u8", QTYPE_I8, 1, {5, 1, 1}, 80},
    {"bool", QTYPE_I8, 1, {3, 1, 1}, 0},      {"i16", QTYPE_I16, 2, {2, 2, 1}, 112},
    {"i32", QTYPE_I32, 2, {3, 1, 1}, 128},    {"i64", QTYPE_I64, 1, {4, 1, 1}, 144},
    {"scalar", QTYPE_F32, 1, {1, 1, 1}, 160}, {"none", QTYPE_F32, 2, {4, 0, 1}, 0},
    {"tied", QTYPE_F32, 2, {4, 3, 1}, 0},     {"rows", QTYPE_F32, 2, {4, 2, 1}, 4},
    {"param", QTYPE_F32, 2, {2, 2, 1}, 224},
};
enum { N_EXPECTED = sizeof expected / sizeof *expected };

static double element(const struct tensor *t, size_t i)
{
    const uint8_t *p = (const uint8_t *)t->data + i * (size_t)qtypes[t->type].block_bytes;
    int64_t whole = 0;
    double f64;
    float f32;
    uint16_t bits;
    switch (t->type) {
    case QTYPE_F64:
        memcpy(&f64, p, 8);
        return f64;
    case QTYPE_F32:
        memcpy(&f32, p, 4);
        return (double)f32;
    case QTYPE_F16:
        memcpy(&bits, p, 2);
        return (double)f16_to_f32(bits);
    case QTYPE_BF16:
        memcpy(&bits, p, 2);
        return (double)bf16_to_f32(bits);
    default:
        memcpy(&whole, p, (size_t)qtypes[t->type].block_bytes);
        return (double)whole;
    }
}

static void check_expected(const struct weights *w, const char *prefix)
{
    char name[64];
    ck_assert_uint_eq(weights_n_tensors(w), N_EXPECTED);
    for (size_t k = 0; k < N_EXPECTED; k++) {
        const struct expected *e = &expected[k];
        (void)snprintf(name, sizeof name, "%s%s", prefix, e->name);
        const struct tensor *t = weights_find(w, name);
        ck_assert_msg(t != NULL, "%s", name);
        ck_assert_int_eq(t->type, e->type);
        ck_assert_int_eq(t->n_dims, e->n_dims);
        size_t n = 1;
        for (int d = 0; d < 3; n *= (size_t)t->dims[d++])
            ck_assert_int_eq(t->dims[d], e->dims[d]);
        ck_assert_uint_eq(t->bytes, n * (size_t)qtypes[t->type].block_bytes);
        for (size_t i = 0; i < n; i++) {
            double v = strcmp(e->name, "bool") == 0 ? (double)(i % 2) : e->first + (double)i;
            ck_assert_msg(element(t, i) == v, "%s[%zu]", name, i);
        }
    }
}

/* The file's path, NULL: it is not there (and the test says so). */
static const char *fixture(const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof path, "torch/%s", name);
    const char *found = test_golden(path);
    if (!found)
        test_skip(name, "not there");
    return found;
}

START_TEST(written_by_torch)
{
    static const struct {
        const char *name, *prefix;
    } files[] = {{"state.pt", ""}, {"protocol4.pt", ""}, {"old.pt", ""}, {"nested.pt", "model."}};
    for (int no_mmap = 0; no_mmap < 2; no_mmap++) {
        const char *path = fixture(files[_i].name);
        char err[512] = "";
        struct weights *w;
        if (!path)
            return;
        ck_assert_msg(
            weights_open(&w, path, &(struct weights_options){.no_mmap = no_mmap}, err, sizeof err) == 0, "%s",
            err);
        ck_assert_str_eq(weights_format(w), "PyTorch");
        ck_assert_uint_eq(weights_n_meta(w), 0);
        check_expected(w, files[_i].prefix);
        weights_close(w);
    }
}
END_TEST

START_TEST(dtype_without_a_storage_type)
{
    const char *path = fixture("uint16.pt");
    struct weights *w;
    if (!path)
        return;
    ck_assert_int_eq(weights_open(&w, path, NULL, NULL, 0), 0);
    const struct tensor *t = weights_find(w, "u16");
    ck_assert_int_eq(t->type, QTYPE_I16);
    ck_assert_int_eq(t->dims[0], 3);
    ck_assert_double_eq(element(t, 2), 2);
    weights_close(w);
}
END_TEST

START_TEST(refused)
{
    static const struct {
        const char *name, *expected;
    } files[] = {
        {"module.pt", "data.pkl, byte 2: global 'torch.nn.modules.linear.Linear' is not allowed"},
        {"tensor.pt", "data.pkl: holds no dict of tensors"},
        {"transposed.pt", "tensor 'turned': it is not contiguous"},
        {"sliced.pt", "tensor 'cut': it is not contiguous"},
        {"float8.pt", "tensor 'small': its type float8_e4m3fn is not supported"},
        {"five.pt", "tensor 'deep': it has 5 dimensions, more than 4"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = fixture(files[i].name);
        if (path)
            path_is_bad(path, files[i].expected);
    }
}
END_TEST

START_TEST(sharded_folder)
{
    const char *path = fixture("folder/config.json");
    char err[512] = "";
    struct weights *w;
    struct wstr s;
    if (!path)
        return;
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_str_eq(weights_format(w), "PyTorch folder");
    ck_assert_int_eq(weights_n_files(w), 2);
    ck_assert_uint_eq(weights_n_tensors(w), 2);
    ck_assert_double_eq(element(weights_find(w, "a"), 3), 3);
    ck_assert_double_eq(element(weights_find(w, "b"), 2), 18);
    ck_assert_int_eq(weights_find(w, "b")->file, 1);
    ck_assert(meta_str(weights_meta_find(w, "config.torch_dtype"), 0, &s) && s.len == 7);
    weights_close(w);
}
END_TEST

/* ---- Mutations ------------------------------------------------------------------------------- */

static uint8_t *load(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(1 << 16);
    ck_assert(f != NULL && data != NULL);
    *len = fread(data, 1, 1 << 16, f);
    (void)fclose(f);
    return data;
}

/* Each file cut in many places, and with each byte changed. */
START_TEST(mutations)
{
    static const char *const files[] = {"state.pt", "protocol4.pt", "old.pt"};
    const char *path = fixture(files[_i]);
    if (!path)
        return;
    size_t len, n_bad = 0;
    uint64_t state = 17;
    uint8_t *data = load(path, &len);
    for (size_t n = 0; n < len; n += n < 64 ? 1 : 13) /* a cut archive has no directory: all the same */
        image_is_bad(data, n, "");
    for (size_t i = 0; i < len; i++) {
        const uint8_t was = data[i];
        data[i] ^= (uint8_t)(1 + test_random(&state) % 255);
        n_bad += !image_is_safe(data, len);
        data[i] = was;
    }
    ck_assert_uint_gt(n_bad, 300);
    ck_assert(image_is_safe(data, len));
    free(data);
}
END_TEST

START_TEST(random_bytes)
{
    static const char *const files[] = {"state.pt", "old.pt"};
    const char *path = fixture(files[_i]);
    if (!path)
        return;
    size_t len;
    uint64_t state = 3;
    uint8_t *data = load(path, &len), *copy = malloc(len);
    ck_assert_ptr_nonnull(copy);
    for (int i = 0; i < 1000; i++) {
        memcpy(copy, data, len);
        for (uint64_t k = 2 + test_random(&state) % 6; k > 0; k--)
            copy[test_random(&state) % len] = (uint8_t)test_random(&state);
        (void)image_is_safe(copy, len);
    }
    free(copy);
    free(data);
}
END_TEST

/* ---- Archives made here ---------------------------------------------------------------------- */

static struct zip_build z;

static void forget(void)
{
    zip_build_free(&z);
}

#define TEXT(s)    s, sizeof(s) - 1
#define STORAGE    "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\6tQ"
#define TENSOR(at) "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE at "\x89N}tR"
/* {"x": tensor} */
#define DICT(tensor) "\x80\2}X\1\0\0\0x" tensor "s."

static void build(const char *pkl, size_t pkl_len, bool zip64)
{
    static const float six[6] = {0, 1, 2, 3, 4, 5};
    forget();
    z.zip64 = zip64;
    zip_build_add(&z, "m/data.pkl", pkl, pkl_len);
    zip_build_add(&z, "m/byteorder", "little", 6);
    zip_build_add(&z, "m/data/0", six, sizeof six);
}

START_TEST(made_here)
{
    build(TEXT(DICT(TENSOR("K\2K\2K\2\x86K\2K\1\x86"))), _i == 1);
    zip_build_finish(&z);
    struct weights *w = image_open(z.data, z.len);
    const struct tensor *t = weights_find(w, "x");
    ck_assert_int_eq(t->dims[0], 2);
    ck_assert_int_eq(t->dims[1], 2);
    ck_assert_double_eq(element(t, 3), 5);
    weights_close(w);
}
END_TEST

static void pickle_is_bad(const char *pkl, size_t pkl_len, const char *why)
{
    build(pkl, pkl_len, false);
    zip_build_finish(&z);
    image_is_bad(z.data, z.len, why);
}

START_TEST(bad_tensors)
{
    static const struct {
        const char *pkl;
        size_t len;
        const char *expected;
    } cases[] = {
        {TEXT(DICT(TENSOR("K\0K\7\x85K\1\x85"))), "its shape takes 28 bytes, its storage has 24"},
        {TEXT(DICT(TENSOR("K\3K\2K\2\x86K\2K\1\x86"))), "its shape takes 16 bytes, its storage has 12"},
        {TEXT(DICT(TENSOR("K\7K\0\x85K\1\x85"))), "tensor 'x': it begins outside its storage of 6 elements"},
        {TEXT(DICT(TENSOR("J\xff\xff\xff\xffK\1\x85K\1\x85"))), "it begins outside its storage"},
        {TEXT(DICT(TENSOR("\x8a\10\0\0\0\0\0\0\0\x40K\1\x85K\1\x85"))), "it begins outside its storage"},
        {TEXT(DICT(TENSOR("NK\1\x85K\1\x85"))), "it begins outside its storage"},
        {TEXT(DICT(TENSOR("K\0K\2K\3\x86K\1K\2\x86"))), "tensor 'x': it is not contiguous"},
        {TEXT(DICT(TENSOR("K\0K\2\x85K\0\x85"))), "it is not contiguous"},
        {TEXT(DICT(TENSOR("K\0J\xff\xff\xff\xff\x85K\1\x85"))),
         "its size or stride has something that is no size"},
        {TEXT(DICT(TENSOR("K\0N\x85K\1\x85"))), "its size or stride has something"},
        {TEXT(DICT(TENSOR("K\0K\1\x85N\x85"))), "its size or stride has something"},
        {TEXT(DICT(TENSOR("K\0K\2\x85)"))), "no tuples of the same length"},
        {TEXT(DICT(TENSOR("K\0]K\1\x85"))), "no tuples of the same length"},
        {TEXT(DICT(TENSOR("K\0(K\1K\1K\1K\1K\1tq\0h\0"))), "it has 5 dimensions, more than 4"},
        {TEXT(DICT(TENSOR("K\0\x8a\10\0\0\0\0\0\0\0\x40K\4\x86K\4K\1\x86"))), "larger than any memory"},
        {TEXT(DICT("ctorch._utils\n_rebuild_tensor_v2\n(NK\0K\1\x85K\1\x85tR")),
         "tensor 'x': it has no storage"},
        {TEXT(DICT("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE "K\0K\1\x85K\1\x85\x89NNtR")),
         "its dtype is none"},
        {TEXT(DICT("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE
                   "K\0K\1\x85K\1\x85\x89}ctorch\nfloat8_e5m2\ntR")),
         "its type float8_e5m2 is not supported"},
        /* Twelve doubles where the storage has six floats. */
        {TEXT(DICT("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE
                   "K\0K\4\x85K\1\x85\x89}ctorch\nfloat64\ntR")),
         "its shape takes 32 bytes, its storage has 24"},
        {TEXT("\x80\2}X\1\0\0\0x" TENSOR("K\0K\1\x85K\1\x85") "sX\1\0\0\0x" TENSOR("K\0K\1\x85K\1\x85") "s."),
         "occurs twice"},
        {TEXT("\x80\2}X\2\0\0\0\x1bx" TENSOR("K\0K\1\x85K\1\x85") "s."),
         "data.pkl, byte 8: the name of a tensor holds a control"},
        {TEXT("\x80\2}X\0\0\0\0" TENSOR("K\0K\1\x85K\1\x85") "s."), "the name of a tensor is empty"},
        {TEXT("\x80\2}K\1" TENSOR("K\0K\1\x85K\1\x85") "s."), "its dict holds no tensor"},
        {TEXT("\x80\2}."), "its dict holds no tensor"},
        {TEXT("\x80\2]."), "holds no dict"},
        {TEXT("\x80\2cos\nsystem\nX\4\0\0\0ls /\x85R."),
         "data.pkl, byte 2: global 'os.system' is not allowed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        pickle_is_bad(cases[i].pkl, cases[i].len, cases[i].expected);
}
END_TEST

#define OTHER_STORAGE(type, key, n) "(X\7\0\0\0storagectorch\n" type "\nX" key "X\3\0\0\0cpu" n "tQ"
#define OTHER(type, key, n) \
    DICT("ctorch._utils\n_rebuild_tensor_v2\n(" OTHER_STORAGE(type, key, n) "K\0K\1\x85K\1\x85\x89N}tR")

START_TEST(bad_storages)
{
    pickle_is_bad(TEXT(OTHER("FloatStorage", "\1\0\0\0001", "K\1")),
                  "tensor 'x': its storage is not in the file");
    pickle_is_bad(TEXT(OTHER("FloatStorage", "\0\0\0\0", "K\1")), "its storage is not in the file");
    pickle_is_bad(TEXT(OTHER("FloatStorage", "\4\0\0\0../0", "K\1")), "its storage is not in the file");
    pickle_is_bad(TEXT(OTHER("FloatStorage", "\1\0\0\0000", "K\7")),
                  "of 7 elements has only 24 bytes at byte ");
    pickle_is_bad(TEXT(OTHER("DoubleStorage", "\1\0\0\0000", "K\4")), "of 4 elements has only 24 bytes");
    pickle_is_bad(TEXT(OTHER("FloatStorage", "\1\0\0\0000", "J\xff\xff\xff\xff")), "of -1 elements has only");
    pickle_is_bad(TEXT(OTHER("FloatStorage", "\1\0\0\0000", "\x8a\10\0\0\0\0\0\0\0\x40")),
                  "elements has only 24");
    pickle_is_bad(TEXT(OTHER("ComplexFloatStorage", "\1\0\0\0000", "K\1")),
                  "its type ComplexFloatStorage is not");
    pickle_is_bad(TEXT(OTHER("UntypedStorage", "\1\0\0\0000", "K\4")), "its type UntypedStorage is not");
}
END_TEST

/* Dicts in dicts: names are joined, each dict counts once, cycles end. */
START_TEST(nested_dicts)
{
    build(TEXT("\x80\2}q\0X\1\0\0\0a}q\1X\1\0\0\0x" TENSOR("K\0K\1\x85K\1\x85") "sX\1\0\0\0bh\0ss"
                                                                                "X\1\0\0\0ch\1s."),
          false);
    zip_build_finish(&z);
    struct weights *w = image_open(z.data, z.len);
    ck_assert_uint_eq(weights_n_tensors(w), 1);
    ck_assert_ptr_nonnull(weights_find(w, "a.x"));
    weights_close(w);

    char pkl[4096] = "\x80\2}"; /* {"a": {"a": {"a": … {"x": tensor}}}} */
    static const char inner[] = "X\1\0\0\0a}", name300[] = "X\x2c\1\0\0";
    static const char tensor[] = "X\1\0\0\0x" TENSOR("K\0K\1\x85K\1\x85") "s";
    for (int depth = 8; depth < 10; depth++) {
        size_t len = 3;
        for (int i = 0; i < depth; i++, len += sizeof inner - 1)
            memcpy(pkl + len, inner, sizeof inner - 1);
        memcpy(pkl + len, tensor, sizeof tensor - 1);
        len += sizeof tensor - 1;
        for (int i = 0; i < depth; i++)
            pkl[len++] = 's';
        pkl[len++] = '.';
        build(pkl, len, false);
        zip_build_finish(&z);
        if (depth == 8)
            weights_close(image_open(z.data, z.len));
        else
            image_is_bad(z.data, z.len, "its dict holds no tensor");
    }
    size_t len = 3; /* a name of 300 bytes */
    memcpy(pkl + len, name300, sizeof name300 - 1);
    memset(pkl + len + 5, 'n', 300);
    memcpy(pkl + len + 305, tensor + 6, sizeof tensor - 7);
    pkl[len + 305 + sizeof tensor - 7] = '.';
    pickle_is_bad(pkl, len + 305 + sizeof tensor - 6,
                  "byte 8: the name of a tensor is longer than 256 bytes");
}
END_TEST

START_TEST(bad_archives)
{
    zip_build_add(&z, "word/document.xml", "<x/>", 4);
    zip_build_add(&z, "data.pkl", "N.", 2); /* in no folder */
    zip_build_add(&z, "a/b/data.pkl", "N.", 2);
    zip_build_finish(&z);
    image_is_bad(z.data, z.len, "is a zip archive without a data.pkl");

    forget();
    zip_build_add(&z, "m/data.pkl", "}.", 2);
    zip_build_add(&z, "m/byteorder", "big", 3);
    zip_build_finish(&z);
    image_is_bad(z.data, z.len, "its byteorder (byte ");

    build(TEXT(DICT(TENSOR("K\0K\1\x85K\1\x85"))), false);
    zip_build_finish(&z);
    z.data[z.central[0] + 10] = 8;
    image_is_bad(z.data, z.len, "zip entry 'm/data.pkl' (byte ");

    const size_t large = (64 << 20) + 1;
    uint8_t *zeros = calloc(1, large);
    ck_assert_ptr_nonnull(zeros);
    pickle_is_bad((const char *)zeros, large, "data.pkl has 67108865 bytes, more than 67108864");
    free(zeros);
}
END_TEST

static Suite *torch_suite(void)
{
    Suite *s = suite_create("weights/torch");
    TCase *tc = tcase_create("torch");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, NULL, forget);
    tcase_add_loop_test(tc, written_by_torch, 0, 4);
    tcase_add_test(tc, dtype_without_a_storage_type);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, sharded_folder);
    tcase_add_loop_test(tc, mutations, 0, 3);
    tcase_add_loop_test(tc, random_bytes, 0, 2);
    tcase_add_loop_test(tc, made_here, 0, 2);
    tcase_add_test(tc, bad_tensors);
    tcase_add_test(tc, bad_storages);
    tcase_add_test(tc, nested_dicts);
    tcase_add_test(tc, bad_archives);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(torch_suite)

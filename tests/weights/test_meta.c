/* Typed access to metadata. */
#include "tests/test.h"
#include "tests/weights/gguf_build.h"
#include "tests/weights/image.h"

#include <string.h>

/* A file with every type of value. */
static struct weights *open_all_types(void)
{
    struct gguf_build *b = gguf_build_new(3);
    gguf_build_int(b, "u8", META_U8, 255);
    gguf_build_int(b, "i8", META_I8, -128);
    gguf_build_int(b, "u16", META_U16, 65535);
    gguf_build_int(b, "i16", META_I16, -32768);
    gguf_build_int(b, "u32", META_U32, 4294967295);
    gguf_build_int(b, "i32", META_I32, -2147483648LL);
    gguf_build_int(b, "u64", META_U64, INT64_MAX);
    gguf_build_int(b, "u64.huge", META_U64, -1);
    gguf_build_int(b, "i64", META_I64, INT64_MIN);
    gguf_build_int(b, "bool", META_BOOL, 1);
    gguf_build_float(b, "f32", META_F32, 0.1);
    gguf_build_float(b, "f64", META_F64, 0.1);
    gguf_build_str(b, "str", "caf\xc3\xa9\n");
    gguf_build_array(b, "array.i16", META_I16, (int16_t[]){1, -2, 3}, 3);
    gguf_build_array(b, "array.f32", META_F32, (float[]){0.5F, -2.0F}, 2);
    gguf_build_array(b, "array.empty", META_I32, NULL, 0);
    gguf_build_strs(b, "array.str", (const char *[]){"a", "", "bcd"}, 3);
    gguf_build_strs(b, "array.str.empty", NULL, 0);
    gguf_build_finish(b);
    struct weights *w = image_open(b->data, b->len);
    ck_assert_uint_eq(weights_n_meta(w), 18);
    ck_assert_uint_eq(weights_n_tensors(w), 0);
    gguf_build_free(b);
    return w;
}

START_TEST(integers_of_every_type)
{
    static const struct {
        const char *key;
        enum meta_type type;
        int64_t v;
    } cases[] = {
        {"u8", META_U8, 255},         {"i8", META_I8, -128},         {"u16", META_U16, 65535},
        {"i16", META_I16, -32768},    {"u32", META_U32, 4294967295}, {"i32", META_I32, -2147483648LL},
        {"u64", META_U64, INT64_MAX}, {"i64", META_I64, INT64_MIN},  {"bool", META_BOOL, 1},
    };
    struct weights *w = open_all_types();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct meta *m = weights_meta_find(w, cases[i].key);
        int64_t v;
        double f;
        struct wstr s;
        ck_assert_ptr_nonnull(m);
        ck_assert_int_eq(m->type, cases[i].type);
        ck_assert_int_eq(m->elem, cases[i].type);
        ck_assert_uint_eq(m->n, 1);
        ck_assert(meta_int(m, 0, &v));
        ck_assert_int_eq(v, cases[i].v);
        ck_assert(!meta_int(m, 1, &v));
        ck_assert(!meta_str(m, 0, &s));
        ck_assert_int_eq(meta_float(m, 0, &f), m->type != META_BOOL);
        if (m->type != META_BOOL)
            ck_assert_double_eq(f, (double)cases[i].v);
    }
    weights_close(w);
}
END_TEST

START_TEST(values_that_do_not_fit)
{
    struct weights *w = open_all_types();
    int64_t v = 7;
    double f = 7;
    struct wstr s = {"x", 1};
    ck_assert(!meta_int(weights_meta_find(w, "u64.huge"), 0, &v));
    ck_assert(!meta_int(weights_meta_find(w, "f32"), 0, &v));
    ck_assert(!meta_int(weights_meta_find(w, "str"), 0, &v));
    ck_assert(!meta_int(NULL, 0, &v));
    ck_assert(!meta_int(weights_meta_find(w, "array.empty"), 0, &v));
    ck_assert(!meta_int(weights_meta_find(w, "array.i16"), 3, &v));
    ck_assert(!meta_int(weights_meta_find(w, "array.i16"), UINT64_MAX, &v));
    ck_assert_int_eq(v, 7);
    ck_assert(!meta_float(weights_meta_find(w, "bool"), 0, &f));
    ck_assert(!meta_float(weights_meta_find(w, "array.str"), 0, &f));
    ck_assert(!meta_float(NULL, 0, &f));
    ck_assert(f == 7);
    ck_assert(!meta_str(weights_meta_find(w, "u8"), 0, &s));
    ck_assert(!meta_str(weights_meta_find(w, "array.str"), 3, &s));
    ck_assert(!meta_str(weights_meta_find(w, "array.str.empty"), 0, &s));
    ck_assert(!meta_str(NULL, 0, &s));
    ck_assert_uint_eq(s.len, 1);
    ck_assert_ptr_null(weights_meta_find(w, "not there"));
    weights_close(w);
}
END_TEST

START_TEST(floats_strings_and_arrays)
{
    struct weights *w = open_all_types();
    int64_t v;
    double f;
    struct wstr s;
    ck_assert(meta_float(weights_meta_find(w, "f32"), 0, &f));
    ck_assert(f == (double)0.1F);
    ck_assert(meta_float(weights_meta_find(w, "f64"), 0, &f));
    ck_assert(f == 0.1);
    ck_assert(meta_float(weights_meta_find(w, "u64.huge"), 0, &f));
    ck_assert(f == 18446744073709551616.0);
    ck_assert(meta_str(weights_meta_find(w, "str"), 0, &s));
    ck_assert_uint_eq(s.len, 6);
    ck_assert_mem_eq(s.s, "caf\xc3\xa9\n", 6);
    const struct meta *m = weights_meta_find(w, "array.i16");
    ck_assert_int_eq(m->type, META_ARRAY);
    ck_assert_int_eq(m->elem, META_I16);
    ck_assert_uint_eq(m->n, 3);
    ck_assert(meta_int(m, 1, &v) && v == -2);
    ck_assert(meta_float(m, 2, &f) && f == 3);
    ck_assert(meta_float(weights_meta_find(w, "array.f32"), 1, &f) && f == -2);
    ck_assert(meta_str(weights_meta_find(w, "array.str"), 2, &s));
    ck_assert_uint_eq(s.len, 3);
    ck_assert_mem_eq(s.s, "bcd", 3);
    ck_assert(meta_str(weights_meta_find(w, "array.str"), 1, &s) && s.len == 0);
    weights_close(w);
}
END_TEST

START_TEST(type_names)
{
    static const char *const names[] = {"u8",   "i8",  "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "str", "array", "u64", "i64", "f64"};
    for (int t = 0; t <= META_F64; t++)
        ck_assert_str_eq(meta_type_name((enum meta_type)t), names[t]);
}
END_TEST

static Suite *meta_suite(void)
{
    Suite *s = suite_create("weights/meta");
    TCase *tc = tcase_create("meta");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, integers_of_every_type);
    tcase_add_test(tc, values_that_do_not_fit);
    tcase_add_test(tc, floats_strings_and_arrays);
    tcase_add_test(tc, type_names);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(meta_suite)

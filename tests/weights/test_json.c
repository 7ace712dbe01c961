/* JSON files as metadata, and JSON that is too deep, too large or none. */
#include "tests/test.h"
#include "tests/weights/folder_build.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct weights *open_path(const char *path, const struct weights_options *opt)
{
    struct weights *w;
    char err[512] = "";
    ck_assert_msg(weights_open(&w, path, opt, err, sizeof err) == 0, "%s", err);
    return w;
}

static int64_t meta_i64(const struct weights *w, const char *key)
{
    int64_t v = 0;
    const struct meta *m = weights_meta_find(w, key);
    ck_assert_msg(m && m->type == META_I64 && meta_int(m, 0, &v), "%s", key);
    return v;
}

static void meta_is_text(const struct weights *w, const char *key, uint64_t i, const char *expected)
{
    struct wstr s = {0};
    const struct meta *m = weights_meta_find(w, key);
    ck_assert_msg(m && meta_str(m, i, &s), "%s", key);
    ck_assert_msg(s.len == strlen(expected) && memcmp(s.s, expected, s.len) == 0, "%s: %.*s", key, (int)s.len,
                  s.s);
}

START_TEST(config_is_flattened)
{
    folder_put(
        "config.json",
        "{\"hidden_size\": 4096, \"big\": -9223372036854775808, \"eps\": 1e-5, \"whole\": 2.0,\n"
        " \"tied\": true, \"bias\": false, \"none\": null, \"model_type\": \"ll\\u00e4ma\", \"\": 7,\n"
        " \"rope_scaling\": {\"factor\": 8.0, \"inner\": {\"x\": 1}, \"short\": [1, 2.5]},\n"
        " \"layer_types\": [\"full\", \"\", \"sliding\"], \"ids\": [1, 2, 3], \"flags\": [true, false],\n"
        " \"empty\": [], \"nothing\": {}, \"mixed\": [1, \"a\", null, {\"b\": 5}, [6, 7]],\n"
        " \"objects\": [{\"y\": 1}, {\"y\": 2}], \"twice\": 1, \"twice\": 2}\n");
    folder_put("generation_config.json", "{\"eos_token_id\": [1, 2]}");
    folder_put("quantize_config.json", "{\"bits\": 4}");
    folder_put("params.json", "{\"dim\": 64}");
    struct weights_options opt = {.no_tensors = true};
    struct weights *w = open_path(folder, &opt);
    double f;
    int64_t v;
    ck_assert_str_eq(weights_folder(w), folder);
    ck_assert_uint_eq(weights_n_tensors(w), 0);
    ck_assert_int_eq(meta_i64(w, "config.hidden_size"), 4096);
    ck_assert_int_eq(meta_i64(w, "config.big"), INT64_MIN);
    ck_assert_int_eq(weights_meta_find(w, "config.whole")->type, META_F64);
    ck_assert(meta_float(weights_meta_find(w, "config.eps"), 0, &f) && f == 1e-5);
    ck_assert_int_eq(weights_meta_find(w, "config.tied")->type, META_BOOL);
    ck_assert(meta_int(weights_meta_find(w, "config.tied"), 0, &v) && v == 1);
    ck_assert(meta_int(weights_meta_find(w, "config.bias"), 0, &v) && v == 0);
    ck_assert_ptr_null(weights_meta_find(w, "config.none"));
    meta_is_text(w, "config.model_type", 0, "ll\xc3\xa4ma");
    ck_assert_int_eq(meta_i64(w, "config."), 7);
    ck_assert(meta_float(weights_meta_find(w, "config.rope_scaling.factor"), 0, &f) && f == 8);
    ck_assert_int_eq(meta_i64(w, "config.rope_scaling.inner.x"), 1);

    const struct meta *m = weights_meta_find(w, "config.rope_scaling.short");
    ck_assert(m->type == META_ARRAY && m->elem == META_F64 && m->n == 2);
    ck_assert(meta_float(m, 0, &f) && f == 1 && meta_float(m, 1, &f) && f == 2.5);
    m = weights_meta_find(w, "config.layer_types");
    ck_assert(m->type == META_ARRAY && m->elem == META_STRING && m->n == 3);
    meta_is_text(w, "config.layer_types", 1, "");
    meta_is_text(w, "config.layer_types", 2, "sliding");
    m = weights_meta_find(w, "config.ids");
    ck_assert(m->type == META_ARRAY && m->elem == META_I64 && m->n == 3 && meta_int(m, 2, &v) && v == 3);
    m = weights_meta_find(w, "config.flags");
    ck_assert(m->type == META_ARRAY && m->elem == META_BOOL && m->n == 2 && meta_int(m, 0, &v) && v == 1);
    m = weights_meta_find(w, "config.empty");
    ck_assert(m->type == META_ARRAY && m->elem == META_I64 && m->n == 0 && !meta_int(m, 0, &v));

    ck_assert_ptr_null(weights_meta_find(w, "config.nothing"));
    ck_assert_ptr_null(weights_meta_find(w, "config.mixed"));
    ck_assert_int_eq(meta_i64(w, "config.mixed.0"), 1);
    meta_is_text(w, "config.mixed.1", 0, "a");
    ck_assert_ptr_null(weights_meta_find(w, "config.mixed.2"));
    ck_assert_int_eq(meta_i64(w, "config.mixed.3.b"), 5);
    ck_assert_uint_eq(weights_meta_find(w, "config.mixed.4")->n, 2);
    ck_assert_int_eq(meta_i64(w, "config.objects.1.y"), 2);
    ck_assert_int_eq(meta_i64(w, "config.twice"), 2); /* as in Python */
    ck_assert_uint_eq(weights_meta_find(w, "generation_config.eos_token_id")->n, 2);
    ck_assert_int_eq(meta_i64(w, "config.quantization_config.bits"), 4);
    ck_assert_int_eq(meta_i64(w, "params.dim"), 64);
    weights_close(w);

    folder_put("config.json", "{\"quantization_config\": {\"w_bit\": 8}}");
    folder_put("quant_config.json", "{\"w_bit\": 4}");
    w = open_path(folder_path("config.json"), &opt);
    ck_assert_str_eq(weights_folder(w), folder);
    ck_assert_int_eq(meta_i64(w, "config.quantization_config.w_bit"), 8);
    ck_assert_ptr_null(weights_meta_find(w, "config.quantization_config.bits"));
    weights_close(w);
    folder_put("config.json", "{\"quantization_config\": null}");
    w = open_path(folder, &opt);
    ck_assert_int_eq(meta_i64(w, "config.quantization_config.bits"), 4);
    ck_assert_ptr_null(weights_meta_find(w, "config.quantization_config.w_bit")); /* the first of the two */
    weights_close(w);
}
END_TEST

START_TEST(bad_configs)
{
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"", "/config.json: is no valid JSON (byte 0)"},
        {"{", "is no valid JSON"},
        {"[]", "is no JSON object"},
        {"{\"x\": 9223372036854775808}", "holds a number that is too large (byte "},
        {"{\"x\": 1e999}", "holds a number that is too large"},
        {"{\"x\": NaN}", "is no valid JSON (byte "},
        {"{\"x\": \"\\u0000\"}", "is no valid JSON"},
        {"{\"x\": \"\xff\"}", "is no valid JSON"},
        {"{\"a\\nb\": 1}", "holds a control character"},
        {"{\"a.b\": 1, \"a\": {\"b\": 2}}", "key 'config.a.b' occurs twice"},
        {"{\"x\": [1]} {}", "is no valid JSON"},
    };
    folder_put_tensors("model.safetensors", "x");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_put("config.json", cases[i].json);
        path_is_bad(folder, cases[i].expected);
    }
    static char deep[20016];
    for (size_t n = 10; n <= 10000; n *= 10) {
        (void)strcpy(deep, "{\"x\":");
        memset(deep + 5, '[', n);
        memset(deep + 5 + n, ']', n);
        deep[5 + 2 * n] = '}';
        deep[6 + 2 * n] = '\0';
        folder_put("config.json", deep);
        if (n <= 10)
            weights_close(open_path(folder, NULL));
        else
            path_is_bad(folder, "is nested deeper than 64 (byte 68)");
    }
    (void)snprintf(deep, sizeof deep, "{\"%0600d\":1}", 0);
    folder_put("config.json", deep);
    path_is_bad(folder, "is longer than 512 bytes");
    char *large = malloc((4 << 20) + 2);
    ck_assert_ptr_nonnull(large);
    memset(large, ' ', (4 << 20) + 1);
    folder_put_bytes("config.json", large, (4 << 20) + 1);
    path_is_bad(folder, "has 4194305 bytes, more than 4194304");
    /* More arrays than a config may have entries: {"x":[[],[],…,[]]}. */
    const size_t n = 1 << 18;
    (void)snprintf(large, 7, "{\"x\":[");
    for (size_t i = 0; i < 3 * n; i++)
        large[6 + i] = "[],"[i % 3];
    large[6 + 3 * n - 1] = ']';
    large[6 + 3 * n] = '}';
    folder_put_bytes("config.json", large, 6 + 3 * n + 1);
    path_is_bad(folder, "more than 131072 keys");
    free(large);
}
END_TEST

static Suite *json_suite(void)
{
    Suite *s = suite_create("weights/json");
    TCase *tc = tcase_create("json");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, folder_make, folder_remove);
    tcase_add_test(tc, config_is_flattened);
    tcase_add_test(tc, bad_configs);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(json_suite)

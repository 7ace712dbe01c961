/* Hugging Face folders: golden ones, and folders made here, good and bad. */
#include "tests/test.h"
#include "tests/weights/image.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- A folder under /tmp ----------------------------------------------------------------------- */

static char folder[64];
static char *made[64]; /* paths of its files */
static size_t n_made;

static void make_folder(void)
{
    (void)strcpy(folder, "/tmp/quoll-folder-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void)
{
    for (size_t i = 0; i < n_made; i++) {
        (void)unlink(made[i]);
        free(made[i]);
    }
    n_made = 0;
    (void)rmdir(folder);
}

static const char *path_in(const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Writes a file of the folder, again if it is there. */
static void put_bytes(const char *name, const void *data, size_t len)
{
    const char *path = path_in(name);
    bool again = access(path, F_OK) == 0;
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
    if (!again) {
        ck_assert_uint_lt(n_made, sizeof made / sizeof *made);
        made[n_made++] = strdup(path);
    }
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static void take_away(const char *name)
{
    ck_assert_int_eq(unlink(path_in(name)), 0);
}

/* A .safetensors file of F32 tensors of one element, named by the list that ends with NULL. */
static void put_tensors(const char *name, ...)
{
    struct save_tensor t[8];
    static const float one = 1;
    char err[256] = "";
    size_t n = 0;
    va_list names;
    put(name, "");
    va_start(names, name);
    for (const char *s; (s = va_arg(names, const char *));)
        t[n++] = (struct save_tensor){s, QTYPE_F32, 1, {1}, &one};
    va_end(names);
    ck_assert_msg(weights_save_safetensors(path_in(name), t, n, err, sizeof err) == 0, "%s", err);
}

static struct weights *open_path(const char *path, const struct weights_options *opt)
{
    struct weights *w;
    char err[512] = "";
    ck_assert_msg(weights_open(&w, path, opt, err, sizeof err) == 0, "%s", err);
    return w;
}

static void folder_is_bad(const char *expected)
{
    path_is_bad(folder, expected);
}

/* ---- Metadata -------------------------------------------------------------------------------- */

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
    put("config.json",
        "{\"hidden_size\": 4096, \"big\": -9223372036854775808, \"eps\": 1e-5, \"whole\": 2.0,\n"
        " \"tied\": true, \"bias\": false, \"none\": null, \"model_type\": \"ll\\u00e4ma\", \"\": 7,\n"
        " \"rope_scaling\": {\"factor\": 8.0, \"inner\": {\"x\": 1}, \"short\": [1, 2.5]},\n"
        " \"layer_types\": [\"full\", \"\", \"sliding\"], \"ids\": [1, 2, 3], \"flags\": [true, false],\n"
        " \"empty\": [], \"nothing\": {}, \"mixed\": [1, \"a\", null, {\"b\": 5}, [6, 7]],\n"
        " \"objects\": [{\"y\": 1}, {\"y\": 2}], \"twice\": 1, \"twice\": 2}\n");
    put("generation_config.json", "{\"eos_token_id\": [1, 2]}");
    put("quantize_config.json", "{\"bits\": 4}");
    put("params.json", "{\"dim\": 64}");
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

    put("config.json", "{\"quantization_config\": {\"w_bit\": 8}}");
    put("quant_config.json", "{\"w_bit\": 4}");
    w = open_path(path_in("config.json"), &opt);
    ck_assert_str_eq(weights_folder(w), folder);
    ck_assert_int_eq(meta_i64(w, "config.quantization_config.w_bit"), 8);
    ck_assert_ptr_null(weights_meta_find(w, "config.quantization_config.bits"));
    weights_close(w);
    put("config.json", "{\"quantization_config\": null}");
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
    put_tensors("model.safetensors", "x", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("config.json", cases[i].json);
        folder_is_bad(cases[i].expected);
    }
    static char deep[20016];
    for (size_t n = 10; n <= 10000; n *= 10) {
        (void)strcpy(deep, "{\"x\":");
        memset(deep + 5, '[', n);
        memset(deep + 5 + n, ']', n);
        (void)strcpy(deep + 5 + 2 * n, "}");
        put("config.json", deep);
        if (n <= 10)
            weights_close(open_path(folder, NULL));
        else
            folder_is_bad("is nested deeper than 64 (byte 68)");
    }
    /* Long keys, joined to ever longer ones. */
    (void)strcpy(deep, "{\"x\":{\"y\":1}}");
    memset(deep, ' ', 700);
    (void)memcpy(deep, "{\"", 2);
    memset(deep + 2, 'k', 600);
    (void)strcpy(deep + 602, "\":1}");
    put("config.json", deep);
    folder_is_bad("is longer than 512 bytes");
    char *large = malloc((4 << 20) + 2);
    ck_assert_ptr_nonnull(large);
    memset(large, ' ', (4 << 20) + 1);
    put_bytes("config.json", large, (4 << 20) + 1);
    folder_is_bad("has 4194305 bytes, more than 4194304");
    /* More keys than any model has: [[],[],…]. */
    memcpy(large, "{\"x\":[", 6);
    for (size_t i = 6; i + 3 < 4 << 20; i += 3)
        memcpy(large + i, "[],", 3);
    memcpy(large + (4 << 20) - 5, "0] }  ", 5);
    put_bytes("config.json", large, 4 << 20);
    folder_is_bad("");
    free(large);
}
END_TEST

/* ---- Weights --------------------------------------------------------------------------------- */

START_TEST(golden_folders)
{
    static const struct {
        const char *name;
        const char *format;
        size_t n_tensors;
        int n_files;
        const char *key; /* and an integer value */
        int64_t value;
    } models[] = {
        {"models/llama", "safetensors folder", 21, 1, "config.hidden_size", 128},
        {"models/llama-sharded", "safetensors folder", 30, 3, "config.num_hidden_layers", 3},
        {"models/chatglm2-int4", "safetensors folder", 0, 1, "config.quantization_bit", 4},
        {"models/llama-gptq", "safetensors folder", 63, 1, "config.quantization_config.group_size", 32},
        {"models/llama-awq", "safetensors folder", 0, 1, "config.quantization_config.bits", 4},
        {"models/gemma3", "safetensors folder", 0, 1, "config.sliding_window", 8},
        {"lora/llama-lora", "safetensors folder", 0, 1, "adapter_config.lora_alpha", 8},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char name[128];
        (void)snprintf(name, sizeof name, "%s/config.json", models[i].name);
        if (strncmp(name, "lora", 4) == 0)
            (void)snprintf(name, sizeof name, "%s/adapter_config.json", models[i].name);
        const char *path = test_golden(name);
        if (!path) {
            test_skip(models[i].name, "not there");
            continue;
        }
        struct weights *w = open_path(path, NULL);
        ck_assert_str_eq(weights_format(w), models[i].format);
        ck_assert_int_eq(weights_n_files(w), models[i].n_files);
        ck_assert_uint_gt(weights_n_tensors(w), 0);
        if (models[i].n_tensors)
            ck_assert_uint_eq(weights_n_tensors(w), models[i].n_tensors);
        ck_assert_int_eq(meta_i64(w, models[i].key), models[i].value);
        weights_close(w);
    }
}
END_TEST

static void has_only(const char *tensor, const char *file)
{
    struct weights *w = open_path(folder, NULL);
    ck_assert_uint_eq(weights_n_tensors(w), 1);
    const struct tensor *t = weights_find(w, tensor);
    ck_assert_msg(t != NULL, "%s", tensor);
    ck_assert_str_eq(weights_file_name(w, t->file), path_in(file));
    weights_close(w);
}

START_TEST(which_file)
{
    folder_is_bad("is a folder without weights");
    put("model.gguf", "GGUF");
    folder_is_bad("name a GGUF file in it, such as 'model.gguf'");
    put("config.json", "{}");
    put("tokenizer.model", "");
    put("training_args.bin", "");
    put(".hidden.safetensors", "");
    folder_is_bad("name a GGUF file in it");
    put_tensors("gptq_model-4bit-128g.safetensors", "gptq", NULL);
    has_only("gptq", "gptq_model-4bit-128g.safetensors");
    put_tensors("other.safetensors", "other", NULL);
    folder_is_bad("holds 2 weight files ('gptq_model-4bit-128g.safetensors', …) and neither "
                  "'model.safetensors.index.json' nor 'model.safetensors'");
    put_tensors("adapter_model.safetensors", "adapter", NULL);
    has_only("adapter", "adapter_model.safetensors");
    put_tensors("model.safetensors", "model", NULL);
    has_only("model", "model.safetensors");
    put("model.safetensors.index.json", "{\"weight_map\": {\"other\": \"other.safetensors\"}}");
    has_only("other", "other.safetensors");

    char slashes[80];
    (void)snprintf(slashes, sizeof slashes, "%s///", folder);
    struct weights *w = open_path(slashes, &(struct weights_options){.no_mmap = true});
    ck_assert_str_eq(weights_path(w), slashes);
    ck_assert_str_eq(weights_folder(w), folder);
    weights_close(w);
    w = open_path(path_in("model.safetensors.index.json"), NULL);
    ck_assert_str_eq(weights_folder(w), folder);
    weights_close(w);
    w = open_path(path_in("model.safetensors"), NULL); /* a file is a file */
    ck_assert_ptr_null(weights_folder(w));
    weights_close(w);
}
END_TEST

START_TEST(no_tensors_wants_no_weights)
{
    const struct weights_options opt = {.no_tensors = true};
    struct weights *w;
    char err[512] = "";
    ck_assert_int_eq(weights_open(&w, folder, &opt, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "is a folder without config.json") != NULL, "%s", err);
    put("config.json", "{}");
    put("model.safetensors", "broken");
    w = open_path(folder, &opt);
    ck_assert_int_eq(weights_n_files(w), 0);
    ck_assert_uint_eq(weights_file_bytes(w), 0);
    ck_assert_ptr_null(weights_find(w, "x"));
    weights_close(w);
}
END_TEST

/* Relative paths: "config.json" and "." of the current folder. */
START_TEST(relative_paths)
{
    char before[512];
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    put("config.json", "{\"x\": 1}");
    put_tensors("model.safetensors", "model", NULL);
    ck_assert_int_eq(chdir(folder), 0);
    struct weights *w = open_path("config.json", NULL);
    ck_assert_str_eq(weights_folder(w), ".");
    ck_assert_uint_eq(weights_n_tensors(w), 1);
    weights_close(w);
    weights_close(open_path(".", NULL));
    ck_assert_int_eq(chdir(before), 0);
}
END_TEST

static void index_is_bad(const char *map, const char *expected)
{
    char json[512];
    (void)snprintf(json, sizeof json, "{\"weight_map\": %s}", map);
    put("model.safetensors.index.json", json);
    folder_is_bad(expected);
}

START_TEST(bad_indexes)
{
    put_tensors("1.safetensors", "a", "b", NULL);
    put_tensors("2.safetensors", "c", NULL);
    put("model.safetensors.index.json",
        "{\"metadata\": {}, \"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"1.safetensors\","
        " \"c\": \"2.safetensors\"}}");
    struct weights *w = open_path(folder, NULL);
    ck_assert_uint_eq(weights_n_tensors(w), 3);
    ck_assert_int_eq(weights_n_files(w), 2);
    ck_assert_uint_eq(weights_n_meta(w), 0); /* the shards' own say nothing */
    weights_close(w);

    put("model.safetensors.index.json", "{\"weight_map\"");
    folder_is_bad("model.safetensors.index.json: is no valid JSON");
    put("model.safetensors.index.json", "{}");
    folder_is_bad("has no object 'weight_map'");
    index_is_bad("[]", "has no object 'weight_map'");
    index_is_bad("{}", "has no tensor");
    index_is_bad("{\"a\": 1}", "tensor 'a': its file is no name");
    index_is_bad("{\"a\": null}", "tensor 'a': its file is no name");
    index_is_bad("{\"a\": \"\"}", "tensor 'a': its file is no name");
    index_is_bad("{\"a\": \"x\\ny\"}", "tensor 'a': its file is no name");
    index_is_bad("{\"a\\nb\": \"1.safetensors\"}", "the name of a tensor in 'weight_map' holds a control");
    index_is_bad("{\"a\": \"../1.safetensors\"}", "its file '../1.safetensors' is no name in this folder");
    index_is_bad("{\"a\": \"/etc/passwd\"}", "its file '/etc/passwd' is no name in this folder");
    index_is_bad("{\"a\": \"..\"}", "its file '..' is no name in this folder");
    index_is_bad("{\"a\": \"3.safetensors\"}", "tensor 'a': its file '3.safetensors' is missing");
    index_is_bad("{\"a\": \"1.safetensors\", \"a\": \"1.safetensors\"}", "names something twice");
    index_is_bad("{\"a\": \"1.safetensors\"}", "/1.safetensors: tensor 'b' is not listed in ");
    index_is_bad("{\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"}",
                 "/1.safetensors: tensor 'b' is listed as in '2.safetensors' by ");
    index_is_bad("{\"a\": \"1.safetensors\", \"b\": \"1.safetensors\", \"d\": \"1.safetensors\"}",
                 "index.json: tensor 'd' is not in its file '1.safetensors'");
    put_tensors("2.safetensors", "a", NULL); /* in both files */
    index_is_bad("{\"a\": \"1.safetensors\", \"b\": \"1.safetensors\", \"c\": \"2.safetensors\"}",
                 "/2.safetensors: tensor 'a' is not listed in ");
    take_away("2.safetensors");
    ck_assert_int_eq(symlink("/nowhere/at/all", path_in("2.safetensors")), 0);
    index_is_bad("{\"c\": \"2.safetensors\"}", "/2.safetensors: No such file");
    take_away("2.safetensors");
    ck_assert_int_eq(mkfifo(path_in("2.safetensors"), 0600), 0);
    index_is_bad("{\"c\": \"2.safetensors\"}", "/2.safetensors: is not a regular file");
}
END_TEST

/* Whatever happens to an index or a config, the folder opens or says in one line why not. */
START_TEST(mutations)
{
    static const char index[] = "{\"metadata\": {\"total_size\": 12}, \"weight_map\": {\"a\": "
                                "\"1.safetensors\", \"b\": \"1.safetensors\", \"c\": \"2.safetensors\"}}";
    static const char config[] = "{\"hidden_size\": 64, \"rope_scaling\": {\"factor\": 8.0, \"type\": "
                                 "\"linear\"}, \"layer_types\": [\"a\", \"b\"], \"ids\": [1, 2.5, true]}";
    static const struct {
        const char *name, *text;
        size_t len;
    } files[] = {{"model.safetensors.index.json", index, sizeof index - 1},
                 {"config.json", config, sizeof config - 1}};
    uint64_t state = 11;
    put_tensors("1.safetensors", "a", "b", NULL);
    put_tensors("2.safetensors", "c", NULL);
    put(files[0].name, files[0].text);
    put(files[1].name, files[1].text);
    int n_bad = 0, n = 0;
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < files[k].len + 600; i++, n++) {
            char text[256];
            size_t len = i < files[k].len ? i : files[k].len; /* cut, then changed */
            memcpy(text, files[k].text, files[k].len);
            for (uint64_t c = i < files[k].len ? 0 : 1 + test_random(&state) % 3; c > 0; c--)
                text[test_random(&state) % len] = (char)test_random(&state);
            put_bytes(files[k].name, text, len);
            n_bad += !path_is_safe(folder);
        }
        put(files[k].name, files[k].text);
    }
    ck_assert_int_gt(n_bad, n / 2);
    ck_assert(path_is_safe(folder));
}
END_TEST

static Suite *folder_suite(void)
{
    Suite *s = suite_create("weights/folder");
    TCase *tc = tcase_create("folder");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, make_folder, remove_folder);
    tcase_add_test(tc, config_is_flattened);
    tcase_add_test(tc, bad_configs);
    tcase_add_test(tc, golden_folders);
    tcase_add_test(tc, which_file);
    tcase_add_test(tc, no_tensors_wants_no_weights);
    tcase_add_test(tc, relative_paths);
    tcase_add_test(tc, bad_indexes);
    tcase_add_test(tc, mutations);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(folder_suite)

/* Hugging Face folders: golden ones, and folders made here, good and bad. */
#include "tests/test.h"
#include "tests/weights/folder_build.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    ck_assert_str_eq(weights_file_name(w, t->file), folder_path(file));
    weights_close(w);
}

START_TEST(which_file)
{
    path_is_bad(folder, "is a folder without weights");
    folder_put("model.gguf", "GGUF");
    path_is_bad(folder, "name a GGUF file in it, such as 'model.gguf'");
    folder_put("config.json", "{}");
    folder_put("tokenizer.model", "");
    folder_put("training_args.bin", "");
    folder_put(".hidden.safetensors", "");
    path_is_bad(folder, "name a GGUF file in it");
    folder_put_tensors("gptq_model-4bit-128g.safetensors", "gptq");
    has_only("gptq", "gptq_model-4bit-128g.safetensors");
    folder_put_tensors("other.safetensors", "other");
    path_is_bad(folder, "holds 2 weight files ('gptq_model-4bit-128g.safetensors', …) and neither "
                        "'model.safetensors.index.json' nor 'model.safetensors'");
    folder_put_tensors("adapter_model.safetensors", "adapter");
    has_only("adapter", "adapter_model.safetensors");
    folder_put_tensors("model.safetensors", "model");
    has_only("model", "model.safetensors");
    folder_put("model.safetensors.index.json", "{\"weight_map\": {\"other\": \"other.safetensors\"}}");
    has_only("other", "other.safetensors");

    char slashes[80];
    (void)snprintf(slashes, sizeof slashes, "%s///", folder);
    struct weights *w = open_path(slashes, &(struct weights_options){.no_mmap = true});
    ck_assert_str_eq(weights_path(w), slashes);
    ck_assert_str_eq(weights_folder(w), folder);
    weights_close(w);
    w = open_path(folder_path("model.safetensors.index.json"), NULL);
    ck_assert_str_eq(weights_folder(w), folder);
    weights_close(w);
    ck_assert_int_eq(unlink(folder_path("config.json")), 0);
    path_is_bad(folder_path("config.json"), "No such file");
    w = open_path(folder_path("model.safetensors"), NULL); /* a file is a file */
    ck_assert_ptr_null(weights_folder(w));
    weights_close(w);
}
END_TEST

/* PyTorch's files count only where there are no safetensors. */
START_TEST(which_pytorch_file)
{
    folder_put("consolidated.00.pth", "broken");
    path_is_bad(folder, "/consolidated.00.pth: is no PyTorch checkpoint (byte 0)");
    folder_put("rng_state_0.pth", "");
    folder_put("tokenizer.bin", "");
    folder_put("optimizer.pt", "");
    path_is_bad(folder, "/consolidated.00.pth: is no");
    folder_put("consolidated.01.pth", "broken");
    path_is_bad(folder, "holds 2 weight files ('consolidated.00.pth', …) and neither "
                        "'pytorch_model.bin.index.json' nor 'pytorch_model.bin'");
    folder_put("adapter_model.bin", "broken");
    path_is_bad(folder, "/adapter_model.bin: is no");
    folder_put("pytorch_model.bin", "broken");
    path_is_bad(folder, "/pytorch_model.bin: is no");
    folder_put("pytorch_model.bin.index.json", "{\"weight_map\": {\"x\": \"missing.bin\"}}");
    path_is_bad(folder, "/pytorch_model.bin.index.json: tensor 'x': its file 'missing.bin' is missing");
    folder_put_tensors("adapter_model.safetensors", "adapter");
    has_only("adapter", "adapter_model.safetensors");
}
END_TEST

START_TEST(no_tensors_wants_no_weights)
{
    const struct weights_options opt = {.no_tensors = true};
    struct weights *w;
    char err[512] = "";
    ck_assert_int_eq(weights_open(&w, folder, &opt, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "is a folder without config.json") != NULL, "%s", err);
    folder_put("config.json", "{}");
    folder_put("model.safetensors", "broken");
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
    folder_put("config.json", "{\"x\": 1}");
    folder_put_tensors("model.safetensors", "model");
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
    folder_put("model.safetensors.index.json", json);
    path_is_bad(folder, expected);
}

START_TEST(bad_indexes)
{
    folder_put_tensors("1.safetensors", "a b");
    folder_put_tensors("2.safetensors", "c");
    folder_put("model.safetensors.index.json",
               "{\"metadata\": {}, \"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"1.safetensors\","
               " \"c\": \"2.safetensors\"}}");
    struct weights *w = open_path(folder, NULL);
    ck_assert_uint_eq(weights_n_tensors(w), 3);
    ck_assert_int_eq(weights_n_files(w), 2);
    ck_assert_uint_eq(weights_n_meta(w), 0); /* the shards' own say nothing */
    weights_close(w);

    folder_put("model.safetensors.index.json", "{\"weight_map\"");
    path_is_bad(folder, "model.safetensors.index.json: is no valid JSON");
    folder_put("model.safetensors.index.json", "{}");
    path_is_bad(folder, "has no object 'weight_map'");
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
    folder_put_tensors("2.safetensors", "a"); /* in both files */
    index_is_bad("{\"a\": \"1.safetensors\", \"b\": \"1.safetensors\", \"c\": \"2.safetensors\"}",
                 "/2.safetensors: tensor 'a' is not listed in ");
    ck_assert_int_eq(unlink(folder_path("2.safetensors")), 0);
    ck_assert_int_eq(symlink("/nowhere/at/all", folder_path("2.safetensors")), 0);
    index_is_bad("{\"c\": \"2.safetensors\"}", "/2.safetensors: No such file");
    ck_assert_int_eq(unlink(folder_path("2.safetensors")), 0);
    ck_assert_int_eq(mkfifo(folder_path("2.safetensors"), 0600), 0);
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
    folder_put_tensors("1.safetensors", "a b");
    folder_put_tensors("2.safetensors", "c");
    folder_put(files[0].name, files[0].text);
    folder_put(files[1].name, files[1].text);
    int n_bad = 0, n = 0;
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < files[k].len + 600; i++, n++) {
            char text[256];
            size_t len = i < files[k].len ? i : files[k].len; /* cut, then changed */
            memcpy(text, files[k].text, files[k].len);
            for (uint64_t c = i < files[k].len ? 0 : 1 + test_random(&state) % 3; c > 0; c--)
                text[test_random(&state) % len] = (char)test_random(&state);
            folder_put_bytes(files[k].name, text, len);
            n_bad += !path_is_safe(folder);
        }
        folder_put(files[k].name, files[k].text);
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
    tcase_add_checked_fixture(tc, folder_make, folder_remove);
    tcase_add_test(tc, golden_folders);
    tcase_add_test(tc, which_file);
    tcase_add_test(tc, which_pytorch_file);
    tcase_add_test(tc, no_tensors_wants_no_weights);
    tcase_add_test(tc, relative_paths);
    tcase_add_test(tc, bad_indexes);
    tcase_add_test(tc, mutations);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(folder_suite)

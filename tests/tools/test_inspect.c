/* `quoll inspect`: run in a child's place, its output read back. */
#include "tests/test.h"
#include "tests/weights/gguf_build.h"
#include "tests/weights/image.h"
#include "tools/inspect.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What one run printed, and its exit code. The test's own process: stdout and stderr stay redirected. */
struct output {
    int code;
    char *out, *err;
};

static char *contents(int fd)
{
    off_t len = lseek(fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)len + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(pread(fd, text, (size_t)len, 0), len);
    return text;
}

static struct output run(const char *path, const char *option, const char *option2)
{
    char command[] = "inspect", *argv[] = {command, strdup(path), NULL, NULL, NULL};
    int argc = 2;
    if (option)
        argv[argc++] = strdup(option);
    if (option2)
        argv[argc++] = strdup(option2);
    int out = memfd_create("stdout", MFD_CLOEXEC), err = memfd_create("stderr", MFD_CLOEXEC);
    (void)fflush(NULL);
    int old_out = dup(STDOUT_FILENO), old_err = dup(STDERR_FILENO);
    ck_assert(dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0);
    struct output o = {.code = cmd_inspect(argc, argv)};
    (void)fflush(NULL);
    ck_assert(dup2(old_out, STDOUT_FILENO) >= 0 && dup2(old_err, STDERR_FILENO) >= 0);
    o.out = contents(out);
    o.err = contents(err);
    const int fds[] = {out, err, old_out, old_err};
    for (int i = 0; i < 4; i++)
        (void)close(fds[i]);
    for (int i = 1; i < argc; i++)
        free(argv[i]);
    return o;
}

static void output_free(struct output *o)
{
    free(o->out);
    free(o->err);
}

static void contains(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in:\n%s", part, text);
}

/* Nothing that a terminal would obey. */
static void is_harmless(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        ck_assert_msg((*p >= 0x20 || *p == '\n') && *p != 0x7f &&
                          !(p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0),
                      "byte %d", *p);
}

/* A model of an architecture that nobody knows, with text that wants to do harm. */
static struct gguf_build *hostile(void)
{
    struct gguf_build *b = gguf_build_new(3);
    gguf_build_str(b, "general.architecture", "warp\033[2Jdrive");
    gguf_build_str(b, "text",
                   "red \033[31m, title \033]0;x\007, C1 \xc2\x9b"
                   "2J, broken \xff\xc3, bell \007\nnext");
    gguf_build_strs(b, "texts", (const char *[]){"\033c", "\r", "\xe2\x82\xac"}, 3);
    gguf_build_int(b, "huge", META_U64, -1);
    gguf_build_float(b, "nan", META_F32, (double)__builtin_nanf(""));
    gguf_build_int(b, "yes", META_BOOL, 1);
    gguf_build_array(b, "many", META_I32, (int32_t[20]){1, -2, 3}, 20);
    gguf_build_tensor(b, "w", QTYPE_Q8_0, 2, (int64_t[]){32, 4}, NULL);
    gguf_build_tensor(b, "v", QTYPE_F32, 1, (int64_t[]){32}, NULL);
    gguf_build_finish(b);
    return b;
}

START_TEST(unknown_architecture_as_text)
{
    struct gguf_build *b = hostile();
    struct output o = run(image_path(b->data, b->len), "--tensors", NULL);
    ck_assert_int_eq(o.code, EXIT_OK);
    ck_assert_str_eq(o.err, "");
    is_harmless(o.out);
    contains(o.out, "GGUF v3");
    contains(o.out, "supported        no: architecture 'warp");
    contains(o.out, "160 in 2 tensors");
    contains(o.out, "bits per weight  13.200"); /* (136 + 128) bytes for 160 */
    contains(o.out, "18446744073709551616");    /* 2⁶⁴ − 1 as a float */
    contains(o.out, "i32[20] 1, -2, 3, 0, …");
    contains(o.out, "\xe2\x82\xac");
    contains(o.out, "32 × 4");
    contains(o.out, "q8_0");
    output_free(&o);
    gguf_build_free(b);
}
END_TEST

static json_int_t int_at(json_t *o, const char *key)
{
    ck_assert_msg(json_is_integer(json_object_get(o, key)), "%s is no integer", key);
    return json_integer_value(json_object_get(o, key));
}

START_TEST(unknown_architecture_as_json)
{
    struct gguf_build *b = hostile();
    struct output o = run(image_path(b->data, b->len), "--tensors", "--json");
    ck_assert_int_eq(o.code, EXIT_OK);
    is_harmless(o.out);
    json_t *root = json_loads(o.out, 0, NULL);
    ck_assert_ptr_nonnull(root);
    ck_assert(json_is_false(json_object_get(root, "supported")));
    ck_assert_ptr_null(json_object_get(root, "hyper_parameters"));
    ck_assert_str_eq(json_string_value(json_object_get(root, "architecture")), "warp\033[2Jdrive");
    ck_assert_int_eq(int_at(root, "n_params"), 160);
    ck_assert_int_eq(int_at(root, "tensor_bytes"), 264);
    ck_assert_int_eq(int_at(root, "file_bytes"), (json_int_t)b->len);
    ck_assert(json_real_value(json_object_get(root, "bits_per_weight")) == 13.2);
    ck_assert_uint_eq(json_array_size(json_object_get(root, "types")), 2);
    json_t *meta = json_object_get(root, "metadata");
    ck_assert_uint_eq(json_object_size(meta), 7);
    ck_assert(json_is_true(json_object_get(meta, "yes")));
    ck_assert_str_eq(json_string_value(json_object_get(meta, "nan")), "nan");
    ck_assert_str_eq(json_string_value(json_object_get(meta, "huge")), "18446744073709551616");
    json_t *many = json_object_get(meta, "many");
    ck_assert_int_eq(int_at(many, "length"), 20);
    ck_assert_uint_eq(json_array_size(json_object_get(many, "first")), 16);
    json_t *tensors = json_object_get(root, "tensors");
    ck_assert_uint_eq(json_array_size(tensors), 2);
    json_t *w = json_array_get(tensors, 0);
    ck_assert_str_eq(json_string_value(json_object_get(w, "name")), "w");
    ck_assert_str_eq(json_string_value(json_object_get(w, "type")), "q8_0");
    ck_assert_int_eq(int_at(w, "bytes"), 136);
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(w, "dims"), 1)), 4);
    json_decref(root);
    output_free(&o);
    gguf_build_free(b);
}
END_TEST

START_TEST(plan_needs_hyper_parameters)
{
    struct gguf_build *b = hostile();
    struct output o = run(image_path(b->data, b->len), "--plan", NULL);
    ck_assert_int_eq(o.code, EXIT_FAILED);
    contains(o.out, "160 in 2 tensors"); /* the rest is there */
    contains(o.err, "quoll: /proc/self/fd/");
    contains(o.err, "nothing to plan with");
    ck_assert_ptr_eq(strchr(o.err, '\n'), o.err + strlen(o.err) - 1);
    output_free(&o);
    gguf_build_free(b);
}
END_TEST

START_TEST(failures)
{
    struct output o = run("/nowhere/at/all.gguf", NULL, NULL);
    ck_assert_int_eq(o.code, EXIT_FAILED);
    ck_assert_str_eq(o.out, "");
    ck_assert_str_eq(o.err, "quoll: /nowhere/at/all.gguf: No such file or directory\n");
    output_free(&o);
    o = run("x.gguf", "--tensor-table", NULL);
    ck_assert_int_eq(o.code, EXIT_USAGE);
    output_free(&o);
    o = run("x.gguf", "y.gguf", NULL);
    ck_assert_int_eq(o.code, EXIT_USAGE);
    output_free(&o);
    o = run("--help", NULL, NULL);
    ck_assert_int_eq(o.code, EXIT_OK);
    contains(o.out, "usage: quoll inspect MODEL");
    contains(o.out, "--plan");
    ck_assert_str_eq(o.err, "");
    output_free(&o);
}
END_TEST

START_TEST(golden_model)
{
    const char *golden = test_golden("gguf/llama-f32/model.gguf");
    if (!golden) {
        test_skip("inspect of gguf/llama-f32", "not there");
        return;
    }
    struct output o = run(golden, "--plan", "--json");
    ck_assert_int_eq(o.code, EXIT_OK);
    json_t *root = json_loads(o.out, 0, NULL);
    ck_assert_ptr_nonnull(root);
    ck_assert(json_is_true(json_object_get(root, "supported")));
    ck_assert_int_eq(int_at(json_object_get(root, "hyper_parameters"), "n_layers"), 2);
    json_t *plan = json_object_get(root, "plan");
    ck_assert_int_eq(int_at(plan, "total_bytes"),
                     int_at(plan, "weight_bytes") + int_at(plan, "kv_bytes") + int_at(plan, "scratch_bytes"));
    json_decref(root);
    output_free(&o);
}
END_TEST

/* The plan is what loading the model then takes. */
START_TEST(plan_is_what_a_model_takes)
{
    static const char *const names[] = {
        "gguf/llama-f32/model.gguf",        "gguf/quant-q4_k/model.gguf",
        "gguf/qwen2-f16/model.gguf",        "models/gemma3/config.json",
        "models/mistral-swa/config.json",   "models/qwen3-moe/config.json",
        "models/chatglm1-int4/config.json", "models/llama-gptq-desc-act/config.json"};
    static const struct {
        int64_t n_ctx;
        int n_batch, type;
    } settings[] = {{0, 512, -1}, {100, 7, QTYPE_F32}, {1, 1, -1}, {3000, 64, QTYPE_F16}};
    const char *path = test_golden(names[_i / 4]);
    char err[512] = "";
    if (!path) {
        test_skip(names[_i / 4], "not there");
        return;
    }
    struct run_options o = {.n_ctx = settings[_i % 4].n_ctx,
                            .n_batch = settings[_i % 4].n_batch,
                            .type_k = settings[_i % 4].type,
                            .type_v = settings[_i % 4].type,
                            .n_threads = 2,
                            .n_threads_batch = 2,
                            .isa = isa_best(),
                            .device = -1};
    struct weights *w;
    struct model *m;
    struct cache *cache;
    struct context *x;
    struct config c;
    struct plan p;
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(config_read(&c, w, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(plan_memory(&p, &c, w, &o, err, sizeof err) == 0, "%s", err);
    const struct model_options mo = {.ops = ops_cpu(o.isa), .n_threads = 2, .rope_scaling = -1};
    ck_assert_msg(model_load(&m, w, &mo, err, sizeof err) == 0, "%s", err);
    const struct cache_options co = {
        .n_ctx = p.n_ctx, .n_seqs = 1, .type_k = p.type_k, .type_v = p.type_v, .max_batch = p.n_batch};
    ck_assert_msg(cache_new(&cache, m, &co, err, sizeof err) == 0, "%s", err);
    const struct context_options xo = {.n_threads = 2, .n_threads_batch = 2, .max_batch = p.n_batch};
    ck_assert_msg(context_new(&x, m, cache, &xo, err, sizeof err) == 0, "%s", err);

    struct model_memory mem;
    model_memory(m, &mem);
    ck_assert_double_eq_tol((double)p.memory.weight_bytes, (double)mem.weight_bytes,
                            0.01 * (double)mem.weight_bytes); /* vectors are aligned */
    ck_assert_uint_eq(p.memory.kv_bytes, cache_bytes(cache));
    ck_assert_uint_eq(p.memory.scratch_bytes, context_bytes(x));

    context_free(x);
    cache_free(cache);
    model_free(m);
    weights_close(w);
}
END_TEST

static Suite *inspect_suite(void)
{
    Suite *s = suite_create("tools/inspect");
    TCase *tc = tcase_create("inspect");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, unknown_architecture_as_text);
    tcase_add_test(tc, unknown_architecture_as_json);
    tcase_add_test(tc, plan_needs_hyper_parameters);
    tcase_add_test(tc, failures);
    tcase_add_test(tc, golden_model);
    tcase_add_loop_test(tc, plan_is_what_a_model_takes, 0, 8 * 4);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(inspect_suite)

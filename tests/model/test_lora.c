/* LoRA adapters: golden logits, several at once, and adapters that are refused. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char adapter_file[] = "lora/llama-lora/adapter_config.json";

/* The golden adapter's folder; NULL: not there, and said so. */
static const char *adapter_folder(void)
{
    static char folder[1024];
    bool model = test_golden("models/llama/config.json") != NULL;
    const char *path = test_golden(adapter_file); /* lent until the next call */
    if (!path || !model) {
        test_skip("lora/llama-lora", "no such golden adapter");
        return NULL;
    }
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    return folder;
}

static float largest_error(const float *a, const float *b, int64_t n)
{
    float max = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
        max = d > max ? d : max;
    }
    return max;
}

static void check_golden(const struct lora_option *lora, size_t n, enum isa isa, int max_batch)
{
    struct expected e = expected_open(test_golden("lora/llama-lora/expected.safetensors"));
    struct setting s = plain;
    s.isa = isa;
    s.max_batch = max_batch;
    struct fixture f = fixture_open(test_golden("models/llama/config.json"), &s);
    struct model_options o = {
        .ops = ops_cpu(isa), .n_threads = 2, .rope_scaling = -1, .lora = lora, .n_lora = n};
    fixture_reload(&f, &o, &s);
    float *logits = malloc((size_t)e.n * (size_t)f.vocab_size * sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    fixture_eval(&f, 0, e.ids, e.n, logits);
    ck_assert_float_le(largest_error(logits, e.logits, (int64_t)e.n * f.vocab_size), 1e-3f);
    int32_t greedy[64];
    fixture_greedy(&f, logits + (int64_t)(e.n - 1) * f.vocab_size, e.ids, e.n, greedy, e.n_greedy);
    ck_assert_mem_eq(greedy, e.greedy, (size_t)e.n_greedy * sizeof *greedy);
    free(logits);
    fixture_close(&f);
    weights_close(e.w);
}

START_TEST(golden_adapter)
{
    const char *folder = adapter_folder();
    if (!folder)
        return;
    const struct lora_option whole[] = {{folder, 1}}, parts[] = {{folder, 0.25f}, {folder, 0.75f}};
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++)
        if (isa_supported(isa)) {
            check_golden(whole, 1, isa, 512);
            check_golden(parts, 2, isa, 7);
        }
}
END_TEST

/* ---- Adapters that are refused ------------------------------------------------------------------ */

/* A folder with the golden adapter's tensors and another configuration; NULL text: the golden one. */
static const char *make_folder(const char *config, const char *tensors)
{
    static char folder[64], file[128];
    (void)snprintf(folder, sizeof folder, "/tmp/quoll-test-lora-%ld", (long)getpid());
    ck_assert(mkdir(folder, 0700) == 0);
    (void)snprintf(file, sizeof file, "%s/adapter_config.json", folder);
    FILE *f = fopen(file, "w");
    ck_assert(f && fputs(config, f) >= 0 && fclose(f) == 0);
    (void)snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
    char *target = realpath(tensors, NULL);
    ck_assert(target && symlink(target, file) == 0);
    free(target);
    return folder;
}

static void remove_folder(const char *folder)
{
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    char file[128];
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", folder, files[i]);
        (void)unlink(file);
    }
    (void)rmdir(folder);
}

static const struct {
    const char *config, *model, *why; /* why NULL: accepted */
} bad[] = {
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"r\":4}", "models/llama/config.json", NULL},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"use_rslora\":true}", "models/llama/config.json", NULL},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"alpha_pattern\":{\"self_attn.q_proj\":4}}",
     "models/llama/config.json", NULL},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"alpha_pattern\":{\"q_proj\":\"x\"}}",
     "models/llama/config.json", "alpha_pattern"},
    {"{}", "models/llama/config.json", "adapter_config.json"},
    {"{\"peft_type\":\"IA3\"}", "models/llama/config.json", "peft_type"},
    {"{\"peft_type\":\"LORA\"}", "models/llama/config.json", "lora_alpha"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":\"8\"}", "models/llama/config.json", "lora_alpha"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"bias\":\"all\"}", "models/llama/config.json", "bias"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"use_dora\":true}", "models/llama/config.json", "use_dora"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"modules_to_save\":[\"lm_head\"]}",
     "models/llama/config.json", "modules_to_save"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8}", "models/llama-gqa-tied/config.json", "lora_A"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":8}", "models/chatglm2/config.json", "belongs to no matrix"},
};

START_TEST(adapters_are_checked)
{
    if (!adapter_folder())
        return;
    char err[512] = "", tensors[1024], model[1024];
    (void)snprintf(tensors, sizeof tensors, "%s", test_golden("lora/llama-lora/adapter_model.safetensors"));
    (void)snprintf(model, sizeof model, "%s", test_golden(bad[_i].model));
    const char *folder = make_folder(bad[_i].config, tensors);
    const struct lora_option lora = {folder, 1};
    const struct model_options o = {
        .ops = ops_cpu(ISA_SCALAR), .n_threads = 1, .rope_scaling = -1, .lora = &lora, .n_lora = 1};
    struct weights *w;
    struct model *m;
    ck_assert_msg(weights_open(&w, model, NULL, err, sizeof err) == 0, "%s", err);
    int rc = model_load(&m, w, &o, err, sizeof err);
    weights_close(w);
    remove_folder(folder);
    if (bad[_i].why) {
        ck_assert_int_eq(rc, -1);
        ck_assert_ptr_null(m);
        ck_assert_ptr_eq(strstr(err, folder), err);
        ck_assert_msg(strstr(err, bad[_i].why) != NULL, "'%s' does not say '%s'", err, bad[_i].why);
    } else {
        ck_assert_msg(rc == 0, "%s", err);
        model_free(m);
    }
}
END_TEST

static Suite *lora_suite(void)
{
    Suite *s = suite_create("model/lora");
    TCase *t = tcase_create("lora");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, golden_adapter);
    tcase_add_loop_test(t, adapters_are_checked, 0, sizeof bad / sizeof *bad);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(lora_suite)

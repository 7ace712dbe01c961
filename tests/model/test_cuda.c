/* The whole forward pass on CUDA's operators against the CPU's, to the last bit: on the host executor, which
 * needs no GPU (tests/cuda/executor.h), or with QUOLL_TEST_CUDA=1 on one. */
#include "tests/cuda/backend.h"
#include "tests/model/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Architectures, kinds of weights and of layers; the quantised types follow. */
static const char *const plain_models[] = {
    "gguf/llama-f32",       "gguf/llama-f16",
    "gguf/llama-bf16",      "gguf/qwen2-f16",
    "gguf/qwen3-f16",       "gguf/gemma3-f16",
    "models/llama-gptq",    "models/llama-gptq-desc-act",
    "models/llama-awq",     "models/llama-rope-dynamic",
    "models/llama3-rope",   "models/mistral-swa",
    "models/mixtral",       "models/qwen3-moe",
    "models/phi3",          "models/gemma3",
    "models/chatglm1",      "models/chatglm1-int4",
    "models/chatglm2-int4", "models/glm4",
    "models/chatglm2-int8",
};

enum {
    N_PLAIN = sizeof plain_models / sizeof *plain_models,
    N_MODELS = N_PLAIN + QTYPE_N_MATRIX - QTYPE_Q4_0,
    N_TOKENS = 70, /* more than a page, and than a tile of tokens */
    N_SINGLE = 3,  /* then as many one at a time */
};

static const char *model_name(int i)
{
    static char name[64];
    if (i < N_PLAIN)
        return plain_models[i];
    (void)snprintf(name, sizeof name, "gguf/quant-%s", qtypes[QTYPE_Q4_0 + i - N_PLAIN].name);
    return name;
}

/* What weights_open takes: a folder, or the file in it; NULL: not there. */
static const char *model_file(const char *name)
{
    static const char *const files[] = {"model.gguf", "model.bin", "config.json"};
    for (int i = 0; i < 3; i++) {
        char full[128];
        (void)snprintf(full, sizeof full, "%s/%s", name, files[i]);
        const char *path = test_golden(full);
        if (path)
            return path;
    }
    return NULL;
}

/* A batch, then single tokens. */
static float *evaluate(const char *path, const struct setting *s)
{
    struct fixture f = fixture_open(path, s);
    int32_t id[N_TOKENS + N_SINGLE];
    make_ids(id, N_TOKENS + N_SINGLE, f.vocab_size, 1);
    float *logits = malloc((size_t)(N_TOKENS + N_SINGLE) * (size_t)f.vocab_size * sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    fixture_eval(&f, 0, id, N_TOKENS, logits);
    for (int i = N_TOKENS; i < N_TOKENS + N_SINGLE; i++)
        fixture_eval(&f, 0, &id[i], 1, logits + (int64_t)i * f.vocab_size);
    fixture_close(&f);
    return logits;
}

static int vocabulary(const char *path)
{
    struct fixture f = fixture_open(path, &plain);
    fixture_close(&f);
    return f.vocab_size;
}

/* The same logits, bit for bit. */
static void check_same(const char *name, const struct setting *s)
{
    const char *path = model_file(name);
    if (!path)
        return; /* test_forward says what is missing */
    char copy[1024];
    (void)snprintf(copy, sizeof copy, "%s", path);
    struct setting cpu = *s;
    cpu.ops = NULL;
    cpu.isa = isa_best();
    float *want = evaluate(copy, &cpu), *got = evaluate(copy, s);
    const int n = vocabulary(copy);
    for (int i = 0; i < (N_TOKENS + N_SINGLE) * n; i++)
        ck_assert_msg(memcmp(&want[i], &got[i], sizeof *got) == 0, "%s: token %d, logit %d is %a, not %a",
                      name, i / n, i % n, (double)got[i], (double)want[i]);
    free(want);
    free(got);
}

START_TEST(models_have_the_cpus_bits) /* loop over models × compute */
{
    struct setting s = plain;
    s.ops = cuda_test_ops(true);
    s.compute = _i % 2 ? COMPUTE_F32 : COMPUTE_FAST;
    s.kv_type = _i % 2 ? QTYPE_F32 : QTYPE_F16;
    s.max_batch = 64;
    if (s.ops)
        check_same(model_name(_i / 2), &s);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda forward");
    TCase *t = tcase_create("models");
    tcase_set_timeout(t, 60);

    tcase_add_loop_test(t, models_have_the_cpus_bits, 0, 2 * N_MODELS);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(suite)

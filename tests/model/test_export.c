/* What convert writes: a GGUF that gives the logits of the files it came from. */
#include "model/export.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *model;
    bool other_bits; /* what a GGUF cannot hold becomes float: zero points, and factors of RoPE that are
                        double */
} models[] = {
    {"models/llama/config.json", false},
    {"models/llama-gqa-tied/config.json", false},
    {"models/llama-headdim-bias/config.json", false},
    {"models/llama-rope-dynamic/config.json", false},
    {"models/llama-rope-linear/config.json", false},
    {"models/llama-rope-yarn/config.json", false},
    {"models/llama3-rope/config.json", false},
    {"models/llama-sharded/config.json", false},
    {"models/llama-gptq/config.json", false},
    {"models/llama-gptq-desc-act/config.json", true},
    {"models/llama-awq/config.json", true},
    {"models/mistral-swa/config.json", false},
    {"models/mixtral/config.json", false},
    {"models/qwen2/config.json", false},
    {"models/qwen3/config.json", false},
    {"models/qwen3-moe/config.json", false},
    {"models/phi3/config.json", false},
    {"models/gemma/config.json", false},
    {"models/gemma3/config.json", false},
    {"models/chatglm1/config.json", false},
    {"models/chatglm1-int4/config.json", false},
    {"models/chatglm1-int8/config.json", false},
    {"models/chatglm2/config.json", false},
    {"models/chatglm2-int4/config.json", false},
    {"models/chatglm3/config.json", false},
    {"models/glm/config.json", false},
    {"models/glm4/config.json", false},
    {"models/chatglm1-ptuning/config.json", false},
    {"models/chatglm2-ptuning/config.json", false},
    {"models/chatglm2-32k/config.json", false},
    {"models/chatglm3-32k/config.json", false},
    {"models/gemma2/config.json", false},
    {"models/gemma3-scaled/config.json", false},
    {"models/llama-gptq-2bit/config.json", true},
    {"models/llama-gptq-3bit-v2/config.json", true},
    {"models/llama-gptq-8bit-desc-act/config.json", true},
    {"models/llama-tied-twice/config.json", false},
    {"models/llama-yarn-betas/config.json", true},
    {"models/llama-yarn-mscale/config.json", true},
    {"models/phi3-longrope/config.json", true},
    {"models/qwen2-window/config.json", false},
    {"models/qwen3-moe-plain/config.json", false},
    {"llama2c/untied-gqa/model.bin", false},
    {"gguf/quant-q4_k/model.gguf", false},
    {"gguf/gemma3-f16/model.gguf", false},
};

enum { N_IDS = 30 };

static char err[512];

static const char *write_gguf(const char *from, int type)
{
    static char path[64];
    struct weights *w;
    struct export *e;
    (void)snprintf(path, sizeof path, "/tmp/quoll-test-export-%ld.gguf", (long)getpid());
    ck_assert_msg(weights_open(&w, from, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(export_open(&e, w, type, NULL, 0, err, sizeof err) == 0, "%s", err);
    struct save_gguf g = {.write = export_write, .arg = e};
    g.meta = export_meta(e, &g.n_meta);
    g.tensor = export_tensors(e, &g.n_tensors);
    ck_assert_msg(weights_save_gguf(path, &g, err, sizeof err) == 0, "%s", err);
    export_close(e);
    weights_close(w);
    return path;
}

static float *logits_of(const char *path, const struct setting *s, size_t *bytes)
{
    int32_t id[N_IDS];
    struct fixture f = fixture_open(path, s);
    make_ids(id, N_IDS, f.vocab_size, 11);
    *bytes = (size_t)N_IDS * (size_t)f.vocab_size * sizeof(float);
    float *logits = malloc(*bytes);
    ck_assert_ptr_nonnull(logits);
    fixture_eval(&f, 0, id, N_IDS, logits);
    fixture_close(&f);
    return logits;
}

START_TEST(a_gguf_gives_the_same_logits)
{
    const char *found = test_golden(models[_i].model);
    if (!found) {
        test_skip(models[_i].model, "no such golden model");
        return;
    }
    char from[1024];
    size_t bytes, same_bytes;
    (void)snprintf(from, sizeof from, "%s", found);
    struct setting s = plain;
    s.isa = isa_best();
    s.compute = models[_i].other_bits ? COMPUTE_F32 : COMPUTE_FAST;
    s.kv_type = QTYPE_F16;
    const char *path = write_gguf(from, -1);
    float *a = logits_of(from, &s, &bytes), *b = logits_of(path, &s, &same_bytes);
    (void)unlink(path);
    ck_assert_uint_eq(bytes, same_bytes);
    if (models[_i].other_bits)
        for (size_t i = 0; i < bytes / sizeof *a; i++)
            ck_assert_float_eq_tol(a[i], b[i], 1e-2f); /* the KV cache rounds what differs by a hair */
    else
        ck_assert_msg(memcmp(a, b, bytes) == 0, "%s: other bits", models[_i].model);
    free(a);
    free(b);
}
END_TEST

START_TEST(types_can_be_chosen)
{
    const char *found = test_golden("models/llama-gptq/config.json");
    if (!found) {
        test_skip("models/llama-gptq", "no such golden model");
        return;
    }
    char from[1024];
    (void)snprintf(from, sizeof from, "%s", found);
    static const enum qtype types[] = {QTYPE_F32, QTYPE_F16, QTYPE_BF16};
    for (size_t i = 0; i < 3; i++) {
        struct weights *w;
        const char *path = write_gguf(from, (int)types[i]);
        ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
        ck_assert_int_eq(weights_find(w, "blk.0.attn_q.weight")->type, types[i]);
        ck_assert_int_eq(weights_find(w, "token_embd.weight")->type, types[i]);
        ck_assert_int_eq(weights_find(w, "blk.0.attn_norm.weight")->type, QTYPE_F32);
        weights_close(w);
        ck_assert_int_eq(try_load(path, err, sizeof err), 0);
        (void)unlink(path);
    }
}
END_TEST

static Suite *export_suite(void)
{
    Suite *s = suite_create("model/export");
    TCase *t = tcase_create("export");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, a_gguf_gives_the_same_logits, 0, sizeof models / sizeof *models);
    tcase_add_test(t, types_can_be_chosen);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(export_suite)

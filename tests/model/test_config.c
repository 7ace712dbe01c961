/* Hyper-parameters: every wrong one is an error that names file and key. */
#include "model/arch.h"
#include "tests/model/fixture.h"
#include "tests/model/gguf_edit.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const models[] = {"gguf/llama-f16/model.gguf", "gguf/qwen2-f16/model.gguf"};
static const char *const prefix[] = {"llama", "qwen2"};

enum { N_MODELS = 2 };

static struct edit *open_model(int i)
{
    return edit_golden(models[i]);
}

static const char *full_key(int model, const char *key)
{
    static char name[128];
    (void)snprintf(name, sizeof name, "%s.%s", prefix[model], key);
    return name;
}

/* ---- Whole numbers ------------------------------------------------------------------------------ */

/* None of these is right for any of the keys below in the golden models, where the right value of no
 * key is among them (3 heads: 64 is no multiple; 7 layers: there are 2). */
static const uint32_t wrong[] = {0, 3, 5, 7, 1u << 20, INT32_MAX, 0x80000000u, UINT32_MAX};
static const char *const int_keys[] = {
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "vocab_size",
};

enum { N_WRONG = sizeof wrong / sizeof *wrong, N_INT_KEYS = sizeof int_keys / sizeof *int_keys };

START_TEST(wrong_numbers_are_refused) /* loop over keys × models */
{
    const char *key = full_key(_i % N_MODELS, int_keys[_i / N_MODELS]);
    for (int i = 0; i < N_WRONG; i++) {
        struct edit *g = open_model(_i % N_MODELS);
        if (!g)
            return;
        edit_set_u32(g, key, wrong[i]);
        /* A number that is possible in itself contradicts a shape: then the message names a tensor. */
        char err[512];
        const char *path = edit_write(g);
        ck_assert_msg(try_load(path, err, sizeof err) == -1, "%s = %u", key, wrong[i]);
        (void)unlink(path);
        ck_assert_ptr_eq(strstr(err, path), err);
        ck_assert_msg(strstr(err, "tensor '") || strstr(err, "key"), "%s = %u: %s", key, wrong[i], err);
        if (wrong[i] == 0 || wrong[i] >= INT32_MAX)
            ck_assert_msg(strstr(err, key) != NULL, "%s = %u: %s", key, wrong[i], err);
        edit_free(g);
    }
}
END_TEST

START_TEST(wrong_types_are_refused) /* loop over keys × models */
{
    const char *key = full_key(_i % N_MODELS, int_keys[_i / N_MODELS]);
    struct edit *g = open_model(_i % N_MODELS);
    if (!g)
        return;
    edit_set_str(g, key, "2");
    edit_refused(g, key);
    g = open_model(_i % N_MODELS);
    edit_set_f32(g, key, 2.5f);
    edit_refused(g, key);
    g = open_model(_i % N_MODELS);
    edit_set_array(g, key, NULL, 0);
    edit_refused(g, key);
    g = open_model(_i % N_MODELS);
    int32_t negative = -4;
    edit_set(g, key, GGUF_I32, &negative, sizeof negative);
    edit_refused(g, key);
}
END_TEST

START_TEST(missing_keys_are_refused) /* loop over models */
{
    static const char *const required[] = {
        "block_count",         "context_length",       "embedding_length",
        "feed_forward_length", "attention.head_count", "attention.layer_norm_rms_epsilon",
    };
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        struct edit *g = open_model(_i);
        if (!g)
            return;
        edit_remove_key(g, full_key(_i, required[i]));
        edit_refused(g, full_key(_i, required[i]));
    }
}
END_TEST

START_TEST(values_per_layer_must_agree) /* loop over models */
{
    static const char *const keys[] = {"attention.head_count", "attention.head_count_kv",
                                       "feed_forward_length"};
    static const uint32_t right[] = {4, 2, 160};
    for (size_t i = 0; i < 3; i++) {
        struct edit *g = open_model(_i);
        if (!g)
            return;
        edit_set_array(g, full_key(_i, keys[i]), (uint32_t[]){right[i], right[i]}, 2);
        edit_accepted(g);
        g = open_model(_i);
        edit_set_array(g, full_key(_i, keys[i]), (uint32_t[]){right[i], right[i] / 2}, 2);
        edit_refused(g, full_key(_i, keys[i]));
    }
}
END_TEST

START_TEST(context_length_is_checked) /* loop over models */
{
    static const uint32_t bad[] = {0, INT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        struct edit *g = open_model(_i);
        if (!g)
            return;
        edit_set_u32(g, full_key(_i, "context_length"), bad[i]);
        edit_refused(g, full_key(_i, "context_length"));
    }
}
END_TEST

/* ---- Other values ------------------------------------------------------------------------------- */

static const struct {
    const char *key;
    float value;
} bad_floats[] = {
    {"rope.freq_base", 0},
    {"rope.freq_base", -10000},
    {"rope.freq_base", NAN},
    {"rope.freq_base", INFINITY},
    {"attention.layer_norm_rms_epsilon", 0},
    {"attention.layer_norm_rms_epsilon", -1e-5f},
    {"attention.layer_norm_rms_epsilon", NAN},
    {"attention.layer_norm_rms_epsilon", 1e30f},
    {"rope.scaling.factor", -2},
    {"rope.scaling.factor", NAN},
    {"rope.scale_linear", INFINITY},
    /* what would change the result and is not computed yet */
    {"attention.scale", -1},
    {"attn_logit_softcapping", -50},
    {"final_logit_softcapping", NAN},
    {"attention.clamp_kqv", 8},
    {"logit_scale", 0.25f},
    {"expert_count", 8},
    {"rope.scaling.attn_factor", 2},
};

START_TEST(bad_floats_are_refused)
{
    struct edit *g = open_model(0);
    if (!g)
        return;
    edit_set_f32(g, full_key(0, bad_floats[_i].key), bad_floats[_i].value);
    edit_refused(g, full_key(0, bad_floats[_i].key));
    g = open_model(0);
    edit_set_str(g, full_key(0, bad_floats[_i].key), "1");
    edit_refused(g, full_key(0, bad_floats[_i].key));
}
END_TEST

START_TEST(architecture_is_checked)
{
    struct edit *g = open_model(0);
    if (!g)
        return;
    edit_set_str(g, "general.architecture", "mamba");
    edit_refused(
        g, "architecture 'mamba' is not supported (key 'general.architecture'); these are: llama, qwen2");
    g = open_model(0);
    edit_set_str(g, "general.architecture", "\x1b[31m\n");
    edit_refused(g, "'?[31m?'");
    g = open_model(0);
    edit_set_str(g, "general.architecture", "");
    edit_refused(g, "architecture ''");
    g = open_model(0);
    edit_set_str(g, "general.architecture", "llama2");
    edit_refused(g, "architecture 'llama2'");
    g = open_model(0);
    edit_set_u32(g, "general.architecture", 1);
    edit_refused(g, "general.architecture");
    g = open_model(0);
    edit_remove_key(g, "general.architecture");
    edit_refused(g, "general.architecture");
}
END_TEST

START_TEST(experts_are_checked)
{
    struct edit *g = open_model(0);
    if (!g)
        return;
    edit_set_u32(g, "llama.expert_count", 8);
    edit_refused(g, "llama.expert_used_count");
    g = open_model(0);
    edit_set_u32(g, "llama.expert_count", 8);
    edit_set_u32(g, "llama.expert_used_count", 9);
    edit_refused(g, "llama.expert_used_count");
    g = open_model(0);
    edit_set_u32(g, "llama.expert_count", 8);
    edit_set_u32(g, "llama.expert_used_count", 2);
    edit_refused(g, "'blk.0.ffn_"); /* dense layers are no part of it any more */
    g = open_model(1);
    edit_set_u32(g, "qwen2.expert_count", 8);
    edit_refused(g, "has no experts");
    g = open_model(0);
    edit_set_u32(g, "llama.expert_count", 0);
    edit_accepted(g);
}
END_TEST

START_TEST(rope_scaling_types)
{
    static const char *const unsupported[] = {"llama3", "dynamic", "", "linear2"};
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        struct edit *g = open_model(0);
        if (!g)
            return;
        edit_set_str(g, "llama.rope.scaling.type", unsupported[i]);
        edit_set_f32(g, "llama.rope.scaling.factor", 4);
        edit_refused(g, "llama.rope.scaling.type");
    }
    struct edit *g = open_model(0);
    edit_set_str(g, "llama.rope.scaling.type", "linear");
    edit_refused(g, "no factor");
    g = open_model(0);
    edit_set_u32(g, "llama.rope.scaling.type", 1);
    edit_refused(g, "llama.rope.scaling.type");
    g = open_model(0);
    edit_set_str(g, "llama.rope.scaling.type", "none");
    edit_accepted(g);
}
END_TEST

START_TEST(vocabulary_must_agree)
{
    struct edit *g = open_model(0);
    if (!g)
        return;
    edit_set_u32(g, "llama.vocab_size", 319);
    edit_refused(g, "token_embd.weight");
    /* One token more than the embedding has rows. */
    g = open_model(0);
    uint32_t many[321] = {0};
    char value[sizeof many + 12];
    memcpy(value, &(uint32_t){GGUF_U32}, 4);
    memcpy(value + 4, &(uint64_t){321}, 8);
    memcpy(value + 12, many, sizeof many);
    edit_set(g, "tokenizer.ggml.tokens", GGUF_ARRAY, value, sizeof value);
    edit_refused(g, "tokenizer.ggml.tokens");
    g = open_model(0);
    edit_remove_key(g, "llama.vocab_size");
    edit_remove_key(g, "tokenizer.ggml.tokens");
    edit_accepted(g);
}
END_TEST

/* ---- What is read ------------------------------------------------------------------------------- */

static struct config read_config(struct edit *g)
{
    char err[512];
    struct config c;
    struct weights *w;
    const char *path = edit_write(g);
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(config_read(&c, w, err, sizeof err) == 0, "%s", err);
    weights_close(w);
    (void)unlink(path);
    edit_free(g);
    return c;
}

START_TEST(golden_hyper_parameters)
{
    struct edit *g = open_model(_i);
    if (!g)
        return;
    struct config c = read_config(g);
    ck_assert_int_eq(c.dim, 64);
    ck_assert_int_eq(c.n_layers, 2);
    ck_assert_int_eq(c.n_heads, 4);
    ck_assert_int_eq(c.n_kv_heads, 2);
    ck_assert_int_eq(c.head_dim, 16);
    ck_assert_int_eq(c.ffn_dim, 160);
    ck_assert_int_eq(c.vocab_size, 320);
    ck_assert_int_eq(c.max_seq_len, 256);
    ck_assert_int_eq(c.rotary_dim, 16);
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_NONE);
    ck_assert_int_eq(c.sliding_window, 0);
    ck_assert(c.arch->rope_pairing == (_i ? ROPE_HALF : ROPE_ADJACENT));
    ck_assert(c.rope.theta == (_i ? 1e6 : 1e4));
    ck_assert(c.norm_eps == (_i ? 1e-6f : 1e-5f));
    ck_assert(c.tied_embeddings == !_i);
}
END_TEST

START_TEST(defaults)
{
    struct edit *g = open_model(0);
    if (!g)
        return;
    static const char *const optional[] = {"llama.attention.head_count_kv", "llama.rope.freq_base",
                                           "llama.attention.key_length",    "llama.attention.value_length",
                                           "llama.rope.dimension_count",    "llama.vocab_size"};
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++)
        edit_remove_key(g, optional[i]);
    edit_set_f32(g, "llama.rope.scaling.factor", 4); /* linear without saying so */
    edit_set_u32(g, "llama.attention.sliding_window", 100);
    struct config c = read_config(g);
    ck_assert_int_eq(c.n_kv_heads, 4);
    ck_assert_int_eq(c.head_dim, 16);
    ck_assert_int_eq(c.rotary_dim, 16);
    ck_assert_int_eq(c.vocab_size, 320);
    ck_assert(c.rope.theta == 10000);
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_LINEAR);
    ck_assert(c.rope.factor == 4);
    ck_assert_int_eq(c.sliding_window, 100);
}
END_TEST

static void set_u32s(struct edit *g, const char *key, const uint32_t *v, size_t n)
{
    edit_set_array(g, key, v, n);
}

START_TEST(windows_per_layer)
{
    struct edit *g = open_model(0);
    if (!g)
        return;
    edit_set_u32(g, "llama.attention.sliding_window", 100);
    struct config c = read_config(g);
    ck_assert(c.sliding_window == 100 && c.windowed[0] && c.windowed[1]);
    g = open_model(0);
    edit_set_u32(g, "llama.attention.sliding_window", 100);
    edit_set_u32(g, "llama.attention.sliding_window_pattern", 2);
    c = read_config(g);
    ck_assert(c.sliding_window == 100 && c.windowed[0] && !c.windowed[1]);
    g = open_model(0);
    edit_set_u32(g, "llama.attention.sliding_window", 100);
    set_u32s(g, "llama.attention.sliding_window_pattern", (uint32_t[]){0, 1}, 2);
    c = read_config(g);
    ck_assert(c.sliding_window == 100 && !c.windowed[0] && c.windowed[1]);
    g = open_model(0); /* as long as the context: none */
    edit_set_u32(g, "llama.attention.sliding_window", 256);
    c = read_config(g);
    ck_assert(c.sliding_window == 0 && !c.windowed[0]);
    g = open_model(0);
    set_u32s(g, "llama.attention.sliding_window_pattern", (uint32_t[]){0, 1, 1}, 3);
    edit_refused(g, "sliding_window_pattern");
    g = open_model(0);
    set_u32s(g, "llama.attention.sliding_window_pattern", (uint32_t[]){0, 7}, 2);
    edit_refused(g, "sliding_window_pattern");
}
END_TEST

static Suite *config_suite(void)
{
    Suite *s = suite_create("model/config");
    TCase *t = tcase_create("config");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, wrong_numbers_are_refused, 0, N_INT_KEYS * N_MODELS);
    tcase_add_loop_test(t, wrong_types_are_refused, 0, N_INT_KEYS * N_MODELS);
    tcase_add_loop_test(t, missing_keys_are_refused, 0, N_MODELS);
    tcase_add_loop_test(t, values_per_layer_must_agree, 0, N_MODELS);
    tcase_add_loop_test(t, context_length_is_checked, 0, N_MODELS);
    tcase_add_loop_test(t, bad_floats_are_refused, 0, sizeof bad_floats / sizeof *bad_floats);
    tcase_add_test(t, architecture_is_checked);
    tcase_add_test(t, experts_are_checked);
    tcase_add_test(t, rope_scaling_types);
    tcase_add_test(t, vocabulary_must_agree);
    tcase_add_loop_test(t, golden_hyper_parameters, 0, N_MODELS);
    tcase_add_test(t, defaults);
    tcase_add_test(t, windows_per_layer);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(config_suite)

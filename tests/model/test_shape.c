/* Made-up models: published shapes have their published sizes, a folder's config.json implies that folder's
 * tensors, and what is filled in computes finite logits. */
#include "model/arch.h"
#include "model/shape.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Published shapes --------------------------------------------------------------------------- */

/* Parameters as the models' pages have them, which count a tied matrix once; ChatGLM-6B's by the paper's
 * dimensions. */
static const struct {
    const char *name;
    int64_t n_params;
    int n_kv_heads, head_dim;
    double theta;
    bool tied;
} published[] = {
    {"llama2-7b", 6738415616, 32, 128, 1e4, false},    {"llama2-13b", 13015864320, 40, 128, 1e4, false},
    {"llama2-70b", 68976648192, 8, 128, 1e4, false},   {"llama3-8b", 8030261248, 8, 128, 5e5, false},
    {"llama3-70b", 70553706496, 8, 128, 5e5, false},   {"llama3.1-8b", 8030261248, 8, 128, 5e5, false},
    {"llama3.2-1b", 1235814400, 8, 64, 5e5, true},     {"llama3.2-3b", 3212749824, 8, 128, 5e5, true},
    {"tinyllama-1.1b", 1100048384, 4, 64, 1e4, false}, {"smollm2-135m", 134515008, 3, 64, 1e5, true},
    {"smollm2-360m", 361821120, 5, 64, 1e5, true},     {"smollm2-1.7b", 1711376384, 32, 64, 1.3e5, true},
    {"mistral-7b", 7248023552, 8, 128, 1e6, false},    {"mixtral-8x7b", 46702792704, 8, 128, 1e6, false},
    {"qwen2.5-0.5b", 494032768, 2, 64, 1e6, true},     {"qwen2.5-1.5b", 1543714304, 2, 128, 1e6, true},
    {"qwen2.5-3b", 3085938688, 2, 128, 1e6, true},     {"qwen2.5-7b", 7615616512, 4, 128, 1e6, false},
    {"qwen2.5-14b", 14770033664, 8, 128, 1e6, false},  {"qwen3-0.6b", 596049920, 8, 128, 1e6, true},
    {"qwen3-1.7b", 1720574976, 8, 128, 1e6, true},     {"qwen3-4b", 4022468096, 8, 128, 1e6, true},
    {"qwen3-8b", 8190735360, 8, 128, 1e6, false},      {"qwen3-30b-a3b", 30532122624, 4, 128, 1e6, false},
    {"phi3-mini", 3821079552, 32, 96, 1e4, false},     {"gemma-2b", 2506172416, 1, 256, 1e4, true},
    {"gemma2-2b", 2614341888, 4, 256, 1e4, true},      {"gemma2-9b", 9241705984, 8, 256, 1e4, true},
    {"gemma3-1b", 999885952, 1, 256, 1e6, true},       {"chatglm-6b", 6707929088, 32, 128, 1e4, false},
    {"chatglm2-6b", 6243584000, 2, 128, 1e4, false},   {"chatglm3-6b", 6243584000, 2, 128, 1e4, false},
    {"glm4-9b", 9399951360, 2, 128, 5e6, false},       {"glm4-9b-0414", 9400279040, 2, 128, 1e4, false},
};

enum { N_PUBLISHED = sizeof published / sizeof *published };

static struct weights *open_shape(const char *name, enum qtype type)
{
    struct weights *w;
    char err[512] = "";
    const struct shape *s = shape_find(name, strlen(name));
    ck_assert_msg(s != NULL, "%s", name);
    const struct shape_options o = {.name = name, .config = s->config, .type = type};
    ck_assert_msg(shape_open(&w, &o, err, sizeof err) == 0, "%s: %s", name, err);
    return w;
}

static int64_t n_elements(const struct weights *w)
{
    int64_t sum = 0;
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        sum += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
    return sum;
}

START_TEST(shapes_are_the_published_ones)
{
    struct weights *w = open_shape(published[_i].name, QTYPE_Q4_0);
    struct config c;
    char err[512];
    ck_assert_msg(config_read(&c, w, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(n_elements(w) == published[_i].n_params, "%s: %lld parameters", published[_i].name,
                  (long long)n_elements(w));
    ck_assert_int_eq(c.n_kv_heads, published[_i].n_kv_heads);
    ck_assert_int_eq(c.head_dim, published[_i].head_dim);
    ck_assert_double_eq_tol(c.rope.theta, published[_i].theta, 1e-6);
    ck_assert_int_eq(c.tied_embeddings, published[_i].tied);
    weights_close(w);
}
END_TEST

/* Loading one would bind every tensor and no other: a plan does so too, without the memory. */
START_TEST(shapes_can_be_planned)
{
    static const enum qtype types[] = {QTYPE_F16, QTYPE_Q4_0, QTYPE_Q4_K, QTYPE_IQ2_XXS};
    const char *name = shapes[_i].name;
    ck_assert_msg(_i < N_PUBLISHED && strcmp(name, published[_i].name) == 0, "%s: untested", name);
    uint64_t before = UINT64_MAX;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct weights *w = open_shape(name, types[i]);
        struct model_plan p;
        char err[512];
        const struct model_options mo = {.ops = ops_cpu(ISA_SCALAR), .n_threads = 1, .rope_scaling = -1};
        const struct cache_options co = {64, 1, QTYPE_F16, QTYPE_F16, 64};
        const struct context_options xo = {1, 1, 64, COMPUTE_FAST, false};
        ck_assert_msg(model_plan(&p, w, &mo, &co, &xo, err, sizeof err) == 0, "%s", err);
        ck_assert_msg(p.weight_bytes > 0 && (i == 2 || p.weight_bytes < before), "%s as %s: %llu bytes", name,
                      qtypes[types[i]].name, (unsigned long long)p.weight_bytes);
        before = p.weight_bytes;
        weights_close(w);
    }
}
END_TEST

START_TEST(matrices_have_the_type)
{
    struct weights *w = open_shape("qwen2.5-0.5b", QTYPE_Q4_K);
    ck_assert_int_eq(weights_find(w, "model.layers.3.mlp.down_proj.weight")->type, QTYPE_Q4_K); /* 4864 */
    ck_assert_int_eq(weights_find(w, "model.layers.3.mlp.up_proj.weight")->type, QTYPE_Q5_0);   /* 896 */
    ck_assert_int_eq(weights_find(w, "model.embed_tokens.weight")->type, QTYPE_Q5_0);
    ck_assert_int_eq(weights_find(w, "model.layers.3.self_attn.q_proj.bias")->type, QTYPE_F32);
    ck_assert_ptr_null(weights_find(w, "lm_head.weight"));
    weights_close(w);
    w = open_shape("mixtral-8x7b", QTYPE_IQ1_S);
    ck_assert_int_eq(weights_find(w, "model.layers.31.block_sparse_moe.gate.weight")->type, QTYPE_F32);
    ck_assert_int_eq(weights_find(w, "model.layers.31.block_sparse_moe.experts.7.w2.weight")->type,
                     QTYPE_IQ1_S);
    ck_assert_int_eq(weights_find(w, "lm_head.weight")->type, QTYPE_IQ1_S);
    weights_close(w);
}
END_TEST

/* ---- The golden folders' ------------------------------------------------------------------------ */

static const char *const folders[] = {"chatglm1",
                                      "chatglm1-ptuning",
                                      "chatglm2",
                                      "chatglm2-ptuning",
                                      "chatglm3-32k",
                                      "gemma",
                                      "gemma2",
                                      "gemma3",
                                      "glm",
                                      "glm4",
                                      "llama",
                                      "llama-gqa-tied",
                                      "llama-tied-twice",
                                      "llama-headdim-bias",
                                      "llama-rope-yarn",
                                      "llama-gptq-2bit",
                                      "mistral-swa",
                                      "mixtral",
                                      "phi3",
                                      "phi3-longrope",
                                      "qwen2",
                                      "qwen3",
                                      "qwen3-moe"};
static const enum qtype folder_types[] = {QTYPE_F32, QTYPE_Q4_1, QTYPE_Q6_K, QTYPE_INT8Z};

enum { N_FOLDERS = sizeof folders / sizeof *folders, N_TYPES = sizeof folder_types / sizeof *folder_types };

static const char *config_of(int folder)
{
    char name[128];
    (void)snprintf(name, sizeof name, "models/%s/config.json", folders[folder]);
    const char *path = test_golden(name);
    if (!path)
        test_skip(folders[folder], "no such golden model");
    return path;
}

static struct model *load(struct weights *w, bool no_repack)
{
    const struct model_options o = {
        .ops = ops_cpu(isa_best()), .n_threads = 1, .no_repack = no_repack, .rope_scaling = -1};
    struct model *m;
    char err[512];
    ck_assert_msg(model_load(&m, w, &o, err, sizeof err) == 0, "%s", err);
    return m;
}

static struct weights *make(const char *config_path, enum qtype type, bool separate)
{
    struct weights *w;
    char err[512];
    const struct shape_options o = {.name = "made", .config_path = config_path, .type = type};
    ck_assert_msg(shape_open(&w, &o, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(shape_fill(w, separate, err, sizeof err) == 0, "%s", err);
    return w;
}

/* Logits of a few tokens, all finite on the way; (vocab_size), malloc'ed. */
static float *eval(const struct model *m)
{
    enum { N = 9 };
    const struct config *c = model_config(m);
    int32_t ids[N];
    struct cache *cache;
    struct context *x;
    const struct cache_options co = {N, 1, QTYPE_F16, QTYPE_F16, N};
    const struct context_options xo = {1, 1, N, COMPUTE_FAST, true};
    const float *logits;
    char err[512];
    make_ids(ids, N, c->vocab_size, 1);
    ck_assert_msg(cache_new(&cache, m, &co, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(context_new(&x, m, cache, &xo, err, sizeof err) == 0, "%s", err);
    const struct batch b = {.n = N, .id = ids};
    ck_assert_msg(context_eval(x, &b, &logits, err, sizeof err) == 0, "%s", err);
    size_t n_bytes = (size_t)c->vocab_size * sizeof *logits;
    float *copy = malloc(n_bytes);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, logits, n_bytes);
    context_free(x);
    cache_free(cache);
    return copy;
}

/* Names and shapes are the folder's, but for what it has fused or quantised; the sizes agree in any case. */
START_TEST(folders_imply_their_tensors)
{
    const char *path = config_of(_i);
    if (!path)
        return;
    struct weights *real, *w = make(path, QTYPE_F32, false);
    char err[512];
    ck_assert_msg(weights_open(&real, path, NULL, err, sizeof err) == 0, "%s", err);
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i), *like = weights_find(real, t->name);
        ck_assert_msg(!like || memcmp(like->dims, t->dims, sizeof t->dims) == 0 || t->n_dims == 1, "%s: %s",
                      folders[_i], t->name);
    }
    struct model *a = load(real, false), *b = load(w, false);
    struct model_memory of_real, of_made;
    model_memory(a, &of_real);
    model_memory(b, &of_made);
    ck_assert_uint_eq(of_made.n_params, of_real.n_params);
    ck_assert_int_eq(model_config(b)->tied_embeddings, model_config(a)->tied_embeddings);
    model_free(a);
    model_free(b);
    weights_close(real);
    weights_close(w);
}
END_TEST

START_TEST(made_models_compute) /* loop over folders × types */
{
    const char *path = config_of(_i / N_TYPES);
    if (!path)
        return;
    struct weights *w = make(path, folder_types[_i % N_TYPES], false);
    struct model *packed = load(w, false), *viewed = load(w, true);
    float *a = eval(packed), *b = eval(viewed);
    int n = model_config(packed)->vocab_size, n_equal = 0;
    ck_assert_mem_eq(a, b, (size_t)n * sizeof *a);
    for (int i = 1; i < n; i++)
        n_equal += a[i] == a[i - 1];
    ck_assert_msg(n_equal < n / 2, "%d of %d logits are equal", n_equal, n);
    free(a);
    free(b);
    model_free(packed);
    model_free(viewed);
    weights_close(w);
}
END_TEST

START_TEST(bytes_are_shared_or_separate)
{
    const char *path = config_of(10);
    if (!path)
        return;
    for (int separate = 0; separate < 2; separate++) {
        struct weights *w = make(path, QTYPE_Q4_0, separate);
        const struct tensor *q = weights_find(w, "model.layers.0.self_attn.q_proj.weight"),
                            *o = weights_find(w, "model.layers.0.self_attn.o_proj.weight"),
                            *norm = weights_find(w, "model.norm.weight");
        ck_assert_int_eq(memcmp(q->data, o->data, q->bytes) != 0, separate);
        ck_assert_uint_eq(weights_file_bytes(w), shape_fill_bytes(w, separate));
        for (int64_t i = 0; i < norm->dims[0]; i++) {
            float v = ((const float *)norm->data)[i];
            ck_assert(v >= 0.8f && v <= 1.2f);
        }
        weights_close(w);
    }
}
END_TEST

/* ---- Hostile configurations --------------------------------------------------------------------- */

#define LLAMA(more)                                                                                          \
    "{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_attention_heads\": 4, \"vocab_size\": 32, " more \
    "}"

static const struct {
    const char *config, *why;
} hostile[] = {
    {"", "JSON"},
    {"{\"model_type\":", "JSON"},
    {"[1]", "model_type"},
    {"{}", "model_type"},
    {"{\"model_type\": 7}", "model_type"},
    {"{\"model_type\": \"bert\"}", "'bert' is not supported"},
    {"{\"model_type\": \"llama\"}", "num_hidden_layers"},
    {LLAMA("\"num_hidden_layers\": -1, \"intermediate_size\": 64"), "num_hidden_layers"},
    {LLAMA("\"num_hidden_layers\": 1e3, \"intermediate_size\": 64"), "num_hidden_layers"},
    {LLAMA("\"num_hidden_layers\": 1, \"intermediate_size\": 99999999999"), "intermediate_size"},
    {LLAMA("\"num_hidden_layers\": 1, \"intermediate_size\": 64, \"num_key_value_heads\": 3"),
     "do not divide"},
    {"{\"model_type\": \"mixtral\", \"hidden_size\": 64, \"num_attention_heads\": 4, \"vocab_size\": 32, "
     "\"num_hidden_layers\": 1024, \"intermediate_size\": 64, \"num_local_experts\": 4096, "
     "\"num_experts_per_tok\": 2}",
     "more than 1048576 tensors"},
    {"{\"model_type\": \"mixtral\", \"hidden_size\": 4194304, \"num_attention_heads\": 4, \"head_dim\": 2, "
     "\"vocab_size\": 67108864, \"num_hidden_layers\": 1024, \"intermediate_size\": 4194304, "
     "\"num_local_experts\": 300, \"num_experts_per_tok\": 2}",
     "larger than any memory"},
};

START_TEST(hostile_configurations_are_refused)
{
    struct weights *w;
    char err[512] = "";
    const struct shape_options o = {.name = "mine:f32", .config = hostile[_i].config, .type = QTYPE_F32};
    ck_assert_int_eq(shape_open(&w, &o, err, sizeof err), -1);
    ck_assert_ptr_null(w);
    ck_assert_msg(strncmp(err, "mine:f32: ", 10) == 0 && strstr(err, hostile[_i].why), "%s", err);
}
END_TEST

/* A size that no machine has, but that is a size: refused when memory is asked for. */
START_TEST(too_large_is_no_memory)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 4194304, \"num_attention_heads\": 256, "
        "\"vocab_size\": 67108864, \"num_hidden_layers\": 2, \"intermediate_size\": 4194304}";
    struct weights *w;
    char err[512] = "";
    const struct shape_options o = {.name = "huge:f32", .config = config, .type = QTYPE_F32};
    ck_assert_msg(shape_open(&w, &o, err, sizeof err) == 0, "%s", err);
    ck_assert_uint_gt(shape_fill_bytes(w, false), (uint64_t)1 << 50);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ /* their malloc ends the program */
    ck_assert_int_eq(shape_fill(w, false, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "not enough memory") != NULL, "%s", err);
#endif
    weights_close(w);
}
END_TEST

START_TEST(names_are_exact)
{
    ck_assert_ptr_null(shape_find("llama2-7", 8));
    ck_assert_ptr_null(shape_find("llama2-7bb", 10));
    ck_assert_ptr_null(shape_find("", 0));
    ck_assert_ptr_eq(shape_find("llama2-7b:q4_0", 9), &shapes[0]);
}
END_TEST

static int n_shapes(void)
{
    int n = 0;
    while (shapes[n].name)
        n++;
    return n;
}

static Suite *shape_suite(void)
{
    Suite *s = suite_create("model/shape");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, shapes_are_the_published_ones, 0, N_PUBLISHED);
    tcase_add_loop_test(t, shapes_can_be_planned, 0, n_shapes());
    tcase_add_test(t, matrices_have_the_type);
    tcase_add_loop_test(t, folders_imply_their_tensors, 0, N_FOLDERS);
    tcase_add_loop_test(t, made_models_compute, 0, N_FOLDERS * N_TYPES);
    tcase_add_test(t, bytes_are_shared_or_separate);
    tcase_add_loop_test(t, hostile_configurations_are_refused, 0, sizeof hostile / sizeof *hostile);
    tcase_add_test(t, too_large_is_no_memory);
    tcase_add_test(t, names_are_exact);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(shape_suite)

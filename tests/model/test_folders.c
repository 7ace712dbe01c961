/* Hugging Face folders that are wrong: every key of config.json with every kind of wrong value, every tensor
 * renamed, of another type or shape. Each ends in one line that names the file, or in a model. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <check.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const models[] = {
    "models/llama-gptq-desc-act", "models/chatglm1-int4",   "models/chatglm2-int8", "models/gemma3",
    "models/qwen3-moe",           "models/llama-rope-yarn", "models/llama-awq",     "models/phi3",
    "models/llama3-rope",         "models/mistral-swa",     "models/glm4",
};
enum {
    N_MODELS = sizeof models / sizeof *models,
    N_CONFIGS = 6 /* the first so many, each of another kind */
};

struct folder {
    char dir[64], config[96], tensors[96];
    json_t *json;
    char *header; /* of the safetensors file, and its bytes */
    uint8_t *data;
    size_t header_len, data_len;
};

static char *read_all(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
    long n = ftell(f);
    ck_assert_int_ge(n, 0);
    rewind(f);
    char *p = malloc((size_t)n + 1);
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(fread(p, 1, (size_t)n, f), (size_t)n);
    (void)fclose(f);
    p[n] = 0;
    *len = (size_t)n;
    return p;
}

static bool folder_open(struct folder *d, const char *model)
{
    char name[128];
    *d = (struct folder){.json = NULL};
    (void)snprintf(name, sizeof name, "%s/config.json", model);
    const char *path = test_golden(name);
    if (!path) {
        test_skip(model, "no such golden model");
        return false;
    }
    d->json = json_load_file(path, 0, NULL);
    ck_assert_ptr_nonnull(d->json);
    (void)snprintf(name, sizeof name, "%s/model.safetensors", model);
    size_t len;
    char *all = read_all(test_golden(name), &len);
    uint64_t n;
    memcpy(&n, all, sizeof n);
    d->header_len = (size_t)n;
    d->data_len = len - 8 - d->header_len;
    d->header = malloc(d->header_len + 1);
    d->data = malloc(d->data_len);
    ck_assert(d->header && d->data);
    memcpy(d->header, all + 8, d->header_len);
    d->header[d->header_len] = 0;
    memcpy(d->data, all + 8 + d->header_len, d->data_len);
    free(all);
    (void)snprintf(d->dir, sizeof d->dir, "/tmp/quoll-test-folder-%ld", (long)getpid());
    (void)snprintf(d->config, sizeof d->config, "%s/config.json", d->dir);
    (void)snprintf(d->tensors, sizeof d->tensors, "%s/model.safetensors", d->dir);
    ck_assert(mkdir(d->dir, 0700) == 0);
    return true;
}

static void write_config(const struct folder *d, json_t *config)
{
    ck_assert_int_eq(json_dump_file(config, d->config, JSON_COMPACT), 0);
}

static void write_tensors(const struct folder *d, const char *header)
{
    FILE *f = fopen(d->tensors, "wb");
    uint64_t n = strlen(header);
    ck_assert_ptr_nonnull(f);
    ck_assert(fwrite(&n, sizeof n, 1, f) == 1 && fwrite(header, 1, n, f) == n &&
              fwrite(d->data, 1, d->data_len, f) == d->data_len && fclose(f) == 0);
}

static void folder_close(struct folder *d)
{
    (void)unlink(d->config);
    (void)unlink(d->tensors);
    (void)rmdir(d->dir);
    json_decref(d->json);
    free(d->header);
    free(d->data);
}

/* Loads it, and where it loads evaluates a little: nothing may crash. */
static int attempt(const struct folder *d, const char *what)
{
    char err[512] = "";
    struct weights *w;
    struct model *m = NULL;
    const struct model_options o = {.ops = ops_cpu(ISA_SCALAR), .n_threads = 1, .rope_scaling = -1};
    int rc = weights_open(&w, d->dir, NULL, err, sizeof err);
    if (rc == 0) {
        rc = model_load(&m, w, &o, err, sizeof err);
        weights_close(w);
    }
    if (rc) {
        ck_assert_msg(strncmp(err, d->dir, strlen(d->dir)) == 0, "%s: '%s' names no file", what, err);
        ck_assert_msg(strchr(err, '\n') == NULL && strlen(err) > strlen(d->dir) + 2, "%s: '%s'", what, err);
        return rc;
    }
    struct cache *c;
    struct context *x;
    const int32_t id[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const struct cache_options co = {32, 1, QTYPE_F32, QTYPE_F32, 8};
    const struct context_options xo = {1, 1, 8, COMPUTE_FAST, false};
    if (cache_new(&c, m, &co, err, sizeof err) == 0) {
        if (context_new(&x, m, c, &xo, err, sizeof err) == 0) {
            (void)context_eval(x, &(struct batch){.n = 12, .id = id}, NULL, err, sizeof err);
            context_free(x);
        }
        cache_free(c);
    }
    model_free(m);
    return 0;
}

/* Values that are wrong for nearly every key. */
static json_t *wrong_value(int i)
{
    switch (i) {
    case 0:
        return json_integer(-1);
    case 1:
        return json_integer(0);
    case 2:
        return json_integer(3);
    case 3:
        return json_integer(INT32_MAX);
    case 4:
        return json_integer(INT64_MAX);
    case 5:
        return json_string("x");
    case 6:
        return json_pack("[i, s]", 1, "x");
    case 7:
        return json_real(1e300);
    case 8:
        return json_object();
    default:
        return json_null();
    }
}
enum { N_WRONG = 10 };

START_TEST(wrong_configurations) /* loop over models × values */
{
    struct folder d;
    if (!folder_open(&d, models[_i / N_WRONG]))
        return;
    write_tensors(&d, d.header);
    const char *key;
    json_t *value;
    json_object_foreach(d.json, key, value)
    {
        json_t *changed = json_deep_copy(d.json);
        ck_assert_int_eq(json_object_set_new(changed, key, wrong_value(_i % N_WRONG)), 0);
        write_config(&d, changed);
        (void)attempt(&d, key);
        json_decref(changed);
        /* … and inside rope_scaling, quantization_config, … */
        const char *inner;
        json_t *ignored;
        json_object_foreach(value, inner, ignored)
        {
            changed = json_deep_copy(d.json);
            ck_assert_int_eq(
                json_object_set_new(json_object_get(changed, key), inner, wrong_value(_i % N_WRONG)), 0);
            write_config(&d, changed);
            (void)attempt(&d, inner);
            json_decref(changed);
        }
    }
    folder_close(&d);
}
END_TEST

START_TEST(wrong_tensors) /* loop over models */
{
    struct folder d;
    if (!folder_open(&d, models[_i]))
        return;
    write_config(&d, d.json);
    write_tensors(&d, d.header);
    ck_assert_int_eq(attempt(&d, "as it is"), 0);
    json_t *header = json_loads(d.header, 0, NULL);
    ck_assert_ptr_nonnull(header);
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        for (int kind = 0; kind < 4; kind++) {
            json_t *changed = json_deep_copy(header), *t = json_object_get(changed, name);
            json_t *shape = json_object_get(t, "shape");
            bool ignored = strstr(name, "inv_freq") != NULL;
            switch (kind) {
            case 0: /* under another name */
                ck_assert_int_eq(json_object_set(changed, "other.weight", t), 0);
                ck_assert_int_eq(json_object_del(changed, name), 0);
                ignored = false;
                break;
            case 1: /* missing; an output matrix may be the embedding, an act-order the plain one */
                ck_assert_int_eq(json_object_del(changed, name), 0);
                ignored |= strcmp(name, "lm_head.weight") == 0 || strstr(name, ".g_idx") != NULL;
                break;
            case 2: /* a row of all elements */
            {
                json_int_t n = 1;
                size_t i;
                json_t *v;
                json_array_foreach(shape, i, v) n *= json_integer_value(v);
                ignored |= json_array_size(shape) == 1;
                (void)json_object_set_new(t, "shape", json_pack("[I]", n));
            } break;
            default: /* integers of the same size */
            {
                const char *dtype = json_string_value(json_object_get(t, "dtype"));
                bool two = strcmp(dtype, "F16") == 0 || strcmp(dtype, "BF16") == 0;
                if (!two && strcmp(dtype, "F32") != 0)
                    ignored = true;
                else
                    (void)json_object_set_new(t, "dtype", json_string(two ? "I16" : "I32"));
            }
            }
            char *text = json_dumps(changed, JSON_COMPACT), what[256];
            (void)snprintf(what, sizeof what, "%s, change %d", name, kind);
            write_tensors(&d, text);
            int rc = attempt(&d, what);
            if (!ignored)
                ck_assert_msg(rc == -1, "%s: loaded", what);
            free(text);
            json_decref(changed);
        }
    }
    json_decref(header);
    folder_close(&d);
}
END_TEST

/* Bytes of the tensors themselves: scales that are infinite, groups and orders out of range. */
START_TEST(wrong_bytes) /* loop over models */
{
    struct folder d;
    if (!folder_open(&d, models[_i]))
        return;
    write_config(&d, d.json);
    uint32_t state = (uint32_t)_i + 1;
    for (int k = 0; k < 40; k++) {
        uint8_t kept[64];
        state = state * 1664525u + 1013904223u;
        size_t at = (size_t)(((uint64_t)state * (d.data_len - sizeof kept)) >> 32);
        memcpy(kept, d.data + at, sizeof kept);
        memset(d.data + at, k % 3 == 0 ? 0xff : k % 3 == 1 ? 0x7c : 0x80, sizeof kept);
        write_tensors(&d, d.header);
        (void)attempt(&d, "bytes");
        memcpy(d.data + at, kept, sizeof kept);
    }
    folder_close(&d);
}
END_TEST

/* ---- Meta's own checkpoints --------------------------------------------------------------------- */

/* A GGUF's rows are in Meta's order: under Meta's names, with a params.json, they give the same bits. */
START_TEST(meta_names)
{
    static const char *const names[][2] = {
        {"token_embd.weight", "tok_embeddings.weight"},
        {"output_norm.weight", "norm.weight"},
        {"output.weight", "output.weight"},
        {"attn_norm.weight", "attention_norm.weight"},
        {"attn_q.weight", "attention.wq.weight"},
        {"attn_k.weight", "attention.wk.weight"},
        {"attn_v.weight", "attention.wv.weight"},
        {"attn_output.weight", "attention.wo.weight"},
        {"ffn_norm.weight", "ffn_norm.weight"},
        {"ffn_gate.weight", "feed_forward.w1.weight"},
        {"ffn_down.weight", "feed_forward.w2.weight"},
        {"ffn_up.weight", "feed_forward.w3.weight"},
    };
    const char *found = test_golden("gguf/llama-f32/model.gguf");
    if (!found) {
        test_skip("gguf/llama-f32", "no such golden model");
        return;
    }
    char err[512] = "", path[1024], dir[64], file[96], params[96], text[64][64];
    struct save_tensor t[64];
    struct config c;
    struct weights *w;
    (void)snprintf(path, sizeof path, "%s", found);
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(config_read(&c, w, err, sizeof err) == 0, "%s", err);
    size_t n = weights_n_tensors(w);
    ck_assert_uint_le(n, 64);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *from = weights_tensor(w, i);
        int layer = 0;
        bool in_layer = sscanf(from->name, "blk.%d.", &layer) == 1;
        const char *rest = in_layer ? strchr(from->name + 4, '.') + 1 : from->name;
        size_t k = 0;
        while (k < sizeof names / sizeof *names && strcmp(names[k][0], rest) != 0)
            k++;
        ck_assert_msg(k < sizeof names / sizeof *names, "%s", from->name);
        if (in_layer)
            (void)snprintf(text[i], sizeof text[i], "layers.%d.%s", layer, names[k][1]);
        else
            (void)snprintf(text[i], sizeof text[i], "%s", names[k][1]);
        t[i] = (struct save_tensor){text[i], from->type, from->n_dims, {from->dims[0]}, from->data};
        if (from->n_dims == 2) {
            t[i].dims[0] = from->dims[1];
            t[i].dims[1] = from->dims[0];
        }
    }
    (void)snprintf(dir, sizeof dir, "/tmp/quoll-test-meta-%ld", (long)getpid());
    (void)snprintf(file, sizeof file, "%s/consolidated.safetensors", dir);
    (void)snprintf(params, sizeof params, "%s/params.json", dir);
    ck_assert(mkdir(dir, 0700) == 0);
    ck_assert_msg(weights_save_safetensors(file, t, n, err, sizeof err) == 0, "%s", err);
    json_t *json =
        json_pack("{s:i, s:i, s:i, s:i, s:f, s:i}", "dim", c.dim, "n_layers", c.n_layers, "n_heads",
                  c.n_heads, "n_kv_heads", c.n_kv_heads, "norm_eps", (double)c.norm_eps, "vocab_size", -1);
    ck_assert_int_eq(json_dump_file(json, params, 0), 0);
    json_decref(json);
    weights_close(w);

    enum { N = 20 };
    int32_t id[N];
    float *logits[2];
    const char *const paths[] = {path, dir};
    for (int i = 0; i < 2; i++) {
        struct fixture f = fixture_open(paths[i], &plain);
        make_ids(id, N, f.vocab_size, 3);
        logits[i] = malloc((size_t)N * (size_t)f.vocab_size * sizeof(float));
        ck_assert_ptr_nonnull(logits[i]);
        fixture_eval(&f, 0, id, N, logits[i]);
        fixture_close(&f);
    }
    ck_assert_mem_eq(logits[0], logits[1], (size_t)N * (size_t)c.vocab_size * sizeof(float));
    free(logits[0]);
    free(logits[1]);
    (void)unlink(file);
    (void)unlink(params);
    (void)rmdir(dir);
}
END_TEST

static Suite *folders_suite(void)
{
    Suite *s = suite_create("model/folders");
    TCase *t = tcase_create("folders");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong_configurations, 0, N_CONFIGS * N_WRONG);
    tcase_add_loop_test(t, wrong_tensors, 0, N_MODELS);
    tcase_add_loop_test(t, wrong_bytes, 0, N_MODELS);
    tcase_add_test(t, meta_names);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(folders_suite)

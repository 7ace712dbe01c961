/* The forward pass: golden logits, and the same bits for every setting. */
#include "tests/model/fixture.h"
#include "tests/model/gguf_edit.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Golden models: whole architectures, every kind of file, and one for every quantised type. */
static const char *const plain_models[] = {
    "gguf/llama-f32",
    "gguf/llama-f16",
    "gguf/llama-bf16",
    "gguf/qwen2-f32",
    "gguf/qwen2-f16",
    "gguf/qwen3-f32",
    "gguf/qwen3-f16",
    "gguf/gemma3-f32",
    "gguf/gemma3-f16",
    "models/llama",
    "models/llama-gqa-tied",
    "models/llama-headdim-bias",
    "models/llama-rope-dynamic",
    "models/llama-rope-linear",
    "models/llama-rope-yarn",
    "models/llama3-rope",
    "models/llama-sharded",
    "models/llama-awq",
    "models/llama-gptq",
    "models/llama-gptq-desc-act",
    "models/mistral-swa",
    "models/mixtral",
    "models/qwen2",
    "models/qwen3",
    "models/qwen3-moe",
    "models/phi3",
    "models/gemma",
    "models/gemma3",
    "models/chatglm1",
    "models/chatglm1-int4",
    "models/chatglm1-int8",
    "models/chatglm2",
    "models/chatglm2-int4",
    "models/chatglm2-int8",
    "models/chatglm3",
    "models/glm",
    "models/glm4",
    "llama2c/tied-mha",
    "llama2c/untied-gqa",
};

enum {
    N_PLAIN = sizeof plain_models / sizeof *plain_models,
    N_MODELS = N_PLAIN + QTYPE_N_MATRIX - QTYPE_Q4_0,
};

static const char *model_name(int i)
{
    static char name[64];
    if (i < N_PLAIN)
        return plain_models[i];
    (void)snprintf(name, sizeof name, "gguf/quant-%s", qtypes[QTYPE_Q4_0 + i - N_PLAIN].name);
    return name;
}

/* Those that are there: loop tests run over them. */
static int models[N_MODELS], n_models;

static const char *golden_file(const char *name, const char *file)
{
    char full[128];
    (void)snprintf(full, sizeof full, "%s/%s", name, file);
    return test_golden(full);
}

/* What weights_open takes: a folder, or the file in it. */
static const char *golden_model(const char *name)
{
    const char *path = golden_file(name, "model.gguf");
    if (!path)
        path = golden_file(name, "model.bin");
    return path ? path : golden_file(name, "config.json");
}

static void find_models(void)
{
    char missing[1024] = "";
    n_models = 0;
    for (int i = 0; i < N_MODELS; i++)
        if (golden_model(model_name(i)) && golden_file(model_name(i), "expected.safetensors")) {
            models[n_models++] = i;
        } else if (i < N_PLAIN || qtypes[QTYPE_Q4_0 + i - N_PLAIN].gguf_id >= 0) {
            size_t at = strlen(missing);
            (void)snprintf(missing + at, sizeof missing - at, " %s", model_name(i));
        }
    if (missing[0])
        test_skip("golden models", missing + 1);
}

static void *new_floats(int64_t n)
{
    void *p = malloc((size_t)n * sizeof(float));
    ck_assert_ptr_nonnull(p);
    return p;
}

static double max_error(const float *a, const float *b, int64_t n)
{
    double max = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= max))
            max = d;
    }
    return max;
}

/* ---- Golden values ------------------------------------------------------------------------------ */

static void check_golden(const char *what, const char *model_path, const struct expected *e, enum isa isa,
                         int n_greedy, double tolerance)
{
    struct setting s = plain;
    s.isa = isa;
    struct fixture f = fixture_open(model_path, &s);
    float *logits = new_floats((int64_t)e->n * f.vocab_size);
    int32_t greedy[64];
    ck_assert(n_greedy <= e->n_greedy && n_greedy <= 64);
    fixture_eval(&f, 0, e->ids, e->n, logits);
    const float *tail = logits + (int64_t)(e->n - e->n_logits) * f.vocab_size;
    double error = max_error(tail, e->logits, (int64_t)e->n_logits * f.vocab_size);
    ck_assert_msg(error <= tolerance, "%s, %s: largest error of a logit %g", what, isa_name(isa), error);
    fixture_greedy(&f, logits + (int64_t)(e->n - 1) * f.vocab_size, e->ids, e->n, greedy, n_greedy);
    for (int i = 0; i < n_greedy; i++)
        ck_assert_msg(greedy[i] == e->greedy[i], "%s, %s: greedy token %d is %d, not %d", what, isa_name(isa),
                      i, greedy[i], e->greedy[i]);
    free(logits);
    fixture_close(&f);
}

START_TEST(golden_logits) /* loop over models */
{
    const int model = models[_i];
    struct expected e = expected_open(golden_file(model_name(model), "expected.safetensors"));
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++)
        if (isa_supported(isa))
            check_golden(model_name(model), golden_model(model_name(model)), &e, isa, e.n_greedy, 1e-3);
    weights_close(e.w);
}
END_TEST

/* Published models, where they are; the default one under the name it is fetched by, too. */
static const struct {
    const char *golden, *file, *other;
} real_models[] = {
    {"real/smollm2-135m-q4_1", "smollm2-135m-q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"real/qwen-0.5b", "qwen-0.5b.gguf", NULL},
    {"real/gemma3-270m-q4_k_m", "gemma3-270m-q4_k_m.gguf", NULL},
};

enum { N_REAL = sizeof real_models / sizeof *real_models };

/* With sanitizers a real model takes minutes; the tiny ones have been everywhere it goes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD true
#elif defined(__has_feature)
#define SLOW_BUILD (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SLOW_BUILD false
#endif

START_TEST(golden_real) /* loop over real models */
{
    char golden[128], model[1024];
    (void)snprintf(golden, sizeof golden, "%s/expected.safetensors", real_models[_i].golden);
    const char *path = test_model(real_models[_i].file);
    if (!path && real_models[_i].other)
        path = test_model(real_models[_i].other);
    if (!path) {
        test_skip(real_models[_i].file, "no such model");
        return;
    }
    (void)snprintf(model, sizeof model, "%s", path);
    path = test_golden(golden);
    if (!path) {
        test_skip(golden, "no such golden file");
        return;
    }
    struct expected e = expected_open(path);
    check_golden(real_models[_i].file, model, &e, isa_best(), SLOW_BUILD ? 2 : e.n_greedy, 2e-2);

    /* The other levels: the same bits, on fewer tokens. */
    const int n = SLOW_BUILD ? 1 : 5;
    float *ref = NULL;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        struct setting s = plain;
        s.isa = isa;
        s.compute = COMPUTE_FAST;
        s.kv_type = QTYPE_F16;
        struct fixture f = fixture_open(model, &s);
        float *got = new_floats((int64_t)n * f.vocab_size);
        fixture_eval(&f, 0, e.ids, n, got);
        if (ref)
            ck_assert_msg(memcmp(ref, got, (size_t)(n * f.vocab_size) * sizeof *got) == 0, "%s: %s",
                          real_models[_i].file, isa_name(isa));
        free(ref);
        ref = got;
        fixture_close(&f);
    }
    free(ref);
    weights_close(e.w);
}
END_TEST

/* ---- The same bits ------------------------------------------------------------------------------ */

enum { N_LEVEL_TOKENS = 70, N_TOKENS = 150, N_PREFIX = 77, N_BRANCH = 40 };

START_TEST(levels_have_the_same_bits) /* loop over models × compute */
{
    const int model = models[_i / 2];
    struct setting s = plain;
    s.compute = _i % 2 ? COMPUTE_F32 : COMPUTE_FAST;
    s.kv_type = _i % 2 ? QTYPE_F32 : QTYPE_F16;
    int32_t id[N_LEVEL_TOKENS];
    float *ref = NULL;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        s.isa = isa;
        struct fixture f = fixture_open(golden_model(model_name(model)), &s);
        make_ids(id, N_LEVEL_TOKENS, f.vocab_size, 1);
        float *got = new_floats((int64_t)N_LEVEL_TOKENS * f.vocab_size);
        fixture_eval(&f, 0, id, N_LEVEL_TOKENS, got);
        if (ref) {
            ck_assert_msg(memcmp(ref, got, (size_t)(N_LEVEL_TOKENS * f.vocab_size) * sizeof *got) == 0,
                          "%s: %s differs from scalar", model_name(model), isa_name(isa));
            free(got);
        } else {
            ref = got;
        }
        fixture_close(&f);
    }
    free(ref);
}
END_TEST

/* Settings that must not change a bit, on models of every kind of weight, cache and layer. */
static const struct {
    const char *model;
    enum compute compute;
    enum qtype kv_type;
    bool no_prefix; /* a text's parts cannot be reused: a window, or RoPE that depends on its length */
} cases[] = {
    {"gguf/llama-f32", COMPUTE_FAST, QTYPE_F32, false},
    {"gguf/llama-f16", COMPUTE_FAST, QTYPE_F16, false},
    {"gguf/llama-bf16", COMPUTE_FAST, QTYPE_F16, false},
    {"gguf/qwen2-f16", COMPUTE_F32, QTYPE_F32, false},
    {"gguf/quant-q4_0", COMPUTE_FAST, QTYPE_Q8_0, false},
    {"gguf/quant-q4_0", COMPUTE_F32, QTYPE_Q4_0, false},
    {"gguf/quant-q4_1", COMPUTE_FAST, QTYPE_F16, false},
    {"gguf/quant-q4_1", COMPUTE_F32, QTYPE_F32, false},
    {"gguf/quant-q2_k", COMPUTE_FAST, QTYPE_F16, false},
    {"gguf/quant-q6_k", COMPUTE_F32, QTYPE_F16, false},
    {"gguf/quant-iq4_xs", COMPUTE_FAST, QTYPE_Q4_0, false},
    {"models/chatglm1-int4", COMPUTE_FAST, QTYPE_F16, true}, /* a BOS among its ids ends a prefix */
    {"models/chatglm2-int4", COMPUTE_FAST, QTYPE_Q8_0, false},
    {"models/llama-gptq-desc-act", COMPUTE_FAST, QTYPE_F16, false},
    {"models/llama-awq", COMPUTE_F32, QTYPE_F32, false},
    {"models/mixtral", COMPUTE_FAST, QTYPE_F16, false},
    {"models/qwen3-moe", COMPUTE_F32, QTYPE_F16, false},
    {"models/glm4", COMPUTE_FAST, QTYPE_F16, false},
    {"models/mistral-swa", COMPUTE_FAST, QTYPE_F16, true},
    {"models/gemma3", COMPUTE_F32, QTYPE_F16, true},
    {"models/llama-rope-dynamic", COMPUTE_F32, QTYPE_F32, true},
};

enum { N_CASES = sizeof cases / sizeof *cases };

struct same {
    struct setting s;
    struct fixture f;
    int32_t id[N_TOKENS];
    float *ref, *got;
};

static bool same_open(struct same *t, int i)
{
    const char *path = golden_model(cases[i].model);
    if (!path) {
        test_skip(cases[i].model, "no such golden model");
        return false;
    }
    t->s = plain;
    t->s.isa = isa_best();
    t->s.compute = cases[i].compute;
    t->s.kv_type = cases[i].kv_type;
    t->s.n_seqs = 2;
    t->s.n_ctx = 2 * N_TOKENS;
    t->f = fixture_open(path, &t->s);
    make_ids(t->id, N_TOKENS, t->f.vocab_size, 2);
    t->ref = new_floats((int64_t)N_TOKENS * t->f.vocab_size);
    t->got = new_floats((int64_t)N_TOKENS * t->f.vocab_size);
    fixture_eval(&t->f, 0, t->id, N_TOKENS, t->ref);
    return true;
}

static void same_close(struct same *t)
{
    free(t->ref);
    free(t->got);
    fixture_close(&t->f);
}

/* Rows of got are those of ref from token `from` on. */
static void check_same(const struct same *t, int from, int n, const char *what)
{
    size_t row = (size_t)t->f.vocab_size * sizeof *t->ref;
    for (int i = 0; i < n; i++)
        ck_assert_msg(
            memcmp((char *)t->got + (size_t)i * row, (char *)t->ref + (size_t)(from + i) * row, row) == 0,
            "%s: token %d differs", what, from + i);
}

START_TEST(threads_and_slices_change_no_bit)
{
    static const struct {
        int n_threads, max_batch;
    } settings[] = {{1, 1}, {1, 64}, {2, 7}, {2, 512}, {3, 64}};
    struct same t;
    if (!same_open(&t, _i))
        return;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        struct setting s = t.s;
        s.n_threads = settings[i].n_threads;
        s.max_batch = settings[i].max_batch;
        fixture_set(&t.f, &s);
        fixture_eval(&t.f, 0, t.id, N_TOKENS, t.got);
        char what[64];
        (void)snprintf(what, sizeof what, "%d threads, slices of %d", s.n_threads, s.max_batch);
        check_same(&t, 0, N_TOKENS, what);
    }
    same_close(&t);
}
END_TEST

START_TEST(reused_prefix_changes_no_bit)
{
    struct same t;
    if (cases[_i].no_prefix || !same_open(&t, _i))
        return;
    int32_t other[N_BRANCH];
    make_ids(other, N_BRANCH, t.f.vocab_size, 3);
    /* Two sequences share a prefix that ends inside a page; each goes its own way. */
    ck_assert_int_eq(cache_copy_prefix(t.f.cache, 1, 0, N_PREFIX), 0);
    ck_assert_int_eq(cache_truncate(t.f.cache, 0, N_PREFIX), N_PREFIX);
    fixture_eval(&t.f, 0, other, N_BRANCH, NULL);
    fixture_eval(&t.f, 1, t.id + N_PREFIX, N_TOKENS - N_PREFIX, t.got);
    check_same(&t, N_PREFIX, N_TOKENS - N_PREFIX, "copied prefix");
    /* Back to the prefix, whose page was copied on the first write. */
    ck_assert_int_eq(cache_truncate(t.f.cache, 0, N_PREFIX), N_PREFIX);
    fixture_eval(&t.f, 0, t.id + N_PREFIX, N_TOKENS - N_PREFIX, t.got);
    check_same(&t, N_PREFIX, N_TOKENS - N_PREFIX, "truncated");
    /* Token by token from the start, in pages that held something else. */
    cache_drop(t.f.cache, 0);
    cache_drop(t.f.cache, 1);
    for (int i = 0; i < N_TOKENS; i++)
        fixture_eval(&t.f, 0, &t.id[i], 1, t.got + (int64_t)i * t.f.vocab_size);
    check_same(&t, 0, N_TOKENS, "one at a time");
    same_close(&t);
}
END_TEST

START_TEST(neighbours_change_no_bit)
{
    struct same t;
    if (!same_open(&t, _i))
        return;
    cache_drop(t.f.cache, 0);
    /* Sequence 1 is the one compared; sequence 0's tokens, fewer, stand between its own. */
    enum { N_OTHER = 90, N_BOTH = N_TOKENS + N_OTHER };
    int32_t other[N_OTHER], id[N_BOTH], seq[N_BOTH];
    int64_t pos[N_BOTH];
    uint8_t want[N_BOTH];
    make_ids(other, N_OTHER, t.f.vocab_size, 4);
    int n = 0;
    for (int i = 0; i < N_TOKENS; i++) {
        if (i % 5 < 3 && n - i < N_OTHER) {
            id[n] = other[n - i];
            pos[n] = n - i;
            seq[n] = 0;
            want[n] = 0;
            n++;
        }
        id[n] = t.id[i];
        pos[n] = i;
        seq[n] = 1;
        want[n] = i % 3 == 0;
        n++;
    }
    char err[256];
    const float *logits;
    struct batch b = {.n = n, .id = id, .seq = seq, .pos = pos, .want_logits = want};
    ck_assert_msg(context_eval(t.f.context, &b, &logits, err, sizeof err) == 0, "%s", err);
    size_t row = (size_t)t.f.vocab_size;
    for (int i = 0; i < N_TOKENS; i += 3, logits += row)
        ck_assert_msg(memcmp(logits, t.ref + (size_t)i * row, row * sizeof *logits) == 0, "token %d differs",
                      i);
    same_close(&t);
}
END_TEST

START_TEST(file_layout_has_the_same_bits)
{
    struct same t;
    if (!same_open(&t, _i))
        return;
    if (!ops_cpu(t.s.isa)->packed_view) {
        same_close(&t);
        return;
    }
    struct model_options o = {.ops = ops_cpu(t.s.isa), .n_threads = 1, .rope_scaling = -1, .no_repack = true};
    t.s.n_threads = 2;
    fixture_reload(&t.f, &o, &t.s);
    fixture_eval(&t.f, 0, t.id, N_TOKENS, t.got);
    check_same(&t, 0, N_TOKENS, "not repacked");
    same_close(&t);
}
END_TEST

/* ---- Texts that are more than their tokens one after the other ---------------------------------- */

START_TEST(window_slides)
{
    const char *path = golden_model("models/mistral-swa");
    if (!path) {
        test_skip("models/mistral-swa", "no such golden model");
        return;
    }
    struct setting s = plain;
    struct fixture f = fixture_open(path, &s);
    enum { N = 210 };
    int32_t id[N];
    make_ids(id, N, f.vocab_size, 5);
    float *ref = new_floats((int64_t)N * f.vocab_size), *got = new_floats((int64_t)N * f.vocab_size);
    fixture_eval(&f, 0, id, N, ref);
    uint64_t whole = cache_bytes(f.cache);

    /* A window of 8 and slices of 4 need few pages; token by token the bits are the same. */
    s.max_batch = 4;
    s.n_ctx = 100000;
    fixture_set(&f, &s);
    ck_assert_uint_lt(cache_bytes(f.cache), whole);
    fixture_eval(&f, 0, id, 150, got);
    for (int i = 150; i < N; i++)
        fixture_eval(&f, 0, &id[i], 1, got + (int64_t)i * f.vocab_size);
    ck_assert_mem_eq(ref, got, (size_t)N * (size_t)f.vocab_size * sizeof *ref);

    /* Back within what is held: the rest is the same again. Further back: from the start. */
    ck_assert_int_eq(cache_truncate(f.cache, 0, N - 3), N - 3);
    fixture_eval(&f, 0, &id[N - 3], 3, got);
    ck_assert_mem_eq(ref + (int64_t)(N - 3) * f.vocab_size, got, 3 * (size_t)f.vocab_size * sizeof *ref);
    ck_assert_int_eq(cache_reuse(f.cache, 0, 20, N), 0);
    fixture_eval(&f, 0, id, N, got);
    ck_assert_mem_eq(ref, got, (size_t)N * (size_t)f.vocab_size * sizeof *ref);
    free(ref);
    free(got);
    fixture_close(&f);
}
END_TEST

/* ChatGLM-6B's other golden prompts: one that ends with BOS, and a MASK inside instead of gMASK. Slices must
 * not cut the prefix, and two sequences in one batch have each their own. */
START_TEST(prefixes_see_both_ways)
{
    const char *path = golden_model("models/chatglm1");
    if (!path) {
        test_skip("models/chatglm1", "no such golden model");
        return;
    }
    char err[256];
    struct weights *w;
    ck_assert_msg(
        weights_open(&w, golden_file("models/chatglm1", "expected.safetensors"), NULL, err, sizeof err) == 0,
        "%s", err);
    static const char *const kinds[] = {"chat", "mask"};
    struct setting s = plain;
    s.max_batch = 5;
    s.n_seqs = 2;
    struct fixture f = fixture_open(golden_model("models/chatglm1"), &s);
    int32_t id[256], seq[256];
    uint8_t want[256];
    int n = 0;
    const struct tensor *ids[2], *logits[2];
    for (int k = 0; k < 2; k++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%s.input_ids", kinds[k]);
        ids[k] = weights_find(w, name);
        (void)snprintf(name, sizeof name, "%s.logits", kinds[k]);
        logits[k] = weights_find(w, name);
        ck_assert(ids[k] && logits[k]);
        float *got = new_floats(ids[k]->dims[0] * f.vocab_size);
        cache_drop(f.cache, 0);
        fixture_eval(&f, 0, ids[k]->data, (int)ids[k]->dims[0], got);
        ck_assert_double_le(max_error(got, logits[k]->data, ids[k]->dims[0] * f.vocab_size), 1e-4);
        free(got);
    }
    /* Both at once, tokens in turn. */
    cache_drop(f.cache, 0);
    for (int i = 0; i < ids[0]->dims[0] || i < ids[1]->dims[0]; i++)
        for (int k = 0; k < 2; k++)
            if (i < ids[k]->dims[0]) {
                memcpy(&id[n], (const int32_t *)ids[k]->data + i, sizeof *id);
                seq[n] = k;
                want[n++] = 1;
            }
    const float *row;
    struct batch b = {.n = n, .id = id, .seq = seq, .want_logits = want};
    ck_assert_msg(context_eval(f.context, &b, &row, err, sizeof err) == 0, "%s", err);
    int at[2] = {0, 0};
    for (int i = 0; i < n; i++, row += f.vocab_size) {
        const float *expected = (const float *)logits[seq[i]]->data + (int64_t)at[seq[i]]++ * f.vocab_size;
        ck_assert_double_le(max_error(row, expected, f.vocab_size), 1e-4);
    }
    /* A prefix that would be cut is evaluated again; what follows it need not be. */
    int64_t len = cache_len(f.cache, 1);
    ck_assert_int_eq(cache_truncate(f.cache, 1, len - 2), len - 2);
    ck_assert_int_eq(cache_truncate(f.cache, 1, 5), 0);
    fixture_close(&f);
    weights_close(w);
}
END_TEST

/* Dynamic RoPE: a text below the original length has the plain base, and what was evaluated for one length
 * is not reused for another. */
START_TEST(length_decides_the_frequencies)
{
    const char *path = golden_model("models/llama-rope-dynamic");
    if (!path) {
        test_skip("models/llama-rope-dynamic", "no such golden model");
        return;
    }
    struct fixture f = fixture_open(path, &plain);
    char err[256];
    struct weights *w;
    path = golden_file("models/llama-rope-dynamic", "expected.safetensors");
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    const struct tensor *ids = weights_find(w, "short.input_ids"), *logits = weights_find(w, "short.logits");
    ck_assert(ids && logits);
    int n = (int)ids->dims[0];
    float *got = new_floats((int64_t)n * f.vocab_size);
    fixture_eval(&f, 0, ids->data, n, got);
    ck_assert_double_le(max_error(got, logits->data, (int64_t)n * f.vocab_size), 1e-4);
    ck_assert_int_eq(cache_reuse(f.cache, 0, n, 16), n);
    ck_assert_int_eq(cache_reuse(f.cache, 0, n, 17), 0);
    free(got);
    weights_close(w);
    fixture_close(&f);
}
END_TEST

/* ---- --check-finite ----------------------------------------------------------------------------- */

static const struct {
    const char *tensor, *message; /* NaN in the tensor; NULL: none */
} poisons[] = {
    {NULL, NULL},
    {"blk.0.attn_norm.weight", "layer 0, attention norm: a value is not finite"},
    {"blk.1.attn_norm.weight", "layer 1, attention norm: a value is not finite"},
    {"blk.1.attn_k.bias", "layer 1, key: a value is not finite"},
    {"blk.0.attn_v.bias", "layer 0, value: a value is not finite"},
    {"blk.1.ffn_norm.weight", "layer 1, FFN norm: a value is not finite"},
    {"output_norm.weight", "output norm: a value is not finite"},
};

START_TEST(first_value_not_finite_is_named)
{
    const char *path = test_golden("gguf/qwen2-f16/model.gguf");
    if (!path) {
        test_skip("gguf/qwen2-f16", "no such golden file");
        return;
    }
    struct edit *g = edit_read(path);
    if (poisons[_i].tensor)
        ((float *)edit_find(g, poisons[_i].tensor)->data)[1] = NAN;
    path = edit_write(g);
    struct setting s = plain;
    s.max_batch = 8;
    s.check_finite = true;
    s.n_threads = 2;
    struct fixture f = fixture_open(path, &s);
    int32_t id[20];
    char err[256];
    make_ids(id, 20, f.vocab_size, 7);
    struct batch b = {.n = 20, .id = id};
    int rc = context_eval(f.context, &b, NULL, err, sizeof err);
    if (poisons[_i].tensor) {
        ck_assert_int_eq(rc, -1);
        ck_assert_str_eq(err, poisons[_i].message);
        ck_assert_int_eq(cache_len(f.cache, 0), 0);
        s.check_finite = false;
        fixture_set(&f, &s);
        ck_assert_int_eq(context_eval(f.context, &b, NULL, err, sizeof err), 0);
    } else {
        ck_assert_int_eq(rc, 0);
        ck_assert_int_eq(cache_len(f.cache, 0), 20);
    }
    fixture_close(&f);
    edit_free(g);
    (void)unlink(path);
}
END_TEST

static Suite *forward_suite(void)
{
    Suite *s = suite_create("model/forward");
    find_models();
    TCase *golden = tcase_create("golden");
    tcase_set_timeout(golden, 300);
    tcase_add_loop_test(golden, golden_logits, 0, n_models);
    tcase_add_loop_test(golden, golden_real, 0, N_REAL);
    suite_add_tcase(s, golden);

    TCase *bits = tcase_create("bits");
    tcase_set_timeout(bits, 120);
    tcase_add_loop_test(bits, levels_have_the_same_bits, 0, 2 * n_models);
    tcase_add_loop_test(bits, threads_and_slices_change_no_bit, 0, N_CASES);
    tcase_add_loop_test(bits, reused_prefix_changes_no_bit, 0, N_CASES);
    tcase_add_loop_test(bits, neighbours_change_no_bit, 0, N_CASES);
    tcase_add_loop_test(bits, file_layout_has_the_same_bits, 0, N_CASES);
    suite_add_tcase(s, bits);

    TCase *texts = tcase_create("texts");
    tcase_set_timeout(texts, 60);
    tcase_add_test(texts, window_slides);
    tcase_add_test(texts, prefixes_see_both_ways);
    tcase_add_test(texts, length_decides_the_frequencies);
    suite_add_tcase(s, texts);

    TCase *finite = tcase_create("finite");
    tcase_set_timeout(finite, 60);
    tcase_add_loop_test(finite, first_value_not_finite_is_named, 0, sizeof poisons / sizeof *poisons);
    suite_add_tcase(s, finite);
    return s;
}

TEST_SUITE(forward_suite)

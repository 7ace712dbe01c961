/* The whole forward pass on CUDA's operators against the CPU's, to the last bit: on the host executor, which
 * needs no GPU (tests/cuda/executor.h), or with QUOLL_TEST_CUDA=1 on one. Without --exact: within what half
 * floats explain. */
#include "tests/cuda/backend.h"
#include "tests/model/fixture.h"

#include <math.h>
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
static float *evaluate(const char *path, const struct setting *s, int n_tokens)
{
    struct fixture f = fixture_open(path, s);
    int32_t id[N_TOKENS + N_SINGLE];
    make_ids(id, n_tokens + N_SINGLE, f.vocab_size, 1);
    float *logits = malloc((size_t)(n_tokens + N_SINGLE) * (size_t)f.vocab_size * sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    fixture_eval(&f, 0, id, n_tokens, logits);
    for (int i = n_tokens; i < n_tokens + N_SINGLE; i++)
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
static void check_same(const char *name, const struct setting *s, int n_tokens)
{
    const char *path = model_file(name);
    if (!path)
        return; /* test_forward says what is missing */
    char copy[1024];
    (void)snprintf(copy, sizeof copy, "%s", path);
    struct setting cpu = *s;
    cpu.ops = NULL;
    cpu.isa = isa_best();
    float *want = evaluate(copy, &cpu, n_tokens), *got = evaluate(copy, s, n_tokens);
    const int n = vocabulary(copy);
    for (int i = 0; i < (n_tokens + N_SINGLE) * n; i++)
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
        check_same(model_name(_i / 2), &s, _i % 2 && _i / 2 >= N_PLAIN ? 12 : N_TOKENS);
}
END_TEST

/* Weights that are floats: their products are on the tensor cores. For the others --compute f32, so that what
 * is seen is not the rounding of activations to 8 bits. */
static enum compute compute_of(const char *name)
{
    return strstr(name, "quant-") || strstr(name, "gptq") || strstr(name, "awq") || strstr(name, "-int")
               ? COMPUTE_F32
               : COMPUTE_FAST;
}

static float largest_error(const float *a, const float *b, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= most))
            most = fabsf(a[i] - b[i]);
    return most;
}

/* Without --exact half floats on tensor cores stand in for longer chains of float: the same logits but for
 * rounding, twice the same bits. */
START_TEST(default_mode_is_close) /* loop over models but the quantised types */
{
    const char *name = model_name(_i), *file = model_file(name);
    struct setting s = plain, cpu = plain;
    char path[1024];
    s.ops = cuda_test_ops(false);
    if (!s.ops || !file || strstr(name, "mixtral") || strstr(name, "moe"))
        return; /* of two experts that are nearly equal, rounding may pick the other */
    (void)snprintf(path, sizeof path, "%s", file);
    s.compute = cpu.compute = compute_of(name);
    s.kv_type = cpu.kv_type = QTYPE_F16;
    cpu.isa = isa_best();
    float *want = evaluate(path, &cpu, N_TOKENS), *got = evaluate(path, &s, N_TOKENS);
    const int64_t n = (int64_t)(N_TOKENS + N_SINGLE) * vocabulary(path);
    const float error = largest_error(want, got, n);
    ck_assert_msg(error <= 1e-2f, "%s: largest error of a logit %g", name, (double)error);
    if (_i < 6) {
        float *again = evaluate(path, &s, N_TOKENS);
        ck_assert_msg(memcmp(got, again, (size_t)n * sizeof *got) == 0, "%s: another time, other bits", name);
        free(again);
    }
    free(want);
    free(got);
}
END_TEST

/* The golden logits, and the greedy text. */
START_TEST(default_mode_has_the_golden_text) /* loop over models */
{
    const char *name = model_name(_i);
    char file[128];
    (void)snprintf(file, sizeof file, "%s/expected.safetensors", name);
    struct setting s = plain;
    s.ops = cuda_test_ops(false);
    if (!s.ops || !test_golden(file))
        return;
    struct expected e = expected_open(test_golden(file));
    s.compute = compute_of(name);
    /* single tokens are exact: a few show that the prompt is in the cache */
    const int n_greedy = s.compute == COMPUTE_FAST ? 16 : 3;
    int32_t greedy[16];
    ck_assert_int_ge(e.n_greedy, n_greedy);
    s.kv_type = QTYPE_F16;
    /* half floats in the cache are part of the error: the CPU's with them first */
    struct setting cpu = s;
    cpu.ops = NULL;
    cpu.isa = isa_best();
    float errors[2];
    struct fixture f;
    float *logits = NULL;
    for (int k = 0; k < 2; k++) {
        if (k)
            fixture_close(&f);
        f = fixture_open(model_file(name), k ? &s : &cpu);
        logits = realloc(logits, (size_t)e.n * (size_t)f.vocab_size * sizeof *logits);
        ck_assert_ptr_nonnull(logits);
        fixture_eval(&f, 0, e.ids, e.n, logits);
        const float *tail = logits + (int64_t)(e.n - e.n_logits) * f.vocab_size;
        errors[k] = largest_error(tail, e.logits, (int64_t)e.n_logits * f.vocab_size);
    }
    ck_assert_msg(errors[1] <= errors[0] + 5e-3f, "%s: largest error of a logit %g, the CPU's is %g", name,
                  (double)errors[1], (double)errors[0]);
    fixture_greedy(&f, logits + (int64_t)(e.n - 1) * f.vocab_size, e.ids, e.n, greedy, n_greedy);
    for (int i = 0; i < n_greedy; i++)
        ck_assert_msg(greedy[i] == e.greedy[i], "%s: greedy token %d is %d, not %d", name, i, greedy[i],
                      e.greedy[i]);
    fixture_close(&f);
    weights_close(e.w);
    free(logits);
}
END_TEST

/* A text token by token, the first ones recorded as graphs and replayed: as the CPU has it, across pages and
 * lengths for which attention's launches are made anew; two sequences in turns, then together. */
START_TEST(graphs_change_no_bit)
{
    enum { N = 150 };
    static const char *const names[] = {"gguf/quant-q4_k", "gguf/gemma3-f16", "gguf/qwen3-f16"};
    const char *path = model_file(names[_i]);
    struct setting s = plain;
    const struct ops *ops = cuda_test_ops(true);
    if (!path || !ops)
        return;
    s.compute = COMPUTE_FAST;
    s.kv_type = QTYPE_F16;
    s.n_seqs = 2;
    s.n_ctx = 2 * N;
    float *logits[2];
    for (int k = 0; k < 2; k++) {
        s.ops = k ? ops : NULL;
        s.isa = isa_best();
        struct fixture f = fixture_open(path, &s);
        int32_t id[2 * N];
        make_ids(id, 2 * N, f.vocab_size, 5);
        float *at = logits[k] = malloc((size_t)(2 * N) * (size_t)f.vocab_size * sizeof *at);
        ck_assert_ptr_nonnull(at);
        for (int i = 0; i < N; i++) {
            const int32_t both[] = {0, 1};
            const uint8_t want[] = {1, 1};
            if (i % 10 == 9) {
                const struct batch b = {.n = 2, .id = id + 2 * i, .seq = both, .want_logits = want};
                const float *rows;
                char err[256];
                ck_assert_msg(context_eval(f.context, &b, &rows, err, sizeof err) == 0, "%s", err);
                memcpy(at, rows, 2 * (size_t)f.vocab_size * sizeof *at);
            } else {
                fixture_eval(&f, 0, &id[2 * i], 1, at);
                fixture_eval(&f, 1, &id[2 * i + 1], 1, at + f.vocab_size);
            }
            at += 2 * f.vocab_size;
        }
        const int n = f.vocab_size;
        fixture_close(&f);
        if (k == 1)
            ck_assert_msg(memcmp(logits[0], logits[1], (size_t)(2 * N) * (size_t)n * sizeof *at) == 0, "%s",
                          names[_i]);
    }
#ifndef QUOLL_NO_EXECUTOR
    if (!cuda_is_real())
        ck_assert_int_gt((int)exec_graph_launches(), N);
#endif
    free(logits[0]);
    free(logits[1]);
}
END_TEST

#ifndef QUOLL_NO_EXECUTOR
/* Every call of the runtime fails once, or from then on: an error with one line, or none where it did not
 * matter, and never a leak. */
START_TEST(failures_are_told) /* loop: sticky or not */
{
    const char *path = model_file("gguf/quant-q4_k");
    if (!path || cuda_is_real())
        return;
    int n_told = 0;
    bool reached = true;
    for (int n = 0; reached; n += n < 60 ? 1 : 23) {
        char err[512] = "";
        struct weights *w;
        ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
        exec_fail_after(n, _i == 1);
        const struct ops *ops = quoll_cuda_open(cuda_host_tables(), 0, true, err, sizeof err);
        struct model *m = NULL;
        struct cache *c = NULL;
        struct context *x = NULL;
        int rc = ops ? 0 : -1;
        if (rc == 0) {
            const struct model_options mo = {.ops = ops, .n_threads = 1, .rope_scaling = -1};
            const struct cache_options co = {64, 1, QTYPE_F16, QTYPE_F16, 16};
            const struct context_options xo = {1, 1, 16, COMPUTE_FAST, false};
            rc = model_load(&m, w, &mo, err, sizeof err);
            if (rc == 0)
                rc = cache_new(&c, m, &co, err, sizeof err);
            if (rc == 0)
                rc = context_new(&x, m, c, &xo, err, sizeof err);
            const int32_t ids[] = {1, 2, 3, 4};
            for (int i = 0; i < 4 && rc == 0; i++) {
                const struct batch b = {.n = 1, .id = ids + i};
                const float *logits;
                rc = context_eval(x, &b, &logits, err, sizeof err);
            }
        }
        const bool in_time = exec_failed(); /* what fails after the last result harms nobody */
        context_free(x);
        cache_free(c);
        model_free(m);
        weights_close(w);
        if (ops)
            ops->close();
        reached = exec_failed();
        exec_fail_after(-1, false);
        ck_assert_msg(exec_bytes_held() == 0, "call %d: %zu bytes left", n, exec_bytes_held());
        if (rc != 0) {
            n_told++;
            ck_assert_msg(err[0] && !strchr(err, '\n'), "call %d: '%s'", n, err);
        } else {
            ck_assert_msg(!in_time || _i == 0, "call %d failed for good and nothing was said", n);
        }
    }
    ck_assert_int_gt(n_told, 20);
}
END_TEST

START_TEST(too_little_memory_is_told)
{
    const char *path = model_file("gguf/quant-q4_k");
    char err[512] = "";
    struct weights *w;
    struct model *m = NULL;
    if (!path || cuda_is_real())
        return;
    const struct ops *ops = cuda_test_ops(true);
    exec_set_memory(exec_bytes_held() + 1000);
    ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
    const struct model_options mo = {.ops = ops, .n_threads = 1, .rope_scaling = -1};
    ck_assert_int_eq(model_load(&m, w, &mo, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "not enough memory"));
    weights_close(w);
    ops->close();
    ck_assert_int_eq((int)exec_bytes_held(), 0);
}
END_TEST
#endif

static Suite *suite(void)
{
    Suite *s = suite_create("cuda forward");
    TCase *t = tcase_create("models");
    tcase_set_timeout(t, 60);

    tcase_add_loop_test(t, models_have_the_cpus_bits, 0, 2 * N_MODELS);
    tcase_add_loop_test(t, default_mode_is_close, 0, N_PLAIN);
    tcase_add_loop_test(t, default_mode_has_the_golden_text, 0, N_MODELS);
    tcase_add_loop_test(t, graphs_change_no_bit, 0, 3);
#ifndef QUOLL_NO_EXECUTOR
    tcase_add_loop_test(t, failures_are_told, 0, 2);
    tcase_add_test(t, too_little_memory_is_told);
#endif
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(suite)

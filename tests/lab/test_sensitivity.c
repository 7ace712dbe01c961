/* What one matrix costs: against a file with that matrix alone quantised, and all of them together. */
#include "lab/sensitivity.h"

#include "lab/divergence.h"
#include "tests/lab/scratch.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LEN = 128 };

static char err[512];

static int measure(struct sensitivity **s, const char *path, struct sensitivity_options *o, int32_t *ids)
{
    struct weights *w;
    struct config c;
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(config_read(&c, w, err, sizeof err) == 0, "%s", err);
    make_ids(ids, (int)o->n_ids, c.vocab_size, 3);
    o->ids = ids;
    o->ops = ops_cpu(isa_best());
    int rc = sensitivity_open(s, w, o, err, sizeof err);
    weights_close(w);
    return rc;
}

/* A window's logits, as the measurement computes them (len, vocab_size): malloc'ed. */
static float *logits_of(const char *path, const int32_t *ids, int *len, int *vocab_size)
{
    const struct setting s = {.isa = isa_best(),
                              .compute = COMPUTE_FAST,
                              .kv_type = QTYPE_F16,
                              .n_threads = 1,
                              .max_batch = MAX_LEN,
                              .n_seqs = 1,
                              .n_ctx = MAX_LEN};
    struct fixture f = fixture_open(path, &s);
    const int max = model_config(f.model)->max_seq_len;
    *len = max < MAX_LEN ? max : MAX_LEN;
    *vocab_size = f.vocab_size;
    float *logits = calloc((size_t)*len * (size_t)f.vocab_size, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    fixture_eval(&f, 0, ids, *len, logits);
    fixture_close(&f);
    return logits;
}

static void write_file(const char *from, const char *to, const char *pattern, enum qtype type)
{
    const struct quantize_rule rule = {pattern, type};
    const struct quantize_options o = {.mix = mix_by_name("f32"),
                                       .output_type = -1,
                                       .embedding_type = -1,
                                       .rules = &rule,
                                       .n_rules = 1,
                                       .n_threads = 1};
    ck_assert_msg(scratch_gguf(from, to, &o, err, sizeof err) == 0, "%s", err);
}

/* The divergence of a file with these matrices quantised, on the last three quarters of a window. */
static double kl_of(const char *base, const char *pattern, enum qtype type, const int32_t *ids)
{
    char path[] = "/tmp/quoll-test-XXXXXX.gguf";
    int fd = mkstemps(path, 5), len, vocab_size;
    ck_assert_int_ge(fd, 0);
    (void)close(fd);
    write_file(base, path, pattern, type);
    float *a = logits_of(base, ids, &len, &vocab_size), *b = logits_of(path, ids, &len, &vocab_size);
    double sum = 0;
    for (int i = len / 4; i < len; i++)
        sum += token_score(b + i * vocab_size, a + i * vocab_size, vocab_size, 0).kl;
    (void)unlink(path);
    free(a);
    free(b);
    return sum / (len - len / 4);
}

static const char *const floats[] = {
    "gguf/llama-f32/model.gguf",
    "gguf/qwen2-f32/model.gguf",
    "gguf/gemma3-f32/model.gguf",
};
enum { N_FLOATS = sizeof floats / sizeof *floats };

/* A trial that begins at a matrix's layer is the same as running the whole model. */
START_TEST(one_matrix_costs_what_its_file_does)
{
    const char *path = test_golden(floats[_i]);
    if (!path) {
        test_skip(floats[_i], "no such golden file");
        return;
    }
    struct sensitivity *s;
    int32_t ids[MAX_LEN];
    struct sensitivity_options o = {
        .n_ids = MAX_LEN, .bos = -1, .n_probe = MAX_LEN, .n_collect = MAX_LEN, .n_threads = 2};
    ck_assert_msg(measure(&s, path, &o, ids) == 0, "%s", err);
    static const char *const names[] = {"token_embd.weight", "output.weight", "blk.0.attn_q.weight",
                                        "blk.1.attn_v.weight", "blk.1.ffn_down.weight"};
    int n_tried = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct sensitivity_tensor *t = sensitivity_find(s, names[i]);
        if (!t)
            continue;
        char pattern[64];
        (void)snprintf(pattern, sizeof pattern, "^%s$", names[i]);
        ck_assert_double_gt(t->probe_kl, 0);
        ck_assert_double_eq(t->probe_kl, kl_of(path, pattern, t->probe, ids));
        n_tried++;
    }
    ck_assert_int_ge(n_tried, 4);
    sensitivity_close(s);
}
END_TEST

/* Costs add up, and go with the squared error: all matrices in a type that none was tried in. */
START_TEST(costs_add_up)
{
    const char *path = test_golden(floats[_i / 2]);
    const enum qtype type = _i % 2 ? QTYPE_Q5_1 : QTYPE_Q5_0;
    if (!path) {
        test_skip(floats[_i / 2], "no such golden file");
        return;
    }
    struct sensitivity *s;
    int32_t ids[MAX_LEN];
    struct sensitivity_options o = {.n_ids = MAX_LEN, .bos = -1, .n_probe = MAX_LEN, .n_threads = 1};
    ck_assert_msg(measure(&s, path, &o, ids) == 0, "%s", err);
    size_t n;
    const struct sensitivity_tensor *t = sensitivity_tensors(s, &n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        ck_assert_int_ne(t[i].probe, type);
        sum += sensitivity_kl(&t[i], type);
    }
    const double all = kl_of(path, ".", type, ids);
    ck_assert_msg(sum > all / 1.6 && sum < all * 1.6, "%s: %g, in fact %g", floats[_i / 2], sum, all);
    sensitivity_close(s);
}
END_TEST

static const char *const models[] = {
    "gguf/quant-q4_0/model.gguf",
    "models/chatglm2",
    "models/mixtral",
    "models/llama-gptq-desc-act",
};
enum { N_MODELS = sizeof models / sizeof *models };

/* Fused tensors, experts, columns in another order: everything is measured, the same for all threads. */
START_TEST(all_kinds_of_models)
{
    const char *path = test_golden(models[_i]);
    if (!path) {
        test_skip(models[_i], "no such golden file");
        return;
    }
    struct sensitivity *s, *other;
    int32_t ids[3 * MAX_LEN];
    struct sensitivity_options o = {
        .n_ids = 3 * MAX_LEN, .bos = 1, .weighed = true, .probe_bits = 4.5, .n_threads = 1};
    ck_assert_msg(measure(&s, path, &o, ids) == 0, "%s: %s", models[_i], err);
    o.n_threads = 3;
    ck_assert_msg(measure(&other, path, &o, ids) == 0, "%s: %s", models[_i], err);
    size_t n, n_other;
    const struct sensitivity_tensor *t = sensitivity_tensors(s, &n),
                                    *u = sensitivity_tensors(other, &n_other);
    ck_assert_uint_eq(n, n_other);
    ck_assert_uint_gt(n, 4);
    ck_assert_ptr_nonnull(importance_find(sensitivity_importance(s), "blk.0.attn_output.weight"));
    for (size_t i = 0; i < n; i++) {
        ck_assert_str_eq(t[i].name, u[i].name);
        ck_assert_double_eq(t[i].probe_kl, u[i].probe_kl);
        ck_assert_mem_eq(t[i].error, u[i].error, sizeof t[i].error);
        ck_assert_msg(isfinite(t[i].probe_kl) && t[i].probe_kl > 0, "%s: %g", t[i].name, t[i].probe_kl);
        ck_assert_double_gt(t[i].error[t[i].probe], 0);
        ck_assert_double_eq(sensitivity_kl(&t[i], QTYPE_F16), 0);
        ck_assert_double_le(sensitivity_kl(&t[i], QTYPE_Q8_0), t[i].probe_kl);
        if (t[i].cols % 256 != 0)
            ck_assert_double_lt(sensitivity_kl(&t[i], QTYPE_Q4_K), 0);
    }
    sensitivity_close(other);
    sensitivity_close(s);
}
END_TEST

static bool stop_at_once(void)
{
    return true;
}

START_TEST(faults)
{
    const char *path = test_golden("gguf/llama-f16/model.gguf");
    if (!path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    struct sensitivity *s;
    int32_t ids[MAX_LEN];
    struct sensitivity_options o = {.n_ids = 20, .bos = -1, .n_threads = 1};
    ck_assert_int_eq(measure(&s, path, &o, ids), -1);
    ck_assert_ptr_nonnull(strstr(err, "too short: 20 tokens"));
    o.n_ids = MAX_LEN;
    o.stop = stop_at_once;
    ck_assert_int_eq(measure(&s, path, &o, ids), SENSITIVITY_STOPPED);
    ck_assert_ptr_null(s);
}
END_TEST

/* A model whose logits are no numbers: with importances from the text, and with given ones. */
START_TEST(no_numbers)
{
    struct edit *g = edit_golden("gguf/llama-f32/model.gguf");
    if (!g)
        return;
    ((float *)edit_find(g, "blk.1.ffn_up.weight")->data)[5] = NAN;
    const char *path = edit_write(g);
    struct sensitivity *s;
    struct importance *none = importance_new();
    int32_t ids[MAX_LEN];
    struct sensitivity_options o = {.n_ids = MAX_LEN, .bos = -1, .n_threads = 1};
    ck_assert_int_eq(measure(&s, path, &o, ids), -1);
    o.importance = none;
    ck_assert_int_eq(measure(&s, path, &o, ids), -1);
    ck_assert_msg(strstr(err, "not finite") != NULL, "%s", err);
    (void)unlink(path);
    importance_free(none);
    edit_free(g);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("sensitivity");
    TCase *c = tcase_create("sensitivity");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, one_matrix_costs_what_its_file_does, 0, N_FLOATS);
    tcase_add_loop_test(c, costs_add_up, 0, 2 * N_FLOATS);
    tcase_add_loop_test(c, all_kinds_of_models, 0, N_MODELS);
    tcase_add_test(c, faults);
    tcase_add_test(c, no_numbers);
    suite_add_tcase(s, c);
    return s;
}

TEST_SUITE(suite)

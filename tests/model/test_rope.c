/* RoPE's frequencies: the formula, the rope_freqs tensor, linear scaling. */
#include "model/rope.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static struct rope *make(const struct rope_config *c, int rotary_dim, int n_sections, const float *divisors)
{
    char err[256];
    struct rope *r = rope_new(c, rotary_dim, n_sections, divisors, NULL, NULL, err, sizeof err);
    ck_assert_msg(r != NULL, "%s", err);
    return r;
}

START_TEST(frequencies_follow_the_formula)
{
    struct rope_config c = {.theta = 10000, .factor = 1, .attention_factor = 1};
    struct rope *r = make(&c, 8, 1, NULL);
    ck_assert_int_eq(r->n_freqs, 4);
    ck_assert_double_eq(r->attention_factor, 1);
    for (int i = 0; i < 4; i++)
        ck_assert_double_eq_tol(r->inv_freq[i], pow(10, -i), 1e-15);
    rope_free(r);

    c.scaling = ROPE_SCALING_LINEAR;
    c.factor = 4;
    const float divisors[] = {1, 2, 0.5f, 8};
    r = make(&c, 8, 1, divisors);
    const double want[] = {0.25, 0.0125, 0.005, 0.00003125};
    for (int i = 0; i < 4; i++)
        ck_assert_double_eq_tol(r->inv_freq[i], want[i], 1e-15);
    rope_free(r);

    /* Two sections have the same frequencies, those of half the width. */
    c = (struct rope_config){.theta = 10000, .factor = 1, .attention_factor = 1};
    r = make(&c, 8, 2, NULL);
    const double halves[] = {1, 0.01, 1, 0.01};
    for (int i = 0; i < 4; i++)
        ck_assert_double_eq_tol(r->inv_freq[i], halves[i], 1e-15);
    rope_free(r);
}
END_TEST

START_TEST(lengths_have_keys)
{
    struct rope_config c = {.theta = 10000,
                            .scaling = ROPE_SCALING_DYNAMIC,
                            .factor = 2,
                            .original_len = 16,
                            .attention_factor = 1};
    struct rope *r = make(&c, 8, 1, NULL);
    double at_16[4], at_32[4];
    ck_assert(rope_depends_on_length(r));
    ck_assert_int_eq(rope_length_key(r, 16), 0);
    ck_assert_int_eq(rope_length_key(r, 17), 17);
    rope_for_length(r, 16, at_16);
    rope_for_length(r, 32, at_32);
    /* base · (2 · 32/16 − 1)^(8/6) */
    double base = 10000 * pow(3, 8.0 / 6);
    for (int i = 0; i < 4; i++) {
        ck_assert_double_eq_tol(at_16[i], pow(10, -i), 1e-15);
        ck_assert_double_eq_tol(at_32[i], pow(base, -i / 4.0), 1e-15);
    }
    rope_free(r);

    c.scaling = ROPE_SCALING_LONGROPE;
    const float brief[] = {1, 1, 2, 4}, lengthy[] = {1, 2, 4, 8};
    char err[256];
    r = rope_new(&c, 8, 1, NULL, lengthy, brief, err, sizeof err);
    ck_assert_ptr_nonnull(r);
    ck_assert_int_eq(rope_length_key(r, 16), 0);
    ck_assert_int_eq(rope_length_key(r, 17), 1);
    ck_assert_int_eq(rope_length_key(r, 1000), 1);
    rope_for_length(r, 16, at_16);
    rope_for_length(r, 32, at_32);
    for (int i = 0; i < 4; i++) {
        ck_assert_double_eq_tol(at_16[i], pow(10, -i) / brief[i], 1e-15);
        ck_assert_double_eq_tol(at_32[i], pow(10, -i) / lengthy[i], 1e-15);
    }
    rope_free(r);
    ck_assert_ptr_null(rope_new(&c, 8, 1, NULL, lengthy, NULL, err, sizeof err));
    ck_assert_ptr_nonnull(strstr(err, "longrope"));
}
END_TEST

enum { N_IDS = 40, VOCAB = 320 };

/* Logits of a changed golden model under load options; g stays the caller's. */
static void logits_of(const struct edit *g, const struct model_options *o, float *out)
{
    int32_t id[N_IDS];
    const char *path = edit_write(g);
    struct fixture f = fixture_open(path, &plain);
    if (o)
        fixture_reload(&f, o, &plain);
    ck_assert_int_eq(f.vocab_size, VOCAB);
    make_ids(id, N_IDS, f.vocab_size, 9);
    fixture_eval(&f, 0, id, N_IDS, out);
    fixture_close(&f);
    (void)unlink(path);
}

static float base[N_IDS * VOCAB], a[N_IDS * VOCAB], b[N_IDS * VOCAB];

START_TEST(rope_freqs_tensor_is_used)
{
    struct edit *g = edit_golden("gguf/llama-f16/model.gguf");
    if (!g)
        return;
    logits_of(g, NULL, base);
    const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1}, fours[8] = {4, 4, 4, 4, 4, 4, 4, 4};
    (void)edit_add(g, "rope_freqs.weight", ones, 8);
    logits_of(g, NULL, a);
    ck_assert_mem_eq(a, base, sizeof base);
    edit_remove_tensor(g, "rope_freqs.weight");
    (void)edit_add(g, "rope_freqs.weight", fours, 8);
    logits_of(g, NULL, a);
    ck_assert_mem_ne(a, base, sizeof base);
    /* All divisors 4: positions at a quarter of the speed, which is linear scaling by 4. */
    edit_remove_tensor(g, "rope_freqs.weight");
    edit_set_str(g, "llama.rope.scaling.type", "linear");
    edit_set_f32(g, "llama.rope.scaling.factor", 4);
    logits_of(g, NULL, b);
    ck_assert_mem_eq(a, b, sizeof a);
    edit_free(g);
}
END_TEST

START_TEST(bad_divisors_are_refused)
{
    const float bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        struct edit *g = edit_golden("gguf/llama-f16/model.gguf");
        if (!g)
            return;
        float divisors[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        divisors[3] = bad[i];
        (void)edit_add(g, "rope_freqs.weight", divisors, 8);
        edit_refused(g, "tensor 'rope_freqs.weight': divisor 3");
    }
    struct edit *g = edit_golden("gguf/llama-f16/model.gguf");
    (void)edit_add(g, "rope_freqs.weight", (float[7]){1, 1, 1, 1, 1, 1, 1}, 7);
    edit_refused(g, "'rope_freqs.weight' has shape [7], the hyper-parameters imply [8]");
}
END_TEST

START_TEST(options_override_the_model)
{
    struct edit *g = edit_golden("gguf/llama-f16/model.gguf");
    if (!g)
        return;
    struct model_options o = {.ops = ops_cpu(ISA_SCALAR), .n_threads = 1, .rope_scaling = -1};
    logits_of(g, NULL, base);
    o.rope_scale = 4; /* alone: linear */
    logits_of(g, &o, a);
    ck_assert_mem_ne(a, base, sizeof base);
    o.rope_scaling = ROPE_SCALING_LINEAR;
    logits_of(g, &o, b);
    ck_assert_mem_eq(a, b, sizeof a);

    /* A model with a scaling of its own. */
    edit_set_f32(g, "llama.rope.scaling.factor", 4);
    o = (struct model_options){.ops = ops_cpu(ISA_SCALAR), .n_threads = 1, .rope_scaling = -1};
    logits_of(g, &o, b);
    ck_assert_mem_eq(a, b, sizeof a);
    o.rope_scaling = ROPE_SCALING_NONE;
    logits_of(g, &o, b);
    ck_assert_mem_eq(base, b, sizeof base);

    edit_set_f32(g, "llama.rope.freq_base", 5000);
    edit_remove_key(g, "llama.rope.scaling.factor");
    logits_of(g, NULL, a);
    ck_assert_mem_ne(a, base, sizeof base);
    o = (struct model_options){
        .ops = ops_cpu(ISA_SCALAR), .n_threads = 1, .rope_scaling = -1, .rope_freq_base = 10000};
    logits_of(g, &o, b);
    ck_assert_mem_eq(base, b, sizeof base);
    edit_free(g);
}
END_TEST

START_TEST(bad_options_are_refused)
{
    const char *path = test_golden("gguf/llama-f16/model.gguf");
    if (!path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    const struct ops *ops = ops_cpu(ISA_SCALAR);
    const struct model_options bad[] = {
        {.ops = ops, .n_threads = 1, .rope_scaling = -1, .rope_freq_base = -1},
        {.ops = ops, .n_threads = 1, .rope_scaling = -1, .rope_freq_base = NAN},
        {.ops = ops, .n_threads = 1, .rope_scaling = -1, .rope_scale = -2},
        {.ops = ops, .n_threads = 1, .rope_scaling = -1, .rope_scale = NAN},
        {.ops = ops, .n_threads = 1, .rope_scaling = ROPE_SCALING_LINEAR},
        {.ops = ops, .n_threads = 1, .rope_scaling = ROPE_SCALING_YARN},
        {.ops = ops, .n_threads = 1, .rope_scaling = ROPE_SCALING_DYNAMIC},
    };
    char err[256];
    struct weights *w;
    ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct model *m;
        ck_assert_int_eq(model_load(&m, w, &bad[i], err, sizeof err), -1);
        ck_assert_ptr_null(m);
        ck_assert_ptr_nonnull(strstr(err, "RoPE"));
    }
    weights_close(w);
}
END_TEST

static Suite *rope_suite(void)
{
    Suite *s = suite_create("model/rope");
    TCase *t = tcase_create("rope");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, frequencies_follow_the_formula);
    tcase_add_test(t, lengths_have_keys);
    tcase_add_test(t, rope_freqs_tensor_is_used);
    tcase_add_test(t, bad_divisors_are_refused);
    tcase_add_test(t, options_override_the_model);
    tcase_add_test(t, bad_options_are_refused);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(rope_suite)

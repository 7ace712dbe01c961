/* Layers of a model one after the other, each loaded alone, and matrices replaced. */
#include "model/bind.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const char *const whole[] = {
    "gguf/llama-f32/model.gguf",
    "gguf/gemma3-f32/model.gguf",
    "gguf/quant-q4_k/model.gguf",
    "models/mixtral",
    "models/mistral-swa",
    "models/chatglm2",
    "models/llama-gptq-desc-act",
    "models/glm4",
    "models/chatglm1",
};

enum { N_IDS = 24 };

/* What leaves the last layer. */
static void eval_rows(struct fixture *f, const int32_t *ids, const float *in, float *out)
{
    char err[256];
    struct batch b = {.n = N_IDS, .id = ids, .rows_in = in, .rows_out = out};
    ck_assert_msg(context_eval(f->context, &b, NULL, err, sizeof err) == 0, "%s", err);
}

START_TEST(one_by_one)
{
    const char *path = test_golden(whole[_i]);
    if (!path) {
        test_skip("one_by_one", "the golden model is not here");
        return;
    }
    struct setting s = plain;
    s.max_batch = 7; /* slices of a batch take their own rows */
    struct fixture f = fixture_open(path, &s);
    const struct config *c = model_config(f.model);
    const int n_layers = c->n_layers;
    const size_t len = (size_t)N_IDS * (size_t)c->dim;
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 5);
    float *expected = calloc(len, sizeof *expected), *rows = calloc(len, sizeof *rows);
    ck_assert(expected && rows);
    eval_rows(&f, ids, NULL, expected);
    for (int l = 0; l < n_layers; l++) {
        struct model_options o = {
            .ops = ops_cpu(s.isa), .n_threads = 1, .rope_scaling = -1, .first_layer = l, .n_layers = 1};
        fixture_reload(&f, &o, &s);
        ck_assert_int_eq(model_config(f.model)->n_layers, 1);
        eval_rows(&f, ids, l ? rows : NULL, rows);
    }
    ck_assert_mem_eq(rows, expected, len * sizeof *rows);
    free(rows);
    free(expected);
    fixture_close(&f);
}
END_TEST

START_TEST(outside)
{
    const char *path = test_golden(whole[0]);
    if (!path) {
        test_skip("outside", "the golden model is not here");
        return;
    }
    char err[256];
    struct weights *w;
    struct model *m;
    ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
    struct config c;
    ck_assert_int_eq(config_read(&c, w, err, sizeof err), 0);
    const int ranges[][2] = {{c.n_layers, 1}, {0, c.n_layers + 1}, {-1, 1}, {0, -1}, {INT32_MAX, 2}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        struct model_options o = {.ops = ops_cpu(ISA_SCALAR),
                                  .n_threads = 1,
                                  .rope_scaling = -1,
                                  .first_layer = ranges[i][0],
                                  .n_layers = ranges[i][1]};
        ck_assert_int_eq(model_load(&m, w, &o, err, sizeof err), -1);
        ck_assert_ptr_nonnull(strstr(err, "layers"));
        ck_assert_ptr_null(m);
    }
    weights_close(w);
}
END_TEST

/* A quantised matrix replaced by what it stands for computes the same in f32, and another one does not. */
START_TEST(replaced)
{
    const char *path = test_golden("gguf/quant-q4_k/model.gguf");
    if (!path) {
        test_skip("replaced", "the golden model is not here");
        return;
    }
    struct fixture f = fixture_open(path, &plain);
    const struct config c = *model_config(f.model);
    const size_t len = (size_t)N_IDS * (size_t)c.dim;
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 6);
    float *expected = calloc(len, sizeof *expected), *rows = calloc(len, sizeof *rows);
    ck_assert(expected && rows);
    eval_rows(&f, ids, NULL, expected);

    char err[256];
    struct binding *b;
    size_t n;
    ck_assert_int_eq(bind_tensors(&b, &n, f.weights, &c, QTYPE_F32, err, sizeof err), 0);
    for (int times = 1; times <= 3; times++) { /* once more, and then changed */
        for (size_t i = 0; i < n; i++) {
            const struct source *s = &b[i].source;
            if (!role_in_layer(b[i].role) || !role_is_matrix(b[i].role))
                continue;
            float *wide = malloc((size_t)(s->rows * s->cols) * sizeof *wide);
            char *file = malloc((size_t)(s->rows * qtype_bytes(s->type, s->cols)));
            float *scratch = malloc((size_t)s->cols * sizeof *scratch);
            ck_assert(wide && file && scratch);
            source_rows(s, 0, s->rows, file, scratch);
            qtypes[s->type].to_f32(wide, file, s->rows * s->cols);
            if (times == 3)
                wide[0] += 1;
            ck_assert_int_eq(matrix_replace(f.model, binding_place(f.model, &b[i]), QTYPE_F32, wide), 0);
            free(scratch);
            free(file);
            free(wide);
        }
        (void)cache_truncate(f.cache, 0, 0);
        eval_rows(&f, ids, NULL, rows);
        ck_assert_int_eq(memcmp(rows, expected, len * sizeof *rows) == 0, times < 3);
    }
    bindings_free(b, n);
    free(rows);
    free(expected);
    fixture_close(&f);
}
END_TEST

static Suite *parts_suite(void)
{
    Suite *s = suite_create("parts");
    TCase *t = tcase_create("parts");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, one_by_one, 0, (int)(sizeof whole / sizeof *whole));
    tcase_add_test(t, outside);
    tcase_add_test(t, replaced);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(parts_suite)

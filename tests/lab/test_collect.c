/* What matrices multiply with: against the definition in the first layer, and counts everywhere. */
#include "lab/collect.h"
#include "model/layers.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 32, N_IDS = 3 * CTX + 5 };

static char err[512];

static struct importance *collect(struct fixture *f, struct collect_run *r)
{
    struct imatrix *im = imatrix_new();
    int64_t n_chunks;
    r->model = f->model;
    r->cache = f->cache;
    r->context = f->context;
    r->n_ids = N_IDS;
    r->n_ctx = CTX;
    ck_assert_msg(collect_importance(im, r, &n_chunks, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(n_chunks, r->max_chunks ? r->max_chunks : 3 - r->first);
    struct importance *t = imatrix_importance(im);
    imatrix_free(im);
    return t;
}

static struct fixture open_model(const char *name)
{
    const char *path = test_golden(name);
    struct setting s = plain;
    s.n_seqs = 3;
    s.n_ctx = 3 * 64;
    s.n_threads = 2;
    return path ? fixture_open(path, &s) : (struct fixture){.vocab_size = 0};
}

static const float *tensor_of(const struct fixture *f, const char *name)
{
    const struct tensor *t = weights_find(f->weights, name);
    ck_assert(t && t->type == QTYPE_F32);
    return t->data;
}

/* The first layer's input is RMSNorm of the embeddings (Zhang & Sennrich 2019). */
START_TEST(the_first_layer_is_as_defined)
{
    struct fixture f = open_model("gguf/llama-f32/model.gguf");
    if (!f.vocab_size) {
        test_skip("gguf/llama-f32", "no such golden file");
        return;
    }
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 5);
    struct collect_run r = {.ids = ids, .bos = 3, .n_parallel = 2};
    struct importance *t = collect(&f, &r);
    const struct config *c = model_config(f.model);
    const int dim = c->dim;
    const float *embd = tensor_of(&f, "token_embd.weight"), *norm = tensor_of(&f, "blk.0.attn_norm.weight");
    double *sum = calloc((size_t)dim, sizeof *sum);
    for (int i = 0; i < 3 * CTX; i++) {
        const float *x = embd + (int64_t)(i % CTX ? ids[i] : 3) * dim;
        double square = 0;
        for (int k = 0; k < dim; k++)
            square += (double)x[k] * (double)x[k];
        for (int k = 0; k < dim; k++)
            sum[k] += pow((double)x[k] * (double)norm[k], 2) / (square / dim + (double)c->norm_eps);
    }
    static const char *const names[] = {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"};
    for (int i = 0; i < 3; i++) {
        const struct importance_entry *e = importance_find(t, names[i]);
        ck_assert(e && e->cols == dim && e->n_experts == 1);
        for (int k = 0; k < dim; k++)
            ck_assert_double_eq_tol((double)e->mean[k], sum[k] / (3 * CTX), 1e-5 * sum[k] / CTX + 1e-9);
    }
    /* Every matrix of every layer, and nothing else. */
    ck_assert_uint_eq(importance_n(t), 7 * (size_t)c->n_layers);
    const struct importance_entry *gate = importance_find(t, "blk.1.ffn_gate.weight"),
                                  *up = importance_find(t, "blk.1.ffn_up.weight"),
                                  *down = importance_find(t, "blk.1.ffn_down.weight");
    ck_assert(gate && up && down && down->cols == c->ffn_dim);
    ck_assert_mem_eq(gate->mean, up->mean, (size_t)dim * sizeof *up->mean);
    free(sum);
    importance_free(t);
    fixture_close(&f);
}
END_TEST

/* The same however chunks run together, and with the output matrix it is one more. */
START_TEST(chunks_add_up)
{
    struct fixture f = open_model("gguf/qwen2-f16/model.gguf");
    if (!f.vocab_size) {
        test_skip("gguf/qwen2-f16", "no such golden file");
        return;
    }
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 6);
    struct collect_run r = {.ids = ids, .bos = -1, .n_parallel = 3};
    struct importance *t = collect(&f, &r), *parts[3];
    for (int64_t i = 0; i < 3; i++) {
        struct collect_run one = {.ids = ids, .bos = -1, .n_parallel = 1, .first = i, .max_chunks = 1};
        one.output = i == 2;
        parts[i] = collect(&f, &one);
    }
    ck_assert_uint_eq(importance_n(parts[2]), importance_n(t) + 1);
    ck_assert_ptr_nonnull(importance_find(parts[2], "output.weight"));
    ck_assert_ptr_null(importance_find(t, "output.weight"));
    for (size_t i = 0; i < importance_n(t); i++) {
        const struct importance_entry *all = importance_at(t, i);
        for (int64_t k = 0; k < all->cols; k++) {
            double sum = 0;
            for (int p = 0; p < 3; p++)
                sum += (double)importance_find(parts[p], all->name)->mean[k];
            ck_assert_double_eq_tol((double)all->mean[k], sum / 3, 1e-5 * sum + 1e-12);
        }
    }
    for (int i = 0; i < 3; i++)
        importance_free(parts[i]);
    importance_free(t);
    fixture_close(&f);
}
END_TEST

/* Experts count their own tokens: n_experts_used of them for each token. */
START_TEST(experts_are_counted_alone)
{
    struct fixture f = open_model("models/mixtral");
    if (!f.vocab_size) {
        test_skip("models/mixtral", "no such golden file");
        return;
    }
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 7);
    const struct config *c = model_config(f.model);
    struct collect_run r = {.ids = ids, .bos = -1, .n_parallel = 1};
    struct importance *t = collect(&f, &r);
    const struct importance_entry *router = importance_find(t, "blk.0.ffn_gate_inp.weight"),
                                  *up = importance_find(t, "blk.0.ffn_up_exps.weight"),
                                  *gate = importance_find(t, "blk.0.ffn_gate_exps.weight"),
                                  *down = importance_find(t, "blk.0.ffn_down_exps.weight");
    ck_assert(router && up && gate && down && up->n_experts == c->n_experts && up->cols == c->dim);
    ck_assert(down->n_experts == c->n_experts && down->cols == c->expert_ffn_dim);
    ck_assert_mem_eq(up->mean, gate->mean, (size_t)(up->cols * up->n_experts) * sizeof *up->mean);
    /* All the router's tokens go to n_experts_used experts: with the counts c_e, Σ c_e mean_e = used · n ·
     * router's mean. The counts are not in the table; there are some that make it so for every column, and
     * with four experts two columns' equations and the sum tell nothing by chance: try all. */
    const int n = 3 * CTX, used = c->n_experts_used;
    bool found = false;
    ck_assert_int_eq(c->n_experts, 4);
    for (int a = 0; a <= n && !found; a++)
        for (int b = 0; a + b <= used * n && b <= n && !found; b++)
            for (int d = 0; a + b + d <= used * n && d <= n && !found; d++) {
                const int counts[] = {a, b, d, used * n - a - b - d};
                bool fits = counts[3] <= n;
                for (int64_t k = 0; k < up->cols && fits; k++) {
                    double sum = 0, wanted = (double)used * n * (double)router->mean[k];
                    for (int e = 0; e < 4; e++)
                        sum += counts[e] * (double)up->mean[e * up->cols + k];
                    fits = fabs(sum - wanted) < 1e-4 * wanted;
                }
                found = fits;
            }
    ck_assert(found);
    importance_free(t);
    fixture_close(&f);
}
END_TEST

static bool stop_now(void)
{
    return true;
}

START_TEST(short_texts_are_refused)
{
    struct fixture f = open_model("gguf/llama-f32/model.gguf");
    if (!f.vocab_size) {
        test_skip("gguf/llama-f32", "no such golden file");
        return;
    }
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 5);
    struct imatrix *im = imatrix_new();
    int64_t n_chunks;
    struct collect_run r = {.model = f.model,
                            .cache = f.cache,
                            .context = f.context,
                            .ids = ids,
                            .n_ids = CTX - 1,
                            .n_ctx = CTX,
                            .bos = -1,
                            .n_parallel = 1};
    ck_assert_int_eq(collect_importance(im, &r, &n_chunks, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "too short") != NULL, "%s", err);
    r.n_ids = N_IDS;
    r.first = 3;
    ck_assert_int_eq(collect_importance(im, &r, &n_chunks, err, sizeof err), -1);
    r.first = 0;
    r.stop = stop_now;
    ck_assert_int_eq(collect_importance(im, &r, &n_chunks, err, sizeof err), CONTEXT_STOPPED);
    ck_assert_int_eq(n_chunks, 0);
    imatrix_free(im);
    fixture_close(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/collect");
    TCase *tc = tcase_create("collect");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, the_first_layer_is_as_defined);
    tcase_add_test(tc, chunks_add_up);
    tcase_add_test(tc, experts_are_counted_alone);
    tcase_add_test(tc, short_texts_are_refused);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

/* What a batch shows: rows of logits where they are made, and the inputs of products. */
#include "model/observe.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

enum { N = 100 };

struct taken {
    float *rows;
    int vocab_size, n_threads;
    int count[N];
};

static void take(void *arg, int thread, int64_t i, const float *row)
{
    struct taken *t = arg;
    ck_assert(thread >= 0 && thread < t->n_threads && i >= 0 && i < N);
    memcpy(t->rows + i * t->vocab_size, row, (size_t)t->vocab_size * sizeof *row);
    t->count[i]++;
}

/* Loop over: in the host's memory, in a backend's of its own. */
START_TEST(rows_are_taken_as_they_would_come_back)
{
    const char *path = test_golden("gguf/qwen2-f16/model.gguf");
    if (!path) {
        test_skip("gguf/qwen2-f16", "no such golden file");
        return;
    }
    struct setting s = plain;
    s.n_threads = 3;
    s.max_batch = 80; /* two slices, the first of more rows than are computed at once */
    struct fixture f = fixture_open(path, &s);
    struct ops away = *ops_cpu(ISA_SCALAR);
    away.on_host = false;
    if (_i)
        fixture_reload(&f, &(struct model_options){.ops = &away, .n_threads = 1, .rope_scaling = -1}, &s);
    int32_t id[N];
    uint8_t want[N];
    make_ids(id, N, f.vocab_size, 5);
    for (int i = 0; i < N; i++)
        want[i] = i % 7 != 0;
    struct batch b = {.n = N, .id = id, .want_logits = want};
    const float *logits;
    char err[256];
    ck_assert_msg(context_eval(f.context, &b, &logits, err, sizeof err) == 0, "%s", err);
    int n_rows = 0;
    for (int i = 0; i < N; i++)
        n_rows += want[i];
    const size_t bytes = (size_t)n_rows * (size_t)f.vocab_size * sizeof(float);
    struct taken t = {.rows = malloc(bytes), .vocab_size = f.vocab_size, .n_threads = 3};
    float *wanted = malloc(bytes);
    memcpy(wanted, logits, bytes);
    cache_drop(f.cache, 0);
    b.take = take;
    b.take_arg = &t;
    ck_assert_msg(context_eval(f.context, &b, &logits, err, sizeof err) == 0, "%s", err);
    ck_assert_ptr_null(logits);
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(t.count[i], i < n_rows);
    ck_assert_mem_eq(t.rows, wanted, bytes);
    free(t.rows);
    free(wanted);
    fixture_close(&f);
}
END_TEST

struct seen {
    int n[N_ROLES]; /* rows of each role */
    int cols[N_ROLES];
    int n_inputs;
};

static void observe(void *arg, struct worker *w, const struct observation *o)
{
    struct seen *s = arg;
    if (w->id != 0)
        return;
    s->n_inputs++;
    for (int i = 0; i < o->n_parts; i++) {
        ck_assert_int_eq(o->part[i]->layer, o->part[i]->role == ROLE_OUTPUT ? -1 : o->part[0]->layer);
        s->n[o->part[i]->role] += o->n;
        s->cols[o->part[i]->role] = o->cols;
    }
}

START_TEST(each_input_is_shown_once)
{
    const char *path = test_golden("gguf/llama-f16/model.gguf");
    if (!path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    struct setting s = plain;
    s.n_threads = 2;
    struct fixture f = fixture_open(path, &s);
    const struct config *c = model_config(f.model);
    int32_t id[N];
    make_ids(id, N, f.vocab_size, 5);
    struct seen seen = {.n_inputs = 0};
    const struct batch b = {.n = N, .id = id, .observe = observe, .observe_arg = &seen};
    char err[256];
    ck_assert_msg(context_eval(f.context, &b, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(seen.n_inputs,
                     4 * c->n_layers + 1); /* q, k, v; output; gate, up; down; and the logits */
    static const enum role all[] = {ROLE_ATTN_Q,   ROLE_ATTN_K, ROLE_ATTN_V,  ROLE_ATTN_OUTPUT,
                                    ROLE_FFN_GATE, ROLE_FFN_UP, ROLE_FFN_DOWN};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        ck_assert_int_eq(seen.n[all[i]], N * c->n_layers);
        ck_assert_int_eq(seen.cols[all[i]], all[i] == ROLE_FFN_DOWN      ? c->ffn_dim
                                            : all[i] == ROLE_ATTN_OUTPUT ? c->n_heads * c->head_dim
                                                                         : c->dim);
    }
    ck_assert_int_eq(seen.n[ROLE_OUTPUT] + seen.n[ROLE_TOKEN_EMBD], 1); /* of the last token only */
    fixture_close(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("model/observe");
    TCase *tc = tcase_create("observe");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, rows_are_taken_as_they_would_come_back, 0, 2);
    tcase_add_test(tc, each_input_is_shown_once);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

/* Likelihoods of answers: those of each prompt and answer evaluated alone. */
#include "lab/likelihood.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_QUERIES = 7, N_PROMPT = 40, N_SHARED = 25, MAX_ANSWERS = 4, MAX_ANSWER = 5 };

static char err[512];

struct questions {
    int32_t prompt[N_QUERIES][N_PROMPT];
    int32_t id[N_QUERIES][MAX_ANSWERS][MAX_ANSWER];
    struct answer answer[N_QUERIES][MAX_ANSWERS];
    struct query query[N_QUERIES];
};

/* Prompts of different lengths that begin alike; some queries have answers of one token only. */
static void make_questions(struct questions *q, int vocab_size)
{
    for (int i = 0; i < N_QUERIES; i++) {
        make_ids(q->prompt[i], N_PROMPT, vocab_size, 5 + (unsigned)i);
        make_ids(q->prompt[i], N_SHARED, vocab_size, 5);
        const int n_answers = 1 + i % MAX_ANSWERS;
        for (int k = 0; k < n_answers; k++) {
            make_ids(q->id[i][k], MAX_ANSWER, vocab_size, 100 + (unsigned)(i * MAX_ANSWERS + k));
            q->answer[i][k] = (struct answer){q->id[i][k], i % 3 ? 1 + (i + k) % MAX_ANSWER : 1, 0};
        }
        q->query[i] = (struct query){q->prompt[i], i == 6 ? 1 : N_PROMPT - i, q->answer[i], n_answers};
    }
}

static double exact_log_p(const float *row, int n, int32_t token)
{
    long double sum = 0;
    for (int i = 0; i < n; i++)
        sum += expl((long double)row[i]);
    return (double)((long double)row[token] - logl(sum));
}

static const struct {
    const char *name;
    int n_seqs;
} cases[] = {
    {"gguf/llama-f16/model.gguf", 64}, {"gguf/llama-f16/model.gguf", 6},  {"gguf/gemma3-f16/model.gguf", 16},
    {"models/mistral-swa", 16},        {"models/llama-rope-dynamic", 16},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static size_t n_told;
static void told(void *arg, size_t n_done)
{
    ck_assert_ptr_null(arg);
    ck_assert_uint_gt(n_done, n_told);
    n_told = n_done;
}

START_TEST(answers_are_scored_as_if_alone)
{
    const char *path = test_golden(cases[_i].name);
    if (!path) {
        test_skip(cases[_i].name, "no such golden file");
        return;
    }
    struct setting s = plain;
    s.n_seqs = cases[_i].n_seqs;
    s.n_ctx = (int64_t)64 * s.n_seqs;
    s.n_threads = 2;
    struct fixture f = fixture_open(path, &s);
    static struct questions q;
    make_questions(&q, f.vocab_size);
    const struct asker a = {
        .model = f.model, .cache = f.cache, .context = f.context, .n_seqs = s.n_seqs, .n_ctx = 64};
    n_told = 0;
    ck_assert_msg(queries_score(&a, q.query, N_QUERIES, told, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_uint_eq(n_told, N_QUERIES);

    s.n_seqs = 1;
    s.n_ctx = 64;
    fixture_set(&f, &s);
    float *rows = malloc(64 * (size_t)f.vocab_size * sizeof *rows);
    for (int i = 0; i < N_QUERIES; i++)
        for (int k = 0; k < q.query[i].n_answers; k++) {
            int32_t ids[64];
            const int n_prompt = (int)q.query[i].n_prompt, n = q.answer[i][k].n;
            memcpy(ids, q.prompt[i], (size_t)n_prompt * sizeof *ids);
            memcpy(ids + n_prompt, q.id[i][k], (size_t)n * sizeof *ids);
            cache_drop(f.cache, 0);
            fixture_eval(&f, 0, ids, n_prompt + n - 1, rows);
            double wanted = 0;
            for (int t = 0; t < n; t++)
                wanted += exact_log_p(rows + (int64_t)(n_prompt - 1 + t) * f.vocab_size, f.vocab_size,
                                      q.id[i][k][t]);
            ck_assert_double_eq_tol(q.answer[i][k].log_p, wanted, 1e-5);
        }
    free(rows);
    fixture_close(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/likelihood");
    TCase *tc = tcase_create("likelihood");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, answers_are_scored_as_if_alone, 0, N_CASES);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

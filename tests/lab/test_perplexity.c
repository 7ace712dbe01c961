/* Windows through a model: the same as evaluating each alone and summing in long double, however many run
 * together and however few rows can be held. */
#include "lab/perplexity.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_IDS = 70, CTX = 16 };

static char err[512];

static struct fixture open_model(const char *name, int n_seqs)
{
    const char *path = test_golden(name);
    struct setting s = plain;
    s.n_seqs = n_seqs;
    s.n_ctx = (int64_t)64 * n_seqs;
    s.n_threads = 2;
    return path ? fixture_open(path, &s) : (struct fixture){.vocab_size = 0};
}

static struct ppl_model model_of(const struct fixture *f)
{
    return (struct ppl_model){f->model, f->cache, f->context};
}

static double exact_nll(const float *row, int n, int32_t token)
{
    long double sum = 0;
    for (int i = 0; i < n; i++)
        sum += expl((long double)row[i]);
    return (double)(logl(sum) - (long double)row[token]);
}

static double exact_kl(const float *p, const float *q, int n)
{
    long double sp = 0, sq = 0, kl = 0;
    for (int i = 0; i < n; i++) {
        sp += expl((long double)p[i]);
        sq += expl((long double)q[i]);
    }
    for (int i = 0; i < n; i++)
        kl +=
            expl((long double)p[i]) / sp * (((long double)p[i] - logl(sp)) - ((long double)q[i] - logl(sq)));
    return (double)kl;
}

static struct windows plan(enum protocol p, const int32_t *ids)
{
    struct windows w;
    (void)ids;
    ck_assert_int_eq(windows_plan(&w, p, CTX, p == PROTOCOL_STRIDED ? 5 : 0, N_IDS, 3, 0, err, sizeof err),
                     0);
    return w;
}

static struct token_score *evaluate(const struct ppl_run *r)
{
    struct token_score *s = calloc((size_t)windows_n_scored(r->windows), sizeof *s);
    ck_assert_msg(ppl_evaluate(r, s, err, sizeof err) == 0, "%s", err);
    return s;
}

/* Loop over protocols. */
START_TEST(scores_are_those_of_each_window_alone)
{
    struct fixture f = open_model("gguf/llama-f16/model.gguf", 3),
                   g = open_model("gguf/llama-bf16/model.gguf", 3);
    if (!f.vocab_size || !g.vocab_size) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    int32_t ids[N_IDS], fed[CTX];
    make_ids(ids, N_IDS, f.vocab_size, 5);
    struct windows w = plan((enum protocol)_i, ids);
    struct ppl_run r = {.windows = &w,
                        .ids = ids,
                        .model = model_of(&f),
                        .base = model_of(&g),
                        .n_parallel = 3,
                        .n_threads = 2};
    struct token_score *s = evaluate(&r);
    const size_t n_vocab = (size_t)f.vocab_size;
    float *row = malloc(CTX * n_vocab * sizeof *row), *base = malloc(CTX * n_vocab * sizeof *base);
    const struct token_score *at = s;
    for (int64_t i = 0; i < w.n; i++) {
        struct window in = windows_at(&w, i);
        memcpy(fed, ids + in.begin, (size_t)in.len * sizeof *fed);
        if (in.bos)
            fed[0] = 3;
        cache_drop(f.cache, 0);
        cache_drop(g.cache, 0);
        fixture_eval(&f, 0, fed, (int)in.len, row);
        fixture_eval(&g, 0, fed, (int)in.len, base);
        for (int64_t k = in.first; k < in.len; k++, at++) {
            const float *q = row + (size_t)(k - 1) * n_vocab, *p = base + (size_t)(k - 1) * n_vocab;
            ck_assert_double_eq_tol(at->nll, exact_nll(q, f.vocab_size, fed[k]), 1e-6);
            ck_assert_double_eq_tol(at->base_nll, exact_nll(p, f.vocab_size, fed[k]), 1e-6);
            ck_assert_double_eq_tol(at->kl, exact_kl(p, q, f.vocab_size), 1e-7);
        }
    }
    ck_assert_int_eq(at - s, windows_n_scored(&w));

    /* The same bits one by one, and with room for one row, or three. */
    for (int k = 0; k < 3; k++) {
        r.n_parallel = k < 2 ? 1 : 2;
        r.held_bytes = k == 1 ? 1 : k == 2 ? 3 * n_vocab * sizeof(float) : 0;
        struct token_score *other = evaluate(&r);
        for (int64_t i = 0; i < windows_n_scored(&w); i++)
            ck_assert(s[i].nll == other[i].nll && s[i].base_nll == other[i].base_nll &&
                      s[i].kl == other[i].kl && s[i].same_top == other[i].same_top);
        free(other);
    }
    free(row);
    free(base);
    free(s);
    fixture_close(&f);
    fixture_close(&g);
}
END_TEST

START_TEST(a_base_in_a_file_is_the_base)
{
    struct fixture f = open_model("gguf/llama-f16/model.gguf", 1),
                   g = open_model("gguf/llama-bf16/model.gguf", 1);
    if (!f.vocab_size || !g.vocab_size) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/quoll-base-%ld", (long)getpid());
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 6);
    struct windows w = plan(PROTOCOL_LLAMA, ids);
    struct logits_header h = {.windows = w, .vocab_size = f.vocab_size};
    struct ppl_run r = {.windows = &w, .ids = ids, .model = model_of(&g), .n_parallel = 1, .n_threads = 2};
    r.held_bytes = 1;
    ck_assert_int_eq(logits_writer_open(&r.out, path, &h, ids, err, sizeof err), 0);
    struct token_score *alone = evaluate(&r);
    ck_assert_int_eq(logits_writer_close(r.out, 0), 0);
    r.out = NULL;
    r.model = model_of(&f);
    r.base = model_of(&g);
    struct token_score *wanted = evaluate(&r);
    r.base = (struct ppl_model){.model = NULL};
    ck_assert_msg(logits_reader_open(&r.in, path, err, sizeof err) == 0, "%s", err);
    struct token_score *got = evaluate(&r);
    double mean = 0, sum = 0;
    for (int64_t i = 0; i < windows_n_scored(&w); i++) {
        ck_assert_double_eq_tol(alone[i].nll, wanted[i].base_nll, 1e-12);
        ck_assert_double_eq(got[i].nll, wanted[i].nll);
        ck_assert_double_eq_tol(got[i].base_nll, wanted[i].base_nll, 1e-6);
        ck_assert_double_eq_tol(got[i].kl, wanted[i].kl, 2e-4); /* of flat rows, all of them tail */
        mean += got[i].kl;
        sum += wanted[i].kl;
        ck_assert(got[i].same_top == wanted[i].same_top);
    }
    ck_assert(sum > 0 && mean > 0);
    logits_reader_close(r.in);
    free(alone);
    free(wanted);
    free(got);
    unlink(path);
    fixture_close(&f);
    fixture_close(&g);
}
END_TEST

static bool stop_now(void)
{
    return true;
}

static int n_told;
static void told(void *arg, int64_t n_windows, int64_t n_scored)
{
    n_told++;
    ck_assert_ptr_null(arg);
    ck_assert_int_eq(n_windows, n_told);
    ck_assert_int_eq(n_scored, n_told * (CTX / 2 - 1));
}

START_TEST(it_can_be_stopped_and_tells_how_far_it_is)
{
    struct fixture f = open_model("gguf/llama-f16/model.gguf", 1),
                   g = open_model("gguf/gemma3-f16/model.gguf", 1);
    if (!f.vocab_size || !g.vocab_size) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 6);
    struct windows w = plan(PROTOCOL_LLAMA, ids);
    struct token_score s[N_IDS];
    struct ppl_run r = {.windows = &w, .ids = ids, .model = model_of(&f), .n_parallel = 1, .n_threads = 2};
    r.progress = told;
    n_told = 0;
    ck_assert_int_eq(ppl_evaluate(&r, s, err, sizeof err), 0);
    ck_assert_int_eq(n_told, w.n);
    r.stop = stop_now;
    ck_assert_int_eq(ppl_evaluate(&r, s, err, sizeof err), CONTEXT_STOPPED);
    r.stop = NULL;
    r.base = model_of(&g);
    if (g.vocab_size != f.vocab_size) {
        ck_assert_int_eq(ppl_evaluate(&r, s, err, sizeof err), -1);
        ck_assert_msg(strstr(err, "cannot be compared") != NULL, "%s", err);
    }
    fixture_close(&f);
    fixture_close(&g);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/perplexity");
    TCase *tc = tcase_create("perplexity");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, scores_are_those_of_each_window_alone, 0, N_PROTOCOLS);
    tcase_add_test(tc, a_base_in_a_file_is_the_base);
    tcase_add_test(tc, it_can_be_stopped_and_tells_how_far_it_is);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

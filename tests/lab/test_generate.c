/* Greedy continuations of many prompts at once: the golden ones, and those of each prompt alone. */
#include "lab/generate.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

enum { N = 9, MAX = 12, N_PROMPT = 30, N_SHARED = 20 };

static char err[512];

static bool never(void *arg, size_t i, const struct continuation *c)
{
    (void)arg;
    (void)i;
    (void)c;
    return false;
}

/* Ends continuation i after i + 1 ids. */
static bool by_number(void *arg, size_t i, const struct continuation *c)
{
    (void)arg;
    return c->n == (int)i + 1;
}

static struct fixture open_model(const char *name, int n_seqs)
{
    const char *path = test_golden(name);
    struct setting s = plain;
    s.n_seqs = n_seqs;
    s.n_ctx = (int64_t)128 * n_seqs;
    s.n_threads = 2;
    return path ? fixture_open(path, &s) : (struct fixture){.vocab_size = 0};
}

static const char *const models[] = {"gguf/llama-f16/model.gguf", "gguf/qwen2-f16/model.gguf",
                                     "models/mistral-swa", "models/llama-rope-dynamic"};
enum { N_MODELS = sizeof models / sizeof models[0] };

START_TEST(all_together_are_each_alone)
{
    struct fixture f = open_model(models[_i], 4);
    if (!f.vocab_size) {
        test_skip(models[_i], "no such golden file");
        return;
    }
    int32_t prompt[N][N_PROMPT], together[N][MAX], alone[MAX];
    struct continuation c[N];
    for (int i = 0; i < N; i++) {
        make_ids(prompt[i], N_PROMPT, f.vocab_size, 5 + (unsigned)i);
        make_ids(prompt[i], N_SHARED, f.vocab_size, 5);
        c[i] = (struct continuation){prompt[i], i == 4 ? 1 : N_PROMPT - i, together[i], 0, MAX};
    }
    const struct asker a = {
        .model = f.model, .cache = f.cache, .context = f.context, .n_seqs = 4, .n_ctx = 128};
    struct generate_hooks hooks = {by_number, NULL, NULL};
    ck_assert_msg(generate_greedy(&a, c, N, &hooks, err, sizeof err) == 0, "%s", err);
    hooks.ended = never;
    for (int i = 0; i < N; i++) {
        struct continuation one = c[i];
        ck_assert_int_eq(c[i].n, i + 1);
        one.id = alone;
        one.max = i + 1;
        ck_assert_msg(generate_greedy(&a, &one, 1, &hooks, err, sizeof err) == 0, "%s", err);
        ck_assert_int_eq(one.n, i + 1);
        ck_assert_mem_eq(alone, together[i], (size_t)one.n * sizeof *alone);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(golden_continuations_come_out)
{
    struct fixture f = open_model("gguf/llama-f16/model.gguf", 3);
    const char *path = test_golden("gguf/llama-f16/expected.safetensors");
    if (!f.vocab_size || !path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return;
    }
    struct expected e = expected_open(path);
    int32_t got[2][64];
    struct continuation c[2];
    for (int i = 0; i < 2; i++)
        c[i] = (struct continuation){e.ids, e.n, got[i], 0, e.n_greedy};
    const struct asker a = {
        .model = f.model, .cache = f.cache, .context = f.context, .n_seqs = 3, .n_ctx = 128};
    const struct generate_hooks hooks = {never, NULL, NULL};
    ck_assert_msg(generate_greedy(&a, c, 2, &hooks, err, sizeof err) == 0, "%s", err);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(c[i].n, e.n_greedy);
        ck_assert_mem_eq(got[i], e.greedy, (size_t)e.n_greedy * sizeof *e.greedy);
    }
    ck_assert_int_eq(generate_greedy(&a, c, 0, &hooks, err, sizeof err), 0);
    weights_close(e.w);
    fixture_close(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/generate");
    TCase *tc = tcase_create("generate");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, all_together_are_each_alone, 0, N_MODELS);
    tcase_add_test(tc, golden_continuations_come_out);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

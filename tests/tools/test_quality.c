/* What quantised activations cost: `--compute fast` against `--compute f32` on the default model, over the
 * first 2,000 tokens of an encyclopedia text in windows of 500. */
#include "model/model.h"
#include "tests/test.h"
#include "tokenizer/tokenizer.h"
#include "tools/tools.h"
#include "weights/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 500, N_WINDOWS = 4, N_THREADS = 2, ERR_LEN = 256 };

static char err[ERR_LEN];

/* Logits of every position of one window, malloc'ed. */
static float *window_logits(const struct model *m, const int32_t *ids, enum compute compute)
{
    struct cache_options co = {WINDOW, 1, QTYPE_F16, QTYPE_F16, 0};
    if (compute == COMPUTE_F32)
        co.type_k = co.type_v = QTYPE_F32;
    struct context_options xo = {N_THREADS, N_THREADS, WINDOW, compute, false};
    struct cache *cache;
    struct context *context;
    ck_assert_msg(cache_new(&cache, m, &co, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(context_new(&context, m, cache, &xo, err, sizeof err) == 0, "%s", err);
    uint8_t want[WINDOW];
    memset(want, 1, sizeof want);
    const float *logits;
    struct batch b = {.n = WINDOW, .id = ids, .want_logits = want};
    ck_assert_msg(context_eval(context, &b, &logits, err, sizeof err) == 0, "%s", err);
    size_t bytes = sizeof(float) * WINDOW * (size_t)model_config(m)->vocab_size;
    float *copy = malloc(bytes);
    memcpy(copy, logits, bytes);
    context_free(context);
    cache_free(cache);
    return copy;
}

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static double log_sum_exp(const float *x, int n)
{
    double max = x[argmax(x, n)], sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* KL(p ‖ q) of two rows of logits. */
static double divergence(const float *p, const float *q, int n)
{
    double lp = log_sum_exp(p, n), lq = log_sum_exp(q, n), kl = 0;
    for (int i = 0; i < n; i++)
        kl += exp(p[i] - lp) * ((p[i] - lp) - (q[i] - lq));
    return kl;
}

START_TEST(fast_is_close_to_f32)
{
#ifdef __SANITIZE_ADDRESS__
    test_skip("fast against f32", "too slow under sanitizers");
    return;
#endif
    const char *model = test_model("SmolLM2-135M-Instruct.Q4_1.gguf"),
               *path = test_golden("../text/wiki-eval.txt");
    if (!model || !path) {
        test_skip("fast against f32",
                  model ? "no text to measure on" : "the default model is not in weights/");
        return;
    }
    char *text;
    size_t len, n_ids;
    int32_t *ids;
    struct weights *w;
    struct tokenizer *t;
    struct model *m;
    struct model_options mo = {.ops = ops_cpu(isa_best()), .n_threads = N_THREADS, .rope_scaling = -1};
    ck_assert_msg(read_file(path, &text, &len, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(weights_open(&w, test_model("SmolLM2-135M-Instruct.Q4_1.gguf"), NULL, err, sizeof err) == 0,
                  "%s", err);
    ck_assert_msg(vocab_open(&t, w, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(tokenizer_encode(t, text, len < 20000 ? len : 20000, 0, &ids, &n_ids, err, sizeof err) == 0,
                  "%s", err);
    ck_assert_uint_ge(n_ids, WINDOW * N_WINDOWS);
    ck_assert_msg(model_load(&m, w, &mo, err, sizeof err) == 0, "%s", err);

    int vocab = model_config(m)->vocab_size, same = 0;
    double kl = 0;
    for (int i = 0; i < N_WINDOWS; i++) {
        float *exact = window_logits(m, ids + i * WINDOW, COMPUTE_F32);
        float *fast = window_logits(m, ids + i * WINDOW, COMPUTE_FAST);
        for (int j = 0; j < WINDOW; j++) {
            const float *p = exact + (size_t)j * (size_t)vocab, *q = fast + (size_t)j * (size_t)vocab;
            kl += divergence(p, q, vocab);
            same += argmax(p, vocab) == argmax(q, vocab);
        }
        free(exact);
        free(fast);
    }
    kl /= WINDOW * N_WINDOWS;
    double top1 = 100.0 * same / (WINDOW * N_WINDOWS);
    (void)fprintf(stderr,
                  "fast against f32 on the default model: mean KL divergence %.5f, same top-1 %.2f %%\n", kl,
                  top1);
    ck_assert_msg(kl <= 0.0035, "mean KL divergence %g", kl);
    ck_assert_msg(kl > 0, "fast is f32: nothing was compared");
    ck_assert_msg(top1 >= 96, "same top-1 on %g %% of the positions", top1);
    model_free(m);
    tokenizer_free(t);
    weights_close(w);
    free(ids);
    free(text);
}
END_TEST

static Suite *quality_suite(void)
{
    Suite *s = suite_create("tools/quality");
    TCase *tc = tcase_create("quality");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, fast_is_close_to_f32);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(quality_suite)

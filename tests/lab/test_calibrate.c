/* Methods on whole models: what the quantised file computes. */
#include "tests/lab/scratch.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const char *const models[] = {
    "gguf/llama-f32/model.gguf",
    "models/llama-gqa-tied",
    "models/qwen2",
    "models/llama-headdim-bias",
    "models/chatglm2",
    "models/chatglm1",
    "models/mixtral",
    "models/gemma3",
    "models/phi3",
    "models/glm4",
    "models/qwen3-moe",
    "models/llama-gptq-desc-act",
};
enum { N_MODELS = sizeof models / sizeof *models, N_TEXT = 24, SEQ_LEN = 32, N_CALIB = 3 * SEQ_LEN };

static const struct method {
    enum solver solver;
    bool awq, act_order;
} methods[] = {
    {SOLVE_NEAREST, true, false},
    {SOLVE_GPTQ, false, false},
    {SOLVE_GPTQ, true, true},
};
enum { N_METHODS = sizeof methods / sizeof *methods };

static char err[512];

/* 0, or what quantize_write says. */
static int quantise(const char *from, const char *to, const char *type, const struct method *method,
                    int n_threads, const int32_t *ids, int64_t n_ids)
{
    const struct calibration calibration = {.solver = method ? method->solver : SOLVE_NEAREST,
                                            .awq = method && method->awq,
                                            .act_order = method && method->act_order,
                                            .ids = ids,
                                            .n_ids = n_ids,
                                            .seq_len = SEQ_LEN,
                                            .n_threads = n_threads,
                                            .ops = ops_cpu(isa_best())};
    const struct quantize_options o = {.mix = mix_by_name(type),
                                       .pure = true,
                                       .output_type = QTYPE_F32,
                                       .embedding_type = QTYPE_F32,
                                       .calibration = method ? &calibration : NULL,
                                       .n_threads = n_threads};
    ck_assert_ptr_nonnull(o.mix);
    return scratch_gguf(from, to, &o, err, sizeof err);
}

/* The logits of N_TEXT ids, and the N_CALIB that begin with them. */
static float *logits_of(const char *path, int *vocab_size, int32_t ids[N_CALIB])
{
    float *logits = scratch_logits(path, N_TEXT, vocab_size);
    make_ids(ids, N_CALIB, *vocab_size, SCRATCH_SEED);
    return logits;
}

static double mean_square(const float *a, const float *b, int vocab_size)
{
    double sum = 0;
    for (int i = 0; i < N_TEXT * vocab_size; i++) {
        const double d = (double)a[i] - (b ? (double)b[i] : 0);
        sum += d * d;
    }
    return sum / (N_TEXT * (double)vocab_size);
}

/* With 8 bits next to nothing is lost: a scale that was not taken back, a bias left as it was, heads that got
 * those of others would show. */
START_TEST(keeps_the_function)
{
    const char *path = test_golden(models[_i / N_METHODS]);
    const struct method *method = &methods[_i % N_METHODS];
    const char *out = scratch("out.gguf");
    if (!path) {
        test_skip("keeps_the_function", "the golden model is not here");
        return;
    }
    int vocab_size;
    int32_t ids[N_CALIB];
    float *expected = logits_of(path, &vocab_size, ids);
    ck_assert_msg(quantise(path, out, "q8_0", method, 1, ids, N_CALIB) == 0, "%s", err);
    float *got = logits_of(out, &vocab_size, ids);
    const double off = mean_square(got, expected, vocab_size), size = mean_square(expected, NULL, vocab_size);
    ck_assert_msg(off < 0.03 * size, "%s: %g of %g", path, off, size);
    free(got);
    free(expected);
}
END_TEST

START_TEST(gptq_beats_rounding)
{
    const char *path = test_golden("gguf/llama-f32/model.gguf");
    const char *out = scratch("out.gguf");
    if (!path) {
        test_skip("gptq_beats_rounding", "the golden model is not here");
        return;
    }
    int vocab_size;
    int32_t ids[N_CALIB];
    float *expected = logits_of(path, &vocab_size, ids);
    double off[2];
    for (int k = 0; k < 2; k++) {
        ck_assert_msg(quantise(path, out, "q4_0", k ? &methods[1] : NULL, 2, ids, N_CALIB) == 0, "%s", err);
        float *got = logits_of(out, &vocab_size, ids);
        off[k] = mean_square(got, expected, vocab_size);
        free(got);
    }
    ck_assert_msg(off[1] < 0.9 * off[0], "%g, rounded %g", off[1], off[0]);
    ck_assert_int_eq(quantise(path, out, "q4_0", &methods[1], 1, ids, SEQ_LEN - 1), -1);
    ck_assert_ptr_nonnull(strstr(err, "calibration text"));
    free(expected);
}
END_TEST

/* Folders in the GPTQ format, whose rows are in Hugging Face's order. */
START_TEST(folders_keep_the_function)
{
    static const char *const of[] = {"gguf/llama-f32/model.gguf", "models/llama-gqa-tied", "models/qwen2",
                                     "models/phi3"};
    const char *path = test_golden(of[_i]);
    const char *out = scratch("folder");
    if (!path) {
        test_skip("folders_keep_the_function", "the golden model is not here");
        return;
    }
    int vocab_size;
    int32_t ids[N_CALIB];
    float *expected = logits_of(path, &vocab_size, ids);
    const struct calibration calibration = {.solver = SOLVE_GPTQ,
                                            .awq = true,
                                            .act_order = true,
                                            .ids = ids,
                                            .n_ids = N_CALIB,
                                            .seq_len = SEQ_LEN,
                                            .n_threads = 1,
                                            .ops = ops_cpu(isa_best())};
    const struct gptq_folder_options o = {
        .type = gptq_folder_type_by_name("int8_g32"), .calibration = &calibration, .n_threads = 1};
    ck_assert_msg(scratch_gptq(path, out, &o, err, sizeof err) == 0, "%s", err);
    float *got = logits_of(out, &vocab_size, ids);
    const double off = mean_square(got, expected, vocab_size), size = mean_square(expected, NULL, vocab_size);
    ck_assert_msg(off < 0.03 * size, "%s: %g of %g", path, off, size);
    free(got);
    free(expected);
}
END_TEST

static Suite *calibrate_suite(void)
{
    Suite *s = suite_create("calibrate");
    TCase *t = tcase_create("calibrate");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, scratch_make, scratch_remove);
    tcase_add_loop_test(t, keeps_the_function, 0, N_MODELS * N_METHODS);
    tcase_add_loop_test(t, folders_keep_the_function, 0, 4);
    tcase_add_test(t, gptq_beats_rounding);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(calibrate_suite)

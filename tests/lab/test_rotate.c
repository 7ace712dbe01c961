/* A rotated model computes what it did, in another basis; where it would not, it is refused. */
#include "lab/gptq_folder.h"
#include "lab/quantize.h"
#include "lab/rotate.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const accepted[] = {
    "gguf/llama-f32/model.gguf",
    "gguf/qwen2-f16/model.gguf",
    "gguf/qwen3-f32/model.gguf",
    "gguf/quant-q4_1/model.gguf",
    "models/llama",
    "models/llama-gqa-tied",
    "models/llama-headdim-bias",
    "models/llama3-rope",
    "models/llama-rope-yarn",
    "models/llama-gptq-desc-act",
    "models/llama-awq",
    "models/mistral-swa",
    "models/mixtral",
    "models/qwen2",
    "models/qwen3",
    "models/qwen3-moe",
    "models/phi3",
    "models/gemma",
    "models/chatglm2",
    "models/chatglm2-int4",
    "models/chatglm3",
    "models/glm",
};
enum { N_ACCEPTED = sizeof accepted / sizeof *accepted, N_IDS = 24 };

static const struct {
    const char *model, *why;
} refused[] = {
    {"models/chatglm1", "LayerNorm"},
    {"gguf/gemma3-f32/model.gguf", "norms behind attention"},
    {"models/gemma3", "norms behind attention"},
    {"models/glm4", "norms behind attention"},
};
enum { N_REFUSED = sizeof refused / sizeof *refused };

static char folder[] = "/tmp/quoll-rotate-XXXXXX";
static char err[512];

static void setup(void)
{
    (void)strcpy(folder, "/tmp/quoll-rotate-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static const char *in_folder(const char *name)
{
    static char path[3][64];
    static int next;
    char *p = path[next++ % 3];
    (void)snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

/* NULL after saying that it is not here. */
static const char *golden(const char *name)
{
    const char *path = test_golden(name);
    if (!path)
        test_skip("rotate", "the golden model is not here");
    return path;
}

static struct weights *open_model(const char *path)
{
    struct weights *w;
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    return w;
}

static bool rotate(const char *from, const char *to, int n_threads)
{
    const struct rotate_options o = {.n_threads = n_threads};
    bool untied;
    struct weights *w = open_model(from);
    ck_assert_msg(rotate_write(to, w, &o, &untied, err, sizeof err) == 0, "%s: %s", from, err);
    weights_close(w);
    return untied;
}

/* (N_IDS, vocab_size): malloc'ed. */
static float *logits_of(const char *path, int *n)
{
    struct fixture f = fixture_open(path, &plain);
    int32_t ids[N_IDS];
    make_ids(ids, N_IDS, f.vocab_size, 5);
    *n = N_IDS * f.vocab_size;
    float *logits = malloc((size_t)*n * sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    fixture_eval(&f, 0, ids, N_IDS, logits);
    fixture_close(&f);
    return logits;
}

/* The root mean square of a − b over that of b. */
static double distance(const float *a, const float *b, int n)
{
    double off = 0, size = 0;
    for (int i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        off += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(off / size);
}

static double distance_of(const char *model, const char *from)
{
    int n;
    float *expected = logits_of(from, &n), *got = logits_of(model, &n);
    const double d = distance(got, expected, n);
    free(expected);
    free(got);
    return d;
}

START_TEST(computes_the_same)
{
    const char *model = golden(accepted[_i]), *rotated = in_folder("rotated.gguf");
    if (!model)
        return;
    rotate(model, rotated, 2);
    const double d = distance_of(rotated, model);
    ck_assert_msg(d < 2e-5, "%s: logits are %g off", model, d);

    /* … not because nothing was done: gains are gone, matrices are others. */
    struct weights *a = open_model(rotated);
    const struct tensor *norm = weights_find(a, "blk.1.ffn_norm.weight");
    norm = norm ? norm : weights_find(a, "blk.0.ffn_norm.weight");
    ck_assert_ptr_nonnull(norm);
    for (int64_t i = 0; i < norm->dims[0]; i++) {
        float gain;
        memcpy(&gain, (const char *)norm->data + (size_t)i * sizeof gain, sizeof gain);
        ck_assert(gain == 1);
    }
    weights_close(a);
}
END_TEST

START_TEST(is_refused)
{
    const char *model = golden(refused[_i].model);
    if (!model)
        return;
    const struct rotate_options o = {.n_threads = 1};
    struct weights *w = open_model(model), *rotated;
    ck_assert_int_eq(rotate_open(&rotated, in_folder("rotated.gguf"), w, &o, NULL, err, sizeof err), -1);
    ck_assert_ptr_null(rotated);
    ck_assert_msg(strstr(err, "cannot be rotated") && strstr(err, refused[_i].why), "%s", err);
    ck_assert_int_ne(access(in_folder("rotated.gguf"), F_OK), 0);
    weights_close(w);
}
END_TEST

/* The largest element over the root mean square. */
static double peak_of(const struct tensor *t)
{
    double sum = 0, peak = 0;
    const size_t n = t->bytes / sizeof(float);
    for (size_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, (const char *)t->data + i * sizeof x, sizeof x);
        sum += (double)x * (double)x;
        peak = fmax(peak, fabs((double)x));
    }
    return peak / sqrt(sum / (double)n);
}

/* A golden model with element (row, col) of a matrix set, row −1: all rows' multiplied. Lent until the next.
 */
static const char *edited(const char *tensor, int64_t row, int64_t col, float x)
{
    struct edit *g = edit_golden("gguf/llama-f32/model.gguf");
    if (!g)
        return NULL;
    struct edit_tensor *t = edit_find(g, tensor);
    float *v = t->data;
    const int64_t cols = (int64_t)t->dims[0], rows = t->n_dims > 1 ? (int64_t)t->dims[1] : 1;
    for (int64_t r = 0; r < rows; r++)
        if (row == r || row < 0)
            v[r * cols + col] = row < 0 ? v[r * cols + col] * x : x;
    const char *path = edit_write(g);
    edit_free(g);
    return path;
}

/* A column that is much larger than the others is spread over all of them. */
START_TEST(spreads_outliers)
{
    const char *model = edited("blk.0.attn_q.weight", -1, 5, 30), *rotated = in_folder("rotated.gguf");
    if (!model)
        return;
    rotate(model, rotated, 1);
    struct weights *a = open_model(model), *b = open_model(rotated);
    const double before = peak_of(weights_find(a, "blk.0.attn_q.weight")),
                 after = peak_of(weights_find(b, "blk.0.attn_q.weight"));
    ck_assert_msg(after < 0.4 * before, "%g, before %g", after, before);
    weights_close(a);
    weights_close(b);
    ck_assert_double_le(distance_of(rotated, model), 2e-5);
}
END_TEST

static bool stop_at_half(void *arg, const char *tensor, double fraction)
{
    ck_assert_ptr_nonnull(tensor);
    ck_assert(fraction >= *(double *)arg && fraction <= 1);
    *(double *)arg = fraction;
    return fraction < 0.5;
}

START_TEST(bits_and_ends)
{
    const char *model = golden("models/phi3"), *one = in_folder("one.gguf"), *two = in_folder("two.gguf");
    if (!model)
        return;
    rotate(model, one, 1);
    rotate(model, two, 3);
    char command[192];
    (void)snprintf(command, sizeof command, "cmp %s %s && rm %s %s", one, two, one, two);
    ck_assert_int_eq(system(command), 0);

    /* Opened, it has no name any more. */
    const struct rotate_options o = {.n_threads = 2};
    struct weights *w = open_model(model), *rotated;
    ck_assert_msg(rotate_open(&rotated, one, w, &o, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_int_ne(access(one, F_OK), 0);
    weights_close(rotated);

    double at = 0;
    const struct rotate_options stopped = {1, stop_at_half, &at};
    ck_assert_int_eq(rotate_open(&rotated, one, w, &stopped, NULL, err, sizeof err), -1);
    ck_assert_str_eq(err, "");
    (void)snprintf(command, sizeof command, "test -z \"$(ls %s)\"", folder);
    ck_assert_int_eq(system(command), 0);
    weights_close(w);
}
END_TEST

/* The embedding that is the output too becomes two tensors, which differ by the last norm's gain. */
START_TEST(tied_models_are_untied)
{
    const char *model = golden("models/llama-gqa-tied"), *rotated = in_folder("rotated.gguf");
    if (!model)
        return;
    ck_assert(rotate(model, rotated, 1));
    struct weights *w = open_model(rotated);
    const struct tensor *in = weights_find(w, "token_embd.weight"), *out = weights_find(w, "output.weight");
    ck_assert(in && out && in->bytes == out->bytes);
    weights_close(w);
    const char *not_tied = golden("models/llama");
    ck_assert(!rotate(not_tied, in_folder("other.gguf"), 1));
}
END_TEST

START_TEST(faults_are_named)
{
    const struct rotate_options o = {.n_threads = 2};
    static const char *const tensors[] = {"blk.1.ffn_up.weight", "blk.1.attn_v.weight",
                                          "blk.1.ffn_norm.weight"};
    const char *model = edited(tensors[_i], 0, 3, NAN);
    if (!model)
        return;
    struct weights *w = open_model(model);
    ck_assert_int_eq(rotate_write(in_folder("x.gguf"), w, &o, NULL, err, sizeof err), -1);
    ck_assert_msg(strstr(err, tensors[_i]) && strstr(err, "NaN in row 0, column 3"), "%s", err);
    ck_assert_int_ne(access(in_folder("x.gguf"), F_OK), 0);
    ck_assert_int_eq(rotate_write("/nowhere/x.gguf", w, &o, NULL, err, sizeof err), -1);
    ck_assert_msg(strstr(err, "/nowhere/x.gguf") != NULL, "%s", err);
    weights_close(w);
}
END_TEST

/* Quantised after it: a GGUF, and a folder in whose config.json the matrices are no longer tied. */
START_TEST(quantised_files_run)
{
    static const char *const of[] = {"models/llama-gqa-tied", "gguf/llama-f32/model.gguf", "models/glm",
                                     "models/phi3"};
    const char *model = golden(of[_i]), *gguf = in_folder("q.gguf"), *to = in_folder("folder");
    if (!model)
        return;
    const struct rotate_options o = {.n_threads = 1};
    struct weights *w = open_model(model), *rotated;
    ck_assert_msg(rotate_open(&rotated, in_folder("r.tmp"), w, &o, NULL, err, sizeof err) == 0, "%s", err);

    struct quantize *q;
    const struct quantize_rule rule = {"ffn_down", QTYPE_F16};
    const struct quantize_options qo = {.mix = mix_by_name("q8_0"),
                                        .output_type = QTYPE_F16,
                                        .embedding_type = QTYPE_F16,
                                        .rules = &rule,
                                        .n_rules = 1,
                                        .n_threads = 2};
    ck_assert_msg(quantize_open(&q, rotated, &qo, err, sizeof err) == 0, "%s", err);
    size_t n;
    const struct meta *meta = quantize_meta(q, &n);
    ck_assert_msg(quantize_write(q, gguf, meta, n, NULL, NULL, err, sizeof err) == 0, "%s", err);
    quantize_close(q);
    double d = distance_of(gguf, model);
    ck_assert_msg(d > 1e-5 && d < 0.1, "%s: %g", model, d);

    const struct gptq_folder_options fo = {
        .type = gptq_folder_type_by_name("int8_g32"), .source = w, .n_threads = 2};
    ck_assert_msg(gptq_folder_write(to, rotated, &fo, err, sizeof err) == 0, "%s", err);
    d = distance_of(to, model);
    ck_assert_msg(d > 1e-5 && d < 0.1, "%s: %g", model, d);
    weights_close(rotated);
    weights_close(w);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("rotate");
    TCase *tc = tcase_create("rotate");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, computes_the_same, 0, N_ACCEPTED);
    tcase_add_loop_test(tc, is_refused, 0, N_REFUSED);
    tcase_add_loop_test(tc, quantised_files_run, 0, 4);
    tcase_add_test(tc, spreads_outliers);
    tcase_add_test(tc, bits_and_ends);
    tcase_add_test(tc, tied_models_are_untied);
    tcase_add_loop_test(tc, faults_are_named, 0, 3);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

/* Histograms of errors against a plain loop over both models' floats. */
#include "lab/errors.h"
#include "tests/lab/scratch.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char err[512];

static int quantise(const char *from, const char *to, const char *type)
{
    const struct gptq_folder_type *folder = gptq_folder_type_by_name(type);
    const struct gptq_folder_options fo = {.type = folder, .n_threads = 1};
    const struct quantize_options qo = {
        .mix = mix_by_name(type), .output_type = QTYPE_F16, .embedding_type = -1, .n_threads = 1};
    return folder ? scratch_gptq(from, to, &fo, err, sizeof err)
                  : scratch_gguf(from, to, &qo, err, sizeof err);
}

static float *floats_of(const struct export *e, const char *name, int64_t *n)
{
    size_t n_tensors, i = 0;
    const struct save_gguf_tensor *t = export_tensors(e, &n_tensors);
    while (strcmp(t[i].name, name) != 0)
        i++;
    *n = t[i].dims[0] * t[i].dims[1];
    float *x = malloc((size_t)*n * sizeof *x);
    ck_assert_int_eq(export_floats(e, i, 0, t[i].dims[1], x), 0);
    return x;
}

static void check(const struct tensor_errors *t, const struct export *a, const struct export *b)
{
    int64_t n, m, bin[ERRORS_BINS] = {0};
    double squares = 0, sum = 0, max = 0;
    float *w = floats_of(a, t->name, &n), *got = floats_of(b, t->name, &m);
    ck_assert_int_eq(n, m);
    ck_assert_int_eq(t->n, n);
    for (int64_t i = 0; i < n; i++)
        squares += (double)w[i] * (double)w[i];
    const double rms = sqrt(squares / (double)n);
    for (int64_t i = 0; i < n; i++) {
        const double e = fabs((double)got[i] - (double)w[i]) / rms;
        int at = e > 0 ? (int)floor(2 * (log2(e) - ERRORS_LOW)) : 0;
        bin[at < 0 ? 0 : at < ERRORS_BINS ? at : ERRORS_BINS - 1]++;
        sum += e * e;
        max = e > max ? e : max;
    }
    ck_assert_double_eq_tol(t->rms, sqrt(sum / (double)n), 1e-9);
    ck_assert_double_eq_tol(t->max, max, 1e-9);
    int64_t moved = 0, total = 0;
    for (int k = 0; k < ERRORS_BINS; k++) {
        moved += llabs(bin[k] - t->bin[k]);
        total += t->bin[k];
    }
    ck_assert_int_eq(total, n);
    ck_assert_int_le(moved, 4); /* on a border, which logarithms miss by a rounding */
    free(w);
    free(got);
}

static bool at_once(void)
{
    return true;
}

START_TEST(as_a_plain_loop)
{
    static const char *const types[] = {"q8_0", "q4_0", "q2_k", "int4_g32"};
    const char *model = test_golden("gguf/llama-f32/model.gguf");
    if (!model) {
        test_skip("as_a_plain_loop", "the golden model is not here");
        return;
    }
    struct weights *w, *made;
    struct export *a, *b;
    struct tensor_errors *t, *again;
    size_t n, n_again;
    ck_assert_msg(weights_open(&w, model, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(quantise(model, scratch("made"), types[_i]) == 0, "%s", err);
    ck_assert_msg(weights_open(&made, scratch("made"), NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(errors_measure(&t, &n, w, made, 1, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(errors_measure(&again, &n_again, w, made, 3, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_uint_eq(n, n_again);
    ck_assert_mem_eq(t, again, n * sizeof *t);
    ck_assert_msg(export_open(&a, w, -1, NULL, 0, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(export_open(&b, made, -1, NULL, 0, err, sizeof err) == 0, "%s", err);
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        ck_assert_str_ne(t[i].name, "output_norm.weight");
        ck_assert_str_ne(t[i].name, "output.weight");
        found = found || strcmp(t[i].name, "blk.1.ffn_down.weight") == 0;
        check(&t[i], a, b);
    }
    ck_assert(found);
    free(t);
    ck_assert_int_eq(errors_measure(&t, &n, w, made, 1, at_once, err, sizeof err), 1);
    ck_assert_ptr_null(t);
    ck_assert_int_eq(errors_measure(&t, &n, w, w, 1, NULL, err, sizeof err), 0);
    ck_assert_uint_eq(n, 0); /* nothing is quantised */
    free(t);
    free(again);
    export_close(a);
    export_close(b);
    weights_close(made);
    weights_close(w);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/errors");
    TCase *tc = tcase_create("errors");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, scratch_make, scratch_remove);
    tcase_add_loop_test(tc, as_a_plain_loop, 0, 4);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

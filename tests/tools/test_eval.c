/* `quoll eval` of a tiny random model: the counts of what it finds likeliest, by `quoll logits` too. */
#include "tests/test.h"
#include "tests/tools/cli.h"
#include "weights/weights.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 12 };

static char folder[32], csv[80], dev[80], written[80];

static void setup(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/quoll-eval-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(csv, sizeof csv, "%s/law_test.csv", folder);
    (void)snprintf(dev, sizeof dev, "%s/law_dev.csv", folder);
    (void)snprintf(written, sizeof written, "%s/sums.jsonl", folder);
    FILE *f = fopen(csv, "w");
    for (int i = 0; i < N; i++)
        fprintf(f, "Is %d more than %d?,yes,no,\"never, I think\",%c\n", i, i * 7 % 5, 'A' + i % 3);
    fclose(f);
    f = fopen(dev, "w");
    for (int i = 0; i < 3; i++)
        fprintf(f, "Is %d odd?,yes,no,perhaps,%c\n", i, 'A' + i % 2);
    fclose(f);
    f = fopen(written, "w");
    for (int i = 0; i < 3; i++)
        fprintf(f, "{\"question\":\"What is %d + 1?\",\"answer\":\"#### %d\"}\n", i, i + 1);
    fclose(f);
}

static void teardown(void)
{
    unlink(csv);
    unlink(dev);
    unlink(written);
    rmdir(folder);
}

#define MEASURE(...) cli_json((const char *const[]){"eval", __VA_ARGS__, "--json", NULL})

/* The ids of a text; their number. */
static int ids_of(const char *model, const char *text, int32_t *ids)
{
    struct cli c = CLI(text, "tokenize", "-m", model, "--json", "--no-special");
    json_t *a = json_loads(c.out, 0, NULL);
    int n = (int)json_array_size(a);
    ck_assert_int_lt(n, 1024);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    json_decref(a);
    cli_free(&c);
    return n;
}

/* ln p of what `more` adds to a prompt, by `quoll logits`. */
static double log_p(const char *model, const char *prompt, const char *more)
{
    static int32_t ids[1024], all[1024];
    char text[2048], list[16384], path[96];
    (void)snprintf(text, sizeof text, "%s%s", prompt, more);
    const int n_prompt = ids_of(model, prompt, ids), n = ids_of(model, text, all);
    ck_assert(n > n_prompt && memcmp(ids, all, (size_t)n_prompt * sizeof *ids) == 0);
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%d ", all[i]);
    (void)snprintf(path, sizeof path, "%s/logits.safetensors", folder);
    cli_expect(CLI(list, "logits", "-m", model, "--ids", "-", "-o", path), 0, "");
    struct weights *w;
    char err[256];
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    const struct tensor *t = weights_find(w, "logits");
    double sum = 0;
    for (int i = n_prompt; i < n; i++) {
        double z = 0, own = 0;
        for (int64_t k = 0; k < t->dims[0]; k++) {
            float x;
            memcpy(&x, (const char *)t->data + ((i - 1) * t->dims[0] + k) * 4, sizeof x);
            z += exp((double)x);
            own = k == all[i] ? (double)x : own;
        }
        sum += own - log(z);
    }
    weights_close(w);
    unlink(path);
    return sum;
}

/* Letters without examples, and texts divided by their bytes. Loop test. */
START_TEST(the_likeliest_choice_counts)
{
    const char *model = cli_model();
    if (!model)
        return;
    static const char *const texts[] = {" yes", " no", " never, I think"}, *const letters[] = {" A", " B",
                                                                                               " C"};
    const bool by_text = _i;
    int right = 0;
    for (int i = 0; i < 4; i++) {
        char prompt[512];
        int best = 0;
        double best_p = -INFINITY;
        (void)snprintf(prompt, sizeof prompt,
                       by_text ? "Is %d more than %d?"
                               : "The following are multiple choice questions (with answers) about law.\n\n"
                                 "Is %d more than %d?\nA. yes\nB. no\nC. never, I think\nAnswer:",
                       i, i * 7 % 5);
        for (int k = 0; k < 3; k++) {
            double p = log_p(model, prompt, by_text ? texts[k] : letters[k]);
            p /= by_text ? (double)strlen(texts[k]) : 1;
            best = p > best_p ? k : best;
            best_p = p > best_p ? p : best_p;
        }
        right += best == i % 3;
    }
    json_t *r = by_text ? MEASURE("-m", model, "-f", csv, "--limit", "4", "--normalise")
                        : MEASURE("-m", model, "-f", csv, "--limit", "4");
    ck_assert_int_eq((int)cli_number(r, "n"), 4);
    ck_assert_int_eq((int)cli_number(r, "n_right"), right);
    json_decref(r);
}
END_TEST

START_TEST(how_it_runs_changes_nothing)
{
    const char *model = cli_model();
    if (!model)
        return;
    json_t *a = MEASURE("-m", model, "-f", csv, "--dev", dev);
    json_t *b = MEASURE("-m", model, "-f", csv, "--dev", dev, "--parallel", "1", "-b", "16", "-t", "1");
    ck_assert(json_equal(a, b));
    ck_assert_int_eq((int)cli_number(a, "n"), N);
    const json_t *law = json_object_get(json_object_get(a, "subjects"), "law");
    ck_assert_int_eq((int)cli_number(law, "n"), N);
    /* Wilson's interval, from its definition: |p − x| = z sqrt(x (1 − x) / n) at both ends. */
    const double p = cli_number(a, "accuracy"), ends[] = {cli_number(a, "ci_low"), cli_number(a, "ci_high")};
    for (int i = 0; i < 2; i++)
        ck_assert_double_eq_tol(fabs(p - ends[i]), 1.959964 * sqrt(ends[i] * (1 - ends[i]) / N), 1e-5);
    ck_assert(ends[0] <= p && p <= ends[1]);
    json_decref(a);
    json_decref(b);
}
END_TEST

START_TEST(written_answers_are_asked_for)
{
    const char *model = cli_model();
    if (!model)
        return;
    json_t *r = MEASURE("-m", model, "-f", written, "-n", "8");
    ck_assert_int_eq((int)cli_number(r, "n"), 3);
    json_decref(r);
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", written, "-n", "4", "--dev", written, "--shots", "2"), 0,
               "Accuracy");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", csv, "-f", dev), 0, "of 15");
}
END_TEST

START_TEST(faults_are_told)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "eval", "-m", model), 2, "questions are missing");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", csv, "--shots", "2"), 2, "--dev");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", "/nowhere/x.csv"), 1, "/nowhere/x.csv: ");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", csv, "-f", written), 1, "cannot be one test");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", csv, "--dev", written), 1, "sums.jsonl: line 1");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", csv, "-c", "16"), 1, "law_test.csv: line 1: a prompt of");
    cli_expect(CLI(NULL, "eval", "-m", model, "-f", csv, "-f", "/nowhere/x.csv"), 1, "/nowhere/x.csv: ");
    cli_expect(
        CLI_SHELL("printf 'q,a,b,A\\nq,a\\n' >\"$2/bad.csv\"; $Q eval -m \"$1\" -f \"$2/bad.csv\"; c=$?; "
                  "rm \"$2/bad.csv\"; exit $c",
                  model, folder),
        1, "bad.csv: line 2: 2 fields, not 4");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tools/eval");
    TCase *tc = tcase_create("eval");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, the_likeliest_choice_counts, 0, 2);
    tcase_add_test(tc, how_it_runs_changes_nothing);
    tcase_add_test(tc, written_answers_are_asked_for);
    tcase_add_test(tc, faults_are_told);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

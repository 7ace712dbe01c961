/* `quoll perplexity`: its numbers against those of `quoll logits`, bases in files and in memory, and faults.
 */
#include "tests/test.h"
#include "tests/tools/cli.h"
#include "weights/weights.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text_path[64], base_path[64];

/* A text of some hundred tokens. */
static void setup(void)
{
    (void)snprintf(text_path, sizeof text_path, "/tmp/quoll-text-%ld", (long)getpid());
    (void)snprintf(base_path, sizeof base_path, "/tmp/quoll-base-%ld", (long)getpid());
    cli_write_text(text_path);
}

static void teardown(void)
{
    unlink(text_path);
    unlink(base_path);
}

static const char *other_model(void)
{
    static char path[1024];
    const char *found = test_golden("gguf/llama-bf16/model.gguf");
    if (found)
        (void)snprintf(path, sizeof path, "%s", found);
    return found ? path : NULL;
}

#define MEASURE(...) cli_json((const char *const[]){"perplexity", __VA_ARGS__, "--json", NULL})

/* −ln p of the tokens of a window that `quoll logits` evaluates. */
static void add_window(const char *model, const int32_t *ids, int n, int first, double *sum, int *count)
{
    char list[8192], path[80];
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%d ", ids[i]);
    (void)snprintf(path, sizeof path, "/tmp/quoll-window-%ld.safetensors", (long)getpid());
    cli_expect(CLI(list, "logits", "-m", model, "--ids", "-", "-o", path), 0, "");
    struct weights *w;
    char err[256];
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    const struct tensor *t = weights_find(w, "logits");
    ck_assert_ptr_nonnull(t);
    for (int i = first; i < n; i++) {
        long double all = 0, own = 0;
        for (int64_t k = 0; k < t->dims[0]; k++) {
            float x;
            memcpy(&x, (const char *)t->data + ((i - 1) * t->dims[0] + k) * 4, sizeof x);
            all += expl((long double)x);
            own = k == ids[i] ? (long double)x : own;
        }
        *sum += (double)(logl(all) - own);
        (*count)++;
    }
    weights_close(w);
    unlink(path);
}

/* The text's ids as `quoll tokenize` has them. */
static int text_ids(const char *model, int32_t *ids, int max)
{
    struct cli c = CLI(NULL, "tokenize", "-m", model, "-f", text_path, "--no-special");
    ck_assert_int_eq(c.code, 0);
    int n = 0;
    for (char *at = c.out, *end; n < max; at = end) {
        long id = strtol(at, &end, 10);
        if (end == at)
            break;
        ids[n++] = (int32_t)id;
    }
    cli_free(&c);
    return n;
}

START_TEST(numbers_are_those_of_the_logits)
{
    enum { CTX = 40, MAX = 4096 };
    const char *model = cli_model();
    if (!model)
        return;
    static int32_t ids[MAX];
    const int n = text_ids(model, ids, MAX);
    static const struct {
        const char *name;
        int step, first, later; /* windows' distance; tokens of the first and the later windows that count */
    } cases[] = {{"llama", CTX, CTX / 2 + 1, CTX / 2 + 1}, {"gptq", CTX, 1, 1}, {"strided", 15, 1, CTX - 15}};
    struct cli c = CLI(NULL, "tokenize", "-m", model, "-p", "a", "--json");
    json_t *one = json_loads(c.out, 0, NULL), *bare;
    cli_free(&c);
    c = CLI(NULL, "tokenize", "-m", model, "-p", "a", "--json", "--no-bos");
    bare = json_loads(c.out, 0, NULL);
    cli_free(&c);
    const bool adds_bos = json_array_size(one) > json_array_size(bare);
    const int32_t bos = (int32_t)json_integer_value(json_array_get(one, 0));
    json_decref(one);
    json_decref(bare);
    for (size_t i = 0; i < 3; i++) {
        double sum = 0;
        int count = 0;
        for (int k = 0; k < 3; k++) {
            int32_t window[CTX];
            memcpy(window, ids + k * cases[i].step, sizeof window);
            if (i == 0 && adds_bos)
                window[0] = bos;
            add_window(model, window, CTX, k ? cases[i].later : cases[i].first, &sum, &count);
        }
        ck_assert_int_gt(n, 4 * CTX);
        json_t *r = i == 2 ? MEASURE("-m", model, "-f", text_path, "-c", "40", "--chunks", "3", "--protocol",
                                     "strided", "--stride", "15")
                           : MEASURE("-m", model, "-f", text_path, "-c", "40", "--chunks", "3", "--protocol",
                                     cases[i].name);
        ck_assert_int_eq((int)cli_number(r, "n_tokens"), count);
        ck_assert_double_eq_tol(log(cli_number(r, "ppl")), sum / count, 1e-6);
        ck_assert(cli_number(r, "ppl_se") > 0);
        ck_assert_str_eq(json_string_value(json_object_get(r, "protocol")), cases[i].name);
        json_decref(r);
    }
}
END_TEST

START_TEST(text_output_is_as_people_know_it)
{
    const char *model = cli_model();
    if (!model)
        return;
    struct cli c =
        CLI_SHELL("$Q perplexity -m \"$1\" -f \"$2\" -c 32 --chunks 2; sha256sum \"$2\"", model, text_path);
    ck_assert_int_eq(c.code, 0);
    double ppl, error;
    const char *at = strstr(c.out, "Final estimate: PPL = ");
    ck_assert_msg(at && sscanf(at, "Final estimate: PPL = %lf +/- %lf", &ppl, &error) == 2, "%s", c.out);
    ck_assert(ppl > 1 && error > 0);
    ck_assert_msg(strstr(c.out, "protocol: llama, context 32"), "%s", c.out);
    ck_assert_ptr_nonnull(strstr(c.err, "[2]"));
    const char *hash = strstr(c.out, "sha256 ") + 7; /* the last line is sha256sum's */
    char first[65];
    (void)snprintf(first, sizeof first, "%.64s", hash);
    ck_assert_msg(strstr(hash + 64, first) != NULL, "%s", c.out);
    cli_free(&c);
}
END_TEST

static const char *const keys[] = {"ppl",       "ppl_se", "n_tokens",  "kl_mean",  "kl_se",
                                   "kl_median", "kl_p90", "kl_p99",    "kl_p999",  "kl_max",
                                   "dp_mean",   "dp_rms", "top1_same", "ppl_base", "ppl_ratio"};

START_TEST(bases_in_files_and_in_memory_agree)
{
    const char *model = cli_model(), *other = other_model();
    if (!model || !other)
        return;
    json_t *base = MEASURE("-m", other, "-f", text_path, "-c", "32", "--save-logits", base_path);
    json_t *memory = MEASURE("-m", model, "-f", text_path, "-c", "32", "--against", other);
    json_t *file = MEASURE("-m", model, "-f", text_path, "--base", base_path);
    json_t *no_text = MEASURE("-m", model, "--kl-divergence", "--kl-divergence-base", base_path);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        ck_assert_double_eq(cli_number(file, keys[i]), cli_number(no_text, keys[i]));
        /* The rows of this random model are flat: all but the text's own tokens are coded. */
        ck_assert_double_eq_tol(cli_number(file, keys[i]), cli_number(memory, keys[i]),
                                1e-4 + 0.02 * fabs(cli_number(memory, keys[i])));
    }
    ck_assert_double_eq_tol(cli_number(memory, "ppl_base"), cli_number(base, "ppl"), 1e-9);
    ck_assert_double_eq_tol(cli_number(memory, "ppl_ratio"),
                            cli_number(memory, "ppl") / cli_number(memory, "ppl_base"), 1e-9);
    ck_assert(cli_number(memory, "kl_mean") > 0 &&
              cli_number(memory, "kl_max") >= cli_number(memory, "kl_p99"));
    ck_assert(cli_number(memory, "top1_same") > 50 && cli_number(memory, "top1_same") <= 100);
    json_t *self = MEASURE("-m", model, "-f", text_path, "-c", "32", "--against", model, "--chunks", "2");
    ck_assert(cli_number(self, "kl_max") == 0 && cli_number(self, "top1_same") == 100 &&
              cli_number(self, "ppl_ratio") == 1);
    json_t *few = MEASURE("-m", model, "--base", base_path, "--chunks", "1");
    ck_assert_int_eq((int)cli_number(few, "n_tokens"), 15);
    json_decref(base);
    json_decref(memory);
    json_decref(file);
    json_decref(no_text);
    json_decref(self);
    json_decref(few);
}
END_TEST

/* Threads, batches and windows that run together change no bit. */
START_TEST(numbers_do_not_depend_on_how)
{
    const char *model = cli_model();
    if (!model)
        return;
    static const char *const how[][4] = {{"-b", "512", "-t", "1"},
                                         {"-b", "32", "-t", "2"},
                                         {"-b", "7", "-t", "2"},
                                         {"-b", "100", "--isa", "scalar"}};
    struct cli first = {.code = -1};
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        struct cli c = CLI(NULL, "perplexity", "-m", model, "-f", text_path, "-c", "32", "--json", how[i][0],
                           how[i][1], how[i][2], how[i][3]);
        ck_assert_int_eq(c.code, 0);
        if (i == 0) {
            first = c;
            continue;
        }
        ck_assert_str_eq(c.out, first.out);
        cli_free(&c);
    }
    cli_free(&first);
}
END_TEST

START_TEST(faults_are_told)
{
    const char *model = cli_model(), *other = other_model();
    if (!model || !other)
        return;
    cli_expect(CLI(NULL, "perplexity", "-m", model), 2, "a text is missing");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "-f", "/nowhere/x"), 1, "/nowhere/x: ");
    cli_expect(CLI("", "perplexity", "-m", model, "-f", "-"), 1, "empty");
    cli_expect(CLI("ab\xff", "perplexity", "-m", model, "-f", "-"), 1, "not UTF-8 at byte 2");
    cli_expect(CLI("too short", "perplexity", "-m", model, "-f", "-"), 1, "too short");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "-f", text_path, "--protocol", "x"), 2, "--protocol");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "-f", text_path, "-c", "32", "--protocol", "gptq",
                   "--stride", "8"),
               1, "no stride");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "-f", text_path, "--base", text_path), 1,
               "no file of logits");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "-f", text_path, "--base", "a", "--against", "b"), 2,
               "two bases");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "-f", text_path, "--kl-divergence"), 2,
               "--kl-divergence-base");
    cli_expect(
        CLI(NULL, "perplexity", "-m", model, "-f", text_path, "-c", "32", "--save-logits", "/nowhere/x"), 1,
        "/nowhere/x");
    cli_expect(CLI(NULL, "perplexity", "-m", other, "-f", text_path, "-c", "32", "--chunks", "2",
                   "--save-logits", base_path),
               0, "Final");
    cli_expect(CLI(NULL, "perplexity", "-m", model, "--base", base_path, "-c", "64"), 1, "context 32");
    cli_expect(CLI("another text altogether, it is long enough but not the same", "perplexity", "-m", model,
                   "-f", "-", "--base", base_path),
               1, "another text");
    const char *wide = test_golden("gguf/gemma3-f16/model.gguf");
    if (wide) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s", wide);
        cli_expect(CLI(NULL, "perplexity", "-m", path, "--base", base_path), 1, "");
    }
}
END_TEST

/* A full disk and Ctrl-C leave no file of logits. */
START_TEST(no_half_written_file_stays)
{
    const char *model = cli_model();
    if (!model)
        return;
    struct cli c =
        CLI_SHELL("ulimit -f 4; trap '' XFSZ; $Q perplexity -m \"$1\" -f \"$2\" -c 32 --save-logits \"$3\"; "
                  "code=$?; ls \"$3\"* 2>/dev/null; exit $code",
                  model, text_path, base_path);
    ck_assert_msg(strstr(c.out, base_path) == NULL, "%s", c.out);
    cli_expect(c, 1, "cannot write");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tools/perplexity");
    TCase *tc = tcase_create("perplexity");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, numbers_are_those_of_the_logits);
    tcase_add_test(tc, text_output_is_as_people_know_it);
    tcase_add_test(tc, bases_in_files_and_in_memory_agree);
    tcase_add_test(tc, numbers_do_not_depend_on_how);
    tcase_add_test(tc, faults_are_told);
    tcase_add_test(tc, no_half_written_file_stays);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

/* `quoll logits` against golden logits, in every form of its input; the same bytes however it computes. */
#include "tests/test.h"
#include "tests/tools/cli.h"
#include "weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char err[512];

static struct weights *open_file(const char *path)
{
    struct weights *w;
    int failed = weights_open(&w, path, NULL, err, sizeof err);
    ck_assert_msg(!failed, "%s", err);
    return w;
}

static const struct tensor *tensor(const struct weights *w, const char *name)
{
    const struct tensor *t = weights_find(w, name);
    ck_assert_msg(t != NULL, "%s: no %s", weights_path(w), name);
    return t;
}

static float f32_at(const struct tensor *t, int64_t i)
{
    float x;
    memcpy(&x, (const char *)t->data + 4 * i, sizeof x);
    return x;
}

/* A name for an output file; the caller removes it. */
static const char *out_name(void)
{
    static char name[64];
    (void)snprintf(name, sizeof name, "/tmp/quoll-test-%ld.safetensors", (long)getpid());
    return name;
}

static void check_golden(const char *folder)
{
    char model[1024], expected[1024], name[128];
    (void)snprintf(name, sizeof name, "%s/model.gguf", folder);
    const char *found = test_golden(name);
    if (!found) {
        test_skip(folder, "no golden data");
        return;
    }
    (void)snprintf(model, sizeof model, "%s", found);
    (void)snprintf(name, sizeof name, "%s/expected.safetensors", folder);
    (void)snprintf(expected, sizeof expected, "%s", test_golden(name));
    cli_expect(CLI(NULL, "logits", "-m", model, "--ids", expected, "-o", out_name(), "--greedy", "16",
                   "--compute", "f32"),
               0, "");
    struct weights *got = open_file(out_name()), *want = open_file(expected);
    unlink(out_name());
    const struct tensor *a = tensor(got, "logits"), *b = tensor(want, "logits");
    ck_assert_int_eq(a->dims[0], b->dims[0]);
    ck_assert_int_eq(a->dims[1], b->dims[1]);
    for (int64_t i = 0; i < a->dims[0] * a->dims[1]; i++)
        ck_assert_float_eq_tol(f32_at(a, i), f32_at(b, i), 1e-3f);
    static const char *const same[] = {"greedy_ids", "input_ids"};
    for (int i = 0; i < 2; i++) {
        const struct tensor *x = tensor(got, same[i]), *y = tensor(want, same[i]);
        ck_assert_uint_eq(x->bytes, y->bytes);
        ck_assert_mem_eq(x->data, y->data, x->bytes);
    }
    weights_close(got);
    weights_close(want);
}

static const char *const folders[] = {"gguf/llama-f16", "gguf/llama-f32", "gguf/qwen2-f16", "gguf/quant-q4_1",
                                      "gguf/quant-q2_k"};

START_TEST(golden_logits)
{
    check_golden(folders[_i]);
}
END_TEST

/* The logits of a run as one block of bytes. */
static char *logits_of(struct cli c, size_t *bytes)
{
    ck_assert_msg(c.code == 0, "%s", c.err);
    cli_free(&c);
    struct weights *w = open_file(out_name());
    const struct tensor *t = tensor(w, "logits");
    char *copy = malloc(t->bytes);
    memcpy(copy, t->data, t->bytes);
    *bytes = t->bytes;
    weights_close(w);
    unlink(out_name());
    return copy;
}

#define TEXT "the quick brown fox jumps over the lazy dog, twice and then again"

START_TEST(same_bytes_however_computed)
{
    static const char *const ways[][2] = {
        {"-t", "2"}, {"-b", "1"}, {"-b", "7"}, {"--isa", "scalar"}, {"-c", "200"}};
    const char *m = cli_model();
    if (!m)
        return;
    size_t n, n2;
    char *a = logits_of(CLI(NULL, "logits", "-m", m, "-p", TEXT, "-t", "1", "-o", out_name()), &n);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        char *b = logits_of(
            CLI(NULL, "logits", "-m", m, "-p", TEXT, "-o", out_name(), ways[i][0], ways[i][1]), &n2);
        ck_assert_uint_eq(n, n2);
        ck_assert_mem_eq(a, b, n);
        free(b);
    }
    /* --last is the end of it */
    char *b =
        logits_of(CLI(NULL, "logits", "-m", m, "-p", TEXT, "--last", "3", "-b", "2", "-o", out_name()), &n2);
    ck_assert_uint_lt(n2, n);
    ck_assert_mem_eq(a + n - n2, b, n2);
    free(b);
    free(a);
}
END_TEST

START_TEST(ids_in_every_form)
{
    static const char *const forms[] = {"3 1 4 1 5", "[3, 1, 4, 1, 5]", "\n3\n1,4\t1 5\n"};
    const char *m = cli_model();
    if (!m)
        return;
    struct cli first = CLI(forms[0], "logits", "-m", m, "--ids", "-", "--greedy", "4");
    ck_assert_msg(first.code == 0, "%s", first.err);
    for (size_t i = 1; i < sizeof forms / sizeof forms[0]; i++) {
        struct cli c = CLI(forms[i], "logits", "-m", m, "--ids", "-", "--greedy", "4");
        ck_assert_str_eq(c.out, first.out);
        cli_free(&c);
    }
    cli_free(&first);
}
END_TEST

static const struct {
    const char *ids, *text;
} bad[] = {
    {"", "empty"},
    {"1 2 x", "'x'"},
    {"[1, 2", "stdin"},
    {"[1, \"a\"]", "element 1"},
    {"-1", "'-1'"},
    {"99999999999", "999"},
    {"1 2 319 320", "320"},
    {"[1, 1e3]", "element 1"},
    {"[99999999999]", "range"},
    {"{}", "'{}'"},
};

START_TEST(bad_ids_are_refused)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(bad[_i].ids, "logits", "-m", m, "--ids", "-");
    if (strcmp(bad[_i].text, "stdin") == 0)
        cli_expect(c, 1, "line 1");
    else
        cli_expect(c, 1, bad[_i].text);
}
END_TEST

START_TEST(bad_requests_are_refused)
{
    const char *m = cli_model();
    if (!m)
        return;
    cli_expect(CLI(NULL, "logits", "-m", m), 2, "sequence");
    cli_expect(CLI(NULL, "logits", "-m", m, "-p", "a", "--ids", "x"), 2, "two sequences");
    cli_expect(CLI(NULL, "logits", "-m", m, "-p", "a", "--last", "0"), 2, "--last");
    cli_expect(CLI("1 2 3", "logits", "-m", m, "--ids", "-", "-c", "2"), 1, "context holds 2");
    cli_expect(CLI("1 2 3", "logits", "-m", m, "--ids", "-", "--greedy", "99999999"), 1, "context");
    cli_expect(CLI("1 2 3", "logits", "-m", m, "--ids", "-", "-o", "/nonexistent/x"), 1, "/nonexistent/x");
    cli_expect(CLI(NULL, "logits", "-m", m, "--ids", m), 1, "safetensors");
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

static Suite *logits_suite(void)
{
    Suite *suite = suite_create("logits");
    TCase *tc = tcase_create("logits");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, golden_logits, 0, COUNT(folders));
    tcase_add_test(tc, same_bytes_however_computed);
    tcase_add_test(tc, ids_in_every_form);
    tcase_add_loop_test(tc, bad_ids_are_refused, 0, COUNT(bad));
    tcase_add_test(tc, bad_requests_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(logits_suite)

/* `quoll lab`: grids, what is kept of an interrupted run, the report. */
#include "tests/test.h"
#include "tests/tools/cli.h"
#include "tools/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

START_TEST(grids)
{
    struct lab_grid g;
    char err[256];
    ck_assert_int_eq(lab_grid_parse(&g, " types=q8_0,q4_k,q8_0  methods=rtn,gptq\tkv=f16 ", err, sizeof err),
                     0);
    ck_assert_uint_eq(g.types.n, 2);
    ck_assert_str_eq(g.types.item[1], "q4_k");
    ck_assert_uint_eq(g.methods.n, 2);
    ck_assert_uint_eq(g.kvs.n, 1);
    lab_grid_free(&g);
    ck_assert_int_eq(lab_grid_parse(&g, "types=q8_0", err, sizeof err), 0);
    ck_assert_str_eq(g.methods.item[0], "rtn");
    ck_assert_str_eq(g.kvs.item[0], "f16");
    lab_grid_free(&g);
    ck_assert_int_eq(lab_grid_parse(&g, "kv=f16,q8_0", err, sizeof err), 0); /* of the model alone */
    lab_grid_free(&g);
    static const char *const wrong[] = {"",       "q8_0",   "type=q8_0", "types=q8_0,,q4_0",
                                        "types=", "kv=f16", "=q8_0"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_int_eq(lab_grid_parse(&g, wrong[i], err, sizeof err), -1);
        ck_assert_ptr_null(g.text);
    }
}
END_TEST

static char *temporary(void)
{
    static char dir[64];
    (void)snprintf(dir, sizeof dir, "/tmp/quoll-lab-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    return dir;
}

static json_t *cell_of(const char *type, double kl)
{
    return json_pack("{s:s, s:s, s:s, s:f}", "type", type, "method", "rtn", "kv", "f16", "kl_mean", kl);
}

/* A line that was cut off is forgotten, the others are there; other settings are refused. */
START_TEST(stores)
{
    char err[256], path[128];
    const char *dir = temporary();
    struct lab_store s;
    json_t *header = json_pack("{s:i}", "n_ctx", 512), *other = json_pack("{s:i}", "n_ctx", 1024);
    ck_assert_msg(lab_store_open(&s, dir, header, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(lab_store_add(&s, cell_of("q8_0", 0.25), err, sizeof err), 0);
    json_t *failed = cell_of("q4_0", 1);
    (void)json_object_set_new(failed, "error", json_string("no"));
    ck_assert_int_eq(lab_store_add(&s, failed, err, sizeof err), 0);
    lab_store_close(&s);
    (void)snprintf(path, sizeof path, "%s/cells.jsonl", dir);
    FILE *f = fopen(path, "a");
    ck_assert_ptr_nonnull(f);
    (void)fputs("{\"type\":\"q2_k\",\"meth", f);
    (void)fclose(f);
    for (int i = 0; i < 2; i++) {
        ck_assert_msg(lab_store_open(&s, dir, header, err, sizeof err) == 0, "%s", err);
        ck_assert_uint_eq(json_array_size(s.cells), 2 + (size_t)i);
        ck_assert_double_eq(
            json_number_value(json_object_get(lab_store_find(&s, "q8_0", "rtn", "f16"), "kl_mean")), 0.25);
        ck_assert_ptr_null(lab_store_find(&s, "q4_0", "rtn", "f16")); /* failed: tried again */
        ck_assert_ptr_null(lab_store_find(&s, "q8_0", "gptq", "f16"));
        if (i == 0)
            ck_assert_int_eq(lab_store_add(&s, cell_of("q3_k", 2), err, sizeof err), 0);
        lab_store_close(&s);
    }
    ck_assert_int_eq(lab_store_open(&s, dir, other, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "another model"));
    f = fopen(path, "a");
    ck_assert_ptr_nonnull(f);
    (void)fputs("nonsense\n", f);
    (void)fclose(f);
    ck_assert_int_eq(lab_store_open(&s, dir, header, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "line 5"));
    ck_assert_int_eq(lab_store_open(&s, "/proc/no/such", header, err, sizeof err), -1);
    json_decref(header);
    json_decref(other);
    lab_remove(dir);
    ck_assert_int_ne(access(dir, F_OK), 0);
}
END_TEST

START_TEST(commands_as_text)
{
    char *text = lab_command_text((const char *const[]){"run", "-p", "it is", "-n", "3", NULL});
    ck_assert_str_eq(text, "quoll run -p 'it is' -n 3");
    free(text);
}
END_TEST

/* A small model, measured whole, and then no more; one cell fails and says why. */
START_TEST(whole_run)
{
    const char *model = test_golden("gguf/llama-f32/model.gguf");
    if (!model) {
        test_skip("whole_run", "the golden model is not here");
        return;
    }
    char script[4096], path[128], copy[64];
    (void)snprintf(copy, sizeof copy, "%s", temporary());
    (void)snprintf(
        script, sizeof script,
        "for i in 1 2 3 4 5 6 7 8 9; do echo \"A text of some words, number $i, in line $i.\"; done "
        ">%s/t; LAB=\"$Q lab -m %s -f %s/t -c 32 --chunks 2 -t 1 -o %s/r --grid 'types=q8_0,q4_0 "
        "methods=rtn,nonsense kv=f16,f32'\"; eval \"$LAB\"; wc -l <%s/r/cells.jsonl; eval \"$LAB\"; "
        "exec wc -l <%s/r/cells.jsonl",
        copy, model, copy, copy, copy, copy);
    /* a header, two cells of the base, four that work and four that do not, which are tried again */
    cli_expect(CLI_SHELL(script, ""), 0, "11\n15\n");
    json_error_t why;
    (void)snprintf(path, sizeof path, "%s/r/results.json", copy);
    json_t *results = json_load_file(path, 0, &why), *cell;
    ck_assert_msg(results != NULL, "%s", why.text);
    ck_assert_uint_eq(json_array_size(json_object_get(results, "cells")), 10);
    double kl[2] = {NAN, NAN}, base = NAN;
    size_t i;
    json_array_foreach(json_object_get(results, "cells"), i, cell)
    {
        const char *type = json_string_value(json_object_get(cell, "type"));
        const bool good = !json_object_get(cell, "error");
        const bool f16 = strcmp(json_string_value(json_object_get(cell, "kv")), "f16") == 0;
        ck_assert_int_eq(good, strcmp(json_string_value(json_object_get(cell, "method")), "nonsense") != 0);
        if (!good)
            ck_assert_ptr_nonnull(
                strstr(json_string_value(json_object_get(cell, "error")), "no such method"));
        /* the weights' errors are in the first cell of each model */
        const json_t *errors = json_object_get(cell, "errors");
        const bool quantised = good && f16 && strcmp(type, "base") != 0;
        ck_assert_int_eq(errors != NULL, quantised);
        ck_assert(!quantised || json_number_value(json_object_get(cell, "weight_error")) > 0);
        if (quantised) {
            const json_t *first = json_array_get(errors, 0);
            double sum = 0;
            size_t k;
            json_t *bin;
            json_array_foreach(json_object_get(first, "bins"), k, bin) sum += json_number_value(bin);
            ck_assert_double_eq(sum, json_number_value(json_object_get(first, "n")));
            ck_assert_double_gt(json_number_value(json_object_get(first, "rms")), 0);
        }
        if (!good || !f16)
            continue;
        const double v = json_number_value(json_object_get(cell, "kl_mean"));
        ck_assert_double_gt(json_number_value(json_object_get(cell, "tg_ts")), 0);
        *(strcmp(type, "base") == 0 ? &base : &kl[strcmp(type, "q4_0") == 0]) = v;
    }
    ck_assert_double_eq_tol(base, 0, 1e-9);
    ck_assert(kl[0] > 0 && kl[1] > 2 * kl[0]);
    json_decref(results);
    (void)snprintf(script, sizeof script, "cat %s/r/report.html", copy);
    cli_expect(CLI_SHELL(script, ""), 0, "Which one to take");
    cli_expect(CLI_SHELL(script, ""), 0, "no such method");
    cli_expect(CLI_SHELL(script, ""), 0, "Errors of the weights");
    cli_expect(CLI_SHELL(script, ""), 0, "q4_0 by rtn: a histogram per tensor");
    (void)snprintf(script, sizeof script, "cd %s/r; echo *.part *.gguf", copy);
    cli_expect(CLI_SHELL(script, ""), 0, "*.part *.gguf\n");
    lab_remove(copy);
}
END_TEST

START_TEST(wrong_lines)
{
    cli_expect(CLI(NULL, "lab"), 2, "-f TEXT");
    cli_expect(
        CLI(NULL, "lab", "-m", "/no/such.gguf", "-f", "x", "-o", "/tmp/quoll-lab-no", "--grid", "types=q8_0"),
        1, "/no/such.gguf");
    cli_expect(
        CLI(NULL, "lab", "-m", "/no/such.gguf", "-f", "x", "-o", "/tmp/quoll-lab-no", "--grid", "tipes=q8_0"),
        2, "tipes");
}
END_TEST

static Suite *lab_suite(void)
{
    Suite *s = suite_create("tools/lab");
    TCase *t = tcase_create("lab");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, grids);
    tcase_add_test(t, stores);
    tcase_add_test(t, commands_as_text);
    tcase_add_test(t, whole_run);
    tcase_add_test(t, wrong_lines);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(lab_suite)

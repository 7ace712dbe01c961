/* `quoll bench`: the fields that other programs read, the tests that were asked for. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static void check_record(json_t *r, int n_prompt, int n_gen, int n_depth, int n_threads)
{
    static const char *const strings[] = {"model", "model_type", "backend", "cpu_isa",
                                          "gpu",   "type_k",     "type_v"};
    static const char *const numbers[] = {"model_size", "model_n_params", "n_batch", "avg_ts",
                                          "stddev_ts",  "read_gb_s",      "gmac_s"};
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        ck_assert_msg(json_is_string(json_object_get(r, strings[i])), "%s", strings[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        ck_assert_msg(json_is_number(json_object_get(r, numbers[i])), "%s", numbers[i]);
    ck_assert_int_eq(json_integer_value(json_object_get(r, "n_prompt")), n_prompt);
    ck_assert_int_eq(json_integer_value(json_object_get(r, "n_gen")), n_gen);
    ck_assert_int_eq(json_integer_value(json_object_get(r, "n_depth")), n_depth);
    ck_assert_int_eq(json_integer_value(json_object_get(r, "n_threads")), n_threads);
    json_t *samples = json_object_get(r, "samples_ts");
    ck_assert_uint_eq(json_array_size(samples), 3);
    double sum = 0, square = 0;
    for (size_t i = 0; i < 3; i++)
        sum += json_real_value(json_array_get(samples, i));
    for (size_t i = 0; i < 3; i++)
        square += pow(json_real_value(json_array_get(samples, i)) - sum / 3, 2);
    ck_assert_double_gt(sum, 0);
    ck_assert_double_eq_tol(json_real_value(json_object_get(r, "avg_ts")), sum / 3, 1e-6 * sum);
    ck_assert_double_eq_tol(json_real_value(json_object_get(r, "stddev_ts")), sqrt(square / 2), 1e-5 * sum);
    ck_assert((json_real_value(json_object_get(r, "read_gb_s")) > 0) == (n_gen > 0));
    ck_assert((json_real_value(json_object_get(r, "gmac_s")) > 0) == (n_prompt > 0));
}

START_TEST(json_has_every_field_of_every_test)
{
    static const int want[][3] = {{4, 0, 0}, {9, 0, 0}, {0, 3, 0}, {4, 0, 5}, {9, 0, 5}, {0, 3, 5}};
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "bench", "-m", m, "-p", "4,9", "-n", "3", "-d", "0,5", "-t", "1,2", "-r", "3",
                       "-o", "json");
    ck_assert_msg(c.code == 0, "%s", c.err);
    json_t *all = json_loads(c.out, 0, NULL);
    ck_assert_uint_eq(json_array_size(all), 12);
    for (size_t i = 0; i < 12; i++)
        check_record(json_array_get(all, i), want[i % 6][0], want[i % 6][1], want[i % 6][2], i < 6 ? 1 : 2);
    json_decref(all);
    cli_free(&c);
}
END_TEST

/* Only generation is of several sequences together. */
START_TEST(sequences_are_generated_together)
{
    static const int want[][3] = {{4, 0, 1}, {0, 3, 1}, {0, 3, 5}};
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "bench", "-m", m, "-p", "4", "-n", "3", "-d", "7", "--parallel", "1,5", "-t",
                       "2", "-r", "3", "-o", "json");
    ck_assert_msg(c.code == 0, "%s", c.err);
    json_t *all = json_loads(c.out, 0, NULL);
    ck_assert_uint_eq(json_array_size(all), 3);
    for (size_t i = 0; i < 3; i++) {
        json_t *r = json_array_get(all, i);
        check_record(r, want[i][0], want[i][1], 7, 2);
        ck_assert_int_eq(json_integer_value(json_object_get(r, "n_seqs")), want[i][2]);
    }
    json_decref(all);
    cli_free(&c);
    c = CLI(NULL, "bench", "-m", m, "--parallel", "0");
    ck_assert_int_eq(c.code, 2);
    cli_free(&c);
}
END_TEST

static size_t count_lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

START_TEST(other_formats)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "bench", "-m", m, "-m", m, "-p", "4", "-n", "0", "-r", "3", "-o", "jsonl");
    ck_assert_uint_eq(count_lines(c.out), 2);
    json_t *r = json_loads(c.out, JSON_DISABLE_EOF_CHECK, NULL);
    ck_assert(json_is_object(r));
    json_decref(r);
    cli_free(&c);

    c = CLI(NULL, "bench", "-m", m, "-p", "4", "-n", "2", "-r", "1", "-o", "csv");
    ck_assert_uint_eq(count_lines(c.out), 3);
    ck_assert_int_eq(strncmp(c.out, "model,model_type,", 17), 0);
    cli_free(&c);

    c = CLI(NULL, "bench", "-m", m, "-p", "4", "-n", "2", "-r", "1");
    ck_assert_ptr_nonnull(strstr(c.out, " pp4 "));
    ck_assert_ptr_nonnull(strstr(c.out, " tg2 "));
    cli_free(&c);
}
END_TEST

START_TEST(bad_lists_are_refused)
{
    static const char *const options[][2] = {
        {"-p", "4,"}, {"-p", "x"},   {"-n", "1,-2"}, {"-t", "0"},
        {"-d", ""},   {"-o", "xml"}, {"-r", "0"},    {"--shape", "llama2-7b"}};
    const char *m = cli_model();
    if (!m)
        return;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        cli_expect(CLI(NULL, "bench", "-m", m, options[i][0], options[i][1]), 2, options[i][0]);
    cli_expect(CLI(NULL, "bench", "-m", m, "-p", "32", "-c", "8"), 1, "positions");
}
END_TEST

/* Random weights of a known shape, between model files, in the order typed. */
START_TEST(shapes_are_models)
{
    static const char *const want[] = {"smollm2-135m:q4_1", NULL, "smollm2-135m:iq2_xxs"};
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "bench", "--shape", want[0], "-m", m, "--shape", want[2], "-p", "3", "-n", "2",
                       "-r", "1", "-t", "1", "-ctk", "f32", "--check-finite", "-o", "json");
    ck_assert_msg(c.code == 0, "%s", c.err);
    json_t *all = json_loads(c.out, 0, NULL);
    ck_assert_uint_eq(json_array_size(all), 6);
    for (size_t i = 0; i < 6; i++) {
        json_t *r = json_array_get(all, i);
        ck_assert_str_eq(json_string_value(json_object_get(r, "model")), want[i / 2] ? want[i / 2] : m);
        if (want[i / 2])
            ck_assert_int_eq(json_integer_value(json_object_get(r, "model_n_params")), 134515008);
    }
    json_t *first = json_array_get(all, 0), *last = json_array_get(all, 5);
    ck_assert_str_eq(json_string_value(json_object_get(first, "model_type")), "llama 135M Q4_1");
    /* 134,479,872 elements in blocks of 32 of 20 bytes, 61 norms of 576 floats */
    ck_assert_int_eq(json_integer_value(json_object_get(first, "model_size")), 84190464);
    /* rows of 576 are no multiple of 256 */
    ck_assert_str_eq(json_string_value(json_object_get(last, "model_type")), "llama 135M IQ4_NL");
    ck_assert_ptr_nonnull(strstr(c.err, "smollm2-135m:iq2_xxs: 181 matrices are iq4_nl: rows of 576"));
    json_decref(all);
    cli_free(&c);
}
END_TEST

START_TEST(a_config_file_is_a_shape)
{
    const char *m = cli_model();
    const char *folder = test_golden("models/mixtral/config.json");
    char value[4096];
    if (!m || !folder) {
        test_skip("mixtral", "no such golden model");
        return;
    }
    snprintf(value, sizeof value, "%s:q8_0", folder);
    struct cli c = CLI(NULL, "bench", "--shape", value, "-p", "5", "-n", "2", "-r", "1", "--no-repack",
                       "--check-finite", "-o", "csv");
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.out, value));
    cli_free(&c);

    static const char script[] =
        "d=$(mktemp -d); trap 'rm -rf \"$d\"' EXIT; printf '%s' \"$1\" >\"$d/config.json\"; "
        "$Q bench --shape \"$d/config.json:$2\" -p 1 -n 0 -r 1";
    static const char *const bad[][3] = {
        {"{", "q4_0", "JSON"},
        {"{\"model_type\": \"bert\"}", "q4_0", "not supported"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 1048576, \"num_attention_heads\": 8192, "
         "\"vocab_size\": "
         "67108864, \"num_hidden_layers\": 2, \"intermediate_size\": 64}",
         "f32", "GiB of memory"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cli_expect(CLI_SHELL(script, bad[i][0], bad[i][1]), 1, bad[i][2]);
}
END_TEST

START_TEST(bad_shapes_are_refused)
{
    cli_expect(CLI(NULL, "bench", "--shape", "llama2-7:q4_0"), 2, "smollm2-135m");
    cli_expect(CLI(NULL, "bench", "--shape", "llama2-7b:q4_9"), 2, "iq3_xxs");
    cli_expect(CLI(NULL, "bench", "--shape", "llama2-7b:i8"), 2, "iq3_xxs");
    cli_expect(CLI(NULL, "bench", "--shape", ":q4_0"), 2, "smollm2-135m");
    cli_expect(CLI(NULL, "bench", "--shape", ""), 2, "NAME:TYPE");
    cli_expect(CLI(NULL, "bench", "--shape", "nowhere/config.json:q4_0"), 1, "nowhere/config.json");
    cli_expect(CLI(NULL, "bench", "--shape", "smollm2-135m:q4_0", "--mlock"), 2, "--mlock");
    cli_expect(CLI(NULL, "bench", "--shape", "smollm2-135m:q4_0", "--pack-cache", "/tmp"), 2, "--pack-cache");
    cli_expect(CLI(NULL, "run", "--shape", "smollm2-135m:q4_0", "-p", "x"), 2, "--shape");
}
END_TEST

static Suite *bench_suite(void)
{
    Suite *suite = suite_create("bench");
    TCase *tc = tcase_create("bench");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, json_has_every_field_of_every_test);
    tcase_add_test(tc, sequences_are_generated_together);
    tcase_add_test(tc, other_formats);
    tcase_add_test(tc, bad_lists_are_refused);
    tcase_add_test(tc, shapes_are_models);
    tcase_add_test(tc, a_config_file_is_a_shape);
    tcase_add_test(tc, bad_shapes_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(bench_suite)

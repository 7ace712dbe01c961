/* `quoll run`: the same text for the same seed, prompts of awkward sizes, stop strings. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(same_seed_same_text)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli a =
        CLI(NULL, "run", "-m", m, "-p", "a", "-n", "40", "--ignore-eos", "-s", "7", "--temp", "2", "--ids");
    ck_assert_msg(a.code == 0 && a.out_len > 0, "%s", a.err);
    /* however the work is split */
    static const char *const ways[][2] = {{"-t", "1"}, {"-t", "2"}, {"-b", "1"}, {"--isa", "scalar"}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct cli b = CLI(NULL, "run", "-m", m, "-p", "a", "-n", "40", "--ignore-eos", "-s", "7", "--temp",
                           "2", "--ids", ways[i][0], ways[i][1]);
        ck_assert_str_eq(a.out, b.out);
        cli_free(&b);
    }
    struct cli c =
        CLI(NULL, "run", "-m", m, "-p", "a", "-n", "40", "--ignore-eos", "-s", "8", "--temp", "2", "--ids");
    ck_assert_str_ne(a.out, c.out);
    cli_free(&a);
    cli_free(&c);
}
END_TEST

static int count_words(const char *text)
{
    int n = 0;
    for (const char *c = text; *c; c++)
        n += *c != ' ' && *c != '\n' && (c == text || c[-1] == ' ' || c[-1] == '\n');
    return n;
}

START_TEST(predicts_as_many_as_asked)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "run", "-m", m, "-p", "a", "-n", "0");
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_uint_eq(c.out_len, 0);
    ck_assert_ptr_nonnull(strstr(c.err, "prompt")); /* it was evaluated */
    cli_free(&c);
    c = CLI(NULL, "run", "-m", m, "-p", "a", "-n", "5", "--ids", "--ignore-eos");
    ck_assert_int_eq(count_words(c.out), 5);
    cli_free(&c);
    /* to the end of the context: 32 positions, of which the prompt has n; the last token needs none */
    c = CLI(NULL, "tokenize", "-m", m, "-p", "a");
    int n = count_words(c.out);
    cli_free(&c);
    c = CLI(NULL, "run", "-m", m, "-p", "a", "-c", "32", "--ids", "--ignore-eos");
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_int_eq(count_words(c.out), 32 - n + 1);
    ck_assert_ptr_nonnull(strstr(c.err, "context of 32 tokens is full"));
    cli_free(&c);
}
END_TEST

START_TEST(prompt_longer_than_the_context)
{
    const char *m = cli_model();
    if (!m)
        return;
    char text[400];
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = i % 2 ? ' ' : 'x';
    text[sizeof text - 1] = '\0';
    struct cli c = CLI(NULL, "run", "-m", m, "-p", text, "-c", "16");
    ck_assert_uint_eq(c.out_len, 0);
    ck_assert_ptr_nonnull(strstr(c.err, "16"));
    cli_expect(c, 1, "context");
}
END_TEST

START_TEST(empty_prompts_and_missing_ones)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli a = CLI(NULL, "run", "-m", m, "-p", "", "-n", "4", "--temp", "0", "--ids", "--ignore-eos");
    ck_assert_msg(a.code == 0, "%s", a.err);
    ck_assert_int_eq(count_words(a.out), 4);
    struct cli b = CLI("\n", "run", "-m", m, "-f", "-", "-n", "4", "--temp", "0", "--ids", "--ignore-eos");
    ck_assert_str_eq(a.out, b.out);
    cli_free(&a);
    cli_free(&b);
    cli_expect(CLI(NULL, "run", "-m", m), 2, "prompt");
    cli_expect(CLI(NULL, "run", "-m", m, "-p", "a", "-f", "-"), 2, "two prompts");
}
END_TEST

START_TEST(file_and_text_are_the_same_prompt)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli a = CLI(NULL, "run", "-m", m, "-p", "the cat\nsat", "-n", "8", "--temp", "0", "--ids");
    struct cli b = CLI("the cat\nsat\n", "run", "-m", m, "-f", "-", "-n", "8", "--temp", "0", "--ids");
    struct cli c = CLI(NULL, "run", "-m", m, "-e", "-p", "the cat\\nsat", "-n", "8", "--temp", "0", "--ids");
    ck_assert_msg(a.code == 0, "%s", a.err);
    ck_assert_str_eq(a.out, b.out);
    ck_assert_str_eq(a.out, c.out);
    cli_free(&a);
    cli_free(&b);
    cli_free(&c);
}
END_TEST

START_TEST(stop_strings_end_the_text_before_them)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli all =
        CLI(NULL, "run", "-m", m, "-p", "a", "-n", "60", "--temp", "1", "-s", "3", "--ignore-eos", "-q");
    ck_assert_msg(all.code == 0 && all.out_len > 20, "%s", all.err);
    /* any three bytes of the text that hold no NUL, from every tenth of it */
    for (size_t at = 1; at + 4 < all.out_len; at += all.out_len / 10) {
        char stop[4];
        memcpy(stop, all.out + at, 3);
        stop[3] = '\0';
        if (strlen(stop) < 3)
            continue;
        const char *first = memmem(all.out, all.out_len, stop, 3);
        struct cli c = CLI(NULL, "run", "-m", m, "-p", "a", "-n", "60", "--temp", "1", "-s", "3",
                           "--ignore-eos", "-q", "--stop", "never in there", "--stop", stop);
        ck_assert_uint_eq(c.out_len, (size_t)(first - all.out));
        ck_assert_mem_eq(c.out, all.out, c.out_len);
        cli_free(&c);
    }
    cli_free(&all);
}
END_TEST

START_TEST(quiet_is_quiet)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "run", "-q", "-m", m, "-p", "a", "-n", "3");
    ck_assert_int_eq(c.code, 0);
    ck_assert_str_eq(c.err, "");
    cli_free(&c);
}
END_TEST

static Suite *run_suite(void)
{
    Suite *suite = suite_create("run");
    TCase *tc = tcase_create("run");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, same_seed_same_text);
    tcase_add_test(tc, predicts_as_many_as_asked);
    tcase_add_test(tc, prompt_longer_than_the_context);
    tcase_add_test(tc, empty_prompts_and_missing_ones);
    tcase_add_test(tc, file_and_text_are_the_same_prompt);
    tcase_add_test(tc, stop_strings_end_the_text_before_them);
    tcase_add_test(tc, quiet_is_quiet);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(run_suite)

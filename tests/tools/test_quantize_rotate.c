/* `quoll quantize --rotate`: what comes out, what is said, what is refused, and that nothing else is left. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/quoll-rotate-XXXXXX";

static void setup(void)
{
    (void)strcpy(folder, "/tmp/quoll-rotate-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    cli_expect(CLI_SHELL("rm -r \"$1\"", folder), 0, "");
}

START_TEST(wrong_command_lines)
{
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--rotate", "--imatrix", "f"), 2,
               "says nothing of the rotated one");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--rotate", "--lora", "f"), 2,
               "quoll convert --lora");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--rotate", "--allow-nan"), 2, "one NaN");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "q4_0", "--rotate", "--dry-run"), 2, "needs OUT");
}
END_TEST

/* In F32 the rotated model is the same; its quantised files are made by any method, and run. */
START_TEST(rotated_files_run)
{
    const char *model = cli_model();
    if (!model)
        return;
    char text[64];
    (void)snprintf(text, sizeof text, "%s/text", folder);
    cli_write_text(text);
    struct cli c = CLI_SHELL(
        "set -e; T=$2; echo 1 2 3 >$T/ids\n"
        "$Q quantize \"$1\" $T/a.gguf f32 --rotate -t 2; $Q quantize \"$1\" $T/b.gguf f32 --rotate -t 1 -q\n"
        "cmp $T/a.gguf $T/b.gguf; rm $T/b.gguf\n"
        "$Q quantize \"$1\" $T/c.gguf q5_0 --rotate --method gptq --calib $T/text --calib-ctx 64 "
        "--tensor-type ffn_down=f16\n"
        "$Q quantize \"$1\" $T/d int4_g32 --rotate --method awq --calib $T/text --calib-ctx 64\n"
        "$Q quantize \"$1\" $T/e.gguf --target-bpw 5 --rotate --calib $T/text --target-tokens 128 -q\n"
        "$Q quantize \"$1\" $T/f.gguf q4_0 --rotate --dry-run | grep output.weight\n"
        "for m in a.gguf c.gguf d e.gguf; do $Q logits -m $T/$m --ids $T/ids -o $T/l; rm $T/l; done\n"
        "$Q perplexity -m $T/a.gguf --against \"$1\" -f $T/text -c 64 --chunks 2 --compute f32 | grep 'Mean "
        "KLD'\n"
        "rm $T/ids $T/text; ls $T",
        model, folder);
    ck_assert_msg(c.code == 0, "%s%s", c.out, c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "rotated in "));
    ck_assert_ptr_nonnull(
        strstr(c.err, "the output matrix, which was the embedding, is now a tensor of its own"));
    ck_assert_ptr_nonnull(strstr(c.out, "output.weight"));
    ck_assert_msg(strstr(c.out, "Mean KLD          0.000000") != NULL, "%s", c.out);
    ck_assert_msg(strstr(c.out, "a.gguf\nc.gguf\nd\ne.gguf\n") != NULL, "%s", c.out);
    ck_assert_ptr_null(strstr(c.out, ".tmp"));
    cli_free(&c);
}
END_TEST

START_TEST(nothing_is_left_of_a_failure)
{
    const char *found = test_golden("models/gemma3"), *model = NULL;
    char gemma[1024], path[128];
    if (found) {
        (void)snprintf(gemma, sizeof gemma, "%s", found);
        model = cli_model();
    }
    if (!model)
        return;
    (void)snprintf(path, sizeof path, "%s/x.gguf", folder);
    cli_expect(CLI(NULL, "quantize", gemma, path, "q8_0", "--rotate"), 1, "cannot be rotated: it has norms");
    cli_expect(CLI(NULL, "quantize", model, "/nowhere/x.gguf", "q8_0", "--rotate"), 1, "/nowhere/x.gguf");
    /* A disk that is full. */
    struct cli c =
        CLI_SHELL("(ulimit -f 8; trap '' XFSZ; $Q quantize \"$1\" \"$2/x.gguf\" q8_0 --rotate); ls \"$2\"",
                  model, folder);
    ck_assert_msg(strstr(c.err, "x.gguf.rotated.tmp: cannot write it") != NULL, "%s", c.err);
    ck_assert_str_eq(c.out, "");
    cli_free(&c);
    (void)snprintf(path, sizeof path, "%s/y", folder);
    cli_expect(CLI(NULL, "quantize", model, path, "int4_g128", "--rotate", "-q"), 1, "no multiple of");
    cli_expect(CLI_SHELL("test -z \"$(ls \"$1\")\"", folder), 0, "");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("quantize-rotate");
    TCase *tc = tcase_create("command");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, wrong_command_lines);
    tcase_add_test(tc, rotated_files_run);
    tcase_add_test(tc, nothing_is_left_of_a_failure);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

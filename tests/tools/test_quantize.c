/* `quoll quantize` as a user meets it. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/quoll-quantize-XXXXXX";

static void setup(void)
{
    (void)strcpy(folder, "/tmp/quoll-quantize-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    cli_expect(CLI_SHELL("rm -r \"$1\"", folder), 0, "");
}

START_TEST(lists)
{
    struct cli c = CLI(NULL, "quantize", "--list");
    ck_assert_int_eq(c.code, 0);
    ck_assert_ptr_nonnull(strstr(c.out, "q4_k_m    q4_k      4.50   4.89\n"));
    ck_assert_ptr_nonnull(strstr(c.out, "int4_g128"));
    ck_assert_ptr_nonnull(strstr(c.out, "imatrix"));
    cli_free(&c);
}
END_TEST

START_TEST(wrong_command_lines)
{
    cli_expect(CLI(NULL, "quantize"), 2, "IN, OUT and TYPE");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_x"), 2, "q4_x");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b", "q4_0"), 2, ".gguf");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "int4_g128"), 2, "folder");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--tensor-type", "ffn"), 2, "PATTERN=TYPE");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--tensor-type", "ffn=i8"), 2, "i8");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--method", "magic"), 2, "magic");
    cli_expect(CLI(NULL, "quantize", "a.gguf", "b.gguf", "q4_0", "--method", "imatrix"), 2, "--imatrix");
    cli_expect(CLI(NULL, "quantize", "/nowhere.gguf", "b.gguf", "q4_0"), 1, "/nowhere.gguf");
}
END_TEST

START_TEST(quantised_files_run)
{
    const char *model = cli_model();
    if (!model)
        return;
    struct cli c = CLI_SHELL(
        "set -e; $Q quantize --dry-run \"$1\" q4_k_m; $Q quantize \"$1\" \"$2/a.gguf\" q4_k_m -t 2\n"
        "$Q quantize \"$1\" \"$2/b.gguf\" q4_k_m -t 1 -q; cmp \"$2/a.gguf\" \"$2/b.gguf\"\n"
        "echo 1 2 3 >\"$2/ids\"; $Q logits -m \"$2/a.gguf\" --ids \"$2/ids\" -o \"$2/l.safetensors\"\n"
        "$Q quantize \"$2/a.gguf\" \"$2/c\" int4_g32; $Q logits -m \"$2/c\" --ids \"$2/ids\" -o "
        "\"$2/m.safetensors\"\n"
        "ls \"$2/c\"",
        model, folder);
    ck_assert_msg(c.code == 0, "%s%s", c.out, c.err);
    ck_assert_ptr_nonnull(strstr(c.out, "blk.0.attn_q.weight"));
    ck_assert_ptr_nonnull(strstr(c.out, "not q4_k: its rows are no multiple of 256"));
    ck_assert_ptr_nonnull(strstr(c.err, "become q5_0 instead of q4_k"));
    ck_assert_ptr_nonnull(strstr(c.err, "bits per weight"));
    ck_assert_ptr_null(strchr(c.err, '\r')); /* no progress bar where there is no terminal */
    ck_assert_ptr_nonnull(strstr(c.out, "config.json\nmodel.safetensors\nquantize_config.json\n"));
    cli_free(&c);
}
END_TEST

START_TEST(nothing_half_written)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "quantize", model, "/nowhere/x.gguf", "q8_0"), 1, "/nowhere/x.gguf");
    cli_expect(CLI(NULL, "quantize", model, "/nowhere/x", "int4_g32"), 1, "/nowhere/x");
    cli_expect(CLI(NULL, "quantize", model, folder, "int4_g128"), 1, "no multiple of int4_g128's group");
    /* A disk that is full after a few kB. */
    struct cli c = CLI_SHELL("(ulimit -f 8; trap '' XFSZ; $Q quantize \"$1\" \"$2/x.gguf\" q8_0); ls \"$2\"",
                             model, folder);
    ck_assert_msg(strstr(c.err, "x.gguf: cannot write it") != NULL, "%s", c.err);
    ck_assert_str_eq(c.out, "");
    cli_free(&c);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("quantize");
    TCase *tc = tcase_create("command");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, lists);
    tcase_add_test(tc, wrong_command_lines);
    tcase_add_test(tc, quantised_files_run);
    tcase_add_test(tc, nothing_half_written);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

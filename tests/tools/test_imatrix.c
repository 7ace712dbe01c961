/* `quoll imatrix`: files that come out, merging, and faults. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text_path[64], out_path[64], other_path[64];

static void setup(void)
{
    (void)snprintf(text_path, sizeof text_path, "/tmp/quoll-text-%ld", (long)getpid());
    (void)snprintf(out_path, sizeof out_path, "/tmp/quoll-im-%ld.gguf", (long)getpid());
    (void)snprintf(other_path, sizeof other_path, "/tmp/quoll-im2-%ld.gguf", (long)getpid());
    cli_write_text(text_path);
}

static void teardown(void)
{
    unlink(text_path);
    unlink(out_path);
    unlink(other_path);
}

START_TEST(a_file_comes_out)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(
        CLI(NULL, "imatrix", "-m", model, "-f", text_path, "-o", out_path, "-c", "32", "--chunks", "3"), 0,
        "");
    struct cli c = CLI(NULL, "inspect", out_path, "--tensors");
    ck_assert_ptr_nonnull(strstr(c.out, "blk.1.ffn_down.weight.in_sum2"));
    ck_assert_ptr_nonnull(strstr(c.out, "blk.1.ffn_down.weight.counts"));
    ck_assert_ptr_null(strstr(c.out, "output.weight.in_sum2\n"));
    cli_free(&c);
    /* The same bytes however it runs. */
    cli_expect(CLI(NULL, "imatrix", "-m", model, "-f", text_path, "-o", other_path, "-c", "32", "--chunks",
                   "3", "-t", "1", "-b", "32"),
               0, "");
    cli_expect(CLI_SHELL("cmp \"$1\" \"$2\" && echo same", out_path, other_path), 0, "same");
    cli_expect(CLI(NULL, "imatrix", "-m", model, "-f", text_path, "-o", other_path, "-c", "32", "--chunks",
                   "1", "--process-output"),
               0, "");
    cli_expect(CLI(NULL, "inspect", other_path, "--tensors"), 0, "  output.weight.in_sum2");
}
END_TEST

START_TEST(files_are_merged)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(
        CLI(NULL, "imatrix", "-m", model, "-f", text_path, "-o", out_path, "-c", "32", "--chunks", "2"), 0,
        "");
    cli_expect(CLI(NULL, "imatrix", "--in-file", out_path, "-o", other_path), 0, "");
    cli_expect(CLI(NULL, "imatrix", "-m", model, "-f", text_path, "-c", "32", "--from-chunk", "2", "--chunks",
                   "2", "--in-file", out_path, "-o", other_path),
               0, "");
    cli_expect(CLI(NULL, "inspect", other_path), 0, "u32   4");
}
END_TEST

START_TEST(faults_are_told)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "imatrix", "-m", model, "-o", out_path), 2, "a text is missing");
    cli_expect(CLI(NULL, "imatrix", "-m", model, "-f", text_path), 2, "-o FILE");
    cli_expect(CLI("a b c", "imatrix", "-m", model, "-f", "-", "-o", out_path), 1, "too short");
    cli_expect(CLI("", "imatrix", "-m", model, "-f", "-", "-o", out_path), 1, "empty");
    cli_expect(CLI("\xc3(", "imatrix", "-m", model, "-f", "-", "-o", out_path), 1, "not UTF-8 at byte 0");
    cli_expect(CLI(NULL, "imatrix", "--in-file", text_path, "-o", out_path), 1, text_path);
    cli_expect(CLI(NULL, "imatrix", "--in-file", model, "-o", out_path), 1, "no importance matrix");
    cli_expect(CLI(NULL, "imatrix", "-m", model, "-f", text_path, "-c", "32", "-o", "/nowhere/x"), 1,
               "/nowhere/x");
    ck_assert_int_ne(access(out_path, F_OK), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tools/imatrix");
    TCase *tc = tcase_create("imatrix");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_file_comes_out);
    tcase_add_test(tc, files_are_merged);
    tcase_add_test(tc, faults_are_told);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)

/* `quoll quantize --target-bpw`: the size that comes out, what is said about it, and faults. */
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
    (void)snprintf(out_path, sizeof out_path, "/tmp/quoll-target-%ld.gguf", (long)getpid());
    (void)snprintf(other_path, sizeof other_path, "/tmp/quoll-target2-%ld.gguf", (long)getpid());
    cli_write_text(text_path);
}

static void teardown(void)
{
    unlink(text_path);
    unlink(out_path);
    unlink(other_path);
}

/* The number in front of " bits per weight", and that behind "expected KL ". */
static double bits_of(const struct cli *c)
{
    const char *at = strstr(c->err, "chosen: ");
    ck_assert_msg(c->code == 0 && at, "%d: %s", c->code, c->err);
    return atof(at + strlen("chosen: "));
}

static double kl_of(const struct cli *c)
{
    const char *at = strstr(c->err, "expected KL ");
    ck_assert_ptr_nonnull(at);
    return atof(at + strlen("expected KL "));
}

#define PLAN(...) \
    CLI(NULL, "quantize", "--dry-run", "--target-tokens", "128", "--calib", text_path, __VA_ARGS__)

START_TEST(more_bits_cost_less)
{
    const char *model = cli_model();
    if (!model)
        return;
    struct cli few = PLAN(model, "--target-bpw", "4.7", "--target-types", "q4_0,q5_0,q8_0"),
               many = PLAN(model, out_path, "--target-bpw", "6", "--target-types", "q4_0,q5_0,q8_0");
    ck_assert_double_le(bits_of(&few), 4.7);
    ck_assert_double_gt(bits_of(&few), 4.5);
    ck_assert_double_le(bits_of(&many), 6);
    ck_assert_double_gt(bits_of(&many), 5.5);
    ck_assert_double_gt(kl_of(&few), 1.5 * kl_of(&many));
    ck_assert_ptr_nonnull(strstr(few.out, "\nblk.0.attn_q.weight "));
    ck_assert_ptr_nonnull(strstr(few.out, "\nblk.1.ffn_down.weight "));
    ck_assert_ptr_null(strstr(few.out, "  q6_k"));
    ck_assert_int_ne(access(out_path, F_OK), 0);
    cli_free(&few);
    cli_free(&many);
}
END_TEST

/* Types that options name stay; the rest is chosen around them. The file is what was said, on any threads. */
START_TEST(a_file_of_that_size)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "quantize", model, out_path, "q4_0", "--target-bpw", "5.2", "--target-tokens", "128",
                   "--calib", text_path, "--tensor-type", "blk.1.ffn_up=q8_0", "-t", "1"),
               0, "");
    cli_expect(CLI(NULL, "quantize", model, other_path, "q4_0", "--target-bpw", "5.2", "--target-tokens",
                   "128", "--calib", text_path, "--tensor-type", "blk.1.ffn_up=q8_0", "-t", "3"),
               0, "");
    cli_expect(CLI_SHELL("cmp \"$1\" \"$2\" && echo same", out_path, other_path), 0, "same");
    struct cli c = CLI(NULL, "inspect", out_path, "--tensors");
    const char *bits = strstr(c.out, "bits per weight"), *up = strstr(c.out, "blk.1.ffn_up.weight");
    ck_assert(c.code == 0 && bits && up);
    ck_assert_double_le(strtod(bits + strlen("bits per weight"), NULL), 5.2);
    ck_assert_ptr_nonnull(strstr(up, "q8_0"));
    ck_assert(strstr(up, "q8_0") < strchr(up, '\n'));
    cli_free(&c);
    cli_expect(CLI(NULL, "run", "-m", out_path, "-p", "Line", "-n", "3", "--temp", "0"), 0, "");
}
END_TEST

START_TEST(goes_through_a_method)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "quantize", model, out_path, "--target-bpw", "5", "--target-tokens", "128",
                   "--calib", text_path, "--calib-ctx", "64", "--method", "gptq"),
               0, "");
    cli_expect(CLI(NULL, "inspect", out_path), 0, "bits per weight");
}
END_TEST

START_TEST(faults_are_told)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "quantize", model, out_path, "--target-bpw", "5"), 2, "needs --calib TEXT");
    cli_expect(CLI(NULL, "quantize", model, out_path, "q4_0", "--target-types", "q8_0"), 2, "belong to");
    cli_expect(CLI(NULL, "quantize", model, out_path, "--target-bpw", "5", "--calib", text_path,
                   "--target-types", "q8_0,f16"),
               2, "'f16' is no type");
    cli_expect(CLI(NULL, "quantize", model, out_path, "int4_g32", "--target-bpw", "5", "--calib", text_path),
               2, "");
    cli_expect(CLI("too short", "quantize", model, out_path, "--target-bpw", "5", "--calib", "-"), 1,
               "too short");
    cli_expect(PLAN(model, "--target-bpw", "5", "--target-types", "q8_0"), 1, "the smallest");
    ck_assert_int_ne(access(out_path, F_OK), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("target");
    TCase *c = tcase_create("target");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, more_bits_cost_less);
    tcase_add_test(c, a_file_of_that_size);
    tcase_add_test(c, goes_through_a_method);
    tcase_add_test(c, faults_are_told);
    suite_add_tcase(s, c);
    return s;
}

TEST_SUITE(suite)

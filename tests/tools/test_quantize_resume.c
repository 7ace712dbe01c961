/* `quoll quantize` that is killed, stopped or out of space, and what it says of faulty input. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/quoll-resume-XXXXXX";

static void setup(void)
{
    (void)strcpy(folder, "/tmp/quoll-resume-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    cli_expect(CLI_SHELL("rm -r \"$1\"", folder), 0, "");
}

/* Scripts work in the folder; the model is $m there. */
#define ENTER "Q=$(realpath \"$Q\"); m=$(realpath \"$1\"); cd \"$2\"\n"

/* OUT, TYPE and options of each. */
static const struct run {
    const char *out, *args;
} runs[] = {
    {"x.gguf", "q8_0"},
    {"x.gguf", "q4_0 --method hqq"},
    {"x.gguf", "q4_0 --method gptq --calib text --calib-ctx 32 --calib-tokens 64"},
    {"x.gguf", "--target-bpw 6 --target-tokens 32 --calib text"},
    {"x", "int4_g32 --method hqq"},
    {"x", "int4_g32 --method awq --calib text --calib-ctx 32 --calib-tokens 64"},
};
enum { N_RUNS = sizeof runs / sizeof runs[0] };

/* A disk that is full earlier or later; the run after that goes on. */
START_TEST(full_disk)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI_SHELL("set -e\n" ENTER
                         "i=0; while [ $i -lt 60 ]; do echo \"Line $i of a town of $((i * i)) birds.\"; "
                         "i=$((i + 1)); done >text\n"
                         "$Q quantize $m $3 $4 -t 1 -q; mv $3 whole; kept=0\n"
                         "for k in 8 60 120 160; do\n"
                         "  (ulimit -f $k; trap '' XFSZ; exec $Q quantize $m $3 $4 --resume -t 1) 2>err &&"
                         " break\n"
                         "  grep -q ': cannot write it: File too large$' err; [ ! -e $3 ]\n"
                         "  if [ -e $3.part ]; then kept=$((kept + 1)); grep -q ' --resume ' err; fi\n"
                         "done\n"
                         "[ $kept -gt 0 ]; $Q quantize $m $3 $4 --resume -t 2 -q\n"
                         "diff -r whole $3; [ ! -e $3.part ]; echo same",
                         model, folder, runs[_i].out, runs[_i].args),
               0, "same\n");
}
END_TEST

/* Killed as soon as a layer is there; by Ctrl-C likewise. */
START_TEST(killed)
{
    static const char *const signals[] = {"KILL", "INT", "TERM"};
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI_SHELL("set -e\n" ENTER
                         "i=0; while [ $i -lt 200 ]; do echo \"Line $i of a town of $((i * i)) birds.\"; "
                         "i=$((i + 1)); done >text\n"
                         "o='q4_0 --method gptq --calib text --calib-ctx 64 -t 1'\n"
                         "$Q quantize $m whole.gguf $o -q\n"
                         "$Q quantize $m x.gguf $o 2>err & p=$!\n"
                         "while kill -0 $p 2>/dev/null && ! grep -q '\"layer\": 0' x.gguf.part/journal.json "
                         "2>/dev/null; do sleep 0.01; done\n"
                         "kill -$3 $p 2>/dev/null || :; wait $p || :\n"
                         "if [ -e x.gguf.part ]; then\n" /* else it was faster than its end */
                         "  [ ! -e x.gguf ]; [ $3 = KILL ] || grep -q ' --resume ' err\n"
                         "  if $Q quantize $m x.gguf $o 2>err; then exit 1; fi\n"
                         "  grep -q '^quoll: x.gguf.part: .* --resume goes on' err\n"
                         "  if $Q quantize $m x.gguf $o --damp 0.5 --resume 2>err; then exit 1; fi\n"
                         "  grep -q '^quoll: x.gguf.part: was begun with another method' err\n"
                         "  $Q quantize $m x.gguf $o --resume 2>err; grep -q 'goes on behind' err\n"
                         "fi\n"
                         "cmp x.gguf whole.gguf; [ ! -e x.gguf.part ]; echo same",
                         model, folder, signals[_i]),
               0, "same\n");
}
END_TEST

START_TEST(nothing_to_resume)
{
    const char *model = cli_model();
    char out[128];
    if (!model)
        return;
    (void)snprintf(out, sizeof out, "%s/x.gguf", folder);
    struct cli c = CLI(NULL, "quantize", model, out, "q8_0", "--resume");
    ck_assert_int_eq(c.code, 0);
    ck_assert_ptr_nonnull(strstr(c.err, "nothing to resume"));
    cli_free(&c);
    (void)snprintf(out, sizeof out, "%s/x.gguf.part", folder);
    ck_assert_int_ne(access(out, F_OK), 0);
}
END_TEST

START_TEST(faulty_texts)
{
    static const struct {
        const char *make, *says;
    } texts[] = {
        {"rm -f text", "text: No such file"},
        {": >text", "text: the file is empty"},
        {"echo a >text", "tokens are too few, a sequence has 256"},
        {"printf 'good \\377 bad' >text", "UTF-8"},
        {"rm text; mkdir text", "text"},
    };
    const char *model = cli_model();
    if (!model)
        return;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        cli_expect(CLI_SHELL(ENTER "eval \"$3\"; exec $Q quantize $m x.gguf q4_0 --method gptq "
                                   "--calib text",
                             model, folder, texts[i].make),
                   1, texts[i].says);
        cli_expect(CLI_SHELL("cd \"$1\"; ls -d x*; :", folder), 0, "");
    }
}
END_TEST

/* An unwritable folder: for root too where the file system takes no folder of this name. */
START_TEST(unwritable)
{
    const char *model = cli_model();
    if (!model)
        return;
    cli_expect(CLI(NULL, "quantize", model, "/proc/x.gguf", "q8_0"), 1,
               "/proc/x.gguf.part: cannot create it");
    cli_expect(CLI(NULL, "quantize", model, "/proc/x", "int4_g32"), 1, "/proc/x.part: cannot create it");
}
END_TEST

/* NaN as a half or whole float near the end, where the tensors are. */
START_TEST(values_that_are_not_finite)
{
    const char *model = cli_model();
    if (!model)
        return;
    struct cli c =
        CLI_SHELL("set -e\n" ENTER "cp $m bad.gguf; chmod +w bad.gguf; echo text >text\n"
                  "end=$(wc -c <bad.gguf); printf '\\000\\000\\300\\177' | dd of=bad.gguf bs=1 seek=$((end - "
                  "64)) conv=notrunc "
                  "2>/dev/null\n"
                  "for o in 'x.gguf q8_0' 'x int4_g32' 'x.gguf f16'; do\n"
                  "  if $Q quantize bad.gguf $o 2>err; then exit 1; fi\n"
                  "  grep -q \"^quoll: bad.gguf: tensor '.*' holds NaN in row .*, column\" err\n"
                  "  $Q quantize bad.gguf $o --allow-nan --resume -q; [ ! -e x.part ]; rm -r ${o% *}\n"
                  "done\n"
                  "$Q quantize bad.gguf x.gguf q4_0 --method hqq --allow-nan",
                  model, folder);
    ck_assert_msg(c.code == 2 && strstr(c.err, "takes no --allow-nan"), "%d %s%s", c.code, c.out, c.err);
    cli_free(&c);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("quantize --resume");
    TCase *tc = tcase_create("command");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, full_disk, 0, N_RUNS);
    tcase_add_loop_test(tc, killed, 0, 3);
    tcase_add_test(tc, nothing_to_resume);
    tcase_add_test(tc, faulty_texts);
    tcase_add_test(tc, unwritable);
    tcase_add_test(tc, values_that_are_not_finite);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)

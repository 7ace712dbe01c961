/* The program as such: help, wrong command lines, missing files, unwritable output. */
#include "tests/test.h"
#include "tests/tools/cli.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const commands[] = {"chat",     "run",    "bench",    "inspect", "tokenize",
                                       "template", "logits", "quantize", "convert", "perplexity",
                                       "imatrix",  "eval",   "lab"};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

START_TEST(help_is_success)
{
    const char *c = commands[_i];
    cli_expect(CLI(NULL, c, "--help"), 0, "usage: quoll ");
    cli_expect(CLI(NULL, c, "-h"), 0, c);
    cli_expect(CLI(NULL, "help", c), 0, c);
    cli_expect(CLI(NULL, "help"), 0, c);
}
END_TEST

START_TEST(program_describes_itself)
{
    cli_expect(CLI(NULL, "--help"), 0, "usage");
    cli_expect(CLI(NULL, "--version"), 0, QUOLL_VERSION);
    cli_expect(CLI(NULL, "--version"), 0, "level ");
    cli_expect(CLI_SHELL("QUOLL_ISA=scalar exec $Q --version", ""), 0, "level scalar");
    cli_expect(CLI_SHELL("QUOLL_ISA=mmx exec $Q --version", ""), 2, "mmx");
    cli_expect(CLI(NULL, "frobnicate"), 2, "frobnicate");
    cli_expect(CLI(NULL, "help", "frobnicate"), 2, "frobnicate");
}
END_TEST

/* Options of `run`, and what the message must name. */
static const struct {
    const char *option, *value, *text;
} wrong[] = {
    {"--nonsense", NULL, "--nonsense"},
    {"--top-k", NULL, "--top-k"}, /* its value is missing */
    {"--top-k", "40x", "40x"},
    {"--top-k", "", "--top-k"},
    {"--top-k", "99999999999999999999", "--top-k"},
    {"--top-k", "4.5", "4.5"},
    {"--temp", "nan", "nan"},
    {"--temp", "inf", "inf"},
    {"--temp", "1e999", "1e999"},
    {"--temp", " 1", "--temp"},
    {"--top-p", "1.5", "1.5"},
    {"--top_p", "-0.1", "-0.1"},
    {"-t", "0", "--threads"},
    {"-tb", "-3", "--threads-batch"},
    {"-t", "1000000000", "--threads"},
    {"-c", "-5", "--ctx-size"},
    {"-b", "0", "--batch-size"},
    {"-n", "-3", "--predict"},
    {"-s", "-2", "--seed"},
    {"--isa", "sse9", "sse9"},
    {"--compute", "f64", "f64"},
    {"-ctk", "q6_k", "q6_k"},
    {"--kv-type", "fp8", "later version"},
    {"--device", "tpu", "tpu"},
    {"--device", "cuda:x", "cuda:N"},
    {"--device", "cudax", "cuda:N"},
    {"--rope-scaling", "longrope", "longrope"},
    {"--rope-scaling", "bent", "bent"},
    {"--grammar", "x.gbnf", "later version"},
    {"--grammar=x.gbnf", NULL, "later version"},
    {"--json-schema", "{}", "later version"},
    {"--lora", ":2", "path is missing"},
    {"--quantize", "q9_9", "q9_9"},
    {"--quantize", "i8", "i8"},
    {"--mirostat", "1", "--mirostat"},
    {"--samplers", "top_k;magic", "magic"},
    {"--logit-bias", "5", "--logit-bias"},
    {"--logit-bias", "=1", "--logit-bias"},
    {"--logit-bias", "5=x", "--logit-bias"},
    {"--logit-bias", "99999999999=1", "--logit-bias"},
    {"--stop", "", "--stop"},
    {"--ids=3", NULL, "takes no value"},
    {"-fa", "maybe", "maybe"},
    {"stray", NULL, "stray"},
};

START_TEST(wrong_option_is_named)
{
    cli_expect(CLI(NULL, "run", "-p", "x", wrong[_i].option, wrong[_i].value), 2, wrong[_i].text);
}
END_TEST

/* Options that the last checks see, with a value each. */
static const char *const right[][2] = {
    {"--top_k", "3"},
    {"--n-predict", "1"},
    {"--max-new-tokens", "1"},
    {"--predict", "1"},
    {"-ctk", "f32"},
    {"-ctv", "f32"},
    {"--cache_type_k", "f16"},
    {"--kv-type", "F32"},
    {"-fa", "on"},
    {"-fa", "auto"},
    {"-tb", "1"},
    {"--threads", "1"},
    {"--device", "cpu"},
    {"--device", "auto"},
    {"-ngl", "0"},
    {"--isa", "auto"},
    {"--isa", "scalar"},
    {"--compute", "f32"},
    {"--seed", "-1"},
    {"--temperature", "0"},
    {"--logit-bias", "3-inf"},
    {"--logit-bias", "3=-1.5"},
    {"--mirostat", "2"},
    {"--samplers", "top-k;temp"},
    {"--rope-scaling", "none"},
    {"--quantize", "q4_k"},
    {"-c", "0"},
    {"-c", "17"},
    {"-b", "1"},
    {"--no-mmap", NULL},
    {"--exact", NULL},
    {"--check-finite", NULL},
    {"-fa", NULL},
    {"--ignore-eos", NULL},
    {"-v", NULL},
    {"--no-repack", NULL},
    {"--dry-multiplier", "0.8"},
};

START_TEST(right_option_is_taken)
{
    const char *m = cli_model();
    if (m)
        cli_expect(CLI(NULL, "run", "-m", m, "-p", "a", "-n", "2", right[_i][0], right[_i][1]), 0, "");
}
END_TEST

/* A level that this CPU lacks is told at once; one that it has computes. */
START_TEST(cpu_level_is_checked)
{
    const char *m = cli_model(), *level = isa_name((enum isa)_i);
    if (!m)
        return;
    int code = isa_supported((enum isa)_i) ? 0 : 1;
    cli_expect(CLI(NULL, "run", "-q", "-m", m, "-p", "a", "-n", "2", "--isa", level), code,
               code ? level : "");
    ck_assert_int_eq(setenv("QUOLL_ISA", level, 1), 0);
    cli_expect(CLI(NULL, "run", "-q", "-m", m, "-p", "a", "-n", "2"), code, code ? "QUOLL_ISA" : "");
    cli_expect(CLI(NULL, "--version"), code ? 1 : 0, level);
}
END_TEST

START_TEST(missing_file_is_named)
{
    static const char *const argv[][6] = {
        {"run", "-m", "/nonexistent/x.gguf", "-p", "a"},
        {"logits", "-m", "/nonexistent/x.gguf", "-p", "a"},
        {"bench", "-m", "/nonexistent/x.gguf"},
        {"chat", "-m", "/nonexistent/x.gguf"},
        {"inspect", "/nonexistent/x.gguf"},
        {"tokenize", "-m", "/nonexistent/x.gguf", "-p", "a"},
        {"template", "--template", "/nonexistent/x.gguf", "--messages", "/nonexistent/x.gguf"},
        {"run", "-f", "/nonexistent/x.gguf"},
        {"logits", "--ids", "/nonexistent/x.gguf"},
    };
    const char *m = cli_model();
    if (!m)
        return;
    ck_assert_int_eq(setenv("QUOLL_MODEL", m, 1), 0);
    cli_expect(cli_run(NULL, argv[_i]), 1, "/nonexistent/x.gguf");
}
END_TEST

START_TEST(no_model_at_all)
{
    /* away from weights/ and from the program's own folder */
    cli_expect(
        CLI_SHELL(
            "unset QUOLL_MODEL; d=$(mktemp -d) && cp \"$Q\" \"$d/quoll\" && cd \"$d\" && ./quoll run -p a;"
            "r=$?; cd / && rm -r \"$d\"; exit $r",
            ""),
        1, "QUOLL_MODEL");
}
END_TEST

/* Results that cannot be written are a failure that is told, on every command. */
START_TEST(full_disk_is_told)
{
    static const char *const scripts[] = {
        "exec $Q help >/dev/full",
        "exec $Q run --help >/dev/full",
        "exec $Q --version >/dev/full",
        "exec $Q run -q -m \"$1\" -p a -n 4 >/dev/full",
        "exec $Q logits -q -m \"$1\" -p a >/dev/full",
        "exec $Q bench -q -m \"$1\" -p 1 -n 1 -r 1 >/dev/full",
        "exec $Q inspect \"$1\" >/dev/full",
        "exec $Q tokenize -m \"$1\" -p a >/dev/full",
    };
    const char *m = cli_model();
    if (m)
        cli_expect(CLI_SHELL(scripts[_i], m), 1, "standard output: ");
}
END_TEST

START_TEST(closed_files_do_no_harm)
{
    const char *m = cli_model();
    if (!m)
        return;
    cli_expect(CLI_SHELL("exec $Q run -q -m \"$1\" -p a -n 4 --temp 0 <&-", m), 0, "");
    cli_expect(CLI_SHELL("exec $Q run -m \"$1\" -p a -n 4 --temp 0 2>&-", m), 0, "");
    cli_expect(CLI_SHELL("exec $Q run -q -m \"$1\" -p a -n 4 --temp 0 >&-", m), 1, "standard output");
    cli_expect(CLI_SHELL("exec $Q run -q -m \"$1\" -f - <&-", m), 0, ""); /* an empty prompt */
}
END_TEST

START_TEST(reader_may_leave)
{
    const char *m = cli_model();
    if (!m)
        return;
    /* the code of quoll itself, on the shell's own stderr */
    struct cli c = CLI_SHELL(
        "{ $Q run -q -m \"$1\" -p a -n 200 --ids --ignore-eos; echo \"code $?\" >&2; } | head -c 1", m);
    ck_assert_str_eq(c.err, "code 1\n");
    ck_assert_uint_eq(c.out_len, 1);
    cli_free(&c);
    /* more than a buffer of it */
    c = CLI_SHELL("{ sleep 0.3; $Q inspect \"$1\" --tensors --json; echo \"code $?\" >&2; } | :", m);
    ck_assert_str_eq(c.err, "code 1\n");
    cli_free(&c);
}
END_TEST

START_TEST(interrupt_ends_cleanly)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI_SHELL("f=$(mktemp); $Q run -m \"$1\" -c 1000000 -p a --ids --ignore-eos >\"$f\" & "
                             "until [ -s \"$f\" ]; do sleep 0.1; done; kill -INT $!; wait $!; r=$?; "
                             "cat \"$f\"; rm \"$f\"; exit $r",
                             m);
    ck_assert_msg(c.code == 130, "code %d: %s", c.code, c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "tokens/s"));
    ck_assert_int_eq(c.out[c.out_len - 1], '\n');
    cli_free(&c);
}
END_TEST

START_TEST(log_goes_to_its_file)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI_SHELL(
        "f=$(mktemp); $Q run -m \"$1\" -p a -n 2 --log-file \"$f\" >/dev/null; cat \"$f\"; rm \"$f\"", m);
    ck_assert_ptr_nonnull(strstr(c.out, "tokens/s"));
    ck_assert_str_eq(c.err, "");
    cli_free(&c);
    cli_expect(CLI(NULL, "run", "-m", m, "-p", "a", "--log-file", "/nonexistent/log"), 1, "/nonexistent/log");
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

static Suite *cli_suite(void)
{
    Suite *suite = suite_create("cli");
    TCase *tc = tcase_create("cli");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, help_is_success, 0, N_COMMANDS);
    tcase_add_test(tc, program_describes_itself);
    tcase_add_loop_test(tc, wrong_option_is_named, 0, COUNT(wrong));
    tcase_add_loop_test(tc, right_option_is_taken, 0, COUNT(right));
    tcase_add_loop_test(tc, cpu_level_is_checked, 0, ISA_COUNT);
    tcase_add_loop_test(tc, missing_file_is_named, 0, 9);
    tcase_add_test(tc, no_model_at_all);
    tcase_add_loop_test(tc, full_disk_is_told, 0, 8);
    tcase_add_test(tc, closed_files_do_no_harm);
    tcase_add_test(tc, reader_may_leave);
    tcase_add_test(tc, interrupt_ends_cleanly);
    tcase_add_test(tc, log_goes_to_its_file);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(cli_suite)

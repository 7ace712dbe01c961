/* `quoll template` as a user and a script see it. */
#include "tests/test.h"
#include "tests/tools/chat_model.h"
#include "tests/tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char file[] = "/tmp/quoll-template-XXXXXX";

/* The template in a temporary file, removed by drop_file. */
static const char *template_file(const char *source)
{
    memcpy(file + sizeof file - 7, "XXXXXX", 6);
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, source, strlen(source)), (ssize_t)strlen(source));
    (void)close(fd);
    return file;
}

static void drop_file(void)
{
    (void)unlink(file);
}

static void prints(struct cli c, const char *out)
{
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_str_eq(c.out, out);
    ck_assert_str_eq(c.err, "");
    cli_free(&c);
}

#define HELLO "[{\"role\": \"user\", \"content\": \"Hello\"}]"

START_TEST(prints_the_prompt_exactly)
{
    const char *t = template_file("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}\n"
                                  "{% if add_generation_prompt %}A:{% endif %}|{{ eos_token }}|"
                                  "{{ tools is none and documents is none }}\n");
    prints(CLI(HELLO, "template", "--template", t, "--messages", "-"), "HelloA:||True");
    prints(CLI(HELLO, "template", "--template", t, "--messages", "-", "--no-generation-prompt"),
           "Hello||True");
    prints(CLI(HELLO, "template", "--template", t, "--messages", "-", "--bos", "<s>", "--eos", "\xc3\xa9"),
           "<s>HelloA:|\xc3\xa9|True");
    prints(CLI("[]", "template", "--template", t, "--messages", "-"), "A:||True");
}
END_TEST

START_TEST(takes_a_request)
{
    const char *t =
        template_file("{{ messages|length }}{{ add_generation_prompt }}{{ tools|tojson }}{{ x.y }}"
                      "{{ bos_token }}{{ messages[0].content|length }}");
    const char *request =
        "{\"messages\": [{\"content\": \"a\\u0000b\"}], \"tools\": [{\"name\": \"f\", \"a\": 1.0}],"
        " \"x\": {\"y\": 5}, \"bos_token\": \"B\"}";
    prints(CLI(request, "template", "--template", t, "--messages", "-"),
           "1True[{\"name\": \"f\", \"a\": 1.0}]5B3");
    prints(CLI(request, "template", "--template", t, "--messages", "-", "--bos", "C"),
           "1True[{\"name\": \"f\", \"a\": 1.0}]5C3");
    const char *closed = "{\"messages\": [{}], \"add_generation_prompt\": false, \"x\": {}}";
    prints(CLI(closed, "template", "--template", t, "--messages", "-"), "1Falsenull0");
}
END_TEST

START_TEST(sees_the_time_given)
{
    const char *t = template_file("{{ strftime_now('%A %d %B %Y %H:%M:%S %j') }}");
    prints(CLI("[]", "template", "--template", t, "--messages", "-", "--now", "2024-02-29T23:59:58"),
           "Thursday 29 February 2024 23:59:58 060");
    prints(CLI_SHELL("echo [] | LC_ALL=de_DE.UTF-8 $Q template --template $1 --messages - "
                     "--now 2024-07-26T09:30:00",
                     t),
           "Friday 26 July 2024 09:30:00 208");
    static const char *const bad[] = {"2023-02-29T00:00:00", "2024-07-26",          "2024-07-26T09:30:00Z",
                                      "2024-13-01T00:00:00", "2024-07-26T25:00:00", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cli_expect(CLI("[]", "template", "--template", t, "--messages", "-", "--now", bad[i]), 2, "--now");
}
END_TEST

START_TEST(says_what_is_wrong)
{
    static const struct {
        const char *source, *messages, *text;
    } cases[] = {
        {"{{ raise_exception('No system, please.') }}", "[]", ": No system, please."},
        {"{{ raise_exception('two\nlines') }}", "[]", "two"},
        {"\n{% if x %}", "[]", ":2: "},
        {"\n{{ x.y }}", "[]", ":2: 'x' is undefined"},
        {"x", "[", "-:1: "},
        {"x", "{}", "neither an array of messages"},
        {"x", "5", "-:1: "},
        {"x", "{\"messages\": 5}", "neither an array of messages"},
        {"x", "", "-:1: "},
        {"\xff", "[]", "not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *t = template_file(cases[i].source);
        cli_expect(CLI(cases[i].messages, "template", "--template", t, "--messages", "-"), 1, cases[i].text);
        drop_file();
    }
    const char *t = template_file("x");
    cli_expect(CLI(NULL, "template", "--template", t, "--messages", "/nonexistent/m.json"), 1,
               "/nonexistent/m.json");
    cli_expect(CLI("[]", "template", "--template", "/nonexistent/t", "--messages", "-"), 1, "/nonexistent/t");
    cli_expect(CLI(NULL, "template", "--template", t), 2, "--messages");
    cli_expect(CLI("[]", "template", "--template", t, "-m", t, "--messages", "-"), 2, "-m and --template");
}
END_TEST

START_TEST(uses_the_models_template)
{
    const char *path = chat_model("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ nothing }}");
    if (!path)
        return;
    char model[1024];
    (void)snprintf(model, sizeof model, "%s", path);
    struct cli c = CLI(HELLO, "template", "-m", model, "--messages", "-");
    ck_assert_msg(c.code == 0, "%s", c.err);
    char *hello = strstr(c.out, "Hello");
    ck_assert_ptr_nonnull(hello);
    ck_assert_ptr_ne(hello, c.out); /* a BOS stands before it, an EOS after */
    ck_assert_uint_gt(strlen(hello), 5);
    cli_free(&c);
    prints(CLI(HELLO, "template", "-m", model, "--messages", "-", "--bos", "", "--eos", "!"), "Hello!");
    (void)unlink(model);
    cli_expect(CLI(HELLO, "template", "-m", cli_model(), "--messages", "-"), 1, "no chat template");
    path = chat_model("{% if %}");
    (void)snprintf(model, sizeof model, "%s", path);
    cli_expect(CLI(HELLO, "template", "-m", model, "--messages", "-"), 1, "tokenizer.chat_template:1: ");
    (void)unlink(model);
}
END_TEST

static Suite *template_command_suite(void)
{
    Suite *s = suite_create("template command");
    TCase *tc = tcase_create("template");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, NULL, drop_file);
    tcase_add_test(tc, prints_the_prompt_exactly);
    tcase_add_test(tc, takes_a_request);
    tcase_add_test(tc, sees_the_time_given);
    tcase_add_test(tc, says_what_is_wrong);
    tcase_add_test(tc, uses_the_models_template);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(template_command_suite)

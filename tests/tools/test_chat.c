/* `quoll chat` with stdin no terminal: turns, commands, what it refuses, what it survives. */
#include "tests/test.h"
#include "tests/tools/chat_model.h"
#include "tests/tools/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char model[256], file[] = "/tmp/quoll-chat-XXXXXX";
static bool here;

static void use_template(const char *chat_template)
{
    if (model[0])
        (void)unlink(model);
    const char *path = chat_model(chat_template);
    here = path != NULL;
    (void)snprintf(model, sizeof model, "%s", here ? path : "");
}

static void begin(void)
{
    use_template(CHAT_TEMPLATE);
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void end(void)
{
    (void)unlink(model);
    (void)unlink(file);
}

/* Greedy, 12 tokens an answer (ends of turn are banned: a random model ends where it likes). */
static struct cli chat(const char *input)
{
    return CLI(input, "chat", "-m", model, "--temp", "0", "-n", "12", "-t", "2", "-q", "--ignore-eos");
}

/* What was saved in `file`. */
static json_t *saved(void)
{
    json_error_t e;
    json_t *root = json_load_file(file, 0, &e);
    ck_assert_msg(root != NULL, "%s: line %d: %s", file, e.line, e.text);
    return root;
}

static json_t *messages(json_t *root)
{
    return json_object_get(root, "messages");
}

static const char *content(json_t *root, size_t i)
{
    const char *text = json_string_value(json_object_get(json_array_get(messages(root), i), "content"));
    ck_assert_ptr_nonnull(text);
    return text;
}

/* A conversation by commands, then what it saved; input's %s is the file. */
static json_t *chat_and_save(const char *commands)
{
    char input[1024];
    (void)snprintf(input, sizeof input, "%s\n/save %s\n", commands, file);
    struct cli c = chat(input);
    ck_assert_msg(c.code == 0, "%s", c.err);
    cli_free(&c);
    return saved();
}

START_TEST(answers_are_all_that_stdout_gets)
{
    if (!here)
        return;
    struct cli one = chat("hello\n"), same = chat("hello"),
               two = chat("/help\nhello\n/show\n\n  \nand\n/set\n");
    ck_assert_msg(one.code == 0, "%s", one.err);
    ck_assert_uint_gt(one.out_len, 1);
    ck_assert_int_eq(one.out[one.out_len - 1], '\n');
    ck_assert_str_eq(same.out, one.out);
    ck_assert_msg(two.code == 0, "%s", two.err);
    ck_assert_uint_gt(two.out_len, one.out_len);
    ck_assert_mem_eq(two.out, one.out, one.out_len);
    ck_assert_ptr_nonnull(strstr(two.err, "/undo"));
    ck_assert_ptr_nonnull(strstr(two.err, "KV cache"));
    ck_assert_ptr_nonnull(strstr(two.err, "top-k"));
    cli_free(&one);
    cli_free(&same);
    cli_free(&two);
}
END_TEST

/* The second answer is the same whether the first turn is in the cache or comes from a file. */
static void check_reuse(void)
{
    char input[256];
    json_t *whole = chat_and_save("one\ntwo\nthree");
    ck_assert_uint_eq(json_array_size(messages(whole)), 6);
    json_t *part = chat_and_save("one\ntwo");
    ck_assert_str_eq(content(part, 3), content(whole, 3));
    (void)snprintf(input, sizeof input, "/load %s\nthree\n/save %s\n", file, file);
    struct cli c = chat(input);
    ck_assert_msg(c.code == 0, "%s", c.err);
    json_t *again = saved();
    ck_assert(json_equal(messages(again), messages(whole)));
    ck_assert_str_eq(json_string_value(json_object_get(again, "model")), model);
    cli_free(&c);
    json_decref(whole);
    json_decref(part);
    json_decref(again);
}

START_TEST(reused_and_recomputed_turns_answer_alike)
{
    if (!here)
        return;
    check_reuse();
    /* a template that rewrites history: of earlier answers only a letter stays */
    use_template("{% for m in messages %}<{{ m.role[0] }}>"
                 "{{ m.content if m.role == 'user' else m.content[:1] }}\n{% endfor %}<a>");
    check_reuse();
}
END_TEST

START_TEST(undo_and_retry_go_back)
{
    if (!here)
        return;
    json_t *plain = chat_and_save("one\ntwo");
    json_t *undone = chat_and_save("one\nfalse start\n/undo\ntwo");
    ck_assert(json_equal(messages(undone), messages(plain)));
    json_t *again = chat_and_save("one\ntwo\n/retry\n/regen"); /* greedy: the same answer */
    ck_assert(json_equal(messages(again), messages(plain)));
    json_t *cleared = chat_and_save("/system be kind\nfalse start\n/clear\n/system\none\ntwo");
    ck_assert(json_equal(messages(cleared), messages(plain)));
    json_t *system = chat_and_save("/system be kind\none");
    ck_assert_uint_eq(json_array_size(messages(system)), 3);
    ck_assert_str_eq(content(system, 0), "be kind");
    ck_assert_str_ne(content(system, 2), content(plain, 1));
    json_decref(plain);
    json_decref(undone);
    json_decref(again);
    json_decref(cleared);
    json_decref(system);
}
END_TEST

START_TEST(blocks_hold_several_lines)
{
    static const char *const blocks[] = {"\"\"\"/one\ntwo\"\"\"", "\"\"\"\n/one\ntwo\n\"\"\"  ",
                                         "\"\"\"/one\r\ntwo\"\"\"\r"};
    if (!here)
        return;
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        json_t *root = chat_and_save(blocks[i]);
        ck_assert_str_eq(content(root, 0), "/one\ntwo");
        json_decref(root);
    }
    struct cli open = chat("\"\"\"one\ntwo"), line = chat("\"\"\"one\ntwo\"\"\"");
    ck_assert_int_eq(open.code, 0);
    ck_assert_str_eq(open.out, line.out); /* the end of the file ends the block */
    cli_free(&open);
    cli_free(&line);
}
END_TEST

START_TEST(settings_change_answers)
{
    if (!here)
        return;
    json_t *root = chat_and_save("/set n 3\n/set top_k = 5\n/set temp 0\none");
    json_t *settings = json_object_get(root, "settings");
    ck_assert_int_eq((int)json_integer_value(json_object_get(settings, "predict")), 3);
    ck_assert_int_eq((int)json_integer_value(json_object_get(settings, "top-k")), 5);
    json_t *longer = chat_and_save("one");
    ck_assert_uint_lt(strlen(content(root, 1)), strlen(content(longer, 1)));
    json_decref(root);
    json_decref(longer);

    /* the same seed gives the same text, another one another; /set begins at the seed again */
    static const char *const args[] = {"-s", "5", "-s", "5", "-s", "6"};
    char *out[3];
    for (size_t i = 0; i < 3; i++) {
        struct cli c = CLI("one\n/undo\n/set temp 1.5\none\n", "chat", "-m", model, "--temp", "1.5", "-n",
                           "30", "--ignore-eos", "-q", args[2 * i], args[2 * i + 1]);
        ck_assert_msg(c.code == 0, "%s", c.err);
        out[i] = strdup(c.out);
        cli_free(&c);
    }
    ck_assert_str_eq(out[0], out[1]);
    ck_assert_str_ne(out[0], out[2]);
    for (size_t i = 0; i < 3; i++)
        free(out[i]);
}
END_TEST

static const struct {
    const char *input, *text;
} refused[] = {
    {"/undo", "no turn yet"},
    {"/retry", "no turn yet"},
    {"/nosuch thing", "no command /nosuch"},
    {"/", "no command /"},
    {"/undoo", "no command /undoo"},
    {"/quit now", "takes no argument"},
    {"/set temp", "value is missing"},
    {"/set temp warm", "warm"},
    {"/set temp -5", "-5"},
    {"/set colour 1", "colour"},
    {"/set top-k 99999999999", "99999999999"},
    {"/save", "file is missing"},
    {"/save /dev/full", "No space left"},
    {"/save /no/such/folder/x", "No such file"},
    {"/load", "file is missing"},
    {"/load /no/such/file", "No such file"},
    {"/load /dev/null", "/dev/null"},
    {"/load /", "directory"},
};

/* A refused command is one line, the chat goes on, and the exit code remembers. */
START_TEST(commands_are_refused_and_the_chat_goes_on)
{
    char input[256];
    if (!here)
        return;
    (void)snprintf(input, sizeof input, "%s\nhello\n", refused[_i].input);
    struct cli plain = chat("hello\n"), c = chat(input);
    ck_assert_str_eq(c.out, plain.out);
    cli_free(&plain);
    cli_expect(c, 1, refused[_i].text);
}
END_TEST

START_TEST(a_full_context_forgets_the_oldest_turns)
{
    if (!here)
        return;
#define THREE "tell me something\ntell me something\ntell me something\n"
    char input[1024];
    (void)snprintf(input, sizeof input, "/system keep this\n" THREE THREE THREE THREE "/save %s\n", file);
    struct cli c = CLI(input, "chat", "-m", model, "--temp", "0", "-n", "12", "-c", "128", "--ignore-eos");
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "of 128 tokens is full"));
    ck_assert_ptr_nonnull(strstr(c.err, "forgotten"));
    cli_free(&c);
    json_t *root = saved();
    ck_assert_uint_eq(json_array_size(messages(root)), 25); /* the file keeps them all */
    ck_assert_str_eq(content(root, 0), "keep this");
    json_decref(root);
}
END_TEST

START_TEST(an_answer_ends_where_the_context_does)
{
    if (!here)
        return;
    struct cli c = CLI("hello\n", "chat", "-m", model, "--temp", "0", "-c", "32", "--ignore-eos");
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "the answer ends here"));
    ck_assert_uint_gt(c.out_len, 5);
    cli_free(&c);
}
END_TEST

START_TEST(messages_too_long_are_refused)
{
    if (!here)
        return;
    char input[1024], longer[600];
    memset(longer, 'x', sizeof longer);
    for (size_t i = 1; i < sizeof longer; i += 2)
        longer[i] = '.';
    longer[sizeof longer - 1] = '\0';
    (void)snprintf(input, sizeof input, "one\n%s\ntwo\n/save %s\n", longer, file);
    struct cli c =
        CLI(input, "chat", "-m", model, "--temp", "0", "-n", "12", "-c", "128", "-q", "--ignore-eos");
    cli_expect(c, 1, "the context holds 128");
    json_t *root = saved(), *plain;
    ck_assert_uint_eq(json_array_size(messages(root)), 4);
    plain = chat_and_save("one\ntwo"); /* nothing was forgotten for it */
    ck_assert(json_equal(messages(root), messages(plain)));
    json_decref(root);
    json_decref(plain);
}
END_TEST

START_TEST(templates_that_fail_are_an_error_a_turn)
{
    if (!here)
        return;
    use_template("{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}<u>x<a>");
    struct cli c = chat("one\ntwo\n");
    cli_expect(c, 1, "one turn only");
    use_template("{% if false %}x{% endif %}");
    cli_expect(chat("one\n"), 1, "empty prompt");
}
END_TEST

START_TEST(ends_of_the_world)
{
    if (!here)
        return;
    static const char *const full = "echo hi | $Q chat -m $1 -n 4 -q --ignore-eos --temp 0 >/dev/full";
    cli_expect(CLI_SHELL(full, model), 1, "No space left");
    cli_expect(CLI_SHELL("echo hi | $Q chat -m $1 -n 4 -q --ignore-eos >&-", model), 1, "standard output");
    cli_expect(CLI_SHELL("exec $Q chat -m $1 <&-", model), 0, "");
    cli_expect(CLI_SHELL("exec $Q chat -m $1 2>/dev/null </dev/null", model), 0, "");
    cli_expect(CLI_SHELL("exec $Q chat -m $1 -q <.", model), 1, "Is a directory");
    /* a reader that leaves is no signal and no message */
    struct cli c =
        CLI_SHELL("(yes hi | $Q chat -m $1 -q -n 50 --ignore-eos; echo $? >&2) | head -c 1", model);
    ck_assert_str_eq(c.err, "1\n");
    cli_free(&c);
    /* any bytes */
    c = CLI_SHELL("(head -c 100 /dev/zero; printf '\\377\\033[2J\\n'; head -c 200 $Q) | "
                  "$Q chat -m $1 -c 2048 -q -n 2 --ignore-eos >/dev/null",
                  model);
    ck_assert_msg(c.code == 0, "%d %s", c.code, c.err);
    cli_free(&c);
}
END_TEST

START_TEST(interrupts_end_it_cleanly)
{
    if (!here)
        return;
    /* a pipe that this side holds open: neither end of the file nor a line comes */
    (void)unlink(file);
    ck_assert_int_eq(mkfifo(file, 0600), 0);
    static const char *const idle = "$Q chat -m $1 <>$2 & p=$!; sleep 1; kill -$3 $p; wait $p";
    cli_expect(CLI_SHELL(idle, model, file, "INT"), 130, "");
    cli_expect(CLI_SHELL(idle, model, file, "TERM"), 130, "");
    /* an answer without end */
    static const char *const busy = "$Q chat -m $1 -c 100000 -q --ignore-eos <>$2 >/dev/null & p=$!; "
                                    "echo hi >$2; sleep 1; kill -TERM $p; wait $p";
    cli_expect(CLI_SHELL(busy, model, file), 130, "");
}
END_TEST

START_TEST(command_lines)
{
    if (!here)
        return;
    cli_expect(CLI("hello\n", "chat", "-m", model, "-n", "0", "--temp", "0"), 0, "\n");
    cli_expect(CLI(NULL, "chat", "-m", model, "-n", "-2"), 2, "--predict");
    cli_expect(CLI(NULL, "chat", "-m", model, "word"), 2, "word");
    cli_expect(CLI(NULL, "chat", "-m", "/no/such/model"), 1, "/no/such/model");
    cli_expect(CLI(NULL, "chat", "-m", cli_model()), 1, "template");
    struct cli a = CLI("one\n", "chat", "-m", model, "-sys", "be kind", "--temp", "0", "-n", "12", "-q",
                       "--ignore-eos"),
               b = chat("/system be kind\none\n");
    ck_assert_str_eq(a.out, b.out);
    cli_free(&a);
    cli_free(&b);
}
END_TEST

START_TEST(default_model_answers)
{
    const char *path = test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    if (!path) {
        test_skip("a chat with the default model", "it is not in weights/ (make model)");
        return;
    }
    struct cli c = CLI("Say hello.\nWhat is the capital of Italy?\n", "chat", "-m", path, "--temp", "0", "-n",
                       "40", "-q");
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.out, "ello"));
    cli_free(&c);
}
END_TEST

static Suite *chat_suite(void)
{
    Suite *s = suite_create("tools/chat");
    TCase *c = tcase_create("chat");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, begin, end);
    tcase_add_test(c, answers_are_all_that_stdout_gets);
    tcase_add_test(c, reused_and_recomputed_turns_answer_alike);
    tcase_add_test(c, undo_and_retry_go_back);
    tcase_add_test(c, blocks_hold_several_lines);
    tcase_add_test(c, settings_change_answers);
    tcase_add_loop_test(c, commands_are_refused_and_the_chat_goes_on, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(c, a_full_context_forgets_the_oldest_turns);
    tcase_add_test(c, an_answer_ends_where_the_context_does);
    tcase_add_test(c, messages_too_long_are_refused);
    tcase_add_test(c, templates_that_fail_are_an_error_a_turn);
    tcase_add_test(c, ends_of_the_world);
    tcase_add_test(c, interrupts_end_it_cleanly);
    tcase_add_test(c, command_lines);
    tcase_add_test(c, default_model_answers);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(chat_suite)

/* Where a model's prompt format comes from, and what its text becomes: BOS once, control tokens of the
 * template, none of the user's. */
#include "tools/chat_prompt.h"

#include "tests/test.h"
#include "tests/tools/cli.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *talk(const char *json)
{
    json_t *messages = json_loads(json, 0, NULL);
    ck_assert_ptr_nonnull(messages);
    return messages;
}

#define ONE "[{\"role\":\"user\",\"content\":\"A\"}]"
#define THREE                                                                            \
    "[{\"role\":\"user\",\"content\":\"A\"},{\"role\":\"assistant\",\"content\":\"B\"}," \
    "{\"role\":\"user\",\"content\":\"C\"}]"
#define SYSTEM "[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"A\"}]"

/* Prompts from before templates, as the models' own code writes them. */
START_TEST(built_in_prompts)
{
    static const struct {
        const char *model, *messages, *text;
    } cases[] = {
        {"chatglm1", ONE, "A[gMASK]<sop>"},
        {"chatglm1", THREE, "[Round 0]\n问：A\n答：B\n[Round 1]\n问：C\n答：[gMASK]<sop>"},
        {"chatglm3", ONE, "[gMASK]sop<|user|>\n A<|assistant|>"},
        {"chatglm3", THREE, "[gMASK]sop<|user|>\n A<|assistant|>\n B<|user|>\n C<|assistant|>"},
        {"chatglm3", SYSTEM, "[gMASK]sop<|system|>\n S<|user|>\n A<|assistant|>"},
        {"tiny/tiktoken-glm4.model", THREE,
         "[gMASK]<sop><|user|>\nA<|assistant|>\nB<|user|>\nC<|assistant|>\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[200], err[512], *text;
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s", cases[i].model);
        struct tokenizer *t;
        struct chat_prompt *p;
        size_t len;
        json_t *messages = talk(cases[i].messages);
        ck_assert_msg(vocab_open_path(&t, path, err, sizeof err) == 0, "%s", err);
        (void)tool_log_open(-1, NULL, err, sizeof err); /* the note is known */
        ck_assert_msg(chat_prompt_open_path(&p, path, t, err, sizeof err) == 0, "%s", err);
        (void)tool_log_open(0, NULL, err, sizeof err);
        ck_assert_msg(chat_prompt_render(p, messages, true, &text, &len, err, sizeof err) == 0, "%s", err);
        ck_assert_str_eq(text, cases[i].text);
        free(text);
        json_decref(messages);
        chat_prompt_close(p);
        tokenizer_free(t);
    }
}
END_TEST

START_TEST(by_vocabulary)
{
    char err[512];
    const char *source = NULL;
    struct tokenizer *t;
    ck_assert_int_eq(vocab_open_path(&t, "tests/golden/tokenizers/tiny/sp-bpe.model", err, sizeof err), 0);
    ck_assert_ptr_null(chat_builtin(t, "llama", &source)); /* 1,000 tokens are no LLaMA 2 */
    tokenizer_free(t);
}
END_TEST

static char folder[64];

static void put_file(const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void drop_file(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    ck_assert_int_eq(unlink(path), 0);
}

static const char small_json[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"<\":2,\"s\":3,\">\":4,\"\\n\":5,\"U\":6},"
    "\"merges\":[]},\"added_tokens\":[{\"id\":7,\"content\":\"<s>\",\"special\":true},"
    "{\"id\":8,\"content\":\"<e>\",\"special\":true}],\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]}}";

static void check_prompt(const char *messages, const char *expected)
{
    char err[512] = "", got[512] = "";
    struct tokenizer *t;
    struct chat_prompt *p = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    json_t *m = talk(messages);
    ck_assert_msg(vocab_open_path(&t, folder, err, sizeof err) == 0, "%s", err);
    if (chat_prompt_open_path(&p, folder, t, err, sizeof err) != 0 ||
        chat_prompt_ids(p, t, m, true, &ids, &n, err, sizeof err) != 0)
        snprintf(got, sizeof got, "%s",
                 strncmp(err, folder, strlen(folder)) == 0 ? err + strlen(folder) : err);
    for (size_t i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids[i]);
    ck_assert_str_eq(got, expected);
    free(ids);
    json_decref(m);
    chat_prompt_close(p);
    tokenizer_free(t);
}

#define CONFIG(t) \
    "{\"bos_token\":\"<s>\",\"eos_token\":\"<e>\",\"add_bos_token\":true,\"chat_template\":" t "}"

START_TEST(of_a_folder)
{
    strcpy(folder, "/tmp/quoll-prompt-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    put_file("tokenizer.json", small_json);
    check_prompt("[{\"role\":\"user\",\"content\":\"a\"}]", ": the model has no chat template");
    /* BOS is the template's, once; without one in it there is none */
    put_file("tokenizer_config.json", CONFIG("\"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}\""));
    check_prompt("[{\"role\":\"user\",\"content\":\"ab\"}]", "7 0 1 8");
    /* what the user writes stays text, in lists too */
    check_prompt("[{\"role\":\"user\",\"content\":\"a<s>\"}]", "7 0 2 3 4 8");
    put_file("tokenizer_config.json",
             CONFIG("[{\"name\":\"tool_use\",\"template\":\"U\"},{\"name\":\"default\","
                    "\"template\":\"{{ messages[0].content[0].text }}\"}]"));
    check_prompt("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"<s>b\"}]}]", "2 3 4 1");
    put_file("chat_template.json", "{\"chat_template\":\"U{{ messages[0].content }}\"}");
    check_prompt("[{\"role\":\"user\",\"content\":\"b\"}]", "6 1");
    put_file("chat_template.jinja",
             "{{ messages | length }}{% for m in messages %}{{ m.content }}<e>{% endfor %}");
    check_prompt("[{\"role\":\"user\",\"content\":\"b\"},{\"role\":\"assistant\",\"content\":\"<e>\"}]",
                 "1 8 2 4 8"); /* "e" has no token */
    put_file("chat_template.jinja", "{% for %}");
    check_prompt("[]", "/chat_template.jinja:1: Expected an expression, got 'end of statement block'");
    drop_file("chat_template.jinja");
    drop_file("chat_template.json");
    drop_file("tokenizer_config.json");
    drop_file("tokenizer.json");
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(thinking)
{
    static const char source[] =
        "{% if enable_thinking is defined %}{{ enable_thinking }}{{ thinking }}{% endif %}|";
    static const char *const texts[] = {"|", "FalseFalse|", "TrueTrue|"};
    for (int k = -1; k <= 1; k++) {
        struct chat_prompt *p;
        char err[512], *text;
        size_t len;
        json_t *messages = talk("[]"), *request = talk("{\"enable_thinking\":7}");
        ck_assert_int_eq(
            chat_prompt_open_source(&p, "made", source, strlen(source), NULL, NULL, err, sizeof err), 0);
        chat_prompt_set_thinking(p, k);
        ck_assert_int_eq(chat_prompt_render(p, messages, true, &text, &len, err, sizeof err), 0);
        ck_assert_str_eq(text, texts[k + 1]);
        free(text);
        /* a request's own variable counts */
        ck_assert_int_eq(chat_prompt_render_request(p, request, true, NULL, &text, &len, err, sizeof err), 0);
        ck_assert_int_eq(text[0], '7');
        free(text);
        json_decref(messages);
        json_decref(request);
        chat_prompt_close(p);
    }
}
END_TEST

START_TEST(by_the_command)
{
    struct cli c = CLI(ONE, "template", "-m", "tests/golden/tokenizers/chatglm3", "--messages", "-");
    ck_assert_int_eq(c.code, 0);
    ck_assert_str_eq(c.out, "[gMASK]sop<|user|>\n A<|assistant|>");
    ck_assert_ptr_nonnull(strstr(c.err, "no chat template, ChatGLM3's prompt is used"));
    cli_free(&c);
    c = CLI(NULL, "tokenize", "-m", "tests/golden/tokenizers/chatglm3", "-p", "[gMASK]sop<|user|>",
            "--no-bos");
    ck_assert_str_eq(c.out, "1001 1003 1006\n");
    cli_free(&c);
    c = CLI(NULL, "tokenize", "-m", "tests/golden/tokenizers/chatglm1/ice_text.model", "-p", "\n", "--no-bos",
            "--pieces");
    ck_assert_ptr_nonnull(strstr(c.out, "\t\"\\n\"\n"));
    cli_free(&c);
}
END_TEST

static Suite *chat_prompt_suite(void)
{
    Suite *s = suite_create("chat_prompt");
    TCase *c = tcase_create("chat_prompt");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, built_in_prompts);
    tcase_add_test(c, by_vocabulary);
    tcase_add_test(c, of_a_folder);
    tcase_add_test(c, thinking);
    tcase_add_test(c, by_the_command);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(chat_prompt_suite)

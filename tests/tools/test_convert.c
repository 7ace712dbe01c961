/* `quoll convert` of a Hugging Face folder: the file has the folder's vocabulary and chat template. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_TOKENS = 320, N_ADDED = 3 }; /* rows of the model's embedding; the last ones are no tokens */

static char folder[] = "/tmp/quoll-convert-XXXXXX";

static void write_json(const char *name, const json_t *j)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    ck_assert_int_eq(json_dump_file(j, path, JSON_COMPACT), 0);
}

/* A golden tokenizer.json with as many tokens as fit the tiny model: bytes and letters, then what they make.
 */
static void write_vocabulary(const char *golden)
{
    json_t *all = json_load_file(test_golden(golden), 0, NULL), *id, *m;
    ck_assert_ptr_nonnull(all);
    json_t *model = json_object_get(all, "model"), *vocab = json_object_get(model, "vocab"),
           *kept = json_object(), *merges = json_array(), *added = json_array(),
           *old = json_object_get(all, "added_tokens");
    const char *text;
    size_t i;
    for (int rest = 0; rest < 2; rest++)
        json_object_foreach(vocab, text, id)
        {
            bool needed = json_integer_value(id) < 259 || strcmp(text, "\xe2\x96\x81") == 0 ||
                          (strlen(text) == 1 && text[0] >= 'a' && text[0] <= 'z');
            json_int_t next = (json_int_t)json_object_size(kept);
            if (needed != rest && next < N_TOKENS - 2 * N_ADDED)
                json_object_set_new(kept, text, json_integer(next));
        }
    json_array_foreach(json_object_get(model, "merges"), i, m)
    {
        char both[200];
        snprintf(both, sizeof both, "%s%s", json_string_value(json_array_get(m, 0)),
                 json_string_value(json_array_get(m, 1)));
        if (json_object_get(kept, both) && json_object_get(kept, json_string_value(json_array_get(m, 0))) &&
            json_object_get(kept, json_string_value(json_array_get(m, 1))))
            json_array_append(merges, m);
    }
    for (i = 0; i < N_ADDED && i < json_array_size(old); i++) {
        json_t *token = json_deep_copy(json_array_get(old, i));
        if (!json_object_get(kept, json_string_value(json_object_get(token, "content"))))
            json_object_set_new(token, "id", json_integer((json_int_t)(N_TOKENS - 2 * N_ADDED + i)));
        json_array_append_new(added, token);
    }
    json_object_del(all, "post_processor");
    json_object_set_new(model, "vocab", kept);
    json_object_set_new(model, "merges", merges);
    json_object_set_new(all, "added_tokens", added);
    write_json("tokenizer.json", all);
    json_t *config = json_pack(
        "{s:O, s:b, s:s}", "bos_token", json_object_get(json_array_get(added, 1), "content"), "add_bos_token",
        1, "chat_template", "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}");
    write_json("tokenizer_config.json", config);
    json_decref(config);
    json_decref(all);
}

static bool make_folder(void)
{
    char path[1024];
    const char *found = test_golden("models/llama/config.json");
    if (!found) {
        test_skip("a folder to convert", "the golden models are not here");
        return false;
    }
    snprintf(path, sizeof path, "%s", found);
    strcpy(folder, "/tmp/quoll-convert-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    cli_expect(CLI_SHELL("cp ${2%/*}/config.json ${2%/*}/model.safetensors \"$1\"", folder, path), 0, "");
    return true;
}

START_TEST(vocabulary)
{
    static const char *const files[] = {"tokenizers/tiny/hf-bytelevel.json",
                                        "tokenizers/tiny/hf-llama2-prepend.json"};
    if (!make_folder())
        return;
    write_vocabulary(files[_i]);
    struct cli c = CLI_SHELL(
        "set -e; cd \"$1\"; Q=$(cd \"$OLDPWD\"; realpath \"$Q\"); \"$Q\" convert . out.gguf >&2\n"
        "printf '  Two  words in the end, 1234 it'\\''s\\n\\n\\tHere caf\\303\\251 \\344\\275\\240! ' >text\n"
        "echo '[{\"role\":\"user\",\"content\":\"hi\"}]' >messages.json\n"
        "for m in . out.gguf; do \"$Q\" tokenize -m $m -f text; \"$Q\" template -m $m --messages "
        "messages.json; echo;"
        " done",
        folder);
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_str_eq(c.err, "");
    size_t half = c.out_len / 2;
    ck_assert_uint_gt(half, 60);
    ck_assert_msg(c.out_len == 2 * half && memcmp(c.out, c.out + half, half) == 0, "%s", c.out);
    ck_assert_ptr_nonnull(strstr(c.out, "[hi]"));
    cli_free(&c);
    cli_expect(CLI_SHELL("rm -r \"$1\"", folder), 0, "");
}
END_TEST

/* Without a vocabulary the weights are still written, and a note says what is missing. */
START_TEST(no_vocabulary)
{
    if (!make_folder())
        return;
    struct cli c = CLI_SHELL("$Q convert \"$1\" \"$1/out.gguf\" && $Q inspect \"$1/out.gguf\"", folder);
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "no vocabulary is written: "));
    ck_assert_ptr_nonnull(strstr(c.out, "no_vocab"));
    cli_free(&c);
    cli_expect(CLI_SHELL("rm -r \"$1\"", folder), 0, "");
}
END_TEST

static Suite *convert_suite(void)
{
    Suite *s = suite_create("convert");
    TCase *c = tcase_create("convert");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, vocabulary, 0, 2);
    tcase_add_test(c, no_vocabulary);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(convert_suite)

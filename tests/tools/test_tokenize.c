/* `quoll tokenize` as a user and a script see it; its --jsonl gives the golden ids. */
#include "tests/test.h"
#include "tests/tools/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char model[1024];

static const char *vocab(const char *name)
{
    char path[200];
    (void)snprintf(path, sizeof path, "tokenizers/vocab/%s.gguf", name);
    const char *found = test_golden(path);
    ck_assert_ptr_nonnull(found);
    (void)snprintf(model, sizeof model, "%s", found);
    return model;
}

static void prints(struct cli c, const char *out)
{
    ck_assert_msg(c.code == 0, "%s", c.err);
    ck_assert_str_eq(c.out, out);
    ck_assert_str_eq(c.err, "");
    cli_free(&c);
}

START_TEST(ids)
{
    const char *m = vocab("small-hf-bytelevel"); /* 1500: <|begin_of_text|>, 1507: <|endoftext|> */
    prints(CLI(NULL, "tokenize", "-m", m, "-p", " <|endoftext|>"), "1500 220 1507\n");
    prints(CLI(" <|endoftext|>", "tokenize", "-m", m, "--no-bos"), "220 1507\n");
    prints(CLI(" ", "tokenize", "-m", m, "-f", "-", "--json"), "[1500,220]\n");
    prints(CLI(NULL, "tokenize", "-m", m, "-p", "", "--no-bos"), "\n");
    prints(CLI(NULL, "tokenize", "-m", m, "-p", "<|a|>", "--no-bos", "--no-special", "--json"),
           "[27,91,64,91,29]\n");
    prints(CLI(NULL, "tokenize", "-m", m, "-p", " <|endoftext|>", "--no-bos", "--pieces"),
           "220\t\" \"\n1507\t\"<|endoftext|>\"\n");
    prints(CLI(NULL, "tokenize", "-m", m, "-p", " ", "--pieces", "--json"),
           "[{\"id\":1500,\"piece\":\"<|begin_of_text|>\"},{\"id\":220,\"piece\":\" \"}]\n");
    prints(CLI("\xff", "tokenize", "-m", m, "--no-bos", "--pieces"), "187\t\"\xef\xbf\xbd\"\n");
}
END_TEST

START_TEST(detok)
{
    const char *m = vocab("small-hf-bytelevel");
    prints(CLI(NULL, "tokenize", "-m", m, "--detok", "-p", "1500 220 1507"),
           "<|begin_of_text|> <|endoftext|>");
    prints(CLI("[1500,220, 64]\n", "tokenize", "-m", m, "--detok", "--no-special"), " a");
    prints(CLI("", "tokenize", "-m", m, "--detok"), "");
    struct cli c = CLI("187 188", "tokenize", "-m", m, "--detok"); /* bytes, whatever they are */
    ck_assert_uint_eq(c.out_len, 2);
    ck_assert_int_eq((unsigned char)c.out[0], 0xff);
    cli_free(&c);
    static const char *const bad[] = {"1 x", "-1", "1.5", "2x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cli_expect(CLI(bad[i], "tokenize", "-m", m, "--detok"), 1, "no token id at byte");
    cli_expect(CLI("1 99999999999999999999", "tokenize", "-m", m, "--detok"), 1,
               "at byte 2 is outside the vocabulary");
}
END_TEST

static json_t *lines_by_id(const char *text, size_t len)
{
    json_t *all = json_object();
    for (size_t i = 0; i < len;) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - text) - i : len - i;
        json_t *line = json_loadb(text + i, n, JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(line);
        json_object_set_new(all, json_string_value(json_object_get(line, "id")), line);
        i += n + 1;
    }
    return all;
}

START_TEST(jsonl_is_golden)
{
    static const char *const names[] = {"small-sp-bpe", "small-hf-bytelevel", "small-tiktoken-glm4"};
    const char *m = vocab(names[_i]);
    char path[200], cases[1024];
    (void)snprintf(cases, sizeof cases, "%s", test_golden("tokenizers/cases.jsonl"));
    struct cli c = CLI(NULL, "tokenize", "-m", m, "--jsonl", "-f", cases);
    ck_assert_msg(c.code == 0, "%s", c.err);
    (void)snprintf(path, sizeof path, "tokenizers/expected/%s.jsonl", names[_i]);
    FILE *f = fopen(test_golden(path), "rb");
    ck_assert_ptr_nonnull(f);
    char *text = malloc(1 << 20);
    size_t len = fread(text, 1, 1 << 20, f);
    fclose(f);
    json_t *got = lines_by_id(c.out, c.out_len), *want = lines_by_id(text, len), *line;
    const char *id;
    ck_assert_uint_eq(json_object_size(got), 227);
    json_object_foreach(want, id, line)
    {
        static const char *const keys[] = {"ids_plain", "ids_special"};
        if (json_object_get(line, "ambiguous"))
            continue;
        for (int k = 0; k < 2; k++) {
            const char *key = keys[k];
            json_t *list = json_object_get(line, key);
            ck_assert_msg(!list || json_equal(list, json_object_get(json_object_get(got, id), key)), "%s: %s",
                          id, key);
        }
    }
    json_decref(got);
    json_decref(want);
    free(text);
    cli_free(&c);
}
END_TEST

START_TEST(jsonl_lines)
{
    const char *m = vocab("small-hf-bytelevel");
    prints(CLI("{\"id\":7,\"hex\":\"20FF\"}\n\n \r\n{\"text\":\" <|endoftext|>\",\"id\":[1]}", "tokenize",
               "-m", m, "--jsonl", "--no-bos"),
           "{\"id\":7,\"ids_plain\":[220,187],\"ids_special\":[220,187]}\n"
           "{\"id\":[1],\"ids_plain\":[1227,91,264,67,1358,1373,91,29],\"ids_special\":[220,1507]}\n");
    cli_expect(CLI("{\"id\":1,\"text\":\"\"}\n{\"id\":", "tokenize", "-m", m, "--jsonl"), 1,
               "--jsonl: line 2: ");
    static const char *const bad[] = {"{\"id\":1}", "{\"hex\":\"0\"}", "{\"hex\":\"0g\"}", "{\"text\":1}",
                                      "[]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cli_expect(CLI(bad[i], "tokenize", "-m", m, "--jsonl"), 1, "--jsonl: line 1: neither");
}
END_TEST

START_TEST(usage)
{
    const char *m = vocab("small-hf-bytelevel");
    cli_expect(CLI(NULL, "tokenize", "-m", m, "-p", "a", "-f", "b"), 2, "exclude each other");
    cli_expect(CLI(NULL, "tokenize", "-m", m, "-p", "a", "--jsonl", "--detok"), 2, "exclude each other");
    cli_expect(CLI(NULL, "tokenize", "-m", m, "-p", "a", "--jsonl", "--pieces"), 2, "exclude each other");
    cli_expect(CLI(NULL, "tokenize", "-m", m, "-f", "/nonexistent"), 1, "/nonexistent: ");
    cli_expect(CLI(NULL, "tokenize", "--help"), 0, "");
}
END_TEST

static Suite *tokenize_suite(void)
{
    Suite *s = suite_create("tokenize");
    TCase *c = tcase_create("tokenize");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, ids);
    tcase_add_test(c, detok);
    tcase_add_loop_test(c, jsonl_is_golden, 0, 3);
    tcase_add_test(c, jsonl_lines);
    tcase_add_test(c, usage);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(tokenize_suite)

/* Vocabularies in the files of other programs, by path: the golden ones, ChatGLM's folders, what the files
 * beside them say. */
#include "tests/tokenizer/vocabs.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name, *file;
    bool specials_in_text; /* the golden ids_special parse them */
} tiny[] = {
    {"tiny-hf-bytelevel", "hf-bytelevel.json", true},
    {"tiny-hf-llama2-prepend", "hf-llama2-prepend.json", true},
    {"tiny-hf-llama2-metaspace", "hf-llama2-metaspace.json", true},
    {"tiny-sp-bpe", "sp-bpe.model", false},
    {"tiny-sp-unigram", "sp-unigram.model", false},
    {"tiny-sp-unigram-bytes", "sp-unigram-bytes.model", false},
    {"tiny-tiktoken-glm4", "tiktoken-glm4.model", true},
};

static struct tokenizer *open_path(const char *path)
{
    struct tokenizer *t;
    char err[512];
    ck_assert_msg(vocab_open_path(&t, path, err, sizeof err) == 0, "%s", err);
    return t;
}

struct golden {
    struct tokenizer *t;
    json_t *cases; /* id → line */
    int n_compared;
};

static void collect(json_t *line, void *arg)
{
    struct golden *g = arg;
    json_object_set(g->cases, json_string_value(json_object_get(line, "id")), line);
}

static void compare(json_t *line, void *arg)
{
    struct golden *g = arg;
    const char *id = json_string_value(json_object_get(line, "id"));
    size_t len, n;
    char *text = line_bytes(json_object_get(g->cases, id), "text", "hex", &len);
    ck_assert_ptr_nonnull(text);
    for (int special = 0; special < 2; special++) {
        const json_t *want = json_object_get(line, special ? "ids_special" : "ids_plain");
        int32_t *ids = encode(g->t, text, len, special ? ENCODE_SPECIAL | ENCODE_BOS : 0, &n);
        ck_assert_msg(!want || ids_equal(ids, n, want), "%s, %s: other ids than expected", id,
                      special ? "special" : "plain");
        g->n_compared += want != NULL;
        const json_t *back = json_object_get(line, "text_from_ids");
        if (!special && back) {
            const char *want_text = json_string_value(back);
            char *got;
            size_t n_want = json_string_length(back), n_got;
            ck_assert_int_eq(tokenizer_decode(g->t, ids, n, false, &got, &n_got), 0);
            /* bytes that are not UTF-8 are U+FFFD there */
            ck_assert_msg(memmem(want_text, n_want, "\xef\xbf\xbd", 3) ||
                              (n_want == n_got && memcmp(want_text, got, n_got) == 0),
                          "%s: other text than expected", id);
            free(got);
        }
        free(ids);
    }
    free(text);
}

START_TEST(golden_files)
{
    char name[200];
    struct golden g = {.cases = json_object()};
    snprintf(name, sizeof name, "tokenizers/tiny/%s", tiny[_i].file);
    const char *path = test_golden(name);
    if (path) {
        g.t = open_path(path);
        ck_assert(each_line("tokenizers/cases.jsonl", collect, &g));
        snprintf(name, sizeof name, "tokenizers/expected/%s.jsonl", tiny[_i].name);
        ck_assert(each_line(name, compare, &g));
        ck_assert_int_ge(g.n_compared, 200);
    } else {
        test_skip("golden vocabularies", "only the small ones are here");
    }
    json_decref(g.cases);
    tokenizer_free(g.t);
}
END_TEST

/* A quarter of a megabyte in one stretch: no more than n log n. The time limit is the suite's. */
START_TEST(long_texts)
{
    static const char *const unit[] = {" ", "a", "7", "你", "\n", " \t", "e\xcc\x81", "<s", "ab", "\xff"};
    char name[200];
    enum { SIZE = 1 << 18 };
    snprintf(name, sizeof name, "tokenizers/tiny/%s", tiny[_i].file);
    const char *path = test_golden(name);
    if (!path)
        return;
    struct tokenizer *t = open_path(path);
    char *text = malloc(SIZE + 8);
    for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
        size_t n, len = 0, unit_len = strlen(unit[k]);
        for (; len < SIZE; len += unit_len)
            memcpy(text + len, unit[k], unit_len);
        text[len++] = 'x';
        free(encode(t, text, len, ENCODE_SPECIAL, &n));
        ck_assert_uint_ge(n, 1);
    }
    free(text);
    tokenizer_free(t);
}
END_TEST

/* [text, plain ids, special ids, text from the plain ones] */
static void check_folder(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "tests/golden/tokenizers/%s", name);
    struct tokenizer *t = open_path(path);
    snprintf(path, sizeof path, "tests/golden/tokenizers/%s/cases.json", name);
    json_t *cases = json_load_file(path, JSON_ALLOW_NUL, NULL), *c;
    size_t i, n, len;
    ck_assert_uint_ge(json_array_size(cases), 10);
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_array_get(c, 0), *back = json_array_get(c, 3);
        for (size_t special = 0; special < 2; special++) {
            int32_t *ids = encode(t, json_string_value(text), json_string_length(text),
                                  special ? ENCODE_SPECIAL | ENCODE_BOS : 0, &n);
            ck_assert_msg(ids_equal(ids, n, json_array_get(c, special + 1)), "%s: case %zu, %s", name, i,
                          special ? "special" : "plain");
            char *got;
            ck_assert_int_eq(tokenizer_decode(t, ids, n, false, &got, &len), 0);
            ck_assert_msg(special || (len == json_string_length(back) &&
                                      memcmp(got, json_string_value(back), len) == 0),
                          "%s: case %zu, text", name, i);
            free(got);
            free(ids);
        }
    }
    json_decref(cases);
    tokenizer_free(t);
}

START_TEST(chatglm_folders)
{
    check_folder("chatglm1");
    check_folder("chatglm3");
    struct tokenizer *t = open_path("tests/golden/tokenizers/chatglm3");
    size_t n;
    /* its template writes what goes in front as text; "sop" is a word anywhere else */
    int32_t *ids = encode(t, "[gMASK]sop<|user|>\n hi", 22, ENCODE_SPECIAL, &n);
    ck_assert_int_eq(ids[0], 1001);
    ck_assert_int_eq(ids[1], 1003);
    ck_assert_int_eq(ids[2], 1006);
    ck_assert(tokenizer_is_end(t, 1006) && tokenizer_is_end(t, 2) && !tokenizer_is_end(t, 1007));
    free(ids);
    tokenizer_free(t);
}
END_TEST

/* A folder for one test. */
static char folder[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/quoll-files-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void put_file(const char *name, const void *bytes, size_t n)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

static void remove_folder(void)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                        "config.json",    "tokenizer.model",       "special_tokens_map.json",
                                        "tokenizer.bin"};
    char path[200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    ck_assert_int_eq(rmdir(folder), 0);
}

static const char small_json[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]},"
    "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},"
    "{\"id\":4,\"content\":\"<e>\",\"special\":true},{\"id\":5,\"content\":\"<t>\",\"special\":true}]}";

START_TEST(hints)
{
    static const struct {
        const char *config, *generation, *ids;
        int32_t bos, eos;
        bool ends; /* does <t>, 5, end a text? */
    } cases[] = {
        {"{}", "{}", "2 0", -1, -1, false},
        {"{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<e>\"}}", "{}", "2 0", 3, 4, false},
        {"{\"bos_token\":\"<s>\",\"eos_token\":\"<e>\",\"add_bos_token\":true}", "{\"eos_token_id\":5}",
         "3 2 0", 3, 4, true},
        {"{\"bos_token\":\"<s>\",\"eos_token\":\"<e>\",\"add_bos_token\":true,\"add_eos_token\":true}",
         "{\"eos_token_id\":[4,5]}", "3 2 0 4", 3, 4, true},
        {"{\"bos_token\":null,\"eos_token\":\"<none>\",\"add_bos_token\":true}", "{\"eos_token_id\":null}",
         "2 0", -1, -1, false},
    };
    make_folder();
    put_text("tokenizer.json", small_json);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text("tokenizer_config.json", cases[i].config);
        put_text("generation_config.json", cases[i].generation);
        struct tokenizer *t = open_path(folder);
        check_ids(t, "aba", ENCODE_BOS, cases[i].ids);
        ck_assert_int_eq(tokenizer_bos(t), cases[i].bos);
        ck_assert_int_eq(tokenizer_eos(t), cases[i].eos);
        ck_assert_int_eq(tokenizer_is_end(t, 5), cases[i].ends);
        ck_assert(cases[i].eos < 0 || tokenizer_is_end(t, cases[i].eos));
        tokenizer_free(t);
    }
    remove_folder();
}
END_TEST

/* The same SentencePiece file alone, as its library sees it, and in a model's folder. */
START_TEST(specials_of_a_model)
{
    char name[] = "tokenizers/tiny/sp-bpe.model";
    struct tokenizer *t = open_path(test_golden(name));
    size_t n, n_alone;
    free(encode(t, "<s>a", 4, ENCODE_SPECIAL, &n_alone));
    tokenizer_free(t);
    FILE *f = fopen(test_golden(name), "rb");
    char *bytes = malloc(1 << 16);
    size_t len = fread(bytes, 1, 1 << 16, f);
    fclose(f);
    make_folder();
    put_file("tokenizer.model", bytes, len);
    put_text("tokenizer_config.json", "{\"added_tokens_decoder\":{\"1\":{\"content\":\"<s>\"},"
                                      "\"1000\":{\"content\":\"<|new|>\",\"rstrip\":true}}}");
    t = open_path(folder);
    int32_t *ids = encode(t, "<s>a<|new|>  ", 13, ENCODE_SPECIAL, &n);
    ck_assert_uint_lt(n, n_alone);
    ck_assert_int_eq(ids[0], 1);
    ck_assert_int_eq(ids[n - 1], 1000);
    ck_assert_int_eq(tokenizer_n_tokens(t), 1001);
    free(ids);
    tokenizer_free(t);
    free(bytes);
    remove_folder();
}
END_TEST

static void refused(const char *path, const char *what)
{
    struct tokenizer *t;
    char err[512] = "";
    ck_assert_int_eq(vocab_open_path(&t, path, err, sizeof err), -1);
    ck_assert_ptr_null(t);
    ck_assert_msg(strstr(err, what) && !strchr(err, '\n'), "\"%s\" does not say \"%s\"", err, what);
}

START_TEST(bad_folders)
{
    make_folder();
    refused(folder, "no tokenizer in the folder");
    put_text("tokenizer.model", "no model");
    refused(folder, "no vocabulary that this program knows");
    put_text("tokenizer.json", small_json);
    put_text("tokenizer_config.json", "[]");
    refused(folder, "tokenizer_config.json: no JSON object");
    put_text("tokenizer_config.json", "{\"bos_token\":");
    refused(folder, "tokenizer_config.json:1:");
    put_text("tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}");
    refused(folder, "'x' is no id");
    remove_folder();
    refused("/no/such/file", "/no/such/file");
}
END_TEST

static Suite *vocab_files_suite(void)
{
    Suite *s = suite_create("vocab_files");
    TCase *c = tcase_create("vocab_files");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, golden_files, 0, sizeof tiny / sizeof *tiny);
    tcase_add_loop_test(c, long_texts, 0, sizeof tiny / sizeof *tiny);
    tcase_add_test(c, chatglm_folders);
    tcase_add_test(c, hints);
    tcase_add_test(c, specials_of_a_model);
    tcase_add_test(c, bad_folders);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(vocab_files_suite)

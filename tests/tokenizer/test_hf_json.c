/* tokenizer.json: variants of every step against the tokenizers library, and files that are broken. */
#include "tests/tokenizer/vocabs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vocab_hints no_hints = {.add_bos = -1, .add_eos = -1};

static int open_text(struct tokenizer **t, const char *json, size_t len, char *err, size_t errlen)
{
    return tokenizer_from_json(t, "made.json", json, len, &no_hints, err, errlen);
}

static json_t *variants(void)
{
    json_t *all = json_load_file("tests/golden/tokenizers/hf-variants.json", JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(all);
    return all;
}

/* The variant's base with what it has in its place. */
static char *variant_json(const json_t *all, const json_t *variant)
{
    json_t *models = json_object_get(all, "models"), *made = json_object();
    const char *base = json_string_value(json_object_get(variant, "base"));
    json_t *model = json_copy(json_object_get(models, base));
    json_object_update(model, json_object_get(variant, "model"));
    json_object_update(made, json_object_get(variant, "parts"));
    json_object_set_new(made, "model", model);
    char *text = json_dumps(made, JSON_COMPACT);
    json_decref(made);
    return text;
}

START_TEST(as_the_library)
{
    json_t *all = variants(), *c;
    const json_t *variant = json_array_get(json_object_get(all, "variants"), (size_t)_i);
    if (!variant) { /* the loop is as long as the longest list may be */
        json_decref(all);
        return;
    }
    char *json = variant_json(all, variant), err[512];
    const char *name = json_string_value(json_object_get(variant, "name"));
    struct tokenizer *t;
    ck_assert_msg(open_text(&t, json, strlen(json), err, sizeof err) == 0, "%s: %s", name, err);
    size_t i, n, len;
    json_array_foreach(json_object_get(variant, "cases"), i, c)
    {
        const json_t *text = json_array_get(c, 0), *back = json_array_get(c, json_array_size(c) == 4 ? 3 : 0);
        for (size_t special = 0; special < 2; special++) {
            int32_t *ids = encode(t, json_string_value(text), json_string_length(text),
                                  special ? ENCODE_SPECIAL | ENCODE_BOS : 0, &n);
            ck_assert_msg(ids_equal(ids, n, json_array_get(c, special + 1)), "%s: case %zu, %s", name, i,
                          special ? "special" : "plain");
            char *got;
            ck_assert_int_eq(tokenizer_decode(t, ids, n, false, &got, &len), 0);
            /* pieces of characters are U+FFFD there */
            if (!special && !memmem(json_string_value(back), json_string_length(back), "\xef\xbf\xbd", 3))
                ck_assert_msg(len == json_string_length(back) &&
                                  memcmp(got, json_string_value(back), len) == 0,
                              "%s: case %zu: '%s', not '%s'", name, i, got, json_string_value(back));
            free(got);
            free(ids);
        }
    }
    free(json);
    tokenizer_free(t);
    json_decref(all);
}
END_TEST

#define MODEL  "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define MODEL2 "{" MODEL ","

START_TEST(bad_files)
{
    static const struct {
        const char *json, *what;
    } cases[] = {
        {"", "made.json:"},
        {"{\"model\":", "made.json:1:"},
        {"{}", "no tokenizer in the file"},
        {"{\"model\":7}", "no tokenizer in the file"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "'WordPiece'"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[]}}", "model.vocab is no object"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}", "'a' is no id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000}}}", "'a' is no id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"}}}", "'a' is no id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0}}}", "'a' and 'b' have one id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", "vocabulary of 0 tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "model.merges[0]"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "model.merges[0]"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "model.vocab is no array"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "model.vocab[0]"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", "model.unk_id"},
        {MODEL2 "\"added_tokens\":[{\"id\":3}]}", "added_tokens[0]"},
        {MODEL2 "\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}", "'x' has the id of 'a'"},
        {MODEL2 "\"added_tokens\":[{\"id\":900000000,\"content\":\"x\"}]}", "is no id"},
        {MODEL2 "\"normalizer\":{\"type\":\"Nmt\"}}", "'Nmt'"},
        {MODEL2 "\"normalizer\":{}}", "without a type"},
        {MODEL2 "\"normalizer\":{\"type\":\"Sequence\"}}", "\"normalizers\""},
        {MODEL2 "\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}}", "without a pattern"},
        {MODEL2 "\"normalizer\":{\"type\":\"Prepend\"}}", "\"prepend\""},
        {MODEL2 "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"a\"}}", "base64"},
        {MODEL2 "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}}", "broken"},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "'UnicodeScripts'"},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}}}", "the pattern ("},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"}}}", "intersection"},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[^b]]\"}}}", "negated"},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"X\"}}",
         "behavior 'X'"},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"}}", "empty replacement"},
        {MODEL2 "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"x\"}}",
         "prepend_scheme 'x'"},
        {MODEL2 "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                "{\"id\":\"x\"}}]}}",
         "post_processor.single[0]"},
        {MODEL2 "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",9]}}",
         "post_processor.sep"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        char err[512] = "";
        ck_assert_int_eq(open_text(&t, cases[i].json, strlen(cases[i].json), err, sizeof err), -1);
        ck_assert_ptr_null(t);
        ck_assert_msg(strstr(err, cases[i].what) && strncmp(err, "made.json", 9) == 0 && !strchr(err, '\n'),
                      "\"%s\" does not say \"%s\"", err, cases[i].what);
    }
}
END_TEST

START_TEST(around_a_text)
{
    static const struct {
        const char *post, *ids;
    } cases[] = {
        {"null", "2"},
        {"{\"type\":\"ByteLevel\"}", "2"},
        {"{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",1]}", "0 2 1"},
        {"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"RobertaProcessing\",\"cls\":[\"b\",1],"
         "\"sep\":[\"a\",0]}]}",
         "1 2 0"},
        {"{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},"
         "{\"SpecialToken\":{\"id\":\"z\"}},{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"b\"}}],"
         "\"special_tokens\":{\"z\":{\"ids\":[1,0]}}}",
         "0 1 0 2 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[1024], err[512];
        struct tokenizer *t;
        int n = snprintf(json, sizeof json, MODEL2 "\"post_processor\":%s}", cases[i].post);
        ck_assert_msg(open_text(&t, json, (size_t)n, err, sizeof err) == 0, "%s", err);
        check_ids(t, "ab", ENCODE_BOS, cases[i].ids);
        check_ids(t, "ab", 0, "2");
        tokenizer_free(t);
    }
}
END_TEST

/* What a file makes the encoder do ends in bounded time and memory. */
START_TEST(hostile_steps)
{
    static const struct {
        const char *parts, *what;
    } cases[] = {
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},\"behavior\":"
         "\"Isolated\"}",
         "cannot split"},
        {"\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[", "grows too long"},
    };
    char err[512];
    struct tokenizer *t;
    char *json = malloc(1 << 16), text[2001];
    memset(text, 'a', 2000);
    text[1999] = '!';
    for (size_t i = 0; i < 2; i++) {
        size_t n = (size_t)sprintf(json, MODEL2 "%s", cases[i].parts), n_ids;
        for (int k = 0; i == 1 && k < 60; k++) /* 3⁶⁰ times as long */
            n += (size_t)sprintf(
                json + n, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaa\"}",
                k ? "," : "");
        n += (size_t)sprintf(json + n, i == 1 ? "]}}" : "}");
        ck_assert_msg(open_text(&t, json, n, err, sizeof err) == 0, "%s", err);
        int32_t *ids;
        int rc = tokenizer_encode(t, text, 2000, 0, &ids, &n_ids, err, sizeof err);
        ck_assert_int_eq(rc, -1);
        ck_assert_ptr_nonnull(strstr(err, cases[i].what));
        tokenizer_free(t);
    }
    /* 10,000 levels */
    memset(json, '[', 10000);
    ck_assert_int_eq(open_text(&t, json, 10000, err, sizeof err), -1);
    free(json);
}
END_TEST

/* Bytes changed at random: an error or a tokenizer that works, nothing else. */
START_TEST(random_changes)
{
    json_t *all = variants();
    const json_t *list = json_object_get(all, "variants");
    uint64_t state = 3;
    int n_opened = 0;
    for (size_t k = 0; k < 300; k++) {
        char *json = variant_json(all, json_array_get(list, k % json_array_size(list))), err[512] = "";
        size_t n = strlen(json);
        /* the parts are in front of the model */
        for (uint32_t i = random_below(&state, 3); i < 3; i++)
            json[random_below(&state, (uint32_t)(k % 3 ? (n < 3000 ? n : 3000) : n))] =
                k % 2 ? "0123456789{}[]\",:"[random_below(&state, 17)] : (char)random_below(&state, 256);
        struct tokenizer *t;
        if (open_text(&t, json, k % 10 == 9 ? random_below(&state, (uint32_t)n) : n, err, sizeof err) != 0) {
            ck_assert_ptr_null(t);
            ck_assert(err[0] && !strchr(err, '\n'));
        } else {
            n_opened++;
            int32_t *ids;
            size_t n_ids, len;
            char *text;
            if (tokenizer_encode(t, "Hello <s> w\xc3\xb6rld\xff 123", 21, ENCODE_SPECIAL | ENCODE_BOS, &ids,
                                 &n_ids, err, sizeof err) == 0) {
                ck_assert_int_eq(tokenizer_decode(t, ids, n_ids, true, &text, &len), 0);
                free(text);
                free(ids);
            }
            tokenizer_free(t);
        }
        free(json);
    }
    ck_assert_int_ge(n_opened, 20);
    json_decref(all);
}
END_TEST

static Suite *hf_json_suite(void)
{
    Suite *s = suite_create("hf_json");
    TCase *c = tcase_create("hf_json");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, as_the_library, 0, 24);
    tcase_add_test(c, bad_files);
    tcase_add_test(c, around_a_text);
    tcase_add_test(c, hostile_steps);
    tcase_add_test(c, random_changes);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(hf_json_suite)

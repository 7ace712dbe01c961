/* SentencePiece models of all kinds of options against the library, and broken ones. */
#include "tests/tokenizer/vocabs.h"
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

static const struct vocab_hints no_hints = {.add_bos = -1, .add_eos = -1};

static char *model_bytes(const json_t *row, size_t *len)
{
    const json_t *model = json_object_get(row, "model");
    char *bytes = malloc(json_string_length(model));
    ck_assert_int_eq(base64_decode(json_string_value(model), json_string_length(model), bytes, len), 0);
    return bytes;
}

static json_t *variants(void)
{
    json_t *all = json_load_file("tests/golden/tokenizers/sp-variants.json", JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(all);
    return all;
}

START_TEST(as_the_library)
{
    json_t *all = variants(), *c;
    size_t i, n, len;
    char err[512];
    const json_t *row = json_array_get(all, (size_t)_i);
    ck_assert_ptr_nonnull(row);
    char *bytes = model_bytes(row, &len);
    struct tokenizer *t;
    ck_assert_msg(tokenizer_from_sentencepiece(&t, "made", bytes, len, &no_hints, err, sizeof err) == 0, "%s",
                  err);
    json_array_foreach(json_object_get(row, "cases"), i, c)
    {
        const json_t *text = json_array_get(c, 0), *back = json_array_get(c, 2);
        int32_t *ids = encode(t, json_string_value(text), json_string_length(text), ENCODE_SPECIAL, &n);
        ck_assert_msg(ids_equal(ids, n, json_array_get(c, 1)), "case %zu", i);
        char *got;
        ck_assert_int_eq(tokenizer_decode(t, ids, n, false, &got, &len), 0);
        ck_assert_msg(len == json_string_length(back) && memcmp(got, json_string_value(back), len) == 0,
                      "case %zu: '%s', not '%s'", i, got, json_string_value(back));
        free(got);
        free(ids);
    }
    free(bytes);
    tokenizer_free(t);
    json_decref(all);
}
END_TEST

static void refused(const char *bytes, size_t len, const struct vocab_hints *hints, const char *what)
{
    struct tokenizer *t;
    char err[512] = "";
    ck_assert_int_eq(tokenizer_from_sentencepiece(&t, "made", bytes, len, hints, err, sizeof err), -1);
    ck_assert_ptr_null(t);
    ck_assert_msg(strstr(err, what) && strncmp(err, "made: ", 6) == 0 && !strchr(err, '\n'),
                  "\"%s\" does not say \"%s\"", err, what);
}

START_TEST(bad_models)
{
    struct vocab_hints h = no_hints;
    refused("", 0, &h, "without pieces");
    refused("\x0a", 1, &h, "broken");
    refused("\x0a\x05\x0a\x01", 4, &h, "broken");   /* a length beyond the end */
    refused("\x0a\x00", 2, &h, "piece 0 is empty"); /* a piece without a text */
    refused("\x0a\x05\x0a\x01"
            "a\x18\x09",
            7, &h, "piece 0 has the unknown type 9");
    refused("\x0a\x03\x0a\x01"
            "a\x12\x02\x18\x03",
            9, &h, "model type 3");
    refused("\x0a\x08\x0a\x01"
            "a\x15\x00\x00\xc0\x7f",
            10, &h, "score of token 0"); /* NaN */
    refused("\x0a\x03\x0a\x01"
            "a\x1a\x05\x12\x03"
            "abc",
            12, &h, "character map");
    static const char good[] = "\x0a\x03\x0a\x01"
                               "a";
    h.anchor = "a";
    h.anchor_id = 2000000000;
    refused(good, 5, &h, "the id 2000000000");
    h.anchor = NULL;
    h.chatglm_blanks = true;
    refused(good, 5, &h, "no token <n>");
    h.chatglm_blanks = false;
    const char *const prefix[] = {"nowhere"};
    h.prefix = prefix;
    h.n_prefix = 1;
    refused(good, 5, &h, "no token nowhere");
    const struct vocab_added far = {.id = 1 << 30, .token = {.text = "x", .len = 1}};
    h.n_prefix = 0;
    h.added = &far;
    h.n_added = 1;
    refused(good, 5, &h, "far outside");
    /* a hundred thousand pieces of two bytes each take no hundredfold memory, and are refused */
    char *many = calloc(200000, 1);
    for (int i = 0; i < 200000; i += 2)
        many[i] = 0x0a;
    refused(many, 200000, &no_hints, "made: ");
    free(many);
}
END_TEST

START_TEST(random_changes)
{
    json_t *all = variants();
    uint64_t state = 9;
    int n_opened = 0;
    for (size_t k = 0; k < 400; k++) {
        size_t len, n;
        char *bytes = model_bytes(json_array_get(all, k % json_array_size(all)), &len), err[512] = "";
        size_t from = k % 2 ? len - 400 : 0; /* the options, and the map, are at the end */
        for (uint32_t i = random_below(&state, 3); i < 3; i++)
            bytes[from + random_below(&state, (uint32_t)(len - from))] = (char)random_below(&state, 256);
        if (k % 10 == 9)
            len = random_below(&state, (uint32_t)len);
        struct tokenizer *t;
        if (tokenizer_from_sentencepiece(&t, "made", bytes, len, &no_hints, err, sizeof err) != 0) {
            ck_assert_ptr_null(t);
            ck_assert(err[0] && !strchr(err, '\n'));
        } else {
            n_opened++;
            char *text;
            int32_t *ids = encode(t, "Hello  \xef\xac\x81 <u>ab w\xc3\xb6rld\xff 123", 26, 0, &n);
            ck_assert_int_eq(tokenizer_decode(t, ids, n, true, &text, &len), 0);
            free(text);
            free(ids);
            tokenizer_free(t);
        }
        free(bytes);
    }
    ck_assert_int_ge(n_opened, 50);
    json_decref(all);
}
END_TEST

static Suite *sentencepiece_suite(void)
{
    Suite *s = suite_create("sentencepiece");
    TCase *c = tcase_create("sentencepiece");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, as_the_library, 0, 8);
    tcase_add_test(c, bad_models);
    tcase_add_test(c, random_changes);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(sentencepiece_suite)

/* Byte-level BPE: what merges cannot tell. */
#include "tests/tokenizer/vocabs.h"

#include <stdlib.h>
#include <string.h>

static struct made_vocab *bytes_and_the(const char *pre)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_BPE);
    made_bytes(m);
    made_token(m, "th", 2, 0, TOKEN_NORMAL);           /* 256 */
    made_token(m, "the", 3, 0, TOKEN_NORMAL);          /* 257: no merge leads to it */
    made_token(m, "\xc4\xa0t", 3, 0, TOKEN_NORMAL);    /* 258: " t" */
    made_token(m, "<user>", 6, 0, TOKEN_USER_DEFINED); /* 259 */
    made_token(m, "<user>2", 7, 0, TOKEN_CONTROL);     /* 260 */
    made_merge(m, "t h");
    made_merge(m, "\xc4\xa0 t");
    made_merge(m, "t zz"); /* of a token that is not there */
    m->spec.pre = pre;
    return m;
}

START_TEST(whole_words)
{
    static const struct {
        const char *pre, *ids;
    } cases[] = {{"gpt-2", "256 101 32 256 101"}, {"llama-bpe", "257 32 256 101"}};
    for (int i = 0; i < 2; i++) { /* llama-bpe: a word that is a token needs no merge */
        struct made_vocab *m = bytes_and_the(cases[i].pre);
        struct tokenizer *t = made_open(m);
        check_ids(t, "the the", 0, cases[i].ids);
        tokenizer_free(t);
        free(m);
    }
}
END_TEST

START_TEST(special_tokens)
{
    struct made_vocab *m = bytes_and_the("gpt-2");
    struct tokenizer *t = made_open(m);
    check_ids(t, "a<user>2b", 0, "97 60 117 115 101 114 62 50 98"); /* its text hides the other one */
    check_ids(t, "a<user>2b", ENCODE_SPECIAL, "97 260 98");
    check_ids(t, "<user><user", 0, "259 60 117 115 101 114");
    /* A special token ends the word: nothing merges across it. */
    check_ids(t, "t<user>h", 0, "116 259 104");
    tokenizer_free(t);
    free(m);
}
END_TEST

START_TEST(bytes_without_a_token)
{
    struct made_vocab *m = bytes_and_the("gpt-2");
    for (size_t i = 0; i < 256; i++)
        if (m->tokens[i].len == 2 && memcmp(m->tokens[i].text, "\xc3\xbf", 2) == 0)
            m->tokens[i].type = TOKEN_USER_DEFINED; /* "ÿ" as text, not byte 255 */
    m->tokens['#'].text = "no byte";
    m->tokens['#'].len = 7;
    struct tokenizer *t = made_open(m);
    ck_assert(round_trip(t, "\xc3\xbf\xe4\xbd\x80\x80", 6));
    size_t n, len;
    char *text;
    int32_t *ids = encode(t, "a\xff#b", 4, 0, &n);
    ck_assert_int_eq(tokenizer_decode(t, ids, n, false, &text, &len), 0);
    ck_assert_str_eq(text, "a\xef\xbf\xbd"
                           "b");
    free(text);
    free(ids);
    tokenizer_free(t);
    free(m);
}
END_TEST

START_TEST(piece_text)
{
    struct made_vocab *m = bytes_and_the("gpt-2");
    struct tokenizer *t = made_open(m);
    for (int32_t id = 0; id < 256; id++) {
        size_t len;
        const char *piece = tokenizer_piece(t, id, false, &len);
        ck_assert_uint_eq(len, 1);
        int32_t *ids = encode(t, piece, 1, 0, &len);
        ck_assert_uint_eq(len, 1);
        ck_assert_int_eq(ids[0], id);
        ck_assert_int_eq((uint8_t)piece[0], id);
        free(ids);
    }
    tokenizer_free(t);
    free(m);
}
END_TEST

static Suite *bpe_suite(void)
{
    Suite *s = suite_create("bpe");
    TCase *c = tcase_create("bpe");
    tcase_add_test(c, whole_words);
    tcase_add_test(c, special_tokens);
    tcase_add_test(c, bytes_without_a_token);
    tcase_add_test(c, piece_text);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(bpe_suite)

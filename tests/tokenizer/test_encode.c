/* Text around special tokens: white space they take along, words they must stand alone as, text of a user in
 * which they are no tokens. */
#include "tests/tokenizer/vocabs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t add(struct made_vocab *m, const char *text, enum token_type type, unsigned flags)
{
    int32_t id = made_token(m, text, strlen(text), 0, type);
    m->tokens[id].flags = flags;
    return id;
}

static struct made_vocab *bytes_and_tokens(void)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_BPE);
    made_bytes(m);
    add(m, "<l>", TOKEN_CONTROL, TOKEN_LSTRIP);           /* 256 */
    add(m, "<r>", TOKEN_CONTROL, TOKEN_RSTRIP);           /* 257 */
    add(m, "<w>", TOKEN_USER_DEFINED, TOKEN_SINGLE_WORD); /* 258 */
    add(m, "<|end|>", TOKEN_CONTROL, 0);                  /* 259 */
    add(m, "<|end|>>", TOKEN_CONTROL, 0);                 /* 260 */
    add(m, "</think>", TOKEN_CONTROL, 0);                 /* 261 */
    add(m, "<u>", TOKEN_USER_DEFINED, 0);                 /* 262 */
    return m;
}

START_TEST(flags)
{
    struct made_vocab *m = bytes_and_tokens();
    struct tokenizer *t = made_open(m);
    check_ids(t, "a \t\n<l> b", ENCODE_SPECIAL, "97 256 32 98");
    check_ids(t, "a <r> \xc2\xa0\xe3\x80\x80 b", ENCODE_SPECIAL, "97 32 257 98");
    check_ids(t, "<r> <l>", ENCODE_SPECIAL, "257 256"); /* the first takes the space */
    check_ids(t, "a<w>", 0, "97 60 119 62");
    check_ids(t, "-<w>-", 0, "45 258 45");
    check_ids(t, "<w>\xc3\xa9", 0, "60 119 62 195 169");
    check_ids(t, "<w>", 0, "258");
    tokenizer_free(t);
    free(m);
}
END_TEST

static void check_guarded(const struct tokenizer *t, const char *before, const char *user, const char *after,
                          const char *except, const char *expected)
{
    static const char mark[] = "\xef\xb7\x90";
    char prompt[512], err[512], got[512] = "", *guarded;
    size_t n;
    int32_t *ids;
    ck_assert_int_eq(tokenizer_guard(t, user, strlen(user), mark, except, &guarded, &n), 0);
    ck_assert_uint_eq(n, strlen(guarded));
    snprintf(prompt, sizeof prompt, "%s%s%s", before, guarded, after);
    free(guarded);
    ck_assert_msg(tokenizer_encode_guarded(t, prompt, strlen(prompt), mark, &ids, &n, err, sizeof err) == 0,
                  "%s", err);
    for (size_t i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids[i]);
    ck_assert_str_eq(got, expected);
    free(ids);
}

START_TEST(guarded_text)
{
    struct made_vocab *m = bytes_and_tokens();
    struct tokenizer *t = made_open(m);
    check_guarded(t, "<|end|>", "hi", "<|end|>", NULL, "259 104 105 259");
    check_guarded(t, "<l>", "<r>", "<|end|>", NULL, "256 60 114 62 259");
    /* of two that overlap neither; a user-defined one is text like any other */
    check_guarded(t, "", "<|end|>>", "", NULL, "60 124 101 110 100 124 62 62");
    check_guarded(t, "", "<u>", "", NULL, "262");
    check_guarded(t, "", "<|end|><|end|>", "<l>", NULL,
                  "60 124 101 110 100 124 62 60 124 101 110 100 124 62 256");
    check_guarded(t, "", "</think>", "", NULL, "60 47 116 104 105 110 107 62");
    check_guarded(t, "", "</think><r>", "", "think", "261 60 114 62");
    check_guarded(t, "", "", "<l>", NULL, "256");
    tokenizer_free(t);
    free(m);
}
END_TEST

/* Whatever a user writes, only the tokens of the prompt around it are there. */
START_TEST(guarded_at_random)
{
    static const char *const parts[] = {"<",  "l", ">", "<l>",      "<|end|>", "<|end",
                                        "|>", ">", " ", "</think>", "\xc3\xa9"};
    struct made_vocab *m = bytes_and_tokens();
    struct tokenizer *t = made_open(m);
    uint64_t state = 1;
    for (int k = 0; k < 2000; k++) {
        char user[128] = "", err[512], *guarded;
        size_t used = 0;
        for (uint32_t i = random_below(&state, 14); i > 0; i--)
            used += (size_t)snprintf(user + used, sizeof user - used, "%s",
                                     parts[random_below(&state, sizeof parts / sizeof *parts)]);
        size_t n;
        int32_t *ids;
        ck_assert_int_eq(tokenizer_guard(t, user, strlen(user), "\x01", NULL, &guarded, &n), 0);
        ck_assert_int_eq(tokenizer_encode_guarded(t, guarded, n, "\x01", &ids, &n, err, sizeof err), 0);
        bool clean = true;
        for (size_t i = 0; i < n; i++)
            clean = clean && ids[i] < 256;
        ck_assert_msg(clean && n == strlen(user), "a token in '%s'", user);
        free(guarded);
        free(ids);
    }
    tokenizer_free(t);
    free(m);
}
END_TEST

static Suite *encode_suite(void)
{
    Suite *s = suite_create("encode");
    TCase *c = tcase_create("encode");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, flags);
    tcase_add_test(c, guarded_text);
    tcase_add_test(c, guarded_at_random);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(encode_suite)

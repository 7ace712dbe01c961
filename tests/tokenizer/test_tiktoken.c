/* tiktoken's ranks: small files of them, good and broken. */
#include "tests/tokenizer/vocabs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct vocab_hints hints = {.add_bos = -1, .add_eos = -1};

static int open_ranks(struct tokenizer **t, const char *text, size_t len, char *err, size_t errlen)
{
    return tokenizer_from_tiktoken(t, "made", text, len, &hints, err, errlen);
}

/* a, b, c, ab, bc, abc, space */
#define RANKS "YQ== 0\nYg== 1\nYw== 2\nYWI= 4\nYmM= 3\nYWJj 6\nIA== 5\n"

START_TEST(ranks)
{
    struct tokenizer *t;
    char err[512];
    const struct vocab_added added[] = {
        {.id = 8, .token = {.text = "[gMASK]", .len = 7, .type = TOKEN_CONTROL}},
        {.id = VOCAB_ID_NEXT, .token = {.text = "<sop>", .len = 5, .type = TOKEN_CONTROL}},
    };
    hints.added = added;
    hints.n_added = 2;
    ck_assert_msg(open_ranks(&t, RANKS, strlen(RANKS), err, sizeof err) == 0, "%s", err);
    check_ids(t, "babcb", 0, "1 6 1");
    check_ids(t, "ab", 0, "4");
    check_ids(t, "abc", 0, "6");             /* a whole word is its token … */
    check_ids(t, "aabc", 0, "0 6");          /* … else the smallest rank goes first */
    check_ids(t, "ab", ENCODE_BOS, "8 9 4"); /* GLM-4's prefix, where its tokens are there */
    check_ids(t, "<sop>", ENCODE_SPECIAL, "9");
    check_ids(t, "abz", 0, "4"); /* no token for z */
    ck_assert_int_eq(tokenizer_n_tokens(t), 10);
    tokenizer_free(t);
    hints.n_added = 0;
    /* no line end at the end, and those of Windows */
    ck_assert_msg(open_ranks(&t, "YQ== 0\r\n\r\nYg== 1", 16, err, sizeof err) == 0, "%s", err);
    check_ids(t, "ba", ENCODE_BOS, "1 0");
    tokenizer_free(t);
}
END_TEST

START_TEST(bad_ranks)
{
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"", "no ranks"},
        {"YQ==\n", "line 1 is no"},
        {"YQ== 0\nYg==  1\n", "line 2 is no"},
        {"YQ== 0x\n", "line 1 is no"},
        {"YQ== \n", "line 1 is no"},
        {" 7\n", "line 1 is no"},
        {"== 7\n", "line 1 is no"},
        {"Y*== 0\n", "line 1 is no"},
        {"YQ== 99999999999999999999\n", "line 1 is no"},
        {"YQ== 16000000\n", "far beyond"},
        {"YQ== 0\nYg== 0\n", "two tokens have the id 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        char err[512] = "";
        ck_assert_int_eq(open_ranks(&t, cases[i].text, strlen(cases[i].text), err, sizeof err), -1);
        ck_assert_ptr_null(t);
        ck_assert_msg(strstr(err, cases[i].what) && strncmp(err, "made: ", 6) == 0, "\"%s\", not \"%s\"", err,
                      cases[i].what);
    }
}
END_TEST

START_TEST(random_changes)
{
    uint64_t state = 5;
    int n_opened = 0;
    for (int k = 0; k < 1000; k++) {
        char text[sizeof RANKS], err[512];
        size_t n;
        struct tokenizer *t;
        memcpy(text, RANKS, sizeof text);
        for (uint32_t i = random_below(&state, 3); i < 3; i++)
            text[random_below(&state, sizeof text - 1)] =
                k % 2 ? "0123456789ABYg= \n"[random_below(&state, 17)] : (char)random_below(&state, 256);
        if (open_ranks(&t, text, k % 10 ? sizeof text - 1 : random_below(&state, sizeof text), err,
                       sizeof err) != 0)
            continue;
        n_opened++;
        free(encode(t, "abcab\xff abc", 10, ENCODE_SPECIAL | ENCODE_BOS, &n));
        tokenizer_free(t);
    }
    ck_assert_int_ge(n_opened, 50);
}
END_TEST

static Suite *tiktoken_suite(void)
{
    Suite *s = suite_create("tiktoken");
    TCase *c = tcase_create("tiktoken");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, ranks);
    tcase_add_test(c, bad_ranks);
    tcase_add_test(c, random_changes);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(tiktoken_suite)

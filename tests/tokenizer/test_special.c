/* The longest token at a place. */
#include "tests/tokenizer/vocabs.h"
#include "tokenizer/internal.h"

#include <stdlib.h>

START_TEST(longest_wins)
{
    static const char *const texts[] = {"<s>", "<", "<s", "<s>>x", "<t>", "\xff\xff", "", "<s>", "<0>"};
    struct made_vocab *m = calloc(1, sizeof *m);
    struct pieces p = {0};
    struct matcher some = {0}, none = {0};
    char err[200];
    made_init(m, VOCAB_BPE);
    for (size_t i = 0; i < 9; i++)
        made_token(m, texts[i], strlen(texts[i]), 0, i == 4 ? TOKEN_NORMAL : TOKEN_CONTROL);
    ck_assert_int_eq(pieces_init(&p, &m->spec, err, sizeof err), 0);
    for (int32_t id = 8; id >= 0; id--)
        if (p.piece[id].type == TOKEN_CONTROL)
            ck_assert_int_eq(matcher_add(&some, piece_text(&p, id), p.piece[id].text_len, id), 0);
    matcher_done(&some);
    matcher_done(&none);
    static const struct {
        const char *text;
        size_t len;
        int32_t id;
    } cases[] = {
        {"<s>", 3, 0}, {"<s>>", 3, 0}, {"<s>>x<", 5, 3}, {"<s", 2, 2},    {"<x", 1, 1},
        {"<t>", 1, 1}, {"s>", 0, -1},  {"", 0, -1},      {"\xff", 0, -1}, {"\xff\xff\xff", 2, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t id = -1;
        ck_assert_uint_eq(matcher_at(&some, cases[i].text, strlen(cases[i].text), &id), cases[i].len);
        ck_assert_int_eq(id, cases[i].id);
        ck_assert_uint_eq(matcher_at(&none, cases[i].text, strlen(cases[i].text), &id), 0);
    }
    int32_t id; /* nothing is read past the end */
    ck_assert_uint_eq(matcher_at(&some, "<s>>x", 4, &id), 3);
    ck_assert_uint_eq(matcher_at(&some, "<s>>x", 1, &id), 1);
    matcher_free(&some);
    matcher_free(&none);
    pieces_free(&p);
    free(m);
}
END_TEST

START_TEST(as_looking_at_each)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    struct pieces p = {0};
    struct matcher all = {0};
    char err[200], text[12];
    uint64_t state = 5;
    made_init(m, VOCAB_BPE);
    for (int i = 0; i < 300; i++) {
        size_t len = 1 + random_below(&state, 6);
        for (size_t k = 0; k < len; k++)
            text[k] = "ab\xc3"[random_below(&state, 3)];
        made_token(m, text, len, 0, TOKEN_USER_DEFINED);
    }
    ck_assert_int_eq(pieces_init(&p, &m->spec, err, sizeof err), 0);
    for (int32_t id = 0; id < p.n; id++)
        ck_assert_int_eq(matcher_add(&all, piece_text(&p, id), p.piece[id].text_len, id), 0);
    for (int i = 0; i < 3; i++) /* freed with the matcher */
        ck_assert_int_eq(matcher_own(&all, malloc(8)), 0);
    matcher_done(&all);
    for (int k = 0; k < 2000; k++) {
        size_t len = random_below(&state, sizeof text), best = 0;
        for (size_t i = 0; i < len; i++)
            text[i] = "ab\xc3"[random_below(&state, 3)];
        for (size_t i = 0; i < m->spec.n_tokens; i++)
            if (m->tokens[i].len <= len && m->tokens[i].len > best &&
                memcmp(m->tokens[i].text, text, m->tokens[i].len) == 0)
                best = m->tokens[i].len;
        int32_t id = -1;
        ck_assert_uint_eq(matcher_at(&all, text, len, &id), best);
        ck_assert(best == 0 || memcmp(m->tokens[id].text, text, best) == 0);
    }
    matcher_free(&all);
    pieces_free(&p);
    free(m);
}
END_TEST

static Suite *special_suite(void)
{
    Suite *s = suite_create("special");
    TCase *c = tcase_create("special");
    tcase_add_test(c, longest_wins);
    tcase_add_test(c, as_looking_at_each);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(special_suite)

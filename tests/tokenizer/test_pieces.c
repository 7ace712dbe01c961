/* The vocabulary: spellings, running text, the way back. */
#include "tests/tokenizer/vocabs.h"
#include "tokenizer/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

START_TEST(byte_alphabet_is_gpt2s)
{
    bool seen[0x180] = {false};
    for (unsigned b = 0; b < 256; b++) {
        uint32_t c = byte_alphabet((uint8_t)b);
        ck_assert(c < 0x180 && c > 0x20 && !seen[c]);
        seen[c] = true;
    }
    /* Some of encoder.json's. */
    ck_assert_uint_eq(byte_alphabet('\n'), 0x10a);
    ck_assert_uint_eq(byte_alphabet(' '), 0x120);
    ck_assert_uint_eq(byte_alphabet('a'), 'a');
    ck_assert_uint_eq(byte_alphabet(0x7f), 0x121);
    ck_assert_uint_eq(byte_alphabet(0xa0), 0x142);
    ck_assert_uint_eq(byte_alphabet(0xad), 0x143);
    ck_assert_uint_eq(byte_alphabet(0xff), 0xff);
    char spelled[8];
    ck_assert_uint_eq(byte_alphabet_spell(" a\n", 3, spelled), 5);
    ck_assert_mem_eq(spelled,
                     "\xc4\xa0"
                     "a\xc4\x8a",
                     5);
}
END_TEST

START_TEST(running_text)
{
    static const struct {
        enum vocab_kind kind;
        enum token_type type;
        const char *text, *out;
    } cases[] = {
        {VOCAB_BPE, TOKEN_NORMAL, "\u0120a\u010a", " a\n"},
        {VOCAB_BPE, TOKEN_NORMAL, "\u00c3\u00a9", "\u00e9"},
        {VOCAB_BPE, TOKEN_NORMAL, "\u4f60 \xff", "\u4f60 \xff"}, /* not of the alphabet: as it is */
        {VOCAB_BPE, TOKEN_USER_DEFINED, "\u0120a", "\u0120a"},
        {VOCAB_BPE, TOKEN_CONTROL, "<|\u2581|>", "<|\u2581|>"},
        {VOCAB_SPM, TOKEN_NORMAL, "\u2581a\u2581", " a "},
        {VOCAB_SPM, TOKEN_USER_DEFINED, "\u2581 ", "  "},
        {VOCAB_SPM, TOKEN_BYTE, "<0x0a>", "\n"},
        {VOCAB_SPM, TOKEN_BYTE, "<0xE4>", "\xe4"},
        {VOCAB_SPM, TOKEN_BYTE, "<0xG4>", "<0xG4>"},
        {VOCAB_SPM, TOKEN_NORMAL, "<0x41>", "<0x41>"},
    };
    struct made_vocab *m = calloc(1, sizeof *m);
    struct pieces p = {0};
    char err[200];
    made_init(m, cases[_i].kind);
    made_token(m, cases[_i].text, strlen(cases[_i].text), 0, cases[_i].type);
    ck_assert_int_eq(pieces_init(&p, &m->spec, err, sizeof err), 0);
    ck_assert_uint_eq(p.piece[0].out_len, strlen(cases[_i].out));
    ck_assert_mem_eq(p.out + p.piece[0].out, cases[_i].out, p.piece[0].out_len);
    pieces_free(&p);
    free(m);
}
END_TEST

START_TEST(found_by_text)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    struct pieces p = {0};
    char err[200], text[16];
    made_init(m, VOCAB_SPM);
    for (int i = 0; i < 2000; i++)
        made_token(m, text, (size_t)snprintf(text, sizeof text, "%x", i * 7), 0, TOKEN_NORMAL);
    int32_t empty = made_token(m, "", 0, 0, TOKEN_NORMAL);
    made_token(m, "twice", 5, 0, TOKEN_CONTROL);
    int32_t normal = made_token(m, "twice", 5, 0, TOKEN_NORMAL); /* before any other type */
    made_token(m, "twice", 5, 0, TOKEN_NORMAL);
    ck_assert_int_eq(pieces_init(&p, &m->spec, err, sizeof err), 0);
    for (int i = 0; i < 14000; i++) {
        size_t n = (size_t)snprintf(text, sizeof text, "%x", i);
        ck_assert_int_eq(pieces_find(&p, text, n), i % 7 ? -1 : i / 7);
    }
    ck_assert_int_eq(pieces_find(&p, "twice", 5), normal);
    ck_assert_int_eq(pieces_find(&p, "", 0), empty);
    ck_assert_int_eq(pieces_find(&p, "much longer than any", 20), -1);
    pieces_free(&p);
    free(m);
}
END_TEST

START_TEST(ranks_follow_scores)
{
    static const float scores[] = {INFINITY, 3e38f, 2,     1e-40f, 0,        -0.0f,
                                   -1e-40f,  -1,    -1.5f, -1e9f,  -INFINITY};
    struct made_vocab *m = calloc(1, sizeof *m);
    struct pieces p = {0};
    char err[200], text[2] = "a";
    made_init(m, VOCAB_SPM);
    for (size_t i = 0; i < sizeof scores / sizeof *scores; i++, text[0]++)
        made_token(m, text, 1, scores[i], TOKEN_NORMAL);
    ck_assert_int_eq(pieces_init(&p, &m->spec, err, sizeof err), 0);
    for (size_t i = 0; i + 1 < sizeof scores / sizeof *scores; i++)
        ck_assert(i == 4 ? p.piece[i].rank == p.piece[i + 1].rank : p.piece[i].rank < p.piece[i + 1].rank);
    ck_assert(p.piece[10].rank < NO_RANK);
    pieces_free(&p);
    free(m);
}
END_TEST

static Suite *pieces_suite(void)
{
    Suite *s = suite_create("pieces");
    TCase *c = tcase_create("pieces");
    tcase_add_test(c, byte_alphabet_is_gpt2s);
    tcase_add_loop_test(c, running_text, 0, 11);
    tcase_add_test(c, found_by_text);
    tcase_add_test(c, ranks_follow_scores);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(pieces_suite)

/* SentencePiece BPE: spaces, unknown characters, user-defined tokens. */
#include "tests/tokenizer/vocabs.h"

#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

static struct made_vocab *small(void)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_SPM);
    m->spec.unk = made_token(m, "<unk>", 5, 0, TOKEN_UNKNOWN); /* 0 */
    made_token(m, SPACE, 3, -9, TOKEN_NORMAL);                 /* 1 */
    made_token(m, "a", 1, -5, TOKEN_NORMAL);                   /* 2 */
    made_token(m, SPACE "a", 4, -1, TOKEN_NORMAL);             /* 3 */
    made_token(m, "b", 1, -6, TOKEN_NORMAL);                   /* 4 */
    made_token(m, "ab", 2, -2, TOKEN_NORMAL);                  /* 5 */
    made_token(m, SPACE SPACE, 6, -3, TOKEN_NORMAL);           /* 6 */
    made_token(m, "<s>", 3, 0, TOKEN_CONTROL);                 /* 7 */
    made_token(m, "bb", 2, 0, TOKEN_USER_DEFINED);             /* 8 */
    made_token(m, "  b", 3, 0, TOKEN_USER_DEFINED);            /* 9: with spaces, as some files have it */
    return m;
}

START_TEST(spaces)
{
    static const struct {
        bool prefix, remove_extra;
        const char *text, *ids;
    } cases[] = {
        {false, false, " a  a", "3 1 3"},
        {true, false, "a a", "3 3"},
        {true, false, "", ""},
        {true, false, "  a", "6 3"},
        {true, true, "  a   a  ", "3 3"},
        {false, true, "  a   a  ", "2 3"},
        {true, true, "   ", ""},
        {true, false, " ", "6"},
        {false, false, "a" SPACE "a", "2 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made_vocab *m = small();
        m->spec.add_space_prefix = cases[i].prefix;
        m->spec.remove_extra_spaces = cases[i].remove_extra;
        struct tokenizer *t = made_open(m);
        check_ids(t, cases[i].text, 0, cases[i].ids);
        tokenizer_free(t);
        free(m);
    }
}
END_TEST

START_TEST(unknown_characters)
{
    struct made_vocab *m = small();
    struct tokenizer *t = made_open(m);
    check_ids(t, "a你好é!b\xff", 0, "2 0 4 0"); /* one for several, as SentencePiece has it */
    tokenizer_free(t);
    m->spec.unk = -1;
    t = made_open(m);
    check_ids(t, "a你b", 0, "2 4");
    tokenizer_free(t);
    m->spec.unk = 0;
    int32_t first = (int32_t)m->spec.n_tokens;
    made_bytes(m);
    t = made_open(m);
    size_t n;
    int32_t *ids = encode(t, "a\xe4\xbd\xa0\xffz", 6, 0, &n);
    const int32_t expected[] = {2, first + 0xe4, first + 0xbd, first + 0xa0, first + 0xff, first + 'z'};
    ck_assert_uint_eq(n, 6);
    ck_assert_mem_eq(ids, expected, sizeof expected);
    free(ids);
    ck_assert(round_trip(t, "\0a\xed\xa0\x80\xc0 \n", 8));
    tokenizer_free(t);
    free(m);
}
END_TEST

START_TEST(special_tokens)
{
    struct made_vocab *m = small();
    struct tokenizer *t = made_open(m);
    check_ids(t, "abb", 0, "2 8"); /* user-defined tokens stay whole, whatever merges around them */
    check_ids(t, "abbb", 0, "2 8 4");
    check_ids(t, "a  b", 0, "2 9");
    check_ids(t, "a<s>b", 0, "2 0 4");
    check_ids(t, "a<s>b", ENCODE_SPECIAL, "2 7 4");
    tokenizer_free(t);
    m->spec.add_space_prefix = true; /* before every stretch of text */
    t = made_open(m);
    check_ids(t, "a<s>a", ENCODE_SPECIAL, "3 7 3");
    tokenizer_free(t);
    free(m);
}
END_TEST

START_TEST(merges_across_borders)
{
    /* A token with the space mark inside, as Gemma has one: text is not cut there. */
    struct made_vocab *m = small();
    int32_t id = made_token(m, "a" SPACE "b", 5, -1, TOKEN_NORMAL);
    made_token(m, "a" SPACE, 4, -1, TOKEN_NORMAL);
    struct tokenizer *t = made_open(m);
    size_t n;
    int32_t *ids = encode(t, "a b", 3, 0, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(ids[0], id);
    free(ids);
    tokenizer_free(t);
    free(m);
}
END_TEST

static Suite *spm_suite(void)
{
    Suite *s = suite_create("spm");
    TCase *c = tcase_create("spm");
    tcase_add_test(c, spaces);
    tcase_add_test(c, unknown_characters);
    tcase_add_test(c, special_tokens);
    tcase_add_test(c, merges_across_borders);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(spm_suite)

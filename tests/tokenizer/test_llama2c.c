/* llama2.c's tokenizer.bin, written as its tokenizer.py does. */
#include "tests/tokenizer/vocabs.h"

#include <stdlib.h>
#include <string.h>

static const struct vocab_hints hints = {.add_bos = -1, .add_eos = -1};
static const struct {
    const char *text;
    float score;
} tokens[] = {{"<unk>", 0}, {"\n<s>\n", 0}, {"\n</s>\n", 0}, {"<0x0A>", 0}, {"<0xC3>", 0}, {"<0xA9>", 0},
              {" ", -9},    {"a", -8},      {"b", -8},       {" a", -1},    {"ab", -2},    {" b", -3}};
enum { N = sizeof tokens / sizeof *tokens };

static size_t write_file(char *bytes)
{
    size_t n = 4;
    memcpy(bytes, &(int){7}, 4);
    for (int i = 0; i < N; i++) {
        int len = (int)strlen(tokens[i].text);
        memcpy(bytes + n, &tokens[i].score, 4);
        memcpy(bytes + n + 4, &len, 4);
        memcpy(bytes + n + 8, tokens[i].text, (size_t)len);
        n += 8 + (size_t)len;
    }
    return n;
}

START_TEST(a_vocabulary)
{
    char bytes[1024], err[512];
    struct tokenizer *t;
    size_t n = write_file(bytes);
    ck_assert_msg(tokenizer_from_llama2c(&t, "made", bytes, n, &hints, err, sizeof err) == 0, "%s", err);
    check_ids(t, "ab a\n", 0, "9 8 9 3"); /* " a" merges before "ab" */
    check_ids(t, "b\xc3\xa9", ENCODE_BOS, "1 11 4 5");
    check_ids(t, "<s>b", ENCODE_SPECIAL, "1 11");
    ck_assert(tokenizer_is_end(t, 2));
    ck_assert(round_trip(t, "ab a\n", 5));
    tokenizer_free(t);
}
END_TEST

START_TEST(broken_files)
{
    char bytes[1024], err[512];
    struct tokenizer *t;
    size_t n = write_file(bytes), n_ids;
    uint64_t state = 2;
    for (size_t len = 0; len < n; len++) {
        ck_assert_int_eq(tokenizer_from_llama2c(&t, "made", bytes, len, &hints, err, sizeof err) == 0,
                         t != NULL);
        ck_assert(t || strncmp(err, "made: ", 6) == 0);
        tokenizer_free(t);
    }
    for (int k = 0; k < 500; k++) {
        n = write_file(bytes);
        for (uint32_t i = random_below(&state, 3); i < 3; i++)
            bytes[random_below(&state, (uint32_t)n)] = (char)random_below(&state, 256);
        if (tokenizer_from_llama2c(&t, "made", bytes, n, &hints, err, sizeof err) == 0)
            free(encode(t, "ab a\n\xc3\xa9", 7, ENCODE_SPECIAL | ENCODE_BOS, &n_ids));
        tokenizer_free(t);
    }
}
END_TEST

static Suite *llama2c_suite(void)
{
    Suite *s = suite_create("llama2c");
    TCase *c = tcase_create("llama2c");
    tcase_add_test(c, a_vocabulary);
    tcase_add_test(c, broken_files);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(llama2c_suite)

/* Text from outside: what is stored, and what a terminal may see. */
#include "tests/test.h"
#include "tools/chat.h"

#include <stdlib.h>
#include <string.h>

#define BAD "\xEF\xBF\xBD"

static const struct {
    const char *in;
    size_t len;
    const char *clean, *terminal;
} cases[] = {
    {"", 0, "", ""},
    {"plain\ttext\n", 11, "plain\ttext\n", "plain\ttext\n"},
    {"h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", 12, "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80",
     "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"},
    {"\033[2J", 4, "\033[2J", "\xE2\x90\x9B[2J"},
    {"a\rb\bc\x7f", 6, "a\rb\bc\x7f",
     "a\xE2\x90\x8D"
     "b\xE2\x90\x88"
     "c\xE2\x90\xA1"},
    {"\xC2\x9B"
     "31m",
     5,
     "\xC2\x9B"
     "31m",
     BAD "31m"}, /* U+009B begins a sequence as ESC [ does */
    {"\xC2\xA0", 2, "\xC2\xA0", "\xC2\xA0"},
    {"a\0b", 3, "a" BAD "b",
     "a\xE2\x90\x80"
     "b"},
    {"\x9B"
     "31m\xff",
     5, BAD "31m" BAD, BAD "31m" BAD},
    {"\xE2\x82", 2, BAD BAD, BAD BAD},             /* cut */
    {"\xC0\xAF", 2, BAD BAD, BAD BAD},             /* overlong */
    {"\xED\xA0\x80", 3, BAD BAD BAD, BAD BAD BAD}, /* half of a pair */
};

START_TEST(text_is_made_fit)
{
    /* the exact bytes: nothing behind them may be read */
    char *in = malloc(cases[_i].len ? cases[_i].len : 1);
    ck_assert_ptr_nonnull(in);
    memcpy(in, cases[_i].in, cases[_i].len);
    char *clean = text_clean(in, cases[_i].len), *terminal = text_for_terminal(in, cases[_i].len);
    ck_assert_str_eq(clean, cases[_i].clean);
    ck_assert_str_eq(terminal, cases[_i].terminal);
    free(in);
    free(clean);
    free(terminal);
}
END_TEST

static Suite *chat_text_suite(void)
{
    Suite *s = suite_create("tools/chat_text");
    TCase *t = tcase_create("text");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, text_is_made_fit, 0, sizeof cases / sizeof cases[0]);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(chat_text_suite)

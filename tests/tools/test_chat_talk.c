/* The conversation: system prompt, undo, what is forgotten. */
#include "tests/test.h"
#include "tools/chat.h"

#include <stdlib.h>
#include <string.h>

static struct talk t;

static void begin(void)
{
    ck_assert_int_eq(talk_init(&t), 0);
}

static void end(void)
{
    talk_free(&t);
}

/* Adds messages by their letters: u and a, with the letter's position as text. */
static void add(const char *letters)
{
    for (size_t i = 0; letters[i]; i++) {
        char text[8];
        int n = snprintf(text, sizeof text, "%zu", i);
        ck_assert_int_eq(talk_add(&t, letters[i] == 'u' ? "user" : "assistant", text, (size_t)n), 0);
    }
}

/* The visible messages as "s:be kind|u:0|a:1". */
static const char *seen(void)
{
    static char text[256];
    json_t *visible = talk_visible(&t), *m;
    size_t i, n = 0;
    text[0] = '\0';
    ck_assert_ptr_nonnull(visible);
    json_array_foreach(visible, i, m)
    {
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%c:%s", i > 0 ? "|" : "",
                              json_string_value(json_object_get(m, "role"))[0],
                              json_string_value(json_object_get(m, "content")));
        ck_assert_uint_lt(n, sizeof text);
    }
    json_decref(visible);
    return text;
}

START_TEST(system_prompt_is_first)
{
    ck_assert_ptr_null(talk_system(&t));
    add("ua");
    ck_assert_int_eq(talk_set_system(&t, "be kind"), 0);
    ck_assert_str_eq(seen(), "s:be kind|u:0|a:1");
    ck_assert_int_eq(talk_set_system(&t, "be brief"), 0);
    ck_assert_str_eq(talk_system(&t), "be brief");
    ck_assert_str_eq(seen(), "s:be brief|u:0|a:1");
    ck_assert_uint_eq(talk_turns(&t), 1);
    talk_clear(&t);
    ck_assert_str_eq(seen(), "s:be brief");
    ck_assert_int_eq(talk_set_system(&t, ""), 0);
    ck_assert_str_eq(seen(), "");
    ck_assert_int_eq(talk_set_system(&t, ""), 0);
}
END_TEST

START_TEST(undo_takes_a_turn_back)
{
    ck_assert(!talk_undo(&t, false));
    ck_assert_int_eq(talk_set_system(&t, "s"), 0);
    ck_assert(!talk_undo(&t, true));
    add("uaua");
    ck_assert(talk_undo(&t, true));
    ck_assert_str_eq(seen(), "s:s|u:0|a:1|u:2");
    ck_assert(talk_undo(&t, true)); /* nothing after the question: nothing to take */
    ck_assert_str_eq(seen(), "s:s|u:0|a:1|u:2");
    ck_assert(talk_undo(&t, false));
    ck_assert_str_eq(seen(), "s:s|u:0|a:1");
    ck_assert(talk_undo(&t, false));
    ck_assert_str_eq(seen(), "s:s");
    ck_assert(!talk_undo(&t, false));
}
END_TEST

START_TEST(oldest_turns_are_forgotten)
{
    ck_assert(!talk_forget(&t));
    ck_assert_int_eq(talk_set_system(&t, "s"), 0);
    add("uauauu");
    ck_assert(talk_forget(&t));
    ck_assert_str_eq(seen(), "s:s|u:2|a:3|u:4|u:5");
    ck_assert(talk_forget(&t));
    ck_assert_str_eq(seen(), "s:s|u:4|u:5");
    ck_assert(talk_forget(&t));
    ck_assert_str_eq(seen(), "s:s|u:5");
    ck_assert(!talk_forget(&t));
    ck_assert_str_eq(seen(), "s:s|u:5");
    ck_assert_uint_eq(talk_turns(&t), 4); /* they are still there to be saved */
    ck_assert(talk_undo(&t, false));
    ck_assert_str_eq(seen(), "s:s");
    ck_assert(talk_undo(&t, false));
    add("ua");
    ck_assert_str_eq(seen(), "s:s|u:0|a:1");
}
END_TEST

START_TEST(any_bytes_become_text)
{
    ck_assert_int_eq(talk_add(&t, "user", "a\0\xff", 3), 0);
    ck_assert_str_eq(seen(), "u:a\xEF\xBF\xBD\xEF\xBF\xBD");
}
END_TEST

static Suite *chat_talk_suite(void)
{
    Suite *s = suite_create("tools/chat_talk");
    TCase *c = tcase_create("talk");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, begin, end);
    tcase_add_test(c, system_prompt_is_first);
    tcase_add_test(c, undo_takes_a_turn_back);
    tcase_add_test(c, oldest_turns_are_forgotten);
    tcase_add_test(c, any_bytes_become_text);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(chat_talk_suite)

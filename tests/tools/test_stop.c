/* Stop strings: whatever the pieces, the text before the first stop string and no more. */
#include "tests/test.h"
#include "tools/stop.h"

#include <stdlib.h>
#include <string.h>

static const char *const stops[] = {"END", "abab", "\n\n", "E!"};
enum { N_STOPS = sizeof stops / sizeof stops[0] };

static void check(const char *text, size_t piece)
{
    struct stop_filter f = {.stops = stops, .n_stops = N_STOPS};
    size_t len = strlen(text), want = len, n_shown = 0, n;
    bool stopped = false;
    for (size_t i = 0; i < N_STOPS; i++) {
        const char *at = strstr(text, stops[i]);
        if (at && (size_t)(at - text) < want)
            want = (size_t)(at - text);
        stopped = stopped || at;
    }
    char *shown = malloc(len + 1);
    const char *out;
    for (size_t i = 0; i < len; i += piece) {
        ck_assert_int_eq(stop_push(&f, text + i, piece < len - i ? piece : len - i, &out, &n), 0);
        ck_assert_uint_le(n_shown + n, len);
        memcpy(shown + n_shown, out, n);
        n_shown += n;
        /* nothing that can no longer become a stop string is held back */
        ck_assert_uint_ge(n_shown + 3 + piece, i < want ? i : want);
    }
    stop_flush(&f, &out, &n);
    memcpy(shown + n_shown, out, n);
    n_shown += n;
    shown[n_shown] = '\0';
    ck_assert_uint_eq(n_shown, want);
    ck_assert_int_eq(strncmp(shown, text, want), 0);
    ck_assert_int_eq(f.stopped, stopped);
    free(shown);
    stop_free(&f);
}

START_TEST(any_split_gives_the_same_text)
{
    static const char *const texts[] = {
        "",
        "plain text",
        "ends in EN",
        "one END two",
        "aababab",
        "abaabab tail",
        "line\nline\n\nrest",
        "EEND",
        "ENENDE!",
        "E!END",
        "\n",
        "aba",
        "long text without any of them, but with E and ab and \n in it",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (size_t piece = 1; piece < 12; piece++)
            check(texts[i], piece);
}
END_TEST

START_TEST(after_a_stop_comes_nothing)
{
    struct stop_filter f = {.stops = stops, .n_stops = N_STOPS};
    const char *out;
    size_t n;
    ck_assert_int_eq(stop_push(&f, "xEND", 4, &out, &n), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(stop_push(&f, "more", 4, &out, &n), 0);
    ck_assert_uint_eq(n, 0);
    stop_flush(&f, &out, &n);
    ck_assert_uint_eq(n, 0);
    stop_free(&f);
}
END_TEST

static Suite *stop_suite(void)
{
    Suite *suite = suite_create("stop");
    TCase *tc = tcase_create("stop");
    tcase_add_test(tc, any_split_gives_the_same_text);
    tcase_add_test(tc, after_a_stop_comes_nothing);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(stop_suite)

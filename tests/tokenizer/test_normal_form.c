/* Normal forms against utf8proc on whole texts, and texts that would take it for ever. */
#include "tests/tokenizer/vocabs.h"
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <utf8proc.h>

static const struct tokenizer made = {.name = (char *)"made"};

static int to_form(struct encoder *e, enum vocab_step_kind kind, const char **text, size_t *len)
{
    const struct step s = {.how.kind = kind};
    e->max_room = 1 << 20;
    return normalize_form(e, &s, text, len, &e->norm[0]);
}

static size_t put(char *text, int32_t c)
{
    return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)text);
}

static bool as_utf8proc(enum vocab_step_kind kind, const char *text, size_t len)
{
    static utf8proc_uint8_t *(*const reference[])(const utf8proc_uint8_t *) = {
        [STEP_NFC] = utf8proc_NFC,
        [STEP_NFD] = utf8proc_NFD,
        [STEP_NFKC] = utf8proc_NFKC,
        [STEP_NFKD] = utf8proc_NFKD,
    };
    struct encoder e = {.t = &made};
    char nul_ended[256];
    size_t n = len;
    const char *got = text;
    memcpy(nul_ended, text, len);
    nul_ended[len] = '\0';
    utf8proc_uint8_t *want = reference[kind]((const utf8proc_uint8_t *)nul_ended);
    bool same =
        to_form(&e, kind, &got, &n) == 0 && strlen((const char *)want) == n && memcmp(got, want, n) == 0;
    free(want);
    encoder_free(&e);
    return same;
}

START_TEST(every_character)
{
    /* Alone and before a mark that composes. */
    int32_t failed = -1;
    for (int32_t c = 1; c <= 0x10ffff; c++) {
        char text[16];
        if (c >= 0xd800 && c < 0xe000)
            continue;
        size_t n = put(text, c);
        bool same = as_utf8proc(STEP_NFC, text, n);
        n += put(text + n, 0x3099);
        same = same && as_utf8proc(STEP_NFC, text, n);
        if (!same && failed < 0)
            failed = c;
    }
    ck_assert_int_eq(failed, -1);
}
END_TEST

START_TEST(random_texts)
{
    static const int32_t ranges[][2] = {{0x20, 0x7f},     {0xa0, 0x300},    {0x300, 0x370},
                                        {0x1100, 0x1200}, {0x3040, 0x30a0}, {0xac00, 0xad00},
                                        {0x1e00, 0x2000}, {0x900, 0xd80}};
    uint64_t state = 1;
    for (int k = 0; k < 20000; k++) {
        char text[200];
        size_t n = 0;
        for (uint32_t i = 1 + random_below(&state, 20); i > 0; i--) {
            const int32_t *r = ranges[random_below(&state, 8)];
            n += put(text + n, r[0] + (int32_t)random_below(&state, (uint32_t)(r[1] - r[0])));
        }
        if (!as_utf8proc((enum vocab_step_kind)(STEP_NFC + k % 4), text, n))
            ck_abort_msg("text %d is normalised another way", k);
    }
}
END_TEST

START_TEST(marks_without_end)
{
    enum { N_MARKS = 200000 };
    char *text = malloc(2 * N_MARKS + 1);
    size_t len = put(text, 'a'), n;
    for (int i = 0; i < N_MARKS; i++) /* utf8proc would take minutes to sort these */
        len += put(text + len, i < N_MARKS / 2 ? 0x301 : 0x323);
    struct encoder e = {.t = &made};
    const char *got = text;
    n = len;
    ck_assert_int_eq(to_form(&e, STEP_NFC, &got, &n), 0);
    ck_assert_uint_ge(n, len - 2);
    ck_assert_mem_eq(got, "\xc3\xa1", 2);
    encoder_free(&e);
    free(text);
}
END_TEST

static Suite *nfc_suite(void)
{
    Suite *s = suite_create("nfc");
    TCase *c = tcase_create("nfc");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, every_character);
    tcase_add_test(c, random_texts);
    tcase_add_test(c, marks_without_end);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(nfc_suite)

/* Text token by token: what is printed after each, never half a character. */
#include "tests/tokenizer/vocabs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_lines;

static void compare_emits(json_t *line, void *arg)
{
    struct detok *d = arg;
    const json_t *ids = json_object_get(line, "ids"), *emit = json_object_get(line, "emit");
    size_t len;
    detok_reset(d);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *got = detok_push(d, (int32_t)json_integer_value(json_array_get(ids, i)), &len);
        const json_t *want = json_array_get(emit, i);
        ck_assert_msg(len == json_string_length(want) && memcmp(got, json_string_value(want), len) == 0,
                      "%s, token %zu: \"%.*s\"", json_string_value(json_object_get(line, "id")), i, (int)len,
                      got);
    }
    detok_flush(d, &len);
    ck_assert_uint_eq(len, 0);
    n_lines++;
}

START_TEST(golden_stream)
{
    char path[200];
    struct tokenizer *t = vocab_load(vocab_names[_i]);
    if (!t)
        return;
    struct detok *d = detok_new(t, false);
    snprintf(path, sizeof path, "tokenizers/stream/%s.jsonl", vocab_names[_i]);
    ck_assert(each_line(path, compare_emits, d));
    ck_assert_int_ge(n_lines, 25);
    detok_free(d);
    tokenizer_free(t);
}
END_TEST

/* Whether the last character of valid UTF-8, cut somewhere, is whole. */
static bool ends_whole(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && n < 4 && ((uint8_t)text[len - 1 - n] & 0xc0) == 0x80)
        n++;
    if (n == len)
        return len == 0;
    uint8_t lead = (uint8_t)text[len - 1 - n];
    return n == (lead < 0xc0 ? 0u : lead < 0xe0 ? 1u : lead < 0xf0 ? 2u : 3u);
}

START_TEST(stream_is_the_whole_text)
{
    struct tokenizer *t = vocab_load(vocab_names[_i]);
    uint64_t state = 3;
    for (int k = 0; t && k < 200; k++) {
        int32_t ids[40];
        size_t n_ids = random_below(&state, 40), n = 0, len, n_text;
        for (size_t i = 0; i < n_ids; i++) /* many byte tokens */
            ids[i] = (int32_t)random_below(&state, (uint32_t)(k % 2 ? tokenizer_n_tokens(t) : 260));
        bool with_control = k % 4 < 2;
        char *text, out[1 << 15];
        ck_assert_int_eq(tokenizer_decode(t, ids, n_ids, with_control, &text, &n_text), 0);
        struct detok *d = detok_new(t, with_control);
        for (int twice = 0; twice < 2; twice++) { /* a reset begins anew */
            n = 0;
            for (size_t i = 0; i < n_ids; i++) {
                const char *part = detok_push(d, ids[i], &len);
                memcpy(out + n, part, len);
                n += len;
            }
            ck_assert_uint_ge(n + 3, n_text);
            const char *rest = detok_flush(d, &len);
            memcpy(out + n, rest, len);
            n += len;
            detok_flush(d, &len);
            ck_assert_uint_eq(len, 0);
            detok_reset(d);
        }
        ck_assert_uint_eq(n, n_text);
        ck_assert_mem_eq(out, text, n);
        detok_free(d);
        free(text);
    }
    tokenizer_free(t);
}
END_TEST

START_TEST(never_half_a_character)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_SPM);
    made_bytes(m);
    struct tokenizer *t = made_open(m);
    struct detok *d = detok_new(t, false);
    const char text[] = "aé你😀\u07ff\u0800\uffff𐀀z";
    for (size_t i = 0, len; i + 1 < sizeof text; i++) {
        const char *out = detok_push(d, (uint8_t)text[i], &len);
        ck_assert(len == 0 || ends_whole(out, len));
        ck_assert_uint_le(len, 4);
    }
    /* Bytes that can no longer become a character come out as they are. */
    static const struct {
        const char *bytes;
        const char *out[4];
    } cases[] = {
        {"\xe4\xbd ", {"", "", "\xe4\xbd "}},
        {"\xc3\xc3\xa9", {"", "\xc3", "\xc3\xa9"}},
        {"\x80\xff", {"\x80", "\xff"}},
        {"\xed\xa0\x80", {"", "\xed\xa0", "\x80"}},
        {"\xf0\x9f\x98\xe4", {"", "", "", "\xf0\x9f\x98"}},
        {"\xc0\x80", {"\xc0", "\x80"}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        detok_reset(d);
        for (size_t i = 0, len; cases[k].bytes[i]; i++) {
            const char *out = detok_push(d, (uint8_t)cases[k].bytes[i], &len);
            ck_assert_uint_eq(len, strlen(cases[k].out[i]));
            ck_assert_mem_eq(out, cases[k].out[i], len);
        }
    }
    size_t len;
    const char *rest = detok_flush(d, &len); /* of the last case but one nothing is left, of this neither */
    ck_assert_uint_eq(len, 0);
    detok_push(d, 0xe4, &len);
    detok_push(d, 0xbd, &len);
    rest = detok_flush(d, &len);
    ck_assert_uint_eq(len, 2);
    ck_assert_mem_eq(rest, "\xe4\xbd", 2);
    detok_free(d);
    tokenizer_free(t);
    free(m);
}
END_TEST

START_TEST(spaces_and_control)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_SPM);
    int32_t bos = made_token(m, "<s>", 3, 0, TOKEN_CONTROL);
    int32_t a = made_token(m, "\u2581a", 4, 0, TOKEN_NORMAL);
    int32_t unk = made_token(m, "<unk>", 5, 0, TOKEN_UNKNOWN);
    const int32_t ids[] = {bos, a, unk, a, bos};
    static const struct {
        bool prefix, control;
        const char *text;
    } cases[] = {
        {true, false, "a a"},
        {true, true, "<s>a<unk> a<s>"},
        {false, false, " a a"},
        {false, true, "<s> a<unk> a<s>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        m->spec.add_space_prefix = cases[i].prefix;
        struct tokenizer *t = made_open(m);
        char *text;
        size_t len;
        ck_assert_int_eq(tokenizer_decode(t, ids, 5, cases[i].control, &text, &len), 0);
        ck_assert_str_eq(text, cases[i].text);
        ck_assert_uint_eq(len, strlen(text));
        free(text);
        tokenizer_free(t);
    }
    free(m);
}
END_TEST

static Suite *detok_suite(void)
{
    Suite *s = suite_create("detok");
    TCase *c = tcase_create("detok");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, golden_stream, 0, N_BIG_VOCABS);
    tcase_add_loop_test(c, stream_is_the_whole_text, 0, N_VOCABS);
    tcase_add_test(c, never_half_a_character);
    tcase_add_test(c, spaces_and_control);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(detok_suite)

/* The golden ids of every vocabulary, and what a tokenizer says of itself. */
#include "tests/tokenizer/vocabs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden {
    struct tokenizer *t;
    json_t *expected; /* case id → line */
    int n_compared;
};

static void collect(json_t *line, void *arg)
{
    struct golden *g = arg;
    json_object_set(g->expected, json_string_value(json_object_get(line, "id")), line);
}

/* Bytes that are not UTF-8: those the vocabulary has tokens for come back, U+FFFD stands for others. */
static bool keeps_bytes(const struct tokenizer *t, const char *text, size_t len)
{
    char *back, expected[64];
    size_t n, n_back, m = 0;
    int32_t *ids;
    for (size_t i = 0; i < len; i++) {
        uint8_t b = (uint8_t)text[i];
        bool never = b == 0xc0 || b == 0xc1 || b >= 0xf5;
        memcpy(expected + m, never ? "\xef\xbf\xbd" : text + i, never ? 3 : 1);
        m += never ? 3 : 1;
    }
    ids = encode(t, text, len, 0, &n);
    ck_assert_int_eq(tokenizer_decode(t, ids, n, false, &back, &n_back), 0);
    bool same =
        (n_back == len && memcmp(back, text, len) == 0) || (n_back == m && memcmp(back, expected, m) == 0);
    free(ids);
    free(back);
    return same;
}

static void compare(json_t *line, void *arg)
{
    struct golden *g = arg;
    const char *id = json_string_value(json_object_get(line, "id"));
    const json_t *e = json_object_get(g->expected, id);
    const char *why = json_string_value(json_object_get(e, "why"));
    size_t len, n;
    if (!e)
        return; /* not every library takes invalid UTF-8 */
    char *text = line_bytes(line, "text", "hex", &len);
    for (int special = 0; special < 2; special++) {
        const json_t *want = json_object_get(e, special ? "ids_special" : "ids_plain");
        const json_t *other = json_object_get(e, special ? "alt_special" : "alt_plain");
        int32_t *ids = encode(g->t, text, len, special ? ENCODE_SPECIAL | ENCODE_BOS : 0, &n);
        if (want)
            ck_assert_msg(ids_equal(ids, n, want) || ids_equal(ids, n, other) ||
                              (why && strcmp(why, "invalid-utf8") == 0 && keeps_bytes(g->t, text, len)),
                          "%s, %s: other ids than expected", id, special ? "special" : "plain");
        g->n_compared += want != NULL;
        free(ids);
    }
    free(text);
}

START_TEST(golden_ids)
{
    char path[200];
    struct golden g = {.t = vocab_load(vocab_names[_i]), .expected = json_object()};
    if (g.t) {
        snprintf(path, sizeof path, "tokenizers/expected/%s.jsonl", vocab_names[_i]);
        ck_assert(each_line(path, collect, &g));
        ck_assert(each_line("tokenizers/cases.jsonl", compare, &g));
        ck_assert_int_ge(g.n_compared, 400);
    }
    json_decref(g.expected);
    tokenizer_free(g.t);
}
END_TEST

/* Bytes of all kinds, in proportions that meet many paths. */
static size_t random_text(uint64_t *state, char *text, size_t max)
{
    static const char *const parts[] = {"the ",     " ",   "\n",   "a",
                                        "Z9",       "123", "你",   "é",
                                        "\xcc\x81", "<s>", "</s>", "\xf0\x9f\x98\x80",
                                        "\t",       "'ll", "!?",   "\xe2\x80\xa6",
                                        "ing",      "\r\n"};
    size_t n = 0, len = random_below(state, (uint32_t)max - 8);
    uint32_t kind = random_below(state, 3);
    while (n < len) {
        uint32_t i = random_below(state, sizeof parts / sizeof *parts);
        if (kind == 0 || (kind == 1 && random_below(state, 8) == 0)) {
            text[n++] = (char)random_below(state, 256);
        } else {
            memcpy(text + n, parts[i], strlen(parts[i]));
            n += strlen(parts[i]);
        }
    }
    return n;
}

START_TEST(random_bytes)
{
    struct tokenizer *t = vocab_load(vocab_names[_i]);
    uint64_t state = (uint64_t)_i;
    /* In these every byte has a token, and nothing is normalised. */
    static const char *const lossless[] = {
        "gpt-2",        "llama-bpe",          "llama-spm",          "baichuan",
        "small-sp-bpe", "small-hf-bytelevel", "small-tiktoken-glm4"};
    bool exact = false;
    for (size_t i = 0; i < sizeof lossless / sizeof *lossless; i++)
        exact = exact || strcmp(lossless[i], vocab_names[_i]) == 0;
    for (int k = 0; t && k < 300; k++) {
        char text[400];
        size_t n, len = random_text(&state, text, sizeof text);
        free(encode(t, text, len, ENCODE_SPECIAL | ENCODE_BOS, &n));
        ck_assert_msg(round_trip(t, text, len) || !exact, "text %d does not come back", k);
    }
    tokenizer_free(t);
}
END_TEST

/* A quarter of a megabyte in one word or stretch: no more than n log n. The time limit is the suite's. */
START_TEST(long_words)
{
    static const char *const unit[] = {" ",   "a", "7", "\xff", "你", "\n", "=", "\xcc\x81\xcc\xa3",
                                       " \t", "<|"};
    struct tokenizer *t = vocab_load(vocab_names[_i]);
    enum { SIZE = 1 << 18 };
    char *text = malloc(SIZE + 8);
    for (size_t k = 0; t && k < sizeof unit / sizeof *unit; k++) {
        size_t n, len = 0, unit_len = strlen(unit[k]);
        for (; len < SIZE; len += unit_len)
            memcpy(text + len, unit[k], unit_len);
        text[len++] = 'x';
        int32_t *ids = encode(t, text, len, ENCODE_SPECIAL, &n);
        ck_assert_uint_ge(n, 1000);
        free(ids);
    }
    free(text);
    tokenizer_free(t);
}
END_TEST

START_TEST(ends_and_names)
{
    static const struct {
        const char *vocab;
        int32_t bos, end, no_end, control;
        bool adds_bos;
    } facts[] = {
        {"smollm2", 1, 2, 5, 1, false},          {"llama-bpe", 128000, 128009, 128006, 128006, true},
        {"gemma3", 2, 106, 212, 105, true},      {"llama-spm", 1, 2, 13, 1, true},
        {"phi-3", 1, 32007, 32001, 32010, true}, {"qwen2", 151643, 151645, 151644, 151644, false},
        {"small-sp-bpe", 1, 2, 300, 1, true},    {"small-hf-bytelevel", 1500, 1504, 1502, 1502, true},
    };
    struct tokenizer *t = vocab_load(facts[_i].vocab);
    if (!t)
        return;
    ck_assert_int_eq(tokenizer_bos(t), facts[_i].bos);
    ck_assert_int_eq(tokenizer_adds_bos(t), facts[_i].adds_bos);
    ck_assert(tokenizer_is_end(t, facts[_i].end));
    ck_assert(tokenizer_is_end(t, tokenizer_eos(t)));
    ck_assert(!tokenizer_is_end(t, facts[_i].no_end));
    ck_assert(tokenizer_is_control(t, facts[_i].control));
    ck_assert_ptr_null(tokenizer_warning(t));
    for (int32_t id = -2; id < 4; id++) { /* ids out of range are nothing */
        int32_t out = id < 0 ? id : tokenizer_n_tokens(t) + id;
        size_t len;
        ck_assert(!tokenizer_is_end(t, out) && !tokenizer_is_control(t, out));
        tokenizer_piece(t, out, true, &len);
        ck_assert_uint_eq(len, 0);
    }
    size_t n_name;
    const char *name = tokenizer_piece(t, facts[_i].control, true, &n_name);
    ck_assert_int_eq(tokenizer_find(t, name, n_name), facts[_i].control);
    tokenizer_piece(t, facts[_i].control, false, &n_name);
    ck_assert_uint_eq(n_name, 0);
    ck_assert_int_eq(tokenizer_find(t, "no such token", 13), -1);
    tokenizer_free(t);
}
END_TEST

static void compare_text(json_t *line, void *arg)
{
    struct golden *g = arg;
    const char *id = json_string_value(json_object_get(line, "id"));
    const json_t *list = json_object_get(line, "ids");
    if (!list)
        list = json_object_get(json_object_get(g->expected, id), "ids_plain");
    size_t n = json_array_size(list), len, n_want, n_alt;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    char *text, *want = line_bytes(line, "text_from_ids", "hex_from_ids", &n_want);
    char *alt = line_bytes(line, "alt_text", "alt_hex", &n_alt);
    ck_assert_int_eq(tokenizer_decode(g->t, ids, n, false, &text, &len), 0);
    ck_assert_msg((len == n_want && memcmp(text, want, len) == 0) ||
                      (alt && len == n_alt && memcmp(text, alt, len) == 0),
                  "%s: other text than expected", id);
    g->n_compared++;
    free(ids);
    free(text);
    free(want);
    free(alt);
}

START_TEST(golden_text)
{
    char path[200];
    struct golden g = {.t = vocab_load(vocab_names[_i]), .expected = json_object()};
    if (g.t) {
        snprintf(path, sizeof path, "tokenizers/expected/%s.jsonl", vocab_names[_i]);
        ck_assert(each_line(path, collect, &g));
        snprintf(path, sizeof path, "tokenizers/detok/%s.jsonl", vocab_names[_i]);
        ck_assert(each_line(path, compare_text, &g));
        ck_assert_int_ge(g.n_compared, 250);
    }
    json_decref(g.expected);
    tokenizer_free(g.t);
}
END_TEST

static void refuse(struct made_vocab *m, const char *message)
{
    struct tokenizer *t;
    char err[512] = "";
    ck_assert_int_eq(tokenizer_new(&t, &m->spec, err, sizeof err), -1);
    ck_assert_ptr_null(t);
    ck_assert_msg(strstr(err, message) != NULL, "\"%s\" says nothing of \"%s\"", err, message);
}

START_TEST(bad_vocabularies)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_SPM);
    refuse(m, "vocabulary of 0 tokens");
    made_token(m, "a", 1, 0, TOKEN_NORMAL);
    m->spec.bos = 1;
    refuse(m, "the BOS token is 1");
    m->spec.bos = -1;
    m->spec.unk = -2;
    refuse(m, "the unknown token is -2");
    m->spec.unk = -1;
    m->tokens[0].score = strtod("nan", NULL);
    refuse(m, "the score of token 0");
    free(m);
}
END_TEST

START_TEST(unknown_pre_tokenizer)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_BPE);
    made_bytes(m);
    m->spec.pre = "of the future";
    struct tokenizer *t = made_open(m);
    ck_assert_ptr_nonnull(strstr(tokenizer_warning(t), "of the future"));
    ck_assert(round_trip(t, "It's 12 o'clock", 15));
    tokenizer_free(t);
    free(m);
}
END_TEST

START_TEST(bos_and_eos)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_BPE);
    made_bytes(m);
    m->spec.bos = made_token(m, "<s>", 3, 0, TOKEN_CONTROL); /* 256 */
    m->spec.eos = made_token(m, "<e>", 3, 0, TOKEN_CONTROL);
    static const struct {
        const char *pre;
        int add_bos, add_eos;
        const char *ids;
    } cases[] = {
        {"gpt-2", -1, -1, "97"},         {"gpt-2", 1, 1, "256 97 257"}, {"gpt-2", 0, 1, "97 257"},
        {"llama-bpe", -1, -1, "256 97"}, {"llama-bpe", 0, 0, "97"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        m->spec.pre = cases[i].pre;
        m->spec.add_bos = cases[i].add_bos;
        m->spec.add_eos = cases[i].add_eos;
        struct tokenizer *t = made_open(m);
        check_ids(t, "a", ENCODE_BOS, cases[i].ids);
        check_ids(t, "a", 0, "97");
        check_ids(t, "", 0, "");
        tokenizer_free(t);
    }
    free(m);
}
END_TEST

START_TEST(strips_after_special)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    made_init(m, VOCAB_BPE);
    made_bytes(m);
    made_token(m, "<|end|>", 7, 0, TOKEN_CONTROL);        /* 256 */
    made_token(m, "<|endoftext|>", 13, 0, TOKEN_CONTROL); /* 257 */
    m->spec.strip_after_special = true;
    struct tokenizer *t = made_open(m);
    check_ids(t, "<|end|> \n\ta <|endoftext|> <|end|>", ENCODE_SPECIAL, "256 97 32 257 32 256");
    tokenizer_free(t);
    free(m);
}
END_TEST

static Suite *tokenizer_suite(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *c = tcase_create("tokenizer");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, golden_ids, 0, N_VOCABS);
    tcase_add_loop_test(c, golden_text, 0, N_BIG_VOCABS);
    tcase_add_loop_test(c, random_bytes, 0, N_VOCABS);
    tcase_add_loop_test(c, long_words, N_BIG_VOCABS, N_VOCABS);
    tcase_add_loop_test(c, ends_and_names, 0, 8);
    tcase_add_test(c, bad_vocabularies);
    tcase_add_test(c, unknown_pre_tokenizer);
    tcase_add_test(c, bos_and_eos);
    tcase_add_test(c, strips_after_special);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(tokenizer_suite)

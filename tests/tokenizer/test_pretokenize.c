/* Words of each family's split. Most rules are checked by the golden ids; here are the others, and every rule
 * on texts that are long in one way. */
#include "tests/test.h"
#include "tokenizer/internal.h"

#include <stdlib.h>

struct fixture {
    struct tokenizer t;
    struct encoder e;
    char err[512];
};

static void open_rule(struct fixture *f, const char *name)
{
    struct vocab_step steps[PRE_MAX_STEPS + 1];
    *f = (struct fixture){.t.name = (char *)"made"};
    f->e.t = &f->t;
    f->e.max_room = 1 << 20;
    f->e.err = f->err;
    f->e.errlen = sizeof f->err;
    ck_assert_ptr_nonnull(pre_rule_find(name));
    size_t n = pre_rule_steps(pre_rule_find(name), steps);
    /* the last one, which spells the words, is left out */
    ck_assert_msg(steps_init(&f->t.pretokenizer, steps, n - 1, "made", f->err, sizeof f->err) == 0, "%s: %s",
                  name, f->err);
}

static void close_rule(struct fixture *f)
{
    steps_free(&f->t.pretokenizer);
    encoder_free(&f->e);
}

/* Words are written with | between them. */
static const struct {
    const char *pre, *words;
} cases[] = {
    {"gpt-2", "It|'s|  | 12345| o|'|clock|!?|\n|\n|x"},
    {"gpt-2", "a|\u180e\u180e|b|\xc2\x85\u00a0\u2003"}, /* U+180E is no white space */
    {"smollm", "a|1|2| |3| b| |4"},
    {"llama-bpe", "It|'S| |123|45|!\n\n|x|\r\n|  | y| ...\n"},
    {"llama-bpe", "\u017f|'\u017f|(the| d\u00e9j\u00e0"}, /* ſ folds to s */
    {"qwen2", "1|2|3|a"},
    {"qwen35", "e\u0301t|1| \u0301"},
    {"gpt-4o", "Camel|Case's| HTMLparser's|123|4| a|/b|//\n|DON'T"},
    {"tekken", "Camel|Case|'s| HTMLParser|1|2|!/\n|x"},
    {"falcon", "a|,|b|...| |123|45|$|x"},
    {"deepseek-coder", "a| b|\n|\n|1|2|你好|!!| ("},
    {"deepseek-llm", "Hi| there|\n|1|2|你好|!,| (| \u0394\u03b1|\u06f3|   "},
    {"deepseek-v3", "123|4|你好カナ|#include| <|stdio|.h|>\n| don|'t|  | x"},
    {"bloom", "Hello| world|,| you|!?"},
    {"viking", "Hello| |1|2|,"},
};

START_TEST(words)
{
    struct fixture f;
    char text[256];
    size_t len = 0;
    for (const char *c = cases[_i].words; *c; c++)
        if (*c != '|')
            text[len++] = *c;
    open_rule(&f, cases[_i].pre);
    const char *cut = text;
    ck_assert_msg(pretokenize(&f.e, &f.t.pretokenizer, &cut, &len, true) == 0, "%s", f.err);
    char got[512] = "";
    for (size_t i = 0; i < f.e.words.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%.*s", i ? "|" : "",
                 (int)(f.e.words.v[i].to - f.e.words.v[i].from), cut + f.e.words.v[i].from);
    ck_assert_str_eq(got, cases[_i].words);
    close_rule(&f);
}
END_TEST

static const char *const rule_names[] = {
    "gpt-2",  "olmo",   "starcoder", "llama-bpe",      "dbrx",         "qwen2",       "stablelm2", "qwen35",
    "gpt-4o", "tekken", "falcon",    "deepseek-coder", "deepseek-llm", "deepseek-v3", "bloom",     "viking",
};

/* Every byte is in one word, in linear time, without a limit of PCRE2's in the way. */
START_TEST(long_texts)
{
    static const char *const unit[] = {" ",      "a", "A",       "7",  "\n",   "!",       "你", "\t ",
                                       "\u00a0", "'", "e\u0301", "Aa", "  \n", "\u4e00 ", "#a"};
    struct fixture f;
    enum { SIZE = 1 << 18 };
    char *text = malloc(SIZE + 8);
    open_rule(&f, rule_names[_i]);
    for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
        size_t len = 0, n = strlen(unit[k]);
        for (; len < SIZE; len += n)
            memcpy(text + len, unit[k], n);
        text[len++] = 'x';
        const char *cut = text;
        ck_assert_msg(pretokenize(&f.e, &f.t.pretokenizer, &cut, &len, true) == 0, "%s", f.err);
        size_t from = 0;
        for (size_t i = 0; i < f.e.words.n; from = f.e.words.v[i++].to)
            if (f.e.words.v[i].from != from || f.e.words.v[i].to <= from)
                ck_abort_msg("word %zu does not follow the one before it", i);
        ck_assert_uint_eq(from, len);
    }
    free(text);
    close_rule(&f);
}
END_TEST

START_TEST(names)
{
    for (size_t i = 0; i < sizeof rule_names / sizeof *rule_names; i++)
        for (size_t k = 0; k < i; k++)
            ck_assert(pre_rule_find(rule_names[i]) &&
                      pre_rule_find(rule_names[i]) != pre_rule_find(rule_names[k]));
    static const char *const none[] = {"", "gpt", "gpt-2 gpt2", "2", "lama-bpe", "llama-bpe ", "qwen2x"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        ck_assert_ptr_null(pre_rule_find(none[i]));
    ck_assert_ptr_eq(pre_rule_find("default"), pre_rule_find("gpt-2"));
    ck_assert_ptr_eq(pre_rule_find("jina-v2-code"), pre_rule_find("gpt-2"));
}
END_TEST

static Suite *pretokenize_suite(void)
{
    Suite *s = suite_create("pretokenize");
    TCase *c = tcase_create("pretokenize");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, words, 0, sizeof cases / sizeof *cases);
    tcase_add_loop_test(c, long_texts, 0, sizeof rule_names / sizeof *rule_names);
    tcase_add_test(c, names);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(pretokenize_suite)

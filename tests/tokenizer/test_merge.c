/* Merging against the plain definition: look for the best pair, merge it, look again. */
#include "tests/tokenizer/vocabs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEN = 200 };

struct parts {
    char text[MAX_LEN + 1][16]; /* each as running text */
    size_t n;
};

static int32_t find_normal(const struct made_vocab *m, const char *text)
{
    for (size_t i = 0; i < m->spec.n_tokens; i++)
        if (m->tokens[i].len == strlen(text) && memcmp(m->tokens[i].text, text, m->tokens[i].len) == 0)
            return (int32_t)i;
    return -1;
}

/* What merging left + right costs, smaller first; −1: they do not merge. */
static double cost(const struct made_vocab *m, const char *left, const char *right)
{
    char joint[40];
    if (m->spec.kind == VOCAB_BPE) {
        for (size_t i = 0; i < m->spec.n_merges; i++) {
            const struct vocab_merge *g = &m->merges[i];
            if (g->left_len == strlen(left) && memcmp(g->left, left, g->left_len) == 0 &&
                g->right_len == strlen(right) && memcmp(g->right, right, g->right_len) == 0)
                return (double)i;
        }
        return -1;
    }
    snprintf(joint, sizeof joint, "%s%s", left, right);
    int32_t id = find_normal(m, joint);
    return id < 0 ? -1 : 1e6 - m->tokens[id].score;
}

static void merge_plainly(const struct made_vocab *m, struct parts *p)
{
    for (;;) {
        size_t best = 0;
        double least = -1;
        for (size_t i = 0; i + 1 < p->n; i++) {
            double c = cost(m, p->text[i], p->text[i + 1]);
            if (c >= 0 && (least < 0 || c < least)) {
                least = c;
                best = i;
            }
        }
        if (least < 0)
            return;
        size_t n = strlen(p->text[best]);
        memcpy(p->text[best] + n, p->text[best + 1], sizeof p->text[0] - n);
        memmove(p->text[best + 1], p->text[best + 2], (p->n - best - 2) * sizeof p->text[0]);
        p->n--;
    }
}

/* A vocabulary of the letters a … d and random joints of its tokens, some without a merge or with another's
 * score. */
static void make_random(struct made_vocab *m, enum vocab_kind kind, uint64_t *state)
{
    made_init(m, kind);
    for (char c = 'a'; c <= 'd'; c++)
        made_token(m, &c, 1, -100, TOKEN_NORMAL);
    for (int tries = 0; tries < 60; tries++) {
        char joint[40], pair[40];
        const struct vocab_token *l = &m->tokens[random_below(state, (uint32_t)m->spec.n_tokens)];
        const struct vocab_token *r = &m->tokens[random_below(state, (uint32_t)m->spec.n_tokens)];
        if (l->len + r->len > 8)
            continue;
        snprintf(joint, sizeof joint, "%.*s%.*s", (int)l->len, l->text, (int)r->len, r->text);
        snprintf(pair, sizeof pair, "%.*s %.*s", (int)l->len, l->text, (int)r->len, r->text);
        if (find_normal(m, joint) < 0)
            made_token(m, joint, strlen(joint), -(float)random_below(state, 12), TOKEN_NORMAL);
        if (random_below(state, 4) > 0)
            made_merge(m, pair);
    }
}

START_TEST(merges_as_defined)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    struct parts *p = calloc(1, sizeof *p);
    uint64_t state = (uint64_t)_i;
    for (int round = 0; round < 10; round++) {
        make_random(m, _i % 2 ? VOCAB_BPE : VOCAB_SPM, &state);
        struct tokenizer *t = made_open(m);
        for (int k = 0; k < 30; k++) {
            char text[MAX_LEN];
            size_t n, len = random_below(&state, k < 20 ? 12 : MAX_LEN);
            uint32_t letters = 1 + random_below(&state, 4);
            for (size_t i = 0; i < len; i++) {
                text[i] = (char)('a' + random_below(&state, letters));
                snprintf(p->text[i], sizeof p->text[i], "%c", text[i]);
            }
            p->n = len;
            merge_plainly(m, p);
            int32_t *ids = encode(t, text, len, 0, &n);
            ck_assert_uint_eq(n, p->n);
            for (size_t i = 0; i < n; i++)
                ck_assert_int_eq(ids[i], find_normal(m, p->text[i]));
            free(ids);
        }
        tokenizer_free(t);
    }
    free(p);
    free(m);
}
END_TEST

START_TEST(equals_merge_from_the_left)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    for (int kind = 0; kind < 2; kind++) {
        made_init(m, kind ? VOCAB_BPE : VOCAB_SPM);
        made_token(m, "a", 1, 0, TOKEN_NORMAL);
        made_token(m, "aa", 2, -1, TOKEN_NORMAL);
        made_token(m, "aaaa", 4, -2, TOKEN_NORMAL);
        made_merge(m, "a a");
        made_merge(m, "aa aa");
        struct tokenizer *t = made_open(m);
        check_ids(t, "aaaaaaa", 0, "2 1 0");
        check_ids(t, "aaaaaaaaa", 0, "2 2 0");
        tokenizer_free(t);
    }
    free(m);
}
END_TEST

/* A long text remembers its words: the ids are those of its lines, each too short for that. */
START_TEST(remembered_words)
{
    struct made_vocab *m = calloc(1, sizeof *m);
    uint64_t state = 11;
    make_random(m, _i ? VOCAB_BPE : VOCAB_SPM, &state);
    made_token(m, _i ? "\xc4\x8a" : "\n", _i ? 2 : 1, 0, TOKEN_NORMAL);
    struct tokenizer *t = made_open(m);
    enum { SIZE = 1 << 18 };
    char *text = malloc(SIZE);
    int32_t *expected = malloc(SIZE * sizeof *expected);
    size_t len = 0, n_expected = 0, n;
    while (len < SIZE - 64) {
        size_t from = len, n_line;
        for (uint32_t k = 1 + random_below(&state, 30); k > 0; k--)
            text[len++] = (char)('a' + random_below(&state, 4));
        text[len++] = '\n';
        int32_t *ids = encode(t, text + from, len - from, 0, &n_line);
        memcpy(expected + n_expected, ids, n_line * sizeof *ids);
        n_expected += n_line;
        free(ids);
    }
    int32_t *ids = encode(t, text, len, 0, &n);
    ck_assert_uint_eq(n, n_expected);
    ck_assert_mem_eq(ids, expected, n * sizeof *ids);
    free(ids);
    free(expected);
    free(text);
    tokenizer_free(t);
    free(m);
}
END_TEST

static Suite *merge_suite(void)
{
    Suite *s = suite_create("merge");
    TCase *c = tcase_create("merge");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, merges_as_defined, 0, 8);
    tcase_add_test(c, equals_merge_from_the_left);
    tcase_add_loop_test(c, remembered_words, 0, 2);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(merge_suite)

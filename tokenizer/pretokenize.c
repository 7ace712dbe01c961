/* Words: merges never cross their borders. The steps cut what the ones before them left, and some of them
 * rewrite it: with other spaces, with a prefix, in GPT-2's byte alphabet. */
#include "tokenizer/internal.h"

#include <stdlib.h>

/* The first or last of a chain of words that belong together grows by the next. */
static int merge_matches(struct encoder *e, const struct step *s)
{
    const struct word *m = e->matches.v;
    size_t n = e->matches.n;
    bool joins_previous = s->how.behavior == SPLIT_WITH_PREVIOUS;
    /* in matches: bit 31 of `to` says that it is a match */
    for (size_t i = 0; i < n;) {
        size_t last = i;
        bool is_match = m[i].to >> 31;
        if (s->how.behavior == SPLIT_CONTIGUOUS) {
            while (last + 1 < n && m[last + 1].to >> 31 == m[i].to >> 31)
                last++;
        } else if (joins_previous) {
            /* a match joins what is before it, but not another match */
            if (!is_match && i + 1 < n && m[i + 1].to >> 31)
                last++;
        } else if (is_match && i + 1 < n && !(m[i + 1].to >> 31)) {
            last++;
        }
        if (words_push(e, &e->words, m[i].from, m[last].to & 0x7fffffffu) < 0)
            return -1;
        i = last + 1;
    }
    return 0;
}

static int push_part(struct encoder *e, const struct step *s, size_t from, size_t to, bool is_match)
{
    bool separator = is_match != s->how.invert;
    if (s->how.behavior == SPLIT_REMOVED && separator)
        return 0;
    if (s->how.behavior == SPLIT_ISOLATED || s->how.behavior == SPLIT_REMOVED)
        return words_push(e, &e->words, from, to);
    return words_push_any(e, &e->matches, from, to | (separator ? (size_t)1 << 31 : 0));
}

/* Cuts one word. The pattern does not see what is outside. */
static int split_word(struct encoder *e, const struct step *s, struct pattern_run *run, const char *text,
                      struct word w)
{
    const char *word = text + w.from;
    size_t len = w.to - w.from, done = 0;
    struct word m;
    int rc;
    e->matches.n = 0;
    pattern_rewind(run);
    while ((rc = pattern_next(run, e, word, len, &m)) > 0) {
        if ((m.from > done && push_part(e, s, w.from + done, w.from + m.from, false) < 0) ||
            push_part(e, s, w.from + m.from, w.from + m.to, true) < 0)
            return -1;
        done = m.to;
    }
    if (rc < 0 || (done < len && push_part(e, s, w.from + done, w.to, false) < 0))
        return -1;
    return merge_matches(e, s);
}

static int step_split(struct encoder *e, const struct step *s, const char *text)
{
    struct pattern_run run;
    struct words whole = e->words;
    e->words = e->old_words;
    e->old_words = whole;
    e->words.n = 0;
    int rc = pattern_start(&run, &s->pattern, e);
    for (size_t k = 0; rc == 0 && k < whole.n; k++)
        rc = split_word(e, s, &run, text, whole.v[k]);
    pattern_end(&run);
    return rc;
}

static size_t count_spaces(const struct words *w, const char *text)
{
    size_t n = 0;
    for (size_t k = 0; k < w->n; k++)
        for (size_t i = w->v[k].from; i < w->v[k].to; i++)
            n += text[i] == ' ';
    return n;
}

static size_t total_len(const struct words *w)
{
    size_t n = 0;
    for (size_t k = 0; k < w->n; k++)
        n += w->v[k].to - w->v[k].from;
    return n;
}

static bool begins_with(const char *s, size_t len, const char *with, size_t n)
{
    return len >= n && memcmp(s, with, n) == 0;
}

/* Spaces become the mark, which also goes in front of a word that has none. */
static int step_metaspace(struct encoder *e, const struct step *s, const char *text, struct buf *out,
                          bool first)
{
    const char *mark = s->content;
    size_t n_mark = s->how.content_len, n = 0;
    struct words whole = e->words;
    if (encoder_room(e, out, total_len(&whole) + n_mark * (count_spaces(&whole, text) + whole.n) + 1) < 0)
        return -1;
    e->words = e->old_words;
    e->old_words = whole;
    e->words.n = 0;
    for (size_t k = 0; k < whole.n; k++) {
        const char *word = text + whole.v[k].from;
        size_t len = whole.v[k].to - whole.v[k].from, from = n;
        bool has_one = word[0] == ' ' || begins_with(word, len, mark, n_mark);
        if (!has_one && (s->how.scheme == PREFIX_ALWAYS ||
                         (s->how.scheme == PREFIX_FIRST && first && whole.v[k].from == 0))) {
            memcpy(out->s + n, mark, n_mark);
            n += n_mark;
        }
        for (size_t i = 0; i < len;) {
            bool is_mark = begins_with(word + i, len - i, mark, n_mark);
            if (s->how.split && (word[i] == ' ' || is_mark)) { /* the mark begins a word */
                if (words_push(e, &e->words, from, n) < 0)
                    return -1;
                from = n;
            }
            if (word[i] == ' ') {
                memcpy(out->s + n, mark, n_mark);
                n += n_mark;
                i++;
            } else {
                size_t k_char = is_mark ? n_mark : 1;
                memcpy(out->s + n, word + i, k_char);
                n += k_char;
                i += k_char;
            }
        }
        if (words_push(e, &e->words, from, n) < 0)
            return -1;
    }
    return 0;
}

static int step_prefix_space(struct encoder *e, const char *text, struct buf *out)
{
    size_t n = 0;
    if (encoder_room(e, out, total_len(&e->words) + e->words.n + 1) < 0)
        return -1;
    for (size_t k = 0; k < e->words.n; k++) {
        struct word *w = &e->words.v[k];
        size_t from = n, len = w->to - w->from;
        if (text[w->from] != ' ')
            out->s[n++] = ' ';
        memcpy(out->s + n, text + w->from, len);
        n += len;
        *w = (struct word){(uint32_t)from, (uint32_t)n};
    }
    return 0;
}

static int step_bytes(struct encoder *e, const char *text, struct buf *out)
{
    size_t n = 0;
    if (encoder_room(e, out, 2 * total_len(&e->words) + 1) < 0)
        return -1;
    for (size_t k = 0; k < e->words.n; k++) {
        struct word *w = &e->words.v[k];
        size_t from = n;
        n += byte_alphabet_spell(text + w->from, w->to - w->from, out->s + n);
        *w = (struct word){(uint32_t)from, (uint32_t)n};
    }
    return 0;
}

int pretokenize(struct encoder *e, const struct steps *steps, const char **text, size_t *len, bool first)
{
    e->words.n = 0;
    if (words_push(e, &e->words, 0, *len) < 0)
        return -1;
    for (size_t i = 0; i < steps->n; i++) {
        const struct step *s = &steps->v[i];
        struct buf *out = *text == e->pre[0].s ? &e->pre[1] : &e->pre[0];
        int rc;
        if (s->how.kind == STEP_SPLIT) {
            if (step_split(e, s, *text) < 0)
                return -1;
            continue;
        }
        /* a rewritten text begins at 0 whatever was cut off in front */
        first = first && e->words.n > 0 && e->words.v[0].from == 0;
        if (s->how.kind == STEP_METASPACE)
            rc = step_metaspace(e, s, *text, out, first);
        else if (s->how.kind == STEP_PREFIX_SPACE)
            rc = step_prefix_space(e, *text, out);
        else
            rc = step_bytes(e, *text, out);
        if (rc < 0)
            return -1;
        *text = out->s;
        *len = e->words.n > 0 ? e->words.v[e->words.n - 1].to : 0;
    }
    return 0;
}

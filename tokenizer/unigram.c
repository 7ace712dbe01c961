/* Unigram language model (Kudo 2018): of all ways to cut a text into tokens the one with the highest sum of
 * scores, found from left to right (Viterbi). Ties, the price of the unknown and the rounding of sums are
 * those of SentencePiece and of Hugging Face's tokenizers, whichever the file is for. */
#include "tokenizer/internal.h"

#include <float.h>
#include <stdlib.h>

enum { MAX_PIECE = 1024, UNKNOWN_PENALTY = 10 };

struct best_path { /* to a place of the text */
    double score;
    uint32_t from; /* where its last token begins */
    int32_t id;    /* −1: an unknown character; −2: no path yet */
};

int unigram_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    const struct pieces *p = &t->pieces;
    double least = DBL_MAX;
    for (int32_t id = 0; id < p->n; id++) {
        const struct piece *q = &p->piece[id];
        if (q->text_len > MAX_PIECE && q->in_model)
            return err_set(err, errlen, "%s: token %d is %u bytes long (at most %d)", spec->name, id,
                           q->text_len, MAX_PIECE);
        bool counts = spec->own_vocabulary ? q->in_model : q->type == TOKEN_NORMAL;
        if (counts && p->score[id] < least)
            least = p->score[id];
        if (q->in_model && matcher_add(&t->vocabulary, piece_text(p, id), q->text_len, id) < 0)
            return err_set(err, errlen, "%s: out of memory for %d tokens", spec->name, p->n);
    }
    matcher_done(&t->vocabulary);
    if (least == DBL_MAX)
        least = 0;
    t->float_scores = spec->float_scores;
    t->unknown_score = t->float_scores ? (float)least - (float)UNKNOWN_PENALTY : least - UNKNOWN_PENALTY;
    return 0;
}

struct search {
    struct encoder *e;
    struct best_path *path;
    size_t from, one_char;
    bool has_single;
};

static void reach(struct search *s, size_t to, int32_t id, double score)
{
    struct best_path *p = &s->path[to];
    double sum = s->path[s->from].score + score;
    if (s->e->t->float_scores)
        sum = (float)sum;
    if (p->id != -2 && !(sum > p->score)) /* of equals the first, whose last token is the longest */
        return;
    p->score = sum;
    p->from = (uint32_t)s->from;
    p->id = id;
}

static void reach_by_token(void *arg, int32_t id, size_t len)
{
    struct search *s = arg;
    const struct pieces *p = &s->e->t->pieces;
    double score = p->score[id];
    /* SentencePiece prefers the user's tokens to most others, long ones above all: what they score is
     * measured on its 0.2.3, whatever the file says */
    if (s->e->t->float_scores && p->piece[id].type == TOKEN_USER_DEFINED)
        score = 0.1 * (double)len - 0.1;
    reach(s, s->from + len, id, score);
    s->has_single = s->has_single || len == s->one_char;
}

static int push_path(struct encoder *e, const char *word, size_t len)
{
    e->matches.n = 0; /* the path from its end to its start */
    for (size_t to = len; to > 0; to = e->path[to].from)
        if (words_push(e, &e->matches, e->path[to].from, to) < 0)
            return -1;
    for (size_t i = e->matches.n; i-- > 0;) {
        const struct word *w = &e->matches.v[i];
        int32_t id = e->path[w->to].id;
        if (id < 0 && model_unknown(e, word + w->from, w->to - w->from) < 0)
            return -1;
        if (id >= 0 && ids_push(&e->ids, id) < 0)
            return encoder_oom(e);
    }
    return 0;
}

int unigram_word(struct encoder *e, const char *word, size_t len)
{
    if (encoder_recall(e, word, len))
        return 0;
    if (e->path_cap < len + 1) {
        free(e->path);
        e->path = malloc((len + 1) * 2 * sizeof *e->path);
        e->path_cap = e->path ? (len + 1) * 2 : 0;
        if (!e->path)
            return encoder_oom(e);
    }
    size_t n_before = e->ids.n;
    struct search s = {.e = e, .path = e->path};
    for (size_t i = 1; i <= len; i++)
        e->path[i].id = -2;
    e->path[0] = (struct best_path){.id = -1};
    for (; s.from < len; s.from += s.one_char) {
        s.one_char = char_len(word + s.from, len - s.from);
        s.has_single = false;
        matcher_each(&e->t->vocabulary, word + s.from, len - s.from, reach_by_token, &s);
        if (!s.has_single)
            reach(&s, s.from + s.one_char, -1, e->t->unknown_score);
    }
    size_t unknown_before = e->unknown_end;
    if (push_path(e, word, len) < 0)
        return -1;
    if (e->unknown_end == unknown_before)
        encoder_remember(e, word, len, n_before);
    return 0;
}

/* Ids to text, whole or token by token. */
#include "tokenizer/internal.h"

#include <stdlib.h>

struct detok {
    const struct tokenizer *t;
    bool with_control;
    bool started;   /* some text has come: the space that SentencePiece puts in front is behind us */
    uint8_t n_held; /* bytes at the start of buf: an incomplete character */
    char held[4];
    char buf[]; /* what the last push gave out: held bytes and one piece */
};

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, bool with_control, size_t *len)
{
    *len = 0;
    if (id < 0 || id >= t->pieces.n)
        return "";
    const struct piece *p = &t->pieces.piece[id];
    if (!with_control && !p->shown && (p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN))
        return "";
    *len = p->out_len;
    return t->pieces.out + p->out;
}

/* The piece in its place in the text: the first one loses the space in front of it. */
static const char *next_piece(const struct tokenizer *t, int32_t id, bool with_control, bool *started,
                              size_t *len)
{
    const char *text = tokenizer_piece(t, id, with_control, len);
    if (*len == 0 || *started || tokenizer_is_control(t, id))
        return text;
    *started = true;
    if (t->pieces.piece[id].type == TOKEN_UNKNOWN)
        return text;
    if (t->strip_first_space && text[0] == ' ') {
        (*len)--;
        *started = *len > 0 || !t->strip_first_pieces;
        return text + 1;
    }
    return text;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool with_control, char **text,
                     size_t *len)
{
    bool started = false;
    size_t total = 0, piece_len;
    for (size_t i = 0; i < n; i++) {
        tokenizer_piece(t, ids[i], with_control, &piece_len);
        total += piece_len;
    }
    char *out = malloc(total + 1);
    *text = out;
    *len = 0;
    if (!out)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const char *piece = next_piece(t, ids[i], with_control, &started, &piece_len);
        memcpy(out + *len, piece, piece_len);
        *len += piece_len;
    }
    out[*len] = 0;
    return 0;
}

struct detok *detok_new(const struct tokenizer *t, bool with_control)
{
    struct detok *d = malloc(sizeof *d + sizeof d->held + t->pieces.max_out_len);
    if (d) {
        *d = (struct detok){.t = t, .with_control = with_control};
        detok_reset(d);
    }
    return d;
}

void detok_free(struct detok *d)
{
    free(d);
}

void detok_reset(struct detok *d)
{
    d->started = false;
    d->n_held = 0;
}

/* How many bytes at the end of the text begin a character that is not complete. */
static size_t incomplete_tail(const char *text, size_t len)
{
    for (size_t n = 1; n <= 3 && n <= len; n++) {
        uint8_t b = (uint8_t)text[len - n];
        if (b < 0x80)
            return 0;
        if (b >= 0xc0)
            return utf8_char(text + len - n, n) < 0 ? n : 0;
    }
    return 0;
}

const char *detok_push(struct detok *d, int32_t id, size_t *len)
{
    size_t piece_len, n = d->n_held;
    const char *piece = next_piece(d->t, id, d->with_control, &d->started, &piece_len);
    memcpy(d->buf, d->held, n);
    memcpy(d->buf + n, piece, piece_len);
    n += piece_len;
    size_t tail = incomplete_tail(d->buf, n);
    memcpy(d->held, d->buf + n - tail, tail);
    d->n_held = (uint8_t)tail;
    *len = n - tail;
    return d->buf;
}

const char *detok_flush(struct detok *d, size_t *len)
{
    *len = d->n_held;
    d->n_held = 0;
    return d->held;
}

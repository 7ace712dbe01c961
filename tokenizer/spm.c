/* SentencePiece's BPE (Kudo and Richardson 2018): spaces become U+2581, neighbours whose joint text is a
 * token merge in the order of the tokens' scores, and a character the vocabulary lacks is spelled in byte
 * tokens. Text is first cut where no token could lie across. */
#include "tokenizer/internal.h"

#include <stdlib.h>

#define SPACE "\xe2\x96\x81"

enum { CACHE_FROM = 2048, SPACE_CLASS = 0xff };

/* Length of the character at s; a byte that belongs to none counts as one. */
static size_t char_len(const char *s, size_t n)
{
    int len = utf8_char(s, n);
    return len > 0 ? (size_t)len : 1;
}

/* Characters are told apart by their first or last byte, the space mark by a byte UTF-8 never uses. */
static uint8_t class_of(const char *c, size_t len, bool last)
{
    if (len == 3 && memcmp(c, SPACE, 3) == 0)
        return SPACE_CLASS;
    return (uint8_t)c[last ? len - 1 : 0];
}

int spm_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    struct spm *m = &t->spm;
    const struct pieces *p = &t->pieces;
    m->add_space_prefix = spec->add_space_prefix;
    m->remove_extra_spaces = spec->remove_extra_spaces;
    for (int i = 0; i < 256; i++)
        m->byte_id[i] = -1;
    for (int32_t id = 0; id < p->n; id++) {
        const struct piece *q = &p->piece[id];
        if (q->type == TOKEN_BYTE && q->out_len == 1)
            m->byte_id[(uint8_t)p->out[q->out]] = id;
        if (q->type != TOKEN_NORMAL)
            continue;
        const char *text = piece_text(p, id);
        size_t n;
        for (size_t i = 0; i < q->text_len; i += n) {
            n = char_len(text + i, q->text_len - i);
            if (i + n == q->text_len)
                break;
            uint8_t a = class_of(text + i, n, true);
            uint8_t b = class_of(text + i + n, char_len(text + i + n, q->text_len - i - n), false);
            m->joined[a][b / 8] |= (uint8_t)(1 << b % 8);
        }
    }
    return matcher_init(&m->user, p, 1u << TOKEN_USER_DEFINED, false, err, errlen);
}

/* The text as the vocabulary spells it, in e->buf. */
static int normalise(struct encoder *e, const char *text, size_t len, size_t *n_out)
{
    const struct spm *m = &e->t->spm;
    size_t n_spaces = 1, n = 0;
    for (size_t i = 0; i < len; i++)
        n_spaces += text[i] == ' ';
    if (encoder_buf(e, len + 2 * n_spaces + 1) < 0)
        return -1;
    if (m->remove_extra_spaces) {
        while (len > 0 && text[0] == ' ')
            text++, len--;
        while (len > 0 && text[len - 1] == ' ')
            len--;
    }
    if (m->add_space_prefix && len > 0) {
        memcpy(e->buf, SPACE, 3);
        n = 3;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] != ' ') {
            e->buf[n++] = text[i];
        } else if (!m->remove_extra_spaces || text[i - 1] != ' ') {
            memcpy(e->buf + n, SPACE, 3);
            n += 3;
        }
    }
    *n_out = n;
    return 0;
}

/* A symbol the vocabulary lacks. Several in a row are one unknown token, as in SentencePiece. */
static int push_unknown(struct encoder *e, const char *text, size_t len)
{
    const int32_t *byte_id = e->t->spm.byte_id;
    for (size_t i = 0; i < len; i++) {
        if (byte_id[(uint8_t)text[i]] >= 0)
            continue;
        if (e->unknown_end != e->ids.n || e->ids.n == 0) {
            if (e->t->unk >= 0 && ids_push(&e->ids, e->t->unk) < 0)
                return -1;
            e->unknown_end = e->ids.n;
        }
        return 0;
    }
    for (size_t i = 0; i < len; i++)
        if (ids_push(&e->ids, byte_id[(uint8_t)text[i]]) < 0)
            return -1;
    return 0;
}

static int encode_word(struct encoder *e, const char *word, size_t len)
{
    const struct pieces *p = &e->t->pieces;
    if (encoder_recall(e, word, len))
        return 0;
    size_t n_before = e->ids.n;
    if (encoder_symbols(e, len) < 0)
        return -1;
    uint32_t n = 0;
    for (size_t i = 0; i < len; n++) {
        e->symbol[n].at = (uint32_t)i;
        e->symbol[n].id = -1; /* looked up below, where it does not merge */
        i += char_len(word + i, len - i);
    }
    encoder_merge(e, word, len, n);
    bool whole = true;
    for (uint32_t i = 0; i != NO_SYMBOL; i = e->symbol[i].next) {
        const struct symbol *s = &e->symbol[i];
        size_t end = s->next == NO_SYMBOL ? len : e->symbol[s->next].at;
        int32_t id = s->id >= 0 ? s->id : pieces_find(p, word + s->at, end - s->at);
        bool known = id >= 0 && p->piece[id].type == TOKEN_NORMAL;
        if ((known ? ids_push(&e->ids, id) : push_unknown(e, word + s->at, end - s->at)) < 0)
            return encoder_oom(e);
        whole = whole && known;
    }
    if (whole) /* ids of the unknown depend on what is before the word */
        encoder_remember(e, word, len, n_before);
    return 0;
}

int spm_encode(struct encoder *e, const char *raw, size_t raw_len)
{
    const struct spm *m = &e->t->spm;
    size_t len, from = 0;
    if (raw_len >= CACHE_FROM && encoder_use_cache(e) < 0)
        return -1;
    if (normalise(e, raw, raw_len, &len) < 0)
        return -1;
    const char *text = e->buf;
    uint8_t last = 0;
    for (size_t i = 0; i < len;) {
        size_t n = char_len(text + i, len - i);
        uint8_t first = class_of(text + i, n, false);
        int32_t id;
        size_t n_user = matcher_at(&m->user, text + i, len - i, &id);
        bool border = n_user > 0 || !(m->joined[last][first / 8] >> first % 8 & 1);
        if (border && i > from) {
            if (encode_word(e, text + from, i - from) < 0)
                return -1;
            from = i;
        }
        if (n_user > 0) {
            if (ids_push(&e->ids, id) < 0)
                return encoder_oom(e);
            from = i += n_user;
            continue;
        }
        last = class_of(text + i, n, true);
        i += n;
    }
    return from < len ? encode_word(e, text + from, len - from) : 0;
}

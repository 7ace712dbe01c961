/* Byte-level BPE (Radford et al. 2019): every byte is a token, the file's list of merges, in its order,
 * joins them inside words. */
#include "tokenizer/internal.h"

#include <stdlib.h>

enum { MAX_MERGES = 1 << 26, CACHE_FROM = 2048 };

int bpe_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    struct bpe *b = &t->bpe;
    if (spec->n_merges > MAX_MERGES)
        return err_set(err, errlen, "%s: %zu merges (at most %d are possible)", spec->name, spec->n_merges,
                       MAX_MERGES);
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, spelled[2];
        size_t n = byte_alphabet_spell(&byte, 1, spelled);
        int32_t id = pieces_find(&t->pieces, spelled, n);
        b->byte_id[i] = id >= 0 && t->pieces.piece[id].type == TOKEN_NORMAL ? id : -1;
    }
    b->mask = 15;
    while (b->mask / 2 < spec->n_merges)
        b->mask = b->mask * 2 + 1;
    b->slot = malloc(((size_t)b->mask + 1) * sizeof *b->slot);
    size_t longest = 2 * (size_t)t->pieces.max_text_len;
    char *joined = malloc(longest + 1);
    if (!b->slot || !joined) {
        free(joined);
        return err_set(err, errlen, "%s: out of memory for %zu merges", spec->name, spec->n_merges);
    }
    memset(b->slot, 0xff, ((size_t)b->mask + 1) * sizeof *b->slot);

    int rc = 0;
    for (size_t rank = 0; rank < spec->n_merges; rank++) {
        const struct vocab_merge *m = &spec->merges[rank];
        /* The pieces are spelled without spaces; one that begins with a space is not byte-level. */
        const char *space = m->len > 2 ? memchr(m->text + 1, ' ', m->len - 2) : NULL;
        if (!space) {
            rc = err_set(err, errlen, "%s: merge %zu is no pair of pieces", spec->name, rank);
            break;
        }
        size_t n_left = (size_t)(space - m->text), n_right = m->len - n_left - 1;
        if (n_left + n_right > longest)
            continue;
        memcpy(joined, m->text, n_left);
        memcpy(joined + n_left, space + 1, n_right);
        int32_t left = pieces_find(&t->pieces, joined, n_left);
        int32_t right = pieces_find(&t->pieces, joined + n_left, n_right);
        int32_t merged = pieces_find(&t->pieces, joined, n_left + n_right);
        /* A vocabulary cut to a part of its tokens keeps merges that lead nowhere. */
        if (left < 0 || right < 0 || merged < 0)
            continue;
        struct pair_slot *s = (struct pair_slot *)bpe_pair(b, left, right);
        if (s->rank == NO_RANK)
            *s = (struct pair_slot){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, (uint32_t)rank, merged};
    }
    free(joined);
    return rc;
}

/* A word that is a token as it stands; −1: it is none. */
static int32_t whole_word(const struct tokenizer *t, const char *word, size_t len)
{
    char spelled[512];
    if (len > sizeof spelled / 2)
        return -1;
    int32_t id = pieces_find(&t->pieces, spelled, byte_alphabet_spell(word, len, spelled));
    return id >= 0 && t->pieces.piece[id].type == TOKEN_NORMAL ? id : -1;
}

static int encode_word(struct encoder *e, const char *word, size_t len)
{
    const struct tokenizer *t = e->t;
    if (encoder_recall(e, word, len))
        return 0;
    size_t n_before = e->ids.n;
    int32_t id = t->pre.rule->whole_words ? whole_word(t, word, len) : -1;
    if (id >= 0) {
        if (ids_push(&e->ids, id) < 0)
            return encoder_oom(e);
    } else {
        if (encoder_symbols(e, len) < 0)
            return -1;
        for (size_t i = 0; i < len; i++) {
            e->symbol[i].at = (uint32_t)i;
            e->symbol[i].id = t->bpe.byte_id[(uint8_t)word[i]];
        }
        encoder_merge(e, word, len, (uint32_t)len);
        for (uint32_t i = 0; i != NO_SYMBOL; i = e->symbol[i].next)
            if (e->symbol[i].id >= 0 && ids_push(&e->ids, e->symbol[i].id) < 0)
                return encoder_oom(e);
    }
    encoder_remember(e, word, len, n_before);
    return 0;
}

/* A stretch of valid UTF-8. */
static int encode_valid(struct encoder *e, const char *text, size_t len)
{
    const struct pretokenizer *pre = &e->t->pre;
    if (pre->rule->nfc && normal_form_c(e, &text, &len) < 0)
        return -1;
    if (pretokenizer_split(pre, e, text, len) < 0)
        return -1;
    size_t from = 0;
    for (size_t i = 0; i < e->cuts.n; i++) {
        if (encode_word(e, text + from, e->cuts.v[i] - from) < 0)
            return -1;
        from = e->cuts.v[i];
    }
    return 0;
}

/* Bytes that are no character make a word together. Most vocabularies lack tokens for the bytes that
 * UTF-8 never uses: U+FFFD stands for those. */
static int encode_invalid(struct encoder *e, const char *bytes, size_t len)
{
    if (encoder_buf(e, 3 * len) < 0)
        return -1;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (e->t->bpe.byte_id[(uint8_t)bytes[i]] >= 0) {
            e->buf[n++] = bytes[i];
        } else {
            memcpy(e->buf + n, "\xef\xbf\xbd", 3);
            n += 3;
        }
    }
    return encode_word(e, e->buf, n);
}

int bpe_encode(struct encoder *e, const char *text, size_t len)
{
    if (len >= CACHE_FROM && encoder_use_cache(e) < 0)
        return -1;
    for (size_t i = 0; i < len;) {
        size_t from = i;
        for (int n; i < len && (n = utf8_char(text + i, len - i)) > 0;)
            i += (size_t)n;
        if (i > from && encode_valid(e, text + from, i - from) < 0)
            return -1;
        from = i;
        while (i < len && utf8_char(text + i, len - i) <= 0)
            i++;
        if (i > from && encode_invalid(e, text + from, i - from) < 0)
            return -1;
    }
    return 0;
}

/* Words to ids by merging: byte-level BPE (Radford et al. 2019) and its kin join the pairs that the file
 * lists, in its order; SentencePiece's BPE (Kudo and Richardson 2018) and tiktoken join neighbours whose
 * joint text is a token, in the order of the tokens' scores. A long word is first cut where no token could
 * lie across. */
#include "tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_MERGES = 1 << 26, SPACE_CLASS = 0xff };

/* Characters are told apart by their first or last byte, the space mark by a byte UTF-8 never uses. */
static uint8_t class_of(const char *c, size_t len, bool last)
{
    if (len == 3 && memcmp(c, SPACE_MARK, 3) == 0)
        return SPACE_CLASS;
    return (uint8_t)c[last ? len - 1 : 0];
}

/* Notes which characters are neighbours inside a token of this text. */
static void note_joints(struct tokenizer *t, const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n) {
        n = char_len(text + i, len - i);
        if (i + n == len)
            break;
        uint8_t a = class_of(text + i, n, true);
        uint8_t b = class_of(text + i + n, char_len(text + i + n, len - i - n), false);
        t->joined[a][b / 8] |= (uint8_t)(1 << b % 8);
    }
}

/* What a pair merges to: one text behind the other, the right one without the mark of inner parts. */
static size_t join(const struct tokenizer *t, const struct vocab_merge *m, char *joint)
{
    size_t cut = t->word_prefix ? strlen(t->word_prefix) : 0;
    if (cut > m->right_len || (cut > 0 && memcmp(m->right, t->word_prefix, cut) != 0))
        cut = 0;
    memcpy(joint, m->left, m->left_len);
    memcpy(joint + m->left_len, m->right + cut, m->right_len - cut);
    return m->left_len + m->right_len - cut;
}

static int read_merges(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    struct pairs *b = &t->pairs;
    if (spec->n_merges > MAX_MERGES)
        return err_set(err, errlen, "%s: %zu merges (at most %d are possible)", spec->name, spec->n_merges,
                       MAX_MERGES);
    b->mask = 15;
    while (b->mask / 2 < spec->n_merges)
        b->mask = b->mask * 2 + 1;
    b->slot = malloc(((size_t)b->mask + 1) * sizeof *b->slot);
    char *joint = malloc(2 * (size_t)t->pieces.max_text_len + 1);
    if (!b->slot || !joint) {
        free(joint);
        return err_set(err, errlen, "%s: out of memory for %zu merges", spec->name, spec->n_merges);
    }
    memset(b->slot, 0xff, ((size_t)b->mask + 1) * sizeof *b->slot);
    for (size_t rank = 0; rank < spec->n_merges; rank++) {
        const struct vocab_merge *m = &spec->merges[rank];
        int32_t left = pieces_find(&t->pieces, m->left, m->left_len);
        int32_t right = pieces_find(&t->pieces, m->right, m->right_len);
        /* A vocabulary cut to a part of its tokens keeps merges that lead nowhere. */
        if (left < 0 || right < 0)
            continue;
        size_t len = join(t, m, joint);
        int32_t merged = pieces_find(&t->pieces, joint, len);
        if (merged < 0)
            continue;
        note_joints(t, joint, len);
        struct pair_slot *s = (struct pair_slot *)find_pair(b, left, right);
        if (s->rank == NO_RANK)
            *s = (struct pair_slot){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, (uint32_t)rank, merged};
    }
    free(joint);
    return 0;
}

static int32_t find_in_model(const struct tokenizer *t, const char *text, size_t len)
{
    int32_t id = pieces_find(&t->pieces, text, len);
    return id >= 0 && t->pieces.piece[id].in_model ? id : -1;
}

static bool has_all_bytes(const struct tokenizer *t)
{
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, spelled[2];
        if (find_in_model(t, spelled, byte_alphabet_spell(&byte, 1, spelled)) < 0)
            return false;
    }
    return true;
}

int model_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    const struct pieces *p = &t->pieces;
    for (int i = 0; i < 256; i++) {
        char name[8];
        t->byte_id[i] = -1;
        /* a tokenizer.json tells byte tokens by their names alone */
        if (spec->own_vocabulary && spec->byte_fallback)
            t->byte_id[i] = find_in_model(t, name, (size_t)snprintf(name, sizeof name, "<0x%02X>", i));
    }
    for (int32_t id = 0; id < p->n; id++)
        if (p->piece[id].type == TOKEN_BYTE && p->piece[id].out_len == 1)
            t->byte_id[(uint8_t)p->out[p->piece[id].out]] = id;
    for (int i = 0; i < 128; i++) {
        char c = (char)i;
        t->ascii_id[i] = find_in_model(t, &c, 1);
    }
    t->some_dropped = spec->kind == VOCAB_BPE && !spec->byte_fallback && (t->drop_unknown || t->unk < 0);
    if (t->some_dropped && t->spelling == SPELLING_BYTES && has_all_bytes(t))
        t->some_dropped = false;
    if (spec->kind == VOCAB_BPE)
        return read_merges(t, spec, err, errlen);
    if (spec->kind == VOCAB_UNIGRAM)
        return unigram_init(t, spec, err, errlen);
    for (int32_t id = 0; id < p->n; id++)
        if (p->piece[id].in_model)
            note_joints(t, piece_text(p, id), p->piece[id].text_len);
    return 0;
}

int model_unknown(struct encoder *e, const char *text, size_t len)
{
    const struct tokenizer *t = e->t;
    bool spelled = t->byte_fallback;
    for (size_t i = 0; i < len && spelled; i++)
        spelled = t->byte_id[(uint8_t)text[i]] >= 0;
    for (size_t i = 0; i < len && spelled; i++)
        if (ids_push(&e->ids, t->byte_id[(uint8_t)text[i]]) < 0)
            return encoder_oom(e);
    if (spelled || t->drop_unknown || t->unk < 0)
        return 0;
    if (t->fuse_unk && e->unknown_end == e->ids.n && e->ids.n > 0)
        return 0;
    if (ids_push(&e->ids, t->unk) < 0)
        return encoder_oom(e);
    e->unknown_end = e->ids.n;
    return 0;
}

/* The character word[i … i + n) of a word of len bytes, with what marks its place in the word. Returns the
 * length at *text, which may be buf. */
static size_t char_text(const struct tokenizer *t, const char *word, size_t len, size_t i, size_t n,
                        char buf[256], const char **text)
{
    const char *prefix = i > 0 ? t->word_prefix : NULL, *suffix = i + n == len ? t->word_suffix : NULL;
    *text = word + i;
    if (!prefix && !suffix)
        return n;
    *text = buf; /* there is room: the marks have at most 100 bytes each */
    size_t n_text = (size_t)snprintf(buf, 101, "%s", prefix ? prefix : "");
    memcpy(buf + n_text, word + i, n);
    n_text += n;
    return n_text + (size_t)snprintf(buf + n_text, 101, "%s", suffix ? suffix : "");
}

static int32_t char_id(const struct tokenizer *t, const char *word, size_t len, size_t i, size_t n)
{
    char buf[256];
    const char *text;
    size_t n_text = char_text(t, word, len, i, n, buf, &text);
    if (n_text == 1 && !(text[0] & 0x80))
        return t->ascii_id[(uint8_t)text[0]];
    return find_in_model(t, text, n_text);
}

/* A symbol that is no token. */
static int push_unknown(struct encoder *e, const char *word, size_t len, size_t from, size_t to)
{
    char buf[256];
    const char *text = word + from;
    size_t n = to - from;
    if (e->t->word_prefix || e->t->word_suffix)
        n = char_text(e->t, word, len, from, n, buf, &text);
    return model_unknown(e, text, n);
}

enum { LONG_WORD = 24 }; /* shorter ones are not worth the look for places to cut */

/* A word, or a part of one that no token crosses. */
static int merge_part(struct encoder *e, const char *word, size_t len)
{
    const struct tokenizer *t = e->t;
    if (encoder_recall(e, word, len))
        return 0;
    size_t n_before = e->ids.n;
    if (encoder_symbols(e, len) < 0)
        return -1;
    uint32_t n_symbols = 0;
    for (size_t i = 0, n; i < len; i += n) {
        n = char_len(word + i, len - i);
        /* of those that merge by text it is looked up below, where a character is left alone */
        int32_t id = t->kind == VOCAB_BPE ? char_id(t, word, len, i, n) : -1;
        if (id >= 0 || !t->some_dropped)
            e->symbol[n_symbols++] = (struct symbol){.at = (uint32_t)i, .id = id};
    }
    if (n_symbols == 0)
        return 0;
    encoder_merge(e, word, len, n_symbols);
    bool whole = true;
    for (uint32_t i = 0; i != NO_SYMBOL; i = e->symbol[i].next) {
        const struct symbol *s = &e->symbol[i];
        size_t end = s->next == NO_SYMBOL ? len : e->symbol[s->next].at;
        int32_t id = s->id >= 0 || t->kind == VOCAB_BPE ? s->id : find_in_model(t, word + s->at, end - s->at);
        if (id < 0 && push_unknown(e, word, len, s->at, end) < 0)
            return -1;
        if (id >= 0 && ids_push(&e->ids, id) < 0)
            return encoder_oom(e);
        whole = whole && id >= 0;
    }
    if (whole) /* ids of the unknown depend on what is before the word */
        encoder_remember(e, word, len, n_before);
    return 0;
}

/* The word without the characters that have no token, in e->known; SIZE_MAX: out of memory. */
static size_t drop_unknown(struct encoder *e, const char **word, size_t len)
{
    size_t n = 0;
    if (encoder_room(e, &e->known, len) < 0)
        return SIZE_MAX;
    for (size_t i = 0, k; i < len; i += k) {
        k = char_len(*word + i, len - i);
        if (char_id(e->t, *word, len, i, k) >= 0) {
            memcpy(e->known.s + n, *word + i, k);
            n += k;
        }
    }
    *word = e->known.s;
    return n;
}

int model_word(struct encoder *e, const char *word, size_t len)
{
    const struct tokenizer *t = e->t;
    e->unknown_end = SIZE_MAX; /* the unknown is fused inside words only */
    if (t->kind == VOCAB_UNIGRAM)
        return unigram_word(e, word, len);
    if (t->whole_words) {
        int32_t id = find_in_model(t, word, len);
        if (id >= 0)
            return ids_push(&e->ids, id) < 0 ? encoder_oom(e) : 0;
    }
    if (t->word_prefix || t->word_suffix)
        return merge_part(e, word, len);
    if (t->some_dropped)
        len = drop_unknown(e, &word, len);
    if (len == 0 || len == SIZE_MAX)
        return len == 0 ? 0 : -1;
    if (len <= LONG_WORD)
        return merge_part(e, word, len);
    size_t from = 0;
    uint8_t last = 0;
    for (size_t i = 0, n; i < len; i += n) {
        n = char_len(word + i, len - i);
        uint8_t first = class_of(word + i, n, false);
        if (i > from && !(t->joined[last][first / 8] >> first % 8 & 1)) {
            if (merge_part(e, word + from, i - from) < 0)
                return -1;
            from = i;
        }
        last = class_of(word + i, n, true);
    }
    return merge_part(e, word + from, len - from);
}

/* Text to ids, around special tokens: stretches of raw text between them are normalised, what is left between
 * tokens found in normalised text is cut into words, and words become ids. */
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <utf8proc.h>

enum {
    MAX_TEXT = 1 << 28,
    MAX_ROOM = 1 << 28, /* four times that fits 31 bits: places in rewritten text do */
    CACHE_FROM = 2048,
};

static bool is_word_char(const char *s, size_t len)
{
    utf8proc_int32_t c;
    if (len == 0 || utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &c) < 0)
        return false;
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

static bool word_char_before(const char *text, size_t at)
{
    size_t n = 1;
    while (n < 4 && n < at && ((uint8_t)text[at - n] & 0xc0) == 0x80)
        n++;
    return at > 0 && is_word_char(text + at - n, n);
}

/* A token found in a text, with the white space it takes along. */
struct hit {
    int32_t id;
    size_t from, to;
};

/* Is one of the places (ascending) inside text[from … to)? */
static bool is_guarded(const struct ids *places, size_t from, size_t to)
{
    size_t lo = 0, hi = places ? places->n : 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((size_t)places->v[mid] <= from)
            lo = mid + 1;
        else
            hi = mid;
    }
    return places && lo < places->n && (size_t)places->v[lo] < to;
}

/* The first token of m in text from byte `from` on that counts under these flags and is not guarded. */
static bool next_hit(const struct tokenizer *t, const struct matcher *m, const char *text, size_t len,
                     size_t from, unsigned flags, const struct ids *guards, struct hit *hit)
{
    size_t n;
    for (size_t i = from; m->n > 0 && i<len; i += n> 0 ? n : 1) {
        n = matcher_at(m, text + i, len - i, &hit->id);
        if (n == 0)
            continue;
        const struct piece *p = &t->pieces.piece[hit->id];
        if (is_guarded(guards, i, i + n)) {
            n = 1; /* another may begin inside it */
            continue;
        }
        if (!(flags & ENCODE_SPECIAL) && p->type != TOKEN_USER_DEFINED)
            continue; /* its text is passed over: no other token begins inside it */
        if ((p->flags & TOKEN_SINGLE_WORD) &&
            (word_char_before(text, i) || is_word_char(text + i + n, len - i - n)))
            continue;
        hit->from = i;
        hit->to = i + n;
        for (size_t k; (p->flags & TOKEN_LSTRIP) && hit->from > from &&
                       (k = space_before(text + from, hit->from - from)) > 0;)
            hit->from -= k;
        for (size_t k; (p->flags & TOKEN_RSTRIP) && (k = space_at(text + hit->to, len - hit->to)) > 0;)
            hit->to += k;
        return true;
    }
    return false;
}

static int encode_words(struct encoder *e, const char *text, size_t len, bool first)
{
    if (len == 0)
        return 0;
    if (pretokenize(e, &e->t->pretokenizer, &text, &len, first) < 0)
        return -1;
    for (size_t i = 0; i < e->words.n; i++)
        if (model_word(e, text + e->words.v[i].from, e->words.v[i].to - e->words.v[i].from) < 0)
            return -1;
    return 0;
}

/* A stretch that the steps can take: valid UTF-8 where they need it. */
static int encode_clean(struct encoder *e, const char *text, size_t len, unsigned flags, bool first)
{
    const struct tokenizer *t = e->t;
    size_t from = 0;
    struct hit hit;
    e->max_room = len < MAX_ROOM / 64 - 1024 ? 64 * len + 65536 : MAX_ROOM;
    e->stripped = false;
    if (normalize(e, &t->normalizer, &text, &len) < 0)
        return -1;
    first = first && !e->stripped; /* where Hugging Face looks, the text does not begin here any more */
    if (len > e->max_room)
        return err_set(e->err, e->errlen, "%s: the text grows too long when it is normalised", t->name);
    if (t->kind == VOCAB_UNIGRAM && t->float_scores) /* it chooses among all tokens, the user's too */
        return encode_words(e, text, len, first);
    while (next_hit(t, &t->normalized, text, len, from, flags, NULL, &hit)) {
        if (encode_words(e, text + from, hit.from - from, first && from == 0) < 0)
            return -1;
        if (ids_push(&e->ids, hit.id) < 0)
            return encoder_oom(e);
        from = hit.to;
    }
    return encode_words(e, text + from, len - from, first && from == 0);
}

/* Bytes that are no character. In the byte alphabet they make a word together; most vocabularies lack tokens
 * for the bytes that UTF-8 never uses: U+FFFD stands for those. */
static int encode_invalid(struct encoder *e, const char *bytes, size_t len)
{
    const struct tokenizer *t = e->t;
    char *to;
    size_t n = 0;
    for (size_t i = 0; t->spelling != SPELLING_BYTES && i < len; i++)
        if (model_unknown(e, bytes + i, 1) < 0)
            return -1;
    if (t->spelling != SPELLING_BYTES)
        return 0;
    if (encoder_room(e, &e->spelled, 6 * len) < 0)
        return -1;
    to = e->spelled.s;
    for (size_t i = 0; i < len; i++) {
        size_t k = byte_alphabet_spell(bytes + i, 1, to + n);
        int32_t id = pieces_find(&t->pieces, to + n, k);
        if (id < 0 || !t->pieces.piece[id].in_model)
            k = byte_alphabet_spell("\xef\xbf\xbd", 3, to + n);
        n += k;
    }
    return model_word(e, to, n);
}

/* tiktoken's way with what is not UTF-8: the rest of the text, from the last word before it on, is a word. */
static int encode_joined(struct encoder *e, const char *text, size_t n_valid, size_t len)
{
    const struct tokenizer *t = e->t;
    const char *words = text;
    size_t n_words = n_valid, n_last;
    e->max_room = MAX_ROOM;
    if (n_valid > 0 && pretokenize(e, &t->pretokenizer, &words, &n_words, true) < 0)
        return -1;
    if (n_valid == 0)
        e->words.n = 0;
    for (size_t i = 0; i + 1 < e->words.n; i++)
        if (model_word(e, words + e->words.v[i].from, e->words.v[i].to - e->words.v[i].from) < 0)
            return -1;
    struct word last = e->words.n > 0 ? e->words.v[e->words.n - 1] : (struct word){0, 0};
    n_last = last.to - last.from;
    if (encoder_room(e, &e->spelled, n_last + 2 * (len - n_valid) + 1) < 0 || !e->spelled.s)
        return -1;
    memcpy(e->spelled.s, words + last.from, n_last);
    return model_word(e, e->spelled.s,
                      n_last + byte_alphabet_spell(text + n_valid, len - n_valid, e->spelled.s + n_last));
}

static int encode_stretch(struct encoder *e, const char *text, size_t len, unsigned flags, bool first)
{
    const struct tokenizer *t = e->t;
    if (len >= CACHE_FROM && encoder_use_cache(e) < 0)
        return -1;
    if (!t->normalizer.need_utf8 && !t->pretokenizer.need_utf8)
        return len == 0 ? 0 : encode_clean(e, text, len, flags, first);
    for (size_t i = 0; i < len;) {
        size_t from = i;
        for (int n; i < len && (n = utf8_char(text + i, len - i)) > 0;)
            i += (size_t)n;
        if (t->join_invalid && i < len)
            return encode_joined(e, text + from, i - from, len - from);
        if (i > from && encode_clean(e, text + from, i - from, flags, first && from == 0) < 0)
            return -1;
        from = i;
        while (i < len && utf8_char(text + i, len - i) <= 0)
            i++;
        e->max_room = MAX_ROOM;
        if (i > from && encode_invalid(e, text + from, i - from) < 0)
            return -1;
    }
    return 0;
}

static int push_all(struct encoder *e, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids_push(&e->ids, ids[i]) < 0)
            return encoder_oom(e);
    return 0;
}

static int encode(struct encoder *e, const char *text, size_t len, unsigned flags, const struct ids *guards)
{
    const struct tokenizer *t = e->t;
    const struct matcher none = {.n = 0};
    const struct matcher *raw = (flags & ENCODE_SPECIAL) || t->user_in_raw ? &t->raw : &none;
    size_t from = 0;
    struct hit hit;
    if (len > MAX_TEXT)
        return err_set(e->err, e->errlen, "%s: a text of %zu bytes is too long (at most 256 MiB)", t->name,
                       len);
    if ((flags & ENCODE_BOS) && push_all(e, t->prefix, t->n_prefix) < 0)
        return -1;
    if ((flags & ENCODE_SPECIAL) && t->prefix_text && len >= strlen(t->prefix_text) &&
        memcmp(text, t->prefix_text, strlen(t->prefix_text)) == 0) {
        if (push_all(e, t->prefix, t->n_prefix) < 0)
            return -1;
        from = strlen(t->prefix_text);
    }
    while (next_hit(t, raw, text, len, from, flags, guards, &hit)) {
        if (encode_stretch(e, text + from, hit.from - from, flags, from == 0) < 0 ||
            push_all(e, &hit.id, 1) < 0)
            return -1;
        from = hit.to;
    }
    if (encode_stretch(e, text + from, len - from, flags, from == 0) < 0)
        return -1;
    return flags & ENCODE_BOS ? push_all(e, t->suffix, t->n_suffix) : 0;
}

static int encode_guarded(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                          const struct ids *guards, int32_t **ids, size_t *n, char *err, size_t errlen)
{
    struct encoder e = {.t = t, .unknown_end = SIZE_MAX, .err = err, .errlen = errlen};
    int rc = encode(&e, text, len, flags, guards);
    if (rc == 0 && !e.ids.v && !(e.ids.v = malloc(sizeof *e.ids.v)))
        rc = encoder_oom(&e);
    *ids = rc == 0 ? e.ids.v : NULL;
    *n = rc == 0 ? e.ids.n : 0;
    if (rc == 0)
        e.ids.v = NULL;
    encoder_free(&e);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                     size_t *n, char *err, size_t errlen)
{
    return encode_guarded(t, text, len, flags, NULL, ids, n, err, errlen);
}

int tokenizer_guard(const struct tokenizer *t, const char *text, size_t len, const char *mark,
                    const char *except, char **guarded, size_t *n)
{
    size_t cap = len + 64, n_mark = strlen(mark), done = 0;
    char *out = malloc(cap);
    *n = 0;
    for (size_t i = 0; out && i < len; i++) {
        int32_t id;
        size_t found = matcher_at(&t->raw, text + i, len - i, &id), one = char_len(text + i, len - i);
        bool user = found > 0 && t->pieces.piece[id].type == TOKEN_USER_DEFINED;
        if (found == 0 || user || found <= one || i + one <= done ||
            (except && memmem(text + i, found, except, strlen(except))))
            continue;
        if (cap - *n < len - done + n_mark + 1) {
            cap = 2 * (*n + len - done + n_mark + 1);
            char *more = realloc(out, cap);
            if (!more) {
                free(out);
                return -1;
            }
            out = more;
        }
        memcpy(out + *n, text + done, i + one - done);
        memcpy(out + *n + (i + one - done), mark, n_mark);
        *n += i + one - done + n_mark;
        done = i + one;
    }
    if (!out)
        return -1;
    memcpy(out + *n, text + done, len - done); /* there was room for all of it */
    *n += len - done;
    out[*n] = '\0';
    *guarded = out;
    return 0;
}

int tokenizer_encode_guarded(const struct tokenizer *t, const char *text, size_t len, const char *mark,
                             int32_t **ids, size_t *n, char *err, size_t errlen)
{
    struct ids places = {0};
    size_t n_mark = strlen(mark), n_plain = 0;
    char *plain = len <= MAX_TEXT ? malloc(len + 1) : NULL;
    bool failed = !plain;
    for (size_t i = 0; i < len && !failed;) {
        const char *next = memmem(text + i, len - i, mark, n_mark);
        size_t k = next ? (size_t)(next - text) - i : len - i;
        memcpy(plain + n_plain, text + i, k);
        n_plain += k;
        failed = next && ids_push(&places, (int32_t)n_plain) < 0;
        i += k + (next ? n_mark : 0);
    }
    int rc = failed ? err_set(err, errlen, "%s: out of memory for a prompt of %zu bytes", t->name, len)
                    : encode_guarded(t, plain, n_plain, ENCODE_SPECIAL, &places, ids, n, err, errlen);
    free(plain);
    free(places.v);
    return rc;
}

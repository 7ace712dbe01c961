/* The steps that rewrite a text before it is cut into words. */
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <utf8proc.h>

static utf8proc_int32_t decode(const char *s, size_t len)
{
    utf8proc_int32_t c = -1;
    (void)utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &c);
    return c;
}

static bool is_space(utf8proc_int32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

size_t space_at(const char *text, size_t len)
{
    int n = utf8_char(text, len);
    return n > 0 && is_space(decode(text, (size_t)n)) ? (size_t)n : 0;
}

size_t space_before(const char *text, size_t len)
{
    for (size_t n = 1; n <= 4 && n <= len; n++)
        if (((uint8_t)text[len - n] & 0xc0) != 0x80)
            return space_at(text + len - n, n) == n ? n : 0;
    return 0;
}

static int lowercase(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out)
{
    (void)s;
    size_t n = 0;
    if (encoder_room(e, out, 3 * *len + 1) < 0)
        return -1;
    for (size_t i = 0; i < *len;) {
        size_t k = char_len(*text + i, *len - i);
        utf8proc_int32_t c = decode(*text + i, k);
        if (c == 0x130) { /* the one character whose lower case is two */
            memcpy(out->s + n, "i\xcc\x87", 3);
            n += 3;
        } else {
            n += (size_t)utf8proc_encode_char(utf8proc_tolower(c), (utf8proc_uint8_t *)out->s + n);
        }
        i += k;
    }
    *text = out->s;
    *len = n;
    return 0;
}

static int strip_accents(struct encoder *e, const struct step *s, const char **text, size_t *len,
                         struct buf *out)
{
    (void)s;
    size_t n = 0;
    if (encoder_room(e, out, *len + 1) < 0)
        return -1;
    for (size_t i = 0; i < *len;) {
        size_t k = char_len(*text + i, *len - i);
        utf8proc_category_t c = utf8proc_category(decode(*text + i, k));
        if (c != UTF8PROC_CATEGORY_MN && c != UTF8PROC_CATEGORY_MC && c != UTF8PROC_CATEGORY_ME) {
            memcpy(out->s + n, *text + i, k);
            n += k;
        }
        i += k;
    }
    *text = out->s;
    *len = n;
    return 0;
}

static int strip(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out)
{
    (void)out;
    for (size_t k; s->how.left && (k = space_at(*text, *len)) > 0; *len -= k) {
        *text += k;
        e->stripped = true;
    }
    for (size_t k; s->how.right && (k = space_before(*text, *len)) > 0;)
        *len -= k;
    return 0;
}

static int prepend(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out)
{
    size_t n = s->content ? s->how.content_len : 0;
    if (n == 0 || *len == 0)
        return 0;
    if (encoder_room(e, out, *len + n) < 0)
        return -1;
    memcpy(out->s, s->content, n);
    memcpy(out->s + n, *text, *len);
    *text = out->s;
    *len += n;
    return 0;
}

static int replace(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out)
{
    struct pattern_run run;
    struct word m = {0, 0};
    size_t n = 0, done = 0;
    const char *content = s->content ? s->content : "", *from = *text;
    int rc = pattern_start(&run, &s->pattern, e);
    if (rc == 0)
        rc = pattern_next(&run, e, from, *len, &m);
    if (rc <= 0) { /* the usual case: nothing to replace */
        pattern_end(&run);
        return rc;
    }
    if (encoder_room(e, out, *len + *len / 2 + 64) < 0)
        rc = -1;
    while (rc > 0) {
        size_t gap = m.from - done;
        rc = buf_put(e, out, &n, from + done, gap) < 0 || buf_put(e, out, &n, content, s->how.content_len) < 0
                 ? -1
                 : 1;
        done = m.to;
        if (rc > 0)
            rc = pattern_next(&run, e, from, *len, &m);
    }
    pattern_end(&run);
    if (rc < 0 || buf_put(e, out, &n, from + done, *len - done) < 0)
        return -1;
    *text = out->s;
    *len = n;
    return 0;
}

static int spell_bytes(struct encoder *e, const struct step *s, const char **text, size_t *len,
                       struct buf *out)
{
    (void)s;
    if (encoder_room(e, out, 2 * *len + 1) < 0)
        return -1;
    *len = byte_alphabet_spell(*text, *len, out->s);
    *text = out->s;
    return 0;
}

/* Hugging Face's use of the map: on a whole grapheme below 6 bytes, else on each character, and of the texts
 * that fit the shortest. */
int normalize_precompiled(struct encoder *e, const struct step *s, const char **text, size_t *len,
                          struct buf *out)
{
    size_t n = 0;
    const char *from = *text, *to;
    if (encoder_room(e, out, *len + *len / 2 + 64) < 0)
        return -1;
    for (size_t i = 0; i < *len;) {
        size_t end = i + char_len(from + i, *len - i);
        utf8proc_int32_t state = 0, last = decode(from + i, end - i);
        while (end < *len) {
            size_t k = char_len(from + end, *len - end);
            utf8proc_int32_t c = decode(from + end, k);
            if (utf8proc_grapheme_break_stateful(last, c, &state))
                break;
            last = c;
            end += k;
        }
        if (end - i < 6 && charsmap_find(&s->map, from + i, end - i, true, &to) > 0) {
            if (buf_put(e, out, &n, to, strlen(to)) < 0)
                return -1;
            i = end;
        }
        while (i < end) {
            size_t k = char_len(from + i, end - i);
            bool found = charsmap_find(&s->map, from + i, k, true, &to) > 0;
            if (buf_put(e, out, &n, found ? to : from + i, found ? strlen(to) : k) < 0)
                return -1;
            i += k;
        }
    }
    *text = out->s;
    *len = n;
    return 0;
}

typedef int step_fn(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out);

static step_fn *const functions[] = {
    [STEP_NFC] = normalize_form,
    [STEP_NFD] = normalize_form,
    [STEP_NFKC] = normalize_form,
    [STEP_NFKD] = normalize_form,
    [STEP_LOWERCASE] = lowercase,
    [STEP_STRIP_ACCENTS] = strip_accents,
    [STEP_STRIP] = strip,
    [STEP_PREPEND] = prepend,
    [STEP_REPLACE] = replace,
    [STEP_PRECOMPILED] = normalize_precompiled,
    [STEP_SENTENCEPIECE] = normalize_sentencepiece,
    [STEP_BYTES] = spell_bytes,
};

int normalize(struct encoder *e, const struct steps *steps, const char **text, size_t *len)
{
    struct buf *out = &e->norm[0];
    for (size_t i = 0; i < steps->n; i++) {
        const char *before = *text;
        if (functions[steps->v[i].how.kind](e, &steps->v[i], text, len, out) < 0)
            return -1;
        if (*text == out->s && *text != before)
            out = out == &e->norm[0] ? &e->norm[1] : &e->norm[0];
    }
    return 0;
}

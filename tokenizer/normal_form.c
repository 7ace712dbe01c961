/* Unicode's normal forms (UAX #15), which some models' tokenizers bring their text to first. */
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <utf8proc.h>

/* Marks on one character that are put in order; beyond, another run begins. Real text has fewer than 31
 * (UAX #15, stream-safe format); utf8proc takes quadratic time for the run. */
enum { MAX_MARKS = 256 };

/* Is valid UTF-8 in normal form C for certain? True of characters below U+0300 and of some blocks in which
 * nothing composes, decomposes or combines. */
static bool surely_nfc(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t b = (uint8_t)text[i];
        if (b < 0xcc)
            continue;
        uint8_t next = (uint8_t)text[i + 1];
        bool sure = b == 0xd0 || b == 0xd1                                        /* U+0400 Cyrillic */
                    || (b == 0xe2 && next == 0x80 && (uint8_t)text[i + 2] > 0x81) /* U+2002 punctuation */
                    || (b >= 0xe4 && b <= 0xe9)                                   /* U+4000 Han */
                    || b == 0xeb || b == 0xec                                     /* U+B000 Hangul */
                    || (b == 0xef && next == 0xbc)                                /* U+FF00 full width */
                    || (b == 0xf0 && next == 0x9f);                               /* U+1F000 emoji */
        if (!sure)
            return false;
    }
    return true;
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] >= 0x80)
            return false;
    return true;
}

/* Bytes up to the next place where the text may be normalised apart. */
static size_t part_len(const char *text, size_t len)
{
    size_t i = 0;
    int n_marks = 0;
    while (i < len && n_marks <= MAX_MARKS) {
        utf8proc_int32_t c;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &c);
        n_marks = utf8proc_get_property(c)->combining_class ? n_marks + 1 : 0;
    }
    return i;
}

int normalize_form(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out)
{
    bool compat = s->how.kind == STEP_NFKC || s->how.kind == STEP_NFKD;
    bool compose = s->how.kind == STEP_NFC || s->how.kind == STEP_NFKC;
    if (s->how.kind == STEP_NFC ? surely_nfc(*text, *len) : is_ascii(*text, *len))
        return 0;
    utf8proc_option_t options =
        UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0) | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
    size_t n = 0;
    const char *from = *text;
    if (encoder_room(e, out, 3 * *len + 64) < 0) /* NFC grows no more than that */
        return -1;
    for (size_t i = 0, part; i < *len; i += part) {
        part = part_len(from + i, *len - i);
        utf8proc_uint8_t *made = NULL;
        utf8proc_ssize_t n_made =
            utf8proc_map((const utf8proc_uint8_t *)from + i, (utf8proc_ssize_t)part, &made, options);
        if (n_made < 0)
            return err_set(e->err, e->errlen, "%s: cannot bring the text to a normal form: %s", e->t->name,
                           utf8proc_errmsg(n_made));
        if (buf_put(e, out, &n, (const char *)made, (size_t)n_made) < 0) {
            free(made);
            return -1;
        }
        free(made);
    }
    *text = out->s;
    *len = n;
    return 0;
}

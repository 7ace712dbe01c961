/* Unicode's normal form C, which some byte-level BPE models' tokenizers bring their text to first. */
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

int normal_form_c(struct encoder *e, const char **text, size_t *len)
{
    if (surely_nfc(*text, *len))
        return 0;
    size_t cap = 3 * *len; /* UTF-8 grows no more than that */
    if (encoder_buf(e, cap) < 0)
        return -1;
    size_t n = 0;
    for (size_t i = 0, part; i < *len; i += part) {
        part = part_len(*text + i, *len - i);
        utf8proc_uint8_t *nfc = NULL;
        utf8proc_ssize_t n_nfc = utf8proc_map((const utf8proc_uint8_t *)*text + i, (utf8proc_ssize_t)part,
                                              &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n_nfc < 0 || (size_t)n_nfc > cap - n) {
            free(nfc);
            return err_set(e->err, e->errlen, "%s: cannot bring the text to normal form C: %s", e->t->name,
                           utf8proc_errmsg(n_nfc));
        }
        memcpy(e->buf + n, nfc, (size_t)n_nfc);
        n += (size_t)n_nfc;
        free(nfc);
    }
    *text = e->buf;
    *len = n;
    return 0;
}

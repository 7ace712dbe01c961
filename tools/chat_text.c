/* Text from outside, made fit to store and to show. */
#include "tools/chat.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

static bool never(int32_t c)
{
    return c == 0;
}

static bool control(int32_t c)
{
    return (c < ' ' && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
}

/* Copies, with U+FFFD, or the picture of an ASCII control character, in place of what is refused. */
static char *copy_without(const char *text, size_t len, bool (*refused)(int32_t))
{
    /* one byte becomes three at most */
    char *out = len < SIZE_MAX / 3 ? malloc(3 * len + 1) : NULL;
    if (!out)
        return NULL;
    char *o = out;
    for (size_t i = 0; i < len;) {
        size_t left = len - i;
        int32_t c;
        /* a character has four bytes at most */
        ptrdiff_t n = utf8proc_iterate((const uint8_t *)text + i, left < 4 ? (ptrdiff_t)left : 4, &c);
        bool ok = n > 0 && !refused(c);
        if (ok) {
            memcpy(o, text + i, (size_t)n);
            o += n;
        } else if (n > 0 && refused == control && (c < ' ' || c == 0x7f)) {
            int picture = c == 0x7f ? 0x21 : c; /* U+2421 is DEL's; U+2400 + c the others' */
            *o++ = '\xE2';
            *o++ = '\x90';
            *o++ = (char)(0x80 + picture);
        } else {
            memcpy(o, REPLACEMENT, 3);
            o += 3;
        }
        i += n > 0 ? (size_t)n : 1;
    }
    *o = '\0';
    return out;
}

char *text_clean(const char *text, size_t len)
{
    return copy_without(text, len, never);
}

char *text_for_terminal(const char *text, size_t len)
{
    return copy_without(text, len, control);
}

/* SentencePiece's normaliser: its character map, then what it does with spaces. The rules are those of the
 * library's documentation (doc/normalization.md) and of its models' NormalizerSpec. */
#include "tokenizer/internal.h"

#include <stdlib.h>

/* What the start of text becomes, *n_to bytes at *to; returns how much of text that was. */
static size_t next_part(const struct encoder *e, const struct step *s, const char *text, size_t len,
                        const char **to, size_t *n_to)
{
    int32_t id;
    *to = text;
    *n_to = matcher_at(&e->t->normalized, text, len, &id);
    if (*n_to > 0) /* user-defined tokens stay as they are */
        return *n_to;
    size_t n = charsmap_find(&s->map, text, len, false, to);
    if (n > 0) {
        *n_to = strlen(*to);
        return n;
    }
    bool valid = utf8_char(text, len) > 0;
    if (!valid && !(s->how.sp_flags & SP_KEEP_INVALID)) {
        *to = "\xef\xbf\xbd";
        *n_to = 3;
        return 1;
    }
    return *n_to = char_len(text, len);
}

struct spaced {
    const struct encoder *e;
    struct buf *out;
    const char *space;
    size_t n_space, n;
};

static int put_space(struct spaced *o)
{
    return buf_put(o->e, o->out, &o->n, o->space, o->n_space);
}

static int put_part(struct spaced *o, const char *part, size_t n)
{
    for (size_t i = 0; i < n;) {
        if (part[i] == ' ') {
            if (put_space(o) < 0)
                return -1;
            i++;
            continue;
        }
        size_t from = i;
        while (i < n && part[i] != ' ')
            i++;
        if (buf_put(o->e, o->out, &o->n, part + from, i - from) < 0)
            return -1;
    }
    return 0;
}

int normalize_sentencepiece(struct encoder *e, const struct step *s, const char **text, size_t *len,
                            struct buf *out)
{
    unsigned flags = s->how.sp_flags;
    bool remove_extra = flags & SP_REMOVE_EXTRA;
    const char *from = *text, *to;
    size_t left = *len, n_to;
    struct spaced o = {.e = e, .out = out, .space = flags & SP_ESCAPE ? SPACE_MARK : " "};
    o.n_space = strlen(o.space);
    while (remove_extra && left > 0) {
        size_t n = next_part(e, s, from, left, &to, &n_to);
        if (n_to != 1 || to[0] != ' ')
            break;
        from += n;
        left -= n;
    }
    if (encoder_room(e, out, left + left / 2 + 64) < 0)
        return -1;
    bool any = left > 0, after_space = remove_extra;
    if (any && (flags & SP_DUMMY_PREFIX) && !(flags & SP_SUFFIX) && put_space(&o) < 0)
        return -1;
    while (left > 0) {
        size_t n = next_part(e, s, from, left, &to, &n_to);
        while (after_space && n_to > 0 && to[0] == ' ')
            to++, n_to--;
        if (n_to > 0) {
            if (put_part(&o, to, n_to) < 0)
                return -1;
            after_space = to[n_to - 1] == ' ';
        }
        after_space = after_space && remove_extra;
        from += n;
        left -= n;
    }
    while (remove_extra && o.n >= o.n_space && memcmp(out->s + o.n - o.n_space, o.space, o.n_space) == 0)
        o.n -= o.n_space;
    if (any && (flags & SP_DUMMY_PREFIX) && (flags & SP_SUFFIX) && put_space(&o) < 0)
        return -1;
    *text = out->s;
    *len = o.n;
    return 0;
}

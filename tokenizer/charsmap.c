/* The character map that SentencePiece compiles its normalisation rules to. A unit of the double array, from
 * the lowest bit: 8 bits label, 1 bit "a leaf hangs below", 1 bit "the offset is in 256s", 21 bits offset,
 * 1 bit that a label never has; a leaf's unit is a value of 31 bits: where the replacement begins. */
#include "tokenizer/internal.h"

#include <stdlib.h>

static uint32_t unit_at(const struct charsmap *c, size_t i)
{
    const uint8_t *b = (const uint8_t *)c->blob + 4 * i;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

int charsmap_init(struct charsmap *c, const char *blob, size_t len, const char *name, char *err,
                  size_t errlen)
{
    *c = (struct charsmap){0};
    if (len == 0)
        return 0;
    const uint8_t *b = (const uint8_t *)blob;
    uint32_t n = len >= 4 ? b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24 : 0;
    if (n < 4 || n % 4 != 0 || n > len - 4)
        return err_set(err, errlen, "%s: the precompiled character map of %zu bytes is broken", name, len);
    c->blob = malloc(len - 4 + 1);
    if (!c->blob)
        return err_set(err, errlen, "%s: out of memory", name);
    memcpy(c->blob, blob + 4, len - 4);
    c->blob[len - 4] = '\0'; /* ends a last replacement that is cut off */
    c->n_units = n / 4;
    c->texts = c->blob + n;
    c->n_texts = len - 4 - n;
    return 0;
}

void charsmap_free(struct charsmap *c)
{
    free(c->blob);
}

size_t charsmap_find(const struct charsmap *c, const char *text, size_t len, bool shortest, const char **to)
{
    size_t found = 0, at = c->blob ? offset_of(unit_at(c, 0)) : 0;
    for (size_t i = 0; c->blob && i < len; i++) {
        at ^= (uint8_t)text[i];
        if (at >= c->n_units)
            break;
        uint32_t unit = unit_at(c, at);
        if ((unit & 0x800000ffu) != (uint8_t)text[i])
            break;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1))
            continue;
        uint32_t value = at < c->n_units ? unit_at(c, at) & 0x7fffffffu : UINT32_MAX;
        if (value > c->n_texts)
            break;
        *to = c->texts + value;
        found = i + 1;
        if (shortest)
            break;
    }
    return found;
}

/* Typed access to metadata: numbers lie in the file as GGUF has them, little-endian and unaligned. */
#include "weights/reader.h"

#include <string.h>

enum number { NO_NUMBER, UNSIGNED, SIGNED, FLOATING };

static const struct {
    const char *name;
    uint8_t bytes; /* of one number */
    enum number kind;
} types[] = {
    [META_U8] = {"u8", 1, UNSIGNED},        [META_I8] = {"i8", 1, SIGNED},
    [META_U16] = {"u16", 2, UNSIGNED},      [META_I16] = {"i16", 2, SIGNED},
    [META_U32] = {"u32", 4, UNSIGNED},      [META_I32] = {"i32", 4, SIGNED},
    [META_U64] = {"u64", 8, UNSIGNED},      [META_I64] = {"i64", 8, SIGNED},
    [META_F32] = {"f32", 4, FLOATING},      [META_F64] = {"f64", 8, FLOATING},
    [META_BOOL] = {"bool", 1, UNSIGNED},    [META_STRING] = {"str", 0, NO_NUMBER},
    [META_ARRAY] = {"array", 0, NO_NUMBER},
};

const char *meta_type_name(enum meta_type t)
{
    return types[t].name;
}

unsigned meta_type_bytes(enum meta_type t)
{
    return types[t].bytes;
}

/* The bits of element i of an array of numbers, sign- or zero-extended. False: out of range or no number. */
static bool load(const struct meta *m, uint64_t i, uint64_t *bits)
{
    if (!m || i >= m->n || types[m->elem].kind == NO_NUMBER)
        return false;
    unsigned bytes = types[m->elem].bytes, unused = 64 - 8 * bytes;
    uint64_t v = 0;
    memcpy(&v, (const uint8_t *)m->data + i * bytes, bytes);
    *bits = types[m->elem].kind == SIGNED ? (uint64_t)((int64_t)(v << unused) >> unused) : v;
    return true;
}

bool meta_int(const struct meta *m, uint64_t i, int64_t *out)
{
    uint64_t bits;
    if (!load(m, i, &bits) || types[m->elem].kind == FLOATING ||
        (types[m->elem].kind == UNSIGNED && bits > INT64_MAX))
        return false;
    *out = (int64_t)bits;
    return true;
}

bool meta_float(const struct meta *m, uint64_t i, double *out)
{
    uint64_t bits;
    float f;
    if (!load(m, i, &bits) || m->elem == META_BOOL)
        return false;
    if (m->elem == META_F32) {
        memcpy(&f, &bits, sizeof f);
        *out = (double)f;
    } else if (m->elem == META_F64)
        memcpy(out, &bits, sizeof *out);
    else
        *out = types[m->elem].kind == SIGNED ? (double)(int64_t)bits : (double)bits;
    return true;
}

bool meta_str(const struct meta *m, uint64_t i, struct wstr *out)
{
    if (!m || i >= m->n || m->elem != META_STRING)
        return false;
    *out = m->str[i];
    return true;
}

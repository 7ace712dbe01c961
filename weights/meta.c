/* Typed access to metadata: numbers lie in the file as GGUF has them, little-endian and unaligned. */
#include "weights/reader.h"

#include <string.h>

static const struct {
    const char *name;
    uint8_t bytes; /* of one number; 0: no number */
} types[] = {
    [META_U8] = {"u8", 1},       [META_I8] = {"i8", 1},     [META_U16] = {"u16", 2},
    [META_I16] = {"i16", 2},     [META_U32] = {"u32", 4},   [META_I32] = {"i32", 4},
    [META_F32] = {"f32", 4},     [META_BOOL] = {"bool", 1}, [META_STRING] = {"str", 0},
    [META_ARRAY] = {"array", 0}, [META_U64] = {"u64", 8},   [META_I64] = {"i64", 8},
    [META_F64] = {"f64", 8},
};

const char *meta_type_name(enum meta_type t)
{
    return types[t].name;
}

unsigned meta_type_bytes(enum meta_type t)
{
    return types[t].bytes;
}

/* Sign- or zero-extends the number at p; false: no integer, or above INT64_MAX. */
static bool load_int(enum meta_type type, const void *p, int64_t *out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    memcpy(&v, p, types[type].bytes);
    switch (type) {
    case META_U8:
    case META_BOOL:
        *out = v.u8;
        return true;
    case META_I8:
        *out = v.i8;
        return true;
    case META_U16:
        *out = v.u16;
        return true;
    case META_I16:
        *out = v.i16;
        return true;
    case META_U32:
        *out = v.u32;
        return true;
    case META_I32:
        *out = v.i32;
        return true;
    case META_U64:
        *out = v.i64;
        return v.u64 <= INT64_MAX;
    case META_I64:
        *out = v.i64;
        return true;
    default:
        return false;
    }
}

/* Address of element i of an array of numbers, NULL: out of range or strings. */
static const void *element(const struct meta *m, uint64_t i)
{
    if (!m || i >= m->n || types[m->elem].bytes == 0)
        return NULL;
    return (const uint8_t *)m->data + i * types[m->elem].bytes;
}

bool meta_int(const struct meta *m, uint64_t i, int64_t *out)
{
    const void *p = element(m, i);
    int64_t v;
    if (!p || !load_int(m->elem, p, &v))
        return false;
    *out = v;
    return true;
}

bool meta_float(const struct meta *m, uint64_t i, double *out)
{
    const void *p = element(m, i);
    float f;
    uint64_t u;
    int64_t v;
    if (!p || m->elem == META_BOOL)
        return false;
    switch (m->elem) {
    case META_F32:
        memcpy(&f, p, sizeof f);
        *out = (double)f;
        return true;
    case META_F64:
        memcpy(out, p, sizeof *out);
        return true;
    case META_U64:
        memcpy(&u, p, sizeof u);
        *out = (double)u;
        return true;
    default:
        if (!load_int(m->elem, p, &v))
            return false;
        *out = (double)v;
        return true;
    }
}

bool meta_str(const struct meta *m, uint64_t i, struct wstr *out)
{
    if (!m || i >= m->n || m->elem != META_STRING)
        return false;
    *out = m->str[i];
    return true;
}

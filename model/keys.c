#include "model/keys.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct meta *keys_find(const struct keys *k, const char *name, char key[KEY_MAX])
{
    (void)snprintf(key, KEY_MAX, "%s.%s", k->prefix, name);
    return weights_meta_find(k->w, key);
}

int keys_missing(const struct keys *k, const char *name)
{
    return err_set(k->err, k->errlen, "%s: no key '%s.%s'", weights_path(k->w), k->prefix, name);
}

int keys_fault(const struct keys *k, const char *name, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_set(k->err, k->errlen, "%s: key '%s.%s' %s", weights_path(k->w), k->prefix, name, what);
}

/* A type that the value should not have. */
static int no_number(const struct keys *k, const char *name, const char *kind, const struct meta *m)
{
    return keys_fault(k, name, "is no %s (type %s, %" PRIu64 " values)", kind, meta_type_name(m->type), m->n);
}

int keys_int(const struct keys *k, const char *name, int64_t lo, int64_t hi, int64_t dflt, int *out)
{
    char key[KEY_MAX];
    const struct meta *m = keys_find(k, name, key);
    if (!m) {
        if (dflt == KEYS_REQUIRED)
            return keys_missing(k, name);
        *out = (int)dflt;
        return 0;
    }
    int64_t v;
    if (!meta_int(m, 0, &v))
        return no_number(k, name, "whole number", m);
    if (v < lo || v > hi)
        return keys_fault(k, name, "is %" PRId64 ", outside %" PRId64 " … %" PRId64, v, lo, hi);
    for (uint64_t i = 1; i < m->n; i++) {
        int64_t other;
        if (!meta_int(m, i, &other) || other != v)
            return keys_fault(k, name, "differs between layers (value %" PRIu64 "), which is not supported",
                              i);
    }
    *out = (int)v;
    return 0;
}

int keys_float(const struct keys *k, const char *name, double lo, double hi, double dflt, double *out)
{
    char key[KEY_MAX];
    const struct meta *m = keys_find(k, name, key);
    if (!m) {
        if (isnan(dflt))
            return keys_missing(k, name);
        *out = dflt;
        return 0;
    }
    double v;
    if (m->n != 1 || !meta_float(m, 0, &v))
        return no_number(k, name, "number", m);
    if (!(v >= lo && v <= hi))
        return keys_fault(k, name, "is %g, outside %g … %g", v, lo, hi);
    *out = v;
    return 0;
}

int keys_bool(const struct keys *k, const char *name, bool dflt, bool *out)
{
    char key[KEY_MAX];
    const struct meta *m = keys_find(k, name, key);
    int64_t v = dflt;
    if (m && (m->n != 1 || !meta_int(m, 0, &v) || v < 0 || v > 1))
        return no_number(k, name, "truth value", m);
    *out = v != 0;
    return 0;
}

int keys_string(const struct keys *k, const char *name, struct wstr *out)
{
    char key[KEY_MAX];
    const struct meta *m = keys_find(k, name, key);
    *out = (struct wstr){NULL, 0};
    if (m && (m->type == META_ARRAY || !meta_str(m, 0, out)))
        return keys_fault(k, name, "is no string");
    return 0;
}

bool keys_is(const struct keys *k, const char *name, const char *value)
{
    char key[KEY_MAX];
    const struct meta *m = keys_find(k, name, key);
    struct wstr s;
    return m && m->n >= 1 && meta_str(m, 0, &s) && s.len == strlen(value) && memcmp(s.s, value, s.len) == 0;
}

const char *keys_shown(struct wstr s, char shown[SHOWN_MAX])
{
    size_t n = s.len < SHOWN_MAX - 1 ? s.len : SHOWN_MAX - 1;
    for (size_t i = 0; i < n; i++)
        shown[i] = s.s[i] >= ' ' && s.s[i] < 0x7f ? s.s[i] : '?';
    shown[n] = 0;
    return shown;
}

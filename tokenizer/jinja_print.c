/* Values as text: Python's str() and repr(), and json.dumps. */
#include "tokenizer/jinja_tree.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The shortest digits that read back as f, as Python's repr has them: positional between 1e-4 and 1e16,
 * else with an exponent. The C locale is in force (jinja_run's caller sees to it). */
void jinja_put_float(struct jinja *j, struct text *t, double f)
{
    if (!isfinite(f)) {
        text_put_c(j, t, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char buf[40], digits[24];
    int precision = 1;
    do
        (void)snprintf(buf, sizeof buf, "%.*e", precision - 1, f);
    while (strtod(buf, NULL) != f && ++precision <= 17);
    /* buf is [-]d[.ddd]e±xx */
    const char *p = buf;
    if (*p == '-') {
        text_put_c(j, t, "-");
        p++;
    }
    size_t n = 0;
    for (; *p != 'e'; p++)
        if (*p != '.')
            digits[n++] = *p;
    int exponent = atoi(p + 1);
    if (exponent < -4 || exponent >= 16) {
        text_put(j, t, digits, 1);
        if (n > 1) {
            text_put_c(j, t, ".");
            text_put(j, t, digits + 1, n - 1);
        }
        int len = snprintf(buf, sizeof buf, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        text_put(j, t, buf, (size_t)len);
    } else if (exponent < 0) {
        text_put_c(j, t, "0.");
        text_repeat(j, t, "0", 1, (size_t)(-exponent - 1));
        text_put(j, t, digits, n);
    } else {
        size_t whole = (size_t)exponent + 1;
        text_put(j, t, digits, n < whole ? n : whole);
        if (n < whole)
            text_repeat(j, t, "0", 1, whole - n);
        text_put_c(j, t, ".");
        if (n > whole)
            text_put(j, t, digits + whole, n - whole);
        else
            text_put_c(j, t, "0");
    }
}

__attribute__((format(printf, 3, 4))) static void put_f(struct jinja *j, struct text *t, const char *fmt, ...)
{
    char buf[96];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    text_put(j, t, buf, (size_t)n < sizeof buf ? (size_t)n : sizeof buf - 1);
}

/* str.isprintable of one character */
static bool printable(int32_t c)
{
    if (c < 0x7f)
        return c >= ' ';
    utf8proc_category_t k = utf8proc_category(c);
    return k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF &&
           k != UTF8PROC_CATEGORY_CS && k != UTF8PROC_CATEGORY_CO && k != UTF8PROC_CATEGORY_ZL &&
           k != UTF8PROC_CATEGORY_ZP && k != UTF8PROC_CATEGORY_ZS;
}

static void put_str_repr(struct jinja *j, struct text *t, const struct str *s)
{
    bool single = memchr(s->p, '\'', s->len) != NULL, twice = memchr(s->p, '"', s->len) != NULL;
    char quote = single && !twice ? '"' : '\'';
    const char *end = s->p + s->len;
    size_t n;
    text_put(j, t, &quote, 1);
    for (const char *p = s->p; p < end; p += n) {
        int32_t c = jinja_char_at(p, end, &n);
        if (c == quote || c == '\\')
            put_f(j, t, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            put_f(j, t, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (printable(c))
            text_put(j, t, p, n);
        else if (c < 0x100)
            put_f(j, t, "\\x%02x", (unsigned)c);
        else if (c < 0x10000)
            put_f(j, t, "\\u%04x", (unsigned)c);
        else
            put_f(j, t, "\\U%08x", (unsigned)c);
    }
    text_put(j, t, &quote, 1);
}

static void put_repr(struct jinja *j, struct text *t, struct value v);

static void put_items(struct jinja *j, struct text *t, const char *open, const struct list *l,
                      const char *close)
{
    text_put_c(j, t, open);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            text_put_c(j, t, ", ");
        put_repr(j, t, l->v[i]);
    }
    text_put_c(j, t, close);
}

static void put_dict(struct jinja *j, struct text *t, const struct dict *d)
{
    text_put_c(j, t, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            text_put_c(j, t, ", ");
        put_repr(j, t, d->e[i].key);
        text_put_c(j, t, ": ");
        put_repr(j, t, d->e[i].value);
    }
    text_put_c(j, t, "}");
}

static void put_range(struct jinja *j, struct text *t, const struct range *r)
{
    put_f(j, t, "range(%" PRId64 ", %" PRId64, r->start, r->stop);
    if (r->step != 1)
        put_f(j, t, ", %" PRId64, r->step);
    text_put_c(j, t, ")");
}

static void put_repr(struct jinja *j, struct text *t, struct value v)
{
    jinja_step(j, 1);
    jinja_enter(j);
    switch (v.kind) {
    case V_ABSENT:
    case V_UNDEFINED:
        text_put_c(j, t, "Undefined");
        break;
    case V_NONE:
        text_put_c(j, t, "None");
        break;
    case V_BOOL:
        text_put_c(j, t, v.b ? "True" : "False");
        break;
    case V_INT:
        put_f(j, t, "%" PRId64, v.i);
        break;
    case V_FLOAT:
        jinja_put_float(j, t, v.f);
        break;
    case V_STRING:
        if (v.s->safe)
            text_put_c(j, t, "Markup(");
        put_str_repr(j, t, v.s);
        if (v.s->safe)
            text_put_c(j, t, ")");
        break;
    case V_LIST:
        put_items(j, t, "[", v.l, "]");
        break;
    case V_TUPLE:
        put_items(j, t, "(", v.l, v.l->n == 1 ? ",)" : ")");
        break;
    case V_DICT:
        put_dict(j, t, v.d);
        break;
    case V_NAMESPACE:
        text_put_c(j, t, "<Namespace ");
        put_dict(j, t, v.d);
        text_put_c(j, t, ">");
        break;
    case V_VIEW:
        put_f(j, t, "%s(", jinja_type_name(v));
        put_items(j, t, "[", jinja_list_of(j, jinja_iter(j, v)).l, "])");
        break;
    case V_RANGE:
        put_range(j, t, v.range);
        break;
    case V_MACRO:
        text_put_c(j, t, "<Macro ");
        if (v.macro->macro->name)
            put_str_repr(j, t, v.macro->macro->name);
        else
            text_put_c(j, t, "anonymous");
        text_put_c(j, t, ">");
        break;
    default:
        put_f(j, t, "<%s object>", jinja_type_name(v));
    }
    jinja_leave(j);
}

const struct str *jinja_repr(struct jinja *j, struct value v)
{
    struct text t = {0};
    put_repr(j, &t, v);
    return text_str(j, &t);
}

const struct str *jinja_to_str(struct jinja *j, struct value v)
{
    if (v.kind == V_STRING)
        return v.s;
    if (v.kind == V_UNDEFINED)
        return jinja_str_c(j, "");
    return jinja_repr(j, v);
}

/* ---- JSON ---- */

static void put_json_str(struct jinja *j, struct text *t, const struct str *s, bool ascii)
{
    static const char short_from[] = "\"\\\n\r\t\f\b", short_to[] = "\"\\nrtfb";
    const char *end = s->p + s->len;
    size_t n;
    text_put_c(j, t, "\"");
    for (const char *p = s->p; p < end; p += n) {
        int32_t c = jinja_char_at(p, end, &n);
        const char *escape = c > 0 && c < 0x80 ? strchr(short_from, c) : NULL;
        if (escape)
            put_f(j, t, "\\%c", short_to[escape - short_from]);
        else if (c < 0x20 || (ascii && c >= 0x7f && c < 0x10000))
            put_f(j, t, "\\u%04x", (unsigned)c);
        else if (ascii && c >= 0x10000)
            put_f(j, t, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
                  (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
        else
            text_put(j, t, p, n);
    }
    text_put_c(j, t, "\"");
}

static void put_json_newline(struct jinja *j, struct text *t, const struct json_style *style, int level)
{
    if (!style->indent)
        return;
    text_put_c(j, t, "\n");
    text_repeat(j, t, style->indent->p, style->indent->len, (size_t)level);
}

static void put_json(struct jinja *j, struct text *t, struct value v, const struct json_style *style,
                     int level);

static void put_json_key(struct jinja *j, struct text *t, struct value key, const struct json_style *style)
{
    if (key.kind == V_STRING) {
        put_json_str(j, t, key.s, style->ensure_ascii);
        return;
    }
    if (key.kind != V_NONE && key.kind != V_BOOL && key.kind != V_INT && key.kind != V_FLOAT)
        jinja_fail(j, "keys must be str, int, float, bool or None, not %s", jinja_type_name(key));
    text_put_c(j, t, "\"");
    put_json(j, t, key, style, 0);
    text_put_c(j, t, "\"");
}

static const struct dict_entry *sorted_entries(struct jinja *j, const struct dict *d)
{
    struct dict_entry *e = jinja_grow(j, d->e, d->n, d->n, sizeof *e);
    for (size_t i = 1; i < d->n; i++) { /* few keys */
        struct dict_entry x = e[i];
        size_t k = i;
        for (; k > 0 && jinja_compare(j, x.key, e[k - 1].key, "<") < 0; k--)
            e[k] = e[k - 1];
        e[k] = x;
    }
    return e;
}

static void put_json(struct jinja *j, struct text *t, struct value v, const struct json_style *style,
                     int level)
{
    jinja_step(j, 1);
    jinja_enter(j);
    switch (v.kind) {
    case V_NONE:
        text_put_c(j, t, "null");
        break;
    case V_BOOL:
        text_put_c(j, t, v.b ? "true" : "false");
        break;
    case V_INT:
        put_f(j, t, "%" PRId64, v.i);
        break;
    case V_FLOAT:
        if (isfinite(v.f))
            jinja_put_float(j, t, v.f);
        else
            text_put_c(j, t, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
        break;
    case V_STRING:
        put_json_str(j, t, v.s, style->ensure_ascii);
        break;
    case V_LIST:
    case V_TUPLE:
        text_put_c(j, t, "[");
        for (size_t i = 0; i < v.l->n; i++) {
            if (i)
                text_put_str(j, t, style->item_separator);
            put_json_newline(j, t, style, level + 1);
            put_json(j, t, v.l->v[i], style, level + 1);
        }
        if (v.l->n)
            put_json_newline(j, t, style, level);
        text_put_c(j, t, "]");
        break;
    case V_DICT: {
        const struct dict_entry *e = style->sort_keys ? sorted_entries(j, v.d) : v.d->e;
        text_put_c(j, t, "{");
        for (size_t i = 0; i < v.d->n; i++) {
            if (i)
                text_put_str(j, t, style->item_separator);
            put_json_newline(j, t, style, level + 1);
            put_json_key(j, t, e[i].key, style);
            text_put_str(j, t, style->key_separator);
            put_json(j, t, e[i].value, style, level + 1);
        }
        if (v.d->n)
            put_json_newline(j, t, style, level);
        text_put_c(j, t, "}");
        break;
    }
    default:
        jinja_fail(j, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
    jinja_leave(j);
}

const struct str *jinja_to_json(struct jinja *j, struct value v, const struct json_style *style)
{
    struct text t = {0};
    put_json(j, &t, v, style, 0);
    return text_str(j, &t);
}

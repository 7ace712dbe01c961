/* Filters of text and numbers, and the table of all filters' names. */
#include "tokenizer/jinja.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- text ---- */

static struct value filter_string(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_to_str(j, v));
}

static struct value filter_upper(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, jinja_to_str(j, v), CASE_UPPER));
}

static struct value filter_lower(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, jinja_to_str(j, v), CASE_LOWER));
}

static struct value filter_capitalize(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, jinja_to_str(j, v), CASE_CAPITALIZE));
}

/* Jinja's own title: words begin after whitespace and - ( { [ < only. */
static struct value filter_title(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    const struct str *s = jinja_to_str(j, v);
    struct text t = {0};
    const char *end = s->p + s->len, *word = s->p;
    size_t n = 0;
    for (const char *p = s->p; p <= end; p += n) {
        int32_t c = p < end ? jinja_char_at(p, end, &n) : ' ';
        bool separates = jinja_is_space(c) || (c < 0x80 && strchr("-({[<", (int)c) && c);
        if (!separates)
            continue;
        const struct str *w = jinja_str_lent(j, word, (size_t)(p - word));
        text_put_str(j, &t, jinja_case(j, w, CASE_CAPITALIZE));
        if (p == end)
            break;
        text_put(j, &t, p, n);
        word = p + n;
    }
    return v_str(jinja_str_safe(j, text_str(j, &t), s->safe));
}

static const struct str *optional_chars(struct jinja *j, struct value v)
{
    if (v.kind == V_ABSENT || v.kind == V_NONE)
        return NULL;
    if (v.kind != V_STRING)
        jinja_fail(j, "strip arg must be None or str");
    return v.s;
}

static struct value filter_trim(struct jinja *j, struct value v, struct args *a)
{
    return v_str(jinja_strip(j, jinja_to_str(j, v), optional_chars(j, a->v[0]), STRIP_LEFT | STRIP_RIGHT));
}

static int64_t optional_int(struct jinja *j, struct value v, int64_t absent)
{
    return v.kind == V_NONE ? absent : jinja_int_arg(j, v, absent);
}

static struct value filter_replace(struct jinja *j, struct value v, struct args *a)
{
    const struct str *s = jinja_str_safe(j, jinja_to_str(j, v), false);
    return v_str(jinja_replace(j, s, jinja_to_str(j, a->v[0]), jinja_to_str(j, a->v[1]),
                               optional_int(j, a->v[2], -1)));
}

static struct value filter_indent(struct jinja *j, struct value v, struct args *a)
{
    struct value width = a->v[0].kind == V_ABSENT ? v_int(4) : a->v[0];
    bool first = jinja_bool_arg(j, a->v[1], false), blank = jinja_bool_arg(j, a->v[2], false);
    if (width.kind != V_STRING)
        width = jinja_binary(j, OP_MUL, v_str(jinja_str_c(j, " ")), width);
    /* A newline more is how Jinja keeps a last, empty line. */
    struct value lines =
        jinja_splitlines(j, jinja_binary(j, OP_ADD, v, v_str(jinja_str_c(j, "\n"))).s, false);
    struct text t = {0};
    for (size_t i = 0; i < lines.l->n; i++) {
        const struct str *line = lines.l->v[i].s;
        if (i)
            text_put_c(j, &t, "\n");
        if (i == 0 ? first : blank || line->len)
            text_put_str(j, &t, width.s);
        text_put_str(j, &t, line);
    }
    return v_str(jinja_str_safe(j, text_str(j, &t), v.s->safe));
}

static struct value filter_center(struct jinja *j, struct value v, struct args *a)
{
    struct args centre = {.pos = (struct value[]){v_int(jinja_int_arg(j, a->v[0], 80))}, .n_pos = 1};
    return jinja_call(j, jinja_getattr(j, v_str(jinja_to_str(j, v)), jinja_str_c(j, "center")), &centre);
}

static struct value filter_wordcount(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    const struct str *s = jinja_to_str(j, v);
    bool inside = false;
    int64_t words = 0;
    size_t n;
    jinja_step(j, s->len / 16);
    for (const char *p = s->p, *end = p + s->len; p < end; p += n) {
        bool word = jinja_is_word(jinja_char_at(p, end, &n));
        words += word && !inside;
        inside = word;
    }
    return v_int(words);
}

static struct value filter_truncate(struct jinja *j, struct value v, struct args *a)
{
    int64_t length = jinja_int_arg(j, a->v[0], 255), leeway = optional_int(j, a->v[3], 5);
    bool kill_words = jinja_bool_arg(j, a->v[1], false);
    struct value end = a->v[2].kind == V_ABSENT ? v_str(jinja_str_c(j, "...")) : a->v[2];
    if (v.kind != V_STRING || end.kind != V_STRING)
        jinja_fail(j, "truncate needs strings");
    int64_t n_end = (int64_t)jinja_n_chars(end.s), n = (int64_t)jinja_n_chars(v.s);
    if (length < n_end || leeway < 0)
        jinja_fail(j, "truncate: the length or the leeway is too small");
    if (n <= length || n - length <= leeway)
        return v;
    const struct str *cut = jinja_str_slice(j, v.s, 0, 1, (size_t)(length - n_end));
    if (!kill_words)
        cut = jinja_split(j, cut, jinja_str_c(j, " "), 1, true).l->v[0].s;
    return jinja_binary(j, OP_ADD, v_str(cut), end);
}

static struct value filter_escape(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_escape(j, jinja_to_str(j, v)));
}

static struct value filter_forceescape(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_escape(j, jinja_str_safe(j, jinja_to_str(j, v), false)));
}

static struct value filter_safe(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_str(jinja_str_safe(j, jinja_to_str(j, v), true));
}

static struct value filter_format(struct jinja *j, struct value v, struct args *a)
{
    struct value args = jinja_tuple(j, a->pos, a->n_pos);
    if (a->n_kw && a->n_pos)
        jinja_fail(j, "can't handle positional and keyword arguments at the same time");
    if (a->n_kw) {
        args = v_dict(jinja_dict_new(j));
        for (size_t i = 0; i < a->n_kw; i++)
            jinja_dict_set(j, args.d, v_str(a->kw[i].name), a->kw[i].value);
    }
    return v_str(jinja_percent(j, jinja_to_str(j, v), args));
}

static void put_quoted(struct jinja *j, struct text *t, const struct str *s, bool query)
{
    for (size_t i = 0; i < s->len; i++) {
        unsigned char c = (unsigned char)s->p[i];
        char hex[4];
        bool plain = (c < 0x80 && c != '_' && jinja_is_word(c)) || (c && strchr("_.-~", c));
        if (plain || (c == '/' && !query))
            text_put(j, t, &s->p[i], 1);
        else if (c == ' ' && query)
            text_put_c(j, t, "+");
        else
            text_put(j, t, hex, (size_t)snprintf(hex, sizeof hex, "%%%02X", c));
    }
}

static struct value filter_urlencode(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    struct text t = {0};
    if (v.kind != V_DICT && v.kind != V_STRING && v.kind != V_UNDEFINED && jinja_try_iter(j, v))
        jinja_fail(j, "urlencode takes text or a mapping");
    if (v.kind != V_DICT) {
        put_quoted(j, &t, jinja_to_str(j, v), false);
    } else {
        for (size_t i = 0; i < v.d->n; i++) {
            text_put_c(j, &t, i ? "&" : "");
            put_quoted(j, &t, jinja_to_str(j, v.d->e[i].key), true);
            text_put_c(j, &t, "=");
            put_quoted(j, &t, jinja_to_str(j, v.d->e[i].value), true);
        }
    }
    return v_str(text_str(j, &t));
}

static const struct str *separator(struct jinja *j, struct value pair, size_t i, const char *otherwise)
{
    if (pair.kind == V_ABSENT || pair.kind == V_NONE)
        return jinja_str_c(j, otherwise);
    if ((pair.kind != V_LIST && pair.kind != V_TUPLE) || pair.l->n != 2 || pair.l->v[i].kind != V_STRING)
        jinja_fail(j, "tojson: separators must be two strings");
    return pair.l->v[i].s;
}

/* The filter that Hugging Face puts in the place of Jinja's: no HTML escaping, json.dumps' arguments. */
static struct value filter_tojson(struct jinja *j, struct value v, struct args *a)
{
    struct value indent = a->v[1];
    int64_t n = 0;
    struct json_style style = {
        .ensure_ascii = jinja_bool_arg(j, a->v[0], false),
        .sort_keys = jinja_bool_arg(j, a->v[3], false),
    };
    if (indent.kind == V_STRING)
        style.indent = indent.s;
    else if (jinja_as_int(indent, &n))
        style.indent = jinja_binary(j, OP_MUL, v_str(jinja_str_c(j, " ")), v_int(n)).s;
    else if (indent.kind != V_ABSENT && indent.kind != V_NONE)
        jinja_fail(j, "tojson: indent must be an integer or a string");
    style.item_separator = separator(j, a->v[2], 0, style.indent ? "," : ", ");
    style.key_separator = separator(j, a->v[2], 1, ": ");
    return v_str(jinja_to_json(j, v, &style));
}

/* ---- numbers ---- */

/* The text without the underscores that may stand between digits, NUL-terminated; NULL: one elsewhere. */
static char *plain_digits(struct jinja *j, const struct str *s)
{
    s = jinja_strip(j, s, NULL, STRIP_LEFT | STRIP_RIGHT);
    char *out = jinja_alloc(j, s->len + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) {
        if (s->p[i] == '_') {
            bool between = i > 0 && i + 1 < s->len && s->p[i - 1] != '_' && s->p[i + 1] != '_' &&
                           jinja_is_word((unsigned char)s->p[i - 1]) &&
                           jinja_is_word((unsigned char)s->p[i + 1]);
            if (!between)
                return NULL;
            continue;
        }
        if (!s->p[i])
            return NULL;
        out[n++] = s->p[i];
    }
    return out;
}

static bool parse_int_text(struct jinja *j, const struct str *s, int64_t base, int64_t *out)
{
    const char *p = plain_digits(j, s);
    bool negative = p && *p == '-';
    if (!p || base < 2 || base > 36)
        return false;
    p += *p == '-' || *p == '+';
    if (*p == '0' && ((base == 16 && (p[1] | 32) == 'x') || (base == 8 && (p[1] | 32) == 'o') ||
                      (base == 2 && (p[1] | 32) == 'b')))
        p += 2;
    if (!*p)
        return false;
    int64_t n = 0;
    bool over = false;
    for (; *p; p++) {
        int digit = *p >= '0' && *p <= '9'                 ? *p - '0'
                    : (*p | 32) >= 'a' && (*p | 32) <= 'z' ? (*p | 32) - 'a' + 10
                                                           : 99;
        if (digit >= base)
            return false;
        over |= __builtin_mul_overflow(n, base, &n) || __builtin_sub_overflow(n, (int64_t)digit, &n);
    }
    if (over || (!negative && n == INT64_MIN))
        jinja_fail(j, "integer overflow");
    *out = negative ? n : -n;
    return true;
}

static bool parse_float_text(struct jinja *j, const struct str *s, double *out)
{
    const char *p = plain_digits(j, s), *q;
    char *end;
    if (!p || !*p)
        return false;
    q = p + (*p == '-' || *p == '+');
    if (!((*q >= '0' && *q <= '9') || *q == '.' || (*q | 32) == 'i' || (*q | 32) == 'n') ||
        strpbrk(q, "xXpP("))
        return false; /* what strtod would take and Python does not: hexadecimal, nan(…), spaces */
    *out = strtod(p, &end);
    return end > p && *end == '\0';
}

static struct value filter_int(struct jinja *j, struct value v, struct args *a)
{
    int64_t i = 0;
    double f = 0;
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    if (v.kind == V_STRING && parse_int_text(j, v.s, jinja_int_arg(j, a->v[1], 10), &i))
        return v_int(i);
    if (jinja_as_int(v, &i))
        return v_int(i);
    if (v.kind == V_FLOAT && !isnan(v.f) && !jinja_truncate(v.f, &i))
        jinja_fail(j, "integer overflow");
    if ((v.kind == V_FLOAT && jinja_truncate(v.f, &i)) ||
        (v.kind == V_STRING && parse_float_text(j, v.s, &f) && jinja_truncate(f, &i)))
        return v_int(i);
    return a->v[0].kind == V_ABSENT ? v_int(0) : a->v[0];
}

static struct value filter_float(struct jinja *j, struct value v, struct args *a)
{
    double f = 0;
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    if (jinja_as_float(v, &f) || (v.kind == V_STRING && parse_float_text(j, v.s, &f)))
        return v_float(f);
    return a->v[0].kind == V_ABSENT ? v_float(0) : a->v[0];
}

static struct value filter_abs(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    int64_t i = 0;
    if (v.kind == V_FLOAT)
        return v_float(fabs(v.f));
    if (jinja_as_int(v, &i))
        return i < 0 ? jinja_unary(j, OP_NEG, v) : v_int(i);
    jinja_fail(j, "bad operand type for abs(): '%s'", jinja_type_name(v));
}

/* Python's round: to even on a tie, by the exact decimal value of the double. */
static double round_float(double f, int64_t precision)
{
    char digits[512];
    if (!isfinite(f) || precision > 323)
        return f;
    if (precision < 0) {
        double scale = precision < -308 ? INFINITY : pow(10, (double)-precision);
        return isinf(scale) ? copysign(0, f) : rint(f / scale) * scale;
    }
    (void)snprintf(digits, sizeof digits, "%.*f", precision > 150 ? 150 : (int)precision, f);
    return precision > 150 && fabs(f) < 1e150 ? f : strtod(digits, NULL);
}

static int64_t round_int(struct jinja *j, int64_t i, int64_t precision)
{
    if (precision >= 0)
        return i;
    if (precision < -18)
        return 0;
    int64_t scale = 1;
    for (; precision < 0; precision++)
        scale *= 10;
    int64_t rest = ((i % scale) + scale) % scale, half = scale / 2, down = i - rest;
    if (down > i) /* wrapped: i is next to INT64_MIN */
        jinja_fail(j, "integer overflow");
    bool up = rest > half || (rest == half && (down / scale) % 2 != 0);
    if (up && __builtin_add_overflow(down, scale, &down))
        jinja_fail(j, "integer overflow");
    return down;
}

static struct value filter_round(struct jinja *j, struct value v, struct args *a)
{
    int64_t precision = jinja_int_arg(j, a->v[0], 0), i = 0;
    double f = 0;
    struct value method = a->v[1];
    if (!jinja_as_float(v, &f)) {
        if (v.kind == V_UNDEFINED)
            jinja_fail_undefined(j, v);
        jinja_fail(j, "type %s doesn't define __round__ method", jinja_type_name(v));
    }
    bool common = method.kind == V_ABSENT || (method.kind == V_STRING && jinja_str_is(method.s, "common"));
    bool up = method.kind == V_STRING && jinja_str_is(method.s, "ceil");
    if (!common && !up && !(method.kind == V_STRING && jinja_str_is(method.s, "floor")))
        jinja_fail(j, "method must be common, ceil or floor");
    if (common)
        return jinja_as_int(v, &i) ? v_int(round_int(j, i, precision)) : v_float(round_float(f, precision));
    double scale = pow(10, (double)precision);
    return v_float((up ? ceil(f * scale) : floor(f * scale)) / scale);
}

/* ---- anything ---- */

static struct value filter_default(struct jinja *j, struct value v, struct args *a)
{
    if (v.kind == V_UNDEFINED || (jinja_bool_arg(j, a->v[1], false) && !jinja_truth(j, v)))
        return a->v[0].kind == V_ABSENT ? v_str(jinja_str_c(j, "")) : a->v[0];
    return v;
}

static struct value filter_attr(struct jinja *j, struct value v, struct args *a)
{
    struct value out;
    bool unsafe;
    if (a->v[0].kind != V_STRING)
        jinja_fail(j, "attr needs a name");
    if (v.kind != V_UNDEFINED && !jinja_method(j, v, a->v[0].s, &out, &unsafe))
        return jinja_undefined_attr(j, v, a->v[0]);
    return jinja_getattr(j, v, a->v[0].s);
}

static const struct builtin filters[] = {
    {"tojson", filter_tojson, 0, "ensure_ascii indent separators sort_keys"},
    {"trim", filter_trim, 0, "chars"},
    {"default", filter_default, 0, "default_value boolean"},
    {"d", filter_default, 0, "default_value boolean"},
    {"string", filter_string, 0, ""},
    {"safe", filter_safe, 0, ""},
    {"upper", filter_upper, 0, ""},
    {"lower", filter_lower, 0, ""},
    {"title", filter_title, 0, ""},
    {"capitalize", filter_capitalize, 0, ""},
    {"replace", filter_replace, 2, "old new count"},
    {"indent", filter_indent, 0, "width first blank"},
    {"format", filter_format, 0, NULL},
    {"escape", filter_escape, 0, ""},
    {"e", filter_escape, 0, ""},
    {"forceescape", filter_forceescape, 0, ""},
    {"int", filter_int, 0, "default base"},
    {"float", filter_float, 0, "default"},
    {"abs", filter_abs, 0, ""},
    {"round", filter_round, 0, "precision method"},
    {"attr", filter_attr, 1, "name"},
    {"center", filter_center, 0, "width"},
    {"wordcount", filter_wordcount, 0, ""},
    {"truncate", filter_truncate, 0, "length killwords end leeway"},
    {"urlencode", filter_urlencode, 0, ""},
};

const struct builtin *jinja_filter_find(const char *name, size_t len)
{
    const struct builtin *row = builtin_find(filters, sizeof filters / sizeof filters[0], name, len);
    return row ? row : jinja_sequence_filter_find(name, len);
}

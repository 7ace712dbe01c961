/* Python's two ways of filling a text: "%s" % x and "{}".format(x). */
#include "tokenizer/jinja.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PRECISION = 100 };

/* How one value is to look; both syntaxes fill it. */
struct spec {
    int32_t fill;
    char align; /* < > ^ = or 0: the type's own */
    char sign;  /* + or space: shown for positive numbers; 0: not */
    bool alternate, grouped;
    int64_t width, precision; /* −1: none */
    char type;                /* 0: the type's own */
};

static void put_padded(struct jinja *j, struct text *t, const struct spec *s, char align,
                       const struct str *prefix, const struct str *body)
{
    size_t n = jinja_n_chars(prefix) + jinja_n_chars(body);
    size_t pad = s->width > 0 && (uint64_t)s->width > n ? (size_t)s->width - n : 0;
    if (s->align)
        align = s->align;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0, inside = align == '=' ? pad : 0;
    char fill[4];
    size_t n_fill = jinja_char_put(fill, s->fill);
    text_repeat(j, t, fill, n_fill, left);
    text_put_str(j, t, prefix);
    text_repeat(j, t, fill, n_fill, inside);
    text_put_str(j, t, body);
    text_repeat(j, t, fill, n_fill, pad - left - inside);
}

static void put_string(struct jinja *j, struct text *t, const struct spec *s, const struct str *str)
{
    if (s->precision >= 0 && (uint64_t)s->precision < jinja_n_chars(str))
        str = jinja_str_slice(j, str, 0, 1, (size_t)s->precision);
    put_padded(j, t, s, '<', jinja_str_c(j, ""), str);
}

/* digits with a comma between thousands of their integer part */
static const struct str *group(struct jinja *j, const char *digits)
{
    struct text t = {0};
    size_t whole = strspn(digits, "0123456789");
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % 3 == 0)
            text_put_c(j, &t, ",");
        text_put(j, &t, digits + i, 1);
    }
    text_put_c(j, &t, digits + whole);
    return text_str(j, &t);
}

static void put_number(struct jinja *j, struct text *t, const struct spec *s, bool negative,
                       const char *prefix, const char *digits)
{
    struct text signs = {0};
    if (negative)
        text_put_c(j, &signs, "-");
    else if (s->sign)
        text_put(j, &signs, &s->sign, 1);
    text_put_c(j, &signs, prefix);
    const struct str *body = s->grouped ? group(j, digits) : jinja_str(j, digits, strlen(digits));
    put_padded(j, t, s, '>', text_str(j, &signs), body);
}

static void put_int(struct jinja *j, struct text *t, const struct spec *s, int64_t i)
{
    char digits[72];
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    const char *prefix = "";
    size_t n = 0;
    switch (s->type) {
    case 'x':
        (void)snprintf(digits, sizeof digits, "%" PRIx64, u);
        prefix = "0x";
        break;
    case 'X':
        (void)snprintf(digits, sizeof digits, "%" PRIX64, u);
        prefix = "0X";
        break;
    case 'o':
        (void)snprintf(digits, sizeof digits, "%" PRIo64, u);
        prefix = "0o";
        break;
    case 'b':
        for (int bit = 63; bit >= 0; bit--)
            if (n > 0 || u >> bit & 1 || bit == 0)
                digits[n++] = (char)('0' + (u >> bit & 1));
        digits[n] = '\0';
        prefix = "0b";
        break;
    default:
        (void)snprintf(digits, sizeof digits, "%" PRIu64, u);
    }
    put_number(j, t, s, i < 0, s->alternate ? prefix : "", digits);
}

static void put_float(struct jinja *j, struct text *t, const struct spec *s, double f)
{
    char digits[512], type = s->type;
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    double magnitude = fabs(f);
    if (s->precision > MAX_PRECISION)
        jinja_fail(j, "precision too big");
    if (!type && s->precision < 0 && isfinite(f)) {
        struct text repr = {0};
        jinja_put_float(j, &repr, magnitude);
        text_put(j, &repr, "", 1);
        put_number(j, t, s, signbit(f), "", repr.p);
        return;
    }
    if (type == '%')
        magnitude *= 100;
    switch (type) {
    case 'e':
        (void)snprintf(digits, sizeof digits, "%.*e", precision, magnitude);
        break;
    case 'E':
        (void)snprintf(digits, sizeof digits, "%.*E", precision, magnitude);
        break;
    case 'g':
    case 0:
        (void)snprintf(digits, sizeof digits, "%.*g", precision, magnitude);
        break;
    case 'G':
        (void)snprintf(digits, sizeof digits, "%.*G", precision, magnitude);
        break;
    default:
        (void)snprintf(digits, sizeof digits, "%.*f", precision, magnitude);
    }
    if (type == '%')
        (void)strncat(digits, "%", sizeof digits - strlen(digits) - 1);
    put_number(j, t, s, signbit(f) && !isnan(f), "", digits);
}

/* ---- % ---- */

struct percent_args {
    struct value all; /* a tuple, a dict or one value */
    size_t n_used;
};

static struct value next_arg(struct jinja *j, struct percent_args *a)
{
    size_t n = a->all.kind == V_TUPLE ? a->all.l->n : 1;
    if (a->n_used >= n)
        jinja_fail(j, "not enough arguments for format string");
    struct value v = a->all.kind == V_TUPLE ? a->all.l->v[a->n_used] : a->all;
    a->n_used++;
    return v;
}

static int64_t number(struct jinja *j, const char **p, const char *end)
{
    int64_t n = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p)
        if ((n = 10 * n + (**p - '0')) > JINJA_MAX_OUTPUT)
            jinja_fail(j, "width too big");
    return n;
}

static int64_t number_or_star(struct jinja *j, const char **p, const char *end, struct percent_args *a)
{
    if (*p == end || **p != '*')
        return number(j, p, end);
    ++*p;
    return jinja_int_arg(j, next_arg(j, a), 0);
}

static void percent_value(struct jinja *j, struct text *t, struct spec *s, struct value v)
{
    int64_t i = 0;
    double f = 0;
    switch (s->type) {
    case 's':
        put_string(j, t, s, jinja_to_str(j, v));
        return;
    case 'r':
    case 'a':
        put_string(j, t, s, jinja_repr(j, v));
        return;
    case 'c':
        if (v.kind == V_STRING && jinja_n_chars(v.s) == 1) {
            put_string(j, t, s, v.s);
            return;
        }
        break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        if (jinja_as_int(v, &i) || (v.kind == V_FLOAT && strchr("diu", s->type) && jinja_truncate(v.f, &i))) {
            put_int(j, t, s, i);
            return;
        }
        break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (jinja_as_float(v, &f)) {
            put_float(j, t, s, f);
            return;
        }
        break;
    default:
        jinja_fail(j, "unsupported format character '%c'", s->type > ' ' && s->type < 0x7f ? s->type : '?');
    }
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    jinja_fail(j, "%%%c format: not for '%s'", s->type, jinja_type_name(v));
}

static struct value percent_key(struct jinja *j, const char **p, const char *end,
                                const struct percent_args *a)
{
    const char *start = ++*p;
    for (int open = 1; *p < end; ++*p)
        if ((open += (**p == '(') - (**p == ')')) == 0)
            break;
    if (*p == end)
        jinja_fail(j, "incomplete format key");
    if (a->all.kind != V_DICT)
        jinja_fail(j, "format requires a mapping");
    struct value key = v_str(jinja_str_lent(j, start, (size_t)(*p - start)));
    const struct value *v = jinja_dict_get(j, a->all.d, key);
    if (!v)
        jinja_fail(j, "the format's mapping has no such key");
    ++*p;
    return *v;
}

const struct str *jinja_percent(struct jinja *j, const struct str *s, struct value args)
{
    struct text t = {0};
    struct percent_args a = {args, 0};
    bool keyed = false;
    for (const char *p = s->p, *end = p + s->len; p < end;) {
        const char *percent = memchr(p, '%', (size_t)(end - p));
        text_put(j, &t, p, (size_t)((percent ? percent : end) - p));
        if (!percent)
            break;
        struct spec spec = {.fill = ' ', .width = -1, .precision = -1, .align = '>'};
        struct value v = {.kind = V_ABSENT};
        p = percent + 1;
        if (p < end && *p == '(') {
            v = percent_key(j, &p, end, &a);
            keyed = true;
        }
        for (; p < end && strchr("#0- +", *p) && *p; p++) {
            if (*p == '-')
                spec.align = '<';
            else if (*p == '0' && spec.align != '<')
                spec.align = '=';
            else if (*p == '#')
                spec.alternate = true;
            else if (*p == '+' || (*p == ' ' && !spec.sign))
                spec.sign = *p;
        }
        spec.width = number_or_star(j, &p, end, &a);
        if (p < end && *p == '.') {
            p++;
            spec.precision = number_or_star(j, &p, end, &a);
        }
        while (p < end && (*p == 'h' || *p == 'l' || *p == 'L'))
            p++;
        if (p == end)
            jinja_fail(j, "incomplete format");
        spec.type = *p++;
        if (spec.type == '%') {
            text_put_c(j, &t, "%");
            continue;
        }
        if (spec.align == '=' && strchr("src", spec.type))
            spec.align = '>';
        spec.fill = spec.align == '=' ? '0' : ' ';
        percent_value(j, &t, &spec, v.kind == V_ABSENT ? next_arg(j, &a) : v);
    }
    /* Whatever has subscripts passes for a mapping, which need not be used up. */
    bool mapping =
        args.kind == V_DICT || args.kind == V_LIST || args.kind == V_RANGE || args.kind == V_UNDEFINED;
    size_t n = args.kind == V_TUPLE ? args.l->n : mapping ? 0 : 1;
    if (!keyed && a.n_used < n)
        jinja_fail(j, "not all arguments converted during string formatting");
    return jinja_str_safe(j, text_str(j, &t), s->safe);
}

/* ---- format ---- */

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static struct spec parse_spec(struct jinja *j, const char *p, const char *end)
{
    struct spec s = {.fill = ' ', .width = -1, .precision = -1};
    size_t n = 0;
    int32_t first = p < end ? jinja_char_at(p, end, &n) : 0;
    if (p + n < end && strchr("<>=^", p[n]) && p[n]) {
        s.fill = first;
        s.align = p[n];
        p += n + 1;
    } else if (p < end && strchr("<>=^", *p) && *p) {
        s.align = *p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) {
        s.sign = *p == '-' ? 0 : *p;
        p++;
    }
    if (p < end && *p == '#') {
        s.alternate = true;
        p++;
    }
    if (p < end && *p == '0') {
        if (!s.align) {
            s.align = '=';
            s.fill = '0';
        }
        p++;
    }
    if (p < end && *p >= '0' && *p <= '9')
        s.width = number(j, &p, end);
    if (p < end && *p == ',') {
        s.grouped = true;
        p++;
    }
    if (p < end && *p == '.') {
        p++;
        s.precision = number(j, &p, end);
    }
    if (p < end)
        s.type = *p++;
    if (p < end)
        jinja_fail(j, "Invalid format specifier");
    return s;
}

static void format_value(struct jinja *j, struct text *t, struct value v, const char *p, const char *end)
{
    struct spec s = parse_spec(j, p, end);
    int64_t i = 0;
    double f = 0;
    if (v.kind == V_STRING && (s.type == 0 || s.type == 's') && s.align != '=') {
        put_string(j, t, &s, v.s);
    } else if (v.kind == V_BOOL && p == end) {
        put_string(j, t, &s, jinja_to_str(j, v));
    } else if (jinja_as_int(v, &i) && (s.type == 0 || strchr("dnxXob", s.type))) {
        put_int(j, t, &s, i);
    } else if (jinja_as_float(v, &f) && (s.type == 0 || strchr("eEfFgGn%", s.type))) {
        if (s.type == 'n')
            s.type = 'g';
        put_float(j, t, &s, f);
    } else if (p == end) { /* anything prints without a specification */
        text_put_str(j, t, jinja_to_str(j, v));
    } else {
        jinja_fail(j, "unsupported format specification for '%s'", jinja_type_name(v));
    }
}

struct fields { /* how positional fields are numbered: "{} {}" or "{0} {1}", never both */
    size_t next;
    bool automatic, manual;
};

static struct value positional(struct jinja *j, const struct args *a, uint64_t i)
{
    if (i >= a->n_pos)
        jinja_fail(j, "Replacement index %" PRIu64 " out of range for positional args tuple", i);
    return a->pos[i];
}

/* The value that "name.attr[key]" means. */
static struct value field_value(struct jinja *j, const struct args *a, struct fields *fields, const char *p,
                                const char *end)
{
    const char *start = p;
    struct value v = {.kind = V_ABSENT};
    uint64_t i = 0;
    while (p < end && *p != '.' && *p != '[')
        p++;
    size_t len = (size_t)(p - start), n_digits = 0;
    for (; n_digits < len && n_digits < 9 && start[n_digits] >= '0' && start[n_digits] <= '9'; n_digits++)
        i = 10 * i + (uint64_t)(start[n_digits] - '0');
    if (n_digits == len) {
        *(len ? &fields->manual : &fields->automatic) = true;
        if (fields->manual && fields->automatic)
            jinja_fail(j, "cannot mix automatic and manual field numbering");
        v = positional(j, a, len ? i : fields->next++);
    } else {
        for (size_t k = 0; k < a->n_kw; k++)
            if (a->kw[k].name->len == len && memcmp(a->kw[k].name->p, start, len) == 0)
                v = a->kw[k].value;
        if (v.kind == V_ABSENT)
            jinja_fail(j, "format() was not given the field it names");
    }
    while (p < end) {
        bool attr = *p == '.';
        const char *name = ++p;
        while (p < end && (attr ? *p != '.' && *p != '[' : *p != ']'))
            p++;
        const struct str *key = jinja_str_lent(j, name, (size_t)(p - name));
        if (attr)
            v = jinja_getattr(j, v, key);
        else if (p == end)
            jinja_fail(j, "expected ']' in a format field");
        else
            v = jinja_getpath(j, v, v_str(key), (struct value){.kind = V_ABSENT});
        p += !attr;
    }
    return v;
}

const struct str *jinja_format(struct jinja *j, const struct str *s, const struct args *a)
{
    struct text t = {0};
    struct fields fields = {0};
    for (const char *p = s->p, *end = p + s->len; p < end; p++) {
        if (*p != '{' && *p != '}') {
            text_put(j, &t, p, 1);
            continue;
        }
        if (p + 1 < end && p[1] == *p) {
            text_put(j, &t, p++, 1);
            continue;
        }
        if (*p == '}')
            jinja_fail(j, "Single '}' encountered in format string");
        const char *start = ++p, *close = memchr(p, '}', (size_t)(end - p));
        if (!close || memchr(p, '{', (size_t)(close - p)))
            jinja_fail(j, close ? "nested format fields are not supported"
                                : "expected '}' before end of string");
        while (p < close && *p != '!' && *p != ':')
            p++;
        struct value v = field_value(j, a, &fields, start, p);
        if (*p == '!') {
            if (p + 1 >= close || !strchr("rsa", p[1]) || (p[2] != ':' && p + 2 != close))
                jinja_fail(j, "expected ':' after conversion specifier");
            v = v_str(p[1] == 's' ? jinja_to_str(j, v) : jinja_repr(j, v));
            p += 2;
        }
        if (s->safe)
            v = v_str(jinja_escape(j, jinja_to_str(j, v)));
        p += *p == ':';
        format_value(j, &t, v, p, close);
        p = close;
    }
    return jinja_str_safe(j, text_str(j, &t), s->safe);
}

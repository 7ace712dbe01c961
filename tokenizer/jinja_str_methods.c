/* The methods of str. */
#include "tokenizer/jinja.h"

#include <string.h>
#include <utf8proc.h>

static const struct str *str_arg(struct jinja *j, struct value v)
{
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    if (v.kind != V_STRING)
        jinja_fail(j, "must be str, not %s", jinja_type_name(v));
    return v.s;
}

static const struct str *optional_str(struct jinja *j, struct value v)
{
    return v.kind == V_ABSENT || v.kind == V_NONE ? NULL : str_arg(j, v);
}

/* s[start:end], as the optional arguments of find, count, startswith … say; *from: its first byte. NULL when
 * start is past the end, where not even an empty text is found. */
static const struct str *window(struct jinja *j, const struct str *s, struct value start, struct value end,
                                size_t *from)
{
    *from = 0;
    if (start.kind == V_ABSENT && end.kind == V_ABSENT)
        return s;
    struct value bounds[3] = {start.kind == V_ABSENT ? v_none() : start,
                              end.kind == V_ABSENT ? v_none() : end, v_none()};
    const struct str *part = jinja_slice(j, v_str(s), bounds).s;
    int64_t first = 0;
    if (jinja_as_int(start, &first) && first > (int64_t)jinja_n_chars(s))
        return NULL;
    *from = (size_t)(part->p - s->p); /* a slice with step 1 is lent */
    return part;
}

static struct value str_strip(struct jinja *j, struct value self, struct args *a)
{
    return v_str(jinja_strip(j, self.s, optional_str(j, a->v[0]), STRIP_LEFT | STRIP_RIGHT));
}

static struct value str_lstrip(struct jinja *j, struct value self, struct args *a)
{
    return v_str(jinja_strip(j, self.s, optional_str(j, a->v[0]), STRIP_LEFT));
}

static struct value str_rstrip(struct jinja *j, struct value self, struct args *a)
{
    return v_str(jinja_strip(j, self.s, optional_str(j, a->v[0]), STRIP_RIGHT));
}

static struct value str_split(struct jinja *j, struct value self, struct args *a)
{
    return jinja_split(j, self.s, optional_str(j, a->v[0]), jinja_int_arg(j, a->v[1], -1), false);
}

static struct value str_rsplit(struct jinja *j, struct value self, struct args *a)
{
    return jinja_split(j, self.s, optional_str(j, a->v[0]), jinja_int_arg(j, a->v[1], -1), true);
}

static struct value str_splitlines(struct jinja *j, struct value self, struct args *a)
{
    return jinja_splitlines(j, self.s, jinja_int_arg(j, a->v[0], 0) != 0);
}

static struct value partition(struct jinja *j, const struct str *s, const struct str *sep, bool from_right)
{
    if (sep->len == 0)
        jinja_fail(j, "empty separator");
    size_t at = from_right ? jinja_rfind(j, s, sep) : jinja_find(j, s, sep, 0);
    struct value empty = v_str(jinja_str_c(j, ""));
    struct value parts[3] = {empty, empty, empty};
    if (at == SIZE_MAX) {
        parts[from_right ? 2 : 0] = v_str(s);
    } else {
        size_t after = at + sep->len;
        parts[0] = v_str(jinja_substr(j, s, 0, at));
        parts[1] = v_str(sep);
        parts[2] = v_str(jinja_substr(j, s, after, s->len - after));
    }
    return jinja_tuple(j, parts, 3);
}

static struct value str_partition(struct jinja *j, struct value self, struct args *a)
{
    return partition(j, self.s, str_arg(j, a->v[0]), false);
}

static struct value str_rpartition(struct jinja *j, struct value self, struct args *a)
{
    return partition(j, self.s, str_arg(j, a->v[0]), true);
}

static bool has_affix(const struct str *s, const struct str *affix, bool at_end)
{
    return s && affix->len <= s->len &&
           memcmp(at_end ? s->p + s->len - affix->len : s->p, affix->p, affix->len) == 0;
}

/* startswith, endswith: a string or a tuple of them */
static struct value test_affix(struct jinja *j, struct value self, struct args *a, bool at_end)
{
    size_t from;
    const struct str *s = window(j, self.s, a->v[1], a->v[2], &from);
    if (a->v[0].kind != V_TUPLE)
        return v_bool(has_affix(s, str_arg(j, a->v[0]), at_end));
    for (size_t i = 0; i < a->v[0].l->n; i++)
        if (has_affix(s, str_arg(j, a->v[0].l->v[i]), at_end))
            return v_bool(true);
    return v_bool(false);
}

static struct value str_startswith(struct jinja *j, struct value self, struct args *a)
{
    return test_affix(j, self, a, false);
}

static struct value str_endswith(struct jinja *j, struct value self, struct args *a)
{
    return test_affix(j, self, a, true);
}

static struct value str_removeprefix(struct jinja *j, struct value self, struct args *a)
{
    const struct str *s = self.s, *affix = str_arg(j, a->v[0]);
    return has_affix(s, affix, false) ? v_str(jinja_substr(j, s, affix->len, s->len - affix->len)) : self;
}

static struct value str_removesuffix(struct jinja *j, struct value self, struct args *a)
{
    const struct str *s = self.s, *affix = str_arg(j, a->v[0]);
    return has_affix(s, affix, true) ? v_str(jinja_substr(j, s, 0, s->len - affix->len)) : self;
}

static struct value str_upper(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, self.s, CASE_UPPER));
}

static struct value str_lower(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, self.s, CASE_LOWER));
}

static struct value str_title(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, self.s, CASE_TITLE));
}

static struct value str_capitalize(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, self.s, CASE_CAPITALIZE));
}

static struct value str_swapcase(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return v_str(jinja_case(j, self.s, CASE_SWAP));
}

static struct value str_replace(struct jinja *j, struct value self, struct args *a)
{
    const struct str *old = str_arg(j, a->v[0]), *with = str_arg(j, a->v[1]);
    if (self.s->safe) {
        old = jinja_escape(j, old);
        with = jinja_escape(j, with);
    }
    return v_str(jinja_replace(j, self.s, old, with, jinja_int_arg(j, a->v[2], -1)));
}

/* Code point index of sub in s[start:end], −1: not there. */
static int64_t find(struct jinja *j, struct value self, struct args *a, bool from_right)
{
    size_t from;
    const struct str *sub = str_arg(j, a->v[0]), *s = window(j, self.s, a->v[1], a->v[2], &from);
    size_t at = !s ? SIZE_MAX : from_right ? jinja_rfind(j, s, sub) : jinja_find(j, s, sub, 0);
    return at == SIZE_MAX ? -1 : (int64_t)jinja_char_index(self.s, from + at);
}

static struct value str_find(struct jinja *j, struct value self, struct args *a)
{
    return v_int(find(j, self, a, false));
}

static struct value str_rfind(struct jinja *j, struct value self, struct args *a)
{
    return v_int(find(j, self, a, true));
}

static struct value found(struct jinja *j, int64_t at)
{
    if (at < 0)
        jinja_fail(j, "substring not found");
    return v_int(at);
}

static struct value str_index(struct jinja *j, struct value self, struct args *a)
{
    return found(j, find(j, self, a, false));
}

static struct value str_rindex(struct jinja *j, struct value self, struct args *a)
{
    return found(j, find(j, self, a, true));
}

static struct value str_count(struct jinja *j, struct value self, struct args *a)
{
    size_t from, at = 0;
    const struct str *sub = str_arg(j, a->v[0]), *s = window(j, self.s, a->v[1], a->v[2], &from);
    int64_t n = 0;
    if (!s)
        return v_int(0);
    if (sub->len == 0)
        return v_int((int64_t)jinja_n_chars(s) + 1);
    for (; (at = jinja_find(j, s, sub, at)) != SIZE_MAX; at += sub->len) {
        jinja_step(j, 1);
        n++;
    }
    return v_int(n);
}

static struct value str_join(struct jinja *j, struct value self, struct args *a)
{
    struct text t = {0};
    struct iter *it = jinja_iter(j, a->v[0]);
    struct value v;
    for (bool first = true; jinja_next(j, it, &v); first = false) {
        if (v.kind != V_STRING)
            jinja_fail(j, "join: expected str instance, %s found", jinja_type_name(v));
        if (!first)
            text_put_str(j, &t, self.s);
        text_put_str(j, &t, self.s->safe ? jinja_escape(j, v.s) : v.s);
    }
    return v_str(jinja_str_safe(j, text_str(j, &t), self.s->safe));
}

static struct value str_format(struct jinja *j, struct value self, struct args *a)
{
    return v_str(jinja_format(j, self.s, a));
}

static size_t pad_width(struct jinja *j, const struct str *s, struct value width)
{
    int64_t w = jinja_int_arg(j, width, 0);
    size_t n = jinja_n_chars(s);
    return w > 0 && (uint64_t)w > n ? (size_t)w - n : 0;
}

static struct value pad(struct jinja *j, const struct str *s, struct args *a, size_t left, size_t right)
{
    const struct str *fill = optional_str(j, a->v[1]);
    if (fill && jinja_n_chars(fill) != 1)
        jinja_fail(j, "The fill character must be exactly one character long");
    struct text t = {0};
    if (!fill)
        fill = jinja_str_c(j, " ");
    text_repeat(j, &t, fill->p, fill->len, left);
    text_put_str(j, &t, s);
    text_repeat(j, &t, fill->p, fill->len, right);
    return v_str(jinja_str_safe(j, text_str(j, &t), s->safe));
}

static struct value str_center(struct jinja *j, struct value self, struct args *a)
{
    size_t n = pad_width(j, self.s, a->v[0]);
    size_t left = n / 2 + (n & (size_t)jinja_int_arg(j, a->v[0], 0) & 1); /* CPython's odd column */
    return pad(j, self.s, a, left, n - left);
}

static struct value str_ljust(struct jinja *j, struct value self, struct args *a)
{
    return pad(j, self.s, a, 0, pad_width(j, self.s, a->v[0]));
}

static struct value str_rjust(struct jinja *j, struct value self, struct args *a)
{
    return pad(j, self.s, a, pad_width(j, self.s, a->v[0]), 0);
}

static struct value str_zfill(struct jinja *j, struct value self, struct args *a)
{
    struct text t = {0};
    size_t n = pad_width(j, self.s, a->v[0]);
    size_t sign = self.s->len > 0 && (self.s->p[0] == '+' || self.s->p[0] == '-');
    text_put(j, &t, self.s->p, sign);
    text_repeat(j, &t, "0", 1, n);
    text_put(j, &t, self.s->p + sign, self.s->len - sign);
    return v_str(text_str(j, &t));
}

/* ---- str.isalpha and its like: what all characters must be ---- */

static bool is_alpha(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(int32_t c)
{
    return utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

static bool is_digit(int32_t c) /* superscripts and circled digits too */
{
    return is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 ||
           (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}

static bool is_numeric(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

static bool is_alnum(int32_t c)
{
    return is_alpha(c) || is_numeric(c);
}

static bool is_ascii(int32_t c)
{
    return c < 0x80;
}

static struct value all_chars(struct jinja *j, const struct str *s, bool (*is)(int32_t), bool empty)
{
    size_t n;
    jinja_step(j, s->len / 16);
    for (const char *p = s->p, *end = p + s->len; p < end; p += n)
        if (!is(jinja_char_at(p, end, &n)))
            return v_bool(false);
    return v_bool(s->len ? true : empty);
}

static struct value str_isalpha(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, is_alpha, false);
}

static struct value str_isdecimal(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, is_decimal, false);
}

static struct value str_isdigit(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, is_digit, false);
}

static struct value str_isnumeric(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, is_numeric, false);
}

static struct value str_isalnum(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, is_alnum, false);
}

static struct value str_isspace(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, jinja_is_space, false);
}

static struct value str_isascii(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return all_chars(j, self.s, is_ascii, true);
}

/* At least one cased character, and none of the other case. */
static struct value one_case(struct jinja *j, const struct str *s, bool upper)
{
    size_t n;
    bool cased = false;
    jinja_step(j, s->len / 16);
    for (const char *p = s->p, *end = p + s->len; p < end; p += n) {
        int32_t c = jinja_char_at(p, end, &n);
        if (upper ? utf8proc_islower(c) : utf8proc_isupper(c))
            return v_bool(false);
        cased |= utf8proc_islower(c) || utf8proc_isupper(c);
    }
    return v_bool(cased);
}

static struct value str_isupper(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return one_case(j, self.s, true);
}

static struct value str_islower(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return one_case(j, self.s, false);
}

static struct value str_istitle(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    bool upper = false; /* what title() leaves alone and has a capital in it */
    size_t n;
    for (const char *p = self.s->p, *end = p + self.s->len; p < end; p += n)
        upper |= utf8proc_isupper(jinja_char_at(p, end, &n)) != 0;
    return v_bool(upper && jinja_str_eq(self.s, jinja_case(j, self.s, CASE_TITLE)));
}

static const struct builtin str_methods[] = {
    {"strip", str_strip, 0, "chars"},
    {"lstrip", str_lstrip, 0, "chars"},
    {"rstrip", str_rstrip, 0, "chars"},
    {"split", str_split, 0, "sep maxsplit"},
    {"rsplit", str_rsplit, 0, "sep maxsplit"},
    {"splitlines", str_splitlines, 0, "keepends"},
    {"partition", str_partition, 1, "sep"},
    {"rpartition", str_rpartition, 1, "sep"},
    {"startswith", str_startswith, 1, "prefix start end"},
    {"endswith", str_endswith, 1, "suffix start end"},
    {"removeprefix", str_removeprefix, 1, "prefix"},
    {"removesuffix", str_removesuffix, 1, "suffix"},
    {"upper", str_upper, 0, ""},
    {"lower", str_lower, 0, ""},
    {"casefold", str_lower, 0, ""},
    {"title", str_title, 0, ""},
    {"capitalize", str_capitalize, 0, ""},
    {"swapcase", str_swapcase, 0, ""},
    {"replace", str_replace, 2, "old new count"},
    {"find", str_find, 1, "sub start end"},
    {"rfind", str_rfind, 1, "sub start end"},
    {"index", str_index, 1, "sub start end"},
    {"rindex", str_rindex, 1, "sub start end"},
    {"count", str_count, 1, "sub start end"},
    {"join", str_join, 1, "iterable"},
    {"format", str_format, 0, NULL},
    {"center", str_center, 1, "width fillchar"},
    {"ljust", str_ljust, 1, "width fillchar"},
    {"rjust", str_rjust, 1, "width fillchar"},
    {"zfill", str_zfill, 1, "width"},
    {"isalpha", str_isalpha, 0, ""},
    {"isdecimal", str_isdecimal, 0, ""},
    {"isdigit", str_isdigit, 0, ""},
    {"isnumeric", str_isnumeric, 0, ""},
    {"isalnum", str_isalnum, 0, ""},
    {"isspace", str_isspace, 0, ""},
    {"isascii", str_isascii, 0, ""},
    {"isupper", str_isupper, 0, ""},
    {"islower", str_islower, 0, ""},
    {"istitle", str_istitle, 0, ""},
    {"encode", builtin_unsupported, 0, NULL},
    {"expandtabs", builtin_unsupported, 0, NULL},
    {"format_map", builtin_unsupported, 0, NULL},
    {"isidentifier", builtin_unsupported, 0, NULL},
    {"isprintable", builtin_unsupported, 0, NULL},
    {"maketrans", builtin_unsupported, 0, NULL},
    {"translate", builtin_unsupported, 0, NULL},
};

const struct builtin *jinja_str_method_find(const char *name, size_t len)
{
    return builtin_find(str_methods, sizeof str_methods / sizeof str_methods[0], name, len);
}

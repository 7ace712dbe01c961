/* Operators, attributes and subscripts with Python's meaning. */
#include "tokenizer/jinja.h"

#include <math.h>
#include <string.h>

static const char *const op_names[] = {
    [OP_ADD] = "+", [OP_SUB] = "-",  [OP_MUL] = "*",         [OP_DIV] = "/", [OP_FLOORDIV] = "//",
    [OP_MOD] = "%", [OP_POW] = "**", [OP_NEG] = "-",         [OP_POS] = "+", [OP_NOT] = "not",
    [OP_EQ] = "==", [OP_NE] = "!=",  [OP_LT] = "<",          [OP_LE] = "<=", [OP_GT] = ">",
    [OP_GE] = ">=", [OP_IN] = "in",  [OP_NOT_IN] = "not in",
};

__attribute__((noreturn)) static void fail_types(struct jinja *j, enum op op, struct value a, struct value b)
{
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED)
        jinja_fail_undefined(j, a.kind == V_UNDEFINED ? a : b);
    jinja_fail(j, "unsupported operand type(s) for %s: '%s' and '%s'", op_names[op], jinja_type_name(a),
               jinja_type_name(b));
}

/* ---- arithmetic ---- */

static int64_t int_power(struct jinja *j, int64_t base, int64_t exponent)
{
    int64_t result = 1;
    bool over = false;
    while (exponent > 0) {
        if (exponent & 1)
            over |= __builtin_mul_overflow(result, base, &result);
        exponent >>= 1;
        if (exponent > 0)
            over |= __builtin_mul_overflow(base, base, &base);
    }
    if (over)
        jinja_fail(j, "integer overflow");
    return result;
}

static struct value int_op(struct jinja *j, enum op op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        jinja_fail(j, "division by zero");
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case OP_DIV:
        return v_float((double)a / (double)b);
    case OP_FLOORDIV:
    case OP_MOD:
        if (b == -1) { /* INT64_MIN / −1 traps */
            if (op == OP_FLOORDIV)
                over = __builtin_sub_overflow((int64_t)0, a, &r);
            break;
        }
        r = op == OP_MOD ? a % b : a / b;
        if (a % b != 0 && (a % b < 0) != (b < 0))
            r += op == OP_MOD ? b : -1;
        break;
    default: /* OP_POW */
        if (b < 0) {
            if (a == 0)
                jinja_fail(j, "0.0 cannot be raised to a negative power");
            return v_float(pow((double)a, (double)b));
        }
        r = int_power(j, a, b);
    }
    if (over)
        jinja_fail(j, "integer overflow");
    return v_int(r);
}

/* Python's float // and %: the remainder has the divisor's sign. */
static double float_divmod(double a, double b, double *mod)
{
    double m = fmod(a, b), div = (a - m) / b;
    if (m != 0) {
        if ((b < 0) != (m < 0)) {
            m += b;
            div -= 1;
        }
    } else {
        m = copysign(0, b);
    }
    *mod = m;
    if (div == 0)
        return copysign(0, a / b);
    double whole = floor(div);
    return div - whole > 0.5 ? whole + 1 : whole;
}

static struct value float_op(struct jinja *j, enum op op, double a, double b)
{
    double mod;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        jinja_fail(j, "float division by zero");
    switch (op) {
    case OP_ADD:
        return v_float(a + b);
    case OP_SUB:
        return v_float(a - b);
    case OP_MUL:
        return v_float(a * b);
    case OP_DIV:
        return v_float(a / b);
    case OP_FLOORDIV:
        return v_float(float_divmod(a, b, &mod));
    case OP_MOD:
        (void)float_divmod(a, b, &mod);
        return v_float(mod);
    default: { /* OP_POW */
        double r = pow(a, b);
        if ((a == 0 && b < 0) || (isnan(r) && !isnan(a) && !isnan(b)) ||
            (isinf(r) && isfinite(a) && isfinite(b)))
            jinja_fail(j, "%g ** %g is no number", a, b);
        return v_float(r);
    }
    }
}

static struct value add_strings(struct jinja *j, const struct str *a, const struct str *b)
{
    if (a->safe || b->safe) { /* Markup escapes the other side */
        a = jinja_escape(j, a);
        b = jinja_escape(j, b);
    }
    return v_str(jinja_concat(j, a, b));
}

static struct value add_lists(struct jinja *j, struct value a, struct value b)
{
    struct list *l = jinja_list_new(j, a.l->n + b.l->n);
    if (a.l->n)
        memcpy(l->v, a.l->v, a.l->n * sizeof *l->v);
    if (b.l->n)
        memcpy(l->v + a.l->n, b.l->v, b.l->n * sizeof *l->v);
    return (struct value){.kind = a.kind, .l = l};
}

static struct value repeat(struct jinja *j, struct value v, int64_t times)
{
    size_t n = times > 0 ? (size_t)times : 0, len = v.kind == V_STRING ? v.s->len : v.l->n;
    if (len && n > JINJA_MAX_MEMORY / len)
        jinja_fail(j, "the template needs too much memory");
    if (len == 0)
        n = 0;
    if (v.kind != V_STRING) {
        struct list *l = jinja_list_new(j, n * len);
        for (size_t i = 0; i < n * len; i++)
            l->v[i] = v.l->v[i % len];
        return (struct value){.kind = v.kind, .l = l};
    }
    struct text t = {0};
    text_repeat(j, &t, v.s->p, len, n);
    return v_str(jinja_str_safe(j, text_str(j, &t), v.s->safe));
}

static bool is_sequence(struct value v)
{
    return v.kind == V_STRING || v.kind == V_LIST || v.kind == V_TUPLE;
}

struct value jinja_binary(struct jinja *j, enum op op, struct value a, struct value b)
{
    int64_t x = 0, y = 0;
    double f = 0, g = 0;
    if (jinja_as_int(a, &x) && jinja_as_int(b, &y))
        return int_op(j, op, x, y);
    if (jinja_as_float(a, &f) && jinja_as_float(b, &g))
        return float_op(j, op, f, g);
    if (op == OP_MOD && a.kind == V_STRING)
        return v_str(jinja_percent(j, a.s, b));
    if (op == OP_ADD && a.kind == V_STRING && b.kind == V_STRING)
        return add_strings(j, a.s, b.s);
    if (op == OP_ADD && a.kind == b.kind && is_sequence(a))
        return add_lists(j, a, b);
    if (op == OP_MUL && is_sequence(a) && jinja_as_int(b, &y))
        return repeat(j, a, y);
    if (op == OP_MUL && is_sequence(b) && jinja_as_int(a, &x))
        return repeat(j, b, x);
    fail_types(j, op, a, b);
}

struct value jinja_unary(struct jinja *j, enum op op, struct value a)
{
    int64_t i = 0;
    if (op == OP_NOT)
        return v_bool(!jinja_truth(j, a));
    if (a.kind == V_FLOAT)
        return v_float(op == OP_NEG ? -a.f : a.f);
    if (jinja_as_int(a, &i))
        return op == OP_NEG ? int_op(j, OP_SUB, 0, i) : v_int(i);
    if (a.kind == V_UNDEFINED)
        jinja_fail_undefined(j, a);
    jinja_fail(j, "bad operand type for unary %s: '%s'", op_names[op], jinja_type_name(a));
}

static bool is_nan(struct value v)
{
    return v.kind == V_FLOAT && isnan(v.f);
}

bool jinja_compare_op(struct jinja *j, enum op op, struct value a, struct value b)
{
    switch (op) {
    case OP_EQ:
        return jinja_equal(j, a, b);
    case OP_NE:
        return !jinja_equal(j, a, b);
    case OP_IN:
        return jinja_contains(j, b, a);
    case OP_NOT_IN:
        return !jinja_contains(j, b, a);
    default:
        break;
    }
    int c = jinja_compare(j, a, b, op_names[op]);
    if (is_nan(a) || is_nan(b))
        return false;
    return op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0;
}

/* ---- attributes and subscripts ---- */

/* obj.name as Python's getattr has it, sandboxed; false: there is no such attribute. */
static bool attribute(struct jinja *j, struct value v, const struct str *name, struct value *out)
{
    bool unsafe = false;
    bool found = jinja_method(j, v, name, out, &unsafe);
    if (name->len > 4 && memcmp(name->p, "__", 2) == 0 && memcmp(name->p + name->len - 2, "__", 2) == 0)
        found = unsafe = true;
    if (found && unsafe) {
        struct text t = {0};
        text_put_c(j, &t, "access to attribute ");
        text_put_str(j, &t, jinja_repr(j, v_str(name)));
        text_put_c(j, &t, " of '");
        text_put_c(j, &t, jinja_type_name(v));
        text_put_c(j, &t, "' object is unsafe.");
        struct undefined *u = jinja_alloc(j, 1, sizeof *u);
        u->hint = text_str(j, &t);
        *out = (struct value){.kind = V_UNDEFINED, .u = u};
    }
    return found;
}

static bool hashable(struct value v)
{
    if (v.kind == V_TUPLE) {
        for (size_t i = 0; i < v.l->n; i++) /* one level: deeper ones fail with a message */
            if (v.l->v[i].kind == V_LIST || v.l->v[i].kind == V_DICT)
                return false;
    }
    return v.kind != V_LIST && v.kind != V_DICT;
}

/* obj[key]; false where Python raises a TypeError or LookupError. */
static bool item(struct jinja *j, struct value v, struct value key, struct value *out)
{
    int64_t i = 0;
    if (v.kind == V_DICT) {
        const struct value *found = hashable(key) ? jinja_dict_get(j, v.d, key) : NULL;
        if (found)
            *out = *found;
        return found != NULL;
    }
    if (!is_sequence(v) && v.kind != V_RANGE)
        return false;
    if (!jinja_as_int(key, &i))
        return false;
    int64_t n = (int64_t)jinja_len(v);
    if (i < -n || i >= n)
        return false;
    if (i < 0)
        i += n;
    if (v.kind == V_STRING)
        *out = v_str(jinja_char(j, v.s, (size_t)i));
    else if (v.kind == V_RANGE)
        *out = v_int(jinja_range_at(v.range, i));
    else
        *out = v.l->v[i];
    return true;
}

struct value jinja_getattr(struct jinja *j, struct value v, const struct str *name)
{
    struct value out;
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    if (attribute(j, v, name, &out) || item(j, v, v_str(name), &out))
        return out;
    return jinja_undefined_attr(j, v, v_str(name));
}

struct value jinja_getitem(struct jinja *j, struct value v, struct value key)
{
    struct value out;
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    if (item(j, v, key, &out) || (key.kind == V_STRING && attribute(j, v, key.s, &out)))
        return out;
    return jinja_undefined_attr(j, v, key);
}

static int64_t slice_bound(struct jinja *j, struct value v, int64_t absent, int64_t n, bool down)
{
    if (v.kind == V_NONE)
        return absent;
    int64_t i = 0, least = down ? -1 : 0, most = down ? n - 1 : n;
    if (!jinja_as_int(v, &i))
        jinja_fail(j, "slice indices must be integers or None");
    if (i < 0)
        i += n;
    return i < least ? least : i > most ? most : i;
}

struct value jinja_slice(struct jinja *j, struct value v, const struct value bounds[3])
{
    if (v.kind == V_UNDEFINED)
        jinja_fail_undefined(j, v);
    if (!is_sequence(v) && v.kind != V_RANGE)
        jinja_fail(j, "'%s' object is not subscriptable by a slice", jinja_type_name(v));
    int64_t step = 1, n = (int64_t)jinja_len(v);
    if (bounds[2].kind != V_NONE && !jinja_as_int(bounds[2], &step))
        jinja_fail(j, "slice indices must be integers or None");
    if (step == 0)
        jinja_fail(j, "slice step cannot be zero");
    if (step < -INT64_MAX)
        step = -INT64_MAX;
    bool down = step < 0;
    int64_t start = slice_bound(j, bounds[0], down ? n - 1 : 0, n, down);
    int64_t stop = slice_bound(j, bounds[1], down ? -1 : n, n, down);
    int64_t span = down ? start - stop : stop - start, stride = down ? -step : step;
    size_t count = span > 0 ? (size_t)((span - 1) / stride + 1) : 0;
    if (v.kind == V_STRING)
        return v_str(jinja_str_slice(j, v.s, (size_t)(count ? start : 0), step, count));
    if (v.kind == V_RANGE) {
        struct range *r = jinja_alloc(j, 1, sizeof *r);
        r->n = count;
        r->start = jinja_range_at(v.range, start);
        r->stop = jinja_range_at(v.range, stop);
        r->step = (int64_t)((uint64_t)v.range->step * (uint64_t)step);
        return (struct value){.kind = V_RANGE, .range = r};
    }
    struct list *l = jinja_list_new(j, count);
    for (size_t i = 0; i < count; i++)
        l->v[i] = v.l->v[start + (int64_t)i * step];
    return (struct value){.kind = v.kind, .l = l};
}

struct value jinja_getpath(struct jinja *j, struct value v, struct value path, struct value missing)
{
    if (path.kind == V_NONE || path.kind == V_ABSENT)
        return v;
    if (path.kind != V_STRING)
        return jinja_getitem(j, v, path);
    const char *p = path.s->p, *end = p + path.s->len;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        size_t len = (size_t)((dot ? dot : end) - p);
        int64_t index = 0;
        bool digits = len > 0 && len < 18;
        for (size_t i = 0; i < len && digits; i++) {
            digits = p[i] >= '0' && p[i] <= '9';
            index = 10 * index + (p[i] - '0');
        }
        v = jinja_getitem(j, v, digits ? v_int(index) : v_str(jinja_str_lent(j, p, len)));
        if (v.kind == V_UNDEFINED && missing.kind != V_ABSENT && missing.kind != V_NONE)
            v = missing;
        if (!dot)
            return v;
        p = dot + 1;
    }
}

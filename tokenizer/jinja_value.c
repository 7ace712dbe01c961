/* Python's data as templates see it: containers, truth, equality, order, iteration. */
#include "tokenizer/jinja.h"

#include <math.h>
#include <string.h>

/* ---- undefined ---- */

static struct value undefined(struct jinja *j, struct undefined what)
{
    struct undefined *u = jinja_alloc(j, 1, sizeof *u);
    *u = what;
    return (struct value){.kind = V_UNDEFINED, .u = u};
}

struct value jinja_undefined_name(struct jinja *j, const struct str *name)
{
    return undefined(j, (struct undefined){.name = v_str(name)});
}

struct value jinja_undefined_hint(struct jinja *j, const char *hint)
{
    return undefined(j, (struct undefined){.hint = jinja_str(j, hint, strlen(hint))});
}

struct value jinja_undefined_attr(struct jinja *j, struct value of, struct value name)
{
    return undefined(j, (struct undefined){.object_type = jinja_type_name(of), .name = name});
}

void jinja_fail_undefined(struct jinja *j, struct value v)
{
    const struct undefined *u = v.u;
    if (u->hint)
        jinja_fail(j, "%.*s", (int)(u->hint->len < 400 ? u->hint->len : 400), u->hint->p);
    const struct str *name = jinja_repr(j, u->name);
    int len = (int)(name->len < 400 ? name->len : 400);
    if (!u->object_type)
        jinja_fail(j, "%.*s is undefined", len, name->p);
    const char *type = u->object_type, *object = strcmp(type, "NoneType") == 0 ? "" : " object";
    if (!*object)
        type = "None";
    if (u->name.kind == V_STRING)
        jinja_fail(j, "'%s%s' has no attribute %.*s", type, object, len, name->p);
    jinja_fail(j, "%s%s has no element %.*s", type, object, len, name->p);
}

const char *jinja_type_name(struct value v)
{
    static const char *const names[] = {
        [V_ABSENT] = "Undefined", [V_UNDEFINED] = "Undefined",
        [V_NONE] = "NoneType",    [V_BOOL] = "bool",
        [V_INT] = "int",          [V_FLOAT] = "float",
        [V_STRING] = "str",       [V_LIST] = "list",
        [V_TUPLE] = "tuple",      [V_DICT] = "dict",
        [V_VIEW] = "dict_view",   [V_RANGE] = "range",
        [V_ITER] = "generator",   [V_NAMESPACE] = "Namespace",
        [V_MACRO] = "Macro",      [V_FUNCTION] = "function",
        [V_LOOP] = "LoopContext", [V_CYCLER] = "Cycler",
        [V_JOINER] = "Joiner",
    };
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    return v.kind == V_VIEW ? views[v.view->what] : names[v.kind];
}

/* ---- numbers ---- */

bool jinja_as_int(struct value v, int64_t *out)
{
    if (v.kind != V_INT && v.kind != V_BOOL)
        return false;
    *out = v.kind == V_INT ? v.i : v.b;
    return true;
}

bool jinja_as_float(struct value v, double *out)
{
    int64_t i = 0;
    if (v.kind == V_FLOAT)
        *out = v.f;
    else if (jinja_as_int(v, &i))
        *out = (double)i;
    else
        return false;
    return true;
}

int64_t jinja_int_arg(struct jinja *j, struct value v, int64_t absent)
{
    int64_t i = absent;
    if (v.kind != V_ABSENT && !jinja_as_int(v, &i))
        jinja_fail(j, "'%s' object cannot be interpreted as an integer", jinja_type_name(v));
    return i;
}

bool jinja_bool_arg(struct jinja *j, struct value v, bool absent)
{
    return v.kind == V_ABSENT ? absent : jinja_truth(j, v);
}

static const double two_63 = 9223372036854775808.0; /* one more than int64_t holds */

bool jinja_truncate(double f, int64_t *i)
{
    if (!(f >= -two_63 && f < two_63))
        return false;
    *i = (int64_t)f;
    return true;
}

/* Exact, as Python's comparison of int and float is: 2^53 + 1 is not 2.0^53. */
static int compare_int_float(int64_t i, double f)
{
    if (f >= two_63)
        return -1;
    if (f < -two_63)
        return 1;
    int64_t whole = (int64_t)f; /* towards zero */
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

/* Both are numbers; unordered: one is NaN. */
static int compare_numbers(struct value a, struct value b, bool *unordered)
{
    int64_t x = 0, y = 0;
    bool a_int = jinja_as_int(a, &x), b_int = jinja_as_int(b, &y);
    *unordered = (!a_int && isnan(a.f)) || (!b_int && isnan(b.f));
    if (*unordered)
        return 0;
    if (a_int && b_int)
        return x < y ? -1 : x > y;
    if (a_int)
        return compare_int_float(x, b.f);
    if (b_int)
        return -compare_int_float(y, a.f);
    return a.f < b.f ? -1 : a.f > b.f;
}

static bool is_number(struct value v)
{
    return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT;
}

/* ---- lists and dicts ---- */

struct list *jinja_list_new(struct jinja *j, size_t n)
{
    jinja_step(j, n / 16);
    struct list *l = jinja_alloc(j, 1, sizeof *l);
    l->v = jinja_alloc(j, n, sizeof *l->v);
    l->n = n;
    return l;
}

struct value jinja_tuple(struct jinja *j, const struct value *v, size_t n)
{
    struct list *l = jinja_list_new(j, n);
    if (n)
        memcpy(l->v, v, n * sizeof *v);
    return (struct value){.kind = V_TUPLE, .l = l};
}

struct value jinja_list_of(struct jinja *j, struct iter *it)
{
    struct value item;
    size_t cap = 0;
    struct list *l = jinja_list_new(j, 0);
    while (jinja_next(j, it, &item)) {
        if (l->n == cap) {
            cap = cap ? 2 * cap : 8;
            l->v = jinja_grow(j, l->v, l->n, cap, sizeof *l->v);
        }
        l->v[l->n++] = item;
    }
    return v_list(l);
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t hash(struct jinja *j, struct value v)
{
    int64_t i = 0;
    switch (v.kind) {
    case V_NONE:
    case V_UNDEFINED:
        return mix(v.kind);
    case V_BOOL:
    case V_INT:
        (void)jinja_as_int(v, &i);
        return mix((uint64_t)i); /* 1, 1.0 and True are one key */
    case V_FLOAT:
        if (v.f != floor(v.f) || !jinja_truncate(v.f, &i))
            memcpy(&i, &v.f, sizeof i);
        return mix((uint64_t)i);
    case V_STRING: {
        uint64_t h = 0xcbf29ce484222325u;
        for (size_t k = 0; k < v.s->len; k++)
            h = (h ^ (unsigned char)v.s->p[k]) * 0x100000001b3u;
        jinja_step(j, v.s->len / 64);
        return mix(h);
    }
    case V_TUPLE: {
        uint64_t h = v.l->n;
        jinja_enter(j);
        for (size_t k = 0; k < v.l->n; k++)
            h = mix(h + hash(j, v.l->v[k]));
        jinja_leave(j);
        return h;
    }
    case V_LIST:
    case V_DICT:
        jinja_fail(j, "unhashable type: '%s'", jinja_type_name(v));
    default:
        return mix((uint64_t)(uintptr_t)v.d);
    }
}

struct dict *jinja_dict_new(struct jinja *j)
{
    return jinja_alloc(j, 1, sizeof(struct dict));
}

enum { DICT_LINEAR = 8 }; /* entries up to which looking at all is quicker than an index */

static struct dict_entry *dict_entry(struct jinja *j, const struct dict *d, struct value key, uint64_t h)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->e[i].hash == h && jinja_equal(j, d->e[i].key, key))
                return &d->e[i];
        return NULL;
    }
    for (size_t at = h & (d->n_index - 1); d->index[at]; at = (at + 1) & (d->n_index - 1)) {
        struct dict_entry *e = &d->e[d->index[at] - 1];
        if (e->hash == h && jinja_equal(j, e->key, key))
            return e;
        jinja_step(j, 1); /* keys chosen to collide cost steps */
    }
    return NULL;
}

static void dict_index(struct dict *d, uint32_t entry)
{
    size_t at = d->e[entry].hash & (d->n_index - 1);
    while (d->index[at])
        at = (at + 1) & (d->n_index - 1);
    d->index[at] = entry + 1;
}

void jinja_dict_set(struct jinja *j, struct dict *d, struct value key, struct value value)
{
    uint64_t h = hash(j, key);
    struct dict_entry *e = dict_entry(j, d, key, h);
    if (e) {
        e->value = value;
        return;
    }
    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 4;
        d->e = jinja_grow(j, d->e, d->n, d->cap, sizeof *d->e);
        if (d->cap > DICT_LINEAR) {
            d->n_index = 2 * d->cap;
            d->index = jinja_alloc(j, d->n_index, sizeof *d->index);
            for (size_t i = 0; i < d->n; i++)
                dict_index(d, (uint32_t)i);
        }
    }
    d->e[d->n++] = (struct dict_entry){key, value, h};
    if (d->index)
        dict_index(d, (uint32_t)(d->n - 1));
}

const struct value *jinja_dict_get(struct jinja *j, const struct dict *d, struct value key)
{
    struct dict_entry *e = dict_entry(j, d, key, hash(j, key));
    return e ? &e->value : NULL;
}

/* ---- truth, equality, order ---- */

size_t jinja_len(struct value v)
{
    switch (v.kind) {
    case V_UNDEFINED:
        return 0;
    case V_STRING:
        return jinja_n_chars(v.s);
    case V_LIST:
    case V_TUPLE:
        return v.l->n;
    case V_DICT:
        return v.d->n;
    case V_VIEW:
        return v.view->d->n;
    case V_RANGE:
        return v.range->n;
    default:
        return SIZE_MAX;
    }
}

bool jinja_truth(struct jinja *j, struct value v)
{
    switch (v.kind) {
    case V_ABSENT:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.b;
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    case V_STRING:
        return v.s->len != 0;
    default:
        (void)j;
        return jinja_len(v) != 0; /* what has no length is true */
    }
}

static bool list_equal(struct jinja *j, const struct list *a, const struct list *b)
{
    if (a->n != b->n)
        return false;
    bool equal = true;
    jinja_enter(j);
    for (size_t i = 0; i < a->n && equal; i++)
        equal = jinja_equal(j, a->v[i], b->v[i]);
    jinja_leave(j);
    return equal;
}

static bool dict_equal(struct jinja *j, const struct dict *a, const struct dict *b)
{
    if (a->n != b->n)
        return false;
    bool equal = true;
    jinja_enter(j);
    for (size_t i = 0; i < a->n && equal; i++) {
        struct dict_entry *e = dict_entry(j, b, a->e[i].key, a->e[i].hash);
        equal = e && jinja_equal(j, a->e[i].value, e->value);
    }
    jinja_leave(j);
    return equal;
}

bool jinja_equal(struct jinja *j, struct value a, struct value b)
{
    jinja_step(j, 1);
    if (is_number(a) && is_number(b)) {
        bool unordered;
        return compare_numbers(a, b, &unordered) == 0 && !unordered;
    }
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case V_ABSENT:
    case V_UNDEFINED:
    case V_NONE:
        return true;
    case V_STRING:
        jinja_step(j, a.s->len / 64);
        return jinja_str_eq(a.s, b.s);
    case V_LIST:
    case V_TUPLE:
        return list_equal(j, a.l, b.l);
    case V_DICT:
        return dict_equal(j, a.d, b.d);
    case V_RANGE: /* equal as sequences */
        return a.range->n == b.range->n &&
               (a.range->n == 0 ||
                (a.range->start == b.range->start && (a.range->n == 1 || a.range->step == b.range->step)));
    case V_FUNCTION: /* a method of the same object */
        return a.fn == b.fn ||
               (a.fn->row == b.fn->row && a.fn->self.kind == b.fn->self.kind && a.fn->self.d == b.fn->self.d);
    default:
        return a.d == b.d;
    }
}

int jinja_compare(struct jinja *j, struct value a, struct value b, const char *op)
{
    jinja_step(j, 1);
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED)
        jinja_fail_undefined(j, a.kind == V_UNDEFINED ? a : b);
    if (is_number(a) && is_number(b)) {
        bool unordered;
        return compare_numbers(a, b, &unordered);
    }
    if (a.kind == V_STRING && b.kind == V_STRING) { /* UTF-8 sorts as its code points do */
        size_t n = a.s->len < b.s->len ? a.s->len : b.s->len;
        jinja_step(j, n / 64);
        int c = n ? memcmp(a.s->p, b.s->p, n) : 0;
        return c ? c : (a.s->len < b.s->len ? -1 : a.s->len > b.s->len);
    }
    if (a.kind != b.kind || (a.kind != V_LIST && a.kind != V_TUPLE))
        jinja_fail(j, "'%s' not supported between instances of '%s' and '%s'", op, jinja_type_name(a),
                   jinja_type_name(b));
    int c = a.l->n < b.l->n ? -1 : a.l->n > b.l->n;
    jinja_enter(j);
    for (size_t i = 0; i < a.l->n && i < b.l->n; i++)
        if (!jinja_equal(j, a.l->v[i], b.l->v[i])) {
            c = jinja_compare(j, a.l->v[i], b.l->v[i], op);
            break;
        }
    jinja_leave(j);
    return c;
}

bool jinja_contains(struct jinja *j, struct value in, struct value item)
{
    if (in.kind == V_STRING) {
        if (item.kind != V_STRING)
            jinja_fail(j, "'in <string>' requires string as left operand, not %s", jinja_type_name(item));
        return jinja_find(j, in.s, item.s, 0) != SIZE_MAX;
    }
    if (in.kind == V_DICT || (in.kind == V_VIEW && in.view->what == VIEW_KEYS))
        return jinja_dict_get(j, in.kind == V_DICT ? in.d : in.view->d, item) != NULL;
    struct iter *it = jinja_try_iter(j, in);
    if (!it)
        jinja_fail(j, "argument of type '%s' is not iterable", jinja_type_name(in));
    struct value v;
    while (jinja_next(j, it, &v))
        if (jinja_equal(j, v, item))
            return true;
    return false;
}

/* ---- iteration ---- */

/* Modulo 2^64, so that a range from one end of int64_t to the other comes out right. */
int64_t jinja_range_at(const struct range *r, int64_t i)
{
    return (int64_t)((uint64_t)r->start + (uint64_t)i * (uint64_t)r->step);
}

static bool next_nothing(struct jinja *j, struct iter *it, struct value *out)
{
    (void)j;
    (void)it;
    (void)out;
    return false;
}

static bool next_list(struct jinja *j, struct iter *it, struct value *out)
{
    (void)j;
    if (it->i == it->over.l->n)
        return false;
    *out = it->over.l->v[it->i++];
    return true;
}

static bool next_char(struct jinja *j, struct iter *it, struct value *out)
{
    const struct str *s = it->over.s;
    if (it->i == s->len)
        return false;
    size_t n;
    (void)jinja_char_at(s->p + it->i, s->p + s->len, &n);
    *out = v_str(jinja_str_safe(j, jinja_substr(j, s, it->i, n), false)); /* Markup's too are plain */
    it->i += n;
    return true;
}

static bool next_range(struct jinja *j, struct iter *it, struct value *out)
{
    (void)j;
    const struct range *r = it->over.range;
    if (it->i == r->n)
        return false;
    *out = v_int(jinja_range_at(r, (int64_t)it->i++));
    return true;
}

static bool next_key(struct jinja *j, struct iter *it, struct value *out)
{
    (void)j;
    if (it->i == it->over.d->n)
        return false;
    *out = it->over.d->e[it->i++].key;
    return true;
}

static bool next_view(struct jinja *j, struct iter *it, struct value *out)
{
    const struct dict *d = it->over.view->d;
    if (it->i == d->n)
        return false;
    const struct dict_entry *e = &d->e[it->i++];
    switch (it->over.view->what) {
    case VIEW_KEYS:
        *out = e->key;
        break;
    case VIEW_VALUES:
        *out = e->value;
        break;
    case VIEW_ITEMS:
        *out = jinja_tuple(j, (struct value[]){e->key, e->value}, 2);
        break;
    }
    return true;
}

struct iter *jinja_try_iter(struct jinja *j, struct value v)
{
    bool (*next)(struct jinja *, struct iter *, struct value *);
    switch (v.kind) {
    case V_ITER:
        return v.iter;
    case V_UNDEFINED:
        next = next_nothing;
        break;
    case V_STRING:
        next = next_char;
        break;
    case V_LIST:
    case V_TUPLE:
        next = next_list;
        break;
    case V_DICT:
        next = next_key;
        break;
    case V_VIEW:
        next = next_view;
        break;
    case V_RANGE:
        next = next_range;
        break;
    default:
        return NULL;
    }
    struct iter *it = jinja_alloc(j, 1, sizeof *it);
    it->next = next;
    it->over = v;
    return it;
}

struct iter *jinja_iter(struct jinja *j, struct value v)
{
    struct iter *it = jinja_try_iter(j, v);
    if (!it)
        jinja_fail(j, "'%s' object is not iterable", jinja_type_name(v));
    return it;
}

bool jinja_next(struct jinja *j, struct iter *it, struct value *out)
{
    jinja_step(j, 1);
    jinja_enter(j); /* filters on filters: each asks the one below */
    bool more = it->next(j, it, out);
    jinja_leave(j);
    return more;
}

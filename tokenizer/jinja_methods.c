/* Attributes of Python's types: methods and the few properties that templates use. */
#include "tokenizer/jinja_tree.h"

#include <math.h>
#include <string.h>

enum { NAME_MAX_LEN = 32 };

const struct builtin *builtin_find(const struct builtin *rows, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return &rows[i];
    return NULL;
}

/* Which parameter of "a b c" is called name? −1: none. */
static int param_index(const char *params, const struct str *name)
{
    int i = 0;
    for (const char *p = params; *p; i++) {
        size_t len = strcspn(p, " ");
        if (len == name->len && memcmp(p, name->p, len) == 0)
            return i;
        p += len + (p[len] == ' ');
    }
    return -1;
}

static size_t count_params(const char *params)
{
    size_t n = *params != '\0';
    for (const char *p = params; *p; p++)
        n += *p == ' ';
    return n;
}

struct value builtin_call(struct jinja *j, const struct builtin *row, struct value self, struct args *a)
{
    if (row->params) {
        size_t n = count_params(row->params);
        if (a->n_pos > n)
            jinja_fail(j, "%s() takes at most %zu arguments (%zu given)", row->name, n, a->n_pos);
        memset(a->v, 0, sizeof a->v);
        for (size_t i = 0; i < a->n_pos; i++)
            a->v[i] = a->pos[i];
        for (size_t i = 0; i < a->n_kw; i++) {
            const struct str *name = a->kw[i].name;
            int k = param_index(row->params, name);
            if (k < 0)
                jinja_fail(j, "%s() got an unexpected keyword argument '%.*s'", row->name,
                           (int)(name->len < NAME_MAX_LEN ? name->len : NAME_MAX_LEN), name->p);
            if (a->v[k].kind != V_ABSENT)
                jinja_fail(j, "%s() got two values for one argument", row->name);
            a->v[k] = a->kw[i].value;
        }
        for (int i = 0; i < row->n_required; i++)
            if (a->v[i].kind == V_ABSENT)
                jinja_fail(j, "%s() needs %d arguments", row->name, row->n_required);
    }
    jinja_enter(j);
    struct value v = row->fn(j, self, a);
    jinja_leave(j);
    return v;
}

struct value builtin_unsupported(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    jinja_fail(j, "this method of '%s' is not supported in templates", jinja_type_name(self));
}

/* ---- dict, list, tuple ---- */

static struct value dict_get(struct jinja *j, struct value self, struct args *a)
{
    const struct value *v = jinja_dict_get(j, self.d, a->v[0]);
    return v ? *v : a->v[1].kind == V_ABSENT ? v_none() : a->v[1];
}

static struct value view(struct jinja *j, struct value self, enum view_kind what)
{
    struct view *v = jinja_alloc(j, 1, sizeof *v);
    *v = (struct view){what, self.d};
    return (struct value){.kind = V_VIEW, .view = v};
}

static struct value dict_keys(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return view(j, self, VIEW_KEYS);
}

static struct value dict_values(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return view(j, self, VIEW_VALUES);
}

static struct value dict_items(struct jinja *j, struct value self, struct args *a)
{
    (void)a;
    return view(j, self, VIEW_ITEMS);
}

static struct value copy(struct jinja *j, struct value self, struct args *a)
{
    (void)j;
    (void)a;
    return self; /* nothing can change it */
}

/* clear, append and whatever else changes a list or dict: refused before it is called. */
static const struct builtin dict_methods[] = {
    {"get", dict_get, 1, "key default"},
    {"keys", dict_keys, 0, ""},
    {"values", dict_values, 0, ""},
    {"items", dict_items, 0, ""},
    {"copy", copy, 0, ""},
    {"fromkeys", builtin_unsupported, 0, NULL},
    {"clear", NULL, 0, NULL},
    {"pop", NULL, 0, NULL},
    {"popitem", NULL, 0, NULL},
    {"setdefault", NULL, 0, NULL},
    {"update", NULL, 0, NULL},
};

static struct value list_index(struct jinja *j, struct value self, struct args *a)
{
    int64_t n = (int64_t)jinja_len(self), from = jinja_int_arg(j, a->v[1], 0),
            to = jinja_int_arg(j, a->v[2], n);
    from = from < 0 ? (from + n > 0 ? from + n : 0) : from;
    to = to < 0 ? to + n : to < n ? to : n;
    for (int64_t i = from; i < to; i++)
        if (jinja_equal(j, self.l->v[i], a->v[0]))
            return v_int(i);
    jinja_fail(j, "the value is not in the %s", jinja_type_name(self));
}

static struct value list_count(struct jinja *j, struct value self, struct args *a)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.l->n; i++)
        n += jinja_equal(j, self.l->v[i], a->v[0]);
    return v_int(n);
}

static const struct builtin list_methods[] = {
    {"index", list_index, 1, "value start stop"},
    {"count", list_count, 1, "value"},
    {"copy", copy, 0, ""}, /* from here on lists only */
    {"append", NULL, 0, NULL},
    {"clear", NULL, 0, NULL},
    {"pop", NULL, 0, NULL},
    {"reverse", NULL, 0, NULL},
    {"insert", NULL, 0, NULL},
    {"sort", NULL, 0, NULL},
    {"extend", NULL, 0, NULL},
    {"remove", NULL, 0, NULL},
};
enum { N_TUPLE_METHODS = 2 };

static struct value float_is_integer(struct jinja *j, struct value self, struct args *a)
{
    (void)j;
    (void)a;
    return v_bool(self.kind != V_FLOAT || (isfinite(self.f) && floor(self.f) == self.f));
}

static const struct builtin number_methods[] = {{"is_integer", float_is_integer, 0, ""}};

/* ---- loop, cycler ---- */

static struct value loop_cycle(struct jinja *j, struct value self, struct args *a)
{
    if (a->n_pos == 0)
        jinja_fail(j, "no items for cycling given");
    return a->pos[self.loop->index0 % a->n_pos];
}

static struct value loop_changed(struct jinja *j, struct value self, struct args *a)
{
    struct value now = jinja_tuple(j, a->pos, a->n_pos);
    bool changed = self.loop->changed.kind == V_ABSENT || !jinja_equal(j, self.loop->changed, now);
    self.loop->changed = now;
    return v_bool(changed);
}

static const struct builtin loop_methods[] = {
    {"cycle", loop_cycle, 0, NULL},
    {"changed", loop_changed, 0, NULL},
};

static int64_t loop_length(struct jinja *j, struct loop *l)
{
    while (loop_has(j, l, l->n_kept))
        ;
    return (int64_t)l->n_kept;
}

static bool loop_property(struct jinja *j, struct loop *l, const struct str *name, struct value *out)
{
    int64_t i = (int64_t)l->index0;
    if (jinja_str_is(name, "index0"))
        *out = v_int(i);
    else if (jinja_str_is(name, "index"))
        *out = v_int(i + 1);
    else if (jinja_str_is(name, "first"))
        *out = v_bool(i == 0);
    else if (jinja_str_is(name, "last"))
        *out = v_bool(!loop_has(j, l, l->index0 + 1));
    else if (jinja_str_is(name, "length"))
        *out = v_int(loop_length(j, l));
    else if (jinja_str_is(name, "revindex"))
        *out = v_int(loop_length(j, l) - i);
    else if (jinja_str_is(name, "revindex0"))
        *out = v_int(loop_length(j, l) - i - 1);
    else if (jinja_str_is(name, "depth"))
        *out = v_int((int64_t)l->depth0 + 1);
    else if (jinja_str_is(name, "depth0"))
        *out = v_int((int64_t)l->depth0);
    else if (jinja_str_is(name, "previtem"))
        *out = i > 0 ? l->kept[i - 1] : jinja_undefined_hint(j, "there is no previous item");
    else if (jinja_str_is(name, "nextitem"))
        *out =
            loop_has(j, l, l->index0 + 1) ? l->kept[i + 1] : jinja_undefined_hint(j, "there is no next item");
    else
        return false;
    return true;
}

static struct value cycler_next(struct jinja *j, struct value self, struct args *a)
{
    (void)j;
    (void)a;
    struct cycler *c = self.cycler;
    struct value v = c->v[c->pos];
    c->pos = (c->pos + 1) % c->n;
    return v;
}

static struct value cycler_reset(struct jinja *j, struct value self, struct args *a)
{
    (void)j;
    (void)a;
    self.cycler->pos = 0;
    return v_none();
}

static const struct builtin cycler_methods[] = {
    {"next", cycler_next, 0, ""},
    {"reset", cycler_reset, 0, ""},
};

/* ---- all types ---- */

static bool property(struct jinja *j, struct value v, const struct str *name, struct value *out)
{
    const struct value *attr;
    switch (v.kind) {
    case V_LOOP:
        return loop_property(j, v.loop, name, out);
    case V_NAMESPACE:
        attr = jinja_dict_get(j, v.d, v_str(name));
        if (attr)
            *out = *attr;
        return attr != NULL;
    case V_CYCLER:
        *out = v.cycler->v[v.cycler->pos];
        return jinja_str_is(name, "current");
    case V_TUPLE:
        if (!v.l->group || (!jinja_str_is(name, "grouper") && !jinja_str_is(name, "list")))
            return false;
        *out = v.l->v[jinja_str_is(name, "list")];
        return true;
    case V_RANGE:
        *out = v_int(jinja_str_is(name, "start")  ? v.range->start
                     : jinja_str_is(name, "stop") ? v.range->stop
                                                  : v.range->step);
        return jinja_str_is(name, "start") || jinja_str_is(name, "stop") || jinja_str_is(name, "step");
    case V_MACRO:
        *out = v.macro->macro->name ? v_str(v.macro->macro->name) : v_none();
        return jinja_str_is(name, "name");
    default:
        return false;
    }
}

bool jinja_method(struct jinja *j, struct value v, const struct str *name, struct value *out, bool *unsafe)
{
#define ROWS(table) (rows = (table), n_rows = sizeof(table) / sizeof(table)[0])
    const struct builtin *rows = NULL;
    size_t n_rows = 0;
    if (property(j, v, name, out))
        return true;
    switch (v.kind) {
    case V_STRING: /* a table of its own */
        break;
    case V_DICT:
        ROWS(dict_methods);
        break;
    case V_LIST:
        ROWS(list_methods);
        break;
    case V_TUPLE:
        rows = list_methods;
        n_rows = N_TUPLE_METHODS;
        break;
    case V_FLOAT:
        ROWS(number_methods);
        break;
    case V_LOOP:
        ROWS(loop_methods);
        break;
    case V_CYCLER:
        ROWS(cycler_methods);
        break;
    default:
        return false;
    }
#undef ROWS
    const struct builtin *row = v.kind == V_STRING ? jinja_str_method_find(name->p, name->len)
                                                   : builtin_find(rows, n_rows, name->p, name->len);
    if (!row)
        return false;
    *unsafe = row->fn == NULL;
    struct function *fn = jinja_alloc(j, 1, sizeof *fn);
    *fn = (struct function){row, v};
    *out = (struct value){.kind = V_FUNCTION, .fn = fn};
    return true;
}

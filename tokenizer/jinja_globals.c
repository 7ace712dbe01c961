/* Functions that every template can call. */
#include "tokenizer/jinja.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* range(stop), range(start, stop), range(start, stop, step); as long as the sandbox allows */
static struct value global_range(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    int64_t v[3] = {0, 0, 1};
    for (size_t i = 0; i < 3; i++)
        if (a->v[i].kind != V_ABSENT && !jinja_as_int(a->v[i], &v[i]))
            jinja_fail(j, "'%s' object cannot be interpreted as an integer", jinja_type_name(a->v[i]));
    if (a->v[1].kind == V_ABSENT) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0)
        jinja_fail(j, "range() arg 3 must not be zero");
    bool down = v[2] < 0;
    uint64_t span = down ? (uint64_t)v[0] - (uint64_t)v[1] : (uint64_t)v[1] - (uint64_t)v[0];
    uint64_t step = down ? -(uint64_t)v[2] : (uint64_t)v[2];
    uint64_t n = (down ? v[0] <= v[1] : v[1] <= v[0]) ? 0 : (span - 1) / step + 1;
    if (n > JINJA_MAX_RANGE)
        jinja_fail(j, "range too big: more than %d items", JINJA_MAX_RANGE);
    struct range *r = jinja_alloc(j, 1, sizeof *r);
    *r = (struct range){v[0], v[1], v[2], (size_t)n};
    return (struct value){.kind = V_RANGE, .range = r};
}

/* dict(mapping or pairs, key=value, …) */
static struct dict *make_dict(struct jinja *j, struct args *a)
{
    struct dict *d = jinja_dict_new(j);
    if (a->n_pos > 1)
        jinja_fail(j, "dict expected at most 1 argument, got %zu", a->n_pos);
    if (a->n_pos == 1 && a->pos[0].kind == V_DICT) {
        const struct dict *from = a->pos[0].d;
        for (size_t i = 0; i < from->n; i++)
            jinja_dict_set(j, d, from->e[i].key, from->e[i].value);
    } else if (a->n_pos == 1) {
        struct iter *it = jinja_iter(j, a->pos[0]);
        struct value item;
        while (jinja_next(j, it, &item)) {
            struct value pair = jinja_list_of(j, jinja_iter(j, item));
            if (pair.l->n != 2)
                jinja_fail(j, "dictionary update sequence element has length %zu; 2 is required", pair.l->n);
            jinja_dict_set(j, d, pair.l->v[0], pair.l->v[1]);
        }
    }
    for (size_t i = 0; i < a->n_kw; i++)
        jinja_dict_set(j, d, v_str(a->kw[i].name), a->kw[i].value);
    return d;
}

static struct value global_dict(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    return v_dict(make_dict(j, a));
}

static struct value global_namespace(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    return (struct value){.kind = V_NAMESPACE, .d = make_dict(j, a)};
}

static struct value global_raise_exception(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    const struct str *s = jinja_to_str(j, a->v[0]);
    jinja_raise(j, s->p, s->len);
}

/* Python's strftime is C's, but for %f, and %z and %Z, which are empty for a time without a zone. */
static struct value global_strftime_now(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    char out[4096];
    if (a->v[0].kind != V_STRING)
        jinja_fail(j, "strftime_now needs a format");
    const struct str *s = a->v[0].s;
    struct text format = {0};
    text_put_c(j, &format, "."); /* an empty result is then no failure */
    for (size_t i = 0; i < s->len; i++) {
        bool two = s->p[i] == '%' && i + 1 < s->len;
        if (!s->p[i])
            jinja_fail(j, "embedded null character");
        if (two && s->p[i + 1] == 'f')
            text_put_c(j, &format, "000000");
        else if (!two || (s->p[i + 1] != 'z' && s->p[i + 1] != 'Z'))
            text_put(j, &format, s->p + i, 1 + (size_t)two);
        i += two;
    }
    text_put(j, &format, "", 1);
    size_t n = strftime(out, sizeof out, format.p, j->now);
    if (n == 0)
        jinja_fail(j, "strftime_now: the time is too long");
    if (jinja_utf8_valid(out, n) != n) /* a format may cut a character apart: "%5é" */
        jinja_fail(j, "strftime_now: the time is not UTF-8");
    return v_str(jinja_str(j, out + 1, n - 1));
}

static struct value global_cycler(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    if (a->n_pos == 0)
        jinja_fail(j, "at least one item has to be provided");
    struct cycler *c = jinja_alloc(j, 1, sizeof *c);
    c->v = jinja_grow(j, a->pos, a->n_pos, a->n_pos, sizeof *c->v);
    c->n = a->n_pos;
    return (struct value){.kind = V_CYCLER, .cycler = c};
}

/* A joiner is a cycler over "" and then its separator for ever. */
static struct value global_joiner(struct jinja *j, struct value self, struct args *a)
{
    (void)self;
    struct cycler *c = jinja_alloc(j, 1, sizeof *c);
    c->v = jinja_alloc(j, 2, sizeof *c->v);
    c->v[0] = v_str(jinja_str_c(j, ""));
    c->v[1] = a->v[0].kind == V_ABSENT ? v_str(jinja_str_c(j, ", ")) : a->v[0];
    c->n = 2;
    return (struct value){.kind = V_JOINER, .cycler = c};
}

static const struct builtin globals[] = {
    {"range", global_range, 1, "start stop step"},
    {"dict", global_dict, 0, NULL},
    {"namespace", global_namespace, 0, NULL},
    {"raise_exception", global_raise_exception, 1, "message"},
    {"strftime_now", global_strftime_now, 1, "format"},
    {"cycler", global_cycler, 0, NULL},
    {"joiner", global_joiner, 0, "sep"},
};

const struct builtin *jinja_global_find(const char *name, size_t len)
{
    return builtin_find(globals, sizeof globals / sizeof globals[0], name, len);
}

/* Filters of sequences. Those that Jinja writes as generators (map, select, …) work while they are read
 * here too: `messages | selectattr(…) | first` looks no further than it must. */
#include "tokenizer/jinja.h"

#include <string.h>

/* str.lower of strings, as the filters that ignore case compare them */
static struct value fold(struct jinja *j, struct value v, bool case_sensitive)
{
    return v.kind == V_STRING && !case_sensitive ? v_str(jinja_case(j, v.s, CASE_LOWER)) : v;
}

static const struct value absent = {.kind = V_ABSENT};

/* ---- taking ---- */

static struct value filter_length(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    size_t n = jinja_len(v);
    if (v.kind == V_LOOP)
        return jinja_getattr(j, v, jinja_str_c(j, "length"));
    if (n == SIZE_MAX)
        jinja_fail(j, "object of type '%s' has no len()", jinja_type_name(v));
    return v_int((int64_t)n);
}

static struct value filter_first(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    struct value item;
    if (!jinja_next(j, jinja_iter(j, v), &item))
        return jinja_undefined_hint(j, "No first item, sequence was empty.");
    return item;
}

static struct value filter_list(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return jinja_list_of(j, jinja_iter(j, v));
}

static struct value reversed(struct jinja *j, struct value v)
{
    struct value l = jinja_list_of(j, jinja_iter(j, v));
    struct list *r = jinja_list_new(j, l.l->n);
    for (size_t i = 0; i < r->n; i++)
        r->v[i] = l.l->v[r->n - 1 - i];
    return v_list(r);
}

static struct value filter_last(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    if (v.kind == V_ITER)
        jinja_fail(j, "'generator' object is not reversible");
    struct value l = jinja_list_of(j, jinja_iter(j, v));
    return l.l->n ? l.l->v[l.l->n - 1] : jinja_undefined_hint(j, "No last item, sequence was empty.");
}

static struct value filter_reverse(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    if (v.kind == V_STRING) {
        size_t n = jinja_n_chars(v.s);
        return v_str(jinja_str_slice(j, v.s, n ? n - 1 : 0, -1, n));
    }
    struct value r = reversed(j, v);
    return v.kind == V_ITER ? r : v_iter(jinja_iter(j, r));
}

static bool next_item(struct jinja *j, struct iter *it, struct value *out)
{
    if (!it->from) {
        struct view *view = jinja_alloc(j, 1, sizeof *view);
        if (it->over.kind != V_DICT)
            jinja_fail(j, "Can only get item pairs from a mapping.");
        *view = (struct view){VIEW_ITEMS, it->over.d};
        it->from = jinja_iter(j, (struct value){.kind = V_VIEW, .view = view});
    }
    return jinja_next(j, it->from, out);
}

static struct iter *generator(struct jinja *j, struct value over,
                              bool (*next)(struct jinja *j, struct iter *it, struct value *out))
{
    struct iter *it = jinja_alloc(j, 1, sizeof *it);
    it->next = next;
    it->over = over;
    return it;
}

static struct value filter_items(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return v_iter(v.kind == V_UNDEFINED ? jinja_iter(j, v) : generator(j, v, next_item));
}

static struct value filter_join(struct jinja *j, struct value v, struct args *a)
{
    struct text t = {0};
    struct iter *it = jinja_iter(j, v);
    const struct str *between = a->v[0].kind == V_ABSENT ? jinja_str_c(j, "") : jinja_to_str(j, a->v[0]);
    struct value item;
    for (bool first = true; jinja_next(j, it, &item); first = false) {
        if (!first)
            text_put_str(j, &t, between);
        text_put_str(j, &t, jinja_to_str(j, jinja_getpath(j, item, a->v[1], absent)));
    }
    return v_str(text_str(j, &t));
}

/* ---- choosing ---- */

static struct value apply(struct jinja *j, struct iter *it, struct value item)
{
    struct args args = *it->args; /* called anew for every item: binding fills it */
    return builtin_call(j, it->call, item, &args);
}

/* The arguments after the first n, for the filter or test that is to be called. */
static void pass_args(struct jinja *j, struct iter *it, const struct args *a, size_t n)
{
    it->args = jinja_alloc(j, 1, sizeof *it->args);
    *it->args = (struct args){.pos = a->pos + n, .n_pos = a->n_pos - n, .kw = a->kw, .n_kw = a->n_kw};
}

static const struct builtin *named(struct jinja *j, struct value name, bool filter)
{
    const struct builtin *row = NULL;
    if (name.kind == V_STRING)
        row = filter ? jinja_filter_find(name.s->p, name.s->len) : jinja_test_find(name.s->p, name.s->len);
    if (!row) {
        const struct str *s = jinja_to_str(j, name);
        jinja_fail(j, "No %s named '%.*s' found.", filter ? "filter" : "test",
                   (int)(s->len < 64 ? s->len : 64), s->p);
    }
    return row;
}

/* Nothing is looked at, not even the arguments, before the first item is asked for. What is false, None
 * too, has no items. */
static bool open_generator(struct jinja *j, struct iter *it)
{
    if (!it->from && !jinja_truth(j, it->over))
        return false;
    if (!it->from)
        it->from = jinja_iter(j, it->over);
    return true;
}

static void prepare_map(struct jinja *j, struct iter *it)
{
    const struct args *a = it->args;
    if (a->n_pos > 0) {
        it->call = named(j, a->pos[0], true);
        pass_args(j, it, a, 1);
        return;
    }
    for (size_t i = 0; i < a->n_kw; i++) {
        if (jinja_str_is(a->kw[i].name, "attribute"))
            it->attribute = a->kw[i].value;
        else if (jinja_str_is(a->kw[i].name, "default"))
            it->missing = a->kw[i].value;
        else
            jinja_fail(j, "map: unexpected keyword argument");
    }
    if (it->attribute.kind == V_ABSENT)
        jinja_fail(j, "map requires a filter argument");
}

static bool next_mapped(struct jinja *j, struct iter *it, struct value *out)
{
    struct value item;
    bool first = !it->from;
    if (!open_generator(j, it))
        return false;
    if (first)
        prepare_map(j, it);
    if (!jinja_next(j, it->from, &item))
        return false;
    *out = it->call ? apply(j, it, item) : jinja_getpath(j, item, it->attribute, it->missing);
    return true;
}

static struct value filter_map(struct jinja *j, struct value v, struct args *a)
{
    struct iter *it = generator(j, v, next_mapped);
    it->args = a;
    return v_iter(it);
}

static void prepare_choice(struct jinja *j, struct iter *it)
{
    const struct args *a = it->args;
    if (it->by_attribute && a->n_pos == 0)
        jinja_fail(j, "Missing parameter for attribute name");
    size_t n = it->by_attribute;
    if (it->by_attribute)
        it->attribute = a->pos[0];
    if (a->n_pos > n) {
        it->call = named(j, a->pos[n], false);
        pass_args(j, it, a, n + 1);
    }
}

static bool next_selected(struct jinja *j, struct iter *it, struct value *out)
{
    bool first = !it->from;
    if (!open_generator(j, it))
        return false;
    if (first)
        prepare_choice(j, it);
    while (jinja_next(j, it->from, out)) {
        struct value v = jinja_getpath(j, *out, it->attribute, absent);
        if (jinja_truth(j, it->call ? apply(j, it, v) : v) != it->negate)
            return true;
    }
    return false;
}

static struct value choose(struct jinja *j, struct value v, struct args *a, bool by_attribute, bool negate)
{
    struct iter *it = generator(j, v, next_selected);
    it->args = a;
    it->by_attribute = by_attribute;
    it->negate = negate;
    return v_iter(it);
}

static struct value filter_select(struct jinja *j, struct value v, struct args *a)
{
    return choose(j, v, a, false, false);
}

static struct value filter_reject(struct jinja *j, struct value v, struct args *a)
{
    return choose(j, v, a, false, true);
}

static struct value filter_selectattr(struct jinja *j, struct value v, struct args *a)
{
    return choose(j, v, a, true, false);
}

static struct value filter_rejectattr(struct jinja *j, struct value v, struct args *a)
{
    return choose(j, v, a, true, true);
}

static bool next_unique(struct jinja *j, struct iter *it, struct value *out)
{
    if (!it->from)
        it->from = jinja_iter(j, it->over);
    while (jinja_next(j, it->from, out)) {
        struct value key = fold(j, jinja_getpath(j, *out, it->attribute, absent), it->negate);
        if (!jinja_dict_get(j, it->seen, key)) {
            jinja_dict_set(j, it->seen, key, v_none());
            return true;
        }
    }
    return false;
}

static struct value filter_unique(struct jinja *j, struct value v, struct args *a)
{
    struct iter *it = generator(j, v, next_unique);
    it->negate = jinja_bool_arg(j, a->v[0], false); /* case sensitive */
    it->attribute = a->v[1];
    it->seen = jinja_dict_new(j);
    return v_iter(it);
}

/* ---- sorting ---- */

struct sortable {
    struct value key, value;
};

/* Stable, also downwards: equal items keep their order. */
static void merge_sort(struct jinja *j, struct sortable *v, struct sortable *scratch, size_t n, bool down)
{
    if (n < 2)
        return;
    size_t half = n / 2, a = 0, b = half;
    merge_sort(j, v, scratch, half, down);
    merge_sort(j, v + half, scratch, n - half, down);
    memcpy(scratch, v, n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        bool take_b = b < n && a == half;
        if (a < half && b < n) {
            int c = jinja_compare(j, scratch[b].key, scratch[a].key, "<");
            take_b = down ? c > 0 : c < 0;
        }
        v[i] = take_b ? scratch[b++] : scratch[a++];
    }
}

static void sort(struct jinja *j, struct sortable *v, size_t n, bool down)
{
    merge_sort(j, v, jinja_alloc(j, n, sizeof *v), n, down);
}

static struct value sorted_list(struct jinja *j, const struct sortable *v, size_t n)
{
    struct list *l = jinja_list_new(j, n);
    for (size_t i = 0; i < n; i++)
        l->v[i] = v[i].value;
    return v_list(l);
}

/* The list of an item's attributes "a,b.c"; of the item itself without. */
static struct value sort_key(struct jinja *j, struct value item, struct value attributes, bool case_sensitive)
{
    if (attributes.kind != V_STRING) {
        struct value key = fold(j, jinja_getpath(j, item, attributes, absent), case_sensitive);
        return jinja_tuple(j, &key, 1);
    }
    struct value names = jinja_split(j, attributes.s, jinja_str_c(j, ","), -1, false);
    struct list *key = jinja_list_new(j, names.l->n);
    for (size_t i = 0; i < key->n; i++)
        key->v[i] = fold(j, jinja_getpath(j, item, names.l->v[i], absent), case_sensitive);
    return (struct value){.kind = V_TUPLE, .l = key};
}

static struct value filter_sort(struct jinja *j, struct value v, struct args *a)
{
    bool down = jinja_int_arg(j, a->v[0], 0) != 0, case_sensitive = jinja_bool_arg(j, a->v[1], false);
    struct value l = jinja_list_of(j, jinja_iter(j, v));
    struct sortable *s = jinja_alloc(j, l.l->n, sizeof *s);
    for (size_t i = 0; i < l.l->n; i++)
        s[i] = (struct sortable){sort_key(j, l.l->v[i], a->v[2], case_sensitive), l.l->v[i]};
    sort(j, s, l.l->n, down);
    return sorted_list(j, s, l.l->n);
}

static struct value filter_dictsort(struct jinja *j, struct value v, struct args *a)
{
    bool case_sensitive = jinja_bool_arg(j, a->v[0], false), down = jinja_int_arg(j, a->v[2], 0) != 0;
    bool by_value = a->v[1].kind == V_STRING && jinja_str_is(a->v[1].s, "value");
    if (v.kind != V_DICT)
        jinja_fail(j, "dictsort needs a mapping, not %s", jinja_type_name(v));
    if (a->v[1].kind != V_ABSENT && !by_value &&
        !(a->v[1].kind == V_STRING && jinja_str_is(a->v[1].s, "key")))
        jinja_fail(j, "You can only sort by either \"key\" or \"value\"");
    struct sortable *s = jinja_alloc(j, v.d->n, sizeof *s);
    for (size_t i = 0; i < v.d->n; i++) {
        struct value pair[2] = {v.d->e[i].key, v.d->e[i].value};
        s[i] = (struct sortable){fold(j, pair[by_value], case_sensitive), jinja_tuple(j, pair, 2)};
    }
    sort(j, s, v.d->n, down);
    return sorted_list(j, s, v.d->n);
}

static struct value filter_groupby(struct jinja *j, struct value v, struct args *a)
{
    bool case_sensitive = jinja_bool_arg(j, a->v[2], false);
    struct value l = jinja_list_of(j, jinja_iter(j, v));
    struct sortable *s = jinja_alloc(j, l.l->n, sizeof *s);
    size_t n = l.l->n, n_groups = 0;
    for (size_t i = 0; i < n; i++)
        s[i] = (struct sortable){fold(j, jinja_getpath(j, l.l->v[i], a->v[0], a->v[1]), case_sensitive),
                                 l.l->v[i]};
    sort(j, s, n, false);
    struct list *groups = jinja_list_new(j, n);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && jinja_equal(j, s[end].key, s[i].key);)
            end++;
        struct value pair[2] = {jinja_getpath(j, s[i].value, a->v[0], a->v[1]),
                                sorted_list(j, s + i, end - i)};
        struct list *group = jinja_list_new(j, 2);
        memcpy(group->v, pair, sizeof pair);
        group->group = true;
        groups->v[n_groups++] = (struct value){.kind = V_TUPLE, .l = group};
    }
    groups->n = n_groups;
    return v_list(groups);
}

static struct value extreme(struct jinja *j, struct value v, struct args *a, int sign)
{
    bool case_sensitive = jinja_bool_arg(j, a->v[0], false);
    struct iter *it = jinja_iter(j, v);
    struct value best, item;
    if (!jinja_next(j, it, &best))
        return jinja_undefined_hint(j, "No aggregated item, sequence was empty.");
    struct value best_key = fold(j, jinja_getpath(j, best, a->v[1], absent), case_sensitive);
    while (jinja_next(j, it, &item)) {
        struct value key = fold(j, jinja_getpath(j, item, a->v[1], absent), case_sensitive);
        int c = jinja_compare(j, key, best_key, sign < 0 ? "<" : ">");
        if (sign < 0 ? c < 0 : c > 0) {
            best = item;
            best_key = key;
        }
    }
    return best;
}

static struct value filter_min(struct jinja *j, struct value v, struct args *a)
{
    return extreme(j, v, a, -1);
}

static struct value filter_max(struct jinja *j, struct value v, struct args *a)
{
    return extreme(j, v, a, 1);
}

static struct value filter_sum(struct jinja *j, struct value v, struct args *a)
{
    struct value sum = a->v[1].kind == V_ABSENT ? v_int(0) : a->v[1], item;
    struct iter *it = jinja_iter(j, v);
    if (sum.kind == V_STRING)
        jinja_fail(j, "sum() can't sum strings");
    while (jinja_next(j, it, &item))
        sum = jinja_binary(j, OP_ADD, sum, jinja_getpath(j, item, a->v[0], absent));
    return sum;
}

/* ---- grouping by number ---- */

static struct value part(struct jinja *j, const struct list *l, size_t from, size_t n, size_t fill,
                         struct value with)
{
    struct list *p = jinja_list_new(j, n + fill);
    for (size_t i = 0; i < n + fill; i++)
        p->v[i] = i < n ? l->v[from + i] : with;
    return v_list(p);
}

static bool fills(struct value with)
{
    return with.kind != V_ABSENT && with.kind != V_NONE;
}

static struct value filter_batch(struct jinja *j, struct value v, struct args *a)
{
    int64_t size = jinja_int_arg(j, a->v[0], 0);
    const struct list *l = jinja_list_of(j, jinja_iter(j, v)).l;
    if (size < 1)
        jinja_fail(j, "batch needs a positive number");
    size_t n = (uint64_t)size > l->n ? l->n : (size_t)size, n_parts = n ? (l->n + n - 1) / n : 0;
    struct list *parts = jinja_list_new(j, n_parts);
    for (size_t i = 0; i < n_parts; i++) {
        size_t have = i + 1 < n_parts ? n : l->n - i * n;
        size_t fill = fills(a->v[1]) ? (size_t)size - have : 0;
        parts->v[i] = part(j, l, i * n, have, fill, a->v[1]);
    }
    return v_iter(jinja_iter(j, v_list(parts)));
}

static struct value filter_slice(struct jinja *j, struct value v, struct args *a)
{
    int64_t slices = jinja_int_arg(j, a->v[0], 0);
    const struct list *l = jinja_list_of(j, jinja_iter(j, v)).l;
    if (slices < 1)
        jinja_fail(j, "slice needs a positive number");
    size_t n = (size_t)slices, each = l->n / n, longer = l->n % n, from = 0;
    struct list *parts = jinja_list_new(j, n);
    for (size_t i = 0; i < n; i++) {
        size_t have = each + (i < longer);
        parts->v[i] = part(j, l, from, have, fills(a->v[1]) && i >= longer, a->v[1]);
        from += have;
    }
    return v_iter(jinja_iter(j, v_list(parts)));
}

static const struct builtin filters[] = {
    {"length", filter_length, 0, ""},
    {"count", filter_length, 0, ""},
    {"first", filter_first, 0, ""},
    {"last", filter_last, 0, ""},
    {"list", filter_list, 0, ""},
    {"join", filter_join, 0, "d attribute"},
    {"items", filter_items, 0, ""},
    {"map", filter_map, 0, NULL},
    {"select", filter_select, 0, NULL},
    {"reject", filter_reject, 0, NULL},
    {"selectattr", filter_selectattr, 0, NULL},
    {"rejectattr", filter_rejectattr, 0, NULL},
    {"unique", filter_unique, 0, "case_sensitive attribute"},
    {"reverse", filter_reverse, 0, ""},
    {"sort", filter_sort, 0, "reverse case_sensitive attribute"},
    {"dictsort", filter_dictsort, 0, "case_sensitive by reverse"},
    {"groupby", filter_groupby, 1, "attribute default case_sensitive"},
    {"min", filter_min, 0, "case_sensitive attribute"},
    {"max", filter_max, 0, "case_sensitive attribute"},
    {"sum", filter_sum, 0, "attribute start"},
    {"batch", filter_batch, 1, "linecount fill_with"},
    {"slice", filter_slice, 1, "slices fill_with"},
};

const struct builtin *jinja_sequence_filter_find(const char *name, size_t len)
{
    return builtin_find(filters, sizeof filters / sizeof filters[0], name, len);
}

/* The interpreter: walks the tree, with scopes of variables and the output being written.
 *
 * Scopes are Jinja's: a for loop's body, a macro and the blocks that capture text have their own (what
 * they set is gone afterwards; a namespace is how templates carry values out), an if has none. A macro
 * sees the scope that it was defined in. */
#include "tokenizer/jinja_tree.h"

#include <string.h>

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

static struct value eval(struct jinja *j, const struct expr *e);
static enum flow exec_block(struct jinja *j, const struct block *b);

/* ---- variables ---- */

static struct scope *scope_new(struct jinja *j, struct scope *parent)
{
    struct scope *s = jinja_alloc(j, 1, sizeof *s);
    s->parent = parent;
    return s;
}

static void bind(struct jinja *j, struct scope *s, uint32_t symbol, struct value v)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].symbol == symbol) {
            s->v[i].value = v;
            return;
        }
    jinja_step(j, 1 + s->n / 16);
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 4;
        s->v = jinja_grow(j, s->v, s->n, s->cap, sizeof *s->v);
    }
    s->v[s->n++] = (struct binding){symbol, v};
}

static struct value lookup(struct jinja *j, uint32_t symbol)
{
    for (const struct scope *s = j->scope; s; s = s->parent) {
        for (size_t i = 0; i < s->n; i++)
            if (s->v[i].symbol == symbol)
                return s->v[i].value;
        jinja_step(j, s->n / 16);
    }
    if (j->context[symbol].kind != V_ABSENT)
        return j->context[symbol];
    return jinja_undefined_name(j, j->t->symbols[symbol]);
}

static void assign(struct jinja *j, const struct expr *target, struct value v)
{
    if (target->kind == E_NAME) {
        bind(j, j->scope, target->symbol, v);
        return;
    }
    if (target->kind == E_NAMESPACE_REF) {
        struct value ns = lookup(j, target->symbol);
        if (ns.kind != V_NAMESPACE)
            jinja_fail(j, "cannot assign attribute on non-namespace object");
        jinja_dict_set(j, ns.d, target->value, v);
        return;
    }
    struct iter *it = jinja_iter(j, v);
    struct value *items = jinja_alloc(j, target->n_items, sizeof *items), more;
    for (size_t i = 0; i < target->n_items; i++)
        if (!jinja_next(j, it, &items[i]))
            jinja_fail(j, "not enough values to unpack (expected %zu, got %zu)", target->n_items, i);
    if (jinja_next(j, it, &more))
        jinja_fail(j, "too many values to unpack (expected %zu)", target->n_items);
    for (size_t i = 0; i < target->n_items; i++)
        assign(j, target->items[i], items[i]);
}

/* ---- calls ---- */

static void spread(struct jinja *j, const struct arg_exprs *e, struct args *a)
{
    struct value rest = v_list(jinja_list_new(j, 0)), names = v_dict(jinja_dict_new(j));
    if (e->star)
        rest = jinja_list_of(j, jinja_iter(j, eval(j, e->star)));
    if (e->star_star)
        names = eval(j, e->star_star);
    if (names.kind != V_DICT)
        jinja_fail(j, "argument after ** must be a mapping, not %s", jinja_type_name(names));
    a->pos = jinja_grow(j, a->pos, a->n_pos, a->n_pos + rest.l->n, sizeof *a->pos);
    for (size_t i = 0; i < rest.l->n; i++)
        a->pos[a->n_pos++] = rest.l->v[i];
    a->kw = jinja_grow(j, a->kw, a->n_kw, a->n_kw + names.d->n, sizeof *a->kw);
    for (size_t i = 0; i < names.d->n; i++) {
        if (names.d->e[i].key.kind != V_STRING)
            jinja_fail(j, "keywords must be strings");
        for (size_t k = 0; k < e->n_kw; k++)
            if (jinja_str_eq(a->kw[k].name, names.d->e[i].key.s))
                jinja_fail(j, "got multiple values for a keyword argument");
        a->kw[a->n_kw++] = (struct kwarg){names.d->e[i].key.s, names.d->e[i].value};
    }
}

static struct args *eval_args(struct jinja *j, const struct arg_exprs *e)
{
    struct args *a = jinja_alloc(j, 1, sizeof *a);
    a->n_pos = e->n_pos;
    a->n_kw = e->n_kw;
    if (e->n_pos)
        a->pos = jinja_alloc(j, e->n_pos, sizeof *a->pos);
    if (e->n_kw)
        a->kw = jinja_alloc(j, e->n_kw, sizeof *a->kw);
    for (size_t i = 0; i < e->n_pos; i++)
        a->pos[i] = eval(j, e->pos[i]);
    for (size_t i = 0; i < e->n_kw; i++)
        a->kw[i] = (struct kwarg){e->kw_names[i], eval(j, e->kw[i])};
    if (e->star || e->star_star)
        spread(j, e, a);
    return a;
}

/* Runs b in a scope below parent and takes what it writes. */
static const struct str *capture(struct jinja *j, struct scope *scope, const struct block *b, enum flow *flow)
{
    struct text text = {0}, *out = j->out;
    struct scope *caller = j->scope;
    j->out = &text;
    j->scope = scope;
    enum flow f = exec_block(j, b);
    j->scope = caller;
    j->out = out;
    if (flow)
        *flow = f;
    return text_str(j, &text);
}

static struct value take_kwarg(struct args *a, const struct str *name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw[i].value.kind != V_ABSENT && jinja_str_eq(a->kw[i].name, name)) {
            struct value v = a->kw[i].value;
            a->kw[i].value.kind = V_ABSENT;
            return v;
        }
    return (struct value){.kind = V_ABSENT};
}

/* What is left of the keyword arguments after the parameters took theirs. */
static struct dict *rest_kwargs(struct jinja *j, const struct args *a)
{
    struct dict *d = jinja_dict_new(j);
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw[i].value.kind != V_ABSENT)
            jinja_dict_set(j, d, v_str(a->kw[i].name), a->kw[i].value);
    return d;
}

static void bind_special_args(struct jinja *j, const struct macro *m, struct scope *s, struct args *a)
{
    if (m->uses_caller) {
        struct value caller = take_kwarg(a, j->t->symbols[SYMBOL_CALLER]);
        if (caller.kind == V_ABSENT || caller.kind == V_NONE)
            caller = jinja_undefined_hint(j, "No caller defined");
        bind(j, s, SYMBOL_CALLER, caller);
    }
    struct dict *rest = rest_kwargs(j, a);
    if (m->uses_kwargs)
        bind(j, s, SYMBOL_KWARGS, v_dict(rest));
    else if (rest->n) {
        const struct str *name = rest->e[0].key.s;
        jinja_fail(j, "macro takes no keyword argument '%.*s'", (int)(name->len < 64 ? name->len : 64),
                   name->p);
    }
    size_t used = a->n_pos < m->n_params ? a->n_pos : m->n_params;
    if (m->uses_varargs)
        bind(j, s, SYMBOL_VARARGS, jinja_tuple(j, a->pos + used, a->n_pos - used));
    else if (a->n_pos > m->n_params)
        jinja_fail(j, "macro takes not more than %zu argument(s)", m->n_params);
}

static struct value call_macro(struct jinja *j, const struct bound_macro *bound, struct args *a)
{
    const struct macro *m = bound->macro;
    struct scope *s = scope_new(j, bound->scope), *caller = j->scope;
    size_t first_default = m->n_params - m->n_defaults;
    struct value *given = jinja_alloc(j, m->n_params, sizeof *given);
    for (size_t i = 0; i < m->n_params; i++)
        given[i] = i < a->n_pos ? a->pos[i] : take_kwarg(a, m->param_names[i]);
    bind_special_args(j, m, s, a);
    j->scope = s; /* defaults see the parameters before them */
    for (size_t i = 0; i < m->n_params; i++) {
        struct value v = given[i];
        if (v.kind == V_ABSENT && i >= first_default)
            v = eval(j, m->defaults[i - first_default]);
        else if (v.kind == V_ABSENT)
            v = jinja_undefined_hint(j, "a parameter of the macro was not provided");
        bind(j, s, m->params[i], v);
    }
    j->scope = caller;
    return v_str(capture(j, s, &m->body, NULL));
}

static const struct str *run_loop(struct jinja *j, const struct stmt *s, struct scope *outer,
                                  struct value over, size_t depth0);

static struct value call_loop(struct jinja *j, struct loop *l, struct args *a)
{
    if (!l->stmt)
        jinja_fail(j, "The loop must have the 'recursive' marker to be called recursively.");
    if (a->n_pos != 1 || a->n_kw)
        jinja_fail(j, "loop() takes one argument");
    return v_str(run_loop(j, l->stmt, l->scope, a->pos[0], l->depth0 + 1));
}

struct value jinja_call(struct jinja *j, struct value callee, struct args *a)
{
    struct value v;
    jinja_enter(j);
    switch (callee.kind) {
    case V_FUNCTION:
        v = builtin_call(j, callee.fn->row, callee.fn->self, a);
        break;
    case V_MACRO:
        v = call_macro(j, callee.macro, a);
        break;
    case V_LOOP:
        v = call_loop(j, callee.loop, a);
        break;
    case V_JOINER:
        if (a->n_pos || a->n_kw)
            jinja_fail(j, "joiner() takes no arguments");
        v = callee.cycler->v[callee.cycler->pos];
        callee.cycler->pos = 1;
        break;
    case V_UNDEFINED:
        jinja_fail_undefined(j, callee);
    default:
        jinja_fail(j, "'%s' object is not callable", jinja_type_name(callee));
    }
    jinja_leave(j);
    return v;
}

/* ---- expressions ---- */

static struct value eval_list(struct jinja *j, const struct expr *e)
{
    struct list *l = jinja_list_new(j, e->n_items);
    for (size_t i = 0; i < e->n_items; i++)
        l->v[i] = eval(j, e->items[i]);
    return (struct value){.kind = e->kind == E_LIST ? V_LIST : V_TUPLE, .l = l};
}

static struct value eval_dict(struct jinja *j, const struct expr *e)
{
    struct dict *d = jinja_dict_new(j);
    for (size_t i = 0; i < e->n_items; i += 2) {
        struct value key = eval(j, e->items[i]);
        jinja_dict_set(j, d, key, eval(j, e->items[i + 1]));
    }
    return v_dict(d);
}

static struct value eval_index(struct jinja *j, const struct expr *e)
{
    struct value on = eval(j, e->a);
    if (e->b->kind != E_SLICE)
        return jinja_getitem(j, on, eval(j, e->b));
    struct value bounds[3] = {
        e->b->a ? eval(j, e->b->a) : v_none(),
        e->b->b ? eval(j, e->b->b) : v_none(),
        e->b->c ? eval(j, e->b->c) : v_none(),
    };
    return jinja_slice(j, on, bounds);
}

static struct value eval_call(struct jinja *j, const struct expr *e)
{
    struct value callee = eval(j, e->a);
    struct args *args = eval_args(j, &e->args);
    j->line = e->line;
    return jinja_call(j, callee, args);
}

/* A filter or test applied to v. */
static struct value apply(struct jinja *j, const struct expr *e, struct value v)
{
    const struct str *name = e->value.s;
    if (!e->builtin)
        jinja_fail(j, "No %s named '%.*s' found.", e->kind == E_FILTER ? "filter" : "test",
                   (int)(name->len < 64 ? name->len : 64), name->p);
    struct args *args = eval_args(j, &e->args);
    j->line = e->line;
    return builtin_call(j, e->builtin, v, args);
}

/* e's filters applied to what a block captured: the chain's innermost has nothing to filter yet. */
static struct value apply_chain(struct jinja *j, const struct expr *e, struct value v)
{
    jinja_enter(j);
    if (e && e->a)
        v = apply_chain(j, e->a, v);
    jinja_leave(j);
    return e ? apply(j, e, v) : v;
}

static struct value eval_concat(struct jinja *j, const struct expr *e)
{
    struct value *v = jinja_alloc(j, e->n_items, sizeof *v);
    for (size_t i = 0; i < e->n_items; i++)
        v[i] = eval(j, e->items[i]);
    const struct str *s = jinja_str_safe(j, jinja_to_str(j, v[0]), false); /* ~ joins plain strings */
    for (size_t i = 1; i < e->n_items; i++)
        s = jinja_concat(j, s, jinja_to_str(j, v[i]));
    return v_str(s);
}

static struct value eval_compare(struct jinja *j, const struct expr *e)
{
    struct value left = eval(j, e->a);
    for (size_t i = 0; i < e->n_items; i++) {
        struct value right = eval(j, e->items[i]);
        j->line = e->line;
        if (!jinja_compare_op(j, e->ops[i], left, right))
            return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

static struct value eval_cond(struct jinja *j, const struct expr *e)
{
    if (jinja_truth(j, eval(j, e->b)))
        return eval(j, e->a);
    if (e->c)
        return eval(j, e->c);
    return jinja_undefined_hint(
        j, "the inline if-expression evaluated to false and no else section was defined.");
}

static struct value eval_binary(struct jinja *j, const struct expr *e)
{
    struct value a = eval(j, e->a), b = eval(j, e->b);
    j->line = e->line;
    return jinja_binary(j, e->op, a, b);
}

static struct value eval_kind(struct jinja *j, const struct expr *e)
{
    switch (e->kind) {
    case E_CONST:
        return e->value;
    case E_NAME:
        return lookup(j, e->symbol);
    case E_LIST:
    case E_TUPLE:
        return eval_list(j, e);
    case E_DICT:
        return eval_dict(j, e);
    case E_ATTR:
        return jinja_getattr(j, eval(j, e->a), e->value.s);
    case E_INDEX:
        return eval_index(j, e);
    case E_CALL:
        return eval_call(j, e);
    case E_FILTER:
    case E_TEST:
        return apply(j, e, eval(j, e->a));
    case E_UNARY:
        return jinja_unary(j, e->op, eval(j, e->a));
    case E_BINARY:
        return eval_binary(j, e);
    case E_CONCAT:
        return eval_concat(j, e);
    case E_COMPARE:
        return eval_compare(j, e);
    case E_AND: {
        struct value a = eval(j, e->a);
        return jinja_truth(j, a) ? eval(j, e->b) : a;
    }
    case E_OR: {
        struct value a = eval(j, e->a);
        return jinja_truth(j, a) ? a : eval(j, e->b);
    }
    case E_COND:
        return eval_cond(j, e);
    default: /* a slice inside a tuple of subscripts */
        jinja_fail(j, "unhashable type: 'slice'");
    }
}

static struct value eval(struct jinja *j, const struct expr *e)
{
    jinja_enter(j);
    jinja_step(j, 1);
    j->line = e->line;
    struct value v = eval_kind(j, e);
    jinja_leave(j);
    return v;
}

/* ---- loops ---- */

struct test_iter { /* "for x in y if test": the items that pass */
    struct iter iter;
    const struct stmt *stmt;
    struct scope *outer;
};

static bool next_tested(struct jinja *j, struct iter *it, struct value *out)
{
    const struct test_iter *t = (const struct test_iter *)it; /* iter is its first member */
    while (jinja_next(j, it->from, out)) {
        struct scope *caller = j->scope;
        j->scope = scope_new(j, t->outer);
        assign(j, t->stmt->target, *out);
        bool pass = jinja_truth(j, eval(j, t->stmt->test));
        j->scope = caller;
        if (pass)
            return true;
    }
    return false;
}

bool loop_has(struct jinja *j, struct loop *l, size_t i)
{
    while (!l->ended && l->n_kept <= i) {
        struct value v;
        if (!jinja_next(j, l->iter, &v)) {
            l->ended = true;
            break;
        }
        if (l->n_kept == l->cap) {
            l->cap = l->cap ? 2 * l->cap : 8;
            l->kept = jinja_grow(j, l->kept, l->n_kept, l->cap, sizeof *l->kept);
        }
        l->kept[l->n_kept++] = v;
    }
    return i < l->n_kept;
}

static enum flow exec_loop(struct jinja *j, const struct stmt *s, struct scope *outer, struct value over,
                           size_t depth0)
{
    struct loop *l = jinja_alloc(j, 1, sizeof *l);
    struct scope *caller = j->scope;
    l->iter = jinja_iter(j, over);
    l->stmt = s->recursive ? s : NULL;
    l->scope = outer;
    l->depth0 = depth0;
    if (s->test) {
        struct test_iter *t = jinja_alloc(j, 1, sizeof *t);
        *t = (struct test_iter){{.next = next_tested, .from = l->iter}, s, outer};
        l->iter = &t->iter;
    }
    enum flow flow = FLOW_NEXT;
    bool completed = false;
    for (size_t i = 0; flow != FLOW_BREAK && loop_has(j, l, i); i++) {
        jinja_step(j, 1);
        l->index0 = i;
        j->scope = scope_new(j, outer);
        assign(j, s->target, l->kept[i]);
        bind(j, j->scope, SYMBOL_LOOP, (struct value){.kind = V_LOOP, .loop = l});
        flow = exec_block(j, &s->body);
        completed |= flow == FLOW_NEXT;
    }
    flow = FLOW_NEXT;
    if (!completed) { /* Jinja's else: no item, or break and continue cut every round short */
        j->scope = scope_new(j, outer);
        flow = exec_block(j, &s->orelse);
    }
    j->scope = caller;
    return flow;
}

static const struct str *run_loop(struct jinja *j, const struct stmt *s, struct scope *outer,
                                  struct value over, size_t depth0)
{
    struct text text = {0}, *out = j->out;
    j->out = &text;
    (void)exec_loop(j, s, outer, over, depth0);
    j->out = out;
    return text_str(j, &text);
}

/* ---- statements ---- */

static struct value macro_value(struct jinja *j, const struct macro *m)
{
    struct bound_macro *bound = jinja_alloc(j, 1, sizeof *bound);
    *bound = (struct bound_macro){m, j->scope};
    return (struct value){.kind = V_MACRO, .macro = bound};
}

/* {% call f(x) %}body{% endcall %}: f(x, caller=a macro of the body) */
static void exec_call(struct jinja *j, const struct stmt *s)
{
    struct value callee = eval(j, s->expr->a);
    struct args *a = eval_args(j, &s->expr->args);
    a->kw = jinja_grow(j, a->kw, a->n_kw, a->n_kw + 1, sizeof *a->kw);
    a->kw[a->n_kw++] = (struct kwarg){j->t->symbols[SYMBOL_CALLER], macro_value(j, s->macro)};
    text_put_str(j, j->out, jinja_to_str(j, jinja_call(j, callee, a)));
}

static enum flow exec_if(struct jinja *j, const struct stmt *s)
{
    for (size_t i = 0; i < s->n_branches; i++)
        if (jinja_truth(j, eval(j, s->branches[i].test)))
            return exec_block(j, &s->branches[i].body);
    return exec_block(j, &s->orelse);
}

static enum flow exec_with(struct jinja *j, const struct stmt *s)
{
    struct value *values = jinja_alloc(j, s->n_targets, sizeof *values);
    struct scope *outer = j->scope;
    for (size_t i = 0; i < s->n_targets; i++)
        values[i] = eval(j, s->values[i]);
    j->scope = scope_new(j, outer);
    for (size_t i = 0; i < s->n_targets; i++)
        assign(j, s->targets[i], values[i]);
    enum flow flow = exec_block(j, &s->body);
    j->scope = outer;
    return flow;
}

static enum flow exec(struct jinja *j, const struct stmt *s)
{
    enum flow flow = FLOW_NEXT;
    struct value v;
    switch (s->kind) {
    case S_TEXT:
        text_put_str(j, j->out, s->text);
        break;
    case S_PRINT:
        text_put_str(j, j->out, jinja_to_str(j, eval(j, s->expr)));
        break;
    case S_IF:
        return exec_if(j, s);
    case S_FOR:
        return exec_loop(j, s, j->scope, eval(j, s->expr), 0);
    case S_SET:
        assign(j, s->target, eval(j, s->expr));
        break;
    case S_SET_BLOCK:
    case S_FILTER:
        v = v_str(capture(j, scope_new(j, j->scope), &s->body, &flow));
        if (flow != FLOW_NEXT)
            break;
        v = apply_chain(j, s->expr, v);
        if (s->kind == S_SET_BLOCK)
            assign(j, s->target, v);
        else if (v.kind == V_STRING)
            text_put_str(j, j->out, v.s);
        else
            jinja_fail(j, "the block's filter gave %s, not str", jinja_type_name(v));
        break;
    case S_MACRO:
        bind(j, j->scope, s->macro->symbol, macro_value(j, s->macro));
        break;
    case S_CALL:
        exec_call(j, s);
        break;
    case S_WITH:
        return exec_with(j, s);
    case S_SCOPE:
        text_put_str(j, j->out, capture(j, scope_new(j, j->scope), &s->body, NULL));
        break;
    case S_BREAK:
        return FLOW_BREAK;
    case S_CONTINUE:
        return FLOW_CONTINUE;
    }
    return flow;
}

static enum flow exec_block(struct jinja *j, const struct block *b)
{
    enum flow flow = FLOW_NEXT;
    jinja_enter(j);
    for (size_t i = 0; i < b->n && flow == FLOW_NEXT; i++) {
        jinja_step(j, 1);
        j->line = b->v[i]->line;
        flow = exec(j, b->v[i]);
    }
    jinja_leave(j);
    return flow;
}

void jinja_run(struct jinja *j)
{
    j->scope = scope_new(j, NULL);
    (void)exec_block(j, &j->t->body);
}

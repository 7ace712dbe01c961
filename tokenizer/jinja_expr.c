/* The expression parser: recursive descent in the grammar's order of precedence,
 *
 *     a if b else c · or · and · not · comparisons · + - · ~ · * / // % · ** · unary - + · x.y x[y] x() ·
 * |filter, is test
 *
 * Note that unary minus binds tighter than ** and looser than postfixes, and that a filter applies to
 * the whole unary expression: -1|abs is 1. */
#include "tokenizer/jinja_tree.h"

#include <string.h>

static struct expr *expr_new(struct parser *p, enum expr_kind kind, int line)
{
    struct expr *e = jinja_alloc(p->j, 1, sizeof *e);
    e->kind = kind;
    e->line = line;
    e->depth = 1;
    return e;
}

/* Takes note that child hangs below e: chains of operators make a tree deep without nesting. */
static struct expr *hang(struct parser *p, struct expr *e, const struct expr *child)
{
    if (child && child->depth >= e->depth)
        e->depth = child->depth + 1;
    if (e->depth > JINJA_MAX_EXPR_DEPTH)
        jinja_fail(p->j, "nested too deeply");
    return e;
}

static void enter(struct parser *p)
{
    if (++p->depth > JINJA_MAX_PARSE_DEPTH)
        jinja_fail(p->j, "nested too deeply");
}

static struct expr *unary(struct parser *p, enum op op, int line, struct expr *a)
{
    struct expr *e = expr_new(p, E_UNARY, line);
    e->op = op;
    e->a = a;
    return hang(p, e, a);
}

static struct expr *binary(struct parser *p, enum expr_kind kind, enum op op, int line, struct expr *a,
                           struct expr *b)
{
    struct expr *e = expr_new(p, kind, line);
    e->op = op;
    e->a = a;
    e->b = b;
    return hang(p, hang(p, e, a), b);
}

static struct expr *constant(struct parser *p, int line, struct value v)
{
    struct expr *e = expr_new(p, E_CONST, line);
    if (v.kind == V_STRING)
        v.s = jinja_str_fixed(p->j, v.s);
    e->value = v;
    return e;
}

struct expr_list {
    struct expr **v;
    size_t n, cap;
};

static void append(struct parser *p, struct expr_list *l, struct expr *e)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 4;
        l->v = jinja_grow(p->j, l->v, l->n, l->cap, sizeof(struct expr *));
    }
    l->v[l->n++] = e;
}

static struct expr *with_items(struct parser *p, enum expr_kind kind, int line, const struct expr_list *l)
{
    struct expr *e = expr_new(p, kind, line);
    e->items = l->v;
    e->n_items = l->n;
    for (size_t i = 0; i < l->n; i++)
        hang(p, e, l->v[i]);
    return e;
}

__attribute__((noreturn)) static void fail_unexpected(struct parser *p)
{
    char buf[64];
    jinja_fail(p->j, "unexpected '%s'", token_name(&p->now, buf, sizeof buf));
}

/* ---- calls ---- */

static void hang_args(struct parser *p, struct expr *e)
{
    for (size_t i = 0; i < e->args.n_pos; i++)
        hang(p, e, e->args.pos[i]);
    for (size_t i = 0; i < e->args.n_kw; i++)
        hang(p, e, e->args.kw[i]);
    hang(p, hang(p, e, e->args.star), e->args.star_star);
}

/* ( a, b, name=c, *d, **e ) */
static void parse_args(struct parser *p, struct expr *call)
{
    struct arg_exprs *a = &call->args;
    struct expr_list pos = {0}, kw = {0};
    size_t cap_names = 0;
    bool first = true;
    (void)parser_expect(p, T_LPAREN);
    for (; !parser_is(p, T_RPAREN); first = false) {
        if (!first) {
            (void)parser_expect(p, T_COMMA);
            if (parser_is(p, T_RPAREN))
                break;
        }
        bool after_star = a->star || a->star_star;
        if (parser_skip(p, T_MUL)) {
            if (after_star)
                jinja_fail(p->j, "invalid syntax for function call expression");
            a->star = parse_expression(p);
        } else if (parser_skip(p, T_POW)) {
            if (a->star_star)
                jinja_fail(p->j, "invalid syntax for function call expression");
            a->star_star = parse_expression(p);
        } else if (parser_is(p, T_NAME) && parser_look(p)->kind == T_ASSIGN) {
            const struct str *name = p->now.text;
            if (a->star_star)
                jinja_fail(p->j, "invalid syntax for function call expression");
            for (size_t i = 0; i < kw.n; i++)
                if (jinja_str_eq(a->kw_names[i], name))
                    jinja_fail(p->j, "keyword argument repeated: %.*s",
                               (int)(name->len < 64 ? name->len : 64), name->p);
            parser_advance(p);
            parser_advance(p);
            if (kw.n == cap_names) {
                cap_names = cap_names ? 2 * cap_names : 4;
                a->kw_names = jinja_grow(p->j, a->kw_names, kw.n, cap_names, sizeof(struct str *));
            }
            a->kw_names[kw.n] = name;
            append(p, &kw, parse_expression(p));
        } else {
            if (after_star || kw.n)
                jinja_fail(p->j, "invalid syntax for function call expression");
            append(p, &pos, parse_expression(p));
        }
    }
    (void)parser_expect(p, T_RPAREN);
    a->pos = pos.v;
    a->n_pos = pos.n;
    a->kw = kw.v;
    a->n_kw = kw.n;
    hang_args(p, call);
}

static struct expr *parse_call(struct parser *p, struct expr *callee)
{
    struct expr *e = expr_new(p, E_CALL, p->now.line);
    e->a = callee;
    hang(p, e, callee);
    parse_args(p, e);
    return e;
}

/* A name with dots, as filters and tests may have. */
static const struct str *dotted_name(struct parser *p)
{
    const struct str *name = parser_expect(p, T_NAME).text;
    while (parser_skip(p, T_DOT)) {
        name = jinja_concat(p->j, name, jinja_str_c(p->j, "."));
        name = jinja_concat(p->j, name, parser_expect(p, T_NAME).text);
    }
    return name;
}

struct expr *parse_filter(struct parser *p, struct expr *on)
{
    struct expr *e = expr_new(p, E_FILTER, p->now.line);
    const struct str *name = dotted_name(p);
    e->a = on;
    e->value = v_str(name);
    e->builtin = jinja_filter_find(name->p, name->len);
    hang(p, e, on);
    if (!e->builtin)
        p->unknown = e;
    if (parser_is(p, T_LPAREN))
        parse_args(p, e);
    return e;
}

struct expr *parse_filters(struct parser *p, struct expr *on)
{
    while (parser_skip(p, T_PIPE))
        on = parse_filter(p, on);
    return on;
}

static struct expr *parse_primary(struct parser *p, bool namespaces);
static struct expr *parse_postfix(struct parser *p, struct expr *e);

static struct expr *parse_test(struct parser *p, struct expr *on)
{
    int line = p->now.line;
    parser_advance(p); /* is */
    bool negated = parser_skip_name(p, "not");
    struct expr *e = expr_new(p, E_TEST, line);
    const struct str *name = dotted_name(p);
    e->a = on;
    e->value = v_str(name);
    e->builtin = jinja_test_find(name->p, name->len);
    hang(p, e, on);
    if (!e->builtin)
        p->unknown = e;
    if (parser_is(p, T_LPAREN)) {
        parse_args(p, e);
    } else if ((parser_is(p, T_NAME) && !parser_is_name(p, "else") && !parser_is_name(p, "or") &&
                !parser_is_name(p, "and")) ||
               parser_is(p, T_STRING) || parser_is(p, T_INTEGER) || parser_is(p, T_FLOAT) ||
               parser_is(p, T_LBRACKET) || parser_is(p, T_LBRACE)) {
        /* "x is divisibleby 3": one argument without parentheses */
        if (parser_is_name(p, "is"))
            jinja_fail(p->j, "You cannot chain multiple tests with is");
        struct expr_list arg = {0};
        append(p, &arg, parse_postfix(p, parse_primary(p, false)));
        e->args.pos = arg.v;
        e->args.n_pos = 1;
        hang_args(p, e);
    }
    return negated ? unary(p, OP_NOT, line, e) : e;
}

/* ---- postfixes ---- */

/* a:b:c, or one expression */
static struct expr *parse_subscript(struct parser *p)
{
    int line = p->now.line;
    struct expr *bounds[3] = {0};
    if (!parser_is(p, T_COLON)) {
        bounds[0] = parse_expression(p);
        if (!parser_is(p, T_COLON))
            return bounds[0];
    }
    for (int i = 1; i < 3 && parser_skip(p, T_COLON); i++)
        if (!parser_is(p, T_COLON) && !parser_is(p, T_RBRACKET) && !parser_is(p, T_COMMA))
            bounds[i] = parse_expression(p);
    struct expr *e = expr_new(p, E_SLICE, line);
    e->a = bounds[0];
    e->b = bounds[1];
    e->c = bounds[2];
    return hang(p, hang(p, hang(p, e, e->a), e->b), e->c);
}

static struct expr *parse_index(struct parser *p, struct expr *on)
{
    int line = p->now.line;
    struct expr_list l = {0};
    parser_advance(p);
    while (!parser_is(p, T_RBRACKET)) {
        if (l.n)
            (void)parser_expect(p, T_COMMA);
        append(p, &l, parse_subscript(p));
    }
    parser_advance(p);
    struct expr *key = l.n == 1 ? l.v[0] : with_items(p, E_TUPLE, line, &l);
    return binary(p, E_INDEX, OP_ADD, line, on, key);
}

static struct expr *parse_attribute(struct parser *p, struct expr *on)
{
    int line = p->now.line;
    parser_advance(p);
    struct token t = p->now;
    if (t.kind != T_NAME && t.kind != T_INTEGER)
        jinja_fail(p->j, "expected name or number");
    parser_advance(p);
    if (t.kind == T_INTEGER)
        return binary(p, E_INDEX, OP_ADD, line, on, constant(p, line, v_int(t.i)));
    struct expr *e = expr_new(p, E_ATTR, line);
    e->a = on;
    e->value = v_str(t.text);
    return hang(p, e, on);
}

static struct expr *parse_postfix(struct parser *p, struct expr *e)
{
    for (;;) {
        if (parser_is(p, T_DOT))
            e = parse_attribute(p, e);
        else if (parser_is(p, T_LBRACKET))
            e = parse_index(p, e);
        else if (parser_is(p, T_LPAREN))
            e = parse_call(p, e);
        else
            return e;
    }
}

/* ---- literals ---- */

static struct expr *parse_list(struct parser *p)
{
    int line = p->now.line;
    struct expr_list l = {0};
    parser_advance(p);
    while (!parser_is(p, T_RBRACKET)) {
        if (l.n)
            (void)parser_expect(p, T_COMMA);
        if (parser_is(p, T_RBRACKET))
            break;
        append(p, &l, parse_expression(p));
    }
    parser_advance(p);
    return with_items(p, E_LIST, line, &l);
}

static struct expr *parse_dict(struct parser *p)
{
    int line = p->now.line;
    struct expr_list l = {0};
    parser_advance(p);
    while (!parser_is(p, T_RBRACE)) {
        if (l.n)
            (void)parser_expect(p, T_COMMA);
        if (parser_is(p, T_RBRACE))
            break;
        append(p, &l, parse_expression(p));
        (void)parser_expect(p, T_COLON);
        append(p, &l, parse_expression(p));
    }
    parser_advance(p);
    return with_items(p, E_DICT, line, &l);
}

static struct expr *parse_parentheses(struct parser *p)
{
    parser_advance(p);
    struct expr *e;
    if (parser_is(p, T_RPAREN))
        e = expr_new(p, E_TUPLE, p->now.line);
    else
        e = parse_tuple(p, true, NULL);
    (void)parser_expect(p, T_RPAREN);
    return e;
}

static struct expr *parse_strings(struct parser *p)
{
    int line = p->now.line;
    const struct str *s = p->now.text;
    for (parser_advance(p); parser_is(p, T_STRING); parser_advance(p))
        s = jinja_concat(p->j, s, p->now.text);
    return constant(p, line, v_str(s));
}

static struct expr *parse_name(struct parser *p, bool namespaces)
{
    struct token t = p->now;
    parser_advance(p);
    if (jinja_str_is(t.text, "true") || jinja_str_is(t.text, "True"))
        return constant(p, t.line, v_bool(true));
    if (jinja_str_is(t.text, "false") || jinja_str_is(t.text, "False"))
        return constant(p, t.line, v_bool(false));
    if (jinja_str_is(t.text, "none") || jinja_str_is(t.text, "None"))
        return constant(p, t.line, v_none());
    struct expr *e = expr_new(p, namespaces && parser_is(p, T_DOT) ? E_NAMESPACE_REF : E_NAME, t.line);
    e->symbol = parser_symbol(p, t.text);
    if (e->kind == E_NAMESPACE_REF) {
        parser_advance(p);
        e->value = v_str(parser_expect(p, T_NAME).text);
    }
    if (p->macro) {
        p->macro->uses_caller |= e->symbol == SYMBOL_CALLER;
        p->macro->uses_kwargs |= e->symbol == SYMBOL_KWARGS;
        p->macro->uses_varargs |= e->symbol == SYMBOL_VARARGS;
    }
    return e;
}

static struct expr *parse_primary(struct parser *p, bool namespaces)
{
    struct token t = p->now;
    switch (t.kind) {
    case T_NAME:
        return parse_name(p, namespaces);
    case T_STRING:
        return parse_strings(p);
    case T_INTEGER:
        parser_advance(p);
        return constant(p, t.line, v_int(t.i));
    case T_FLOAT:
        parser_advance(p);
        return constant(p, t.line, v_float(t.f));
    case T_LPAREN:
        return parse_parentheses(p);
    case T_LBRACKET:
        return parse_list(p);
    case T_LBRACE:
        return parse_dict(p);
    default:
        fail_unexpected(p);
    }
}

/* ---- operators ---- */

static struct expr *parse_unary(struct parser *p, bool with_filters)
{
    int line = p->now.line;
    struct expr *e;
    enter(p);
    if (parser_skip(p, T_SUB))
        e = unary(p, OP_NEG, line, parse_unary(p, false));
    else if (parser_skip(p, T_ADD))
        e = unary(p, OP_POS, line, parse_unary(p, false));
    else
        e = parse_primary(p, false);
    e = parse_postfix(p, e);
    while (with_filters) {
        if (parser_is(p, T_PIPE))
            e = parse_filters(p, e);
        else if (parser_is_name(p, "is"))
            e = parse_test(p, e);
        else if (parser_is(p, T_LPAREN))
            e = parse_call(p, e);
        else
            break;
    }
    p->depth--;
    return e;
}

static struct expr *parse_power(struct parser *p)
{
    int line = p->now.line;
    struct expr *e = parse_unary(p, true);
    while (parser_skip(p, T_POW))
        e = binary(p, E_BINARY, OP_POW, line, e, parse_unary(p, true));
    return e;
}

static struct expr *parse_product(struct parser *p)
{
    struct expr *e = parse_power(p);
    for (;;) {
        int line = p->now.line;
        if (parser_skip(p, T_MUL))
            e = binary(p, E_BINARY, OP_MUL, line, e, parse_power(p));
        else if (parser_skip(p, T_DIV))
            e = binary(p, E_BINARY, OP_DIV, line, e, parse_power(p));
        else if (parser_skip(p, T_FLOORDIV))
            e = binary(p, E_BINARY, OP_FLOORDIV, line, e, parse_power(p));
        else if (parser_skip(p, T_MOD))
            e = binary(p, E_BINARY, OP_MOD, line, e, parse_power(p));
        else
            return e;
    }
}

static struct expr *parse_concat(struct parser *p)
{
    int line = p->now.line;
    struct expr_list l = {0};
    struct expr *e = parse_product(p);
    if (!parser_is(p, T_TILDE))
        return e;
    append(p, &l, e);
    while (parser_skip(p, T_TILDE))
        append(p, &l, parse_product(p));
    return with_items(p, E_CONCAT, line, &l);
}

static struct expr *parse_sum(struct parser *p)
{
    struct expr *e = parse_concat(p);
    for (;;) {
        int line = p->now.line;
        if (parser_skip(p, T_ADD))
            e = binary(p, E_BINARY, OP_ADD, line, e, parse_concat(p));
        else if (parser_skip(p, T_SUB))
            e = binary(p, E_BINARY, OP_SUB, line, e, parse_concat(p));
        else
            return e;
    }
}

static bool compare_op(struct parser *p, enum op *op)
{
    static const struct {
        enum token_kind token;
        enum op op;
    } ops[] = {{T_EQ, OP_EQ}, {T_NE, OP_NE}, {T_LT, OP_LT}, {T_LE, OP_LE}, {T_GT, OP_GT}, {T_GE, OP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (parser_skip(p, ops[i].token)) {
            *op = ops[i].op;
            return true;
        }
    *op = OP_IN;
    if (parser_skip_name(p, "in"))
        return true;
    const struct token *next = parser_is_name(p, "not") ? parser_look(p) : NULL;
    if (!next || next->kind != T_NAME || !jinja_str_is(next->text, "in"))
        return false;
    parser_advance(p);
    parser_advance(p);
    *op = OP_NOT_IN;
    return true;
}

static struct expr *parse_compare(struct parser *p)
{
    int line = p->now.line;
    struct expr *e = parse_sum(p);
    struct expr_list l = {0};
    enum op op, *ops = NULL;
    size_t cap = 0;
    while (compare_op(p, &op)) {
        if (l.n == cap) {
            cap = cap ? 2 * cap : 2;
            ops = jinja_grow(p->j, ops, l.n, cap, sizeof *ops);
        }
        ops[l.n] = op;
        append(p, &l, parse_sum(p));
    }
    if (l.n == 0)
        return e;
    struct expr *compare = with_items(p, E_COMPARE, line, &l);
    compare->a = e;
    compare->ops = ops;
    return hang(p, compare, e);
}

static struct expr *parse_not(struct parser *p)
{
    int line = p->now.line;
    if (!parser_skip_name(p, "not"))
        return parse_compare(p);
    enter(p);
    struct expr *e = unary(p, OP_NOT, line, parse_not(p));
    p->depth--;
    return e;
}

static struct expr *parse_and(struct parser *p)
{
    int line = p->now.line;
    struct expr *e = parse_not(p);
    while (parser_skip_name(p, "and"))
        e = binary(p, E_AND, OP_ADD, line, e, parse_not(p));
    return e;
}

static struct expr *parse_or(struct parser *p)
{
    int line = p->now.line;
    struct expr *e = parse_and(p);
    while (parser_skip_name(p, "or"))
        e = binary(p, E_OR, OP_ADD, line, e, parse_and(p));
    return e;
}

struct expr *parse_expression(struct parser *p)
{
    int line = p->now.line;
    const struct expr *unknown = p->unknown;
    enter(p);
    struct expr *e = parse_or(p);
    while (parser_skip_name(p, "if")) {
        struct expr *cond = binary(p, E_COND, OP_ADD, line, e, parse_or(p));
        if (parser_skip_name(p, "else"))
            cond->c = parse_expression(p);
        e = hang(p, cond, cond->c);
        p->unknown = unknown; /* what a condition may skip is an error only when it is reached */
    }
    p->depth--;
    return e;
}

/* ---- tuples and targets ---- */

static bool ends_tuple(const struct parser *p, const char *until)
{
    return parser_is(p, T_VARIABLE_END) || parser_is(p, T_BLOCK_END) || parser_is(p, T_RPAREN) ||
           (until && parser_is_name(p, until));
}

/* One of item(p), or several with commas between and perhaps one after the last. */
static struct expr *tuple_of(struct parser *p, struct expr *(*item)(struct parser *), const char *until)
{
    int line = p->now.line;
    struct expr_list l = {0};
    bool tuple = false;
    while (!ends_tuple(p, until)) {
        append(p, &l, item(p));
        if (!parser_skip(p, T_COMMA))
            break;
        tuple = true;
    }
    if (l.n == 0) {
        char buf[64];
        jinja_fail(p->j, "Expected an expression, got '%s'", token_name(&p->now, buf, sizeof buf));
    }
    return tuple ? with_items(p, E_TUPLE, line, &l) : l.v[0];
}

struct expr *parse_tuple(struct parser *p, bool conditional, const char *until)
{
    return tuple_of(p, conditional ? parse_expression : parse_or, until);
}

static struct expr *plain_primary(struct parser *p)
{
    return parse_primary(p, false);
}

static struct expr *namespace_primary(struct parser *p)
{
    return parse_primary(p, true);
}

static void check_target(struct parser *p, const struct expr *e)
{
    if (e->kind == E_TUPLE) {
        for (size_t i = 0; i < e->n_items; i++)
            check_target(p, e->items[i]);
    } else if (e->kind != E_NAME && e->kind != E_NAMESPACE_REF) {
        jinja_fail(p->j, "can't assign to this expression");
    }
}

struct expr *parse_target(struct parser *p, bool namespaces, const char *until)
{
    struct expr *e = tuple_of(p, namespaces ? namespace_primary : plain_primary, until);
    check_target(p, e);
    return e;
}

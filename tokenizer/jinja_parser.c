/* The statement parser: template text, {{ expressions }} and {% tags %} into a tree of statements. */
#include "tokenizer/jinja_tree.h"

#include <string.h>

/* ---- the token stream ---- */

void parser_advance(struct parser *p)
{
    if (p->has_ahead)
        p->now = p->ahead;
    else
        p->now = lexer_next(p->j, &p->lexer);
    p->has_ahead = false;
    p->j->line = p->now.line;
}

const struct token *parser_look(struct parser *p)
{
    if (!p->has_ahead)
        p->ahead = lexer_next(p->j, &p->lexer);
    p->has_ahead = true;
    return &p->ahead;
}

bool parser_is(const struct parser *p, enum token_kind kind)
{
    return p->now.kind == kind;
}

bool parser_is_name(const struct parser *p, const char *name)
{
    return p->now.kind == T_NAME && jinja_str_is(p->now.text, name);
}

bool parser_skip(struct parser *p, enum token_kind kind)
{
    bool is = parser_is(p, kind);
    if (is)
        parser_advance(p);
    return is;
}

bool parser_skip_name(struct parser *p, const char *name)
{
    bool is = parser_is_name(p, name);
    if (is)
        parser_advance(p);
    return is;
}

struct token parser_expect(struct parser *p, enum token_kind kind)
{
    struct token t = p->now;
    if (t.kind != kind) {
        char want[64], got[64];
        jinja_fail(p->j, "expected token '%s', got '%s'",
                   token_name(&(struct token){.kind = kind}, want, sizeof want),
                   token_name(&t, got, sizeof got));
    }
    parser_advance(p);
    return t;
}

/* ---- symbols ---- */

static size_t symbol_slot(const struct parser *p, const struct str *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < name->len; i++)
        h = (h ^ (unsigned char)name->p[i]) * 0x100000001b3u;
    size_t at = (h ^ h >> 32) & (p->n_symbol_index - 1);
    while (p->symbol_index[at] && !jinja_str_eq(p->symbols[p->symbol_index[at] - 1], name))
        at = (at + 1) & (p->n_symbol_index - 1);
    return at;
}

uint32_t parser_symbol(struct parser *p, const struct str *name)
{
    if (2 * p->n_symbols >= p->n_symbol_index) {
        p->n_symbol_index = p->n_symbol_index ? 2 * p->n_symbol_index : 64;
        p->symbol_index = jinja_alloc(p->j, p->n_symbol_index, sizeof *p->symbol_index);
        for (size_t i = 0; i < p->n_symbols; i++)
            p->symbol_index[symbol_slot(p, p->symbols[i])] = (uint32_t)i + 1;
    }
    size_t slot = symbol_slot(p, name);
    if (p->symbol_index[slot])
        return p->symbol_index[slot] - 1;
    if (p->n_symbols == p->cap_symbols) {
        p->cap_symbols = p->cap_symbols ? 2 * p->cap_symbols : 32;
        p->symbols = jinja_grow(p->j, p->symbols, p->n_symbols, p->cap_symbols, sizeof(struct str *));
    }
    p->symbols[p->n_symbols] = name;
    p->symbol_index[slot] = (uint32_t)++p->n_symbols;
    return (uint32_t)p->n_symbols - 1;
}

/* ---- blocks ---- */

static struct stmt *stmt_new(struct parser *p, enum stmt_kind kind)
{
    struct stmt *s = jinja_alloc(p->j, 1, sizeof *s);
    s->kind = kind;
    s->line = p->now.line;
    return s;
}

static struct stmt *parse_statement(struct parser *p);

/* What a finished statement left unknown, unless an `if` around it may skip it. */
static void check_unknown(struct parser *p)
{
    if (p->unknown && !p->soft) {
        const struct str *name = p->unknown->value.s;
        p->j->line = p->unknown->line;
        jinja_fail(p->j, "No %s named '%.*s'.", p->unknown->kind == E_FILTER ? "filter" : "test",
                   (int)(name->len < 64 ? name->len : 64), name->p);
    }
    p->unknown = NULL;
}

static bool ends_block(const struct parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (parser_is_name(p, *ends))
            return true;
    return false;
}

/* Statements up to one of the tags `ends` (NULL: up to the end of the template), whose name is then the
 * current token. */
static struct block parse_until(struct parser *p, const char *const *ends)
{
    struct block b = {0};
    size_t cap = 0;
    if (++p->n_blocks > JINJA_MAX_BLOCK_DEPTH)
        jinja_fail(p->j, "nested too deeply");
    for (;;) {
        struct stmt *s;
        if (parser_is(p, T_EOF)) {
            if (ends)
                jinja_fail(p->j, "Unexpected end of template: '%s' is missing", *ends);
            break;
        }
        if (parser_is(p, T_DATA)) {
            s = stmt_new(p, S_TEXT);
            s->text = p->now.text;
            parser_advance(p);
        } else if (parser_skip(p, T_VARIABLE_BEGIN)) {
            s = stmt_new(p, S_PRINT);
            s->expr = parse_tuple(p, true, NULL);
            (void)parser_expect(p, T_VARIABLE_END);
        } else {
            (void)parser_expect(p, T_BLOCK_BEGIN);
            if (ends_block(p, ends))
                break;
            s = parse_statement(p);
            (void)parser_expect(p, T_BLOCK_END);
        }
        check_unknown(p);
        if (b.n == cap) {
            cap = cap ? 2 * cap : 8;
            b.v = jinja_grow(p->j, b.v, b.n, cap, sizeof(struct stmt *));
        }
        b.v[b.n++] = s;
    }
    p->n_blocks--;
    return b;
}

/* The body of a tag: after its "%}". soft: an unknown filter in it is no error yet. */
static struct block parse_body(struct parser *p, bool soft, const char *const *ends)
{
    bool was_soft = p->soft;
    (void)parser_skip(p, T_COLON); /* Jinja takes Python's colon too */
    check_unknown(p);
    (void)parser_expect(p, T_BLOCK_END);
    p->soft = soft;
    struct block b = parse_until(p, ends);
    p->soft = was_soft;
    return b;
}

/* … when only one tag can end it, which is skipped. */
static struct block parse_whole_body(struct parser *p, const char *end)
{
    struct block b = parse_body(p, false, (const char *const[]){end, NULL});
    parser_advance(p);
    return b;
}

/* ---- tags ---- */

static struct stmt *parse_if(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_IF);
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    size_t cap = 0;
    do {
        bool was_soft = p->soft;
        parser_advance(p);
        if (s->n_branches == cap) {
            cap = cap ? 2 * cap : 2;
            s->branches = jinja_grow(p->j, s->branches, s->n_branches, cap, sizeof *s->branches);
        }
        struct branch *b = &s->branches[s->n_branches++];
        p->soft = true;
        b->test = parse_tuple(p, false, NULL);
        b->body = parse_body(p, true, ends);
        p->soft = was_soft;
    } while (parser_is_name(p, "elif"));
    if (parser_skip_name(p, "else"))
        s->orelse = parse_body(p, true, (const char *const[]){"endif", NULL});
    parser_advance(p);
    return s;
}

static bool names_loop(const struct expr *target)
{
    bool names = target->kind == E_NAME && target->symbol == SYMBOL_LOOP;
    for (size_t i = 0; i < target->n_items; i++)
        names |= names_loop(target->items[i]);
    return names;
}

static struct stmt *parse_for(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_FOR);
    parser_advance(p);
    s->target = parse_target(p, false, "in");
    if (names_loop(s->target))
        jinja_fail(p->j, "Can't assign to special loop variable in for-loop target");
    if (!parser_skip_name(p, "in"))
        jinja_fail(p->j, "expected 'in' in a for loop");
    s->expr = parse_tuple(p, false, "recursive");
    if (parser_skip_name(p, "if"))
        s->test = parse_expression(p);
    s->recursive = parser_skip_name(p, "recursive");
    p->n_loops++;
    s->body = parse_body(p, false, (const char *const[]){"endfor", "else", NULL});
    p->n_loops--;
    if (parser_skip_name(p, "else"))
        s->orelse = parse_body(p, false, (const char *const[]){"endfor", NULL});
    parser_advance(p);
    return s;
}

static struct stmt *parse_set(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_SET);
    parser_advance(p);
    s->target = parse_target(p, true, NULL);
    if (parser_skip(p, T_ASSIGN)) {
        s->expr = parse_tuple(p, true, NULL);
        return s;
    }
    s->kind = S_SET_BLOCK;
    s->expr = parse_filters(p, NULL);
    s->body = parse_whole_body(p, "endset");
    return s;
}

/* (a, b=1) of a macro or call block */
static void parse_signature(struct parser *p, struct macro *m)
{
    size_t cap = 0;
    (void)parser_expect(p, T_LPAREN);
    while (!parser_is(p, T_RPAREN)) {
        if (m->n_params)
            (void)parser_expect(p, T_COMMA);
        if (m->n_params == cap) {
            cap = cap ? 2 * cap : 4;
            m->params = jinja_grow(p->j, m->params, m->n_params, cap, sizeof *m->params);
            m->param_names = jinja_grow(p->j, m->param_names, m->n_params, cap, sizeof(struct str *));
            m->defaults = jinja_grow(p->j, m->defaults, m->n_defaults, cap, sizeof(struct expr *));
        }
        const struct str *name = parser_expect(p, T_NAME).text;
        m->param_names[m->n_params] = name;
        m->params[m->n_params++] = parser_symbol(p, name);
        if (parser_skip(p, T_ASSIGN))
            m->defaults[m->n_defaults++] = parse_expression(p);
        else if (m->n_defaults)
            jinja_fail(p->j, "non-default argument follows default argument");
    }
    (void)parser_expect(p, T_RPAREN);
}

/* The body of a macro, in which break has no loop to leave. */
static void parse_macro_body(struct parser *p, struct macro *m, const char *end)
{
    struct macro *outer = p->macro;
    int n_loops = p->n_loops;
    p->macro = m;
    p->n_loops = 0;
    m->body = parse_whole_body(p, end);
    p->n_loops = n_loops;
    p->macro = outer;
    if (outer) { /* names in an inner macro's body are in the outer's too */
        outer->uses_caller |= m->uses_caller;
        outer->uses_kwargs |= m->uses_kwargs;
        outer->uses_varargs |= m->uses_varargs;
    }
    for (size_t i = 0; i < m->n_params; i++) { /* a parameter of that name is just a parameter */
        m->uses_caller &= m->params[i] != SYMBOL_CALLER;
        m->uses_kwargs &= m->params[i] != SYMBOL_KWARGS;
        m->uses_varargs &= m->params[i] != SYMBOL_VARARGS;
    }
}

static struct stmt *parse_macro(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_MACRO);
    parser_advance(p);
    s->macro = jinja_alloc(p->j, 1, sizeof *s->macro);
    s->macro->name = parser_expect(p, T_NAME).text;
    s->macro->symbol = parser_symbol(p, s->macro->name);
    parse_signature(p, s->macro);
    parse_macro_body(p, s->macro, "endmacro");
    return s;
}

static struct stmt *parse_call_block(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_CALL);
    parser_advance(p);
    s->macro = jinja_alloc(p->j, 1, sizeof *s->macro);
    if (parser_is(p, T_LPAREN))
        parse_signature(p, s->macro);
    s->expr = parse_expression(p);
    if (s->expr->kind != E_CALL)
        jinja_fail(p->j, "expected call");
    parse_macro_body(p, s->macro, "endcall");
    return s;
}

static struct stmt *parse_filter_block(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_FILTER);
    parser_advance(p);
    s->expr = parse_filters(p, parse_filter(p, NULL));
    s->body = parse_whole_body(p, "endfilter");
    return s;
}

static struct stmt *parse_with(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_WITH);
    size_t cap = 0;
    parser_advance(p);
    while (!parser_is(p, T_BLOCK_END)) {
        if (s->n_targets)
            (void)parser_expect(p, T_COMMA);
        if (s->n_targets == cap) {
            cap = cap ? 2 * cap : 4;
            s->targets = jinja_grow(p->j, s->targets, s->n_targets, cap, sizeof(struct expr *));
            s->values = jinja_grow(p->j, s->values, s->n_targets, cap, sizeof(struct expr *));
        }
        s->targets[s->n_targets] = parse_target(p, false, NULL);
        (void)parser_expect(p, T_ASSIGN);
        s->values[s->n_targets++] = parse_expression(p);
    }
    s->body = parse_whole_body(p, "endwith");
    return s;
}

/* {% generation %}: transformers marks the assistant's tokens with it; the text passes through. */
static struct stmt *parse_generation(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_SCOPE);
    int n_loops = p->n_loops;
    parser_advance(p);
    p->n_loops = 0;
    s->body = parse_whole_body(p, "endgeneration");
    p->n_loops = n_loops;
    return s;
}

static struct stmt *parse_print(struct parser *p)
{
    struct stmt *s = stmt_new(p, S_PRINT);
    parser_advance(p);
    s->expr = parse_expression(p);
    return s;
}

static struct stmt *parse_jump(struct parser *p)
{
    struct stmt *s = stmt_new(p, parser_is_name(p, "break") ? S_BREAK : S_CONTINUE);
    if (p->n_loops == 0)
        jinja_fail(p->j, "'%s' outside loop", s->kind == S_BREAK ? "break" : "continue");
    parser_advance(p);
    return s;
}

static const struct {
    const char *name;
    struct stmt *(*parse)(struct parser *p);
} tags[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"print", parse_print},
    {"break", parse_jump},
    {"continue", parse_jump},
    {"generation", parse_generation},
};

static struct stmt *parse_statement(struct parser *p)
{
    char buf[64];
    if (!parser_is(p, T_NAME))
        jinja_fail(p->j, "tag name expected");
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (parser_is_name(p, tags[i].name))
            return tags[i].parse(p);
    static const char *const files[] = {"include", "import", "from", "extends", "block", NULL};
    if (ends_block(p, files))
        jinja_fail(p->j, "a chat template is one file: '%s' is not supported",
                   token_name(&p->now, buf, sizeof buf));
    jinja_fail(p->j, "Encountered unknown tag '%s'.", token_name(&p->now, buf, sizeof buf));
}

void jinja_parse(struct jinja *j, const char *source, size_t len, struct chat_template *t)
{
    static const char *const fixed[N_FIXED_SYMBOLS] = {"loop", "caller", "kwargs", "varargs"};
    struct parser *p = jinja_alloc(j, 1, sizeof *p);
    p->j = j;
    for (size_t i = 0; i < N_FIXED_SYMBOLS; i++)
        (void)parser_symbol(p, jinja_str_fixed(j, jinja_str_c(j, fixed[i])));
    lexer_init(j, &p->lexer, source, len);
    parser_advance(p);
    t->body = parse_until(p, NULL);
    t->symbols = p->symbols;
    t->n_symbols = p->n_symbols;
}

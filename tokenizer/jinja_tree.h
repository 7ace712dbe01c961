/* The front of the template interpreter: tokens, the tree that they are parsed into, and what evaluating
 * it needs. Only the lexer, the parsers and the evaluator know it. */
#ifndef QUOLL_JINJA_TREE_H
#define QUOLL_JINJA_TREE_H

#include "tokenizer/jinja.h"

/* ---- the tree ---- */

enum expr_kind {
    E_CONST,
    E_NAME,
    E_LIST,
    E_TUPLE,
    E_DICT,
    E_ATTR,
    E_INDEX,
    E_SLICE,
    E_CALL,
    E_FILTER,
    E_TEST,
    E_UNARY,
    E_BINARY,
    E_CONCAT,
    E_COMPARE,
    E_AND,
    E_OR,
    E_COND,
    E_NAMESPACE_REF, /* only a target: {% set ns.attr = … %} */
};

struct arg_exprs {
    struct expr **pos;
    size_t n_pos;
    const struct str **kw_names;
    struct expr **kw;
    size_t n_kw;
    struct expr *star, *star_star; /* *args, **kwargs; NULL: none */
};

struct expr {
    enum expr_kind kind;
    enum op op;
    int line;
    int depth;              /* of the tree below */
    struct value value;     /* CONST; ATTR, FILTER, TEST, NAMESPACE_REF: a name */
    uint32_t symbol;        /* NAME, NAMESPACE_REF: index in the template's symbols */
    struct expr *a, *b, *c; /* operands; COND: a if b else c; SLICE: a:b:c */
    struct expr **items;    /* LIST, TUPLE, CONCAT; DICT: key, value, …; COMPARE: the right sides */
    enum op *ops;           /* COMPARE */
    size_t n_items;
    struct arg_exprs args;         /* CALL, FILTER, TEST */
    const struct builtin *builtin; /* FILTER, TEST; NULL: unknown, an error once it is reached */
};

struct block {
    struct stmt **v;
    size_t n;
};

enum stmt_kind {
    S_TEXT,
    S_PRINT,
    S_IF,
    S_FOR,
    S_SET,
    S_SET_BLOCK,
    S_MACRO,
    S_CALL,
    S_FILTER,
    S_WITH,
    S_SCOPE,
    S_BREAK,
    S_CONTINUE,
};

struct macro {
    const struct str *name; /* NULL: the body of a call block */
    uint32_t symbol;
    uint32_t *params; /* symbols */
    const struct str **param_names;
    struct expr **defaults; /* of the last n_defaults parameters */
    size_t n_params, n_defaults;
    bool uses_caller, uses_kwargs, uses_varargs; /* the names appear in its body */
    struct block body;
};

struct branch {
    struct expr *test;
    struct block body;
};

struct stmt {
    enum stmt_kind kind;
    int line;
    const struct str *text;  /* TEXT */
    struct expr *target;     /* SET, SET_BLOCK, FOR */
    struct expr *expr;       /* PRINT, SET, FOR's iterable, CALL's call; SET_BLOCK, FILTER: the
                                filters on what the body wrote, NULL: none */
    struct expr *test;       /* FOR … if */
    struct branch *branches; /* IF */
    size_t n_branches;
    struct block body, orelse;
    struct macro *macro;             /* MACRO, CALL */
    struct expr **targets, **values; /* WITH */
    size_t n_targets;
    bool recursive; /* FOR */
};

/* Symbols every template has, so that the interpreter can bind them. */
enum { SYMBOL_LOOP, SYMBOL_CALLER, SYMBOL_KWARGS, SYMBOL_VARARGS, N_FIXED_SYMBOLS };

struct chat_template {
    char *name;
    struct arena arena;         /* holds all below */
    const struct str **symbols; /* the names of variables */
    size_t n_symbols;
    struct block body;
};

/* ---- lexing and parsing ---- */

enum token_kind {
    T_EOF,
    T_DATA,
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INTEGER,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_DIV,
    T_FLOORDIV,
    T_MUL,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LBRACKET,
    T_RBRACKET,
    T_LPAREN,
    T_RPAREN,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
};

struct token {
    enum token_kind kind;
    int line;
    const struct str *text; /* NAME, STRING, DATA */
    int64_t i;              /* INTEGER */
    double f;               /* FLOAT */
};

enum lexer_state { LEX_TEXT, LEX_BLOCK, LEX_VARIABLE };

struct lexer {
    const char *p, *end; /* newlines are \n, the last one is gone */
    const char *counted; /* lines are counted up to here */
    int line;
    enum lexer_state state;
    enum token_kind pending;             /* the opening token after a piece of text; T_EOF: none */
    bool line_starts;                    /* what was last matched ended in a newline */
    char closing[JINJA_MAX_PARSE_DEPTH]; /* brackets that are open */
    size_t n_open;
};

void lexer_init(struct jinja *j, struct lexer *lx, const char *source, size_t len);
struct token lexer_next(struct jinja *j, struct lexer *lx);
const char *token_name(const struct token *t, char *buf, size_t n); /* for messages */

struct parser {
    struct jinja *j;
    struct lexer lexer;
    struct token now, ahead;
    bool has_ahead;
    int depth, n_blocks, n_loops;
    bool soft; /* directly inside an if: an unknown filter is an error only when it is reached */
    const struct expr *unknown; /* such a filter or test of the statement being parsed */
    struct macro *macro;        /* the innermost one */
    const struct str **symbols;
    size_t n_symbols, cap_symbols;
    uint32_t *symbol_index; /* hash table: 1 + symbol or 0 */
    size_t n_symbol_index;
};

/* Parses source into t (symbols, body), allocating from j. jinja_parser.c */
void jinja_parse(struct jinja *j, const char *source, size_t len, struct chat_template *t);

void parser_advance(struct parser *p);
bool parser_is(const struct parser *p, enum token_kind kind);
bool parser_is_name(const struct parser *p, const char *name);
bool parser_skip(struct parser *p, enum token_kind kind);
bool parser_skip_name(struct parser *p, const char *name);
struct token parser_expect(struct parser *p, enum token_kind kind);
const struct token *parser_look(struct parser *p); /* the token after the current one */
uint32_t parser_symbol(struct parser *p, const struct str *name);

/* jinja_expr.c. parse_tuple: an expression, or several with commas between; ends before the name `until`
 * (NULL: none). */
struct expr *parse_expression(struct parser *p);
struct expr *parse_tuple(struct parser *p, bool conditional, const char *until);
struct expr *parse_target(struct parser *p, bool namespaces, const char *until);
struct expr *parse_filters(struct parser *p, struct expr *on); /* on, filtered by |a|b…; on may be NULL */
struct expr *parse_filter(struct parser *p, struct expr *on);  /* from the filter's name on */

/* ---- evaluation ---- */

struct binding {
    uint32_t symbol;
    struct value value;
};

struct scope {
    struct scope *parent;
    struct binding *v;
    size_t n, cap;
};

struct bound_macro {
    const struct macro *macro;
    struct scope *scope; /* where it was defined */
};

/* Renders j->t into j->out. jinja_eval.c */
void jinja_run(struct jinja *j);

#endif

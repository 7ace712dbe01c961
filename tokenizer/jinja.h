/* The insides of the template interpreter: what its files share. The way of a template:
 *
 *     source ─ jinja_lexer ─▶ tokens ─ jinja_parser, jinja_expr ─▶ tree ─ jinja_eval ─▶ text
 *
 * with jinja_value (data), jinja_text (strings by code point), jinja_print (str, repr, JSON),
 * jinja_ops (operators, attributes), jinja_methods, jinja_filters, jinja_tests and jinja_globals (the
 * tables of names) below jinja_eval.
 *
 * Values are Python's, as far as templates can see them: int is 64 bits wide (an overflow is an error),
 * strings are UTF-8 and indexed by code point, lists and dicts never change once made (the sandbox that
 * chat templates run in forbids it; only a namespace changes).
 *
 * Memory is an arena freed whole, so an error may leave by longjmp from any depth: nothing needs unwinding.
 */
#ifndef QUOLL_JINJA_H
#define QUOLL_JINJA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Bounds on what a hostile template can cost. Depths keep the C stack below about 2 MB. */
enum {
    JINJA_MAX_SOURCE = 1 << 20,   /* bytes of a template */
    JINJA_MAX_STEPS = 10000000,   /* nodes evaluated, items iterated, 64-byte pieces of text touched */
    JINJA_MAX_OUTPUT = 64 << 20,  /* bytes */
    JINJA_MAX_MEMORY = 256 << 20, /* bytes allocated while parsing, or while rendering */
    JINJA_MAX_PARSE_DEPTH = 600,  /* nested calls of the expression parser: about 200 parentheses */
    JINJA_MAX_EXPR_DEPTH = 250,   /* of the tree of an expression, chains of operators included */
    JINJA_MAX_BLOCK_DEPTH = 100,  /* nested statements */
    JINJA_MAX_EVAL_DEPTH = 1500,  /* nested evaluations, macro calls and values printed or compared */
    JINJA_MAX_RANGE = 100000,     /* items of a range: the sandbox's own limit */
    JINJA_MAX_PARAMS = 8,         /* parameters of a filter, test, method or global function */
};

/* ---- memory and errors ---- */

struct arena {
    struct arena_chunk *chunks;
    char *next, *end; /* free part of the newest chunk */
    size_t used, limit;
};

void arena_free(struct arena *a);

struct jinja;

/* Zeroed memory; fails (by longjmp) beyond the limit. n elements of size bytes. */
void *jinja_alloc(struct jinja *j, size_t n, size_t size);
/* A copy of n_old elements in an array of n_new ≥ n_old. */
void *jinja_grow(struct jinja *j, const void *old, size_t n_old, size_t n_new, size_t size);

/* Leaves with "NAME:LINE: message". */
__attribute__((noreturn, format(printf, 2, 3))) void jinja_fail(struct jinja *j, const char *fmt, ...);
/* Leaves with the message alone: raise_exception. */
__attribute__((noreturn)) void jinja_raise(struct jinja *j, const char *message, size_t len);
/* Counts n units of work; fails beyond the limit. */
void jinja_step(struct jinja *j, size_t n);
/* Brackets of anything that recurses on the template's or the data's say-so. */
void jinja_enter(struct jinja *j);
void jinja_leave(struct jinja *j);

/* ---- values ---- */

struct str {
    const char *p; /* UTF-8, not NUL-terminated */
    size_t len;
    size_t n_chars;        /* code points; SIZE_MAX: not counted yet */
    struct str_tail *tail; /* who may append in place; NULL: nobody */
    bool safe;             /* Markup: escapes what is added to it */
};

enum kind {
    V_ABSENT, /* no value: an argument not given, a name not bound */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW, /* dict.keys(), .values(), .items() */
    V_RANGE,
    V_ITER, /* a generator: used up by iterating */
    V_NAMESPACE,
    V_MACRO,
    V_FUNCTION, /* a global function or a bound method */
    V_LOOP,
    V_CYCLER,
    V_JOINER,
};

struct value {
    enum kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const struct str *s;
        const struct list *l; /* LIST, TUPLE */
        struct dict *d;       /* DICT, NAMESPACE */
        const struct view *view;
        const struct range *range;
        struct iter *iter;
        const struct undefined *u; /* NULL: without a message */
        const struct bound_macro *macro;
        const struct function *fn;
        struct loop *loop;
        struct cycler *cycler; /* CYCLER, JOINER */
    };
};

struct list {
    struct value *v;
    size_t n;
    bool group; /* a tuple of groupby: has the attributes grouper and list */
};

struct dict_entry {
    struct value key, value;
    uint64_t hash;
};

struct dict { /* in insertion order */
    struct dict_entry *e;
    size_t n, cap;
    uint32_t *index; /* open addressing, 1 + position or 0; NULL while small */
    size_t n_index;  /* a power of two */
};

enum view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

struct view {
    enum view_kind what;
    const struct dict *d;
};

struct range {
    int64_t start, stop, step;
    size_t n;
};

struct undefined {
    const struct str *hint;  /* the whole message, or NULL and: */
    const char *object_type; /* of what lacks it; NULL: a variable */
    struct value name;
};

/* A sequence that is made while it is read. */
struct iter {
    bool (*next)(struct jinja *j, struct iter *it, struct value *out); /* false: at its end */
    struct value over;
    size_t i;
    struct iter *from;          /* of filters: what they filter, once the first item was asked for */
    struct value missing;       /* map's default */
    const struct builtin *call; /* … by this filter or test */
    struct args *args;
    struct value attribute;
    bool by_attribute, negate;
    struct dict *seen;
};

struct kwarg {
    const struct str *name;
    struct value value;
};

struct args {
    struct value *pos;
    size_t n_pos;
    struct kwarg *kw;
    size_t n_kw;
    struct value v[JINJA_MAX_PARAMS]; /* by the called row's parameters, V_ABSENT where not given */
};

/* A row of the tables of filters, tests, methods and global functions. */
struct builtin {
    const char *name;
    struct value (*fn)(struct jinja *j, struct value self, struct args *a);
    int n_required;
    const char *params; /* names, space separated; NULL: fn reads pos and kw itself */
};

struct function {
    const struct builtin *row;
    struct value self;
};

struct loop {
    struct iter *iter;
    const struct stmt *stmt; /* of a recursive loop, else NULL */
    struct scope *scope;     /* the recursive loop's outer one */
    struct value *kept;      /* items seen so far and those looked ahead */
    size_t n_kept, cap;
    size_t index0;
    size_t depth0;
    bool ended;
    struct value changed; /* last arguments of loop.changed */
};

struct cycler {
    struct value *v;
    size_t n, pos;
};

static inline struct value v_none(void)
{
    return (struct value){.kind = V_NONE};
}

static inline struct value v_bool(bool b)
{
    return (struct value){.kind = V_BOOL, .b = b};
}

static inline struct value v_int(int64_t i)
{
    return (struct value){.kind = V_INT, .i = i};
}

static inline struct value v_float(double f)
{
    return (struct value){.kind = V_FLOAT, .f = f};
}

static inline struct value v_str(const struct str *s)
{
    return (struct value){.kind = V_STRING, .s = s};
}

static inline struct value v_list(const struct list *l)
{
    return (struct value){.kind = V_LIST, .l = l};
}

static inline struct value v_dict(struct dict *d)
{
    return (struct value){.kind = V_DICT, .d = d};
}

static inline struct value v_iter(struct iter *it)
{
    return (struct value){.kind = V_ITER, .iter = it};
}

/* jinja_value.c */
struct value jinja_undefined_name(struct jinja *j, const struct str *name);
struct value jinja_undefined_attr(struct jinja *j, struct value of, struct value name);
struct value jinja_undefined_hint(struct jinja *j, const char *hint);
__attribute__((noreturn)) void jinja_fail_undefined(struct jinja *j, struct value undefined);
const char *jinja_type_name(struct value v); /* Python's: "str", "dict", … */

struct list *jinja_list_new(struct jinja *j, size_t n);
struct value jinja_tuple(struct jinja *j, const struct value *v, size_t n);
struct value jinja_list_of(struct jinja *j, struct iter *it);

struct dict *jinja_dict_new(struct jinja *j);
void jinja_dict_set(struct jinja *j, struct dict *d, struct value key, struct value value);
const struct value *jinja_dict_get(struct jinja *j, const struct dict *d,
                                   struct value key); /* NULL: not there */

bool jinja_truth(struct jinja *j, struct value v);
bool jinja_equal(struct jinja *j, struct value a, struct value b);
/* <0, 0, >0; fails for values without an order. op names the operator in the message. */
int jinja_compare(struct jinja *j, struct value a, struct value b, const char *op);
bool jinja_contains(struct jinja *j, struct value in, struct value item);
/* Python's len(); SIZE_MAX: the value has none. */
size_t jinja_len(struct value v);
struct iter *jinja_iter(struct jinja *j, struct value v);     /* fails when not iterable */
struct iter *jinja_try_iter(struct jinja *j, struct value v); /* NULL when not iterable */
bool jinja_next(struct jinja *j, struct iter *it, struct value *out);
int64_t jinja_range_at(const struct range *r, int64_t i);
/* bool as 0 or 1; false when v is no integer. */
bool jinja_as_int(struct value v, int64_t *out);
bool jinja_as_float(struct value v, double *out); /* int, bool or float */
bool jinja_truncate(double f, int64_t *i);        /* false: NaN, or beyond int64_t */
int64_t jinja_int_arg(struct jinja *j, struct value v, int64_t absent);
bool jinja_bool_arg(struct jinja *j, struct value v, bool absent);

/* ---- text: jinja_text.c ---- */

const struct str *jinja_str(struct jinja *j, const char *p, size_t len);      /* copies */
const struct str *jinja_str_lent(struct jinja *j, const char *p, size_t len); /* p outlives the arena's use */
const struct str *jinja_str_c(struct jinja *j, const char *text);             /* a literal: lent */
/* s as a parsed template may keep it, which several threads render: nothing in it changes any more. */
const struct str *jinja_str_fixed(struct jinja *j, const struct str *s);
const struct str *jinja_str_safe(struct jinja *j, const struct str *s, bool safe);
const struct str *jinja_concat(struct jinja *j, const struct str *a, const struct str *b);
const struct str *jinja_escape(struct jinja *j, const struct str *s); /* HTML; safe strings as they are */
bool jinja_str_eq(const struct str *a, const struct str *b);
bool jinja_str_is(const struct str *s, const char *text);

size_t jinja_utf8_valid(const char *p, size_t len);               /* length of the valid prefix */
int32_t jinja_char_at(const char *p, const char *end, size_t *n); /* valid UTF-8; *n its bytes */
size_t jinja_char_put(char *p, int32_t c);                        /* bytes written, at most 4 */
bool jinja_is_space(int32_t c);                                   /* str.isspace */
bool jinja_is_word(int32_t c);                                    /* regular expression \w */

size_t jinja_n_chars(const struct str *s);
const struct str *jinja_substr(struct jinja *j, const struct str *s, size_t from, size_t n); /* in bytes */
const struct str *jinja_char(struct jinja *j, const struct str *s, size_t i); /* the i-th, i < n_chars */
/* start, start+step, … : n characters, all inside. */
const struct str *jinja_str_slice(struct jinja *j, const struct str *s, size_t start, int64_t step, size_t n);
size_t jinja_char_index(const struct str *s, size_t byte); /* and back */
/* Byte position of needle at or after from; SIZE_MAX: none. */
size_t jinja_find(struct jinja *j, const struct str *s, const struct str *needle, size_t from);
size_t jinja_rfind(struct jinja *j, const struct str *s, const struct str *needle);

enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
/* chars NULL: whitespace. */
const struct str *jinja_strip(struct jinja *j, const struct str *s, const struct str *chars, int sides);
/* sep NULL: runs of whitespace. max < 0: no limit. */
struct value jinja_split(struct jinja *j, const struct str *s, const struct str *sep, int64_t max,
                         bool from_right);
struct value jinja_splitlines(struct jinja *j, const struct str *s, bool keep_ends);
const struct str *jinja_replace(struct jinja *j, const struct str *s, const struct str *old,
                                const struct str *new_text, int64_t max);
enum text_case { CASE_UPPER, CASE_LOWER, CASE_CAPITALIZE, CASE_TITLE, CASE_SWAP };
const struct str *jinja_case(struct jinja *j, const struct str *s, enum text_case to);

/* A string being built. */
struct text {
    char *p;
    size_t len, cap;
    size_t limit; /* 0: the arena's */
};

void text_put(struct jinja *j, struct text *t, const char *p, size_t len);
void text_put_str(struct jinja *j, struct text *t, const struct str *s);
void text_put_c(struct jinja *j, struct text *t, const char *literal);
void text_put_char(struct jinja *j, struct text *t, int32_t c);
void text_repeat(struct jinja *j, struct text *t, const char *p, size_t len, size_t n); /* p n times */
const struct str *text_str(struct jinja *j, struct text *t);                            /* takes the bytes */

/* ---- printing: jinja_print.c, jinja_format.c ---- */

const struct str *jinja_to_str(struct jinja *j, struct value v); /* str(v) */
const struct str *jinja_repr(struct jinja *j, struct value v);
void jinja_put_float(struct jinja *j, struct text *t, double f); /* repr(f) */
struct json_style {
    bool ensure_ascii, sort_keys;
    const struct str *indent; /* NULL: one line */
    const struct str *item_separator, *key_separator;
};
const struct str *jinja_to_json(struct jinja *j, struct value v, const struct json_style *style);
/* s % args: args a tuple, a dict or one value. */
const struct str *jinja_percent(struct jinja *j, const struct str *s, struct value args);
/* s.format(…) */
const struct str *jinja_format(struct jinja *j, const struct str *s, const struct args *a);

/* ---- operators and attributes: jinja_ops.c ---- */

enum op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW, /* binary */
    OP_NEG,
    OP_POS,
    OP_NOT, /* unary */
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN, /* comparisons */
};

struct value jinja_binary(struct jinja *j, enum op op, struct value a, struct value b);
struct value jinja_unary(struct jinja *j, enum op op, struct value a);
bool jinja_compare_op(struct jinja *j, enum op op, struct value a, struct value b);
struct value jinja_getattr(struct jinja *j, struct value v, const struct str *name); /* v.name */
struct value jinja_getitem(struct jinja *j, struct value v, struct value key);       /* v[key] */
/* v[start:stop:step]; V_NONE where left out. */
struct value jinja_slice(struct jinja *j, struct value v, const struct value bounds[3]);
/* "a.b.0" looked up part by part, as the attribute= arguments of filters do; missing (V_ABSENT: keep the
 * undefined) replaces what is undefined on the way. */
struct value jinja_getpath(struct jinja *j, struct value v, struct value path, struct value missing);

/* ---- tables of names ---- */

const struct builtin *jinja_filter_find(const char *name, size_t len); /* jinja_filters.c */
const struct builtin *jinja_sequence_filter_find(const char *name, size_t len);
const struct builtin *jinja_test_find(const char *name, size_t len);   /* jinja_tests.c */
const struct builtin *jinja_global_find(const char *name, size_t len); /* jinja_globals.c */
/* A method or property of v. unsafe: it exists, but the sandbox refuses it. */
bool jinja_method(struct jinja *j, struct value v, const struct str *name, struct value *out, bool *unsafe);
const struct builtin *jinja_str_method_find(const char *name, size_t len); /* jinja_str_methods.c */
struct value builtin_unsupported(struct jinja *j, struct value self,
                                 struct args *a); /* for rows that exist only */
const struct builtin *builtin_find(const struct builtin *rows, size_t n, const char *name, size_t len);
/* Binds a's arguments to the row's parameters and calls it. */
struct value builtin_call(struct jinja *j, const struct builtin *row, struct value self, struct args *a);
struct value jinja_call(struct jinja *j, struct value callee, struct args *a); /* jinja_eval.c */
bool loop_has(struct jinja *j, struct loop *l, size_t i); /* is there an i-th item? looks ahead */

/* ---- the interpreter at work ---- */

struct jinja {
    jmp_buf exit;
    char *err;
    size_t errlen;
    const char *name;
    int line;
    int depth;
    uint64_t steps;
    struct arena arena;
    /* while rendering */
    const struct chat_template *t;
    struct value *context; /* by symbol: the variables given and the global functions */
    const struct tm *now;
    struct text *out; /* where output goes: the result, or what a macro or block captures */
    struct scope *scope;
};

#endif

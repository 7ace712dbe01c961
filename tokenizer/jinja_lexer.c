/* Template source into tokens, with Jinja's whitespace rules as chat templates have them: the newline
 * after a block tag goes (trim_blocks), so does the space before one that starts its line
 * (lstrip_blocks), "-" strips, "+" keeps, and the template's last newline is not part of it.
 *
 * The template designer documentation of Jinja 3.1, "Whitespace Control", describes them. */
#include "tokenizer/jinja_tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int line_at(struct lexer *lx, const char *p)
{
    for (; lx->counted < p; lx->counted++)
        lx->line += *lx->counted == '\n';
    return lx->line;
}

void lexer_init(struct jinja *j, struct lexer *lx, const char *source, size_t len)
{
    size_t valid = jinja_utf8_valid(source, len), n = 0;
    if (valid != len)
        jinja_fail(j, "the template is not UTF-8 at byte %zu", valid);
    char *copy = jinja_alloc(j, len, 1);
    for (size_t i = 0; i < len; i++) { /* \r\n and \r are \n */
        if (source[i] != '\r')
            copy[n++] = source[i];
        else if (i + 1 == len || source[i + 1] != '\n')
            copy[n++] = '\n';
    }
    if (n > 0 && copy[n - 1] == '\n')
        n--;
    memset(lx, 0, sizeof *lx);
    lx->p = lx->counted = copy;
    lx->end = copy + n;
    lx->line = 1;
    lx->line_starts = true;
}

static bool at(const struct lexer *lx, const char *p, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(lx->end - p) >= n && memcmp(p, text, n) == 0;
}

static const char *skip_space(const struct lexer *lx, const char *p)
{
    size_t n;
    while (p < lx->end && jinja_is_space(jinja_char_at(p, lx->end, &n)))
        p += n;
    return p;
}

/* Past a tag's end at p: "-%}" takes the whitespace that follows, "%}" one newline where trim says so,
 * "+%}" nothing. NULL: no end here. Variables know no "+". */
static const char *tag_end(struct lexer *lx, const char *p, const char *close, bool trim, bool plus)
{
    size_t n = strlen(close);
    const char *after = NULL;
    if (p < lx->end && *p == '-' && at(lx, p + 1, close))
        after = skip_space(lx, p + 1 + n);
    else if (plus && p < lx->end && *p == '+' && at(lx, p + 1, close))
        after = p + 1 + n;
    else if (at(lx, p, close))
        after = p + n + (trim && at(lx, p + n, "\n"));
    if (after)
        lx->line_starts = after[-1] == '\n';
    return after;
}

/* The text [from, to) before a tag, less what the tag strips: sign is the tag's '-', '+' or 0. */
static struct token text_token(struct jinja *j, struct lexer *lx, const char *from, const char *to, char sign,
                               bool variable)
{
    struct token t = {.kind = T_DATA, .line = line_at(lx, from)};
    const struct str *s = jinja_str_lent(j, from, (size_t)(to - from));
    if (sign == '-') {
        s = jinja_strip(j, s, NULL, STRIP_RIGHT);
    } else if (sign != '+' && !variable) {
        const char *line = to;
        while (line > from && line[-1] != '\n')
            line--;
        if ((line > from || lx->line_starts) && skip_space(lx, line) >= to)
            s = jinja_substr(j, s, 0, (size_t)(line - from));
    }
    t.text = s;
    return t;
}

/* Is this "{% raw %}", p standing after "{%" and its sign? Past its end then, else NULL. */
static const char *raw_tag(struct lexer *lx, const char *p, const char *word, bool trim)
{
    p = skip_space(lx, p);
    if (!at(lx, p, word))
        return NULL;
    return tag_end(lx, skip_space(lx, p + strlen(word)), "%}", trim, trim);
}

static char sign_at(const struct lexer *lx, const char *p)
{
    return p < lx->end && (*p == '-' || *p == '+') ? *p : 0;
}

/* The text of a raw block, up to its end tag. */
static struct token raw_text(struct jinja *j, struct lexer *lx)
{
    bool line_starts = lx->line_starts;
    for (const char *p = lx->p; (p = memmem(p, (size_t)(lx->end - p), "{%", 2)); p++) {
        char sign = sign_at(lx, p + 2);
        const char *after = raw_tag(lx, p + 2 + (sign != 0), "endraw", true);
        if (!after)
            continue;
        bool ends = lx->line_starts;
        lx->line_starts = line_starts;
        struct token t = text_token(j, lx, lx->p, p, sign, false);
        lx->line_starts = ends;
        lx->p = after;
        return t;
    }
    jinja_fail(j, "Missing end of raw directive");
}

static void skip_comment(struct jinja *j, struct lexer *lx)
{
    for (const char *p = lx->p; p < lx->end; p++) {
        const char *after = tag_end(lx, p, "#}", true, true);
        if (after) {
            lx->p = after;
            return;
        }
    }
    jinja_fail(j, "Missing end of comment tag");
}

/* Template text up to the next tag; T_DATA may be empty. */
static struct token next_text(struct jinja *j, struct lexer *lx)
{
    const char *from = lx->p, *p = from;
    while ((p = memchr(p, '{', (size_t)(lx->end - p))) &&
           (p + 1 == lx->end || (p[1] != '{' && p[1] != '%' && p[1] != '#')))
        p++;
    if (!p) {
        lx->p = lx->end;
        struct token t = {.kind = from < lx->end ? T_DATA : T_EOF, .line = line_at(lx, from)};
        t.text = jinja_str_lent(j, from, (size_t)(lx->end - from));
        return t;
    }
    char kind = p[1], sign = sign_at(lx, p + 2);
    struct token t = text_token(j, lx, from, p, sign, kind == '{');
    j->line = line_at(lx, p);
    lx->p = p + 2 + (sign != 0);
    lx->line_starts = false;
    if (kind == '#') {
        skip_comment(j, lx);
        return t;
    }
    if (kind == '{') {
        lx->pending = T_VARIABLE_BEGIN;
        return t;
    }
    const char *raw = raw_tag(lx, lx->p, "raw", false);
    if (raw) {
        lx->p = raw;
        struct token inside = raw_text(j, lx);
        t.text = jinja_concat(j, t.text, inside.text);
        return t;
    }
    lx->line_starts = false;
    lx->pending = T_BLOCK_BEGIN;
    return t;
}

/* ---- inside a tag ---- */

static bool is_digit_of(char c, int base)
{
    return base == 16 ? (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f')
                      : c >= '0' && c < '0' + base;
}

/* Digits with single underscores between them; past them. */
static const char *skip_digits(const struct lexer *lx, const char *p, int base)
{
    while (p < lx->end &&
           (is_digit_of(*p, base) || (*p == '_' && p + 1 < lx->end && is_digit_of(p[1], base))))
        p++;
    return p;
}

static const char *skip_exponent(const struct lexer *lx, const char *p)
{
    if (p == lx->end || (*p | 32) != 'e')
        return p;
    const char *q = p + 1;
    q += q < lx->end && (*q == '+' || *q == '-');
    return q < lx->end && is_digit_of(*q, 10) ? skip_digits(lx, q, 10) : p;
}

static char *without_underscores(struct jinja *j, const char *p, const char *end)
{
    char *out = jinja_alloc(j, (size_t)(end - p) + 1, 1);
    for (size_t n = 0; p < end; p++)
        if (*p != '_')
            out[n++] = *p;
    return out;
}

static void lex_number(struct jinja *j, struct lexer *lx, struct token *t)
{
    const char *start = lx->p, *p = skip_digits(lx, start, 10), *whole = p;
    int base = 10;
    if (p + 1 < lx->end && *p == '.' && is_digit_of(p[1], 10))
        p = skip_digits(lx, p + 1, 10);
    p = skip_exponent(lx, p);
    if (p > whole && start[-1] != '.') { /* x.0.1 is x[0][1]; a tag's opening stands before every number */
        t->kind = T_FLOAT;
        t->f = strtod(without_underscores(j, start, p), NULL);
        lx->p = p;
        return;
    }
    if (*start == '0' && start + 2 < lx->end) {
        int c = start[1] | 32;
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
        const char *first = start + 2 + (start[2] == '_');
        if (base != 10 && first < lx->end && is_digit_of(*first, base))
            start = first;
        else
            base = 10;
    }
    p = whole;
    if (base != 10)
        p = skip_digits(lx, start, base);
    else if (*start == '0') /* no octals in old style: "0" and another number */
        for (p = start + 1; p < lx->end && (*p == '0' || (*p == '_' && p + 1 < lx->end && p[1] == '0'));)
            p++;
    t->kind = T_INTEGER;
    errno = 0;
    t->i = strtoll(without_underscores(j, start, p), NULL, base);
    if (errno)
        jinja_fail(j, "an integer of more than 64 bits");
    lx->p = p;
}

static void lex_name(struct jinja *j, struct lexer *lx, struct token *t)
{
    const char *p = lx->p;
    size_t n;
    while (p < lx->end && jinja_is_word(jinja_char_at(p, lx->end, &n)))
        p += n;
    t->kind = T_NAME;
    t->text = jinja_str_fixed(j, jinja_str_lent(j, lx->p, (size_t)(p - lx->p)));
    lx->p = p;
}

static int32_t escape_digits(struct jinja *j, const char **p, const char *end, int n, int base)
{
    int32_t c = 0;
    for (int i = 0; i < n; i++, ++*p) {
        if (*p == end || !is_digit_of(**p, base)) {
            if (base == 8)
                break;
            jinja_fail(j, "truncated escape in a string");
        }
        if (c > 0x110000)
            continue;
        c = c * base + (**p <= '9' ? **p - '0' : (**p | 32) - 'a' + 10);
    }
    return c;
}

static void put_escape(struct jinja *j, struct text *t, const char **p, const char *end)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char e = *(*p)++;
    const char *simple = e ? strchr(from, e) : NULL;
    if (simple) {
        text_put(j, t, &to[simple - from], 1);
        return;
    }
    if (e == '\n')
        return;
    int digits = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
    if (digits || (e >= '0' && e <= '7')) {
        if (!digits)
            --*p;
        int32_t c = escape_digits(j, p, end, digits ? digits : 3, digits ? 16 : 8);
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            jinja_fail(j, "an escape in a string is no character");
        text_put_char(j, t, c);
        return;
    }
    if (e == 'N')
        jinja_fail(j, "escapes by name are not supported");
    text_put_c(j, t, "\\"); /* Python keeps what it does not know */
    --*p;
    if ((unsigned char)e >= 0x80) { /* and Jinja spells a character of other alphabets out after it */
        char hex[12];
        size_t n;
        int32_t c = jinja_char_at(*p, end, &n);
        const char *format = c < 0x100 ? "x%02x" : c < 0x10000 ? "u%04x" : "U%08x";
        text_put(j, t, hex, (size_t)snprintf(hex, sizeof hex, format, (unsigned)c));
        *p += n;
    }
}

static void lex_string(struct jinja *j, struct lexer *lx, struct token *t)
{
    char quote = *lx->p;
    const char *start = lx->p + 1, *p = start;
    bool escaped = false;
    for (; p < lx->end && *p != quote; p++) {
        if (*p == '\\') {
            escaped = true;
            if (++p == lx->end)
                break;
        }
    }
    if (p >= lx->end)
        jinja_fail(j, "a string has no end");
    t->kind = T_STRING;
    lx->p = p + 1;
    if (!escaped) {
        t->text = jinja_str_lent(j, start, (size_t)(p - start));
        return;
    }
    struct text out = {0};
    while (start < p) {
        const char *back = memchr(start, '\\', (size_t)(p - start));
        text_put(j, &out, start, (size_t)((back ? back : p) - start));
        if (!back)
            break;
        start = back + 1;
        put_escape(j, &out, &start, p);
    }
    t->text = text_str(j, &out);
}

static const struct {
    const char *text;
    enum token_kind kind;
} operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GE},
    {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},      {"/", T_DIV},      {"*", T_MUL},
    {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
    {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
    {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
    {";", T_SEMICOLON},
};
enum { N_OPERATORS = sizeof operators / sizeof operators[0] };

static void balance(struct jinja *j, struct lexer *lx, enum token_kind kind)
{
    char close = kind == T_LPAREN ? ')' : kind == T_LBRACKET ? ']' : kind == T_LBRACE ? '}' : 0;
    if (close) {
        if (lx->n_open == sizeof lx->closing)
            jinja_fail(j, "nested too deeply");
        lx->closing[lx->n_open++] = close;
        return;
    }
    close = kind == T_RPAREN ? ')' : kind == T_RBRACKET ? ']' : kind == T_RBRACE ? '}' : 0;
    if (!close)
        return;
    if (lx->n_open == 0)
        jinja_fail(j, "unexpected '%c'", close);
    if (lx->closing[--lx->n_open] != close)
        jinja_fail(j, "unexpected '%c', expected '%c'", close, lx->closing[lx->n_open]);
}

static struct token next_in_tag(struct jinja *j, struct lexer *lx)
{
    bool block = lx->state == LEX_BLOCK;
    for (;;) {
        if (lx->n_open == 0) { /* inside brackets "}}" closes two of them */
            const char *after = tag_end(lx, lx->p, block ? "%}" : "}}", block, block);
            if (after) {
                struct token t = {.kind = block ? T_BLOCK_END : T_VARIABLE_END, .line = line_at(lx, lx->p)};
                lx->p = after;
                lx->state = LEX_TEXT;
                return t;
            }
        }
        const char *after = skip_space(lx, lx->p);
        if (after == lx->p)
            break;
        lx->p = after;
    }
    struct token t = {.kind = T_EOF, .line = line_at(lx, lx->p)};
    j->line = t.line;
    if (lx->p == lx->end)
        return t;
    char c = *lx->p;
    size_t n;
    if (c >= '0' && c <= '9') {
        lex_number(j, lx, &t);
        return t;
    }
    if (c == '"' || c == '\'') {
        lex_string(j, lx, &t);
        return t;
    }
    if (jinja_is_word(jinja_char_at(lx->p, lx->end, &n))) {
        lex_name(j, lx, &t);
        return t;
    }
    for (size_t i = 0; i < N_OPERATORS; i++) {
        if (at(lx, lx->p, operators[i].text)) {
            t.kind = operators[i].kind;
            lx->p += strlen(operators[i].text);
            balance(j, lx, t.kind);
            return t;
        }
    }
    jinja_fail(j, "unexpected character '%.*s'", (int)n, lx->p);
}

struct token lexer_next(struct jinja *j, struct lexer *lx)
{
    if (lx->pending != T_EOF) {
        struct token t = {.kind = lx->pending, .line = line_at(lx, lx->p)};
        lx->state = t.kind == T_BLOCK_BEGIN ? LEX_BLOCK : LEX_VARIABLE;
        lx->pending = T_EOF;
        return t;
    }
    if (lx->state != LEX_TEXT)
        return next_in_tag(j, lx);
    struct token t;
    do
        t = next_text(j, lx);
    while (t.kind == T_DATA && t.text->len == 0 && lx->pending == T_EOF);
    return t.kind == T_DATA && t.text->len == 0 ? lexer_next(j, lx) : t;
}

const char *token_name(const struct token *t, char *buf, size_t n)
{
    static const char *const names[] = {
        [T_EOF] = "end of template",
        [T_DATA] = "template data / text",
        [T_VARIABLE_BEGIN] = "begin of print statement",
        [T_VARIABLE_END] = "end of print statement",
        [T_BLOCK_BEGIN] = "begin of statement block",
        [T_BLOCK_END] = "end of statement block",
        [T_NAME] = "name",
        [T_STRING] = "string",
        [T_INTEGER] = "integer",
        [T_FLOAT] = "float",
    };
    if (t->kind == T_NAME && t->text) {
        (void)snprintf(buf, n, "%.*s", (int)(t->text->len < n ? t->text->len : n - 1), t->text->p);
        return buf;
    }
    if (t->kind <= T_FLOAT)
        return names[t->kind];
    for (size_t i = 0; i < N_OPERATORS; i++)
        if (operators[i].kind == t->kind)
            return operators[i].text;
    return "?";
}

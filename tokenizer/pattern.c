/* Regular expressions of tokenizers, run by PCRE2 with its JIT. Those of a tokenizer.json are written for
 * Oniguruma (Ruby's syntax); what PCRE2 reads otherwise is rewritten first. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/internal.h"

#include <pcre2.h>
#include <stdlib.h>

enum {
    MAX_PATTERN = 1 << 16,
    /* A match of a file's own pattern may take so many steps back, and some for each byte of the text:
     * a second. */
    MAX_STEPS = 10 * 1000 * 1000,
};

struct rewriter {
    const char *from;
    size_t len, i;
    char *to;
    size_t n, cap;
    const char *fault;
};

static void put(struct rewriter *r, const char *s, size_t n)
{
    if (!r->to || r->cap - r->n < n) {
        size_t cap = 2 * r->cap + n + 64;
        char *more = realloc(r->to, cap);
        if (!more) {
            r->fault = "out of memory";
            return;
        }
        r->to = more;
        r->cap = cap;
    }
    memcpy(r->to + r->n, s, n);
    r->n += n;
}

static void put_str(struct rewriter *r, const char *s)
{
    put(r, s, strlen(s));
}

/* \s, \w and \h (a hexadecimal digit) and their opposites; \u0041. */
static void rewrite_escape(struct rewriter *r, bool in_class)
{
    char c = r->i + 1 < r->len ? r->from[r->i + 1] : '\0';
    if (c == 'u' && r->len - r->i >= 6) {
        put_str(r, "\\x{");
        put(r, r->from + r->i + 2, 4);
        put_str(r, "}");
        r->i += 6;
        return;
    }
    const char *ranges = c ? class_ranges(c) : NULL;
    if (!ranges || (in_class && c == 'W')) {
        if (ranges || c == 'H')
            r->fault = "a negated class inside a class";
        put(r, r->from + r->i, c ? 2 : 1);
        r->i += c ? 2 : 1;
        return;
    }
    if (!in_class)
        put_str(r, "[");
    put_str(r, ranges);
    if (!in_class)
        put_str(r, "]");
    r->i += 2;
}

/* [ … ]: a class inside a class is a union, and PCRE2 knows none: its brackets go. */
static void rewrite_class(struct rewriter *r)
{
    int depth = 0;
    do {
        char c = r->from[r->i];
        if (c == '\\') {
            rewrite_escape(r, true);
            continue;
        }
        if (c == '[' && r->i + 1 < r->len && r->from[r->i + 1] == ':') { /* [:alpha:] */
            const char *end = memmem(r->from + r->i, r->len - r->i, ":]", 2);
            size_t n = end ? (size_t)(end - (r->from + r->i)) + 2 : 1;
            put(r, r->from + r->i, n);
            r->i += n;
            continue;
        }
        if (c == '[' && depth > 0 && r->i + 1 < r->len && r->from[r->i + 1] == '^')
            r->fault = "a negated class inside a class";
        if (c == '&' && r->i + 1 < r->len && r->from[r->i + 1] == '&')
            r->fault = "an intersection of classes";
        depth += c == '[';
        depth -= c == ']';
        if (!((c == '[' && depth > 1) || (c == ']' && depth > 0)))
            put(r, &c, 1);
        r->i++;
        if (c == '[' && depth == 1) { /* a ] that comes first is itself */
            if (r->i < r->len && r->from[r->i] == '^')
                put(r, r->from + r->i++, 1);
            if (r->i < r->len && r->from[r->i] == ']') {
                put_str(r, "\\]");
                r->i++;
            }
        }
    } while (depth > 0 && r->i < r->len && !r->fault);
}

/* \s+$ is tried from every space of a long run: the same matches in linear time. */
static const char slow[] = "\\s+$", fast[] = "(?<!\\s)\\s+(?=\\n|\\z)";

static char *rewrite(const char *pattern, size_t len, const char **fault)
{
    struct rewriter r = {.from = pattern, .len = len};
    while (r.i < r.len && !r.fault) {
        if (r.from[r.i] == '\\')
            rewrite_escape(&r, false);
        else if (r.from[r.i] == '[')
            rewrite_class(&r);
        else
            put(&r, r.from + r.i++, 1);
    }
    put(&r, "", 1);
    if (r.fault) {
        free(r.to);
        *fault = r.fault;
        return NULL;
    }
    return r.to;
}

static int compile(struct pattern *p, const char *source, size_t len, uint32_t options, const char *name,
                   char *err, size_t errlen)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)source, len, PCRE2_UTF | PCRE2_UCP | options, &code, &at, NULL);
    if (!re) {
        char why[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_set(err, errlen, "%s: the pattern %.*s: %s", name, (int)(len < 80 ? len : 80), source,
                       why);
    }
    p->code = re;
    /* Without a JIT (hardened kernels) the interpreter gives the same matches, slower. */
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    return 0;
}

int pattern_init(struct pattern *p, const struct vocab_step *s, const char *name, char *err, size_t errlen)
{
    *p = (struct pattern){.trusted = s->pcre};
    if (s->pattern_len > MAX_PATTERN)
        return err_set(err, errlen, "%s: a pattern of %zu bytes (at most %d)", name, s->pattern_len,
                       MAX_PATTERN);
    if (s->literal) {
        p->literal = malloc(s->pattern_len + 1);
        if (!p->literal)
            return err_set(err, errlen, "%s: out of memory", name);
        memcpy(p->literal, s->pattern, s->pattern_len);
        p->literal_len = s->pattern_len;
        return 0;
    }
    if (s->pcre)
        return compile(p, s->pattern, s->pattern_len, 0, name, err, errlen);
    const char *fault = "", *pattern = s->pattern;
    size_t len = s->pattern_len;
    if (len == strlen(slow) && memcmp(pattern, slow, len) == 0) {
        pattern = fast;
        len = strlen(fast);
    }
    char *source = memchr(pattern, 0, len) ? NULL : rewrite(pattern, len, &fault);
    if (!source)
        return err_set(err, errlen, "%s: the pattern %.*s: %s", name, (int)(len < 80 ? len : 80), pattern,
                       *fault ? fault : "it holds a NUL");
    /* Ruby: ^ and $ are ends of lines, a line ends with LF. */
    int rc = compile(p, source, strlen(source), PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, name, err, errlen);
    free(source);
    return rc;
}

void pattern_free(struct pattern *p)
{
    pcre2_code_free(p->code);
    free(p->literal);
}

int pattern_start(struct pattern_run *r, const struct pattern *p, const struct encoder *e)
{
    *r = (struct pattern_run){.p = p, .last = SIZE_MAX};
    if (!p->code)
        return 0;
    pcre2_match_context *context = r->context = pcre2_match_context_create(NULL);
    r->data = pcre2_match_data_create(1, NULL);
    if (!r->data || !context)
        return encoder_oom(e);
    /* A pattern of our own takes linear time: a long text is no reason to stop. */
    uint32_t limit = p->trusted ? UINT32_MAX : MAX_STEPS + (uint32_t)(e->max_room / 8);
    pcre2_set_match_limit(context, limit);
    pcre2_set_depth_limit(context, limit);
    pcre2_set_heap_limit(context, p->trusted ? UINT32_MAX : 1 << 18);
    return 0;
}

void pattern_end(struct pattern_run *r)
{
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->context);
}

void pattern_rewind(struct pattern_run *r)
{
    r->from = 0;
    r->last = SIZE_MAX;
}

static int find_literal(const struct pattern_run *r, const char *text, size_t len, struct word *found)
{
    const struct pattern *p = r->p;
    const char *at =
        p->literal_len > 0 ? memmem(text + r->from, len - r->from, p->literal, p->literal_len) : NULL;
    if (!at)
        return 0;
    found->from = (uint32_t)(at - text);
    found->to = found->from + (uint32_t)p->literal_len;
    return 1;
}

static int find_match(const struct pattern_run *r, const struct encoder *e, const char *text, size_t len,
                      struct word *found)
{
    const struct pattern *p = r->p;
    if (!p->code)
        return find_literal(r, text, len, found);
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, len, r->from, PCRE2_NO_UTF_CHECK, r->data, r->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)text, len, r->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, r->data,
                         r->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        char why[120] = "";
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        return err_set(e->err, e->errlen, "%s: cannot split the text into words: %s", e->t->name, why);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(r->data);
    found->from = (uint32_t)(range[0] < r->from ? r->from : range[0]); /* \K can move them */
    found->to = (uint32_t)(range[1] < found->from ? found->from : range[1]);
    return 1;
}

int pattern_next(struct pattern_run *r, const struct encoder *e, const char *text, size_t len,
                 struct word *found)
{
    while (r->from <= len) {
        int rc = find_match(r, e, text, len, found);
        if (rc <= 0)
            return rc;
        if (found->to > found->from || found->to != r->last) {
            r->from = r->last = found->to;
            return 1;
        }
        r->from = found->to + (found->to < len ? char_len(text + found->to, len - found->to) : 1);
    }
    return 0;
}

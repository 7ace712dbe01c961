/* Strings of the template interpreter: UTF-8 inside, indexed by code point as Python's are.
 *
 * A string may own the free space behind its bytes (struct str_tail): appending to the string that was
 * appended to last then writes in place, so that a template that builds its prompt by `s = s + piece`
 * costs linear memory in an arena that frees nothing. */
#include "tokenizer/jinja.h"

#include <string.h>
#include <utf8proc.h>

struct str_tail {
    char *next, *end; /* free bytes; the string that ends at next may take them */
};

/* Work that goes with the bytes of a string counts as steps too. */
static void charge(struct jinja *j, size_t bytes)
{
    jinja_step(j, bytes / 64);
}

static struct str *str_new(struct jinja *j, const char *p, size_t len)
{
    struct str *s = jinja_alloc(j, 1, sizeof *s);
    *s = (struct str){.p = p, .len = len, .n_chars = SIZE_MAX};
    return s;
}

const struct str *jinja_str_lent(struct jinja *j, const char *p, size_t len)
{
    return str_new(j, p, len);
}

const struct str *jinja_str(struct jinja *j, const char *p, size_t len)
{
    charge(j, len);
    char *copy = jinja_alloc(j, len, 1);
    if (len)
        memcpy(copy, p, len);
    return str_new(j, copy, len);
}

const struct str *jinja_str_c(struct jinja *j, const char *text)
{
    return str_new(j, text, strlen(text));
}

const struct str *jinja_str_safe(struct jinja *j, const struct str *s, bool safe)
{
    if (s->safe == safe)
        return s;
    struct str *copy = jinja_alloc(j, 1, sizeof *copy);
    *copy = *s;
    copy->safe = safe;
    return copy;
}

const struct str *jinja_str_fixed(struct jinja *j, const struct str *s)
{
    struct str *fixed = jinja_alloc(j, 1, sizeof *fixed);
    *fixed = *s;
    fixed->tail = NULL;
    (void)jinja_n_chars(fixed);
    return fixed;
}

bool jinja_str_eq(const struct str *a, const struct str *b)
{
    return a == b || (a->len == b->len && memcmp(a->p, b->p, a->len) == 0);
}

bool jinja_str_is(const struct str *s, const char *text)
{
    return strlen(text) == s->len && memcmp(s->p, text, s->len) == 0;
}

const struct str *jinja_concat(struct jinja *j, const struct str *a, const struct str *b)
{
    if (b->len == 0)
        return a;
    charge(j, b->len);
    struct str *s = str_new(j, a->p, a->len + b->len);
    s->safe = a->safe;
    if (a->n_chars != SIZE_MAX && b->n_chars != SIZE_MAX)
        s->n_chars = a->n_chars + b->n_chars;
    s->tail = a->tail;
    if (!a->tail || a->p + a->len != a->tail->next || b->len > (size_t)(a->tail->end - a->tail->next)) {
        charge(j, a->len);
        size_t cap = 2 * s->len;
        char *p = jinja_grow(j, a->p, a->len, cap, 1);
        s->p = p;
        s->tail = jinja_alloc(j, 1, sizeof *s->tail);
        *s->tail = (struct str_tail){p + a->len, p + cap};
    }
    memcpy(s->tail->next, b->p, b->len);
    s->tail->next += b->len;
    return s;
}

const struct str *jinja_escape(struct jinja *j, const struct str *s)
{
    if (s->safe)
        return s;
    struct text t = {0};
    for (size_t i = 0; i < s->len; i++) {
        switch (s->p[i]) {
        case '&':
            text_put_c(j, &t, "&amp;");
            break;
        case '<':
            text_put_c(j, &t, "&lt;");
            break;
        case '>':
            text_put_c(j, &t, "&gt;");
            break;
        case '\'':
            text_put_c(j, &t, "&#39;");
            break;
        case '"':
            text_put_c(j, &t, "&#34;");
            break;
        default:
            text_put(j, &t, &s->p[i], 1);
        }
    }
    return jinja_str_safe(j, text_str(j, &t), true);
}

/* ---- code points ---- */

size_t jinja_utf8_valid(const char *p, size_t len)
{
    size_t i = 0;
    while (i < len) {
        if ((unsigned char)p[i] < 0x80) {
            i++;
            continue;
        }
        utf8proc_int32_t c;
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)p + i, (utf8proc_ssize_t)(len - i), &c);
        if (n <= 0)
            break;
        i += (size_t)n;
    }
    return i;
}

int32_t jinja_char_at(const char *p, const char *end, size_t *n)
{
    if ((unsigned char)*p < 0x80) {
        *n = 1;
        return (unsigned char)*p;
    }
    utf8proc_int32_t c = 0xfffd;
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)p, end - p, &c);
    *n = got > 0 ? (size_t)got : 1;
    return got > 0 ? c : 0xfffd;
}

size_t jinja_char_put(char *p, int32_t c)
{
    return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)p);
}

bool jinja_is_space(int32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool jinja_is_word(int32_t c)
{
    if (c == '_')
        return true;
    utf8proc_category_t category = utf8proc_category(c);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

static bool starts_char(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static size_t count_chars(const char *p, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += starts_char(p[i]);
    return n;
}

size_t jinja_n_chars(const struct str *s)
{
    if (s->n_chars == SIZE_MAX) /* a cache: the string itself stays what it was */
        ((struct str *)s)->n_chars = count_chars(s->p, s->len);
    return s->n_chars;
}

/* Where the i-th character begins, i ≤ n_chars. */
static size_t char_offset(const struct str *s, size_t i)
{
    if (jinja_n_chars(s) == s->len)
        return i;
    size_t at = 0;
    for (; at < s->len; at++)
        if (starts_char(s->p[at]) && i-- == 0)
            break;
    return at;
}

size_t jinja_char_index(const struct str *s, size_t byte)
{
    return jinja_n_chars(s) == s->len ? byte : count_chars(s->p, byte);
}

const struct str *jinja_substr(struct jinja *j, const struct str *s, size_t from, size_t n)
{
    if (from == 0 && n == s->len)
        return s;
    struct str *part = str_new(j, s->p + from, n);
    part->safe = s->safe;
    if (s->n_chars == s->len)
        part->n_chars = n;
    return part;
}

const struct str *jinja_char(struct jinja *j, const struct str *s, size_t i)
{
    if (jinja_n_chars(s) != s->len)
        charge(j, s->len);
    size_t at = char_offset(s, i), n = 1;
    (void)jinja_char_at(s->p + at, s->p + s->len, &n);
    return jinja_substr(j, s, at, n);
}

const struct str *jinja_str_slice(struct jinja *j, const struct str *s, size_t start, int64_t step, size_t n)
{
    charge(j, s->len);
    if (n == 0)
        return jinja_substr(j, s, 0, 0);
    if (step == 1) {
        size_t from = char_offset(s, start);
        return jinja_substr(j, s, from, char_offset(s, start + n) - from);
    }
    /* Both ways by walking the bytes: a seek for every character would be quadratic. */
    struct text t = {0};
    const char *end = s->p + s->len, *p = s->p + char_offset(s, start);
    for (size_t done = 0;;) {
        size_t len;
        (void)jinja_char_at(p, end, &len);
        text_put(j, &t, p, len);
        if (++done == n)
            break;
        for (int64_t k = 0; k < step; k++) /* n says that it stays inside */
            do
                p++;
            while (!starts_char(*p));
        for (int64_t k = 0; k > step; k--)
            do
                p--;
            while (!starts_char(*p));
    }
    return jinja_str_safe(j, text_str(j, &t), s->safe);
}

/* ---- searching ---- */

/* Both ways: a candidate is where the first byte is; each costs steps, as there may be len × needle. */
size_t jinja_find(struct jinja *j, const struct str *s, const struct str *needle, size_t from)
{
    if (needle->len > s->len - from)
        return SIZE_MAX;
    if (needle->len == 0)
        return from;
    for (;;) {
        size_t n = s->len - needle->len + 1 - from;
        const char *at = memchr(s->p + from, needle->p[0], n);
        charge(j, at ? (size_t)(at - s->p) - from : n);
        if (!at || memcmp(at, needle->p, needle->len) == 0)
            return at ? (size_t)(at - s->p) : SIZE_MAX;
        jinja_step(j, 1 + needle->len / 64);
        from = (size_t)(at - s->p) + 1;
        if (needle->len > s->len - from)
            return SIZE_MAX;
    }
}

size_t jinja_rfind(struct jinja *j, const struct str *s, const struct str *needle)
{
    if (needle->len > s->len)
        return SIZE_MAX;
    if (needle->len == 0)
        return s->len;
    for (size_t n = s->len - needle->len + 1;;) { /* where its first byte may be */
        const char *at = memrchr(s->p, needle->p[0], n);
        charge(j, n - (at ? (size_t)(at - s->p) : 0));
        if (!at || memcmp(at, needle->p, needle->len) == 0)
            return at ? (size_t)(at - s->p) : SIZE_MAX;
        jinja_step(j, 1 + needle->len / 64);
        n = (size_t)(at - s->p);
    }
}

static bool strips(struct jinja *j, int32_t c, const struct str *chars)
{
    if (!chars)
        return jinja_is_space(c);
    size_t n;
    jinja_step(j, 1 + chars->len / 16);
    for (const char *p = chars->p, *end = p + chars->len; p < end; p += n)
        if (jinja_char_at(p, end, &n) == c)
            return true;
    return false;
}

const struct str *jinja_strip(struct jinja *j, const struct str *s, const struct str *chars, int sides)
{
    const char *p = s->p, *end = s->p + s->len;
    size_t n;
    while (sides & STRIP_LEFT && p < end && strips(j, jinja_char_at(p, end, &n), chars))
        p += n;
    while (sides & STRIP_RIGHT && p < end) {
        const char *last = end - 1;
        while (!starts_char(*last))
            last--;
        if (!strips(j, jinja_char_at(last, end, &n), chars))
            break;
        end = last;
    }
    charge(j, s->len - (size_t)(end - p));
    return jinja_substr(j, s, (size_t)(p - s->p), (size_t)(end - p));
}

/* ---- splitting and replacing ---- */

struct pieces {
    struct value *v;
    size_t n, cap;
};

static void piece(struct jinja *j, struct pieces *l, const struct str *s, size_t from, size_t to)
{
    jinja_step(j, 1);
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 8;
        l->v = jinja_grow(j, l->v, l->n, l->cap, sizeof *l->v);
    }
    l->v[l->n++] = v_str(jinja_substr(j, s, from, to - from));
}

static struct value pieces_list(struct jinja *j, const struct pieces *l, bool reversed)
{
    struct list *list = jinja_list_new(j, l->n);
    for (size_t i = 0; i < l->n; i++)
        list->v[i] = l->v[reversed ? l->n - 1 - i : i];
    return v_list(list);
}

/* Runs of whitespace separate; none at the ends. */
static struct value split_space(struct jinja *j, const struct str *s, int64_t max)
{
    struct pieces l = {0};
    const char *end = s->p + s->len;
    size_t at = 0, n = 0;
    charge(j, s->len);
    for (;;) {
        while (at < s->len && jinja_is_space(jinja_char_at(s->p + at, end, &n)))
            at += n;
        if (at == s->len)
            break;
        size_t from = at;
        if (max >= 0 && l.n == (uint64_t)max) { /* the rest as it is */
            piece(j, &l, s, from, s->len);
            break;
        }
        while (at < s->len && !jinja_is_space(jinja_char_at(s->p + at, end, &n)))
            at += n;
        piece(j, &l, s, from, at);
    }
    return pieces_list(j, &l, false);
}

static struct value rsplit_space(struct jinja *j, const struct str *s, int64_t max)
{
    struct pieces l = {0};
    charge(j, s->len);
    size_t end = s->len, n;
    for (;;) {
        end = jinja_strip(j, jinja_substr(j, s, 0, end), NULL, STRIP_RIGHT)->len;
        if (end == 0)
            break;
        size_t from = end;
        if (max >= 0 && l.n == (uint64_t)max) {
            piece(j, &l, s, 0, end);
            break;
        }
        while (from > 0) {
            size_t last = from - 1;
            while (!starts_char(s->p[last]))
                last--;
            if (jinja_is_space(jinja_char_at(s->p + last, s->p + end, &n)))
                break;
            from = last;
        }
        piece(j, &l, s, from, end);
        end = from;
    }
    return pieces_list(j, &l, true);
}

struct value jinja_split(struct jinja *j, const struct str *s, const struct str *sep, int64_t max,
                         bool from_right)
{
    if (!sep)
        return from_right ? rsplit_space(j, s, max) : split_space(j, s, max);
    if (sep->len == 0)
        jinja_fail(j, "empty separator");
    struct pieces l = {0};
    if (from_right) {
        size_t end = s->len, at;
        while ((max < 0 || l.n < (uint64_t)max) &&
               (at = jinja_rfind(j, jinja_substr(j, s, 0, end), sep)) != SIZE_MAX) {
            piece(j, &l, s, at + sep->len, end);
            end = at;
        }
        piece(j, &l, s, 0, end);
    } else {
        size_t from = 0, at;
        while ((max < 0 || l.n < (uint64_t)max) && (at = jinja_find(j, s, sep, from)) != SIZE_MAX) {
            piece(j, &l, s, from, at);
            from = at + sep->len;
        }
        piece(j, &l, s, from, s->len);
    }
    return pieces_list(j, &l, from_right);
}

static bool ends_line(int32_t c)
{
    return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct value jinja_splitlines(struct jinja *j, const struct str *s, bool keep_ends)
{
    struct pieces l = {0};
    const char *end = s->p + s->len;
    size_t from = 0, at = 0, n;
    charge(j, s->len);
    while (at < s->len) {
        int32_t c = jinja_char_at(s->p + at, end, &n);
        if (c == '\r' && at + 1 < s->len && s->p[at + 1] == '\n')
            n = 2;
        if (ends_line(c)) {
            piece(j, &l, s, from, keep_ends ? at + n : at);
            from = at + n;
        }
        at += n;
    }
    if (from < s->len)
        piece(j, &l, s, from, s->len);
    return pieces_list(j, &l, false);
}

const struct str *jinja_replace(struct jinja *j, const struct str *s, const struct str *old,
                                const struct str *new_text, int64_t max)
{
    struct text t = {0};
    size_t from = 0;
    uint64_t n = 0;
    if (old->len == 0) { /* between all characters, and at both ends */
        size_t len = 0;
        for (; max < 0 || n < (uint64_t)max; n++) {
            jinja_step(j, 1);
            text_put_str(j, &t, new_text);
            if (from == s->len)
                break;
            (void)jinja_char_at(s->p + from, s->p + s->len, &len);
            text_put(j, &t, s->p + from, len);
            from += len;
        }
    } else {
        for (size_t at; max < 0 || n < (uint64_t)max; n++) {
            if ((at = jinja_find(j, s, old, from)) == SIZE_MAX)
                break;
            jinja_step(j, 1);
            text_put(j, &t, s->p + from, at - from);
            text_put_str(j, &t, new_text);
            from = at + old->len;
        }
        if (n == 0)
            return s;
    }
    text_put(j, &t, s->p + from, s->len - from);
    return jinja_str_safe(j, text_str(j, &t), s->safe);
}

/* ---- case ---- */

static bool is_cased(int32_t c)
{
    if (c < 0x80)
        return (c | 32) >= 'a' && (c | 32) <= 'z';
    return utf8proc_islower(c) || utf8proc_isupper(c) || utf8proc_category(c) == UTF8PROC_CATEGORY_LT;
}

static void put_upper(struct jinja *j, struct text *t, int32_t c, bool title)
{
    if (c >= 'a' && c <= 'z')
        c -= 'a' - 'A';
    else if (c >= 0x80 && c != 0xdf)
        c = title ? utf8proc_totitle(c) : utf8proc_toupper(c);
    if (c == 0xdf) /* ß: the one letter of living languages whose capital is two */
        text_put_c(j, t, title ? "Ss" : "SS");
    else
        text_put_char(j, t, c);
}

static void put_lower(struct jinja *j, struct text *t, int32_t c)
{
    if (c >= 'A' && c <= 'Z')
        c += 'a' - 'A';
    else if (c >= 0x80)
        c = utf8proc_tolower(c);
    text_put_char(j, t, c);
}

const struct str *jinja_case(struct jinja *j, const struct str *s, enum text_case to)
{
    struct text t = {0};
    const char *end = s->p + s->len;
    bool after_letter = false;
    size_t n;
    charge(j, 16 * s->len); /* a good deal of work for each character */
    for (const char *p = s->p; p < end; p += n) {
        int32_t c = jinja_char_at(p, end, &n);
        bool cased = is_cased(c);
        bool upper = to == CASE_UPPER || (to == CASE_CAPITALIZE && p == s->p) ||
                     (to == CASE_TITLE && !after_letter) || (to == CASE_SWAP && cased && utf8proc_islower(c));
        if (upper)
            put_upper(j, &t, c, to == CASE_CAPITALIZE || to == CASE_TITLE);
        else
            put_lower(j, &t, c);
        after_letter = cased;
    }
    return jinja_str_safe(j, text_str(j, &t), s->safe);
}

/* ---- building ---- */

/* Room for len bytes more, paid for. */
static char *text_reserve(struct jinja *j, struct text *t, size_t len)
{
    if (t->limit && len > t->limit - t->len)
        jinja_fail(j, "the template writes more than %zu bytes", t->limit);
    if (len > t->cap - t->len) {
        size_t cap = t->len + len > 2 * t->cap ? t->len + len + 32 : 2 * t->cap;
        t->p = jinja_grow(j, t->p, t->len, cap, 1);
        t->cap = cap;
    }
    charge(j, len);
    return t->p + t->len;
}

void text_put(struct jinja *j, struct text *t, const char *p, size_t len)
{
    char *to = text_reserve(j, t, len);
    if (len)
        memcpy(to, p, len);
    t->len += len;
}

void text_put_str(struct jinja *j, struct text *t, const struct str *s)
{
    text_put(j, t, s->p, s->len);
}

void text_put_c(struct jinja *j, struct text *t, const char *literal)
{
    text_put(j, t, literal, strlen(literal));
}

void text_put_char(struct jinja *j, struct text *t, int32_t c)
{
    char bytes[4];
    text_put(j, t, bytes, jinja_char_put(bytes, c));
}

void text_repeat(struct jinja *j, struct text *t, const char *p, size_t len, size_t n)
{
    if (len && n > JINJA_MAX_MEMORY / len)
        jinja_fail(j, "the template needs too much memory");
    char *to = text_reserve(j, t, n * len);
    if (n * len == 0)
        return;
    if (len == 1)
        memset(to, *p, n);
    else
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * len, p, len);
    t->len += n * len;
}

const struct str *text_str(struct jinja *j, struct text *t)
{
    struct str *s = str_new(j, t->p ? t->p : "", t->len);
    if (t->p) {
        s->tail = jinja_alloc(j, 1, sizeof *s->tail);
        *s->tail = (struct str_tail){t->p + t->len, t->p + t->cap};
    }
    *t = (struct text){0};
    return s;
}

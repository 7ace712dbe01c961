/* The longest of a set of texts at a place of another: sorted, the range of candidates narrowed byte by
 * byte. */
#include "tokenizer/internal.h"

#include <stdlib.h>

int matcher_own(struct matcher *m, char *text)
{
    char **all = realloc(m->owned, (m->n_owned + 1) * sizeof *all);
    if (!all) {
        free(text);
        return -1;
    }
    m->owned = all;
    m->owned[m->n_owned++] = text;
    return 0;
}

int matcher_add(struct matcher *m, const char *text, size_t len, int32_t id)
{
    if (len == 0)
        return 0;
    if (m->n == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 16;
        struct matcher_entry *more = realloc(m->sorted, cap * sizeof *more);
        if (!more)
            return -1;
        m->sorted = more;
        m->cap = cap;
    }
    m->sorted[m->n++] = (struct matcher_entry){text, (uint32_t)len, id};
    return 0;
}

static int compare_texts(const void *a, const void *b)
{
    const struct matcher_entry *x = a, *y = b;
    int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    if (c == 0)
        c = x->len != y->len ? (x->len < y->len ? -1 : 1) : (x->id < y->id ? -1 : 1);
    return c;
}

static bool same_text(const struct matcher_entry *x, const struct matcher_entry *y)
{
    return x->len == y->len && memcmp(x->text, y->text, x->len) == 0;
}

void matcher_done(struct matcher *m)
{
    if (m->n > 0)
        qsort(m->sorted, m->n, sizeof *m->sorted, compare_texts);
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) /* of several with one text the first */
        if (n == 0 || !same_text(&m->sorted[n - 1], &m->sorted[i]))
            m->sorted[n++] = m->sorted[i];
    m->n = n;
    uint32_t i = 0;
    for (int b = 0; b < 257; b++) {
        while (i < n && (uint8_t)m->sorted[i].text[0] < b)
            i++;
        m->first[b] = i;
    }
}

void matcher_free(struct matcher *m)
{
    for (size_t i = 0; i < m->n_owned; i++)
        free(m->owned[i]);
    free(m->owned);
    free(m->sorted);
}

/* The first of sorted[lo … hi) whose byte at depth is at least b; all are longer than depth. */
static uint32_t lower_bound(const struct matcher *m, uint32_t lo, uint32_t hi, size_t depth, int b)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)m->sorted[mid].text[depth] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void matcher_each(const struct matcher *m, const char *text, size_t len,
                  void (*fn)(void *arg, int32_t id, size_t len), void *arg)
{
    if (len == 0)
        return;
    uint8_t b = (uint8_t)text[0];
    uint32_t lo = m->first[b], hi = m->first[b + 1];
    for (size_t depth = 1; lo < hi; depth++) {
        if (m->sorted[lo].len == depth) {
            fn(arg, m->sorted[lo].id, depth);
            lo++;
        }
        if (depth == len)
            break;
        b = (uint8_t)text[depth];
        lo = lower_bound(m, lo, hi, depth, b);
        hi = lower_bound(m, lo, hi, depth, b + 1);
    }
}

struct longest {
    int32_t id;
    size_t len;
};

static void keep_longer(void *arg, int32_t id, size_t len)
{
    *(struct longest *)arg = (struct longest){id, len};
}

size_t matcher_at(const struct matcher *m, const char *text, size_t len, int32_t *id)
{
    struct longest found = {-1, 0};
    if (m->n == 0 || len == 0 || m->first[(uint8_t)text[0]] == m->first[(uint8_t)text[0] + 1])
        return 0;
    matcher_each(m, text, len, keep_longer, &found);
    *id = found.id;
    return found.len;
}

/* The longest of a set of tokens at a place of the text: tokens sorted by text, the range of candidates
 * narrowed byte by byte. */
#include "tokenizer/internal.h"

#include <stdlib.h>

static int compare_texts(const void *a, const void *b, void *pieces)
{
    const struct pieces *p = pieces;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    uint32_t n = p->piece[i].text_len, m = p->piece[j].text_len;
    int c = memcmp(piece_text(p, i), piece_text(p, j), n < m ? n : m);
    if (c == 0)
        c = n != m ? (n < m ? -1 : 1) : (i < j ? -1 : 1);
    return c;
}

static bool same_text(const struct pieces *p, int32_t i, int32_t j)
{
    return p->piece[i].text_len == p->piece[j].text_len &&
           memcmp(piece_text(p, i), piece_text(p, j), p->piece[i].text_len) == 0;
}

static bool wanted(const struct piece *p, unsigned types, bool end_markers)
{
    return p->text_len > 0 && ((types >> p->type & 1) || (end_markers && p->end_marker));
}

int matcher_init(struct matcher *m, const struct pieces *p, unsigned types, bool end_markers, char *err,
                 size_t errlen)
{
    size_t n = 0;
    m->pieces = p;
    for (int32_t id = 0; id < p->n; id++)
        n += wanted(&p->piece[id], types, end_markers);
    m->sorted = malloc((n + 1) * sizeof *m->sorted);
    if (!m->sorted)
        return err_set(err, errlen, "out of memory for %zu special tokens", n);
    n = 0;
    for (int32_t id = 0; id < p->n; id++)
        if (wanted(&p->piece[id], types, end_markers))
            m->sorted[n++] = id;
    qsort_r(m->sorted, n, sizeof *m->sorted, compare_texts, (void *)p);
    size_t n_all = n;
    n = 0;
    for (size_t i = 0; i < n_all; i++) /* of several with one text the first */
        if (n == 0 || !same_text(p, m->sorted[n - 1], m->sorted[i]))
            m->sorted[n++] = m->sorted[i];
    uint32_t i = 0;
    for (int b = 0; b < 257; b++) {
        while (i < n && (uint8_t)piece_text(p, m->sorted[i])[0] < b)
            i++;
        m->first[b] = i;
    }
    return 0;
}

void matcher_free(struct matcher *m)
{
    free(m->sorted);
}

/* The first of sorted[lo … hi) whose byte at depth is at least b; all are longer than depth. */
static uint32_t lower_bound(const struct matcher *m, uint32_t lo, uint32_t hi, size_t depth, int b)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)piece_text(m->pieces, m->sorted[mid])[depth] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

size_t matcher_at(const struct matcher *m, const char *text, size_t len, int32_t *id)
{
    if (len == 0)
        return 0;
    uint8_t b = (uint8_t)text[0];
    uint32_t lo = m->first[b], hi = m->first[b + 1];
    size_t longest = 0;
    for (size_t depth = 1; lo < hi; depth++) {
        if (m->pieces->piece[m->sorted[lo]].text_len == depth) {
            *id = m->sorted[lo];
            longest = depth;
            lo++;
        }
        if (depth == len)
            break;
        b = (uint8_t)text[depth];
        lo = lower_bound(m, lo, hi, depth, b);
        hi = lower_bound(m, lo, hi, depth, b + 1);
    }
    return longest;
}

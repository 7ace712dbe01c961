/* Merging: of all neighbours the pair of smallest rank becomes one symbol, the leftmost of equals, until
 * no pair is left (Sennrich et al. 2016; SentencePiece does the same by score). Candidates wait in a
 * binary heap; those that a merge has made stale are recognised when they come up. */
#include "tokenizer/internal.h"

#include <stdlib.h>

int ids_push(struct ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *v = realloc(ids->v, cap * sizeof *v);
        if (!v)
            return -1;
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return 0;
}

void encoder_free(struct encoder *e)
{
    free(e->ids.v);
    free(e->symbol);
    free(e->heap);
    free(e->cache);
    free(e->path);
    free(e->words.v);
    free(e->old_words.v);
    free(e->matches.v);
    for (int i = 0; i < 2; i++) {
        free(e->norm[i].s);
        free(e->pre[i].s);
    }
    free(e->spelled.s);
    free(e->known.s);
}

int encoder_oom(const struct encoder *e)
{
    return err_set(e->err, e->errlen, "%s: out of memory for the ids of the text", e->t->name);
}

static int too_long(const struct encoder *e)
{
    return err_set(e->err, e->errlen, "%s: the text grows too long when it is normalised", e->t->name);
}

int encoder_room(const struct encoder *e, struct buf *b, size_t cap)
{
    if (cap > 4 * e->max_room)
        return too_long(e);
    if (b->cap < cap || !b->s) {
        free(b->s);
        b->s = malloc(cap + 1);
        b->cap = b->s ? cap : 0;
        if (!b->s)
            return encoder_oom(e);
    }
    return 0;
}

int buf_put(const struct encoder *e, struct buf *b, size_t *n, const char *text, size_t len)
{
    if (len > b->cap - *n) {
        if (len > e->max_room || *n > e->max_room - len)
            return too_long(e);
        size_t cap = 2 * (*n + len);
        char *s = realloc(b->s, cap);
        if (!s)
            return encoder_oom(e);
        b->s = s;
        b->cap = cap;
    }
    memcpy(b->s + *n, text, len);
    *n += len;
    return 0;
}

int words_push(const struct encoder *e, struct words *w, size_t from, size_t to)
{
    return to > from ? words_push_any(e, w, from, to) : 0;
}

int words_push_any(const struct encoder *e, struct words *w, size_t from, size_t to)
{
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 256;
        struct word *v = realloc(w->v, cap * sizeof *v);
        if (!v)
            return encoder_oom(e);
        w->v = v;
        w->cap = cap;
    }
    w->v[w->n++] = (struct word){(uint32_t)from, (uint32_t)to};
    return 0;
}

int encoder_symbols(struct encoder *e, size_t n)
{
    if (e->symbol_cap < n) {
        size_t cap = n < 256 ? 256 : n > 4096 ? n : n * 2;
        free(e->symbol);
        free(e->heap);
        e->symbol = malloc(cap * sizeof *e->symbol);
        /* n − 1 pairs at first; each of at most n − 1 merges takes one candidate and adds two. */
        e->heap = malloc(2 * cap * sizeof *e->heap);
        e->symbol_cap = e->symbol && e->heap ? cap : 0;
        if (!e->symbol || !e->heap)
            return encoder_oom(e);
    }
    return 0;
}

/* The heap: rank in the high half, place in the low, so that equals come from the left. */

static void sift_down(uint64_t *heap, size_t n, size_t i, uint64_t key)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (key <= heap[child])
            break;
        heap[i] = heap[child];
    }
    heap[i] = key;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t i = (*n)++;
    while (i > 0 && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

/* Looks up what symbol i gives with the next one. */
static void rate(const struct encoder *e, const char *text, size_t len, struct symbol *s)
{
    s->rank = NO_RANK;
    if (s->next == NO_SYMBOL)
        return;
    const struct tokenizer *t = e->t;
    const struct symbol *next = &e->symbol[s->next];
    if (t->kind == VOCAB_BPE) {
        if (s->id < 0 || next->id < 0)
            return;
        const struct pair_slot *p = find_pair(&t->pairs, s->id, next->id);
        s->rank = p->rank;
        s->merged = p->merged;
    } else {
        size_t end = next->next == NO_SYMBOL ? len : e->symbol[next->next].at;
        int32_t id = pieces_find(&t->pieces, text + s->at, end - s->at);
        if (id < 0 || !t->pieces.piece[id].in_model)
            return;
        s->rank = t->pieces.piece[id].rank;
        s->merged = id;
    }
}

void encoder_merge(struct encoder *e, const char *text, size_t len, uint32_t n)
{
    struct symbol *symbol = e->symbol;
    uint64_t *heap = e->heap;
    size_t n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        symbol[i].prev = i == 0 ? NO_SYMBOL : i - 1;
        symbol[i].next = i + 1 == n ? NO_SYMBOL : i + 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        rate(e, text, len, &symbol[i]);
        if (symbol[i].rank != NO_RANK)
            heap[n_heap++] = (uint64_t)symbol[i].rank << 32 | i;
    }
    for (size_t i = n_heap / 2; i-- > 0;)
        sift_down(heap, n_heap, i, heap[i]);

    while (n_heap > 0) {
        uint64_t top = heap[0];
        n_heap--;
        sift_down(heap, n_heap, 0, heap[n_heap]);
        uint32_t i = (uint32_t)top;
        struct symbol *s = &symbol[i];
        if (s->rank != top >> 32)
            continue; /* stale: merged away, or beside another symbol now */
        symbol[s->next].rank = NO_RANK;
        s->id = s->merged;
        s->next = symbol[s->next].next;
        if (s->next != NO_SYMBOL)
            symbol[s->next].prev = i;
        rate(e, text, len, s);
        if (s->rank != NO_RANK)
            heap_push(heap, &n_heap, (uint64_t)s->rank << 32 | i);
        if (s->prev != NO_SYMBOL) {
            struct symbol *p = &symbol[s->prev];
            rate(e, text, len, p);
            if (p->rank != NO_RANK)
                heap_push(heap, &n_heap, (uint64_t)p->rank << 32 | s->prev);
        }
    }
}

/* The cache: one entry per hash value, the newest word stays. The ids are in the output already. */

enum { CACHE_SIZE = 1 << 13, CACHE_WORD = 25 };

struct word_cache {
    struct cached_word {
        uint32_t ids; /* where, in ids.v */
        uint8_t n_ids, len;
        char word[CACHE_WORD + 1];
    } word[CACHE_SIZE];
};

int encoder_use_cache(struct encoder *e)
{
    if (!e->cache)
        e->cache = calloc(1, sizeof *e->cache);
    return e->cache ? 0 : encoder_oom(e);
}

static struct cached_word *cached(const struct encoder *e, const char *word, size_t len)
{
    return &e->cache->word[hash_bytes(word, len) >> 8 & (CACHE_SIZE - 1)];
}

bool encoder_recall(struct encoder *e, const char *word, size_t len)
{
    if (!e->cache || len > CACHE_WORD || len == 0)
        return false;
    const struct cached_word *c = cached(e, word, len);
    if (c->len != len || memcmp(c->word, word, len) != 0)
        return false;
    size_t n_before = e->ids.n;
    for (uint32_t i = 0; i < c->n_ids; i++)
        if (ids_push(&e->ids, e->ids.v[c->ids + i]) < 0) {
            e->ids.n = n_before; /* whoever encodes the word anew meets the lack of memory */
            return false;
        }
    return true;
}

void encoder_remember(struct encoder *e, const char *word, size_t len, size_t n_before)
{
    if (!e->cache || len > CACHE_WORD || len == 0 || n_before > UINT32_MAX)
        return;
    struct cached_word *c = cached(e, word, len);
    c->ids = (uint32_t)n_before;
    c->n_ids = (uint8_t)(e->ids.n - n_before);
    c->len = (uint8_t)len;
    memcpy(c->word, word, len);
}

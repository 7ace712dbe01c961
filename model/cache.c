/* The KV cache: pages of 64 positions, shared by reference count (as in PagedAttention, Kwon et al. 2023,
 * arXiv:2309.06180). A page number stands for one page of keys and one of values in every layer of a pool,
 * so that one table per sequence serves all layers of it. Layers that see everything are one pool; layers
 * with a sliding window are another, which gives back the pages that the window has left.
 *
 * Positions here count a P-Tuning prefix, which every sequence begins with; lengths in the interface do not.
 */
#include "model/cache.h"
#include "model/arch.h"
#include "model/layers.h"
#include "model/rope.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SEQS = 1 << 16 };
enum { POOL_FULL, POOL_WINDOWED, N_POOLS };

/* A sequence's pages in a pool: table entries first … end − 1 are held, all others are −1. */
struct table {
    int32_t *pages;
    int64_t first, end;
};

struct sequence {
    int64_t len; /* positions, the P-Tuning prefix included; 0 before it is stored */
    struct text text;
    struct table table[N_POOLS];
};

struct pool {
    int n_layers; /* 0: unused */
    int32_t n_pages, n_free;
    int32_t *free_pages; /* a stack */
    int32_t *refs;       /* how many tables hold a page */
    int32_t *tables;
    char *k, *v; /* (n_layers, n_pages) pages: the backend's memory */
    size_t k_bytes, v_bytes;
};

struct cache {
    const struct model *model;
    const struct ops *ops;
    struct kv_layout layout;
    int n_seqs, window;
    int64_t n_ctx, max_batch, n_virtual;
    int64_t pages_per_seq; /* entries of a table */
    struct pool pool[N_POOLS];
    int16_t layer_pool[MAX_LAYERS], layer_in_pool[MAX_LAYERS];
    struct sequence *seq;
    void *bounce; /* host memory for one page on its way to its copy */
};

static int64_t pages_for(int64_t len)
{
    return (len + KV_PAGE - 1) / KV_PAGE;
}

/* ---- Life --------------------------------------------------------------------------------------- */

static int check_options(const struct kv_layout *l, int rc, const struct config *c,
                         const struct cache_options *o, char *err, size_t errlen)
{
    if (o->n_seqs < 1 || o->n_seqs > MAX_SEQS)
        return err_set(err, errlen, "KV cache: %d sequences, outside 1 … %d", o->n_seqs, MAX_SEQS);
    if (!kv_type_supported(o->type_k) || !kv_type_supported(o->type_v))
        return err_set(err, errlen, "KV cache: type %s cannot be cached",
                       qtypes[kv_type_supported(o->type_k) ? o->type_v : o->type_k].name);
    if (rc)
        return err_set(err, errlen, "KV cache: heads of %d do not divide into the blocks of %s and %s",
                       c->head_dim, qtypes[o->type_k].name, qtypes[o->type_v].name);
    /* Page numbers are int32, sizes must fit size_t. */
    int64_t biggest = l->k_page_bytes > l->v_page_bytes ? l->k_page_bytes : l->v_page_bytes;
    int64_t limit = INT64_MAX / 2 / c->n_layers / biggest;
    limit = limit < INT32_MAX ? limit : INT32_MAX;
    limit -= (int64_t)(KV_PAGE + c->n_virtual) * o->n_seqs;
    if (o->n_ctx < 1 || o->n_ctx > limit)
        return err_set(err, errlen, "KV cache: a context of %" PRId64 " positions is not possible", o->n_ctx);
    return 0;
}

/* Pages that sequences of n_ctx positions in all need, each with one that is not full. */
static int64_t full_pages(const struct cache *c)
{
    return (c->n_ctx + (KV_PAGE - 1 + c->n_virtual) * c->n_seqs) / KV_PAGE;
}

/* What one sequence holds at most while a slice is evaluated: the window before its first token, and it. */
static int64_t windowed_pages(const struct cache *c)
{
    int64_t most = pages_for(c->window + c->max_batch) + 1;
    return most < c->pages_per_seq ? most : c->pages_per_seq;
}

static void pool_size(struct pool *p, const struct kv_layout *l, int64_t n_pages)
{
    p->n_pages = (int32_t)n_pages;
    p->k_bytes = (size_t)p->n_layers * (size_t)n_pages * (size_t)l->k_page_bytes;
    p->v_bytes = (size_t)p->n_layers * (size_t)n_pages * (size_t)l->v_page_bytes;
}

static int pool_alloc(struct cache *c, int index)
{
    struct pool *p = &c->pool[index];
    size_t entries = (size_t)c->n_seqs * (size_t)c->pages_per_seq;
    p->refs = calloc((size_t)p->n_pages, sizeof *p->refs);
    p->free_pages = calloc((size_t)p->n_pages, sizeof *p->free_pages);
    p->tables = calloc(entries, sizeof *p->tables);
    p->k = c->ops->alloc(p->k_bytes);
    p->v = c->ops->alloc(p->v_bytes);
    if (!p->refs || !p->free_pages || !p->tables || !p->k || !p->v)
        return -1;
    /* Low numbers are used first, so that memory never touched stays untouched. */
    for (int32_t i = p->n_pages; i-- > 0;)
        p->free_pages[p->n_free++] = i;
    memset(p->tables, 0xff, entries * sizeof *p->tables);
    for (int s = 0; s < c->n_seqs; s++)
        c->seq[s].table[index].pages = p->tables + (int64_t)s * c->pages_per_seq;
    return 0;
}

static void sort_layers(struct cache *c, const struct config *config)
{
    c->window = config->sliding_window && config->sliding_window < c->n_ctx ? config->sliding_window : 0;
    for (int l = 0; l < config->n_layers; l++) {
        int p = c->window && config->windowed[l] ? POOL_WINDOWED : POOL_FULL;
        c->layer_pool[l] = (int16_t)p;
        c->layer_in_pool[l] = (int16_t)c->pool[p].n_layers++;
    }
}

/* Everything but the memory. */
static int set_sizes(struct cache *c, const struct model *m, const struct cache_options *opt, char *err,
                     size_t errlen)
{
    const struct config *config = &m->config;
    *c = (struct cache){.model = m, .ops = m->ops};
    int rc = kv_layout_init(&c->layout, opt->type_k, opt->type_v, config->n_kv_heads, config->head_dim);
    if (check_options(&c->layout, rc, config, opt, err, errlen))
        return -1;
    c->n_seqs = opt->n_seqs;
    c->n_ctx = opt->n_ctx;
    c->n_virtual = config->n_virtual;
    c->max_batch = opt->max_batch > 0 && opt->max_batch < opt->n_ctx ? opt->max_batch : opt->n_ctx;
    c->pages_per_seq = pages_for(c->n_ctx + c->n_virtual);
    sort_layers(c, config);
    pool_size(&c->pool[POOL_FULL], &c->layout, full_pages(c));
    pool_size(&c->pool[POOL_WINDOWED], &c->layout, windowed_pages(c) * c->n_seqs);
    return 0;
}

int cache_plan(uint64_t *bytes, const struct model *m, const struct cache_options *opt, char *err,
               size_t errlen)
{
    struct cache c;
    if (set_sizes(&c, m, opt, err, errlen))
        return -1;
    *bytes = cache_bytes(&c);
    return 0;
}

int cache_new(struct cache **out, const struct model *m, const struct cache_options *opt, char *err,
              size_t errlen)
{
    *out = NULL;
    struct cache *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, errlen, "KV cache: out of memory");
    if (set_sizes(c, m, opt, err, errlen)) {
        free(c);
        return -1;
    }
    const int64_t biggest =
        c->layout.k_page_bytes > c->layout.v_page_bytes ? c->layout.k_page_bytes : c->layout.v_page_bytes;
    c->seq = calloc((size_t)c->n_seqs, sizeof *c->seq);
    c->bounce = malloc((size_t)biggest);
    int failed = !c->seq || !c->bounce;
    for (int i = 0; i < N_POOLS && !failed; i++)
        failed = c->pool[i].n_layers && pool_alloc(c, i);
    if (failed) {
        (void)err_set(err, errlen,
                      "KV cache: not enough memory for %" PRIu64 " bytes (%" PRId64 " positions)",
                      cache_bytes(c), c->n_ctx);
        cache_free(c);
        return -1;
    }
    *out = c;
    return 0;
}

void cache_free(struct cache *c)
{
    if (!c)
        return;
    for (int i = 0; i < N_POOLS; i++) {
        struct pool *p = &c->pool[i];
        if (p->k)
            c->ops->release(p->k, p->k_bytes);
        if (p->v)
            c->ops->release(p->v, p->v_bytes);
        free(p->tables);
        free(p->free_pages);
        free(p->refs);
    }
    free(c->bounce);
    free(c->seq);
    free(c);
}

int64_t cache_capacity(const struct cache *c)
{
    return c->n_ctx;
}

int64_t cache_max_batch(const struct cache *c)
{
    return c->max_batch;
}

uint64_t cache_bytes(const struct cache *c)
{
    uint64_t sum = 0;
    for (int i = 0; i < N_POOLS; i++)
        sum += (uint64_t)c->pool[i].k_bytes + c->pool[i].v_bytes;
    return sum;
}

int cache_n_seqs(const struct cache *c)
{
    return c->n_seqs;
}

const struct kv_layout *cache_layout(const struct cache *c)
{
    return &c->layout;
}

const int32_t *cache_pages(const struct cache *c, int seq, bool windowed)
{
    int p = windowed && c->pool[POOL_WINDOWED].n_layers ? POOL_WINDOWED : POOL_FULL;
    return c->seq[seq].table[p].pages;
}

void *cache_k(const struct cache *c, int layer)
{
    const struct pool *p = &c->pool[c->layer_pool[layer]];
    return p->k + (int64_t)c->layer_in_pool[layer] * p->n_pages * c->layout.k_page_bytes;
}

void *cache_v(const struct cache *c, int layer)
{
    const struct pool *p = &c->pool[c->layer_pool[layer]];
    return p->v + (int64_t)c->layer_in_pool[layer] * p->n_pages * c->layout.v_page_bytes;
}

/* ---- Pages -------------------------------------------------------------------------------------- */

/* −1: none is free. */
static int32_t page_take(struct pool *p)
{
    if (p->n_free == 0)
        return -1;
    int32_t page = p->free_pages[--p->n_free];
    p->refs[page] = 1;
    return page;
}

/* The table's entry i is held no more. */
static void page_release(struct pool *p, struct table *t, int64_t i)
{
    int32_t page = t->pages[i];
    t->pages[i] = -1;
    if (--p->refs[page] == 0)
        p->free_pages[p->n_free++] = page;
}

static void page_copy(struct cache *c, struct pool *p, int32_t dst, int32_t src)
{
    size_t k_bytes = (size_t)c->layout.k_page_bytes, v_bytes = (size_t)c->layout.v_page_bytes;
    for (int layer = 0; layer < p->n_layers; layer++) {
        char *k = p->k + (size_t)layer * (size_t)p->n_pages * k_bytes;
        char *v = p->v + (size_t)layer * (size_t)p->n_pages * v_bytes;
        c->ops->download(c->bounce, k + (size_t)src * k_bytes, k_bytes);
        c->ops->upload(k + (size_t)dst * k_bytes, c->bounce, k_bytes);
        c->ops->download(c->bounce, v + (size_t)src * v_bytes, v_bytes);
        c->ops->upload(v + (size_t)dst * v_bytes, c->bounce, v_bytes);
    }
}

/* Positions from … len − 1 of a table become writable. */
static int make_writable(struct cache *c, struct pool *p, struct table *t, int64_t from, int64_t len)
{
    /* Only the page that holds the next position can be both there and shared: those after it are new. */
    int64_t i = from / KV_PAGE;
    if (len > from && i >= t->first && i < t->end && p->refs[t->pages[i]] > 1) {
        int32_t copy = page_take(p);
        if (copy < 0)
            return -1;
        page_copy(c, p, copy, t->pages[i]);
        page_release(p, t, i);
        t->pages[i] = copy;
    }
    for (; t->end < pages_for(len); t->end++) {
        int32_t page = page_take(p);
        if (page < 0)
            return -1;
        t->pages[t->end] = page;
    }
    return 0;
}

static void cut_table(struct pool *p, struct table *t, int64_t len)
{
    while (t->end > pages_for(len) && t->end > t->first)
        page_release(p, t, --t->end);
    if (t->end == t->first && len == 0)
        t->first = t->end = 0;
}

/* ---- Sequences ---------------------------------------------------------------------------------- */

static bool is_seq(const struct cache *c, int seq)
{
    return seq >= 0 && seq < c->n_seqs;
}

/* A length of the interface as positions, and back. */
static int64_t with_virtual(const struct cache *c, int64_t len)
{
    return len > 0 ? len + c->n_virtual : 0;
}

int64_t cache_len(const struct cache *c, int seq)
{
    return is_seq(c, seq) && c->seq[seq].len ? c->seq[seq].len - c->n_virtual : 0;
}

struct text *cache_text(struct cache *c, int seq)
{
    return &c->seq[seq].text;
}

int cache_reserve(struct cache *c, int seq, int64_t len)
{
    struct sequence *s = &c->seq[seq];
    if (len > c->n_ctx)
        return -1;
    if (c->pool[POOL_FULL].n_layers == 0)
        return 0;
    return make_writable(c, &c->pool[POOL_FULL], &s->table[POOL_FULL], s->len, with_virtual(c, len));
}

void cache_slide(struct cache *c, int seq, int64_t from, int64_t len)
{
    struct pool *p = &c->pool[POOL_WINDOWED];
    struct table *t = &c->seq[seq].table[POOL_WINDOWED];
    if (p->n_layers == 0)
        return;
    from = with_virtual(c, from);
    /* Position `from` sees the window that ends with it; what is before is never seen again. A P-Tuning
     * prefix is like any other position here. */
    int64_t seen = from + 1 - c->window;
    for (; t->first < t->end && (t->first + 1) * KV_PAGE <= seen; t->first++)
        page_release(p, t, t->first);
    (void)make_writable(c, p, t, from, with_virtual(c, len));
}

void cache_commit(struct cache *c, int seq, int64_t len)
{
    c->seq[seq].len = with_virtual(c, len);
}

/* Can the sequence go on from this many positions? */
static bool can_cut(const struct cache *c, const struct sequence *s, int64_t len)
{
    if (c->model->config.arch->prefix_lm && len < s->text.prefix + c->n_virtual)
        return false;
    int64_t seen = len + 1 - c->window;
    return c->pool[POOL_WINDOWED].n_layers == 0 ||
           s->table[POOL_WINDOWED].first * KV_PAGE <= (seen > 0 ? seen : 0);
}

int64_t cache_truncate(struct cache *c, int seq, int64_t len)
{
    if (!is_seq(c, seq))
        return 0;
    struct sequence *s = &c->seq[seq];
    int64_t wanted = with_virtual(c, len < 0 ? 0 : len);
    if (wanted > s->len)
        wanted = s->len;
    s->len = can_cut(c, s, wanted) ? wanted : 0;
    if (s->len == 0)
        s->text = (struct text){0};
    for (int i = 0; i < N_POOLS; i++)
        if (c->pool[i].n_layers)
            cut_table(&c->pool[i], &s->table[i], s->len);
    return cache_len(c, seq);
}

int64_t cache_reuse(struct cache *c, int seq, int64_t n_same, int64_t n_total)
{
    const struct rope *r = c->model->rope;
    int64_t len = cache_len(c, seq);
    len = n_same < len ? n_same : len;
    if (len > 0 && rope_depends_on_length(r)) {
        /* A token's frequencies were those of the text it came with, or of the length it made. */
        int64_t key = rope_length_key(r, n_total), began = c->seq[seq].text.rope_len;
        while (len > 0 && rope_length_key(r, began > len ? began : len) != key)
            len--;
    }
    return cache_truncate(c, seq, len);
}

void cache_drop(struct cache *c, int seq)
{
    (void)cache_truncate(c, seq, 0);
}

int cache_copy_prefix(struct cache *c, int dst, int src, int64_t len)
{
    if (!is_seq(c, dst) || !is_seq(c, src) || len < 0 || len > cache_len(c, src))
        return -1;
    const struct sequence *s = &c->seq[src];
    int64_t positions = with_virtual(c, len);
    if (!can_cut(c, s, positions))
        return -1;
    if (dst == src) {
        (void)cache_truncate(c, src, len);
        return 0;
    }
    cache_drop(c, dst);
    struct sequence *d = &c->seq[dst];
    d->len = positions;
    if (positions > 0)
        d->text = s->text;
    for (int i = 0; i < N_POOLS; i++) {
        if (c->pool[i].n_layers == 0)
            continue;
        struct table *to = &d->table[i];
        const struct table *from = &s->table[i];
        to->first = to->end = positions > 0 ? from->first : 0;
        for (; to->end < pages_for(positions); to->end++) {
            int32_t p = from->pages[to->end];
            c->pool[i].refs[p]++;
            to->pages[to->end] = p;
        }
    }
    return 0;
}

/* The KV cache: pages of 64 positions, shared by reference count (as in PagedAttention, Kwon et al. 2023,
 * arXiv:2309.06180). A page number stands for one page of keys and one of values in every layer, so that
 * one table per sequence serves all layers. */
#include "model/cache.h"
#include "model/layers.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdlib.h>

enum { MAX_SEQS = 1 << 16 };

struct sequence {
    int64_t len;
    int32_t n_pages; /* of the table in use: those of len, and more between reserve and commit */
    int32_t *pages;  /* into struct cache's tables */
};

struct cache {
    const struct ops *ops;
    struct kv_layout layout;
    int n_layers, n_seqs;
    int64_t n_ctx;
    int64_t pages_per_seq; /* entries of a table */
    int32_t n_pages, n_free;
    int32_t *free_pages; /* a stack */
    int32_t *refs;       /* how many tables hold a page */
    int32_t *tables;
    struct sequence *seq;
    char *k, *v; /* (n_layers, n_pages) pages: the backend's memory */
    size_t k_bytes, v_bytes;
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
    if (o->n_ctx < 1 || o->n_ctx > limit - (int64_t)KV_PAGE * o->n_seqs)
        return err_set(err, errlen, "KV cache: a context of %" PRId64 " positions is not possible", o->n_ctx);
    return 0;
}

int cache_new(struct cache **out, const struct model *m, const struct cache_options *opt, char *err,
              size_t errlen)
{
    *out = NULL;
    const struct config *config = &m->config;
    struct kv_layout layout;
    int rc = kv_layout_init(&layout, opt->type_k, opt->type_v, config->n_kv_heads, config->head_dim);
    if (check_options(&layout, rc, config, opt, err, errlen))
        return -1;

    struct cache *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, errlen, "KV cache: out of memory");
    c->ops = m->ops;
    c->layout = layout;
    c->n_layers = config->n_layers;
    c->n_seqs = opt->n_seqs;
    c->n_ctx = opt->n_ctx;
    c->pages_per_seq = pages_for(opt->n_ctx);
    /* Sequences of n_ctx positions in all, each with a page that is not full, find room. */
    c->n_pages = (int32_t)((opt->n_ctx + (int64_t)(KV_PAGE - 1) * opt->n_seqs) / KV_PAGE);
    c->k_bytes = (size_t)c->n_layers * (size_t)c->n_pages * (size_t)layout.k_page_bytes;
    c->v_bytes = (size_t)c->n_layers * (size_t)c->n_pages * (size_t)layout.v_page_bytes;
    c->refs = calloc((size_t)c->n_pages, sizeof *c->refs);
    c->free_pages = calloc((size_t)c->n_pages, sizeof *c->free_pages);
    c->seq = calloc((size_t)c->n_seqs, sizeof *c->seq);
    c->tables = calloc((size_t)c->n_seqs * (size_t)c->pages_per_seq, sizeof *c->tables);
    c->bounce = malloc(
        (size_t)(layout.k_page_bytes > layout.v_page_bytes ? layout.k_page_bytes : layout.v_page_bytes));
    c->k = c->ops->alloc(c->k_bytes);
    c->v = c->ops->alloc(c->v_bytes);
    if (!c->refs || !c->free_pages || !c->seq || !c->tables || !c->bounce || !c->k || !c->v) {
        (void)err_set(err, errlen,
                      "KV cache: not enough memory for %" PRIu64 " bytes (%" PRId64 " positions)",
                      (uint64_t)c->k_bytes + c->v_bytes, c->n_ctx);
        cache_free(c);
        return -1;
    }
    /* Low numbers are used first, so that memory never touched stays untouched. */
    for (int32_t p = c->n_pages; p-- > 0;)
        c->free_pages[c->n_free++] = p;
    for (int s = 0; s < c->n_seqs; s++)
        c->seq[s].pages = c->tables + (int64_t)s * c->pages_per_seq;
    *out = c;
    return 0;
}

void cache_free(struct cache *c)
{
    if (!c)
        return;
    if (c->k)
        c->ops->release(c->k, c->k_bytes);
    if (c->v)
        c->ops->release(c->v, c->v_bytes);
    free(c->bounce);
    free(c->tables);
    free(c->seq);
    free(c->free_pages);
    free(c->refs);
    free(c);
}

int64_t cache_capacity(const struct cache *c)
{
    return c->n_ctx;
}

uint64_t cache_bytes(const struct cache *c)
{
    return (uint64_t)c->k_bytes + c->v_bytes;
}

int cache_n_seqs(const struct cache *c)
{
    return c->n_seqs;
}

const struct kv_layout *cache_layout(const struct cache *c)
{
    return &c->layout;
}

const int32_t *cache_pages(const struct cache *c, int seq)
{
    return c->seq[seq].pages;
}

void *cache_k(const struct cache *c, int layer)
{
    return c->k + (int64_t)layer * c->n_pages * c->layout.k_page_bytes;
}

void *cache_v(const struct cache *c, int layer)
{
    return c->v + (int64_t)layer * c->n_pages * c->layout.v_page_bytes;
}

/* ---- Pages -------------------------------------------------------------------------------------- */

/* −1: none is free. */
static int32_t page_take(struct cache *c)
{
    if (c->n_free == 0)
        return -1;
    int32_t p = c->free_pages[--c->n_free];
    c->refs[p] = 1;
    return p;
}

static void page_release(struct cache *c, int32_t p)
{
    if (--c->refs[p] == 0)
        c->free_pages[c->n_free++] = p;
}

static void page_copy(struct cache *c, int32_t dst, int32_t src)
{
    size_t k_bytes = (size_t)c->layout.k_page_bytes, v_bytes = (size_t)c->layout.v_page_bytes;
    for (int layer = 0; layer < c->n_layers; layer++) {
        char *k = cache_k(c, layer), *v = cache_v(c, layer);
        c->ops->download(c->bounce, k + (size_t)src * k_bytes, k_bytes);
        c->ops->upload(k + (size_t)dst * k_bytes, c->bounce, k_bytes);
        c->ops->download(c->bounce, v + (size_t)src * v_bytes, v_bytes);
        c->ops->upload(v + (size_t)dst * v_bytes, c->bounce, v_bytes);
    }
}

/* ---- Sequences ---------------------------------------------------------------------------------- */

static bool is_seq(const struct cache *c, int seq)
{
    return seq >= 0 && seq < c->n_seqs;
}

int64_t cache_len(const struct cache *c, int seq)
{
    return is_seq(c, seq) ? c->seq[seq].len : 0;
}

int cache_reserve(struct cache *c, int seq, int64_t len)
{
    struct sequence *s = &c->seq[seq];
    if (len > c->n_ctx)
        return -1;
    /* Only the page that holds the next position can be both there and shared: those after it are new. */
    int64_t first = s->len / KV_PAGE;
    if (len > s->len && first < s->n_pages && c->refs[s->pages[first]] > 1) {
        int32_t copy = page_take(c);
        if (copy < 0)
            return -1;
        page_copy(c, copy, s->pages[first]);
        page_release(c, s->pages[first]);
        s->pages[first] = copy;
    }
    while (s->n_pages < pages_for(len)) {
        int32_t p = page_take(c);
        if (p < 0)
            return -1;
        s->pages[s->n_pages++] = p;
    }
    return 0;
}

void cache_commit(struct cache *c, int seq, int64_t len)
{
    c->seq[seq].len = len;
}

void cache_truncate(struct cache *c, int seq, int64_t len)
{
    if (!is_seq(c, seq))
        return;
    struct sequence *s = &c->seq[seq];
    if (len < 0)
        len = 0;
    if (len < s->len)
        s->len = len;
    while (s->n_pages > pages_for(s->len))
        page_release(c, s->pages[--s->n_pages]);
}

void cache_drop(struct cache *c, int seq)
{
    cache_truncate(c, seq, 0);
}

int cache_copy_prefix(struct cache *c, int dst, int src, int64_t len)
{
    if (!is_seq(c, dst) || !is_seq(c, src) || len < 0 || len > c->seq[src].len)
        return -1;
    if (dst == src) {
        cache_truncate(c, src, len);
        return 0;
    }
    cache_drop(c, dst);
    struct sequence *d = &c->seq[dst];
    const struct sequence *s = &c->seq[src];
    d->len = len;
    for (; d->n_pages < pages_for(len); d->n_pages++) {
        int32_t p = s->pages[d->n_pages];
        c->refs[p]++;
        d->pages[d->n_pages] = p;
    }
    return 0;
}

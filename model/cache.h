/* The inside of struct cache that the forward pass uses. */
#ifndef QUOLL_CACHE_H
#define QUOLL_CACHE_H

#include "model/model.h"

/* What cache_new would allocate for pages; m: config and ops are enough. */
int cache_plan(uint64_t *bytes, const struct model *m, const struct cache_options *opt, char *err,
               size_t errlen);

int cache_n_seqs(const struct cache *c);
int64_t cache_max_batch(const struct cache *c);
const struct kv_layout *cache_layout(const struct cache *c);

/* What a sequence's text decided when it began: context.c sets it, it lives as long as position 0. */
struct text {
    int64_t rope_len; /* length that RoPE's frequencies are for, where they depend on it */
    int64_t prefix;   /* prefix LM: positions that see each other in both directions, those before BOS */
    int64_t mask;     /* prefix LM: the position that all tokens from BOS on have */
    bool has_bos;     /* prefix LM: BOS was there */
};
struct text *cache_text(struct cache *c, int seq);

/* Makes positions up to len writable from the sequence's length on, in the layers that keep everything:
 * pages are there, and no other sequence holds those that will be written. −1: no free page; cache_truncate
 * to the old length gives back what was taken. */
int cache_reserve(struct cache *c, int seq, int64_t len);
/* The same for windowed layers, a slice at a time: positions from … len − 1, at most max_batch, will be
 * written; pages that nothing sees from `from` on are given back. Cannot fail. */
void cache_slide(struct cache *c, int seq, int64_t from, int64_t len);
/* Reserved positions below len hold keys and values now. */
void cache_commit(struct cache *c, int seq, int64_t len);

/* A sequence's page table in layers with (without) a window; stays where it is for the cache's life. A page
 * that the window has left is −1. */
const int32_t *cache_pages(const struct cache *c, int seq, bool windowed);
/* A layer's pages: page number p is at p · k_page_bytes (v_page_bytes) from here. */
void *cache_k(const struct cache *c, int layer);
void *cache_v(const struct cache *c, int layer);

#endif

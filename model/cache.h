/* The inside of struct cache that the forward pass uses. */
#ifndef QUOLL_CACHE_H
#define QUOLL_CACHE_H

#include "model/model.h"

int cache_n_seqs(const struct cache *c);
const struct kv_layout *cache_layout(const struct cache *c);

/* Makes positions up to len writable from the sequence's length on: pages are there, and no other
 * sequence holds those that will be written. −1: no free page; cache_truncate to the old length gives
 * back what was taken. */
int cache_reserve(struct cache *c, int seq, int64_t len);
/* Reserved positions below len hold keys and values now. */
void cache_commit(struct cache *c, int seq, int64_t len);

/* The sequence's page table; stays where it is for the cache's life. */
const int32_t *cache_pages(const struct cache *c, int seq);
/* A layer's pages: page number p is at p · k_page_bytes (v_page_bytes) from here. */
void *cache_k(const struct cache *c, int layer);
void *cache_v(const struct cache *c, int layer);

#endif

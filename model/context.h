/* What a slice of a batch is evaluated in: context.c makes it and cuts batches into slices, forward.c
 * evaluates one. */
#ifndef QUOLL_CONTEXT_H
#define QUOLL_CONTEXT_H

#include "model/cache.h"
#include "model/layers.h"

enum { LOGIT_ROWS = 64 }; /* rows of logits in the backend's memory at once */

struct context {
    const struct model *model;
    struct cache *cache;
    struct context_options opt; /* max_batch: no more than the cache holds */
    struct team *team;

    /* Host memory, one element per token of a slice. */
    struct kv_slot *slot;
    int64_t *pos;
    int32_t *want;  /* indices of the tokens whose logits are wanted */
    int64_t *len;   /* (n_seqs): length of each sequence with what the batch has appended so far */
    int64_t *start; /* (n_seqs): its length before the batch */
    float *logits;  /* (logits_rows, vocab_size): what callers get */
    int64_t logits_rows;

    /* Backend memory: one arena, rows of up to max_batch tokens. */
    void *arena;
    size_t arena_bytes;
    float *x;                 /* (dim): the residual stream */
    float *normed;            /* (dim) */
    float *q, *k, *v, *mixed; /* q and the attention's result (n_heads · head_dim) … */
    float *gate, *up;         /* … in the same place as (ffn_dim): never alive together */
    float *rope;              /* (rotary_dim / 2, 2) */
    float *last, *chunk;      /* LOGIT_ROWS of (dim) and of (vocab_size) */
    void *linear_scratch, *attention_scratch;
    size_t attention_scratch_bytes;

    /* Of the slice being evaluated. */
    const int32_t *id;
    int n, n_want;
    float *rows; /* where its logits go */
    struct {
        const char *op; /* NULL: all finite so far */
        int layer;      /* −1: none */
    } fault;
};

/* The forward pass over the slice in arg, a struct context; every thread of a team calls it. */
void forward(struct worker *w, void *arg);

#endif

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
    int64_t max_len; /* of a sequence: the cache's capacity */
    int64_t *len;    /* (n_seqs): length of each sequence with what the batch has appended so far */
    int64_t *start;  /* (n_seqs): its length before the batch */
    float *logits;   /* (logits_rows, vocab_size): what callers get */
    int64_t logits_rows;

    /* Host memory for a slice of up to `capacity` tokens: max_batch, or a prefix that cannot be cut. */
    int capacity;
    struct kv_slot *slot, *slot_windowed; /* what tokens see in layers without (with) a window */
    int64_t *pos;                         /* (n_sections, tokens of the slice): RoPE's positions */
    int32_t *freq_row;                    /* (n): row of inv_freq */
    double *inv_freq;                     /* (n, n_freqs): of RoPE whose frequencies depend on the length */
    int64_t rope_key;                     /* of the row written last */
    int32_t *want;                        /* indices of the tokens whose logits are wanted */

    /* Backend memory: one arena, rows of up to `capacity` tokens. */
    void *arena;
    size_t arena_bytes;
    float *x;                           /* (dim): the residual stream */
    float *normed;                      /* (dim) */
    float *q, *k, *v, *mixed;           /* q and the attention's result (n_heads · head_dim) … */
    float *gate, *up;                   /* … in the same place as (ffn_dim, of experts n_used of them) */
    float *expert_in, *expert_out;      /* (n_used, dim) */
    float *route_logits, *route_weight; /* (n_experts), (n_used) */
    int32_t *route_first;               /* (n_experts + 1), once */
    int32_t *route_host;                /* the host's copy, where the backend's memory is not the host's */
    int32_t *route_token, *route_row, *route_scratch; /* (n_used) */
    float *lora;                                      /* a x of an adapter (rank) */
    float *ordered;                                   /* the input of an act-order product, in its order */
    float *rope, *rope_windowed;                      /* (rotary_dim / 2, 2) */
    float *last, *chunk;                              /* LOGIT_ROWS of (dim) and of (vocab_size) */
    void *linear_scratch, *attention_scratch;
    size_t attention_scratch_bytes;

    const struct batch *batch; /* being evaluated */

    /* Of the slice being evaluated. */
    const int32_t *id;
    int n, n_want;
    int prefix_at;        /* forward_prefix: its first position */
    float *rows;          /* where its logits go */
    int64_t row0;         /* wanted rows of the slices before it */
    const float *rows_in; /* struct batch's, of this slice */
    float *rows_out;
    struct {
        const char *op; /* NULL: all finite so far */
        int layer;      /* −1: none */
    } fault;
};

/* Bytes of activations and scratch that context_new would allocate; m: config, ops and whether it has
 * rope_windowed and orders are enough. */
uint64_t context_plan(const struct model *m, const struct context_options *opt, int64_t max_len);

/* The forward pass over the slice in arg, a struct context; every thread of a team calls it. */
void forward(struct worker *w, void *arg);
/* Stores positions prefix_at … prefix_at + n − 1 of the P-Tuning prefix where slot says; likewise. */
void forward_prefix(struct worker *w, void *arg);

#endif

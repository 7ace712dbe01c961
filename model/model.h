/* model/: what the forward pass is. It speaks token ids, never text. */
#ifndef QUOLL_MODEL_H
#define QUOLL_MODEL_H

#include "kernels/kernels.h"
#include "weights/weights.h"

/* ---- Hyper-parameters ------------------------------------------------------------------------ */

enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_DYNAMIC, ROPE_SCALING_YARN };

struct config {
    const struct arch *arch; /* model/arch.h: the row of the architecture table */
    int dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size;
    int max_seq_len;    /* the context length the model was trained for */
    int sliding_window; /* 0: none. Positions past it are refused: within it a window changes nothing */
    int rotary_dim;
    enum rope_pairing rope_pairing;
    double rope_theta;
    enum rope_scaling rope_scaling; /* NONE or LINEAR */
    double rope_factor;             /* LINEAR: positions are divided by it; else 1 */
    float norm_eps;
    bool tied_embeddings; /* the file has no output matrix of its own */
};

/* ---- Model: the description and its packed weights, immutable, shared ------------------------- */

struct model;

struct model_options {
    const struct ops *ops;
    int n_threads;  /* for packing */
    bool no_repack; /* compute from the file's layout (slow, the same bits): the weights must stay open */
    double rope_freq_base; /* 0: the model's own */
    double rope_scale;     /* 0: the model's own; 2: positions at half speed */
    int rope_scaling; /* enum rope_scaling, −1: the model's own (LINEAR when only rope_scale is given) */
};

/* Binds every tensor of w to its role, checks shapes, packs. A tensor that nothing binds, a missing one,
 * or a shape that the hyper-parameters do not imply is an error naming it. w may be closed afterwards
 * unless no_repack. Source pages are dropped from memory as they are packed. */
int model_load(struct model **out, struct weights *w, const struct model_options *opt, char *err,
               size_t errlen);
void model_free(struct model *m); /* NULL is fine */
const struct config *model_config(const struct model *m);
/* Reads and checks the hyper-parameters alone (for `inspect` and plans): every one is in a range where no
 * product of two of them overflows, whatever the file says. */
int config_read(struct config *c, const struct weights *w, char *err, size_t errlen);

struct model_memory {
    uint64_t weight_bytes; /* as held in memory: packed */
    uint64_t token_bytes;  /* weights read per generated token, as the file's types have them */
    uint64_t n_params;
};
void model_memory(const struct model *m, struct model_memory *mem);

/* ---- KV cache: sequences × positions --------------------------------------------------------- */

/* Keys and values in pages of KV_PAGE positions. Sequences share pages; a page that two of them hold is
 * copied before one writes to it. Used by one host thread at a time. */
struct cache;

struct cache_options {
    int64_t n_ctx; /* positions in all sequences together, and at most in one */
    int n_seqs;    /* sequences 0 … n_seqs − 1 */
    enum qtype type_k, type_v;
};

int cache_new(struct cache **out, const struct model *m, const struct cache_options *opt, char *err,
              size_t errlen);
void cache_free(struct cache *c);                  /* NULL is fine */
int64_t cache_len(const struct cache *c, int seq); /* positions the sequence holds */
int64_t cache_capacity(const struct cache *c);     /* n_ctx */
uint64_t cache_bytes(const struct cache *c);       /* of all pages; they take memory when first used */
void cache_truncate(struct cache *c, int seq, int64_t len); /* forgets positions from len on */
void cache_drop(struct cache *c, int seq);
/* dst becomes the first len positions of src. Pages are shared, so this copies nothing and needs no free
 * page; the first of the two to append to a page that both hold gets its own. −1: no such sequence, or
 * src is shorter than len. */
int cache_copy_prefix(struct cache *c, int dst, int src, int64_t len);

/* ---- Forward pass ---------------------------------------------------------------------------- */

/* The only way in. Positions of a sequence must continue it: pos = cache_len(seq), +1, … in order. */
struct batch {
    int n;
    const int32_t *id;
    const int32_t *seq;         /* NULL: all sequence 0 */
    const int64_t *pos;         /* NULL: continue each sequence */
    const uint8_t *want_logits; /* NULL: the last token only */
};

/* What one caller needs to run a model: threads and scratch for up to max_batch tokens at once. */
struct context;

struct context_options {
    int n_threads;       /* for one token at a time */
    int n_threads_batch; /* for more than one */
    int max_batch;       /* tokens per slice: larger batches are cut, with the same result */
    enum compute compute;
    bool check_finite; /* stop at the first NaN or Inf and name layer and operator */
};

int context_new(struct context **out, const struct model *m, struct cache *c,
                const struct context_options *opt, char *err, size_t errlen);
void context_free(struct context *x);            /* NULL is fine; the model and the cache outlive it */
uint64_t context_bytes(const struct context *x); /* scratch */

/* Evaluates a batch; appends its tokens to the cache. logits (lent until the next call, may be NULL): one
 * row of vocab_size floats for each wanted token, in the batch's order. The rows' buffer grows when a
 * batch wants more of them than any before; one row is there from the start, so generation allocates
 * nothing. −1: an empty batch, an id out of range, positions that do not continue their sequence, no room
 * in the cache, a value that is not finite (check_finite): nothing was appended. */
int context_eval(struct context *x, const struct batch *b, const float **logits, char *err, size_t errlen);

#endif

/* model/: what the forward pass is. It speaks token ids, never text. */
#ifndef QUOLL_MODEL_H
#define QUOLL_MODEL_H

#include "kernels/kernels.h"
#include "weights/weights.h"

/* ---- Hyper-parameters ------------------------------------------------------------------------ */

enum rope_scaling {
    ROPE_SCALING_NONE,
    ROPE_SCALING_LINEAR,   /* position interpolation: positions divided by the factor */
    ROPE_SCALING_DYNAMIC,  /* NTK: the base grows with the text's length past the original one */
    ROPE_SCALING_YARN,     /* arXiv:2309.00071 */
    ROPE_SCALING_LLAMA3,   /* Llama 3.1: long wavelengths slowed down */
    ROPE_SCALING_LONGROPE, /* arXiv:2402.13753: a divisor per frequency, one set for short and one for long
                              texts */
    N_ROPE_SCALINGS
};
const char *rope_scaling_name(enum rope_scaling s);

/* What rotates queries and keys. */
struct rope_config {
    double theta;
    enum rope_scaling scaling;
    double factor;           /* 1 without scaling */
    int original_len;        /* DYNAMIC … LONGROPE: positions the model was trained for before scaling */
    double attention_factor; /* YARN, LONGROPE: multiplies cos and sin; else 1 */
    double beta_fast, beta_slow; /* YARN */
    double low_freq, high_freq;  /* LLAMA3 */
};

enum { MAX_LAYERS = 1024 };

struct config {
    const struct arch *arch; /* model/arch.h: the row of the architecture table */
    int dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size;
    int max_seq_len; /* the context length the model was trained for */
    float norm_eps;
    enum act act;
    bool tied_embeddings; /* the file has no output matrix of its own */

    int n_experts, n_experts_used, expert_ffn_dim; /* 0: dense */
    bool normalise_experts;                        /* the chosen experts' weights are divided by their sum */

    int sliding_window; /* windowed layers see the last so many positions, their own included; 0: none */
    bool windowed[MAX_LAYERS];

    int rotary_dim;
    struct rope_config rope;
    double rope_theta_windowed; /* base of the windowed layers, which have no scaling; 0: as the others */

    float attention_scale;                  /* of the scores: 1/sqrt(head_dim) as a rule */
    float attention_softcap, logit_softcap; /* cap · tanh(x / cap); 0: none */
    float embedding_scale;                  /* 1 as a rule */
    float residual_scale;                   /* arch->normed_residual: of the norm's result that is added */

    int32_t bos_id, gmask_id, mask_id; /* arch->prefix_lm: where the prefix ends and what counts positions */
    int n_virtual;                     /* positions of a P-Tuning v2 prefix in front of every sequence */
};

/* ---- Model: the description and its packed weights, immutable, shared ------------------------- */

struct model;

struct lora_option {
    const char *path; /* a PEFT adapter's folder, or a P-Tuning v2 checkpoint's */
    float scale;
};

struct model_options {
    const struct ops *ops;
    int n_threads;  /* for packing */
    bool no_repack; /* compute from the file's layout (slow, the same bits): the weights must stay open */
    double rope_freq_base; /* 0: the model's own */
    double rope_scale;     /* 0: the model's own; 2: positions at half speed */
    int rope_scaling; /* enum rope_scaling, −1: the model's own (LINEAR when only rope_scale is given) */
    const struct lora_option *lora; /* adapters, applied to every product */
    size_t n_lora;
    int quantize; /* float matrices are quantised to this enum qtype while loading; 0 (F32): kept */
    /* Only layers first_layer … first_layer + n_layers − 1 are packed, and the embedding with layer 0: a
     * model of which batches go through these alone (struct batch's rows_in, rows_out). n_layers 0: all of
     * it. */
    int first_layer, n_layers;

    const char *pack_cache;   /* folder where packed weights are kept (model/pack_cache.h); NULL: nowhere */
    const char *pack_version; /* with pack_cache: what is part of the files' fingerprint */
    /* Is told one line of what became of the pack cache, `important` where it is of no use; NULL: nobody. */
    void (*note)(bool important, const char *line);
    bool (*stop)(void); /* asked while the pack cache is written: true gives that up; NULL: never */
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

/* Must a prompt be evaluated in one batch? See context_eval. */
bool model_needs_whole_prompt(const struct model *m);

struct model_memory {
    uint64_t weight_bytes; /* as held in memory: packed */
    uint64_t token_bytes;  /* weights read per generated token, as the file's types have them */
    uint64_t n_params;
    uint64_t token_macs; /* multiply-adds of a prompt's token with the layers' matrices */
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
    int max_batch; /* slices of contexts over this cache have at most so many tokens; 0: n_ctx. Layers with a
                    * sliding window hold window + max_batch positions of a sequence, no more */
};

int cache_new(struct cache **out, const struct model *m, const struct cache_options *opt, char *err,
              size_t errlen);
void cache_free(struct cache *c);                  /* NULL is fine */
int64_t cache_len(const struct cache *c, int seq); /* positions the sequence holds */
int64_t cache_capacity(const struct cache *c);     /* n_ctx */
uint64_t cache_bytes(const struct cache *c);       /* of all pages; they take memory when first used */
/* Forgets positions from len on; returns the length that is left. It is 0, not len, where layers with a
 * sliding window no longer hold what position len would see, or a prefix-LM's prefix would be cut: the
 * caller feeds the text again from there. */
int64_t cache_truncate(struct cache *c, int seq, int64_t len);
/* Before a text of n_total tokens of which the first n_same are those that the sequence holds: truncates to
 * what can be reused with the same result as from scratch, and returns its length. */
int64_t cache_reuse(struct cache *c, int seq, int64_t n_same, int64_t n_total);
void cache_drop(struct cache *c, int seq);
/* dst becomes the first len positions of src. Pages are shared, so this copies nothing and needs no free
 * page; the first of the two to append to a page that both hold gets its own. −1: no such sequence, src is
 * shorter than len, or cache_truncate could not cut it there. */
int cache_copy_prefix(struct cache *c, int dst, int src, int64_t len);

/* ---- Forward pass ---------------------------------------------------------------------------- */

struct observation; /* model/observe.h */

/* The only way in. Positions of a sequence must continue it: pos = cache_len(seq), +1, … in order. */
struct batch {
    int n;
    const int32_t *id;
    const int32_t *seq;         /* NULL: all sequence 0 */
    const int64_t *pos;         /* NULL: continue each sequence */
    const uint8_t *want_logits; /* NULL: the last token only */
    bool (*stop)(void);         /* asked between slices: true ends the evaluation; NULL: never */
    /* Not NULL: is given each wanted row of logits where it is made, instead of a buffer of all of them:
     * row i of those wanted, from 0 on, lent during the call. Several threads call it at once, each for
     * other rows, in any order; thread: 0 … the context's larger number of threads − 1. */
    void (*take)(void *arg, int thread, int64_t i, const float *row);
    void *take_arg;
    /* Not NULL: sees what matrices multiply with. All threads call it with the same arguments, as an
     * operator: it shares the work out, and the rows stay until all have returned. */
    void (*observe)(void *arg, struct worker *w, const struct observation *o);
    void *observe_arg;
    /* (n, dim): what comes into the first layer in place of the ids' embeddings, NULL: those; and where what
     * leaves the last layer goes, in place of logits, NULL: logits are computed. */
    const float *rows_in;
    float *rows_out;
};

enum { CONTEXT_STOPPED = 1 };

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
 * row of vocab_size floats for each wanted token, in the batch's order; NULL with b->take. The rows' buffer
 * grows when a batch wants more of them than any before; one row is there from the start, so generation
 * allocates nothing. −1: an empty batch, an id out of range, positions that do not continue their sequence,
 * no room in the cache, a value that is not finite (check_finite). CONTEXT_STOPPED: b->stop said so. Nothing
 * was appended then; but a sequence whose layers with a sliding window have moved on is empty.
 *
 * A text whose RoPE depends on its length (dynamic, longrope), or with a prefix that sees itself in both
 * directions (ChatGLM-6B), begins with one batch that holds all of its prompt. */
int context_eval(struct context *x, const struct batch *b, const float **logits, char *err, size_t errlen);

/* ---- Plans ----------------------------------------------------------------------------------- */

struct model_plan {
    uint64_t weight_bytes;  /* packed */
    uint64_t kv_bytes;      /* of all pages */
    uint64_t scratch_bytes; /* activations */
};
/* What model_load, cache_new and context_new would allocate for the file, without doing it. */
int model_plan(struct model_plan *p, const struct weights *w, const struct model_options *mo,
               const struct cache_options *co, const struct context_options *xo, char *err, size_t errlen);

#endif

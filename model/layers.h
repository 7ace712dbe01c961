/* The inside of struct model: load.c fills it, cache.c and forward.c read it. */
#ifndef QUOLL_LAYERS_H
#define QUOLL_LAYERS_H

#include "model/naming.h"

/* A weight matrix and what belongs to its product. */
struct matrix {
    struct packed packed;         /* no data: the model has no such matrix */
    float *bias;                  /* (rows), NULL: none */
    struct packed lora_a, lora_b; /* (rank, cols), (rows, rank): b (a x) is added; no data: nothing */
    const int32_t *order;    /* (cols) GPTQ act-order: its input is x[order[0]], x[order[1]], …; NULL: x.
                              * Matrices of one layer with equal orders share the pointer */
    struct packed_list next; /* what comes after the product that this matrix ends */
    enum role role;          /* what it is, of which layer (−1: none), of which expert (−1: none) */
    int layer, expert;
};

/* The weights of one layer, named as in GGUF. What the architecture does not have is NULL. */
struct layer {
    float *attn_norm, *attn_norm_bias;  /* (dim) */
    struct matrix attn_q;               /* (n_heads · head_dim, dim) */
    struct matrix attn_k, attn_v;       /* (n_kv_heads · head_dim, dim) */
    struct matrix attn_output;          /* (dim, n_heads · head_dim) */
    float *attn_q_norm, *attn_k_norm;   /* (head_dim): of every head */
    float *post_attn_norm;              /* (dim): of what attention adds to the residual stream */
    float *ffn_norm, *ffn_norm_bias;    /* (dim) */
    struct matrix ffn_gate, ffn_up;     /* (ffn_dim, dim) */
    struct matrix ffn_down;             /* (dim, ffn_dim) */
    float *post_ffn_norm;               /* (dim) */
    struct matrix router;               /* (n_experts, dim) */
    struct matrix *gate_exps, *up_exps; /* (n_experts) of (expert_ffn_dim, dim) */
    struct matrix *down_exps;           /* (n_experts) of (dim, expert_ffn_dim) */
};

struct model {
    struct config config;
    const struct ops *ops;
    struct matrix token_embd; /* (vocab_size, dim) */
    struct matrix own_output; /* (vocab_size, dim); no data when tied */
    const struct matrix *output;
    float *output_norm, *output_norm_bias; /* (dim) */
    float *rope_freqs;                     /* (rotary_dim / 2): divisors of the frequencies */
    float *rope_long, *rope_short;         /* (rotary_dim / 2): longrope's */
    float *prefix; /* (n_layers, 2, n_virtual, n_kv_heads · head_dim): keys, values */
    struct layer *layers;
    struct matrix *experts; /* all layers' */
    void *image;            /* what all packed data point into (image.h), but the adapters' */
    size_t image_bytes;
    bool image_is_mapped; /* a file of the pack cache */
    void *vectors;        /* what all float pointers above point into: backend memory */
    size_t vectors_bytes;
    float *own_prefix; /* where prefix came with an adapter */
    size_t own_prefix_bytes;
    int32_t *orders; /* what all order pointers point into: backend memory */
    size_t orders_bytes;
    int lora_rank;              /* the largest; 0: no adapters */
    struct rope *rope;          /* rope.h */
    struct rope *rope_windowed; /* of windowed layers; NULL: the same */
    struct model_memory memory;
};

/* Gives a matrix of m other weights: its rows in the file layout of type t. −1: out of memory; it is as it
 * was then. */
int matrix_replace(const struct model *m, struct matrix *x, enum qtype t, const void *rows);

#endif

/* The inside of struct model: load.c fills it, cache.c and forward.c read it. */
#ifndef QUOLL_LAYERS_H
#define QUOLL_LAYERS_H

#include "model/model.h"

/* The weights of one layer, named as in GGUF. Biases are NULL where the model has none. */
struct layer {
    float *attn_norm;             /* (dim) */
    struct packed attn_q;         /* (n_heads · head_dim, dim) */
    struct packed attn_k, attn_v; /* (n_kv_heads · head_dim, dim) */
    struct packed attn_output;    /* (dim, n_heads · head_dim) */
    float *attn_q_bias, *attn_k_bias, *attn_v_bias, *attn_output_bias;
    float *ffn_norm;                /* (dim) */
    struct packed ffn_gate, ffn_up; /* (ffn_dim, dim) */
    struct packed ffn_down;         /* (dim, ffn_dim) */
    float *ffn_gate_bias, *ffn_up_bias, *ffn_down_bias;
};

struct model {
    struct config config;
    const struct ops *ops;
    struct packed token_embd; /* (vocab_size, dim) */
    struct packed own_output; /* (vocab_size, dim); no data when tied */
    const struct packed *output;
    float *output_norm; /* (dim) */
    float *rope_freqs;  /* (rotary_dim / 2), NULL: none */
    struct layer *layers;
    void *vectors; /* what all float pointers above point into: backend memory */
    size_t vectors_bytes;
    double *inv_freq; /* (rotary_dim / 2), host memory */
    double rope_attention_factor;
    struct model_memory memory;
};

/* rope.c: angle of pair i at position p is p · inv_freq[i]; cos and sin are multiplied by the attention
 * factor. divisors (rotary_dim / 2): the rope_freqs tensor, NULL: none. This is the one place where
 * scalings of RoPE are made. −1: a divisor that is not a positive number. */
int rope_frequencies(double *inv_freq, double *attention_factor, const struct config *c,
                     const float *divisors, char *err, size_t errlen);

#endif

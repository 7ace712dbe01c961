/* Architectures: what distinguishes one transformer of the LLaMA kind from another, as data.
 *
 * An architecture is one row, in the file of its family (arch_<family>.c), listed in archs.c. The forward
 * pass reads the row's fields and what the loader found in the file; it knows no names. A row says how the
 * two kinds of model files name things: GGUF, whose order of rows is the engine's own, and Hugging Face
 * folders. */
#ifndef QUOLL_ARCH_H
#define QUOLL_ARCH_H

#include "model/keys.h"
#include "model/model.h"

/* Tensors that come and go together: all of a group's tensors, in every layer, or none. */
enum tensor_group {
    TENSORS_CORE,         /* embedding, norms, the attention's four matrices */
    TENSORS_FFN,          /* up and down; with experts: none */
    TENSORS_GATE,         /* the gate beside up */
    TENSORS_EXPERTS,      /* router, and gate, up and down of every expert */
    TENSORS_OUTPUT,       /* output.weight; absent: tied to the embedding */
    TENSORS_QKV_BIAS,     /* biases of the query, key and value projections */
    TENSORS_OUTPUT_BIAS,  /* bias of the attention's output projection */
    TENSORS_FFN_BIAS,     /* biases of up and down */
    TENSORS_GATE_BIAS,    /* bias of the gate */
    TENSORS_NORM_BIAS,    /* LayerNorm's */
    TENSORS_QK_NORM,      /* norms of each head of q and k */
    TENSORS_POST_NORM,    /* norms of what attention and feed-forward add to the residual stream */
    TENSORS_ROPE_FREQS,   /* divisors of RoPE's frequencies: how GGUF carries Llama 3.1's scaling */
    TENSORS_ROPE_FACTORS, /* the same twice, for short and for long texts: how GGUF carries longrope's */
    TENSORS_PREFIX,       /* P-Tuning v2: keys and values in front of every sequence */
    N_TENSOR_GROUPS
};

enum presence { TENSOR_REFUSED, TENSOR_OPTIONAL, TENSOR_REQUIRED };

struct naming; /* model/naming.h */

struct arch {
    const char *name;        /* GGUF's general.architecture, and the prefix of its keys */
    const char *hf_types[4]; /* config.json's model_type, NULL behind the last */
    const char *hf_key;      /* a key that tells this one from others of the same model_type; NULL: none */
    const struct naming *gguf_names, *hf_names;
    /* Reads what config_gguf (config_hf) does not know, after it; NULL: nothing. */
    int (*gguf_config)(struct config *c, const struct keys *k);
    int (*hf_config)(struct config *c, const struct keys *k);
    /* Reads config.json instead of config_hf; NULL: config_hf. */
    int (*hf_read)(struct config *c, const struct keys *k);

    enum rope_pairing rope_pairing;
    int rope_sections; /* 0, 1: one position per token; 2: position and block position (ChatGLM-6B) */
    bool hf_halves; /* Hugging Face pairs i with i + rotary_dim/2, but here pairs are adjacent: rows of q and
                     * k are reordered */
    enum act act;
    enum norm_kind norm;
    bool hf_norm_minus_1; /* Hugging Face stores norm weights as w − 1 */
    bool normed_residual; /* the residual stream goes on from the norm's result, scaled (ChatGLM-6B) */
    bool prefix_lm;       /* the prompt sees itself in both directions, up to BOS (ChatGLM-6B) */
    enum presence tensors[N_TENSOR_GROUPS];
};

/* All of them, NULL at the end. */
extern const struct arch *const archs[];

/* The architecture of this name (len bytes, no terminator needed); NULL: none. */
const struct arch *arch_find(const char *name, size_t len);
/* Positions that a token has for RoPE. */
static inline int arch_sections(const struct arch *a)
{
    return a->rope_sections > 1 ? a->rope_sections : 1;
}
/* Must, may or must not a group's tensors be there? */
enum presence arch_presence(const struct config *c, enum tensor_group g);

/* What all files of a kind have in common; for the rows' own functions. */
int config_gguf(struct config *c, const struct keys *k);
int config_hf(struct config *c, const struct keys *k);
/* config.json's rope_theta and rope_scaling. */
int config_hf_rope(struct config *c, const struct keys *k);
/* Has the folder this matrix, as it is or in GPTQ's and AWQ's parts? */
bool config_hf_has_matrix(const struct weights *w, const char *name);
/* Its longrope factors, "long_factor" or "short_factor"; NULL: none. */
const struct meta *config_hf_factors(const struct weights *w, const char *name);
/* Every pattern-th layer sees everything, the others have the window; 0: all have it, 1: none. */
void config_window_pattern(struct config *c, int pattern);

#endif

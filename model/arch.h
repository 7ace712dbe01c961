/* Architectures: what distinguishes one transformer of the LLaMA kind from another, as data.
 *
 * An architecture is one row, in a file of its own (arch_<name>.c), listed in archs.c. The forward pass
 * reads the row's fields and what the loader found in the file; it knows no names. What a new family
 * needs (where norms stand, norms of q and k, windows, experts) becomes a field here, and its tensors a
 * group of names in bind.c. */
#ifndef QUOLL_ARCH_H
#define QUOLL_ARCH_H

#include "kernels/kernels.h"

#include <stddef.h>

/* Tensors that come and go together: all of a group's tensors, in every layer, or none. */
enum tensor_group {
    TENSORS_CORE,        /* embedding, norms, the seven matrices of a layer */
    TENSORS_OUTPUT,      /* output.weight; absent: tied to the embedding */
    TENSORS_QKV_BIAS,    /* biases of the query, key and value projections */
    TENSORS_OUTPUT_BIAS, /* bias of the attention's output projection */
    TENSORS_FFN_BIAS,    /* biases of gate, up and down */
    TENSORS_ROPE_FREQS,  /* divisors of RoPE's frequencies: how GGUF carries Llama 3.1's scaling */
    N_TENSOR_GROUPS
};

enum presence { TENSOR_REFUSED, TENSOR_OPTIONAL, TENSOR_REQUIRED };

struct arch {
    const char *name; /* GGUF's general.architecture, and the prefix of its keys */
    enum rope_pairing rope_pairing;
    enum act act; /* of the gate */
    enum presence tensors[N_TENSOR_GROUPS];
};

extern const struct arch arch_llama, arch_qwen2;

/* All of them, NULL at the end. */
extern const struct arch *const archs[];

/* The architecture of this name (len bytes, no terminator needed); NULL: none. */
const struct arch *arch_find(const char *name, size_t len);

#endif

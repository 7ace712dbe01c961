/* Which type each tensor of a quantised model gets: the mixes that users of llama.cpp know by name (q4_k_m,
 * iq3_xs …), one table of rules each. Tensors go by their GGUF names. */
#ifndef QUOLL_MIX_H
#define QUOLL_MIX_H

#include "quant/quant.h"

#include <stddef.h>

/* What decides beside the tensor's name. */
struct mix_model {
    int n_layers, n_heads, n_kv_heads, n_experts;
    bool tied;    /* no output.weight: the embedding is also the output matrix */
    bool imatrix; /* importances are known */
};

struct mix; /* one name: a mix, or a type alone with its usual exceptions */

/* By name (case-insensitive); NULL: none. "q4_k", "q3_k" and "q5_k" are their _m mixes. */
const struct mix *mix_by_name(const char *name);
size_t mix_n(void);
const struct mix *mix_at(size_t i); /* in the order of `quoll quantize --list` */

const char *mix_name(const struct mix *m);
enum qtype mix_base(const struct mix *m); /* the type of most matrices, and of all under --pure */
int mix_file_type(const struct mix *m);   /* GGUF's general.file_type */

/* The type of the matrix with this name, before rows that do not fit change it (qtype_for_rows). */
enum qtype mix_type(const struct mix *m, const char *name, const struct mix_model *model);

/* Bits per weight of a model of Llama 3 8B's shape. */
double mix_bits(const struct mix *m);

#endif

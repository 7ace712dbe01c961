/* Models as folders in the GPTQ checkpoint format, version 1, as AutoGPTQ, transformers and vLLM read it:
 * config.json with its quantization_config, model.safetensors, and the files of the tokenizer.
 *
 * A linear layer X of `in` columns and `out` rows, of integers q with a scale and a zero point per group of
 * columns, w[r][c] = scale[c / group][r] (q[r][c] − zero[c / group][r]), is four tensors:
 *
 *   X.qweight  int32   [in · bits / 32, out]       column r: the codes q[r][0], q[r][1] … of one row, one
 *                                                  after the other in bits, lowest first, across words
 *   X.qzeros   int32   [groups, out · bits / 32]   row g: zero[g][0] − 1, zero[g][1] − 1 … in the same way
 *   X.scales   float16 [groups, out]
 *   X.g_idx    int32   [in]                        column c's group
 *
 * Embeddings, the output matrix, norms and biases stay float16; expert layers are not quantised by it. */
#ifndef QUOLL_GPTQ_FOLDER_H
#define QUOLL_GPTQ_FOLDER_H

#include "lab/quantize.h"

/* "int4_g128": 4 bits, groups of 128 columns. "int4_row": one group per row. */
struct gptq_folder_type {
    const char *name;
    int bits, group; /* group −1: the whole row */
};

size_t gptq_folder_n_types(void);
const struct gptq_folder_type *gptq_folder_type(size_t i);
const struct gptq_folder_type *gptq_folder_type_by_name(const char *name); /* NULL: none */
double
gptq_folder_bits(const struct gptq_folder_type *t); /* per weight, with scales and zeros of their groups */

struct gptq_folder_options {
    const struct gptq_folder_type *type;
    const struct weights *source; /* what w was made of: whose config.json and tokenizer it gets; NULL: w */
    const struct importance *importance;
    const struct calibration *calibration; /* NULL: every matrix by itself */
    struct journal *journal;               /* begun; its folder becomes the output. NULL: nothing is kept */
    int n_threads;
    bool allow_nan; /* values that are not finite are quantised by themselves, not with a calibration text */
    quantize_progress *progress; /* of its steps only the name is known */
    /* Writes what else belongs into the folder: the tokenizer. NULL: nothing. */
    int (*extras)(void *arg, const char *folder, const struct weights *w, char *err, size_t errlen);
    void *arg; /* of both */
};

/* Writes folder `path`, which must not be there or be empty, under a temporary name first.
 * config.json is that of w's folder or, for Llama and Qwen models that come without one, made. −1 leaves no
 * folder; `err` is empty where progress ended it. */
int gptq_folder_write(const char *path, struct weights *w, const struct gptq_folder_options *opt, char *err,
                      size_t errlen);

#endif

/* Quantising a whole model: a plan that says what every tensor becomes, and the GGUF that it leads to. */
#ifndef QUOLL_LAB_QUANTIZE_H
#define QUOLL_LAB_QUANTIZE_H

#include "lab/calibrate.h"
#include "lab/importance.h"
#include "lab/journal.h"
#include "lab/mix.h"
#include "model/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One --tensor-type: the matrices whose name holds a match of this regular expression (PCRE). */
struct quantize_rule {
    const char *pattern;
    enum qtype type;
};

struct quantize_options {
    const struct mix *mix;
    bool pure;                         /* the mix's base type everywhere */
    int output_type, embedding_type;   /* enum qtype of output.weight, token_embd.weight; −1: the mix's */
    const struct quantize_rule *rules; /* the first that matches counts, before the mix */
    size_t n_rules;
    const struct importance *importance;   /* NULL: none */
    const struct calibration *calibration; /* NULL: every matrix by itself */
    const struct lora_option *lora;        /* adapters to be merged first */
    size_t n_lora;
    struct journal *journal; /* begun; what of the file is written is kept there. NULL: nothing is */
    int n_threads;
    bool allow_nan; /* values that are not finite are quantised, to NaN */
};

/* What becomes of a tensor. Only matrices are quantised: norms, biases and routers stay as they are. */
struct quantize_step {
    const char *name;
    int64_t cols, rows;                        /* rows of all experts together */
    int n_experts;                             /* 1: a plain matrix */
    enum qtype from, to;                       /* from: of the values in the file */
    enum qtype wanted;                         /* to, unless rows of this length cannot have it */
    uint64_t from_bytes, to_bytes;             /* from_bytes: as it would be written without quantising */
    const struct importance_entry *importance; /* NULL: none for it, or not needed */
    bool copied;                               /* it has this type already, and stays to the last bit */
    bool is_matrix;
    bool fixed; /* rules and options say its type, or it is no matrix */
};

struct quantize;

/* Plans; w and what the options point to must outlive it. −1: no model, a pattern that is no regular
 * expression, importances of another shape than their matrix. */
int quantize_open(struct quantize **out, struct weights *w, const struct quantize_options *opt, char *err,
                  size_t errlen);
void quantize_close(struct quantize *q); /* NULL is fine */

const struct quantize_step *quantize_steps(const struct quantize *q, size_t *n);
/* Another type for matrix i of the plan (what comes of it where its rows cannot have it: qtype_for_rows). −1:
 * importances of another shape. */
int quantize_set_type(struct quantize *q, size_t i, enum qtype type, char *err, size_t errlen);
/* The model's own metadata, to which a vocabulary may have to be added (export.h). */
const struct meta *quantize_meta(const struct quantize *q, size_t *n);
const struct save_gguf_tensor *quantize_tensors(const struct quantize *q, size_t *n);

/* Called now and then, from one thread; false ends the work. */
typedef bool quantize_progress(void *arg, const struct quantize_step *step, double fraction);

/* Writes the GGUF: these metadata, but for general.file_type and general.quantization_version, which are set,
 * and those of a split file, which go. Tensor by tensor: memory for a few MiB of rows per thread. −1 leaves
 * no file, but for what the journal keeps: what weights_save_gguf says; a value that is not finite, with its
 * tensor, unless allow_nan; `err` is empty where progress ended it. The file does not depend on the number of
 * threads. */
int quantize_write(struct quantize *q, const char *path, const struct meta *meta, size_t n_meta,
                   quantize_progress *progress, void *arg, char *err, size_t errlen);

#endif

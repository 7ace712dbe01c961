/* A model's weights as a GGUF would hold them, whatever files they come from: what `quoll convert` writes.
 * The rows are GGUF's, the names those that llama.cpp knows, the metadata that of the GGUF specification. */
#ifndef QUOLL_EXPORT_H
#define QUOLL_EXPORT_H

#include "model/bind.h"

struct export;

/* type: an enum qtype that all matrices get, −1: each keeps its own, and those that no GGUF can hold (GPTQ's
 * and AWQ's with zero points or act-order) become F32, which loses nothing. Adapters are merged into the
 * matrices. w must outlive it. */
int export_open(struct export **out, const struct weights *w, int type, const struct lora_option *lora,
                size_t n_lora, char *err, size_t errlen);
void export_close(struct export *e); /* NULL is fine */

/* Metadata of the model; without that of its vocabulary unless w is a GGUF, whose metadata it is. Lent. */
const struct meta *export_meta(const struct export *e, size_t *n);
const struct save_gguf_tensor *export_tensors(const struct export *e, size_t *n);
/* struct save_gguf's write; arg is the struct export. */
int export_write(void *arg, size_t i, struct save_file *f);

/* What of tensor i's values a quantiser needs: rows row … row + n − 1 (of dims[1] × dims[2], a vector's only
 * one is row 0) as floats, adapters merged; any number of threads at once. −1: out of memory. */
int export_floats(const struct export *e, size_t i, int64_t row, int64_t n, float *dst);
/* What tensor i's rows (a vector's elements) are: runs of one role each, of one expert where there are more.
 */
struct export_run {
    enum role role;
    int layer, expert; /* −1: none */
    int64_t row0, rows;
};
size_t export_n_runs(const struct export *e, size_t i); /* 0: a vector made here */
struct export_run export_run(const struct export *e, size_t i, size_t k);
/* The type that its values have in the file. */
enum qtype export_source_type(const struct export *e, size_t i);
/* They are not needed any more: their pages may leave memory. */
void export_drop(const struct export *e, size_t i);

#endif

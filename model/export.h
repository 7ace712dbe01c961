/* A model's weights as a GGUF would hold them, whatever files they come from: what `quoll convert` writes.
 * The rows are GGUF's, the names those that llama.cpp knows, the metadata that of the GGUF specification. */
#ifndef QUOLL_EXPORT_H
#define QUOLL_EXPORT_H

#include "model/model.h"

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

#endif

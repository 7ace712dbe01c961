/* tools/convert_vocab.c: what `quoll convert` writes besides the model. */
#ifndef QUOLL_CONVERT_VOCAB_H
#define QUOLL_CONVERT_VOCAB_H

#include "tools/tools.h"

struct vocab_meta;

/* The metadata of a model that is no GGUF, with its vocabulary (n_tokens ids, the embedding's rows) and chat
 * template. Where it has none, or one that a GGUF cannot hold, a note says so and model is all there is.
 * model must outlive it. On error too *out is to be closed. */
int vocab_meta_open(struct vocab_meta **out, const struct weights *w, const struct meta *model, size_t n,
                    size_t n_tokens, char *err, size_t errlen);
const struct meta *vocab_meta_all(const struct vocab_meta *m, size_t *n); /* lent */
void vocab_meta_close(struct vocab_meta *m);                              /* NULL is fine */

#endif

/* Tensors of a file bound to the places they fill in struct model. */
#ifndef QUOLL_BIND_H
#define QUOLL_BIND_H

#include "model/layers.h"
#include "model/naming.h"
#include "model/source.h"

struct binding {
    enum role role;
    int layer, expert; /* −1: none */
    struct source source;
};

/* Binds every tensor of w; *out (n of them) is for bindings_free. quantise: what float matrices become while
 * they are loaded, QTYPE_F32: nothing. −1: a tensor that is no part of the architecture, a missing one, a
 * shape that the hyper-parameters do not imply, a type that is no weight. */
int bind_tensors(struct binding **out, size_t *n, const struct weights *w, const struct config *c,
                 enum qtype quantise, char *err, size_t errlen);
void bindings_free(struct binding *b, size_t n);

bool role_is_matrix(enum role role);
bool role_is_norm(enum role role);
bool role_in_layer(enum role role); /* else the model's own */
enum tensor_group role_group(enum role role);
/* A matrix's shape; a vector's length as cols. */
void role_shape(const struct config *c, enum role role, int64_t *rows, int64_t *cols);
/* Which rows of a tensor called `name` are those of its role `index`, which begins at row `first`; hf: under
 * Hugging Face's names. Sets s->first, run, stride, head_len, pair_len. */
void role_rows(struct source *s, const struct config *c, const struct name *name, int index, int64_t first,
               bool hf);
/* The struct matrix (or, for vectors, the float pointer) that a binding fills. */
void *binding_place(struct model *m, const struct binding *b);

#endif

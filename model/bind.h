/* Tensors of a file bound to the places they fill in struct model. */
#ifndef QUOLL_BIND_H
#define QUOLL_BIND_H

#include "model/model.h"

struct binding {
    const struct tensor *tensor;
    int layer; /* −1: of the model itself */
    size_t at; /* where in struct layer (struct model): a struct packed or a float pointer */
    bool is_matrix;
};

/* Binds every tensor of w; *out (n of them) is malloc'ed. −1: a tensor that is no part of the
 * architecture, a missing one, a shape that the hyper-parameters do not imply, a type that is no weight. */
int bind_tensors(struct binding **out, size_t *n, const struct weights *w, const struct config *c, char *err,
                 size_t errlen);

#endif

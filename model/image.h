/* The packed weights of a model: one block of memory that holds every matrix, at multiples of 64 bytes, in
 * the order of the bindings. It is filled by packing, or it is a file that an earlier load has left
 * (pack_cache.h), which begins with a head of whole pages and is otherwise the same. */
#ifndef QUOLL_IMAGE_H
#define QUOLL_IMAGE_H

#include "model/bind.h"

/* One matrix of an image. */
struct slot {
    const struct binding *binding;
    struct packed *packed;
    uint64_t offset; /* in the image */
};

/* Gives every matrix of the n bindings its weights; under no_repack those that the file has as they are
 * become views of it. −1: out of memory. */
int image_load(struct model *m, const struct weights *w, const struct binding *b, size_t n,
               const struct model_options *opt);
void image_release(struct model *m); /* after the matrices */

#endif

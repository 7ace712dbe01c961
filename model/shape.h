/* Models of a known shape whose weights are made up: what speed and memory depend on, without a file. */
#ifndef QUOLL_SHAPE_H
#define QUOLL_SHAPE_H

#include "weights/weights.h"

/* Published models: the shape's name, and what their config.json says that matters here. */
struct shape {
    const char *name;
    const char *config;
};

/* All of them (shapes.c), a NULL name at the end. */
extern const struct shape shapes[];

/* The shape of this name (len bytes, no terminator needed); NULL: none. */
const struct shape *shape_find(const char *name, size_t len);

struct shape_options {
    const char *name;        /* for messages and weights_path */
    const char *config;      /* text of a config.json … */
    const char *config_path; /* … or, where that is NULL, its file */
    enum qtype type; /* of all matrices whose rows can have it, else qtype_for_rows; routers stay float */
};

/* The directory of such a model: what a folder with that config.json would hold, experts one by one. No
 * tensor has data yet: it is enough for plans. −1: a config.json that is none, or one whose model is larger
 * than any memory. */
int shape_open(struct weights **out, const struct shape_options *o, char *err, size_t errlen);

/* Gives all tensors data: norms near 1, biases small, matrices of random blocks (qtype_random), the same
 * ones every time. Tensors of one type share the bytes of the largest, which is enough for a model that is
 * packed from them; `separate` gives every matrix bytes of its own. −1: not enough memory. */
int shape_fill(struct weights *w, bool separate, char *err, size_t errlen);
/* How much memory shape_fill takes. */
uint64_t shape_fill_bytes(const struct weights *w, bool separate);

#endif

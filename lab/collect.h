/* Collects a model's importance matrix: an observer of the forward pass (model/observe.h) that sums the
 * squares of what every matrix multiplies with. */
#ifndef QUOLL_COLLECT_H
#define QUOLL_COLLECT_H

#include "lab/imatrix.h"
#include "model/model.h"

struct collect_run {
    const struct model *model;
    struct cache *cache; /* at least n_parallel sequences of n_ctx positions */
    struct context *context;
    const int32_t *ids;
    int64_t n_ids;
    int64_t n_ctx;      /* chunks of n_ctx tokens, side by side; what is left over is not seen */
    int32_t bos;        /* takes the place of each chunk's first token; −1: none does */
    int64_t first;      /* chunks before it are passed over */
    int64_t max_chunks; /* 0: all */
    int n_parallel;     /* chunks that are evaluated together */
    bool output;        /* of the output matrix too: all logits are computed for that */
    bool (*stop)(void);
    void (*progress)(void *arg, int64_t n_done, int64_t n_chunks);
    void *arg;
};

/* Adds to im, under the names that the model's architecture has in GGUF files. 0, −1 (the text is too short,
 * …) or CONTEXT_STOPPED, when im has what was seen until then. */
int collect_importance(struct imatrix *im, const struct collect_run *r, int64_t *n_chunks, char *err,
                       size_t errlen);

#endif

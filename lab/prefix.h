/* Many prompts that begin alike (the same examples in front of each question): the common beginning is
 * evaluated once, kept in sequence 0 of a cache, and lent to the others by page (cache_copy_prefix), which
 * gives the same bits as evaluating all of it. */
#ifndef QUOLL_PREFIX_H
#define QUOLL_PREFIX_H

#include "model/model.h"

/* What asks a model many things at once. */
struct asker {
    const struct model *model;
    struct cache *cache; /* n_seqs sequences, each of n_ctx positions, a multiple of KV_PAGE */
    struct context *context;
    int n_seqs; /* at least 2 */
    int64_t n_ctx;
    bool (*stop)(void); /* as struct batch has it */
};

/* A batch that grows. Zeroed: empty. */
struct growing_batch {
    int32_t *id, *seq;
    uint8_t *want;
    int n, cap;
};
int growing_batch_add(struct growing_batch *b, int32_t id, int seq, bool want, char *err, size_t errlen);
void growing_batch_free(struct growing_batch *b);
/* Evaluates and empties it; rows are taken as struct batch has it. An empty one is fine. */
int growing_batch_eval(struct growing_batch *b, const struct asker *a,
                       void (*take)(void *arg, int thread, int64_t i, const float *row), void *arg, char *err,
                       size_t errlen);

/* What sequence 0 holds. Zeroed: nothing. */
struct held_prefix {
    int32_t *id;
    int64_t n, cap;
};
void held_prefix_free(struct held_prefix *h);
/* Sequence 0 becomes the first n of ids; none where the model must see a prompt whole. */
int held_prefix_set(struct held_prefix *h, const struct asker *a, const int32_t *ids, int64_t n, char *err,
                    size_t errlen);
/* Sequence `to` becomes the first n positions of sequence `from`; returns n, or 0 where that cannot be: the
 * sequence is empty then, and its text is evaluated from the start. */
int64_t lend_prefix(const struct asker *a, int to, int from, int64_t n);

/* How many ids two texts have in common at their beginnings. */
int64_t common_prefix(const int32_t *a, int64_t n_a, const int32_t *b, int64_t n_b);

#endif

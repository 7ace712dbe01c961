/* A calibration text's rows on their way through a model, one layer in memory at a time: what comes into
 * every matrix can be observed, matrices can be replaced, and the rows then go through what became of the
 * layer. Holds one layer and 4 · dim bytes per token. */
#ifndef QUOLL_WALK_H
#define QUOLL_WALK_H

#include "model/observe.h"

struct walk;

struct walk_options {
    const struct ops *ops;
    int n_threads;
    int seq_len;        /* the text is cut into sequences of so many tokens, each from position 0 */
    bool (*stop)(void); /* asked after every sequence; NULL: never */
};

enum { WALK_STOPPED = 1 };

/* w stays the caller's and open; ids (n of them, lent; what is left after the last whole sequence is not
 * used). −1: fewer than seq_len ids, out of memory. */
int walk_open(struct walk **out, struct weights *w, const int32_t *ids, int64_t n,
              const struct walk_options *o, char *err, size_t errlen);
void walk_close(struct walk *k); /* NULL is fine */

int64_t walk_n_tokens(const struct walk *k);
/* The rows that go into the current layer (n_tokens, dim): to be saved, or to be set by who goes on from
 * there. Of layer 0 they are not there: it has the ids. */
float *walk_rows(struct walk *k);
/* Loads layer l, the one before it or none being the current one. */
int walk_layer(struct walk *k, int l, char *err, size_t errlen);
/* Other weights for a matrix of the current layer (expert −1: it has none): its rows as floats. */
int walk_replace(struct walk *k, enum role role, int expert, const float *rows, char *err, size_t errlen);
/* The rows go through the current layer; observe (as in struct batch, NULL: nobody) sees what comes into its
 * matrices. `step`: what comes out becomes the rows. WALK_STOPPED: o.stop said so; they may be lost. */
int walk_run(struct walk *k, bool step,
             void (*observe)(void *arg, struct worker *w, const struct observation *o), void *arg, char *err,
             size_t errlen);

#endif

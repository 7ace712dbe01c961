/* Runs a model over the windows of a text and scores the tokens that count, alone or against a base: a second
 * model in memory, or a file of its logits. Memory for logits is bounded whatever the vocabulary: rows are
 * scored where they are made, and what must be kept to compare is a part of a window at a time. */
#ifndef QUOLL_PERPLEXITY_H
#define QUOLL_PERPLEXITY_H

#include "lab/divergence.h"
#include "lab/logits_file.h"
#include "model/model.h"

/* cache: at least n_parallel sequences, each of which the longest window fits in. */
struct ppl_model {
    const struct model *model; /* NULL: none */
    struct cache *cache;
    struct context *context;
};

struct ppl_run {
    const struct windows *windows;
    const int32_t *ids;           /* (windows->n_ids) */
    struct ppl_model model, base; /* of one vocabulary */
    struct logits_reader *in;     /* a base in a file, just opened; NULL: none */
    struct logits_writer *out;    /* the model's logits go there; NULL: nowhere */
    size_t held_bytes;            /* for rows that are kept to compare, at least one; 0: 256 MiB */
    int n_parallel;               /* windows that are evaluated together */
    int n_threads;                /* of the contexts, the larger number */
    bool (*stop)(void);           /* as struct batch has it */
    /* Told after every group of windows how many there have been, and how many tokens are scored. NULL. */
    void (*progress)(void *arg, int64_t n_windows, int64_t n_scored);
    void *arg;
};

/* scores: windows_n_scored of them, in the text's order. 0, −1 or CONTEXT_STOPPED. */
int ppl_evaluate(const struct ppl_run *r, struct token_score *scores, char *err, size_t errlen);

#endif

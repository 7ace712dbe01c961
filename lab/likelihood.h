/* How likely a model finds each of several answers to a prompt; many prompts at once. */
#ifndef QUOLL_LIKELIHOOD_H
#define QUOLL_LIKELIHOOD_H

#include "lab/prefix.h"

struct answer {
    const int32_t *id;
    int n;        /* at least 1 */
    double log_p; /* the result: Σ ln p of its tokens, each after the prompt and those before it */
};

struct query {
    const int32_t *prompt;
    int64_t n_prompt; /* at least 1; with the longest answer no more than the asker's n_ctx */
    struct answer *answer;
    int n_answers; /* fewer than the asker's n_seqs − 1 */
};

/* progress, where not NULL, is told how many queries are done. 0, −1 or CONTEXT_STOPPED. */
int queries_score(const struct asker *a, struct query *q, size_t n,
                  void (*progress)(void *arg, size_t n_done), void *arg, char *err, size_t errlen);

#endif

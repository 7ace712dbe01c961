/* Greedy continuations of many prompts at once: as one ends, the next takes its place. */
#ifndef QUOLL_GENERATE_H
#define QUOLL_GENERATE_H

#include "lab/prefix.h"

struct continuation {
    const int32_t *prompt;
    int64_t n_prompt; /* at least 1 */
    int32_t *id;      /* the result: room for max ids */
    int n, max;       /* n_prompt + max no more than the asker's n_ctx */
};

struct generate_hooks {
    /* Is continuation i, whose last id is new, at its end? That id stays part of it. */
    bool (*ended)(void *arg, size_t i, const struct continuation *c);
    void (*progress)(void *arg, size_t n_done); /* NULL: nobody is told */
    void *arg;
};

/* 0, −1 or CONTEXT_STOPPED. */
int generate_greedy(const struct asker *a, struct continuation *c, size_t n,
                    const struct generate_hooks *hooks, char *err, size_t errlen);

#endif

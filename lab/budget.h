/* One choice for each of many items so that together they cost least and are no larger than allowed: the
 * multiple-choice knapsack problem (Sinha & Zoltners 1979). Here: a type for every matrix of a model. */
#ifndef QUOLL_BUDGET_H
#define QUOLL_BUDGET_H

#include <stddef.h>
#include <stdint.h>

enum { BUDGET_MAX_CHOICES = 255 };

struct budget_choice {
    double cost; /* finite */
    uint64_t bytes;
};

struct budget_item {
    const struct budget_choice *choice;
    size_t n; /* 1 … BUDGET_MAX_CHOICES */
};

enum { BUDGET_TOO_SMALL = 1 };

/* chosen (n): an index into each item's choices; of equally good selections one of the smallest. Exact where
 * the sizes have a large common divisor, as those of matrices do: sizes beyond 2^16 steps of it are rounded
 * up to such a step, and what that leaves free is then filled greedily. BUDGET_TOO_SMALL: not even the
 * smallest choices fit, they are chosen. −1: out of memory. */
int budget_choose(size_t *chosen, const struct budget_item *item, size_t n, uint64_t limit);

#endif

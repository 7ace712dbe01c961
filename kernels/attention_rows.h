/* How the rows of a block of attention are taken together: private to the kernels of attention. */
#ifndef QUOLL_ATTENTION_ROWS_H
#define QUOLL_ATTENTION_ROWS_H

#include "kernels/cpu.h"

/* Rows go in groups of equal size, as far as that goes: a small last group would leave the processor waiting
 * for one sum after the other. */
static inline int rows_step(int n_rows, int max)
{
    int n_groups = (n_rows + max - 1) / max;
    return (n_rows + n_groups - 1) / n_groups;
}

/* What the rows from r on, n of them, see: any of them, and all of them. */
struct range {
    int begin, end, all_begin, all_end;
};

static inline struct range rows_range(const struct attention_block *a, int r, int n)
{
    struct range g = {KV_PAGE, 0, 0, KV_PAGE};
    if (a->whole)
        return (struct range){0, KV_PAGE, 0, KV_PAGE};
    for (int i = r; i < r + n; i++) {
        g.begin = a->begin[i] < g.begin ? a->begin[i] : g.begin;
        g.end = a->end[i] > g.end ? a->end[i] : g.end;
        g.all_begin = a->begin[i] > g.all_begin ? a->begin[i] : g.all_begin;
        g.all_end = a->end[i] < g.all_end ? a->end[i] : g.all_end;
    }
    return g;
}

#endif

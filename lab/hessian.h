/* The second moments of a product's input over a calibration text, H = Σ x xᵀ: how much an error in one
 * column's weights, or in two at once, matters (Hassibi & Stork 1993). */
#ifndef QUOLL_HESSIAN_H
#define QUOLL_HESSIAN_H

#include "kernels/kernels.h"

struct hessian {
    int64_t cols, n; /* n: rows x so far */
    float *h;        /* (cols, cols); only entries at and left of the diagonal until hessian_done */
};

int hessian_init(struct hessian *h, int64_t cols); /* −1: out of memory */
void hessian_free(struct hessian *h);              /* a zeroed one is fine */
/* Takes n rows in; all threads of the team call it. x (n, cols): the host's memory. */
void hessian_add(struct hessian *h, struct worker *w, const float *x, int64_t n);
/* The mean instead of the sum, and the other half. */
void hessian_done(struct hessian *h);

#endif

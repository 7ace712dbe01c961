/* How far the weights of a quantised model are from those of the model that it was made of, tensor by tensor:
 * e = (w' − w) / rms(w), of which the mean square, the largest and a histogram of |e| by half octaves. */
#ifndef QUOLL_ERRORS_H
#define QUOLL_ERRORS_H

#include "model/export.h"

#include <stdbool.h>

/* Bin i counts 2^(ERRORS_LOW + i / 2) ≤ |e| < 2^(ERRORS_LOW + (i + 1) / 2); what is smaller (0 too) the
 * first, what is larger the last. */
enum { ERRORS_LOW = -14, ERRORS_BINS = 36, ERRORS_NAME = 64 };

struct tensor_errors {
    char name[ERRORS_NAME]; /* as a GGUF has it */
    int64_t n;              /* weights */
    double rms, max;        /* of e */
    int64_t bin[ERRORS_BINS];
};

/* Of all quantised matrices of `made` that `base` has too, in the order of `made`; *out is malloc'ed. In
 * memory are a few rows per thread. The numbers do not depend on the number of threads. −1: a message; 1:
 * stop (NULL: never) said so. */
int errors_measure(struct tensor_errors **out, size_t *n, const struct weights *base,
                   const struct weights *made, int n_threads, bool (*stop)(void), char *err, size_t errlen);

#endif

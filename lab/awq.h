/* AWQ (Lin et al. 2023, arXiv:2306.00978): columns of a matrix whose inputs are large are scaled up before it
 * is quantised, and the inputs scaled down in the operator before it, so that these columns lose less. */
#ifndef QUOLL_AWQ_H
#define QUOLL_AWQ_H

#include "lab/rows.h"

enum { AWQ_MATRICES = 3 };

/* Matrices that share their input. */
struct awq_input {
    int64_t cols;
    const float *h; /* (cols, cols): the mean of x xᵀ over a calibration text, both halves */
    int n;
    struct {
        const float *w; /* (rows, cols) */
        int64_t rows;
        struct rows_format format;
    } matrix[AWQ_MATRICES];
    /* Columns come in n_same runs of the same length, and column i of all runs of a set of `shared` ones has
     * the same scale: what scales an attention output's input is a row of the values, which several heads
     * share. 1, 1: no such bond. */
    int n_runs, shared;
    int n_threads;
};

/* scale (cols): what columns are multiplied with, x divided by: x's root mean square to a power from 0 to 1,
 * the one that leaves the least squared error of the product (on a sample of the rows), around 1 on the
 * logarithmic average. gain (may be NULL): that error / the error without scales. −1: out of memory. */
int awq_search(float *scale, const struct awq_input *in, double *gain);

#endif

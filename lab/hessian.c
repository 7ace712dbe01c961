#include "lab/hessian.h"

#include <cblas.h>

#include <stdlib.h>

enum { BLOCK = 192 }; /* rows of H that one thread computes at a time */

int hessian_init(struct hessian *h, int64_t cols)
{
    openblas_set_num_threads(1); /* the threads are ours; its own add in another order */
    *h = (struct hessian){.cols = cols, .h = calloc((size_t)cols * (size_t)cols, sizeof *h->h)};
    return h->h ? 0 : -1;
}

void hessian_free(struct hessian *h)
{
    free(h->h);
    *h = (struct hessian){0};
}

void hessian_add(struct hessian *h, struct worker *w, const float *x, int64_t n)
{
    const int64_t cols = h->cols, n_blocks = (cols + BLOCK - 1) / BLOCK;
    int64_t begin, end;
    if (w->id == 0)
        h->n += n;
    while (team_next(w, n_blocks, 1, &begin, &end)) {
        /* the long rows first, so that the threads end together */
        const int64_t row = (n_blocks - 1 - begin) * BLOCK, rest = cols - row;
        const int n_rows = (int)(rest < BLOCK ? rest : BLOCK), n_cols = (int)row + n_rows;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n_rows, n_cols, (int)n, 1, x + row, (int)cols, x,
                    (int)cols, 1, h->h + row * cols, (int)cols);
    }
    team_barrier(w);
}

void hessian_done(struct hessian *h)
{
    const float by = h->n > 0 ? 1 / (float)h->n : 0;
    for (int64_t i = 0; i < h->cols; i++)
        for (int64_t j = 0; j <= i; j++)
            h->h[j * h->cols + i] = h->h[i * h->cols + j] *= by;
}

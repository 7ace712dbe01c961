/* GPTQ (Frantar et al. 2022, arXiv:2210.17323): a matrix is quantised column by column, and the columns still
 * to come make up for the error of those that are done, as far as the inputs of a calibration text go
 * together (their second moments, the Hessian of the product's squared error).
 *
 * Columns go from the last to the first. With H = L Lᵀ the inverse Hessian of the columns 0 … r is
 * (L⁻¹)ᵀ L⁻¹ of that part, so that one triangular inverse serves all steps: rounding column r by the error
 * e = (w_r − q_r) / L⁻¹[r][r] moves each column c < r by −e L⁻¹[r][c]. */
#ifndef QUOLL_GPTQ_H
#define QUOLL_GPTQ_H

#include "lab/rows.h"

struct gptq_options {
    double damp;    /* times the mean of H's diagonal is added to it: 0.01 in the paper */
    bool act_order; /* columns of large inputs first; all scales are then chosen beforehand */
    int n_threads;
};

/* What a matrix is quantised with, made once from H for all matrices that share their input. */
struct gptq {
    int64_t cols;
    float *inverse;    /* (cols, cols): L⁻¹ of the ordered columns, its lower half */
    int32_t *order;    /* (cols): column `order[c]` of the matrix is column c of L */
    float *importance; /* (cols): H's diagonal, of the matrix's columns */
    bool fixed_scales; /* the order is not the matrix's own: scales come first */
    int n_threads;
};

/* h (cols, cols), both halves, becomes g->inverse: malloc'ed, g's from here on, on error too. −1: out of
 * memory, or H is not positive definite even when damped much more. */
int gptq_init(struct gptq *g, float *h, int64_t cols, const struct gptq_options *o, char *err, size_t errlen);
void gptq_free(struct gptq *g); /* a zeroed one is fine */

/* Quantises w (rows, cols) to rows of the format at dst. Its type has a code grid; cols is a multiple of its
 * group. *loss (may be NULL): Σ e² / 2 over all steps, half the squared error of the product. −1: out of
 * memory. */
int gptq_quantise(const struct gptq *g, const struct rows_format *f, void *dst, const float *w, int64_t rows,
                  double *loss);

#endif

/* Orthogonal matrices that spread every element over all others at the price of a few additions: random
 * signs, then a Hadamard matrix of a power of two (Sylvester's) times a small matrix for the odd factor. */
#ifndef QUOLL_HADAMARD_H
#define QUOLL_HADAMARD_H

#include <stdint.h>

/* Q = D (A ⊗ H): D random signs, A (m, m) orthogonal, H (2^k, 2^k) of ± 2^(−k/2), n = m · 2^k, m odd. A is
 * the discrete Hartley transform, A[i][j] = (cos 2πij/m + sin 2πij/m) / √m (Bracewell 1983): of all odd
 * orders, none of which but 1 has a Hadamard matrix, it has no element beyond √(2/m). A and H are symmetric,
 * so that Qᵀx = (A ⊗ H) D x is also what becomes of a row y as y Q. */
struct rotation {
    int64_t n, m;
    double *sign;  /* (n): ± 2^(−k/2) */
    double *small; /* (m, m): A */
};

/* −1: out of memory. */
int rotation_init(struct rotation *r, int64_t n, uint64_t seed);
void rotation_free(struct rotation *r); /* a zeroed one is fine */

/* x (n, width) becomes Qᵀ x; room (n, width). */
void rotation_apply(const struct rotation *r, double *x, int64_t width, double *room);

#endif

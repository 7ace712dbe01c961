/* Importance matrices: for every matrix of a model, the sum over a text's tokens of each input column's
 * square, and how many tokens that were. Their mean weighs a quantiser's errors (lab/importance.h).
 *
 * Two kinds of files are read. llama.cpp's GGUF: general.type "imatrix", the array of strings
 * imatrix.datasets, imatrix.chunk_count and imatrix.chunk_size (u32), and for each matrix NAME two F32
 * tensors, NAME.in_sum2 [cols, experts] and NAME.counts [1, experts]. And its older binary file,
 * little-endian:
 *
 *   4   entries, each:
 *         4   length of the name, and the name         4   calls (chunks)
 *         4   values, and 4 · values   floats: mean of squares · calls
 *   4   chunks                                         4   length of the data set's name, and the name
 *
 * The last two may be missing. The older file does not say how many experts' rows its values are, nor how
 * many tokens a chunk had: one expert, and `chunk_size` tokens. Files are written as GGUF. */
#ifndef QUOLL_IMATRIX_H
#define QUOLL_IMATRIX_H

#include "lab/importance.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct imatrix;

struct imatrix *imatrix_new(void);     /* NULL: out of memory */
void imatrix_free(struct imatrix *im); /* NULL is fine */
size_t imatrix_n(const struct imatrix *im);
int64_t imatrix_n_chunks(const struct imatrix *im);

/* Adds sums [n_experts][cols] and tokens [n_experts] to what the name has. −1: another shape than before, out
 * of memory, a value that is not finite or below 0. */
int imatrix_add(struct imatrix *im, const char *name, int64_t cols, int n_experts, const double *sum,
                const double *count, char *err, size_t errlen);
/* One more text of so many chunks. name: for the file's metadata. */
int imatrix_add_text(struct imatrix *im, const char *name, int64_t n_chunks, char *err, size_t errlen);
/* Adds what a file has; chunk_size: of an older file. */
int imatrix_read(struct imatrix *im, const char *path, int64_t chunk_size, char *err, size_t errlen);
/* Matrices that no token reached are left out; so are experts, whose sums and count are 0. */
int imatrix_write(const struct imatrix *im, const char *path, int64_t chunk_size, char *err, size_t errlen);

/* The means. NULL: out of memory. */
struct importance *imatrix_importance(const struct imatrix *im);
/* … of a file. */
int importance_read(struct importance **out, const char *path, char *err, size_t errlen);

#endif

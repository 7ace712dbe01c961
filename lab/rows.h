/* Rows of a matrix quantised one by one, on all threads: round to nearest, and what is built on it. */
#ifndef QUOLL_ROWS_H
#define QUOLL_ROWS_H

#include "quant/quant.h"

/* What a matrix becomes. */
struct rows_format {
    enum qtype type;
    int64_t group; /* columns that share scales: the type's block length; of INT types, whose blocks then have
                    * the same scale and zero, a multiple of it */
};

/* n elements, a multiple of the group; codes: room for a group. */
void format_quantise(const struct rows_format *f, void *dst, const float *x, const float *importance,
                     int64_t n, uint8_t *codes);

/* w (rows, cols) to rows of the format at dst; importance (cols) weighs the columns' squared errors, NULL:
 * all the same. −1: out of memory. */
int rows_quantise(const struct rows_format *f, void *dst, const float *w, const float *importance,
                  int64_t rows, int64_t cols, int n_threads);

/* The same for the sum of |error|^p, p below 1, which lets a few values be far off so that the others come
 * closer, as HQQ does (Badri & Shaji 2023, "Half-Quadratic Quantization"): squared errors are weighed by
 * |error|^(p − 2) of the round before, the multiplicative form of half-quadratic minimisation (Geman &
 * Reynolds 1992), which needs no more of a type than its weighted fit. −1: out of memory. */
int rows_quantise_hqq(const struct rows_format *f, void *dst, const float *w, const float *importance,
                      int64_t rows, int64_t cols, int n_threads);

/* 0, or −1 and a line that names file, tensor, row and column of the first value that is not finite. x
 * (rows, cols): the tensor's rows from row0 on. */
int rows_check_finite(const float *x, int64_t row0, int64_t rows, int64_t cols, const char *file,
                      const char *tensor, char *err, size_t errlen);

#endif

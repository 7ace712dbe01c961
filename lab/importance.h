/* How much each input column of a matrix matters: the mean of its squared activations over a calibration
 * text. The quantisers weigh the squared error of a column's weights by it. Tensors go by their GGUF names
 * ("blk.0.attn_q.weight"), as in llama.cpp's imatrix files. */
#ifndef QUOLL_IMPORTANCE_H
#define QUOLL_IMPORTANCE_H

#include <stddef.h>
#include <stdint.h>

struct importance; /* a table name → entry; one thread changes it, any number may read */

struct importance_entry {
    const char *name; /* owned by the table */
    int64_t cols;     /* of the matrix: its row length */
    int n_experts;    /* 1 for a plain matrix */
    float *mean;      /* [n_experts][cols], owned by the table; an expert's row that is all zero (no token
                       * reached it) counts as not measured */
};

struct importance *importance_new(void);         /* NULL: out of memory */
void importance_free(struct importance *t);      /* NULL is fine */
size_t importance_n(const struct importance *t); /* entries */
/* Entry i in the order of their first importance_set. Lent until the next importance_set. */
const struct importance_entry *importance_at(const struct importance *t, size_t i);

/* Copies mean[n_experts][cols] in, over what the name had before. −1: out of memory, or cols or n_experts
 * below 1. */
int importance_set(struct importance *t, const char *name, int64_t cols, int n_experts, const float *mean);

/* NULL: the table has no such name. The caller compares the shape. t may be NULL: an empty table. */
const struct importance_entry *importance_find(const struct importance *t, const char *name);

#endif

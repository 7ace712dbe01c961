/* Methods that quantise a model with a calibration text: layer by layer, each with the inputs that the layers
 * quantised before it give. One layer's weights, their second moments and the text's rows are in memory. */
#ifndef QUOLL_CALIBRATE_H
#define QUOLL_CALIBRATE_H

#include "lab/rows.h"
#include "model/export.h"

/* How codes are found, once inputs are known. */
enum solver {
    SOLVE_NEAREST, /* each weight by itself, scales by least squares weighed with the inputs' squares */
    SOLVE_HQQ,     /* rows_quantise_hqq, without inputs: no text is needed */
    SOLVE_GPTQ,    /* gptq.h */
};

struct calibration {
    enum solver solver;
    bool awq; /* columns are scaled first (awq.h) where the operator before can take it */
    bool act_order;
    double damp;        /* GPTQ's; 0: 0.01 */
    const int32_t *ids; /* the text's */
    int64_t n_ids;
    int seq_len;
    int n_threads;
    const struct ops *ops;
    bool (*stop)(void);
};

struct calibrate;

/* What becomes of matrices: format[i] is that of the export's tensor i, group 0: it stays. A type without
 * code grid gets SOLVE_NEAREST instead of SOLVE_GPTQ. w, e and what o and format point to must outlive it.
 * −1: too short a text, no method for this model, out of memory. */
int calibrate_open(struct calibrate **out, struct weights *w, const struct export *e,
                   const struct rows_format *format, const struct calibration *o, char *err, size_t errlen);
void calibrate_close(struct calibrate *k); /* NULL is fine */

/* The calibration text as it goes into the layer after the last that was made: n floats, to be saved then, or
 * to be set before that layer is made, which may be any. NULL: no text goes through the model. */
float *calibrate_text_rows(struct calibrate *k, size_t *n);

/* Makes layer l, the one after the last; what was made of that is forgotten. 1: o->stop said so. −1: a weight
 * that is not finite (its tensor named), out of memory. */
int calibrate_layer(struct calibrate *k, int l, char *err, size_t errlen);
/* The current layer's tensor i: all rows in its format, NULL: it stays. Lent until the next layer. */
const void *calibrate_rows(const struct calibrate *k, size_t i);
/* … a vector that changed (a norm, a bias), NULL: it stays. */
const float *calibrate_vector(const struct calibrate *k, size_t i);

/* The same by what they are: the first row of a role's matrix (expert −1: it has none), a vector's first
 * element. */
const void *calibrate_role_rows(const struct calibrate *k, enum role role, int expert);
const float *calibrate_role_vector(const struct calibrate *k, enum role role, int layer);

#endif

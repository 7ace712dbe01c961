/* Rotations folded into a model's weights: QuaRot (Ashkboos et al. 2024, arXiv:2404.00456) as far as nothing
 * of it is left to do at run time, which are R1 and R2 of SpinQuant (Liu et al. 2024, arXiv:2405.16406).
 *
 * The residual stream x becomes Qᵀx: what reads it, behind an RMSNorm of gain g, is W diag(g) Q and the gain
 * 1, for RMSNorm without gain commutes with Q; what adds to it is Qᵀ W. In each head the values v become Rᵀv.
 * The model computes the same, its weights and inputs have no outliers any more. */
#ifndef QUOLL_ROTATE_H
#define QUOLL_ROTATE_H

#include "weights/weights.h"

#include <stdbool.h>

struct rotate_options {
    int n_threads;
    /* Called before each tensor; false ends the work. NULL: nobody. */
    bool (*progress)(void *arg, const char *tensor, double fraction);
    void *arg;
};

/* Writes the rotated model as a GGUF of F32, with a vocabulary only if w is a GGUF. A model whose
 * output matrix is its embedding gets one of its own, for the two are no longer the same: *untied (may be
 * NULL) says so. In memory are a few MiB, or one matrix that adds to the residual stream. The file does not
 * depend on the number of threads. −1 leaves no file: an architecture that a rotation would change, a value
 * that is not finite (its tensor named), what weights_save_gguf says; `err` is empty where progress ended it.
 */
int rotate_write(const char *path, const struct weights *w, const struct rotate_options *o, bool *untied,
                 char *err, size_t errlen);
/* The same, opened, and already without a name: it is gone when it is closed, or the program ends. */
int rotate_open(struct weights **out, const char *path, const struct weights *w,
                const struct rotate_options *o, bool *untied, char *err, size_t errlen);

#endif

/* `quoll quantize --target-bpw`: a type for every matrix, chosen by what it costs under a size budget. */
#ifndef QUOLL_QUANTIZE_TARGET_H
#define QUOLL_QUANTIZE_TARGET_H

#include "lab/quantize.h"
#include "tools/options.h"

struct target_options {
    double bpw;                   /* bits per weight that the model may have, all tensors counted */
    const char *calib;            /* the text's path */
    const struct weights *source; /* whose tokenizer reads it */
    const char *types; /* names with commas between: what may be chosen; NULL: all that can be written */
    int64_t n_probe;   /* tokens every matrix is tried on; 0: sensitivity.h's default */
    const struct importance *importance; /* NULL: from the text */
    bool weighed;                        /* the matrices will be quantised with importances */
    const struct lora_list *lora;
    int n_threads;
    /* Told before each step: what, and how much is done. */
    void (*progress)(void *arg, const char *step, double fraction);
    void *arg;
};

struct target;

/* 0, or an exit code after saying which name is no type. */
int target_check_types(const char *names);
/* Measures; −1: an error, or interrupted (err is empty then). What o points to must outlive it. */
int target_open(struct target **out, struct weights *w, const struct target_options *o, char *err,
                size_t errlen);
void target_close(struct target *t);                                /* NULL is fine */
const struct importance *target_importance(const struct target *t); /* those given, or the text's; lent */

/* Changes the types of q's matrices, but for those that options fix. −1: the budget is too small. */
int target_apply(struct target *t, struct quantize *q, char *err, size_t errlen);
/* Tensor by tensor on stdout: what was chosen, what that costs; and in notes the sums, beside those of the
 * types that q had before, which are a mix of this name. */
void target_print(const struct target *t, const struct quantize *q, const char *mix, bool tensors);

#endif

/* How much each matrix of a model matters: how far the output moves when it alone is quantised, measured on a
 * text for one type, and carried over to all others by their squared errors.
 *
 * To second order, errors δ of the weights cost a divergence of ½ δᵀ F δ (F: the Fisher information).
 * Rounding errors of different matrices have nothing to do with each other, so that costs add up, and scaling
 * an error by s scales its cost by s². */
#ifndef QUOLL_SENSITIVITY_H
#define QUOLL_SENSITIVITY_H

#include "lab/importance.h"
#include "model/model.h"

struct sensitivity_options {
    const int32_t *ids; /* the text's */
    int64_t n_ids;
    int32_t bos; /* takes the place of each window's first token; −1: none does */
    int64_t
        n_probe; /* tokens that every matrix is tried on; 0: 384. Windows of them are spread over the text */
    int64_t n_collect;                   /* tokens that importances are taken from; 0: 4096 */
    double probe_bits;                   /* the type that is tried has about so many; 0: 4 */
    const struct importance *importance; /* NULL: collected from the text */
    bool weighed;                        /* the quantisers will have the importances */
    const struct lora_option *lora;      /* adapters to be merged first */
    size_t n_lora;
    int n_threads;
    const struct ops *ops;
    bool (*stop)(void); /* NULL: never */
    /* Told before each step; NULL: nobody. */
    void (*progress)(void *arg, const char *step, double fraction);
    void *arg;
};

struct sensitivity_tensor {
    const char *name; /* as in GGUF files */
    int64_t cols, rows;
    enum qtype probe;
    double probe_kl;              /* mean divergence from the model as it is, with this tensor as `probe` */
    double error[QTYPE_N_MATRIX]; /* of the product, squared, over that of the product: estimated from some
                                   * rows; −1: types that cannot be written, or not rows of this length */
};

struct sensitivity;

enum { SENSITIVITY_STOPPED = 1 };

/* Runs w's model, all of it in memory, with logits of n_probe tokens beside it. The work is about n_probe
 * · 3.5 · n_layers² layers' products. The same result for every number of threads. −1: the text is too
 * short, logits that are not finite, out of memory. */
int sensitivity_open(struct sensitivity **out, struct weights *w, const struct sensitivity_options *o,
                     char *err, size_t errlen);
void sensitivity_close(struct sensitivity *s); /* NULL is fine */

/* All matrices but routers, in the order of a GGUF that is written. */
const struct sensitivity_tensor *sensitivity_tensors(const struct sensitivity *s, size_t *n);
const struct sensitivity_tensor *sensitivity_find(const struct sensitivity *s, const char *name);
/* Those that were given or collected; lent. */
const struct importance *sensitivity_importance(const struct sensitivity *s);
/* What t costs; types of 16 bits and more: 0. −1: no such rows. */
double sensitivity_kl(const struct sensitivity_tensor *s, enum qtype t);

#endif

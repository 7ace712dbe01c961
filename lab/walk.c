#include "lab/walk.h"

#include "model/bind.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdlib.h>

enum { BATCH = 512 }; /* tokens that are in the layer at once */

struct walk {
    struct weights *w;
    struct walk_options o;
    const int32_t *ids;
    int64_t n; /* tokens in whole sequences */
    int dim;
    int layer; /* −1: none yet */
    float *rows;
    uint8_t *no_logits;
    struct model *model; /* the current layer */
    struct cache *cache;
    struct context *context;
};

int walk_open(struct walk **out, struct weights *w, const int32_t *ids, int64_t n,
              const struct walk_options *o, char *err, size_t errlen)
{
    *out = NULL;
    struct config c;
    if (config_read(&c, w, err, errlen))
        return -1;
    if (n < o->seq_len)
        return err_set(err, errlen, "the calibration text has %" PRId64 " tokens: at least %d are needed", n,
                       o->seq_len);
    struct walk *k = calloc(1, sizeof *k);
    if (!k)
        return err_set(err, errlen, "out of memory");
    *k = (struct walk){.w = w, .o = *o, .ids = ids, .n = n - n % o->seq_len, .dim = c.dim, .layer = -1};
    k->rows = calloc((size_t)k->n * (size_t)c.dim, sizeof *k->rows);
    k->no_logits = calloc((size_t)o->seq_len, sizeof *k->no_logits);
    if (!k->rows || !k->no_logits) {
        walk_close(k);
        return err_set(err, errlen, "not enough memory for the rows of %" PRId64 " calibration tokens", n);
    }
    *out = k;
    return 0;
}

static void drop_layer(struct walk *k)
{
    context_free(k->context);
    cache_free(k->cache);
    model_free(k->model);
    k->context = NULL;
    k->cache = NULL;
    k->model = NULL;
}

void walk_close(struct walk *k)
{
    if (!k)
        return;
    drop_layer(k);
    free(k->no_logits);
    free(k->rows);
    free(k);
}

int64_t walk_n_tokens(const struct walk *k)
{
    return k->n;
}

float *walk_rows(struct walk *k)
{
    return k->rows;
}

int walk_layer(struct walk *k, int l, char *err, size_t errlen)
{
    const struct model_options mo = {
        .ops = k->o.ops, .n_threads = k->o.n_threads, .rope_scaling = -1, .first_layer = l, .n_layers = 1};
    const struct cache_options co = {
        .n_ctx = k->o.seq_len, .n_seqs = 1, .type_k = QTYPE_F32, .type_v = QTYPE_F32, .max_batch = BATCH};
    const struct context_options xo = {.n_threads = k->o.n_threads,
                                       .n_threads_batch = k->o.n_threads,
                                       .max_batch = BATCH,
                                       .compute = COMPUTE_F32};
    drop_layer(k);
    if (model_load(&k->model, k->w, &mo, err, errlen) || cache_new(&k->cache, k->model, &co, err, errlen) ||
        context_new(&k->context, k->model, k->cache, &xo, err, errlen))
        return -1;
    k->layer = l;
    return 0;
}

int walk_replace(struct walk *k, enum role role, int expert, const float *rows, char *err, size_t errlen)
{
    const struct binding b = {.role = role, .layer = 0, .expert = expert};
    if (matrix_replace(k->model, binding_place(k->model, &b), QTYPE_F32, rows))
        return err_set(err, errlen, "not enough memory for a matrix of layer %d", k->layer);
    return 0;
}

int walk_run(struct walk *k, bool step,
             void (*observe)(void *arg, struct worker *w, const struct observation *o), void *arg, char *err,
             size_t errlen)
{
    for (int64_t at = 0; at < k->n; at += k->o.seq_len) {
        float *rows = k->rows + at * k->dim;
        const struct batch b = {.n = k->o.seq_len,
                                .id = k->ids + at,
                                .want_logits = k->no_logits,
                                .rows_in = k->layer > 0 ? rows : NULL,
                                .rows_out = step ? rows : NULL,
                                .observe = observe,
                                .observe_arg = arg};
        (void)cache_truncate(k->cache, 0, 0);
        if (context_eval(k->context, &b, NULL, err, errlen))
            return -1;
        if (k->o.stop && k->o.stop())
            return WALK_STOPPED;
    }
    return 0;
}

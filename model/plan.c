/* How much memory a model, its cache and a context would take, by the same steps that allocate it. */
#include "model/bind.h"
#include "model/context.h"
#include "model/rope.h"

int model_plan(struct model_plan *p, const struct weights *w, const struct model_options *mo,
               const struct cache_options *co, const struct context_options *xo, char *err, size_t errlen)
{
    /* Marks that stand for what a loaded model has; nothing reads what they point to. */
    static struct rope windowed;
    static int32_t order;
    struct model m = {.ops = mo->ops};
    struct binding *b;
    size_t n;
    if (config_read(&m.config, w, err, errlen) ||
        bind_tensors(&b, &n, w, &m.config, (enum qtype)mo->quantize, err, errlen))
        return -1;
    m.rope_windowed = m.config.rope_theta_windowed != 0 ? &windowed : NULL;
    *p = (struct model_plan){0};
    for (size_t i = 0; i < n; i++) {
        const struct source *s = &b[i].source;
        int64_t tiles = (s->rows + TILE_ROWS - 1) / TILE_ROWS;
        p->weight_bytes += role_is_matrix(b[i].role)
                               ? (uint64_t)(tiles * TILE_ROWS * qtype_bytes(s->type, s->cols))
                               : (uint64_t)s->cols * sizeof(float);
        if (s->sorted) {
            p->weight_bytes += (uint64_t)s->cols * sizeof *s->sorted;
            m.orders = &order;
        }
    }
    bindings_free(b, n);
    p->scratch_bytes = context_plan(&m, xo, co->n_ctx);
    return cache_plan(&p->kv_bytes, &m, co, err, errlen);
}

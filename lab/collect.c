#include "lab/collect.h"

#include "model/bind.h"
#include "model/observe.h"
#include "quant/err.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Always −1, also to those who read the code without running it. */
static int no_memory(char *err, size_t errlen)
{
    (void)err_set(err, errlen, "out of memory");
    return -1;
}

/* Of the matrices with one role in one layer. */
struct slot {
    enum role same_as; /* the role whose input it shares: that slot has the sums */
    double *sum;       /* (n_experts, cols) */
    double *count;     /* (n_experts) */
};

struct collection {
    const struct collect_run *run;
    const struct ops *ops;
    struct slot *slot; /* (n_layers + 1, N_ROLES): the model's own come first */
    float *rows;       /* a copy of the rows, where the backend's memory is not the host's */
    size_t rows_bytes;
    bool no_memory;
};

static struct slot *slot_at(const struct collection *c, int layer, enum role role)
{
    return &c->slot[(size_t)(layer + 1) * N_ROLES + (size_t)role];
}

static int n_experts_of(const struct config *c, enum role role)
{
    bool stacked = role == ROLE_GATE_EXPS || role == ROLE_UP_EXPS || role == ROLE_DOWN_EXPS;
    return stacked ? c->n_experts : 1;
}

/* ---- In the forward pass --------------------------------------------------------------------------- */

/* By one thread: what the others need to go on. */
static void prepare(struct collection *c, const struct observation *o, struct slot *s, int expert)
{
    const struct matrix *first = o->part[0];
    const int n_experts = n_experts_of(model_config(c->run->model), first->role);
    for (int i = 1; i < o->n_parts; i++)
        slot_at(c, o->part[i]->layer, o->part[i]->role)->same_as = first->role;
    if (!s->sum) {
        s->sum = calloc((size_t)n_experts * (size_t)o->cols, sizeof *s->sum);
        s->count = calloc((size_t)n_experts, sizeof *s->count);
    }
    if (!c->ops->on_host) {
        const size_t bytes = (size_t)o->n * (size_t)o->cols * sizeof *c->rows;
        if (bytes > c->rows_bytes) {
            free(c->rows);
            c->rows = malloc(bytes);
            c->rows_bytes = c->rows ? bytes : 0;
        }
        if (c->rows)
            c->ops->download(c->rows, o->x, bytes);
    }
    c->no_memory |= !s->sum || !s->count || (!c->ops->on_host && !c->rows);
    if (!c->no_memory)
        s->count[expert] += o->n;
}

static void observe(void *arg, struct worker *w, const struct observation *o)
{
    struct collection *c = arg;
    const struct matrix *first = o->part[0];
    if (first->layer < 0 && !c->run->output)
        return;
    struct slot *s = slot_at(c, first->layer, first->role);
    const int expert = first->expert > 0 ? first->expert : 0;
    if (w->id == 0)
        prepare(c, o, s, expert);
    team_barrier(w);
    if (c->no_memory)
        return;
    const float *x = c->ops->on_host ? o->x : c->rows;
    double *sum = s->sum + (int64_t)expert * o->cols;
    int64_t begin, end;
    while (team_next(w, o->cols, 64, &begin, &end))
        for (int t = 0; t < o->n; t++) {
            const float *row = x + (int64_t)t * o->cols;
#pragma omp simd
            for (int64_t i = begin; i < end; i++)
                sum[i] += (double)row[i] * (double)row[i];
        }
}

/* ---- Names ------------------------------------------------------------------------------------------- */

/* The first name under which GGUF files of the architecture have the role, alone or fused with others. */
static bool name_of(char name[NAME_MAX_BYTES], const struct config *c, enum role role, int layer)
{
    if (role == ROLE_TOKEN_EMBD) /* as the output, in models where it is both */
        role = ROLE_OUTPUT;
    for (const struct naming *n = c->arch->gguf_names; n; n = n->base)
        for (const struct name *p = n->names; p->pattern; p++)
            for (int i = 0; i < NAME_ROLES && p->role[i]; i++)
                if (p->role[i] == role && !strchr(p->pattern, '@')) {
                    naming_expand(name, p->pattern, layer, -1);
                    return true;
                }
    return false;
}

static int add_slots(struct imatrix *im, const struct collection *c, char *err, size_t errlen)
{
    const struct config *config = model_config(c->run->model);
    char before[NAME_MAX_BYTES] = "", name[NAME_MAX_BYTES];
    for (int layer = -1; layer < config->n_layers; layer++)
        for (int role = 0; role < N_ROLES; role++) {
            const struct slot *s = slot_at(c, layer, (enum role)role);
            if (s->same_as)
                s = slot_at(c, layer, s->same_as);
            int64_t rows, cols;
            if (!s->sum || !name_of(name, config, (enum role)role, layer) || strcmp(name, before) == 0)
                continue;
            role_shape(config, (enum role)role, &rows, &cols);
            if (imatrix_add(im, name, cols, n_experts_of(config, (enum role)role), s->sum, s->count, err,
                            errlen))
                return -1;
            memcpy(before, name, sizeof before); /* fused: the next role may be the same tensor's */
        }
    return 0;
}

/* ---- Chunks ------------------------------------------------------------------------------------------ */

static void take_nothing(void *arg, int thread, int64_t i, const float *row)
{
    (void)arg;
    (void)thread;
    (void)i;
    (void)row;
}

/* Chunks first … first + n − 1, each a sequence of its own. */
static int eval_chunks(struct collection *c, int64_t first, int n, int32_t *id, int32_t *seq, uint8_t *want,
                       char *err, size_t errlen)
{
    const struct collect_run *r = c->run;
    const int64_t len = n * r->n_ctx;
    memcpy(id, r->ids + first * r->n_ctx, (size_t)len * sizeof *id);
    for (int s = 0; s < n; s++) {
        cache_drop(r->cache, s);
        if (r->bos >= 0)
            id[s * r->n_ctx] = r->bos;
    }
    for (int64_t i = 0; i < len; i++)
        seq[i] = (int32_t)(i / r->n_ctx);
    memset(want, r->output, (size_t)len);
    const struct batch b = {.n = (int)len,
                            .id = id,
                            .seq = seq,
                            .want_logits = want,
                            .stop = r->stop,
                            .take = take_nothing,
                            .observe = observe,
                            .observe_arg = c};
    int rc = context_eval(r->context, &b, NULL, err, errlen);
    return rc == 0 && c->no_memory ? no_memory(err, errlen) : rc;
}

static void free_slots(struct collection *c)
{
    const size_t n = (size_t)(model_config(c->run->model)->n_layers + 1) * N_ROLES;
    for (size_t i = 0; c->slot && i < n; i++) {
        free(c->slot[i].sum);
        free(c->slot[i].count);
    }
    free(c->slot);
    free(c->rows);
}

int collect_importance(struct imatrix *im, const struct collect_run *r, int64_t *n_chunks, char *err,
                       size_t errlen)
{
    const struct config *config = model_config(r->model);
    struct collection c = {.run = r, .ops = r->model->ops};
    int64_t end = r->n_ids / r->n_ctx;
    *n_chunks = 0;
    if (end <= r->first)
        return err_set(err, errlen,
                       "the text is too short: %" PRId64 " tokens, no chunk of %" PRId64
                       " from number %" PRId64 " on",
                       r->n_ids, r->n_ctx, r->first);
    if (r->max_chunks > 0 && end - r->first > r->max_chunks)
        end = r->first + r->max_chunks;
    const size_t n = (size_t)(r->n_ctx * r->n_parallel);
    int32_t *id = malloc(n * sizeof *id), *seq = malloc(n * sizeof *seq);
    uint8_t *want = malloc(n);
    c.slot = calloc((size_t)(config->n_layers + 1) * N_ROLES, sizeof *c.slot);
    int rc = id && seq && want && c.slot ? 0 : no_memory(err, errlen);
    for (int64_t at = r->first; rc == 0 && at < end;) {
        const int parallel = end - at < r->n_parallel ? (int)(end - at) : r->n_parallel;
        rc = r->stop && r->stop() ? CONTEXT_STOPPED
                                  : eval_chunks(&c, at, parallel, id, seq, want, err, errlen);
        if (rc)
            break;
        at += parallel;
        *n_chunks = at - r->first;
        if (r->progress)
            r->progress(r->arg, *n_chunks, end - r->first);
    }
    if (rc >= 0 && c.slot && add_slots(im, &c, err, errlen))
        rc = -1;
    free_slots(&c);
    free(want);
    free(seq);
    free(id);
    return rc;
}

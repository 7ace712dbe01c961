#include "lab/generate.h"

#include "lab/divergence.h"
#include "quant/err.h"

#include <stdlib.h>

struct generation {
    const struct asker *asker;
    int64_t vocab_size;
    struct held_prefix prefix;
    struct growing_batch batch;
    size_t *at;    /* (n_seqs): the continuation a sequence is busy with */
    bool *busy;    /* (n_seqs) */
    int *row_seq;  /* (n_seqs): the sequence of each row */
    int32_t *best; /* (n_seqs): the row's likeliest id */
};

static void take(void *arg, int thread, int64_t i, const float *row)
{
    struct generation *g = arg;
    (void)thread;
    g->best[i] = (int32_t)logits_top(row, g->vocab_size);
}

static int begin(struct generation *g, int seq, const struct continuation *c, char *err, size_t errlen)
{
    int64_t same = common_prefix(g->prefix.id, g->prefix.n, c->prompt, c->n_prompt - 1);
    if (same < g->prefix.n)
        same = 0;
    for (int64_t i = lend_prefix(g->asker, seq, 0, same); i < c->n_prompt; i++)
        if (growing_batch_add(&g->batch, c->prompt[i], seq, i + 1 == c->n_prompt, err, errlen))
            return -1;
    return 0;
}

static int run(struct generation *g, struct continuation *c, size_t n, const struct generate_hooks *hooks,
               char *err, size_t errlen)
{
    const int n_seqs = g->asker->n_seqs;
    size_t next = 0, n_done = 0;
    while (n_done < n) {
        int n_rows = 0, rc = 0;
        for (int s = 1; rc == 0 && s < n_seqs; s++) {
            if (g->busy[s]) {
                const struct continuation *k = &c[g->at[s]];
                rc = growing_batch_add(&g->batch, k->id[k->n - 1], s, true, err, errlen);
            } else if (next < n) {
                g->busy[s] = true;
                g->at[s] = next++;
                rc = begin(g, s, &c[g->at[s]], err, errlen);
            } else {
                continue;
            }
            g->row_seq[n_rows++] = s;
        }
        if (rc == 0)
            rc = growing_batch_eval(&g->batch, g->asker, take, g, err, errlen);
        if (rc)
            return rc;
        for (int i = 0; i < n_rows; i++) {
            const int s = g->row_seq[i];
            struct continuation *k = &c[g->at[s]];
            k->id[k->n++] = g->best[i];
            if (k->n < k->max && !hooks->ended(hooks->arg, g->at[s], k))
                continue;
            g->busy[s] = false;
            n_done++;
            if (hooks->progress)
                hooks->progress(hooks->arg, n_done);
        }
    }
    return 0;
}

int generate_greedy(const struct asker *a, struct continuation *c, size_t n,
                    const struct generate_hooks *hooks, char *err, size_t errlen)
{
    const size_t n_seqs = (size_t)a->n_seqs;
    struct generation g = {.asker = a,
                           .vocab_size = model_config(a->model)->vocab_size,
                           .at = calloc(n_seqs, sizeof *g.at),
                           .busy = calloc(n_seqs, sizeof *g.busy),
                           .row_seq = calloc(n_seqs, sizeof *g.row_seq),
                           .best = calloc(n_seqs, sizeof *g.best)};
    int rc = g.at && g.busy && g.row_seq && g.best ? 0 : err_set(err, errlen, "out of memory");
    int64_t same = n > 0 ? c[0].n_prompt - 1 : 0;
    for (size_t i = 0; i < n; i++) {
        same = common_prefix(c[0].prompt, same, c[i].prompt, c[i].n_prompt - 1);
        c[i].n = 0;
    }
    if (rc == 0 && n > 0)
        rc = held_prefix_set(&g.prefix, a, c[0].prompt, same, err, errlen);
    if (rc == 0)
        rc = run(&g, c, n, hooks, err, errlen);
    held_prefix_free(&g.prefix);
    growing_batch_free(&g.batch);
    free(g.at);
    free(g.busy);
    free(g.row_seq);
    free(g.best);
    return rc;
}

#include "lab/prefix.h"

#include "quant/err.h"

#include <stdlib.h>
#include <string.h>

int growing_batch_add(struct growing_batch *b, int32_t id, int seq, bool want, char *err, size_t errlen)
{
    if (b->n == b->cap) {
        const int cap = b->cap ? 2 * b->cap : 1024;
        int32_t *ids = realloc(b->id, (size_t)cap * sizeof *ids);
        if (ids)
            b->id = ids;
        int32_t *seqs = realloc(b->seq, (size_t)cap * sizeof *seqs);
        if (seqs)
            b->seq = seqs;
        uint8_t *wants = realloc(b->want, (size_t)cap);
        if (wants)
            b->want = wants;
        if (!ids || !seqs || !wants)
            return err_set(err, errlen, "out of memory");
        b->cap = cap;
    }
    b->id[b->n] = id;
    b->seq[b->n] = seq;
    b->want[b->n++] = want;
    return 0;
}

void growing_batch_free(struct growing_batch *b)
{
    free(b->id);
    free(b->seq);
    free(b->want);
    *b = (struct growing_batch){.n = 0};
}

int growing_batch_eval(struct growing_batch *b, const struct asker *a,
                       void (*take)(void *arg, int thread, int64_t i, const float *row), void *arg, char *err,
                       size_t errlen)
{
    const struct batch all = {.n = b->n,
                              .id = b->id,
                              .seq = b->seq,
                              .want_logits = b->want,
                              .stop = a->stop,
                              .take = take,
                              .take_arg = arg};
    if (b->n == 0)
        return 0;
    b->n = 0;
    return a->stop && a->stop() ? CONTEXT_STOPPED : context_eval(a->context, &all, NULL, err, errlen);
}

void held_prefix_free(struct held_prefix *h)
{
    free(h->id);
    *h = (struct held_prefix){.n = 0};
}

int64_t common_prefix(const int32_t *a, int64_t n_a, const int32_t *b, int64_t n_b)
{
    int64_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

/* No row is wanted. */
static void take_nothing(void *arg, int thread, int64_t i, const float *row)
{
    (void)arg;
    (void)thread;
    (void)i;
    (void)row;
}

int held_prefix_set(struct held_prefix *h, const struct asker *a, const int32_t *ids, int64_t n, char *err,
                    size_t errlen)
{
    if (model_needs_whole_prompt(a->model))
        return 0;
    int64_t same = cache_truncate(a->cache, 0, common_prefix(h->id, h->n, ids, n));
    h->n = same;
    if (n > h->cap) {
        int32_t *grown = realloc(h->id, (size_t)n * sizeof *grown);
        if (!grown)
            return err_set(err, errlen, "out of memory");
        h->id = grown;
        h->cap = n;
    }
    struct growing_batch b = {.n = 0};
    int rc = 0;
    for (int64_t i = same; rc == 0 && i < n; i++)
        rc = growing_batch_add(&b, ids[i], 0, false, err, errlen);
    if (rc == 0)
        rc = growing_batch_eval(&b, a, take_nothing, NULL, err, errlen);
    growing_batch_free(&b);
    if (rc)
        return rc;
    if (n > 0)
        memcpy(h->id, ids, (size_t)n * sizeof *ids);
    h->n = n;
    return 0;
}

int64_t lend_prefix(const struct asker *a, int to, int from, int64_t n)
{
    cache_drop(a->cache, to);
    if (n > 0 && cache_len(a->cache, from) >= n && cache_copy_prefix(a->cache, to, from, n) == 0)
        return n;
    cache_drop(a->cache, to);
    return 0;
}

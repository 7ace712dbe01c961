/* Batches: checked whole, cut into slices, evaluated one after the other; and the memory they need, all of
 * it taken before the first. */
#include "model/context.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_THREADS = 1024,
    MAX_SLICE = 1 << 16,
    BUFFER_ALIGN = 64,
};

/* ---- Batches ------------------------------------------------------------------------------------ */

/* Checks all of a batch before any of it is evaluated. Leaves each sequence's length with the batch in
 * x->len and counts the wanted rows. */
static int check_batch(struct context *x, const struct batch *b, int64_t *n_want, char *err, size_t errlen)
{
    const struct config *c = &x->model->config;
    int n_seqs = cache_n_seqs(x->cache);
    if (b->n < 1)
        return err_set(err, errlen, "a batch of no tokens");
    for (int s = 0; s < n_seqs; s++)
        x->len[s] = x->start[s] = cache_len(x->cache, s);
    for (int i = 0; i < b->n; i++) {
        if (b->id[i] < 0 || b->id[i] >= c->vocab_size)
            return err_set(err, errlen,
                           "token %d of the batch: id %" PRId32 " is outside the vocabulary of %d", i,
                           b->id[i], c->vocab_size);
        int32_t seq = b->seq ? b->seq[i] : 0;
        if (seq < 0 || seq >= n_seqs)
            return err_set(err, errlen, "token %d of the batch: sequence %" PRId32 " is outside 0 … %d", i,
                           seq, n_seqs - 1);
        int64_t pos = x->len[seq]++;
        if (b->pos && b->pos[i] != pos)
            return err_set(err, errlen,
                           "token %d of the batch: position %" PRId64 " does not continue sequence %" PRId32
                           ", which has %" PRId64,
                           i, b->pos[i], seq, pos);
        if (c->sliding_window && pos >= c->sliding_window)
            return err_set(err, errlen,
                           "token %d of the batch: position %" PRId64
                           " is past the model's sliding window of %d, which is not supported yet",
                           i, pos, c->sliding_window);
        *n_want += b->want_logits ? b->want_logits[i] != 0 : i == b->n - 1;
    }
    return 0;
}

static int reserve(struct context *x, char *err, size_t errlen)
{
    int n_seqs = cache_n_seqs(x->cache);
    for (int s = 0; s < n_seqs; s++)
        if (x->len[s] > x->start[s] && cache_reserve(x->cache, s, x->len[s])) {
            for (int r = 0; r <= s; r++)
                cache_truncate(x->cache, r, x->start[r]);
            return err_set(err, errlen,
                           "the context is full: no room for %" PRId64
                           " more positions in the KV cache of %" PRId64,
                           x->len[s] - x->start[s], cache_capacity(x->cache));
        }
    return 0;
}

/* Tokens [from, from + n) of the batch become the slice; x->start counts each sequence's positions on. */
static void set_slice(struct context *x, const struct batch *b, int from, int n)
{
    x->id = b->id + from;
    x->n = n;
    x->n_want = 0;
    for (int i = 0; i < n; i++) {
        int32_t seq = b->seq ? b->seq[from + i] : 0;
        int64_t pos = x->pos[i] = x->start[seq]++;
        x->slot[i] =
            (struct kv_slot){.pages = cache_pages(x->cache, seq), .pos = pos, .begin = 0, .end = pos + 1};
        if (b->want_logits ? b->want_logits[from + i] != 0 : from + i == b->n - 1)
            x->want[x->n_want++] = i;
    }
}

int context_eval(struct context *x, const struct batch *b, const float **logits, char *err, size_t errlen)
{
    const int64_t vocab_size = x->model->config.vocab_size;
    int64_t n_want = 0;
    if (logits)
        *logits = NULL;
    if (check_batch(x, b, &n_want, err, errlen))
        return -1;
    if (n_want > x->logits_rows) {
        float *grown = NULL;
        if ((uint64_t)n_want <= SIZE_MAX / sizeof(float) / (uint64_t)vocab_size)
            grown = realloc(x->logits, (size_t)n_want * (size_t)vocab_size * sizeof(float));
        if (!grown)
            return err_set(err, errlen, "not enough memory for %" PRId64 " rows of logits", n_want);
        x->logits = grown;
        x->logits_rows = n_want;
    }
    if (reserve(x, err, errlen))
        return -1;

    x->fault.op = NULL;
    x->rows = x->logits;
    for (int from = 0; from < b->n && !x->fault.op; from += x->n) {
        int left = b->n - from;
        set_slice(x, b, from, left < x->opt.max_batch ? left : x->opt.max_batch);
        team_run_n(x->team, x->n == 1 ? x->opt.n_threads : x->opt.n_threads_batch, forward, x);
        x->rows += x->n_want * vocab_size;
    }

    int n_seqs = cache_n_seqs(x->cache);
    for (int s = 0; s < n_seqs; s++)
        if (x->fault.op)
            cache_truncate(x->cache, s, cache_len(x->cache, s));
        else
            cache_commit(x->cache, s, x->len[s]);
    if (x->fault.op && x->fault.layer >= 0)
        return err_set(err, errlen, "layer %d, %s: a value is not finite", x->fault.layer, x->fault.op);
    if (x->fault.op)
        return err_set(err, errlen, "%s: a value is not finite", x->fault.op);
    if (logits)
        *logits = x->logits;
    return 0;
}

/* ---- Life --------------------------------------------------------------------------------------- */

/* The next n · width floats of the arena. base NULL: only counts. */
static float *take(char *base, size_t *at, int64_t n, int64_t width)
{
    float *p = base ? (float *)(void *)(base + *at) : NULL;
    size_t bytes = (size_t)n * (size_t)width * sizeof(float);
    *at += (bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    return p;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Lays the buffers out in the arena; returns its size. */
static size_t lay_out(struct context *x, char *base)
{
    const struct config *c = &x->model->config;
    const struct ops *ops = x->model->ops;
    const int n = x->opt.max_batch;
    const int n_logits = n < LOGIT_ROWS ? n : LOGIT_ROWS;
    const int64_t q_width = (int64_t)c->n_heads * c->head_dim,
                  kv_width = (int64_t)c->n_kv_heads * c->head_dim;
    size_t at = 0;
    x->x = take(base, &at, n, c->dim);
    x->normed = take(base, &at, n, c->dim);
    x->rope = take(base, &at, n, c->rotary_dim);
    x->last = take(base, &at, n_logits, c->dim);
    x->chunk = take(base, &at, n_logits, c->vocab_size);

    size_t after_attention = at, after_ffn = at;
    x->q = take(base, &after_attention, n, q_width);
    x->k = take(base, &after_attention, n, kv_width);
    x->v = take(base, &after_attention, n, kv_width);
    x->mixed = take(base, &after_attention, n, q_width);
    x->gate = take(base, &after_ffn, n, c->ffn_dim);
    x->up = take(base, &after_ffn, n, c->ffn_dim);
    at = max_size(after_attention, after_ffn);

    size_t scratch = max_size(ops->scratch_bytes(n, c->dim),
                              max_size(ops->scratch_bytes(n, q_width), ops->scratch_bytes(n, c->ffn_dim)));
    x->linear_scratch = take(base, &at, 1, (int64_t)(scratch / sizeof(float) + 1));
    int n_threads = x->opt.n_threads > x->opt.n_threads_batch ? x->opt.n_threads : x->opt.n_threads_batch;
    x->attention_scratch_bytes =
        ops->attention_scratch_bytes(n, c->n_heads, c->head_dim, cache_capacity(x->cache), n_threads);
    x->attention_scratch = take(base, &at, 1, (int64_t)(x->attention_scratch_bytes / sizeof(float) + 1));
    return at;
}

int context_new(struct context **out, const struct model *m, struct cache *c,
                const struct context_options *opt, char *err, size_t errlen)
{
    *out = NULL;
    if (opt->n_threads < 1 || opt->n_threads > MAX_THREADS || opt->n_threads_batch < 1 ||
        opt->n_threads_batch > MAX_THREADS)
        return err_set(err, errlen, "%d threads (%d for prompts), outside 1 … %d", opt->n_threads,
                       opt->n_threads_batch, MAX_THREADS);
    if (opt->max_batch < 1 || opt->max_batch > MAX_SLICE)
        return err_set(err, errlen, "a batch size of %d, outside 1 … %d", opt->max_batch, MAX_SLICE);
    struct context *x = calloc(1, sizeof *x);
    if (!x)
        return err_set(err, errlen, "out of memory");
    x->model = m;
    x->cache = c;
    x->opt = *opt;
    int64_t most = cache_capacity(c); /* no slice can hold more than the cache */
    if (x->opt.max_batch > most)
        x->opt.max_batch = (int)most;

    size_t n = (size_t)x->opt.max_batch, n_seqs = (size_t)cache_n_seqs(c);
    x->slot = calloc(n, sizeof *x->slot);
    x->pos = calloc(n, sizeof *x->pos);
    x->want = calloc(n, sizeof *x->want);
    x->len = calloc(n_seqs, sizeof *x->len);
    x->start = calloc(n_seqs, sizeof *x->start);
    x->logits_rows = 1;
    x->logits = calloc((size_t)m->config.vocab_size, sizeof *x->logits);
    x->arena_bytes = lay_out(x, NULL);
    x->arena = m->ops->alloc(x->arena_bytes);
    x->team = team_new(opt->n_threads > opt->n_threads_batch ? opt->n_threads : opt->n_threads_batch);
    if (!x->slot || !x->pos || !x->want || !x->len || !x->start || !x->logits || !x->arena || !x->team) {
        (void)err_set(err, errlen, "not enough memory for %zu bytes of activations (batch size %d)",
                      x->arena_bytes, x->opt.max_batch);
        context_free(x);
        return -1;
    }
    (void)lay_out(x, x->arena);
    *out = x;
    return 0;
}

void context_free(struct context *x)
{
    if (!x)
        return;
    if (x->team)
        team_free(x->team);
    if (x->arena)
        x->model->ops->release(x->arena, x->arena_bytes);
    free(x->logits);
    free(x->start);
    free(x->len);
    free(x->want);
    free(x->pos);
    free(x->slot);
    free(x);
}

uint64_t context_bytes(const struct context *x)
{
    return x->arena_bytes;
}

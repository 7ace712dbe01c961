/* Batches: checked whole, cut into slices, evaluated one after the other; and the memory they need, all of
 * it taken before the first. */
#include "model/context.h"
#include "model/arch.h"
#include "model/rope.h"

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
        *n_want += b->want_logits ? b->want_logits[i] != 0 : i == b->n - 1;
    }
    if (b->rows_out)
        *n_want = 0;
    return 0;
}

/* The texts that begin with this batch: their length, and (prefix LM) how far they see themselves in both
 * directions and which position the tokens after that have. */
static void begin_texts(struct context *x, const struct batch *b)
{
    const struct config *c = &x->model->config;
    for (int s = 0; s < cache_n_seqs(x->cache); s++)
        if (x->start[s] == 0 && x->len[s] > 0)
            *cache_text(x->cache, s) = (struct text){.rope_len = x->len[s], .mask = -1};
    if (!c->arch->prefix_lm)
        return;
    bool gmask = false;
    for (int i = 0; i < b->n; i++) {
        int32_t seq = b->seq ? b->seq[i] : 0;
        struct text *t = cache_text(x->cache, seq);
        if (x->start[seq] > 0 || t->has_bos)
            continue;
        /* gMASK counts before MASK, the first of each before others. */
        bool is_gmask = b->id[i] == c->gmask_id;
        if ((is_gmask && !gmask) || (b->id[i] == c->mask_id && t->mask < 0))
            t->mask = t->prefix;
        gmask |= is_gmask;
        if (b->id[i] == c->bos_id) {
            t->has_bos = true;
            gmask = false;
            if (t->mask < 0)
                t->mask = t->prefix;
        } else {
            t->prefix++;
        }
    }
    for (int s = 0; s < cache_n_seqs(x->cache); s++)
        if (x->start[s] == 0 && !cache_text(x->cache, s)->has_bos) /* no prompt: causal all through */
            cache_text(x->cache, s)->prefix = 0;
}

static int reserve(struct context *x, char *err, size_t errlen)
{
    int n_seqs = cache_n_seqs(x->cache);
    for (int s = 0; s < n_seqs; s++)
        if (x->len[s] > x->start[s] && cache_reserve(x->cache, s, x->len[s])) {
            for (int r = 0; r <= s; r++)
                (void)cache_truncate(x->cache, r, x->start[r]);
            return err_set(err, errlen,
                           "the context is full: no room for %" PRId64
                           " more positions in the KV cache of %" PRId64,
                           x->len[s] - x->start[s], cache_capacity(x->cache));
        }
    return 0;
}

/* Tokens of the next slice, from token `from` on: max_batch, or more where a prefix that sees itself in both
 * directions would be cut. */
static int slice_len(const struct context *x, const struct batch *b, int from)
{
    int n = b->n - from < x->opt.max_batch ? b->n - from : x->opt.max_batch;
    if (!x->model->config.arch->prefix_lm)
        return n;
    int end = from + n;
    for (bool grown = true; grown;) { /* one sequence's prefix may reach into another's */
        grown = false;
        for (int s = 0; s < cache_n_seqs(x->cache); s++) {
            int64_t pos = x->start[s], prefix = cache_text(x->cache, s)->prefix;
            int last = -1; /* of its prefix, if the slice holds some of it */
            bool inside = false;
            for (int i = from; i < b->n && pos < prefix; i++)
                if ((b->seq ? b->seq[i] : 0) == s) {
                    inside |= i < end;
                    last = i;
                    pos++;
                }
            if (inside && last >= end) {
                end = last + 1;
                grown = true;
            }
        }
    }
    return end - from;
}

/* Token i of the slice at position pos of its sequence. */
static void set_token(struct context *x, int i, int32_t seq, int64_t pos)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct text *t = cache_text(x->cache, seq);
    bool in_prefix = pos < t->prefix;
    int64_t slot = pos + c->n_virtual, end = in_prefix ? t->prefix + c->n_virtual : slot + 1;
    x->slot[i] = (struct kv_slot){.pages = cache_pages(x->cache, seq, false), .pos = slot, .end = end};
    x->slot_windowed[i] = x->slot[i];
    x->slot_windowed[i].pages = cache_pages(x->cache, seq, true);
    if (c->sliding_window && slot + 1 > c->sliding_window)
        x->slot_windowed[i].begin = slot + 1 - c->sliding_window;

    x->pos[i] = pos;
    if (c->arch->prefix_lm) { /* position, and position in what follows the prefix */
        bool after = t->has_bos && !in_prefix;
        x->pos[i] = after ? t->mask : pos;
        x->pos[x->n + i] = after ? pos - t->prefix + 1 : 0;
    }
    if (rope_depends_on_length(m->rope)) {
        int64_t len = t->rope_len > pos + 1 ? t->rope_len : pos + 1;
        int64_t key = rope_length_key(m->rope, len);
        /* Neighbours have the same frequencies, as a rule. */
        bool same = i > 0 && x->rope_key == key;
        x->freq_row[i] = i == 0 ? 0 : x->freq_row[i - 1] + !same;
        if (!same)
            rope_for_length(m->rope, len, x->inv_freq + (int64_t)x->freq_row[i] * m->rope->n_freqs);
        x->rope_key = key;
    }
}

/* Tokens [from, from + n) of the batch become the slice; x->start counts each sequence's positions on. */
static void set_slice(struct context *x, const struct batch *b, int from, int n)
{
    const int64_t dim = x->model->config.dim;
    x->id = b->id + from;
    x->rows_in = b->rows_in ? b->rows_in + from * dim : NULL;
    x->rows_out = b->rows_out ? b->rows_out + from * dim : NULL;
    x->n = n;
    x->n_want = 0;
    for (int i = 0; i < n; i++) {
        int32_t seq = b->seq ? b->seq[from + i] : 0;
        set_token(x, i, seq, x->start[seq]++);
        if (!b->rows_out && (b->want_logits ? b->want_logits[from + i] != 0 : from + i == b->n - 1))
            x->want[x->n_want++] = i;
    }
}

/* Windowed layers make room for the slice's tokens. */
static void slide(struct context *x, const struct batch *b, int from, int n)
{
    if (x->model->config.sliding_window == 0)
        return;
    for (int s = 0; s < cache_n_seqs(x->cache); s++) {
        int64_t count = 0;
        for (int i = from; i < from + n; i++)
            count += (b->seq ? b->seq[i] : 0) == s;
        if (count > 0)
            cache_slide(x->cache, s, x->start[s], x->start[s] + count);
    }
}

/* Runs fn, the operators of the slice; −1: the backend failed. */
static int run_slice(struct context *x, int n_threads, void (*fn)(struct worker *, void *), char *err,
                     size_t errlen)
{
    const struct ops *ops = x->model->ops;
    const struct config *c = &x->model->config;
    const bool whole = fn == forward;
    bool done = false;
    if (ops->begin) {
        const struct slice_args a = {
            .owner = x->arena,
            .repeats = whole && c->n_experts == 0 && !x->opt.check_finite && !x->rows_in && !x->rows_out &&
                       !x->batch->take && !x->batch->observe && !rope_depends_on_length(x->model->rope) &&
                       arch_sections(c->arch) == 1,
            .n = x->n,
            .n_want = whole ? x->n_want : 0,
            .id = whole && !x->rows_in ? x->id : NULL,
            .want = x->want,
            .pos = whole && arch_sections(c->arch) == 1 ? x->pos : NULL,
            .slot = {x->slot, whole && c->sliding_window ? x->slot_windowed : NULL},
            .logits = x->rows,
            .logits_bytes =
                whole && !x->batch->take ? (size_t)x->n_want * (size_t)c->vocab_size * sizeof(float) : 0,
        };
        done = ops->begin(&a);
    }
    if (!done)
        team_run_n(x->team, n_threads, fn, x);
    return ops->finish ? ops->finish(err, errlen) : 0;
}

/* Sequences that begin get the P-Tuning prefix in front. */
static int store_prefixes(struct context *x, char *err, size_t errlen)
{
    const int n_virtual = x->model->config.n_virtual;
    for (int s = 0; s < cache_n_seqs(x->cache); s++) {
        if (x->start[s] > 0 || x->len[s] == 0)
            continue;
        for (x->prefix_at = 0; x->prefix_at < n_virtual; x->prefix_at += x->n) {
            int left = n_virtual - x->prefix_at;
            x->n = left < x->capacity ? left : x->capacity;
            for (int i = 0; i < x->n; i++)
                x->slot[i] =
                    (struct kv_slot){.pages = cache_pages(x->cache, s, false), .pos = x->prefix_at + i};
            if (run_slice(x, x->opt.n_threads_batch, forward_prefix, err, errlen))
                return -1;
        }
    }
    return 0;
}

static int set_capacity(struct context *x, int n, char *err, size_t errlen);

int context_eval(struct context *x, const struct batch *b, const float **logits, char *err, size_t errlen)
{
    const int64_t vocab_size = x->model->config.vocab_size;
    int64_t n_want = 0;
    if (logits)
        *logits = NULL;
    if (check_batch(x, b, &n_want, err, errlen))
        return -1;
    int64_t n_held = n_want; /* rows that must be in the host's memory together */
    if (b->take && (x->model->ops->on_host || n_held > LOGIT_ROWS))
        n_held = x->model->ops->on_host ? 0 : LOGIT_ROWS;
    if (n_held > 0 && n_held > x->logits_rows) {
        float *grown = NULL;
        if ((uint64_t)n_held <= SIZE_MAX / sizeof(float) / (uint64_t)vocab_size)
            grown = realloc(x->logits, (size_t)n_held * (size_t)vocab_size * sizeof(float));
        if (!grown)
            return err_set(err, errlen, "not enough memory for %" PRId64 " rows of logits", n_held);
        x->logits = grown;
        x->logits_rows = n_held;
    }
    if (reserve(x, err, errlen))
        return -1;
    begin_texts(x, b);
    x->fault.op = NULL;
    x->batch = b;
    x->rows = x->logits;
    x->row0 = 0;
    bool stopped = false;
    int failed = store_prefixes(x, err, errlen);
    for (int from = 0; from < b->n && !x->fault.op && !stopped && !failed; from += x->n) {
        int n = slice_len(x, b, from);
        if (n > x->capacity && (failed = set_capacity(x, n, err, errlen)) != 0)
            break;
        slide(x, b, from, n);
        set_slice(x, b, from, n);
        failed = run_slice(x, x->n == 1 ? x->opt.n_threads : x->opt.n_threads_batch, forward, err, errlen);
        x->row0 += x->n_want;
        if (!b->take)
            x->rows += x->n_want * vocab_size;
        stopped = from + n < b->n && b->stop && b->stop();
    }

    bool undo = x->fault.op || stopped || failed;
    for (int s = 0; s < cache_n_seqs(x->cache); s++)
        if (undo)
            (void)cache_truncate(x->cache, s, cache_len(x->cache, s));
        else
            cache_commit(x->cache, s, x->len[s]);
    if (failed)
        return -1;
    if (x->fault.op && x->fault.layer >= 0)
        return err_set(err, errlen, "layer %d, %s: a value is not finite", x->fault.layer, x->fault.op);
    if (x->fault.op)
        return err_set(err, errlen, "%s: a value is not finite", x->fault.op);
    if (stopped)
        return CONTEXT_STOPPED;
    if (logits && !b->take)
        *logits = x->logits;
    return 0;
}

/* ---- Life --------------------------------------------------------------------------------------- */

/* The next n · width floats of the arena. base NULL: only counts. */
static void *take(char *base, size_t *at, int64_t n, int64_t width)
{
    void *p = base ? base + *at : NULL;
    size_t bytes = (size_t)n * (size_t)width * sizeof(float);
    *at += (bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    return p;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Buffers that a layer's experts need beside gate and up. */
static void lay_out_experts(struct context *x, char *base, size_t *at, int n)
{
    const struct config *c = &x->model->config;
    int64_t n_rows = (int64_t)n * c->n_experts_used;
    x->expert_in = take(base, at, n_rows, c->dim);
    x->expert_out = take(base, at, n_rows, c->dim);
    x->route_logits = take(base, at, n, c->n_experts);
    x->route_weight = take(base, at, n_rows, 1);
    x->route_first = take(base, at, 1, c->n_experts + 1);
    x->route_token = take(base, at, n_rows, 1);
    x->route_row = take(base, at, n_rows, 1);
    x->route_scratch = take(base, at, n_rows, 1);
}

/* Lays the buffers out in the arena for slices of n tokens; returns its size. */
static size_t lay_out(struct context *x, char *base, int n)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct ops *ops = m->ops;
    const int n_logits = n < LOGIT_ROWS ? n : LOGIT_ROWS;
    const int64_t q_width = (int64_t)c->n_heads * c->head_dim,
                  kv_width = (int64_t)c->n_kv_heads * c->head_dim;
    const int ffn = c->n_experts ? c->expert_ffn_dim : c->ffn_dim;
    const int64_t n_ffn = c->n_experts ? (int64_t)n * c->n_experts_used : n;
    size_t at = 0;
    x->x = take(base, &at, n, c->dim);
    x->normed = take(base, &at, n, c->dim);
    x->rope = take(base, &at, n, c->rotary_dim);
    x->rope_windowed = m->rope_windowed ? take(base, &at, n, c->rotary_dim) : x->rope;
    x->last = take(base, &at, n_logits, c->dim);
    x->chunk = take(base, &at, n_logits, c->vocab_size);

    size_t after_attention = at, after_ffn = at;
    x->q = take(base, &after_attention, n, q_width);
    x->k = take(base, &after_attention, n, kv_width);
    x->v = take(base, &after_attention, n, kv_width);
    x->mixed = take(base, &after_attention, n, q_width);
    x->gate = take(base, &after_ffn, n_ffn, ffn);
    x->up = take(base, &after_ffn, n_ffn, ffn);
    if (c->n_experts)
        lay_out_experts(x, base, &after_ffn, n);
    at = max_size(after_attention, after_ffn);

    int64_t widest = c->dim > q_width ? c->dim : q_width;
    widest = ffn > widest ? ffn : widest;
    if (m->lora_rank)
        x->lora = take(base, &at, n_ffn, m->lora_rank);
    if (m->orders)
        x->ordered = take(base, &at, n_ffn, widest);
    size_t scratch = max_size(ops->scratch_bytes(n, c->dim),
                              max_size(ops->scratch_bytes(n, q_width), ops->scratch_bytes(n, ffn)));
    x->linear_scratch = take(base, &at, 1, (int64_t)(scratch / sizeof(float) + 1));
    int n_threads = x->opt.n_threads > x->opt.n_threads_batch ? x->opt.n_threads : x->opt.n_threads_batch;
    x->attention_scratch_bytes =
        ops->attention_scratch_bytes(n, c->n_heads, c->head_dim, x->max_len + c->n_virtual, n_threads);
    x->attention_scratch = take(base, &at, 1, (int64_t)(x->attention_scratch_bytes / sizeof(float) + 1));
    return at;
}

uint64_t context_plan(const struct model *m, const struct context_options *opt, int64_t max_len)
{
    struct context x = {.model = m, .opt = *opt, .max_len = max_len};
    return lay_out(&x, NULL, opt->max_batch);
}

static void free_slice(struct context *x)
{
    if (x->arena)
        x->model->ops->release(x->arena, x->arena_bytes);
    free(x->route_host);
    free(x->want);
    free(x->inv_freq);
    free(x->freq_row);
    free(x->pos);
    free(x->slot_windowed);
    free(x->slot);
    x->arena = NULL;
    x->route_host = x->want = x->freq_row = NULL;
    x->inv_freq = NULL;
    x->pos = NULL;
    x->slot_windowed = x->slot = NULL;
}

/* All memory of a slice, anew, for n tokens. */
static int set_capacity(struct context *x, int n, char *err, size_t errlen)
{
    const struct model *m = x->model;
    const size_t count = (size_t)n;
    free_slice(x);
    x->capacity = n;
    x->slot = calloc(count, sizeof *x->slot);
    x->slot_windowed = calloc(count, sizeof *x->slot_windowed);
    x->pos = calloc(count * (size_t)arch_sections(m->config.arch), sizeof *x->pos);
    x->want = calloc(count, sizeof *x->want);
    bool rows = rope_depends_on_length(m->rope), routes = m->config.n_experts && !m->ops->on_host;
    if (routes)
        x->route_host = calloc((size_t)m->config.n_experts + 1, sizeof *x->route_host);
    if (rows) {
        x->freq_row = calloc(count, sizeof *x->freq_row);
        x->inv_freq = calloc(count * (size_t)m->rope->n_freqs, sizeof *x->inv_freq);
    }
    x->arena_bytes = lay_out(x, NULL, n);
    x->arena = m->ops->alloc(x->arena_bytes);
    if (!x->slot || !x->slot_windowed || !x->pos || !x->want || !x->arena || (routes && !x->route_host) ||
        (rows && (!x->freq_row || !x->inv_freq))) {
        x->capacity = 0;
        return err_set(err, errlen, "not enough memory for %zu bytes of activations (batch size %d)",
                       x->arena_bytes, n);
    }
    (void)lay_out(x, x->arena, n);
    return 0;
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
    x->max_len = cache_capacity(c);
    x->opt = *opt;
    if (!m->ops->on_host) /* one thread tells the device what to do */
        x->opt.n_threads = x->opt.n_threads_batch = 1;
    int64_t most = cache_max_batch(c); /* no slice can hold more than the cache */
    if (x->opt.max_batch > most)
        x->opt.max_batch = (int)most;

    size_t n_seqs = (size_t)cache_n_seqs(c);
    x->len = calloc(n_seqs, sizeof *x->len);
    x->start = calloc(n_seqs, sizeof *x->start);
    x->logits_rows = 1;
    x->logits = calloc((size_t)m->config.vocab_size, sizeof *x->logits);
    x->team = team_new(x->opt.n_threads > x->opt.n_threads_batch ? x->opt.n_threads : x->opt.n_threads_batch);
    int rc = set_capacity(x, x->opt.max_batch, err, errlen);
    if (rc == 0 && (!x->len || !x->start || !x->logits || !x->team))
        rc = err_set(err, errlen, "out of memory");
    if (rc) {
        context_free(x);
        return -1;
    }
    *out = x;
    return 0;
}

void context_free(struct context *x)
{
    if (!x)
        return;
    if (x->team)
        team_free(x->team);
    free_slice(x);
    free(x->logits);
    free(x->start);
    free(x->len);
    free(x);
}

uint64_t context_bytes(const struct context *x)
{
    return x->arena_bytes;
}

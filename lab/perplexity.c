#include "lab/perplexity.h"

#include "quant/err.h"

#include <stdlib.h>
#include <string.h>

enum { HELD_BYTES = 256 << 20 };

/* A group of windows as one batch, and the rows of a part of it. */
struct evaluation {
    const struct ppl_run *run;
    int64_t vocab_size;
    int64_t n_held; /* rows that can be held */
    float *base;    /* (n_held, vocab_size): of the base model */
    uint8_t *file;  /* (n_held, row_bytes): of a file */
    size_t row_bytes;
    size_t *packed;  /* (n_held): bytes of the file's rows */
    float *unpacked; /* (n_threads, vocab_size) */

    int n; /* tokens of the group */
    int32_t *id, *seq;
    uint8_t *want;
    int32_t *next; /* of wanted rows: the token that follows */

    /* Of the part being evaluated. */
    const int32_t *part_next;
    struct token_score *scores;
};

/* ---- Rows, by many threads ------------------------------------------------------------------------ */

static void take_base(void *arg, int thread, int64_t i, const float *row)
{
    const struct evaluation *e = arg;
    (void)thread;
    memcpy(e->base + i * e->vocab_size, row, (size_t)e->vocab_size * sizeof *row);
}

static void take_scored(void *arg, int thread, int64_t i, const float *row)
{
    const struct evaluation *e = arg;
    const float *base = NULL;
    if (e->base) {
        base = e->base + i * e->vocab_size;
    } else if (e->run->in) {
        float *to = e->unpacked + thread * e->vocab_size;
        logits_row_unpack(to, e->file + (size_t)i * e->row_bytes, e->vocab_size);
        base = to;
    }
    e->scores[i] = token_score(row, base, e->vocab_size, e->part_next[i]);
    if (e->run->out)
        e->packed[i] =
            logits_row_pack(e->file + (size_t)i * e->row_bytes, row, e->vocab_size, e->part_next[i]);
}

/* ---- Groups --------------------------------------------------------------------------------------- */

static int eval_part(struct evaluation *e, int from, int n, int64_t n_rows, char *err, size_t errlen)
{
    const struct ppl_run *r = e->run;
    struct batch b = {.n = n,
                      .id = e->id + from,
                      .seq = e->seq + from,
                      .want_logits = e->want + from,
                      .stop = r->stop,
                      .take = take_base,
                      .take_arg = e};
    int rc = 0;
    if (r->stop && r->stop())
        return CONTEXT_STOPPED;
    if (r->base.model)
        rc = context_eval(r->base.context, &b, NULL, err, errlen);
    for (int64_t i = 0; rc == 0 && r->in && i < n_rows; i++)
        rc = logits_read(r->in, e->file + (size_t)i * e->row_bytes, err, errlen);
    b.take = take_scored;
    if (rc == 0)
        rc = context_eval(r->model.context, &b, NULL, err, errlen);
    for (int64_t i = 0; rc == 0 && r->out && i < n_rows; i++)
        rc = logits_write(r->out, e->file + (size_t)i * e->row_bytes, e->packed[i]);
    return rc;
}

/* Windows first … first + n − 1, each a sequence; *n_scored: their tokens. */
static void fill_group(struct evaluation *e, int64_t first, int n, int64_t *n_scored)
{
    const struct ppl_run *r = e->run;
    int64_t at = 0, scored = 0;
    for (int s = 0; s < n; s++) {
        const struct window w = windows_at(r->windows, first + s);
        const int32_t *ids = r->ids + w.begin;
        for (int64_t i = 0; i < w.len; i++, at++) {
            e->id[at] = i == 0 && w.bos ? r->windows->bos : ids[i];
            e->seq[at] = s;
            e->want[at] = i + 1 >= w.first && i + 1 < w.len;
            if (e->want[at])
                e->next[scored++] = ids[i + 1];
        }
    }
    e->n = (int)at;
    *n_scored = scored;
}

static void drop_all(const struct ppl_model *m, int n_seqs)
{
    for (int s = 0; m->model && s < n_seqs; s++)
        cache_drop(m->cache, s);
}

static int eval_group(struct evaluation *e, int64_t n_scored, char *err, size_t errlen)
{
    const struct ppl_run *r = e->run;
    const bool whole = n_scored <= e->n_held || model_needs_whole_prompt(r->model.model);
    drop_all(&r->model, r->n_parallel);
    drop_all(&r->base, r->n_parallel);
    e->part_next = e->next;
    for (int from = 0; n_scored > 0;) { /* what comes behind the last row is of no use */
        int n = 0;
        int64_t n_rows = 0;
        for (; from + n < e->n && (whole || n_rows < e->n_held); n++)
            n_rows += e->want[from + n];
        int rc = eval_part(e, from, n, n_rows, err, errlen);
        if (rc)
            return rc;
        from += n;
        n_scored -= n_rows;
        e->part_next += n_rows;
        e->scores += n_rows;
    }
    return 0;
}

/* ---- All ------------------------------------------------------------------------------------------ */

static void free_all(struct evaluation *e)
{
    free(e->base);
    free(e->file);
    free(e->packed);
    free(e->unpacked);
    free(e->id);
    free(e->seq);
    free(e->want);
    free(e->next);
}

static int alloc_all(struct evaluation *e, int64_t group_len, char *err, size_t errlen)
{
    const struct ppl_run *r = e->run;
    const size_t vocab_size = (size_t)e->vocab_size, n = (size_t)group_len;
    const bool file = r->in || r->out;
    const size_t held = file ? e->row_bytes : vocab_size * sizeof(float);
    int64_t n_held = (int64_t)((r->held_bytes ? r->held_bytes : HELD_BYTES) / held);
    if (n_held < 1)
        n_held = 1;
    /* A whole prompt cannot be evaluated in parts. */
    if (n_held > group_len || model_needs_whole_prompt(r->model.model))
        n_held = group_len;
    e->n_held = r->base.model || file ? n_held : group_len;
    const size_t rows = (size_t)n_held;
    bool failed = false;
    if (r->base.model)
        failed |= !(e->base = calloc(rows, held));
    if (file) {
        failed |= !(e->file = calloc(rows, held));
        failed |= !(e->packed = calloc(rows, sizeof *e->packed));
    }
    if (r->in)
        failed |= !(e->unpacked = calloc((size_t)r->n_threads, vocab_size * sizeof *e->unpacked));
    failed |= !(e->id = calloc(n, sizeof *e->id));
    failed |= !(e->seq = calloc(n, sizeof *e->seq));
    failed |= !(e->want = calloc(n, sizeof *e->want));
    failed |= !(e->next = calloc(n, sizeof *e->next));
    return failed ? err_set(err, errlen, "not enough memory for %zu rows of logits", rows) : 0;
}

int ppl_evaluate(const struct ppl_run *r, struct token_score *scores, char *err, size_t errlen)
{
    const struct windows *w = r->windows;
    const int64_t vocab_size = model_config(r->model.model)->vocab_size;
    if (r->base.model && model_config(r->base.model)->vocab_size != vocab_size)
        return err_set(err, errlen, "vocabularies of %lld and %d tokens cannot be compared",
                       (long long)vocab_size, model_config(r->base.model)->vocab_size);
    if (r->in && logits_reader_header(r->in)->vocab_size != vocab_size)
        return err_set(err, errlen, "a vocabulary of %lld tokens cannot be compared with one of %lld",
                       (long long)vocab_size, (long long)logits_reader_header(r->in)->vocab_size);
    struct evaluation e = {
        .run = r, .vocab_size = vocab_size, .row_bytes = logits_row_max_bytes(vocab_size), .scores = scores};
    int rc = alloc_all(&e, windows_len(w) * r->n_parallel, err, errlen);
    for (int64_t first = 0; rc == 0 && first < w->n; first += r->n_parallel) {
        const int64_t left = w->n - first;
        int64_t n_scored;
        fill_group(&e, first, left < r->n_parallel ? (int)left : r->n_parallel, &n_scored);
        rc = eval_group(&e, n_scored, err, errlen);
        if (rc == 0 && r->progress)
            r->progress(r->arg, left < r->n_parallel ? w->n : first + r->n_parallel, e.scores - scores);
    }
    free_all(&e);
    return rc;
}

#include "lab/likelihood.h"

#include "lab/divergence.h"
#include "quant/err.h"

#include <stdlib.h>

/* What a row of logits is for: one token of an answer, or the first of all answers of a query. */
struct use {
    struct query *query;
    int answer; /* −1: all */
    int token;
    double log_p; /* of the token */
};

struct scoring {
    const struct asker *asker;
    int64_t vocab_size;
    struct held_prefix prefix;
    struct growing_batch batch;
    struct use *use;
    size_t n_uses, cap;
};

static void take(void *arg, int thread, int64_t i, const float *row)
{
    struct scoring *s = arg;
    struct use *u = &s->use[i];
    const double all = logits_log_sum_exp(row, s->vocab_size);
    (void)thread;
    if (u->answer >= 0)
        u->log_p = (double)row[u->query->answer[u->answer].id[u->token]] - all;
    else
        for (int k = 0; k < u->query->n_answers; k++)
            u->query->answer[k].log_p = (double)row[u->query->answer[k].id[0]] - all;
}

/* Are all answers one token? Then they are scored by one row. */
static bool is_short(const struct query *q)
{
    for (int i = 0; i < q->n_answers; i++)
        if (q->answer[i].n != 1)
            return false;
    return true;
}

/* Sequences that a query takes: its prompt, and one for each answer. */
static int n_seqs_of(const struct query *q)
{
    return is_short(q) ? 1 : 1 + q->n_answers;
}

static int add_use(struct scoring *s, struct use u, char *err, size_t errlen)
{
    if (s->n_uses == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        struct use *grown = realloc(s->use, cap * sizeof *grown);
        if (!grown)
            return err_set(err, errlen, "out of memory");
        s->use = grown;
        s->cap = cap;
    }
    s->use[s->n_uses++] = u;
    return 0;
}

/* Prompt tokens [from, to); want: a row after the last, for all answers. */
static int add_prompt(struct scoring *s, struct query *q, int seq, int64_t from, int64_t to, bool want,
                      char *err, size_t errlen)
{
    for (int64_t i = from; i < to; i++) {
        const bool row = want && i + 1 == to;
        if (growing_batch_add(&s->batch, q->prompt[i], seq, row, err, errlen) ||
            (row && add_use(s, (struct use){q, -1, 0, 0}, err, errlen)))
            return -1;
    }
    return 0;
}

/* The prompt's last token and an answer but for its last, after what the sequence holds of the prompt. */
static int add_answer(struct scoring *s, struct query *q, int k, int seq, int64_t held, char *err,
                      size_t errlen)
{
    if (add_prompt(s, q, seq, held, q->n_prompt - 1, false, err, errlen))
        return -1;
    for (int i = 0; i < q->answer[k].n; i++) {
        const int32_t id = i ? q->answer[k].id[i - 1] : q->prompt[q->n_prompt - 1];
        if (growing_batch_add(&s->batch, id, seq, true, err, errlen) ||
            add_use(s, (struct use){q, k, i, 0}, err, errlen))
            return -1;
    }
    return 0;
}

/* Evaluates the batch; what its rows say goes to the answers. */
static int eval(struct scoring *s, char *err, size_t errlen)
{
    int rc = growing_batch_eval(&s->batch, s->asker, take, s, err, errlen);
    for (size_t i = 0; rc == 0 && i < s->n_uses; i++)
        if (s->use[i].answer >= 0)
            s->use[i].query->answer[s->use[i].answer].log_p += s->use[i].log_p;
    s->n_uses = 0;
    return rc;
}

/* n queries whose sequences the cache has room for. */
static int score_round(struct scoring *s, struct query *q, size_t n, char *err, size_t errlen)
{
    const struct asker *a = s->asker;
    const bool whole = model_needs_whole_prompt(a->model);
    int64_t same = q[0].n_prompt - 1;
    for (size_t i = 1; i < n; i++)
        same = common_prefix(q[0].prompt, same, q[i].prompt, q[i].n_prompt - 1);
    int rc = held_prefix_set(&s->prefix, a, q[0].prompt, same, err, errlen);
    int seq = 1;
    for (size_t i = 0; rc == 0 && i < n; seq += n_seqs_of(&q[i++])) {
        const bool one_row = is_short(&q[i]);
        const int64_t held = lend_prefix(a, seq, 0, same);
        for (int k = 0; k < q[i].n_answers; k++)
            q[i].answer[k].log_p = 0;
        if (one_row || !whole)
            rc = add_prompt(s, &q[i], seq, held, q[i].n_prompt - !one_row, one_row, err, errlen);
    }
    if (rc == 0)
        rc = eval(s, err, errlen);
    seq = 1;
    for (size_t i = 0; rc == 0 && i < n; seq += n_seqs_of(&q[i++]))
        for (int k = 0; rc == 0 && !is_short(&q[i]) && k < q[i].n_answers; k++) {
            const int own = seq + 1 + k;
            const int64_t held = lend_prefix(a, own, seq, whole ? 0 : q[i].n_prompt - 1);
            rc = add_answer(s, &q[i], k, own, held, err, errlen);
        }
    return rc == 0 ? eval(s, err, errlen) : rc;
}

int queries_score(const struct asker *a, struct query *q, size_t n,
                  void (*progress)(void *arg, size_t n_done), void *arg, char *err, size_t errlen)
{
    struct scoring s = {.asker = a, .vocab_size = model_config(a->model)->vocab_size};
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < n;) {
        size_t n_round = 0;
        for (int seqs = 1; at + n_round < n; n_round++) {
            seqs += n_seqs_of(&q[at + n_round]);
            if (seqs > a->n_seqs && n_round > 0)
                break;
        }
        rc = score_round(&s, q + at, n_round, err, errlen);
        at += n_round;
        if (rc == 0 && progress)
            progress(arg, at);
    }
    held_prefix_free(&s.prefix);
    growing_batch_free(&s.batch);
    free(s.use);
    return rc;
}

/* A matrix of layer l changes nothing before it: the rows that come into layer l are kept, and every trial
 * runs from there on. */
#include "lab/sensitivity.h"

#include "lab/collect.h"
#include "lab/divergence.h"
#include "model/bind.h"
#include "model/export.h"
#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROBE_LEN = 128, /* tokens of a window; its first quarter has too little in front of it to count */
    COLLECT_LEN = 512,
    N_PROBE = 384,
    N_COLLECT = 4096,
    PROBE_BITS = 4,
    SAMPLE = 1 << 14, /* weights of a matrix that errors are estimated from … */
    SAMPLE_ROWS = 8,  /* … in so many rows at least */
    SLICE = 1 << 15,  /* weights that a thread quantises at a time */
};

struct sensitivity {
    struct weights *w;
    struct sensitivity_options o;
    struct export *export;
    struct model *model;
    struct importance *own; /* collected */
    const struct importance *importance;

    struct sensitivity_tensor *tensor;
    size_t *index; /* of the export's */
    size_t n;

    /* The windows of the probe. */
    int n_windows, len, n_ids, n_scored;
    int32_t *ids, *seq;
    uint8_t *want;
    float *rows; /* (n_ids, dim): what comes into the current layer */
    float *base; /* (n_scored, vocab_size) */
    double *kl;  /* (n_scored) */

    double done, total; /* layers · tokens */
};

static int no_memory(const struct sensitivity *s, char *err, size_t errlen)
{
    return err_set(err, errlen, "%s: not enough memory to measure its matrices", weights_path(s->w));
}

/* May the work go on? */
static bool go_on(const struct sensitivity *s, const char *step)
{
    if (s->o.progress)
        s->o.progress(s->o.arg, step, s->total > 0 ? s->done / s->total : 0);
    return !s->o.stop || !s->o.stop();
}

/* ---- The text ------------------------------------------------------------------------------------- */

/* Windows 0 … n − 1 of so many tokens, spread evenly over the text. */
static void spread(int32_t *to, const struct sensitivity_options *o, int64_t len, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = n > 1 ? (o->n_ids - len) * i / (n - 1) : (o->n_ids - len) / 2;
        memcpy(to + i * len, o->ids + at, (size_t)len * sizeof *to);
        if (o->bos >= 0)
            to[i * len] = o->bos;
    }
}

static int64_t n_windows(int64_t n_tokens, int64_t len, int64_t n_ids)
{
    const int64_t n = n_tokens / len, most = n_ids / len;
    return n < 1 ? 1 : n < most ? n : most;
}

static int64_t min_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int take_text(struct sensitivity *s, char *err, size_t errlen)
{
    const struct config *c = model_config(s->model);
    s->len = (int)min_of(PROBE_LEN, c->max_seq_len);
    if (s->o.n_ids < s->len)
        return err_set(err, errlen,
                       "the calibration text is too short: %" PRId64 " tokens, at least %d are needed",
                       s->o.n_ids, s->len);
    s->n_windows = (int)n_windows(min_of(s->o.n_probe, 1 << 20), s->len, s->o.n_ids);
    s->n_ids = s->n_windows * s->len;
    s->n_scored = s->n_windows * (s->len - s->len / 4);
    const size_t n = (size_t)s->n_ids, scored = (size_t)s->n_scored;
    s->ids = calloc(n, sizeof *s->ids);
    s->seq = calloc(n, sizeof *s->seq);
    s->want = calloc(n, sizeof *s->want);
    s->rows = calloc(n * (size_t)c->dim, sizeof *s->rows);
    s->base = calloc(scored * (size_t)c->vocab_size, sizeof *s->base);
    s->kl = calloc(scored, sizeof *s->kl);
    if (!s->ids || !s->seq || !s->want || !s->rows || !s->base || !s->kl)
        return no_memory(s, err, errlen);
    spread(s->ids, &s->o, s->len, s->n_windows);
    for (int i = 0; i < s->n_ids; i++) {
        s->seq[i] = i / s->len;
        s->want[i] = i % s->len >= s->len / 4;
    }
    return 0;
}

/* ---- Parts of the model ----------------------------------------------------------------------------- */

/* Layers first … first + n − 1 as a model of their own, which the batch's rows go through. */
struct part {
    struct model model; /* everything in it is the whole model's */
    struct cache *cache;
    struct context *context;
};

static int open_run(const struct sensitivity *s, const struct model *m, struct cache **cache,
                    struct context **context, int64_t n_ctx, int n_seqs, char *err, size_t errlen)
{
    const struct cache_options co = {
        .n_ctx = n_ctx, .n_seqs = n_seqs, .type_k = QTYPE_F16, .type_v = QTYPE_F16};
    const struct context_options xo = {.n_threads = s->o.n_threads,
                                       .n_threads_batch = s->o.n_threads,
                                       .max_batch = COLLECT_LEN,
                                       .compute = COMPUTE_FAST};
    return cache_new(cache, m, &co, err, errlen) || context_new(context, m, *cache, &xo, err, errlen) ? -1
                                                                                                      : 0;
}

static int64_t probe_ctx(const struct sensitivity *s)
{
    const int64_t pages = (s->len + KV_PAGE - 1) / KV_PAGE;
    return pages * KV_PAGE * s->n_windows;
}

static void part_close(struct part *p)
{
    context_free(p->context);
    cache_free(p->cache);
}

static int part_open(struct part *p, const struct sensitivity *s, int first, int n, char *err, size_t errlen)
{
    *p = (struct part){.model = *s->model};
    struct config *c = &p->model.config;
    memmove(c->windowed, c->windowed + first, (size_t)(MAX_LAYERS - first) * sizeof *c->windowed);
    c->n_layers = n;
    p->model.layers += first;
    if (c->n_virtual)
        p->model.prefix += (size_t)first * 2 * (size_t)c->n_virtual * (size_t)(c->n_kv_heads * c->head_dim);
    if (open_run(s, &p->model, &p->cache, &p->context, probe_ctx(s), s->n_windows, err, errlen)) {
        part_close(p);
        return -1;
    }
    return 0;
}

/* Runs the windows through a part that begins at layer `first`. to: where rows go that leave it; NULL: their
 * logits are given to take. */
static int run_part(struct sensitivity *s, struct part *p, int first, float *to,
                    void (*take)(void *, int, int64_t, const float *), char *err, size_t errlen)
{
    for (int i = 0; i < s->n_windows; i++)
        cache_drop(p->cache, i);
    const struct batch b = {.n = s->n_ids,
                            .id = s->ids,
                            .seq = s->seq,
                            .want_logits = s->want,
                            .stop = s->o.stop,
                            .take = to ? NULL : take,
                            .take_arg = s,
                            .rows_in = first > 0 ? s->rows : NULL,
                            .rows_out = to};
    s->done += (double)s->n_ids * model_config(&p->model)->n_layers;
    p->model.token_embd =
        s->model->token_embd; /* the one matrix that the copy has itself: it may be on trial */
    return context_eval(p->context, &b, NULL, err, errlen);
}

static void take_base(void *arg, int thread, int64_t i, const float *row)
{
    const struct sensitivity *s = arg;
    const int64_t vocab_size = model_config(s->model)->vocab_size;
    (void)thread;
    memcpy(s->base + i * vocab_size, row, (size_t)vocab_size * sizeof *row);
}

static void take_kl(void *arg, int thread, int64_t i, const float *row)
{
    const struct sensitivity *s = arg;
    const int64_t vocab_size = model_config(s->model)->vocab_size;
    (void)thread;
    s->kl[i] = token_score(row, s->base + i * vocab_size, vocab_size, 0).kl;
}

/* ---- Importances ------------------------------------------------------------------------------------ */

static int collect(struct sensitivity *s, char *err, size_t errlen)
{
    const struct config *c = model_config(s->model);
    const int64_t len = min_of(min_of(COLLECT_LEN, c->max_seq_len), s->o.n_ids);
    const int64_t n = n_windows(s->o.n_collect, len, s->o.n_ids);
    struct imatrix *im = imatrix_new();
    struct cache *cache = NULL;
    struct context *context = NULL;
    int32_t *ids = calloc((size_t)(n * len), sizeof *ids);
    int rc = im && ids ? 0 : no_memory(s, err, errlen);
    if (rc == 0)
        rc = open_run(s, s->model, &cache, &context, len, 1, err, errlen);
    if (rc == 0)
        spread(ids, &s->o, len, n);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        int64_t n_chunks;
        const struct collect_run r = {.model = s->model,
                                      .cache = cache,
                                      .context = context,
                                      .ids = ids + i * len,
                                      .n_ids = len,
                                      .n_ctx = len,
                                      .bos = -1,
                                      .n_parallel = 1,
                                      .output = true,
                                      .stop = s->o.stop};
        rc = go_on(s, "importances") ? collect_importance(im, &r, &n_chunks, err, errlen)
                                     : SENSITIVITY_STOPPED;
        s->done += (double)(len * c->n_layers);
    }
    if (rc == 0) {
        s->importance = s->own = imatrix_importance(im);
        if (!s->own)
            rc = no_memory(s, err, errlen);
    }
    free(ids);
    context_free(context);
    cache_free(cache);
    imatrix_free(im);
    return rc;
}

/* The importances of the expert that row `row` belongs to; NULL: none. */
static const float *importance_of_row(const struct importance_entry *e, const struct sensitivity_tensor *t,
                                      int64_t row)
{
    if (!e || e->cols != t->cols || t->rows % e->n_experts != 0)
        return NULL;
    const float *mean = e->mean + row / (t->rows / e->n_experts) * e->cols;
    for (int64_t c = 0; c < e->cols; c++)
        if (mean[c] > 0)
            return mean;
    return NULL; /* an expert that no token reached */
}

/* ---- Errors of types ---------------------------------------------------------------------------------- */

static double bits_of(int type)
{
    return 8.0 * qtypes[type].block_bytes / qtypes[type].block_len;
}

/* Below 2 bits squared errors are nearly the weights' squares, and say little; and such types take long. */
static bool has_type(const struct sensitivity_tensor *t, int type)
{
    const struct qtype_info *q = &qtypes[type];
    return q->quantise && q->gguf_id >= 0 && q->block_len > 1 && t->cols % q->block_len == 0 &&
           bits_of(type) >= 2;
}

/* Squared errors of one row, weighed by `mean`, as each type; [QTYPE_N_MATRIX]: its squares. room: 2 cols
 * floats behind the row, and as many bytes as floats for its blocks. */
static void row_errors(double error[QTYPE_N_MATRIX + 1], const struct sensitivity_tensor *t, const float *x,
                       const float *mean, bool weighed, float *got, void *bytes)
{
    for (int type = 0; type <= QTYPE_N_MATRIX; type++) {
        error[type] = 0;
        if (type < QTYPE_N_MATRIX && !has_type(t, type))
            continue;
        if (type < QTYPE_N_MATRIX) {
            qtypes[type].quantise(bytes, x, weighed ? mean : NULL, t->cols);
            qtypes[type].to_f32(got, bytes, t->cols);
        } else {
            memset(got, 0, (size_t)t->cols * sizeof *got);
        }
        for (int64_t c = 0; c < t->cols; c++) {
            const double e = (double)got[c] - (double)x[c];
            error[type] += e * e * (mean ? (double)mean[c] : 1);
        }
    }
}

static int estimate_errors(struct sensitivity *s, size_t k, char *err, size_t errlen)
{
    struct sensitivity_tensor *t = &s->tensor[k];
    const struct importance_entry *e = importance_find(s->importance, t->name);
    int64_t n = SAMPLE / t->cols > SAMPLE_ROWS ? SAMPLE / t->cols : SAMPLE_ROWS;
    n = min_of(n, t->rows);
    double(*row)[QTYPE_N_MATRIX + 1] = calloc((size_t)n, sizeof *row);
    atomic_bool failed = !row;
#pragma omp parallel for schedule(dynamic) num_threads(s->o.n_threads)
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = (2 * i + 1) * t->rows / (2 * n);
        float *x = failed ? NULL : calloc(3 * (size_t)t->cols, sizeof *x);
        if (!x || export_floats(s->export, s->index[k], r, 1, x))
            failed = true;
        else
            row_errors(row[i], t, x, importance_of_row(e, t, r), s->o.weighed, x + t->cols, x + 2 * t->cols);
        free(x);
    }
    double sum[QTYPE_N_MATRIX + 1] = {0};
    for (int64_t i = 0; !failed && i < n; i++)
        for (int type = 0; type <= QTYPE_N_MATRIX; type++)
            sum[type] += row[i][type];
    const double all = sum[QTYPE_N_MATRIX] > 0 ? sum[QTYPE_N_MATRIX] : 1;
    for (int type = 0; type < QTYPE_N_MATRIX; type++)
        t->error[type] = has_type(t, type) ? sum[type] / all : -1;
    free(row);
    return failed ? no_memory(s, err, errlen) : 0;
}

/* The type to try: of about so many bits, and not one that loses nothing because the tensor has it already.
 */
static enum qtype probe_type(const struct sensitivity *s, const struct sensitivity_tensor *t)
{
    int best = -1;
    double far = INFINITY;
    for (int type = 0; type < QTYPE_N_MATRIX; type++) {
        const double distance = fabs(bits_of(type) - s->o.probe_bits);
        if (t->error[type] > 0 && distance < far) {
            far = distance;
            best = type;
        }
    }
    return best < 0 ? QTYPE_F32 : (enum qtype)best;
}

/* ---- Probes ---------------------------------------------------------------------------------------------
 */

/* All rows, as the probe's type. NULL: out of memory. */
static char *quantise_all(const struct sensitivity *s, size_t k)
{
    const struct sensitivity_tensor *t = &s->tensor[k];
    const struct importance_entry *e = s->o.weighed ? importance_find(s->importance, t->name) : NULL;
    const int64_t row_bytes = qtype_bytes(t->probe, t->cols);
    const int64_t few = SLICE / t->cols > 0 ? SLICE / t->cols : 1, n_slices = (t->rows + few - 1) / few;
    char *bytes = malloc((size_t)(t->rows * row_bytes));
    atomic_bool failed = !bytes;
#pragma omp parallel for schedule(dynamic) num_threads(s->o.n_threads)
    for (int64_t i = 0; i < n_slices; i++) {
        const int64_t row = i * few, n = min_of(few, t->rows - row);
        float *x = failed ? NULL : malloc((size_t)(n * t->cols) * sizeof *x);
        if (!x || export_floats(s->export, s->index[k], row, n, x))
            failed = true;
        for (int64_t r = 0; !failed && r < n; r++)
            qtypes[t->probe].quantise(bytes + (row + r) * row_bytes, x + r * t->cols,
                                      importance_of_row(e, t, row + r), t->cols);
        free(x);
    }
    if (failed) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

static struct matrix *place_of(struct sensitivity *s, size_t k, size_t run, int64_t *row0)
{
    const struct export_run r = export_run(s->export, s->index[k], run);
    *row0 = r.row0;
    return binding_place(s->model, &(struct binding){.role = r.role, .layer = r.layer, .expert = r.expert});
}

static void put_back(struct sensitivity *s, size_t k, const struct matrix *was, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t row0;
        struct matrix *x = place_of(s, k, i, &row0);
        s->o.ops->packed_release(&x->packed);
        *x = was[i];
    }
}

/* Replaces tensor k; was: room for what its matrices were. Adapters are merged in the new rows, columns are
 * in their own order. */
static int put_in(struct sensitivity *s, size_t k, const char *bytes, struct matrix *was, size_t n)
{
    const struct sensitivity_tensor *t = &s->tensor[k];
    for (size_t i = 0; i < n; i++) {
        int64_t row0;
        struct matrix *x = place_of(s, k, i, &row0);
        was[i] = *x;
        x->packed.data = NULL; /* not to be released */
        x->lora_a = x->lora_b = (struct packed){.data = NULL};
        x->order = NULL;
        if (matrix_replace(s->model, x, t->probe, bytes + row0 * qtype_bytes(t->probe, t->cols))) {
            *x = was[i];
            put_back(s, k, was, i);
            return -1;
        }
    }
    return 0;
}

static int probe(struct sensitivity *s, size_t k, struct part *p, int first, char *err, size_t errlen)
{
    struct sensitivity_tensor *t = &s->tensor[k];
    if (!go_on(s, t->name))
        return SENSITIVITY_STOPPED;
    t->probe = probe_type(s, t);
    if (t->probe == QTYPE_F32) /* zeros, which all types have */
        return 0;
    const size_t n = export_n_runs(s->export, s->index[k]);
    struct matrix *was = calloc(n, sizeof *was);
    char *bytes = quantise_all(s, k);
    int rc = was && bytes && put_in(s, k, bytes, was, n) == 0 ? 0 : no_memory(s, err, errlen);
    free(bytes);
    if (rc == 0) {
        rc = run_part(s, p, first, NULL, take_kl, err, errlen);
        put_back(s, k, was, n);
    }
    free(was);
    if (rc)
        return rc;
    double sum = 0;
    for (int i = 0; i < s->n_scored; i++)
        sum += s->kl[i];
    t->probe_kl = sum / s->n_scored;
    if (!isfinite(t->probe_kl))
        return err_set(err, errlen, "%s: tensor '%s' as %s gives logits that are not finite",
                       weights_path(s->w), t->name, qtypes[t->probe].name);
    return 0;
}

/* Where the trial of tensor k begins: the layer, of the output the last one, of what comes first the first.
 */
static int first_layer(const struct sensitivity *s, size_t k)
{
    const struct export_run r = export_run(s->export, s->index[k], 0);
    return r.role == ROLE_OUTPUT ? model_config(s->model)->n_layers - 1 : r.layer < 0 ? 0 : r.layer;
}

/* The logits of the model as it is. */
static int make_base(struct sensitivity *s, struct part *whole, char *err, size_t errlen)
{
    const int64_t vocab_size = model_config(s->model)->vocab_size;
    int rc = run_part(s, whole, 0, NULL, take_base, err, errlen);
    for (int i = 0; rc == 0 && i < s->n_scored; i++)
        if (!isfinite(logits_log_sum_exp(s->base + i * vocab_size, vocab_size)))
            rc = err_set(err, errlen,
                         "%s: its logits are not finite, so that nothing can be compared with them",
                         weights_path(s->w));
    return rc;
}

static int probe_layer(struct sensitivity *s, int l, char *err, size_t errlen)
{
    struct part rest, one;
    const int n_layers = model_config(s->model)->n_layers;
    if (part_open(&rest, s, l, n_layers - l, err, errlen))
        return -1;
    int rc = l == 0 ? make_base(s, &rest, err, errlen) : 0;
    for (size_t k = 0; rc == 0 && k < s->n; k++)
        if (first_layer(s, k) == l)
            rc = probe(s, k, &rest, l, err, errlen);
    part_close(&rest);
    if (rc || l + 1 == n_layers)
        return rc;
    if (part_open(&one, s, l, 1, err, errlen))
        return -1;
    rc = run_part(s, &one, l, s->rows, NULL, err, errlen);
    part_close(&one);
    return rc;
}

/* ---- All -------------------------------------------------------------------------------------------------
 */

static int list_tensors(struct sensitivity *s, char *err, size_t errlen)
{
    size_t n;
    const struct save_gguf_tensor *t = export_tensors(s->export, &n);
    s->tensor = calloc(n + 1, sizeof *s->tensor);
    s->index = calloc(n + 1, sizeof *s->index);
    if (!s->tensor || !s->index)
        return no_memory(s, err, errlen);
    for (size_t i = 0; i < n; i++) {
        if (export_n_runs(s->export, i) == 0)
            continue;
        const enum role role = export_run(s->export, i, 0).role;
        if (!role_is_matrix(role) || role == ROLE_ROUTER)
            continue;
        struct sensitivity_tensor *k = &s->tensor[s->n];
        *k = (struct sensitivity_tensor){.name = t[i].name, .cols = t[i].dims[0], .rows = 1};
        for (int d = 1; d < t[i].n_dims; d++)
            k->rows *= t[i].dims[d];
        s->index[s->n++] = i;
    }
    return 0;
}

static void count_work(struct sensitivity *s)
{
    const int n_layers = model_config(s->model)->n_layers;
    s->total = (double)s->n_ids * 2 * n_layers;
    if (!s->o.importance)
        s->total += (double)min_of(s->o.n_collect, s->o.n_ids) * n_layers;
    for (size_t k = 0; k < s->n; k++)
        s->total += (double)s->n_ids * (n_layers - first_layer(s, k));
}

static int measure(struct sensitivity *s, char *err, size_t errlen)
{
    const struct model_options mo = {.ops = s->o.ops,
                                     .n_threads = s->o.n_threads,
                                     .rope_scaling = -1,
                                     .lora = s->o.lora,
                                     .n_lora = s->o.n_lora};
    if (export_open(&s->export, s->w, -1, s->o.lora, s->o.n_lora, err, errlen) ||
        model_load(&s->model, s->w, &mo, err, errlen) || list_tensors(s, err, errlen) ||
        take_text(s, err, errlen))
        return -1;
    count_work(s);
    int rc = s->importance ? 0 : collect(s, err, errlen);
    for (size_t k = 0; rc == 0 && k < s->n; k++)
        rc = go_on(s, "errors") ? estimate_errors(s, k, err, errlen) : SENSITIVITY_STOPPED;
    for (int l = 0; rc == 0 && l < model_config(s->model)->n_layers; l++)
        rc = probe_layer(s, l, err, errlen);
    return rc;
}

/* What is needed to measure only. */
static void drop_run(struct sensitivity *s)
{
    model_free(s->model);
    free(s->ids);
    free(s->seq);
    free(s->want);
    free(s->rows);
    free(s->base);
    free(s->kl);
    s->model = NULL;
    s->ids = s->seq = NULL;
    s->want = NULL;
    s->rows = s->base = NULL;
    s->kl = NULL;
}

int sensitivity_open(struct sensitivity **out, struct weights *w, const struct sensitivity_options *o,
                     char *err, size_t errlen)
{
    *out = NULL;
    struct sensitivity *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    s->w = w;
    s->o = *o;
    s->o.n_probe = o->n_probe > 0 ? o->n_probe : N_PROBE;
    s->o.n_collect = o->n_collect > 0 ? o->n_collect : N_COLLECT;
    s->o.probe_bits = o->probe_bits > 0 ? o->probe_bits : PROBE_BITS;
    s->importance = o->importance;
    int rc = measure(s, err, errlen);
    drop_run(s);
    if (rc) {
        sensitivity_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void sensitivity_close(struct sensitivity *s)
{
    if (!s)
        return;
    export_close(s->export);
    importance_free(s->own);
    free(s->tensor);
    free(s->index);
    free(s);
}

const struct sensitivity_tensor *sensitivity_tensors(const struct sensitivity *s, size_t *n)
{
    *n = s->n;
    return s->tensor;
}

const struct sensitivity_tensor *sensitivity_find(const struct sensitivity *s, const char *name)
{
    for (size_t k = 0; k < s->n; k++)
        if (strcmp(s->tensor[k].name, name) == 0)
            return &s->tensor[k];
    return NULL;
}

const struct importance *sensitivity_importance(const struct sensitivity *s)
{
    return s->importance;
}

double sensitivity_kl(const struct sensitivity_tensor *t, enum qtype type)
{
    if (qtypes[type].x_is_f32)
        return 0;
    if (t->error[type] < 0)
        return -1;
    const double tried = t->error[t->probe];
    return tried > 0 ? t->probe_kl * t->error[type] / tried : 0;
}

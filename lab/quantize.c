/* The plan and the writing of a quantised GGUF. */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "lab/quantize.h"

#include "model/arch.h"
#include "model/export.h"
#include "quant/err.h"
#include "weights/save.h"

#include <inttypes.h>
#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct quantize {
    struct weights *w;
    struct quantize_options opt;
    struct export *export;
    struct quantize_step *step;
    struct save_gguf_tensor *tensor;
    size_t n;
};

/* ---- The plan ----------------------------------------------------------------------------------- */

/* A tensor whose type is chosen; all others stay as they are. */
static bool is_matrix(const struct save_gguf_tensor *t)
{
    return t->n_dims >= 2 && !strstr(t->name, "ffn_gate_inp") && strncmp(t->name, "prefix", 6) != 0;
}

static int compile_rules(pcre2_code **code, const struct quantize_options *opt, char *err, size_t errlen)
{
    for (size_t i = 0; i < opt->n_rules; i++) {
        int number;
        PCRE2_SIZE at;
        code[i] = pcre2_compile((PCRE2_SPTR)opt->rules[i].pattern, PCRE2_ZERO_TERMINATED, PCRE2_NEVER_UCP,
                                &number, &at, NULL);
        if (!code[i]) {
            char why[128] = "";
            (void)pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
            return err_set(err, errlen, "pattern '%s': %s, at byte %zu", opt->rules[i].pattern, why, at);
        }
    }
    return 0;
}

/* The first rule that fits, −1: none. */
static int find_rule(pcre2_code *const *code, size_t n, const char *name)
{
    int found = -1;
    for (size_t i = 0; i < n && found < 0; i++) {
        pcre2_match_data *match = pcre2_match_data_create_from_pattern(code[i], NULL);
        if (match && pcre2_match(code[i], (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0, match, NULL) >= 0)
            found = (int)i;
        pcre2_match_data_free(match);
    }
    return found;
}

/* The type that options name for it, −1: none do. */
static int fixed_type(const struct quantize *q, const char *name, pcre2_code *const *code)
{
    const struct quantize_options *o = &q->opt;
    if (o->output_type >= 0 && strcmp(name, "output.weight") == 0)
        return o->output_type;
    if (o->embedding_type >= 0 && strcmp(name, "token_embd.weight") == 0)
        return o->embedding_type;
    int rule = find_rule(code, o->n_rules, name);
    return rule >= 0 ? (int)o->rules[rule].type : -1;
}

/* The importances of a step, if there are any and of its shape. */
static int find_importance(struct quantize_step *s, const struct quantize *q, char *err, size_t errlen)
{
    if (s->copied || qtypes[s->to].block_len == 1)
        return 0;
    const struct importance_entry *e = importance_find(q->opt.importance, s->name);
    if (e && (e->cols != s->cols || e->n_experts != s->n_experts))
        return err_set(err, errlen,
                       "%s: tensor '%s' has %d × %" PRId64 " columns, its importances are %d × %" PRId64,
                       weights_path(q->w), s->name, s->n_experts, s->cols, e->n_experts, e->cols);
    s->importance = e;
    return 0;
}

static int set_type(struct quantize *q, size_t i, enum qtype wanted, char *err, size_t errlen)
{
    size_t n;
    const enum qtype stored = export_tensors(q->export, &n)[i].type;
    struct quantize_step *s = &q->step[i];
    s->wanted = wanted;
    s->to = s->is_matrix ? qtype_for_rows(wanted, s->cols) : wanted;
    s->copied = s->to == stored && s->from == stored;
    s->to_bytes = (uint64_t)s->rows * (uint64_t)qtype_bytes(s->to, s->cols);
    q->tensor[i].type = s->to;
    s->importance = NULL;
    return find_importance(s, q, err, errlen);
}

static int plan_step(struct quantize *q, size_t i, const struct mix_model *model, pcre2_code *const *code,
                     char *err, size_t errlen)
{
    const struct save_gguf_tensor *t = &q->tensor[i];
    struct quantize_step *s = &q->step[i];
    *s = (struct quantize_step){
        .name = t->name, .cols = t->dims[0], .rows = 1, .n_experts = 1, .is_matrix = is_matrix(t)};
    for (int d = 1; d < t->n_dims; d++)
        s->rows *= t->dims[d];
    s->n_experts = t->n_dims > 2 ? (int)t->dims[2] : 1;
    s->from = export_source_type(q->export, i);
    s->from_bytes = (uint64_t)s->rows * (uint64_t)qtype_bytes(t->type, s->cols);
    const int fixed = s->is_matrix ? fixed_type(q, t->name, code) : (int)t->type;
    s->fixed = fixed >= 0;
    const enum qtype mixed = q->opt.pure ? mix_base(q->opt.mix) : mix_type(q->opt.mix, t->name, model);
    return set_type(q, i, s->fixed ? (enum qtype)fixed : mixed, err, errlen);
}

int quantize_set_type(struct quantize *q, size_t i, enum qtype type, char *err, size_t errlen)
{
    return set_type(q, i, type, err, errlen);
}

static int plan(struct quantize *q, char *err, size_t errlen)
{
    struct config c;
    const struct save_gguf_tensor *t = export_tensors(q->export, &q->n);
    pcre2_code **code = calloc(q->opt.n_rules + 1, sizeof(pcre2_code *));
    q->step = calloc(q->n + 1, sizeof *q->step);
    q->tensor = calloc(q->n + 1, sizeof *q->tensor);
    int rc = code && q->step && q->tensor ? config_read(&c, q->w, err, errlen)
                                          : err_set(err, errlen, "%s: out of memory", weights_path(q->w));
    if (rc == 0)
        rc = compile_rules(code, &q->opt, err, errlen);
    if (rc == 0) {
        struct mix_model model = {c.n_layers,  c.n_heads, c.n_kv_heads,
                                  c.n_experts, true,      q->opt.importance != NULL};
        for (size_t i = 0; i < q->n; i++)
            model.tied = model.tied && strcmp(t[i].name, "output.weight") != 0;
        memcpy(q->tensor, t, q->n * sizeof *t);
        for (size_t i = 0; i < q->n && rc == 0; i++)
            rc = plan_step(q, i, &model, code, err, errlen);
    }
    for (size_t i = 0; code && i < q->opt.n_rules; i++)
        pcre2_code_free(code[i]);
    free(code);
    return rc;
}

int quantize_open(struct quantize **out, struct weights *w, const struct quantize_options *opt, char *err,
                  size_t errlen)
{
    *out = NULL;
    struct quantize *q = calloc(1, sizeof *q);
    if (!q)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    q->w = w;
    q->opt = *opt;
    if (export_open(&q->export, w, -1, opt->lora, opt->n_lora, err, errlen) || plan(q, err, errlen)) {
        quantize_close(q);
        return -1;
    }
    *out = q;
    return 0;
}

void quantize_close(struct quantize *q)
{
    if (!q)
        return;
    export_close(q->export);
    free(q->step);
    free(q->tensor);
    free(q);
}

const struct quantize_step *quantize_steps(const struct quantize *q, size_t *n)
{
    *n = q->n;
    return q->step;
}

const struct meta *quantize_meta(const struct quantize *q, size_t *n)
{
    return export_meta(q->export, n);
}

const struct save_gguf_tensor *quantize_tensors(const struct quantize *q, size_t *n)
{
    *n = q->n;
    return q->tensor;
}

/* ---- Writing ------------------------------------------------------------------------------------ */

/* Elements that are quantised before their bytes are written: a few for each thread at a time. */
enum { SLICE = 1 << 16, BATCH = 1 << 22 };

struct writing {
    struct quantize *q;
    struct calibrate *calibrate; /* NULL: every matrix by itself */
    struct rows_format *format;  /* its */
    int layer;                   /* that it has made; −1: none yet */
    const char *path;
    quantize_progress *progress;
    void *arg;
    size_t next;        /* the first tensor that is neither written nor there from before */
    uint64_t begin;     /* where it begins in the file */
    double done, total; /* elements */
    char *err;
    size_t errlen;
};

/* Where a value of rows [row, row + n) is not finite: its index in x, −1: nowhere. */
static int64_t find_fault(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return i;
    return -1;
}

struct fault {
    int64_t row, col; /* row −1: none; −2: out of memory */
    float value;
};

/* Rows row … row + n − 1 of step i, quantised to dst; of a copied one only the faults are looked for. */
static void quantise_rows(struct fault *fault, const struct quantize *q, size_t i, int64_t row, int64_t n,
                          char *dst)
{
    const struct quantize_step *s = &q->step[i];
    const int64_t rows_per_expert = s->rows / s->n_experts, row_bytes = qtype_bytes(s->to, s->cols);
    float *x = malloc((size_t)(n * s->cols) * sizeof *x);
    if (!x || export_floats(q->export, i, row, n, x)) {
        fault->row = -2;
        free(x);
        return;
    }
    int64_t at = q->opt.allow_nan ? -1 : find_fault(x, n * s->cols);
    if (at >= 0)
        *fault = (struct fault){row + at / s->cols, at % s->cols, x[at]};
    for (int64_t r = 0; r < n && at < 0 && !s->copied; r++) {
        const struct importance_entry *e = s->importance;
        const float *mean = e ? e->mean + (row + r) / rows_per_expert * s->cols : NULL;
        qtypes[s->to].quantise(dst + r * row_bytes, x + r * s->cols, mean, s->cols);
    }
    free(x);
}

/* Elements to be quantised. */

static double work_of(const struct quantize_step *s)
{
    return s->copied ? 0 : (double)s->rows * (double)s->cols;
}

static bool report(struct writing *w, const struct quantize_step *s)
{
    if (!w->progress || w->progress(w->arg, s, w->total > 0 ? w->done / w->total : 1))
        return true;
    if (w->errlen)
        w->err[0] = 0;
    return false;
}

static int say_fault(struct writing *w, const struct quantize_step *s, const struct fault *f)
{
    if (f->row == -2)
        return err_set(w->err, w->errlen, "%s: out of memory", w->path);
    return err_set(w->err, w->errlen,
                   "%s: tensor '%s' holds %s in row %" PRId64 ", column %" PRId64
                   " (--allow-nan quantises it nevertheless)",
                   weights_path(w->q->w), s->name, isnan(f->value) ? "NaN" : "an infinite value", f->row,
                   f->col);
}

/* Rows row … row + n − 1, by all threads; the first fault in the order of rows, whoever finds it. */
static struct fault quantise_batch(const struct quantize *q, size_t i, int64_t row, int64_t n, char *dst)
{
    const struct quantize_step *s = &q->step[i];
    const int64_t few = SLICE / s->cols > 0 ? SLICE / s->cols : 1, n_slices = (n + few - 1) / few;
    const int64_t row_bytes = qtype_bytes(s->to, s->cols);
    struct fault first = {-1, 0, 0};
#pragma omp parallel for schedule(dynamic) num_threads(q->opt.n_threads)
    for (int64_t k = 0; k < n_slices; k++) {
        int64_t begin = k * few, end = begin + few < n ? begin + few : n;
        struct fault f = {-1, 0, 0};
        quantise_rows(&f, q, i, row + begin, end - begin, dst + begin * row_bytes);
#pragma omp critical(quantize_fault)
        if (f.row != -1 && (first.row == -1 || f.row < first.row))
            first = f;
    }
    return first;
}

/* Tensors come layer by layer; what a method with a calibration text has made of tensor i, NULL: nothing. */
static int made_rows(struct writing *w, size_t i, const void **rows)
{
    const struct quantize *q = w->q;
    *rows = NULL;
    if (!w->calibrate || export_n_runs(q->export, i) == 0)
        return 0;
    const int layer = export_run(q->export, i, 0).layer;
    while (w->layer < layer) {
        int rc = calibrate_layer(w->calibrate, ++w->layer, w->err, w->errlen);
        if (rc > 0 && w->errlen)
            w->err[0] = 0;
        if (rc)
            return -1;
    }
    if (layer >= 0)
        *rows = calibrate_rows(w->calibrate, i);
    if (layer >= 0 && !*rows)
        *rows = calibrate_vector(w->calibrate, i);
    return 0;
}

/* Layer `layer` is complete in front of tensor i. */
static bool is_layer_complete(const struct writing *w, size_t i)
{
    for (size_t k = i; w->layer >= 0 && k < w->q->n; k++)
        if (export_n_runs(w->q->export, k) && export_run(w->q->export, k, 0).layer == w->layer)
            return false;
    return true;
}

/* Tensor i comes next. What is complete is kept when that has been some time ago, and after every layer that
 * a text has gone through. */
static int keep(struct writing *w, size_t i, const struct save_file *f)
{
    struct journal *j = w->q->opt.journal;
    for (; w->next < i; w->next++) /* they were not asked for */
        w->done += work_of(&w->q->step[w->next]);
    w->next = i + 1;
    w->begin = i > 0 ? f->at : 0;
    if (!j || w->begin <= journal_bytes(j) || !is_layer_complete(w, i))
        return 0;
    const bool moved = w->layer > journal_layer(j);
    if (!moved && !journal_is_due(j))
        return 0;
    size_t n = 0;
    const float *rows = moved ? calibrate_text_rows(w->calibrate, &n) : NULL;
    return journal_keep(j, f->at, w->layer, rows, n, w->err, w->errlen);
}

/* Where an earlier run ended. */
static int go_on(struct writing *w)
{
    const struct journal *j = w->q->opt.journal;
    size_t n = 0;
    if (!w->calibrate || !j || journal_layer(j) < 0)
        return 0;
    w->layer = journal_layer(j);
    float *rows = calibrate_text_rows(w->calibrate, &n);
    return rows ? journal_read_rows(j, rows, n, w->err, w->errlen) : 0;
}

static int open_calibrate(struct writing *w)
{
    struct quantize *q = w->q;
    if (!q->opt.calibration)
        return 0;
    w->format = calloc(q->n + 1, sizeof *w->format);
    if (!w->format)
        return err_set(w->err, w->errlen, "%s: out of memory", w->path);
    for (size_t i = 0; i < q->n; i++) {
        const struct quantize_step *s = &q->step[i];
        const int block_len = qtypes[s->to].block_len;
        w->format[i] = (struct rows_format){s->to, s->is_matrix && block_len > 1 ? block_len : 0};
        if (s->copied)
            w->format[i].group = 0;
    }
    if (calibrate_open(&w->calibrate, q->w, q->export, w->format, q->opt.calibration, w->err, w->errlen))
        return -1;
    return go_on(w);
}

static int write_tensor(void *arg, size_t i, struct save_file *f)
{
    struct writing *w = arg;
    const struct quantize *q = w->q;
    const struct quantize_step *s = &q->step[i];
    const int64_t row_bytes = qtype_bytes(s->to, s->cols);
    int64_t batch = BATCH / s->cols > 0 ? BATCH / s->cols : 1;
    batch = batch < s->rows ? batch : s->rows;
    if (keep(w, i, f) || !report(w, s))
        return -1;
    const void *made;
    int rc = made_rows(w, i, &made);
    if (rc || made) {
        w->done += made ? (double)s->rows * (double)s->cols : 0;
        return rc ? rc : weights_save_part(f, made, (uint64_t)s->rows * (uint64_t)row_bytes);
    }
    char *room = malloc((size_t)(batch * row_bytes));
    rc = room ? 0 : err_set(w->err, w->errlen, "%s: out of memory", w->path);
    for (int64_t row = 0; rc == 0 && row < s->rows; row += batch) {
        int64_t n = s->rows - row < batch ? s->rows - row : batch;
        struct fault fault = quantise_batch(q, i, row, n, room);
        if (fault.row != -1)
            rc = say_fault(w, s, &fault);
        else if (!s->copied)
            rc = weights_save_part(f, room, (uint64_t)(n * row_bytes));
        w->done += s->copied ? 0 : (double)(n * s->cols);
        if (rc == 0 && !report(w, s))
            rc = -1;
    }
    free(room);
    if (rc == 0 && s->copied)
        rc = export_write(q->export, i, f);
    export_drop(q->export, i);
    return rc;
}

static bool is_split_key(const char *key)
{
    return strncmp(key, "split.", 6) == 0 || strcmp(key, "general.file_type") == 0 ||
           strcmp(key, "general.quantization_version") == 0;
}

int quantize_write(struct quantize *q, const char *path, const struct meta *meta, size_t n_meta,
                   quantize_progress *progress, void *arg, char *err, size_t errlen)
{
    const uint32_t file_type = (uint32_t)mix_file_type(q->opt.mix), version = 2;
    struct writing w = {
        .q = q, .layer = -1, .path = path, .progress = progress, .arg = arg, .err = err, .errlen = errlen};
    struct meta *all = calloc(n_meta + 2, sizeof *all);
    if (!all)
        return err_set(err, errlen, "%s: out of memory", path);
    size_t n = 0;
    for (size_t i = 0; i < n_meta; i++)
        if (!is_split_key(meta[i].key))
            all[n++] = meta[i];
    all[n++] = (struct meta){
        .key = "general.file_type", .type = META_U32, .elem = META_U32, .n = 1, .data = &file_type};
    all[n++] = (struct meta){
        .key = "general.quantization_version", .type = META_U32, .elem = META_U32, .n = 1, .data = &version};
    for (size_t i = 0; i < q->n; i++)
        w.total += work_of(&q->step[i]);
    struct journal *j = q->opt.journal;
    const struct save_partial partial = {j ? journal_file_path(j) : NULL, j ? journal_bytes(j) : 0};
    const struct save_gguf g = {.meta = all,
                                .tensor = q->tensor,
                                .n_meta = n,
                                .n_tensors = q->n,
                                .write = write_tensor,
                                .arg = &w,
                                .partial = j ? &partial : NULL};
    int rc = open_calibrate(&w);
    if (rc == 0)
        rc = weights_save_gguf(path, &g, err, errlen);
    if (j && rc == 0)
        journal_finish(j);
    else if (j && !w.calibrate && w.begin > journal_bytes(j))
        (void)journal_keep(j, w.begin, -1, NULL, 0, NULL, 0); /* else what was kept before counts */
    calibrate_close(w.calibrate);
    free(w.format);
    free(all);
    return rc;
}

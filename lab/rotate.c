#include "lab/rotate.h"

#include "lab/hadamard.h"
#include "lab/rows.h"
#include "model/arch.h"
#include "model/export.h"
#include "quant/err.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is rotated: the residual stream, the values of each head. */
enum space { NOTHING, STREAM, HEAD, N_SPACES };

/* What becomes of a role's tensor. */
static const struct plan {
    enum role gain;           /* the norm that it reads: its gain goes into the columns */
    enum space columns, rows; /* of a matrix's inputs and outputs, of a vector's elements */
    bool is_gone;             /* a gain that is in the matrices behind it */
} plans[N_ROLES] = {
    [ROLE_TOKEN_EMBD] = {.columns = STREAM},
    [ROLE_OUTPUT_NORM] = {.is_gone = true},
    [ROLE_OUTPUT] = {.gain = ROLE_OUTPUT_NORM, .columns = STREAM},
    [ROLE_ATTN_NORM] = {.is_gone = true},
    [ROLE_ATTN_Q] = {.gain = ROLE_ATTN_NORM, .columns = STREAM},
    [ROLE_ATTN_K] = {.gain = ROLE_ATTN_NORM, .columns = STREAM},
    [ROLE_ATTN_V] = {.gain = ROLE_ATTN_NORM, .columns = STREAM, .rows = HEAD},
    [ROLE_ATTN_V_BIAS] = {.rows = HEAD},
    [ROLE_ATTN_OUTPUT] = {.columns = HEAD, .rows = STREAM},
    [ROLE_ATTN_OUTPUT_BIAS] = {.rows = STREAM},
    [ROLE_FFN_NORM] = {.is_gone = true},
    [ROLE_FFN_GATE] = {.gain = ROLE_FFN_NORM, .columns = STREAM},
    [ROLE_FFN_UP] = {.gain = ROLE_FFN_NORM, .columns = STREAM},
    [ROLE_FFN_DOWN] = {.rows = STREAM},
    [ROLE_FFN_DOWN_BIAS] = {.rows = STREAM},
    [ROLE_ROUTER] = {.gain = ROLE_FFN_NORM, .columns = STREAM},
    [ROLE_GATE_EXPS] = {.gain = ROLE_FFN_NORM, .columns = STREAM},
    [ROLE_UP_EXPS] = {.gain = ROLE_FFN_NORM, .columns = STREAM},
    [ROLE_DOWN_EXPS] = {.rows = STREAM},
};

/* Elements in memory at once, of matrices whose rows are rotated by themselves; rows and columns that a
 * thread takes at once. */
enum { BATCH = 1 << 22, ROWS = 16, COLS = 16 };

struct rotator {
    const struct weights *w;
    const struct rotate_options *o;
    struct config config;
    struct export *export;
    struct rotation rotation[N_SPACES];
    struct save_gguf_tensor *tensor;
    size_t n, n_export; /* n > n_export: the last is the output matrix that the model had not */
    size_t embedding;   /* of the export's tensors */
    double *gain;       /* (dim) */
    double done, total; /* elements */
    char *err;
    size_t errlen;
};

static int no_memory(const struct rotator *r)
{
    return err_set(r->err, r->errlen, "%s: not enough memory to rotate it", weights_path(r->w));
}

/* ---- Which models ------------------------------------------------------------------------------- */

/* Does the model compute the same when it is rotated? */
static int check_model(const struct rotator *r)
{
    const struct config *c = &r->config;
    const char *why = NULL;
    if (c->arch->norm != NORM_RMS)
        why = "its LayerNorm subtracts the mean, which depends on the basis";
    else if (arch_presence(c, TENSORS_POST_NORM) != TENSOR_REFUSED)
        why = "it has norms behind attention and feed-forward, whose gains no matrix takes over";
    else if (c->n_virtual)
        why = "it has a P-Tuning prefix";
    return why ? err_set(r->err, r->errlen, "%s: a model of architecture '%s' cannot be rotated: %s",
                         weights_path(r->w), c->arch->name, why)
               : 0;
}

/* ---- Tensors ------------------------------------------------------------------------------------ */

/* The first tensor with a run of this role; n_export: there is none. */
static size_t find_role(const struct rotator *r, enum role role, int layer, int64_t *row0)
{
    for (size_t i = 0; i < r->n_export; i++)
        for (size_t k = 0, n = export_n_runs(r->export, i); k < n; k++) {
            const struct export_run run = export_run(r->export, i, k);
            if (run.role == role && run.layer == layer) {
                *row0 = run.row0;
                return i;
            }
        }
    return r->n_export;
}

static int plan_tensors(struct rotator *r)
{
    int64_t row0;
    const struct save_gguf_tensor *t = export_tensors(r->export, &r->n_export);
    r->tensor = calloc(r->n_export + 1, sizeof *r->tensor);
    if (!r->tensor)
        return no_memory(r);
    memcpy(r->tensor, t, r->n_export * sizeof *t);
    r->n = r->n_export;
    r->embedding = find_role(r, ROLE_TOKEN_EMBD, -1, &row0);
    if (find_role(r, ROLE_OUTPUT, -1, &row0) == r->n_export) {
        r->tensor[r->n] = t[r->embedding];
        r->tensor[r->n++].name = "output.weight";
    }
    for (size_t i = 0; i < r->n; i++) {
        double elements = 1;
        for (int d = 0; d < r->tensor[i].n_dims; d++)
            elements *= (double)r->tensor[i].dims[d];
        r->tensor[i].type = QTYPE_F32;
        r->total += elements;
    }
    return 0;
}

/* ---- Vectors ------------------------------------------------------------------------------------ */

/* All of tensor i, a vector: malloc'ed, NULL: out of memory. */
static float *vector_floats(const struct rotator *r, size_t i)
{
    float *x = malloc((size_t)r->tensor[i].dims[0] * sizeof *x);
    if (x && export_floats(r->export, i, 0, 1, x)) {
        free(x);
        x = NULL;
    }
    return x;
}

static int read_gain(struct rotator *r, enum role norm, int layer)
{
    int64_t row0 = 0;
    const size_t i = find_role(r, norm, layer, &row0);
    float *x = i < r->n_export ? vector_floats(r, i) : NULL;
    if (!x)
        return no_memory(r);
    for (int k = 0; k < r->config.dim; k++)
        r->gain[k] = (double)x[row0 + k];
    free(x);
    return 0;
}

/* Elements of a vector in the rotated basis. */
static int rotate_vector(const struct rotation *q, float *x, int64_t n)
{
    double *room = malloc(2 * (size_t)q->n * sizeof *room);
    for (int64_t at = 0; room && at < n; at += q->n) {
        for (int64_t k = 0; k < q->n; k++)
            room[k] = (double)x[at + k];
        rotation_apply(q, room, 1, room + q->n);
        for (int64_t k = 0; k < q->n; k++)
            x[at + k] = (float)room[k];
    }
    free(room);
    return room ? 0 : -1;
}

static int write_vector(struct rotator *r, size_t i, struct save_file *f)
{
    const int64_t n = r->tensor[i].dims[0];
    float *x = vector_floats(r, i);
    int rc = x ? rows_check_finite(x, 0, 1, n, weights_path(r->w), r->tensor[i].name, r->err, r->errlen)
               : no_memory(r);
    for (size_t k = 0; rc == 0 && k < export_n_runs(r->export, i); k++) {
        const struct export_run run = export_run(r->export, i, k);
        const struct plan *p = &plans[run.role];
        for (int64_t j = 0; p->is_gone && j < run.rows; j++)
            x[run.row0 + j] = 1;
        if (p->rows && rotate_vector(&r->rotation[p->rows], x + run.row0, run.rows))
            rc = no_memory(r);
    }
    if (rc == 0)
        rc = weights_save_part(f, x, (uint64_t)n * sizeof *x);
    free(x);
    return rc;
}

/* ---- Matrices ----------------------------------------------------------------------------------- */

/* Rows of tensor i from `row` on as floats. */
static bool load_rows(const struct rotator *r, size_t i, int64_t row, int64_t n, int64_t cols, float *x)
{
    bool failed = false;
#pragma omp parallel for schedule(dynamic) num_threads(r->o->n_threads) reduction(|| : failed)
    for (int64_t k = 0; k < n; k += ROWS)
        failed |= export_floats(r->export, i, row + k, n - k < ROWS ? n - k : ROWS, x + k * cols) != 0;
    return !failed;
}

/* Each row y becomes y diag(gain) Q, Q once per run of its columns; gain NULL: 1. */
static bool rotate_rows(const struct rotator *r, const struct rotation *q, const double *gain, float *x,
                        int64_t rows, int64_t cols)
{
    bool failed = false;
#pragma omp parallel num_threads(r->o->n_threads) reduction(|| : failed)
    {
        double *room = malloc(2 * (size_t)q->n * sizeof *room);
        failed = !room;
#pragma omp for schedule(static)
        for (int64_t at = 0; at < rows * cols; at += q->n) {
            for (int64_t k = 0; room && k < q->n; k++)
                room[k] = (double)x[at + k] * (gain ? gain[k] : 1);
            if (room)
                rotation_apply(q, room, 1, room + q->n);
            for (int64_t k = 0; room && k < q->n; k++)
                x[at + k] = (float)room[k];
        }
        free(room);
    }
    return !failed;
}

/* Each column y of every run of q->n rows becomes Qᵀ y. */
static bool rotate_columns(const struct rotator *r, const struct rotation *q, float *x, int64_t rows,
                           int64_t cols)
{
    const int64_t n_strips = (cols + COLS - 1) / COLS;
    bool failed = false;
#pragma omp parallel num_threads(r->o->n_threads) reduction(|| : failed)
    {
        double *room = malloc(2 * COLS * (size_t)q->n * sizeof *room);
        failed = !room;
#pragma omp for schedule(static)
        for (int64_t s = 0; s < rows / q->n * n_strips; s++) {
            const int64_t col = s % n_strips * COLS, width = cols - col < COLS ? cols - col : COLS;
            float *strip = x + s / n_strips * q->n * cols + col;
            for (int64_t k = 0; room && k < q->n * width; k++)
                room[k] = (double)strip[k / width * cols + k % width];
            if (room)
                rotation_apply(q, room, width, room + q->n * width);
            for (int64_t k = 0; room && k < q->n * width; k++)
                strip[k / width * cols + k % width] = (float)room[k];
        }
        free(room);
    }
    return !failed;
}

/* n rows of tensor i, which is called `name`, in the rotated basis. */
static int rotate_batch(struct rotator *r, size_t i, const char *name, int64_t row, int64_t n, int64_t cols,
                        const struct plan *p, float *x)
{
    if (!load_rows(r, i, row, n, cols, x))
        return no_memory(r);
    if (rows_check_finite(x, row, n, cols, weights_path(r->w), name, r->err, r->errlen))
        return -1;
    if (p->columns && !rotate_rows(r, &r->rotation[p->columns], p->gain ? r->gain : NULL, x, n, cols))
        return no_memory(r);
    if (p->rows && !rotate_columns(r, &r->rotation[p->rows], x, n, cols))
        return no_memory(r);
    return 0;
}

static bool report(struct rotator *r, const char *name, double more)
{
    r->done += more;
    if (!r->o->progress || r->o->progress(r->o->arg, name, r->done / r->total))
        return true;
    if (r->errlen)
        r->err[0] = 0;
    return false;
}

/* Rows of one run, as what `role` does with them. */
static int write_run(struct rotator *r, size_t i, const char *name, const struct export_run *run,
                     enum role role, struct save_file *f)
{
    const struct plan *p = &plans[role];
    const int64_t cols = r->tensor[i].dims[0], block = p->rows ? r->rotation[p->rows].n : 1;
    int64_t batch = p->rows == STREAM ? run->rows : (BATCH / cols / block + 1) * block;
    batch = batch < run->rows ? batch : run->rows;
    if (p->gain && read_gain(r, p->gain, run->layer))
        return -1;
    float *x = malloc((size_t)(batch * cols) * sizeof *x);
    int rc = x ? 0 : no_memory(r);
    for (int64_t row = 0; rc == 0 && row < run->rows; row += batch) {
        const int64_t n = run->rows - row < batch ? run->rows - row : batch;
        if (!report(r, name, 0) || rotate_batch(r, i, name, run->row0 + row, n, cols, p, x))
            rc = -1;
        else
            rc = weights_save_part(f, x, (uint64_t)(n * cols) * sizeof *x);
        r->done += (double)(n * cols);
    }
    free(x);
    return rc;
}

static int write_tensor(void *arg, size_t i, struct save_file *f)
{
    struct rotator *r = arg;
    const char *name = r->tensor[i].name;
    const bool untied = i == r->n_export;
    if (!report(r, name, 0))
        return -1;
    if (untied) {
        const struct export_run run = export_run(r->export, r->embedding, 0);
        return write_run(r, r->embedding, name, &run, ROLE_OUTPUT, f);
    }
    int rc = 0;
    if (r->tensor[i].n_dims == 1)
        rc = write_vector(r, i, f);
    for (size_t k = 0; rc == 0 && r->tensor[i].n_dims > 1 && k < export_n_runs(r->export, i); k++) {
        const struct export_run run = export_run(r->export, i, k);
        rc = write_run(r, i, name, &run, run.role, f);
    }
    export_drop(r->export, i);
    return rc;
}

/* ---- The file ----------------------------------------------------------------------------------- */

/* The model's own, but for those that say how its file was split and quantised: malloc'ed. */
static struct meta *model_meta(const struct export *e, size_t *n)
{
    size_t n_all;
    const struct meta *all = export_meta(e, &n_all);
    struct meta *kept = calloc(n_all + 1, sizeof *kept);
    *n = 0;
    for (size_t i = 0; kept && i < n_all; i++)
        if (strncmp(all[i].key, "split.", 6) != 0 && strcmp(all[i].key, "general.file_type") != 0)
            kept[(*n)++] = all[i];
    return kept;
}

static int init_rotations(struct rotator *r)
{
    r->gain = malloc((size_t)r->config.dim * sizeof *r->gain);
    if (!r->gain || rotation_init(&r->rotation[STREAM], r->config.dim, 1) ||
        rotation_init(&r->rotation[HEAD], r->config.head_dim, 2))
        return no_memory(r);
    return 0;
}

static int write_file(struct rotator *r, const char *path)
{
    struct save_gguf g = {.tensor = r->tensor, .n_tensors = r->n, .write = write_tensor, .arg = r};
    struct meta *meta = model_meta(r->export, &g.n_meta);
    g.meta = meta;
    int rc = meta ? weights_save_gguf(path, &g, r->err, r->errlen) : no_memory(r);
    free(meta);
    return rc;
}

int rotate_write(const char *path, const struct weights *w, const struct rotate_options *o, bool *untied,
                 char *err, size_t errlen)
{
    struct rotator r = {.w = w, .o = o, .err = err, .errlen = errlen};
    int rc = config_read(&r.config, w, err, errlen);
    if (rc == 0)
        rc = check_model(&r);
    if (rc == 0)
        rc = export_open(&r.export, w, -1, NULL, 0, err, errlen);
    if (rc == 0)
        rc = plan_tensors(&r);
    if (rc == 0)
        rc = init_rotations(&r);
    if (rc == 0)
        rc = write_file(&r, path);
    if (untied)
        *untied = r.n > r.n_export;
    for (int s = 0; s < N_SPACES; s++)
        rotation_free(&r.rotation[s]);
    export_close(r.export);
    free(r.tensor);
    free(r.gain);
    return rc;
}

int rotate_open(struct weights **out, const char *path, const struct weights *w,
                const struct rotate_options *o, bool *untied, char *err, size_t errlen)
{
    *out = NULL;
    int rc = rotate_write(path, w, o, untied, err, errlen);
    if (rc == 0) {
        rc = weights_open(out, path, NULL, err, errlen);
        (void)unlink(path);
    }
    return rc;
}

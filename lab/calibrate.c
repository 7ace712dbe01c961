#include "lab/calibrate.h"

#include "lab/awq.h"
#include "lab/gptq.h"
#include "lab/hessian.h"
#include "lab/walk.h"
#include "model/arch.h"
#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Matrices with the same input. */
enum input_kind { INPUT_QKV, INPUT_ATTN_OUTPUT, INPUT_FFN, INPUT_FFN_DOWN, INPUT_EXPERT, INPUT_EXPERT_DOWN };

struct input {
    struct hessian h;
    float *scale; /* AWQ's (cols): what the columns were multiplied with; NULL: nothing */
};

/* A matrix of the current layer that is quantised. */
struct member {
    size_t tensor;
    struct export_run run;
    int64_t cols;
    int input;              /* of k->input */
    float *w;               /* (rows, cols): scaled */
    const float *row_scale; /* what the rows were divided by; NULL: nothing */
    int n_repeats, run_len; /* row r has scale r / run_len · n_repeats · run_len + r % run_len of it */
};

struct calibrate {
    struct weights *w;
    const struct export *e;
    const struct rows_format *format;
    struct calibration o;
    struct config config;
    struct walk *walk; /* NULL: there is no text, and none is needed */
    const struct save_gguf_tensor *tensor;
    size_t n_tensors;
    struct input *input; /* the four of a layer, then two of every expert */
    int n_inputs;
    struct member *member;
    size_t n_members, cap_members;
    char **rows;    /* (n_tensors): of the current layer */
    float **vector; /* (n_tensors) */
};

static int no_memory(const struct calibrate *k, char *err, size_t errlen)
{
    return err_set(err, errlen, "%s: not enough memory to calibrate a layer", weights_path(k->w));
}

/* ---- Life --------------------------------------------------------------------------------------- */

static void drop_layer(struct calibrate *k)
{
    for (size_t i = 0; i < k->n_members; i++)
        free(k->member[i].w);
    k->n_members = 0;
    for (int i = 0; k->input && i < k->n_inputs; i++) {
        hessian_free(&k->input[i].h);
        free(k->input[i].scale);
        k->input[i].scale = NULL;
    }
    for (size_t i = 0; i < k->n_tensors; i++) {
        if (k->rows)
            free(k->rows[i]);
        if (k->vector)
            free(k->vector[i]);
    }
    if (k->rows)
        memset(k->rows, 0, k->n_tensors * sizeof *k->rows);
    if (k->vector)
        memset(k->vector, 0, k->n_tensors * sizeof *k->vector);
}

void calibrate_close(struct calibrate *k)
{
    if (!k)
        return;
    drop_layer(k);
    walk_close(k->walk);
    free(k->member);
    free(k->input);
    free(k->vector);
    free(k->rows);
    free(k);
}

int calibrate_open(struct calibrate **out, struct weights *w, const struct export *e,
                   const struct rows_format *format, const struct calibration *o, char *err, size_t errlen)
{
    *out = NULL;
    struct calibrate *k = calloc(1, sizeof *k);
    if (!k)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    *k = (struct calibrate){.w = w, .e = e, .format = format, .o = *o};
    k->tensor = export_tensors(e, &k->n_tensors);
    k->o.damp = o->damp > 0 ? o->damp : 0.01;
    if (config_read(&k->config, w, err, errlen))
        goto failed;
    k->n_inputs = INPUT_EXPERT + 2 * k->config.n_experts;
    k->input = calloc((size_t)k->n_inputs, sizeof *k->input);
    k->rows = calloc(k->n_tensors + 1, sizeof *k->rows);
    k->vector = calloc(k->n_tensors + 1, sizeof *k->vector);
    if (!k->input || !k->rows || !k->vector) {
        (void)no_memory(k, err, errlen);
        goto failed;
    }
    const struct walk_options wo = {o->ops, o->n_threads, o->seq_len, o->stop};
    const bool needs_text = o->awq || o->solver == SOLVE_GPTQ;
    if (needs_text && walk_open(&k->walk, w, o->ids, o->n_ids, &wo, err, errlen))
        goto failed;
    *out = k;
    return 0;

failed:
    calibrate_close(k);
    return -1;
}

/* ---- What a layer has --------------------------------------------------------------------------- */

/* Its input among k->input, −1: none that is looked at. */
static int input_of(const struct calibrate *k, enum role role, int expert)
{
    switch (role) {
    case ROLE_ATTN_Q:
    case ROLE_ATTN_K:
    case ROLE_ATTN_V:
        return INPUT_QKV;
    case ROLE_ATTN_OUTPUT:
        return INPUT_ATTN_OUTPUT;
    case ROLE_FFN_GATE:
    case ROLE_FFN_UP:
        return INPUT_FFN;
    case ROLE_FFN_DOWN:
        return INPUT_FFN_DOWN;
    case ROLE_GATE_EXPS:
    case ROLE_UP_EXPS:
        return INPUT_EXPERT + expert;
    case ROLE_DOWN_EXPS:
        return INPUT_EXPERT + k->config.n_experts + expert;
    default:
        return -1;
    }
}

static struct member *find_member(struct calibrate *k, enum role role, int expert)
{
    for (size_t i = 0; i < k->n_members; i++)
        if (k->member[i].run.role == role && k->member[i].run.expert == expert)
            return &k->member[i];
    return NULL;
}

static int add_member(struct calibrate *k, size_t tensor, struct export_run run, char *err, size_t errlen)
{
    if (k->n_members == k->cap_members) {
        size_t cap = k->cap_members ? 2 * k->cap_members : 16;
        struct member *grown = realloc(k->member, cap * sizeof *grown);
        if (!grown)
            return no_memory(k, err, errlen);
        k->member = grown;
        k->cap_members = cap;
    }
    struct member *m = &k->member[k->n_members];
    const int64_t cols = k->tensor[tensor].dims[0];
    *m = (struct member){tensor, run, cols, .input = input_of(k, run.role, run.expert)};
    if (m->input < 0)
        return 0;
    m->w = malloc((size_t)(run.rows * cols) * sizeof *m->w);
    if (!m->w)
        return no_memory(k, err, errlen);
    k->n_members++;
    if (export_floats(k->e, tensor, run.row0, run.rows, m->w))
        return no_memory(k, err, errlen);
    if (!k->rows[tensor]) {
        int64_t rows = 1;
        for (int d = 1; d < k->tensor[tensor].n_dims; d++)
            rows *= k->tensor[tensor].dims[d];
        k->rows[tensor] = malloc((size_t)(rows * qtype_bytes(k->format[tensor].type, cols)));
        if (!k->rows[tensor])
            return no_memory(k, err, errlen);
    }
    return rows_check_finite(m->w, run.row0, run.rows, cols, weights_path(k->w), k->tensor[tensor].name, err,
                             errlen);
}

static int find_members(struct calibrate *k, int l, char *err, size_t errlen)
{
    for (size_t i = 0; i < k->n_tensors; i++) {
        const size_t n = k->format[i].group ? export_n_runs(k->e, i) : 0;
        for (size_t j = 0; j < n; j++) {
            const struct export_run run = export_run(k->e, i, j);
            if (run.layer == l && add_member(k, i, run, err, errlen))
                return -1;
        }
    }
    return 0;
}

/* ---- Inputs ------------------------------------------------------------------------------------- */

static void observe(void *arg, struct worker *w, const struct observation *o)
{
    struct calibrate *k = arg;
    const int input = input_of(k, o->part[0]->role, o->part[0]->expert);
    if (input >= 0 && k->input[input].h.h)
        hessian_add(&k->input[input].h, w, o->x, o->n);
}

static int find_inputs(struct calibrate *k, int l, char *err, size_t errlen)
{
    if (walk_layer(k->walk, l, err, errlen))
        return -1;
    for (size_t i = 0; i < k->n_members; i++) {
        const struct member *m = &k->member[i];
        struct hessian *h = &k->input[m->input].h;
        if (!h->h && hessian_init(h, m->cols))
            return no_memory(k, err, errlen);
        /* adapters are in the weights by now */
        if (walk_replace(k->walk, m->run.role, m->run.expert, m->w, err, errlen))
            return -1;
    }
    int rc = walk_run(k->walk, false, observe, k, err, errlen);
    for (int i = 0; i < k->n_inputs; i++)
        if (k->input[i].h.h)
            hessian_done(&k->input[i].h);
    return rc;
}

/* ---- AWQ ---------------------------------------------------------------------------------------- */

/* The elements of a layer's vector that may change; *ok false: out of memory. NULL: it has none. */
static float *vector_of(struct calibrate *k, enum role role, int l, bool *ok)
{
    for (size_t i = 0; i < k->n_tensors; i++)
        for (size_t j = 0, n = export_n_runs(k->e, i); j < n; j++) {
            const struct export_run run = export_run(k->e, i, j);
            if (run.role != role || run.layer != l)
                continue;
            if (!k->vector[i]) {
                k->vector[i] = malloc((size_t)k->tensor[i].dims[0] * sizeof(float));
                if (!k->vector[i] || export_floats(k->e, i, 0, 1, k->vector[i])) {
                    *ok = false;
                    return NULL;
                }
            }
            return k->vector[i] + run.row0;
        }
    return NULL;
}

static void divide(float *x, const float *by, int64_t n)
{
    for (int64_t i = 0; x && i < n; i++)
        x[i] /= by[i];
}

/* Columns times the input's scale, and its second moments accordingly. */
static void scale_columns(struct calibrate *k, int input)
{
    struct input *in = &k->input[input];
    const int64_t cols = in->h.cols;
    for (size_t i = 0; i < k->n_members; i++) {
        struct member *m = &k->member[i];
        for (int64_t j = 0; m->input == input && j < m->run.rows * cols; j++)
            m->w[j] *= in->scale[j % cols];
    }
    for (int64_t i = 0; i < cols; i++)
        for (int64_t j = 0; j < cols; j++)
            in->h.h[i * cols + j] /= in->scale[i] * in->scale[j];
}

/* Row r of what makes the input is divided by the scale of the first column that it makes. */
static int64_t scale_of_row(const struct member *m, int64_t r)
{
    return r / m->run_len * m->n_repeats * m->run_len + r % m->run_len;
}

static void scale_rows(struct member *m, const float *scale, float *bias)
{
    m->row_scale = scale;
    for (int64_t r = 0; r < m->run.rows; r++) {
        const float s = scale[scale_of_row(m, r)];
        for (int64_t c = 0; c < m->cols; c++)
            m->w[r * m->cols + c] /= s;
        if (bias)
            bias[r] /= s;
    }
}

/* What can take the inverse of an input's scale. */
struct before {
    enum role norm, norm_bias; /* a norm; or, ROLE_NONE, … */
    enum role rows, rows_bias; /* … the matrix whose rows they are */
    int n_runs, shared;        /* as struct awq_input has them */
};

static int scale_input(struct calibrate *k, int l, int input, int expert, const struct before *b, char *err,
                       size_t errlen)
{
    struct input *in = &k->input[input];
    struct member *rows = b->norm ? NULL : find_member(k, b->rows, expert);
    if (!in->h.h || in->h.n == 0 || (!b->norm && !rows))
        return 0;
    struct awq_input a = {.cols = in->h.cols,
                          .h = in->h.h,
                          .n_runs = b->n_runs,
                          .shared = b->shared,
                          .n_threads = k->o.n_threads};
    for (size_t i = 0; i < k->n_members; i++)
        if (k->member[i].input == input && a.n < AWQ_MATRICES) {
            a.matrix[a.n].w = k->member[i].w;
            a.matrix[a.n].rows = k->member[i].run.rows;
            a.matrix[a.n++].format = k->format[k->member[i].tensor];
        }
    bool ok = true;
    in->scale = malloc((size_t)in->h.cols * sizeof *in->scale);
    if (!in->scale || awq_search(in->scale, &a, NULL))
        return no_memory(k, err, errlen);
    if (b->norm) {
        divide(vector_of(k, b->norm, l, &ok), in->scale, in->h.cols);
        divide(vector_of(k, b->norm_bias, l, &ok), in->scale, in->h.cols);
    } else {
        rows->n_repeats = b->shared;
        rows->run_len = (int)(in->h.cols / b->n_runs);
        scale_rows(rows, in->scale, b->rows_bias ? vector_of(k, b->rows_bias, l, &ok) : NULL);
    }
    scale_columns(k, input);
    return ok ? 0 : no_memory(k, err, errlen);
}

/* All matrices with this input are quantised here: none is left that a changed norm would disturb. */
static bool are_all_members(struct calibrate *k, const enum role *role, int n)
{
    for (int i = 0; i < n; i++)
        if (!find_member(k, role[i], -1))
            return false;
    return true;
}

static int scale_layer(struct calibrate *k, int l, char *err, size_t errlen)
{
    const struct config *c = &k->config;
    static const enum role qkv[] = {ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V},
                           ffn[] = {ROLE_FFN_GATE, ROLE_FFN_UP};
    /* Norms whose result is also the residual stream (ChatGLM-6B) stay. */
    const bool norms = !c->arch->normed_residual;
    const struct before attn_norm = {ROLE_ATTN_NORM, ROLE_ATTN_NORM_BIAS, 0, 0, 1, 1},
                        ffn_norm = {ROLE_FFN_NORM, ROLE_FFN_NORM_BIAS, 0, 0, 1, 1},
                        values = {0,           0,
                                  ROLE_ATTN_V, ROLE_ATTN_V_BIAS,
                                  c->n_heads,  c->n_heads / c->n_kv_heads},
                        up = {0, 0, ROLE_FFN_UP, ROLE_FFN_UP_BIAS, 1, 1},
                        up_expert = {0, 0, ROLE_UP_EXPS, 0, 1, 1};
    if (norms && are_all_members(k, qkv, 3) && scale_input(k, l, INPUT_QKV, -1, &attn_norm, err, errlen))
        return -1;
    if (scale_input(k, l, INPUT_ATTN_OUTPUT, -1, &values, err, errlen))
        return -1;
    /* Without a gate, what comes before `down` is no product that a factor would pass. */
    const bool gated = are_all_members(k, ffn, 2);
    if (norms && gated && scale_input(k, l, INPUT_FFN, -1, &ffn_norm, err, errlen))
        return -1;
    if (gated && scale_input(k, l, INPUT_FFN_DOWN, -1, &up, err, errlen))
        return -1;
    for (int e = 0; e < c->n_experts; e++)
        if (scale_input(k, l, INPUT_EXPERT + c->n_experts + e, e, &up_expert, err, errlen))
            return -1;
    return 0;
}

/* ---- Codes -------------------------------------------------------------------------------------- */

static char *rows_of(const struct calibrate *k, const struct member *m)
{
    return k->rows[m->tensor] + m->run.row0 * qtype_bytes(k->format[m->tensor].type, m->cols);
}

/* A matrix whose input nothing has gone through (an expert that no token chose) is rounded. */
static int quantise_member(struct calibrate *k, const struct member *m, const struct gptq *g, char *err,
                           size_t errlen)
{
    const struct rows_format *f = &k->format[m->tensor];
    const struct hessian *h = &k->input[m->input].h;
    float *importance = NULL;
    int rc;
    if (!g && h->h && h->n > 0) {
        importance = malloc((size_t)m->cols * sizeof *importance);
        if (!importance)
            return no_memory(k, err, errlen);
        for (int64_t c = 0; c < m->cols; c++)
            importance[c] = h->h[c * (m->cols + 1)];
    }
    if (k->o.solver == SOLVE_HQQ)
        rc = rows_quantise_hqq(f, rows_of(k, m), m->w, importance, m->run.rows, m->cols, k->o.n_threads);
    else if (g && qtypes[f->type].grid)
        rc = gptq_quantise(g, f, rows_of(k, m), m->w, m->run.rows, NULL);
    else
        rc = rows_quantise(f, rows_of(k, m), m->w, g ? g->importance : importance, m->run.rows, m->cols,
                           k->o.n_threads);
    free(importance);
    return rc ? no_memory(k, err, errlen) : 0;
}

static int quantise_input(struct calibrate *k, int input, char *err, size_t errlen)
{
    struct hessian *h = &k->input[input].h;
    struct gptq g = {0};
    const bool by_gptq = k->o.solver == SOLVE_GPTQ && h->h && h->n > 0;
    int rc = 0;
    if (by_gptq) {
        const struct gptq_options o = {k->o.damp, k->o.act_order, k->o.n_threads};
        char why[256];
        rc = gptq_init(&g, h->h, h->cols, &o, why, sizeof why);
        h->h = NULL;
        if (rc)
            (void)err_set(err, errlen, "%s: %s", weights_path(k->w), why);
    }
    for (size_t i = 0; i < k->n_members && rc == 0; i++)
        if (k->member[i].input == input)
            rc = quantise_member(k, &k->member[i], by_gptq ? &g : NULL, err, errlen);
    gptq_free(&g);
    return rc;
}

/* The text goes on through what the layer has become. */
static int step(struct calibrate *k, char *err, size_t errlen)
{
    for (size_t i = 0; i < k->n_members; i++) {
        const struct member *m = &k->member[i];
        const float *scale = k->input[m->input].scale;
        qtypes[k->format[m->tensor].type].to_f32(m->w, rows_of(k, m), m->run.rows * m->cols);
        for (int64_t r = 0; r < m->run.rows; r++) {
            const float by = m->row_scale ? m->row_scale[scale_of_row(m, r)] : 1;
            for (int64_t c = 0; c < m->cols; c++)
                m->w[r * m->cols + c] *= scale ? by / scale[c] : by;
        }
        if (walk_replace(k->walk, m->run.role, m->run.expert, m->w, err, errlen))
            return -1;
    }
    return walk_run(k->walk, true, NULL, NULL, err, errlen);
}

int calibrate_layer(struct calibrate *k, int l, char *err, size_t errlen)
{
    drop_layer(k);
    if (find_members(k, l, err, errlen))
        return -1;
    if (k->walk) {
        int rc = find_inputs(k, l, err, errlen);
        if (rc)
            return rc;
    }
    if (k->o.awq && scale_layer(k, l, err, errlen))
        return -1;
    for (int i = 0; i < k->n_inputs; i++)
        if (quantise_input(k, i, err, errlen))
            return -1;
    return k->walk && l + 1 < k->config.n_layers ? step(k, err, errlen) : 0;
}

float *calibrate_text_rows(struct calibrate *k, size_t *n)
{
    *n = 0;
    if (!k || !k->walk)
        return NULL;
    *n = (size_t)walk_n_tokens(k->walk) * (size_t)k->config.dim;
    return walk_rows(k->walk);
}

const void *calibrate_rows(const struct calibrate *k, size_t i)
{
    return k->rows[i];
}

const float *calibrate_vector(const struct calibrate *k, size_t i)
{
    return k->vector[i];
}

const void *calibrate_role_rows(const struct calibrate *k, enum role role, int expert)
{
    for (size_t i = 0; i < k->n_members; i++)
        if (k->member[i].run.role == role && k->member[i].run.expert == expert)
            return rows_of(k, &k->member[i]);
    return NULL;
}

const float *calibrate_role_vector(const struct calibrate *k, enum role role, int layer)
{
    for (size_t i = 0; i < k->n_tensors; i++)
        for (size_t j = 0; k->vector[i] && j < export_n_runs(k->e, i); j++) {
            const struct export_run run = export_run(k->e, i, j);
            if (run.role == role && run.layer == layer)
                return k->vector[i] + run.row0;
        }
    return NULL;
}

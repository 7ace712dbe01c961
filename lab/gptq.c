#include "lab/gptq.h"

#include "quant/err.h"

#include <cblas.h>

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 64, /* of the matrix at once: lanes */
    STEP = 32, /* columns after which those to come are moved, all at once; divides every group */
    TRIES = 8, /* of factorising, each with ten times the damping */
};

/* LAPACK's Cholesky factor and triangular inverse, column by column: its upper half is our lower one. */
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void strtri_(const char *uplo, const char *diag, const int *n, float *a, const int *lda, int *info);

/* ---- The inverse -------------------------------------------------------------------------------- */

struct by_size {
    float size;
    int32_t col;
};

static int smaller_first(const void *a, const void *b)
{
    const struct by_size *x = a, *y = b;
    return x->size != y->size ? (x->size < y->size ? -1 : 1) : (x->col < y->col ? -1 : 1);
}

static int make_order(struct gptq *g, bool by_size)
{
    struct by_size *sorted = malloc(sizeof *sorted * (size_t)g->cols);
    if (!sorted)
        return -1;
    for (int32_t c = 0; c < g->cols; c++)
        sorted[c] = (struct by_size){g->importance[c], c};
    if (by_size) /* the last come first */
        qsort(sorted, (size_t)g->cols, sizeof *sorted, smaller_first);
    for (int64_t c = 0; c < g->cols; c++)
        g->order[c] = sorted[c].col;
    free(sorted);
    return 0;
}

/* Rows and columns of h in g->order; both halves of h are there, and of the result too. */
static int permute(const struct gptq *g, float *h)
{
    const int64_t n = g->cols;
    float *row = malloc(sizeof *row * (size_t)n);
    float *copy = malloc(sizeof *copy * (size_t)n * (size_t)n);
    if (row && copy) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                copy[i * n + j] = h[g->order[i] * n + g->order[j]];
        memcpy(h, copy, sizeof *copy * (size_t)n * (size_t)n);
    }
    int rc = row && copy ? 0 : -1;
    free(copy);
    free(row);
    return rc;
}

/* Factorises in the lower half; from the upper one, which stays, the lower is put back when that fails. */
static int invert(float *h, int64_t cols, double damp)
{
    const int n = (int)cols;
    double mean = 0;
    openblas_set_num_threads(1); /* its threads add in another order */
    float *diagonal = malloc(sizeof *diagonal * (size_t)cols);
    if (!diagonal)
        return -1;
    for (int64_t i = 0; i < cols; i++) {
        diagonal[i] = h[i * cols + i];
        mean += diagonal[i] / (double)cols;
    }
    int info = 1;
    for (int i = 0; i < TRIES && info != 0 && isfinite(mean); i++, damp *= 10) {
        for (int64_t r = 0; r < cols; r++) {
            for (int64_t c = 0; c < r; c++)
                h[r * cols + c] = h[c * cols + r];
            h[r * cols + r] = (float)(diagonal[r] + damp * mean);
        }
        spotrf_("U", &n, h, &n, &info);
    }
    if (info == 0)
        strtri_("U", "N", &n, h, &n, &info);
    free(diagonal);
    return info == 0 ? 0 : -1;
}

int gptq_init(struct gptq *g, float *h, int64_t cols, const struct gptq_options *o, char *err, size_t errlen)
{
    *g = (struct gptq){.cols = cols,
                       .inverse = h,
                       .order = malloc(sizeof *g->order * (size_t)cols),
                       .importance = malloc(sizeof *g->importance * (size_t)cols),
                       .fixed_scales = o->act_order,
                       .n_threads = o->n_threads};
    if (!g->order || !g->importance)
        goto no_memory;
    for (int64_t c = 0; c < cols; c++) {
        float *d = &h[c * cols + c];
        g->importance[c] = *d;
        if (*d == 0) /* never a value there: nothing depends on it */
            *d = 1;
    }
    if (make_order(g, o->act_order) || (o->act_order && permute(g, h)))
        goto no_memory;
    if (invert(h, cols, o->damp)) {
        gptq_free(g);
        return err_set(err, errlen, "the inputs' second moments (%" PRId64 " columns) cannot be factorised",
                       cols);
    }
    return 0;

no_memory:
    gptq_free(g);
    return err_set(err, errlen, "not enough memory for %" PRId64 " columns' second moments", cols);
}

void gptq_free(struct gptq *g)
{
    free(g->inverse);
    free(g->order);
    free(g->importance);
    *g = (struct gptq){0};
}

/* ---- Rows --------------------------------------------------------------------------------------- */

/* ROWS rows on their way. */
struct lanes {
    const struct gptq *g;
    struct rows_format f;
    int64_t n_groups;
    int n;                   /* rows; the other lanes are zero */
    float (*w)[ROWS];        /* (cols): as moved so far, in g->order */
    struct code_grid(*grid); /* (n_groups, ROWS), of groups in the matrix's order */
    int16_t *code;           /* (ROWS, cols) */
    char *dst;
    int64_t row_bytes;
    float *fit;     /* (group): one row's values */
    uint8_t *codes; /* (group) */
    float error[STEP][ROWS];
    double loss;
};

static char *block_of(const struct lanes *l, int r, int64_t group)
{
    return l->dst + r * l->row_bytes + qtype_bytes(l->f.type, group * l->f.group);
}

/* Chooses the scales of a group: `place` says where each of its columns is among the lanes' columns. */
static void fit_group(struct lanes *l, int64_t group, const int32_t *place)
{
    const float *weights = l->g->importance + group * l->f.group;
    for (int r = 0; r < l->n; r++) {
        for (int64_t i = 0; i < l->f.group; i++)
            l->fit[i] = l->w[place[group * l->f.group + i]][r];
        format_quantise(&l->f, block_of(l, r, group), l->fit, weights, l->f.group, l->codes);
        qtypes[l->f.type].grid(&l->grid[group * ROWS + r], block_of(l, r, group));
    }
}

/* Rounds column c of the lanes. */
static void round_column(struct lanes *l, int64_t c, float *error)
{
    const struct gptq *g = l->g;
    const int64_t col = g->order[c], group = col / l->f.group;
    const int block_len = qtypes[l->f.type].block_len, part = (int)(col % block_len / 16);
    const float by = 1 / g->inverse[c * g->cols + c];
    for (int r = 0; r < l->n; r++) {
        const struct code_grid *grid = &l->grid[group * ROWS + r];
        const int q = code_nearest(grid, part, l->w[c][r]);
        l->code[r * g->cols + col] = (int16_t)q;
        error[r] = (l->w[c][r] - code_value(grid, part, q)) * by;
        l->loss += (double)error[r] * (double)error[r] / 2;
    }
}

/* w[c] −= Σ error[i] · inverse[i][c], c < n, in this order whatever the CPU: with lanes for rows it is no
 * slower than it must be, and a matrix becomes the same on every machine. */
#define DEFINE_MOVE(name, target)                                                                    \
    target static void name(float(*restrict w)[ROWS], int64_t n, const float *inverse, int64_t cols, \
                            float(*restrict error)[ROWS])                                            \
    {                                                                                                \
        for (int64_t c = 0; c < n; c++)                                                              \
            for (int half = 0; half < ROWS; half += ROWS / 2) {                                      \
                float sum[ROWS / 2];                                                                 \
                for (int r = 0; r < ROWS / 2; r++)                                                   \
                    sum[r] = w[c][half + r];                                                         \
                for (int i = STEP; i-- > 0;)                                                         \
                    for (int r = 0; r < ROWS / 2; r++)                                               \
                        sum[r] -= inverse[i * cols + c] * error[i][half + r];                        \
                for (int r = 0; r < ROWS / 2; r++)                                                   \
                    w[c][half + r] = sum[r];                                                         \
            }                                                                                        \
    }
DEFINE_MOVE(move_avx2, __attribute__((target("avx2"))))
DEFINE_MOVE(move_plain, )

static void move_columns(float (*w)[ROWS], int64_t n, const float *inverse, int64_t cols,
                         float (*error)[ROWS])
{
    (__builtin_cpu_supports("avx2") ? move_avx2 : move_plain)(w, n, inverse, cols, error);
}

static void quantise_lanes(struct lanes *l, const int32_t *place)
{
    const struct gptq *g = l->g;
    const int64_t cols = g->cols;
    if (g->fixed_scales)
        for (int64_t i = 0; i < l->n_groups; i++)
            fit_group(l, i, place);
    for (int64_t end = cols; end > 0; end -= STEP) {
        const int64_t begin = end - STEP;
        if (!g->fixed_scales && end % l->f.group == 0)
            fit_group(l, end / l->f.group - 1, place);
        for (int64_t c = end - 1; c >= begin; c--) {
            float *error = l->error[c - begin];
            round_column(l, c, error);
            for (int64_t to = begin; to < c; to++) {
                const float by = g->inverse[c * cols + to];
                for (int r = 0; r < ROWS; r++)
                    l->w[to][r] -= by * error[r];
            }
        }
        move_columns(l->w, begin, g->inverse + begin * cols, cols, l->error);
    }
    for (int r = 0; r < l->n; r++)
        for (int64_t i = 0, step = qtypes[l->f.type].block_len; i < cols; i += step)
            qtypes[l->f.type].set_codes(l->dst + r * l->row_bytes + qtype_bytes(l->f.type, i),
                                        l->code + r * cols + i);
}

static bool lanes_alloc(struct lanes *l)
{
    const size_t cols = (size_t)l->g->cols;
    l->w = aligned_alloc(64, sizeof *l->w * cols);
    l->grid = malloc(sizeof *l->grid * (size_t)l->n_groups * ROWS);
    l->code = malloc(sizeof *l->code * cols * ROWS);
    l->fit = malloc(sizeof *l->fit * (size_t)l->f.group);
    l->codes = malloc((size_t)l->f.group);
    memset(l->error, 0, sizeof l->error);
    return l->w && l->grid && l->code && l->fit && l->codes;
}

static void lanes_free(struct lanes *l)
{
    free(l->w);
    free(l->grid);
    free(l->code);
    free(l->fit);
    free(l->codes);
}

int gptq_quantise(const struct gptq *g, const struct rows_format *f, void *dst, const float *w, int64_t rows,
                  double *loss)
{
    const int64_t cols = g->cols, row_bytes = qtype_bytes(f->type, cols);
    int32_t *place = malloc(sizeof *place * (size_t)cols);
    if (!place)
        return -1;
    for (int64_t c = 0; c < cols; c++)
        place[g->order[c]] = (int32_t)c;
    atomic_bool failed = false;
    double sum = 0;
#pragma omp parallel num_threads(g->n_threads) reduction(+ : sum)
    {
        struct lanes l = {.g = g, .f = *f, .n_groups = cols / f->group, .row_bytes = row_bytes};
        if (!lanes_alloc(&l))
            failed = true;
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < rows; row += ROWS) {
            if (failed)
                continue;
            l.n = (int)(rows - row < ROWS ? rows - row : ROWS);
            l.dst = (char *)dst + row * row_bytes;
            for (int64_t c = 0; c < cols; c++)
                for (int r = 0; r < ROWS; r++)
                    l.w[c][r] = r < l.n ? w[(row + r) * cols + g->order[c]] : 0;
            l.loss = 0;
            quantise_lanes(&l, place);
            sum += l.loss;
        }
        lanes_free(&l);
    }
    free(place);
    if (loss)
        *loss = sum;
    return failed ? -1 : 0;
}

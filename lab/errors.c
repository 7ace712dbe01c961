#include "lab/errors.h"

#include "quant/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE = 1 << 16 }; /* elements that a thread takes at a time */

/* Two tensors with the same rows. */
struct pair {
    const struct export *base, *made;
    size_t in_base, in_made;
    int64_t cols, rows;
};

/* Of some rows. */
struct part {
    double sum, max;
    int64_t bin[ERRORS_BINS];
};

static int bin_of(float e)
{
    int exponent;
    if (!(e > 0))
        return 0;
    const float m = frexpf(e, &exponent); /* 2^(exponent − 1) ≤ e */
    const int bin = 2 * (exponent - 1 - ERRORS_LOW) + (m >= (float)M_SQRT1_2);
    return bin < 0 ? 0 : bin < ERRORS_BINS ? bin : ERRORS_BINS - 1;
}

/* Rows row … row + n − 1. scale 0: the sum of the weights' squares; else their errors' times that. */
static int measure_rows(struct part *to, const struct pair *p, int64_t row, int64_t n, double scale)
{
    const int64_t len = n * p->cols;
    float *w = malloc(2 * (size_t)len * sizeof *w);
    if (!w || export_floats(p->base, p->in_base, row, n, w) ||
        (scale > 0 && export_floats(p->made, p->in_made, row, n, w + len))) {
        free(w);
        return -1;
    }
    for (int64_t i = 0; i < len; i++) {
        const double e = scale > 0 ? fabs((double)w[len + i] - (double)w[i]) * scale : (double)w[i];
        to->sum += e * e;
        if (scale > 0) {
            to->max = e > to->max ? e : to->max;
            to->bin[bin_of((float)e)]++;
        }
    }
    free(w);
    return 0;
}

/* Slices by all threads, added in their order. */
static int measure_tensor(struct part *to, const struct pair *p, double scale, int n_threads)
{
    const int64_t few = SLICE / p->cols > 0 ? SLICE / p->cols : 1, n = (p->rows + few - 1) / few;
    struct part *part = calloc((size_t)n + 1, sizeof *part);
    bool failed = !part;
    *to = (struct part){.sum = 0};
    if (part) {
#pragma omp parallel for schedule(dynamic) num_threads(n_threads) reduction(|| : failed)
        for (int64_t k = 0; k < n; k++) {
            const int64_t row = k * few, rest = p->rows - row;
            failed = measure_rows(&part[k], p, row, rest < few ? rest : few, scale) || failed;
        }
    }
    for (int64_t k = 0; !failed && k < n; k++) {
        to->sum += part[k].sum;
        to->max = part[k].max > to->max ? part[k].max : to->max;
        for (int b = 0; b < ERRORS_BINS; b++)
            to->bin[b] += part[k].bin[b];
    }
    free(part);
    return failed ? -1 : 0;
}

static int measure(struct tensor_errors *to, const struct pair *p, const char *name, int n_threads)
{
    struct part sum;
    const int64_t n = p->cols * p->rows;
    if (measure_tensor(&sum, p, 0, n_threads))
        return -1;
    const double rms = sqrt(sum.sum / (double)n);
    if (measure_tensor(&sum, p, rms > 0 ? 1 / rms : 1, n_threads))
        return -1;
    *to = (struct tensor_errors){.n = n, .rms = sqrt(sum.sum / (double)n), .max = sum.max};
    (void)snprintf(to->name, sizeof to->name, "%s", name);
    memcpy(to->bin, sum.bin, sizeof to->bin);
    return 0;
}

/* Tensor i of p->made is a quantised matrix, and the base has one like it. */
static bool find_pair(struct pair *p, size_t i)
{
    size_t n;
    const struct save_gguf_tensor *m = &export_tensors(p->made, &n)[i];
    const struct save_gguf_tensor *b = export_tensors(p->base, &n);
    if (m->n_dims < 2 || qtypes[export_source_type(p->made, i)].block_len == 1)
        return false;
    p->in_made = i;
    p->cols = m->dims[0];
    p->rows = m->n_dims > 2 ? m->dims[1] * m->dims[2] : m->dims[1];
    for (size_t k = 0; k < n; k++)
        if (strcmp(b[k].name, m->name) == 0) {
            p->in_base = k;
            return b[k].n_dims == m->n_dims && memcmp(b[k].dims, m->dims, sizeof m->dims) == 0 &&
                   p->cols > 0 && p->rows > 0;
        }
    return false;
}

int errors_measure(struct tensor_errors **out, size_t *n, const struct weights *base,
                   const struct weights *made, int n_threads, bool (*stop)(void), char *err, size_t errlen)
{
    struct export *b = NULL, *m = NULL;
    size_t n_made = 0;
    *out = NULL;
    *n = 0;
    int rc =
        export_open(&b, base, -1, NULL, 0, err, errlen) || export_open(&m, made, -1, NULL, 0, err, errlen)
            ? -1
            : 0;
    const struct save_gguf_tensor *t = rc == 0 ? export_tensors(m, &n_made) : NULL;
    if (rc == 0 && !(*out = calloc(n_made + 1, sizeof **out)))
        rc = err_set(err, errlen, "%s: out of memory", weights_path(made));
    for (size_t i = 0; rc == 0 && i < n_made; i++) {
        struct pair p = {.base = b, .made = m};
        if (stop && stop())
            rc = 1;
        else if (find_pair(&p, i) && measure(&(*out)[(*n)++], &p, t[i].name, n_threads))
            rc = err_set(err, errlen, "%s: out of memory", weights_path(made));
        if (rc == 0 && p.cols > 0) {
            export_drop(m, i);
            export_drop(b, p.in_base);
        }
    }
    export_close(b);
    export_close(m);
    if (rc) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return rc;
}

#include "lab/awq.h"

#include <cblas.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLE = 128, /* rows of each matrix that are tried */
    POWERS = 20,  /* trial powers 0, 1/20 … 19/20 */
};

/* Buffers of a search. */
struct search {
    const struct awq_input *in;
    float *magnitude;                /* (cols): root mean square of x, the same where scales must be */
    float *importance;               /* (cols): of the scaled columns */
    float *scaled, *error, *product; /* (SAMPLE, cols) */
    char *bytes;
};

/* Root mean squares: of bound columns the mean of their squares. */
static void magnitudes(struct search *s)
{
    const struct awq_input *in = s->in;
    const int64_t len = in->cols / in->n_runs;
    for (int64_t run = 0; run < in->n_runs; run += in->shared)
        for (int64_t i = 0; i < len; i++) {
            double sum = 0;
            for (int64_t r = run; r < run + in->shared; r++)
                sum += in->h[(r * len + i) * (in->cols + 1)];
            for (int64_t r = run; r < run + in->shared; r++)
                s->magnitude[r * len + i] = (float)sqrt(sum / in->shared);
        }
}

/* magnitude to a power, its largest and smallest value equally far from 1; columns without input keep 1. */
static void set_scale(float *scale, const struct search *s, double power)
{
    const int64_t cols = s->in->cols;
    double most = 0, least = INFINITY;
    for (int64_t c = 0; c < cols; c++) {
        double v = s->magnitude[c] > 0 ? pow(s->magnitude[c], power) : 0;
        most = v > most ? v : most;
        least = v > 0 && v < least ? v : least;
        scale[c] = (float)v;
    }
    const double middle = most > 0 ? sqrt(most * least) : 1;
    for (int64_t c = 0; c < cols; c++)
        scale[c] = scale[c] > 0 ? (float)(scale[c] / middle) : 1;
}

/* Adds Σ e H eᵀ of matrix m, from sampled rows. −1: out of memory. */
static int add_loss(struct search *s, int m, const float *scale, double *loss)
{
    const struct awq_input *in = s->in;
    const int64_t cols = in->cols, rows = in->matrix[m].rows;
    const int64_t n = rows < SAMPLE ? rows : SAMPLE;
    for (int64_t c = 0; c < cols; c++)
        s->importance[c] = in->h[c * (cols + 1)] / (scale[c] * scale[c]);
    for (int64_t r = 0; r < n; r++) {
        const float *w = in->matrix[m].w + r * rows / n * cols;
        for (int64_t c = 0; c < cols; c++)
            s->scaled[r * cols + c] = w[c] * scale[c];
    }
    const struct rows_format *format = &in->matrix[m].format;
    if (rows_quantise(format, s->bytes, s->scaled, s->importance, n, cols, in->n_threads))
        return -1;
    qtypes[format->type].to_f32(s->error, s->bytes, n * cols);
    for (int64_t i = 0; i < n * cols; i++)
        s->error[i] = (s->error[i] - s->scaled[i]) / scale[i % cols];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)cols, (int)cols, 1, s->error,
                (int)cols, in->h, (int)cols, 0, s->product, (int)cols);
    double sum = 0;
    for (int64_t i = 0; i < n * cols; i++)
        sum += (double)s->error[i] * (double)s->product[i];
    *loss += sum * (double)rows / (double)n;
    return 0;
}

int awq_search(float *scale, const struct awq_input *in, double *gain)
{
    const size_t cols = (size_t)in->cols, sample = SAMPLE * cols;
    struct search s = {.in = in,
                       .magnitude = malloc(sizeof(float) * cols),
                       .importance = malloc(sizeof(float) * cols),
                       .scaled = malloc(sizeof(float) * sample),
                       .error = malloc(sizeof(float) * sample),
                       .product = malloc(sizeof(float) * sample),
                       .bytes = malloc(sizeof(float) * sample)};
    float *trial = malloc(sizeof *trial * cols);
    int rc = s.magnitude && s.importance && s.scaled && s.error && s.product && s.bytes && trial ? 0 : -1;
    double best = 0, first = 0;
    if (rc == 0)
        magnitudes(&s);
    for (int k = 0; k < POWERS && rc == 0; k++) {
        set_scale(trial, &s, (double)k / POWERS);
        double loss = 0;
        for (int m = 0; m < in->n; m++)
            rc |= add_loss(&s, m, trial, &loss);
        if (k == 0 || loss < best) {
            best = loss;
            memcpy(scale, trial, sizeof *trial * cols);
        }
        if (k == 0)
            first = loss;
    }
    if (gain)
        *gain = first > 0 ? best / first : 1;
    free(trial);
    free(s.bytes);
    free(s.product);
    free(s.error);
    free(s.scaled);
    free(s.importance);
    free(s.magnitude);
    return rc;
}

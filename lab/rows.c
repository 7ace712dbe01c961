#include "lab/rows.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 8 };             /* of reweighting */
static const double POWER = 0.7; /* p of Σ |error|^p, as in HQQ */

void format_quantise(const struct rows_format *f, void *dst, const float *x, const float *importance,
                     int64_t n, uint8_t *codes)
{
    const struct qtype_info *t = &qtypes[f->type];
    if (!t->quantise_group || f->group == t->block_len) {
        t->quantise(dst, x, importance, n);
        return;
    }
    for (int64_t i = 0; i < n; i += f->group)
        t->quantise_group((char *)dst + qtype_bytes(f->type, i), x + i, importance ? importance + i : NULL,
                          f->group, codes);
}

int rows_quantise(const struct rows_format *f, void *dst, const float *w, const float *importance,
                  int64_t rows, int64_t cols, int n_threads)
{
    const int64_t row_bytes = qtype_bytes(f->type, cols);
    atomic_bool failed = false;
#pragma omp parallel num_threads(n_threads)
    {
        uint8_t *codes = malloc((size_t)f->group);
        if (!codes)
            failed = true;
#pragma omp for schedule(dynamic, 8)
        for (int64_t r = 0; r < rows; r++)
            if (codes)
                format_quantise(f, (char *)dst + r * row_bytes, w + r * cols, importance, cols, codes);
        free(codes);
    }
    return failed ? -1 : 0;
}

static double power_sum(const float *x, const float *got, const float *importance, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += pow(fabs((double)x[i] - (double)got[i]), POWER) * (importance ? (double)importance[i] : 1);
    return sum;
}

/* weight[i] for the next round; errors far below the usual one count as that one's tenth. */
static void reweigh(float *weight, const float *x, const float *got, const float *importance, int64_t n)
{
    double mean = 0;
    for (int64_t i = 0; i < n; i++)
        mean += fabs((double)x[i] - (double)got[i]) / (double)n;
    for (int64_t i = 0; i < n; i++) {
        const double e = mean > 0 ? fabs((double)x[i] - (double)got[i]) / mean : 1;
        weight[i] = (float)pow(e > 0.1 ? e : 0.1, POWER - 2) * (importance ? importance[i] : 1);
    }
}

/* One row, or one group of it, is as good as its best round. */
static void hqq_group(const struct rows_format *f, char *best, const float *x, const float *importance,
                      char *trial, float *got, float *weight, uint8_t *codes)
{
    const int64_t n = f->group, bytes = qtype_bytes(f->type, n);
    const struct qtype_info *t = &qtypes[f->type];
    format_quantise(f, best, x, importance, n, codes);
    t->to_f32(got, best, n);
    double least = power_sum(x, got, importance, n);
    for (int k = 0; k < ROUNDS; k++) {
        reweigh(weight, x, got, importance, n);
        format_quantise(f, trial, x, weight, n, codes);
        t->to_f32(got, trial, n);
        const double sum = power_sum(x, got, importance, n);
        if (sum < least) {
            least = sum;
            memcpy(best, trial, (size_t)bytes);
        }
    }
}

int rows_quantise_hqq(const struct rows_format *f, void *dst, const float *w, const float *importance,
                      int64_t rows, int64_t cols, int n_threads)
{
    const int64_t row_bytes = qtype_bytes(f->type, cols);
    atomic_bool failed = false;
#pragma omp parallel num_threads(n_threads)
    {
        const size_t n = (size_t)f->group;
        float *got = malloc(2 * n * sizeof *got);
        char *trial = malloc((size_t)qtype_bytes(f->type, f->group));
        uint8_t *codes = malloc(n);
        const bool ready = got && trial && codes;
        if (!ready)
            failed = true;
#pragma omp for schedule(dynamic, 8)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; ready && i < cols; i += f->group)
                hqq_group(f, (char *)dst + r * row_bytes + qtype_bytes(f->type, i), w + r * cols + i,
                          importance ? importance + i : NULL, trial, got, got + n, codes);
        free(codes);
        free(trial);
        free(got);
    }
    return failed ? -1 : 0;
}

int rows_check_finite(const float *x, int64_t row0, int64_t rows, int64_t cols, const char *file,
                      const char *tensor, char *err, size_t errlen)
{
    for (int64_t i = 0; i < rows * cols; i++)
        if (!isfinite(x[i]))
            return err_set(err, errlen, "%s: tensor '%s' holds %s in row %" PRId64 ", column %" PRId64, file,
                           tensor, isnan(x[i]) ? "NaN" : "an infinite value", row0 + i / cols, i % cols);
    return 0;
}

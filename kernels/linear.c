/* The product's driver: quantises the input once, then shares the tiles of all its weights among the
 * threads. */
#include "kernels/linear.h"

#include <string.h>

const struct linear_kernels *linear_kernels(enum isa isa)
{
    switch (isa) {
    case ISA_AVX2:
        return &linear_avx2;
    case ISA_AVX512:
        return &linear_avx512;
    case ISA_VNNI:
        return &linear_vnni;
    default:
        return &linear_scalar;
    }
}

int64_t cpu_peak_dots(enum isa isa, int64_t n_rounds)
{
    return linear_kernels(isa)->peak_dots(n_rounds);
}

int64_t cpu_peak_fmas(enum isa isa, int64_t n_rounds)
{
    return linear_kernels(isa)->peak_fmas(n_rounds);
}

static size_t act_bytes(int n_tokens, int64_t cols)
{
    return (size_t)n_tokens * (size_t)((cols + ACT_LEN - 1) / ACT_LEN) * sizeof(struct act_block);
}

/* Both kinds of panels: parts of one product may need either. */
size_t cpu_scratch_bytes(int n_tokens, int64_t cols)
{
    return act_bytes(n_tokens, cols) + (n_tokens > 1 ? sizeof(float) * (size_t)n_tokens * (size_t)cols : 0);
}

static bool is_quantised(const struct linear_args *a, const struct packed *w)
{
    return a->compute == COMPUTE_FAST && !qtypes[w->type].x_is_f32;
}

/* One token's row lies in its panel with the panel's width as stride. A single token is cut in slices of
 * columns, so that all threads take part. */
static void quantise_input(struct worker *w, const struct linear_args *a, int64_t cols,
                           struct act_block *panels, const struct linear_kernels *k)
{
    enum { SLICE = 1024 };
    int64_t n_slices = (cols + SLICE - 1) / SLICE;
    int64_t first = w->id * a->n_tokens * n_slices / w->n_threads;
    int64_t last = (w->id + 1) * a->n_tokens * n_slices / w->n_threads;
    for (int64_t i = first; i < last; i++) {
        int t = (int)(i / n_slices);
        int64_t col = i % n_slices * SLICE;
        int64_t n = cols - col < SLICE ? cols - col : SLICE;
        int width;
        int64_t panel = panel_of(panels, cols, a->n_tokens, t, &width) - panels;
        k->act_quantise(panels + panel + col / ACT_LEN * width + t % PANEL, width, a->x + t * cols + col, n);
    }
}

/* Rows of float to panels. */
static void interleave_input(struct worker *w, const struct linear_args *a, int64_t cols, float *panels)
{
    enum { SLICE = 256 };
    int64_t n_slices = (cols + SLICE - 1) / SLICE;
    int64_t n = (a->n_tokens + FLOAT_PANEL - 1) / FLOAT_PANEL * n_slices;
    for (int64_t i = w->id * n / w->n_threads; i < (w->id + 1) * n / w->n_threads; i++) {
        int first = (int)(i / n_slices) * FLOAT_PANEL, left = a->n_tokens - first;
        int width = left < FLOAT_PANEL ? left : FLOAT_PANEL;
        int64_t begin = i % n_slices * SLICE, end = cols - begin < SLICE ? cols : begin + SLICE;
        const float *restrict src = a->x + first * cols;
        float *restrict dst = panels + first * cols;
        for (int64_t col = begin; col < end; col++)
            for (int t = 0; t < width; t++)
                dst[col * width + t] = src[t * cols + col];
    }
}

void cpu_linear(struct worker *w, const struct linear_args *a, const struct linear_kernels *k)
{
    int64_t cols = a->part[0].w->cols, n_tiles = 0;
    bool quantised = false, interleaved = false;
    for (int i = 0; i < a->n_parts; i++) {
        n_tiles += a->part[i].w->n_tiles;
        if (is_quantised(a, a->part[i].w))
            quantised = true;
        else
            interleaved |= a->n_tokens > 1;
    }
    float *floats = (float *)(void *)((char *)a->scratch + act_bytes(a->n_tokens, cols));
    if (quantised)
        quantise_input(w, a, cols, a->scratch, k);
    if (interleaved)
        interleave_input(w, a, cols, floats);
    if (quantised || interleaved)
        team_barrier(w);
    /* Pieces small enough that a thread that was held up leaves work to the others, and no smaller. */
    int64_t grain = n_tiles / (w->n_threads * 8);
    grain = grain < 1 ? 1 : grain;
    int64_t begin, end;
    while (team_next(w, n_tiles, grain, &begin, &end)) {
        int64_t first = 0;
        for (int i = 0; i < a->n_parts; first += a->part[i++].w->n_tiles) {
            const struct linear_part *p = &a->part[i];
            int64_t lo = begin - first < 0 ? 0 : begin - first;
            int64_t hi = end - first < p->w->n_tiles ? end - first : p->w->n_tiles;
            if (lo >= hi)
                continue;
            struct linear_job job = {
                .w = p->w,
                .tile_begin = lo,
                .tile_end = hi,
                .n_tokens = a->n_tokens,
                .bias = p->bias,
                .out = p->out,
                .add = p->add,
            };
            if (is_quantised(a, p->w)) {
                job.x = a->scratch;
                k->fast(&job);
            } else {
                job.x = interleaved ? (const void *)floats : a->x;
                k->f32(&job);
            }
        }
    }
    team_barrier(w);
}

void cpu_embed(struct worker *w, float *dst, const struct packed *table, const int32_t *id, int n)
{
    for (int64_t t = w->id; t < n; t += w->n_threads)
        pack_row_to_f32(dst + t * table->cols, table, id[t]);
    team_barrier(w);
}

void cpu_gather(struct worker *w, float *dst, const float *src, const int32_t *index, int n, int dim)
{
    for (int64_t i = w->id; i < n; i += w->n_threads)
        memcpy(dst + i * dim, src + (int64_t)index[i] * dim, sizeof(float) * (size_t)dim);
    team_barrier(w);
}

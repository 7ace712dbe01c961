/* The product's driver: quantises the input once, then shares the tiles of all its weights among the
 * threads. */
#include "kernels/linear.h"

#include <stdalign.h>
#include <string.h>

enum {
    OWN_COLS = 8192, /* wider inputs of one token are made together */
    FEW_TOKENS = 8,  /* so many wait for weights rather than for arithmetic */
};

const struct linear_kernels *linear_kernels(enum isa isa)
{
    switch (isa) {
    case ISA_AVX2:
        return &linear_avx2;
    case ISA_AVXVNNI:
        return &linear_avxvnni;
    case ISA_AVX512:
        return &linear_avx512;
    case ISA_VNNI:
        return &linear_vnni;
    case ISA_AMX:
        return &linear_amx;
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

/* What a product's input is made with, and made into. */
struct input {
    const struct linear_args *a;
    const struct linear_kernels *k;
    const struct cpu_kernels *rows;
    int64_t cols;
    bool quantised, interleaved; /* panels of blocks, of floats are needed */
};

/* One thread's own copy of a single token's input: making it takes less time than a barrier. */
struct own_input {
    alignas(64) float x[OWN_COLS];
    alignas(64) struct act_block blocks[OWN_COLS / ACT_LEN];
};

/* What job.x is for products of quantised and of float weights. */
struct ready_input {
    const void *blocks, *floats;
};

static struct ready_input make_own(const struct worker *w, const struct input *in, struct own_input *own)
{
    const struct linear_args *a = in->a;
    const float *x = a->x;
    if (a->norm) {
        float *dst = w->id == 0 ? a->norm->dst : own->x; /* the first thread's is the one that is seen */
        norm_one_row(a->norm, in->rows, 0, dst);
        x = dst;
    }
    if (in->quantised)
        in->k->act_quantise(own->blocks, 1, x, in->cols);
    return (struct ready_input){own->blocks, x};
}

/* Columns begin … end − 1 of token t: made, where they are made here, and quantised to their panel. A token's
 * row lies in its panel with the panel's width as stride. */
static void make_piece(const struct input *in, int t, int64_t begin, int64_t end)
{
    const struct linear_args *a = in->a;
    const int64_t at = t * in->cols + begin;
    if (a->gate)
        gate_piece(a->gate, in->rows, at, at + end - begin);
    if (in->quantised) {
        struct act_block *panels = a->scratch;
        int width;
        int64_t panel = panel_of(panels, in->cols, a->n_tokens, t, &width) - panels;
        in->k->act_quantise(panels + panel + begin / ACT_LEN * width + t % PANEL, width, a->x + at,
                            end - begin);
    }
}

/* The input that all threads make together: whole rows where they are normed, slices of columns otherwise, so
 * that all take part in a single token. */
static void make_shared(struct worker *w, const struct input *in)
{
    enum { SLICE = 256 };
    const struct linear_args *a = in->a;
    const int64_t slice = a->norm ? in->cols : SLICE, n_slices = (in->cols + slice - 1) / slice;
    const int64_t n = a->n_tokens * n_slices;
    for (int64_t i = team_part(w, w->id, n); i < team_part(w, w->id + 1, n); i++) {
        const int t = (int)(i / n_slices);
        const int64_t begin = i % n_slices * slice, rest = in->cols - begin;
        if (a->norm)
            norm_one_row(a->norm, in->rows, t, a->norm->dst + t * in->cols);
        make_piece(in, t, begin, begin + (rest < slice ? rest : slice));
    }
    team_barrier(w);
}

/* Rows of float to panels. */
static void interleave_input(struct worker *w, const struct linear_args *a, int64_t cols, float *panels)
{
    enum { SLICE = 256 };
    int64_t n_slices = (cols + SLICE - 1) / SLICE;
    int64_t n = (a->n_tokens + FLOAT_PANEL - 1) / FLOAT_PANEL * n_slices;
    for (int64_t i = team_part(w, w->id, n); i < team_part(w, w->id + 1, n); i++) {
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

static struct ready_input make_input(struct worker *w, const struct input *in, struct own_input *own)
{
    const struct linear_args *a = in->a;
    if (a->n_tokens == 1 && !a->gate && in->cols <= OWN_COLS)
        return make_own(w, in, own);
    if (in->quantised || a->norm || a->gate)
        make_shared(w, in);
    if (!in->interleaved)
        return (struct ready_input){a->scratch, a->x};
    float *floats = (float *)(void *)((char *)a->scratch + act_bytes(a->n_tokens, in->cols));
    interleave_input(w, a, in->cols, floats);
    team_barrier(w);
    return (struct ready_input){a->scratch, floats};
}

/* Where the thread's own part of the next product begins: its first weights are on their way while the
 * operators between the two compute, and while it waits for other threads. */
static void look_ahead(struct worker *w, const struct packed_list *next)
{
    enum { AHEAD = 64 << 10 };
    int64_t n_tiles = 0;
    for (int i = 0; i < next->n; i++)
        n_tiles += next->w[i]->n_tiles;
    int64_t tile = team_part(w, w->id, n_tiles);
    int i = 0;
    while (i < next->n && tile >= next->w[i]->n_tiles)
        tile -= next->w[i++]->n_tiles;
    if (i == next->n || next->w[i]->is_view)
        return;
    int64_t bytes = (next->w[i]->n_tiles - tile) * next->w[i]->tile_bytes;
    w->ahead = (const char *)next->w[i]->data + tile * next->w[i]->tile_bytes;
    w->ahead_end = w->ahead + (bytes < AHEAD ? bytes : AHEAD);
}

void cpu_linear(struct worker *w, const struct linear_args *a, const struct linear_kernels *k,
                const struct cpu_kernels *rows)
{
    struct own_input own;
    struct input in = {.a = a, .k = k, .rows = rows, .cols = a->part[0].w->cols};
    int64_t n_tiles = 0;
    for (int i = 0; i < a->n_parts; i++) {
        n_tiles += a->part[i].w->n_tiles;
        if (is_quantised(a, a->part[i].w))
            in.quantised = true;
        else
            in.interleaved |= a->n_tokens > 1;
    }
    const struct ready_input ready = make_input(w, &in, &own);
    /* Pieces small enough that a thread that was held up leaves work to the others, and no smaller. */
    int64_t grain = n_tiles / (w->n_threads * 8);
    grain = grain < 1 ? 1 : grain;
    int64_t begin, end;
    while (team_next_near(w, n_tiles, grain, &begin, &end)) {
        int64_t first = 0;
        for (int i = 0; i < a->n_parts; first += a->part[i++].w->n_tiles) {
            const struct linear_part *p = &a->part[i];
            int64_t lo = begin - first < 0 ? 0 : begin - first;
            int64_t hi = end - first < p->w->n_tiles ? end - first : p->w->n_tiles;
            if (lo >= hi)
                continue;
            const bool quantised = is_quantised(a, p->w);
            struct linear_job job = {
                .w = p->w,
                .tile_begin = lo,
                .tile_end = hi,
                .x = quantised ? ready.blocks : ready.floats,
                .n_tokens = a->n_tokens,
                .bias = p->bias,
                .out = p->out,
                .add = p->add,
            };
            (quantised ? k->fast : k->f32)(&job);
        }
    }
    w->ahead = w->ahead_end = NULL;
    if (a->next && a->n_tokens <= FEW_TOKENS)
        look_ahead(w, a->next);
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

/* Products of packed weights with rows of activations: private to kernels/.
 *
 * linear.c shares a product's tiles among the threads; linear_<isa>.c computes tiles. Every level
 * includes linear_decode.h (packed chunk → plain arrays) and linear_tiles.h (the loops), and brings only
 * the sums themselves. */
#ifndef QUOLL_LINEAR_H
#define QUOLL_LINEAR_H

#include "kernels/cpu.h"
#include "kernels/pack.h"

/* Activations of n tokens lie in panels of 16 tokens (the last one may be narrower): block b of token t is
 * panel(t / 16)[b · width + t % 16], so that a tile of tokens has constant strides and what it reads lies
 * together. Floats likewise, in panels of 4: with 4 tokens of a chunk the first cache still holds the
 * weights. */
enum { PANEL = 16, FLOAT_PANEL = 4 };

/* One panel's tokens against one decoded chunk (linear_decode.h) of weights code − zero: total[t] += their
 * product, for tokens whose block b is x[b · width + t]. */
struct chunk;
typedef void mac_panel_fn(const struct chunk *c, int zero, int n_blocks, const struct act_block *x, int width,
                          float (*total)[TILE_ROWS]);

struct linear_job {
    const struct packed *w;
    int64_t tile_begin, tile_end;
    const void *x; /* panels of struct act_block, or of float */
    int n_tokens;
    const float *bias;
    float *out;
    bool add;
};

struct linear_kernels {
    /* Quantised types with quantised activations. */
    void (*fast)(const struct linear_job *j);
    /* Float types, and all others dequantised: x is float. */
    void (*f32)(const struct linear_job *j);
    /* n consecutive values into n / 32 blocks that are `stride` blocks apart. */
    void (*act_quantise)(struct act_block *dst, int64_t stride, const float *x, int64_t n);
    /* cpu_peak_dots, cpu_peak_fmas */
    int64_t (*peak_dots)(int64_t n_rounds), (*peak_fmas)(int64_t n_rounds);
};

extern const struct linear_kernels linear_scalar, linear_avx2, linear_avxvnni, linear_avx512, linear_vnni,
    linear_amx;
const struct linear_kernels *linear_kernels(enum isa isa);
void act_quantise_avx2(struct act_block *dst, int64_t stride, const float *x, int64_t n);

/* Where the panel that holds token t begins, and its width. */
static inline const struct act_block *panel_of(const void *x, int64_t cols, int n_tokens, int t, int *width)
{
    int first = t / PANEL * PANEL;
    *width = n_tokens - first < PANEL ? n_tokens - first : PANEL;
    return (const struct act_block *)x + (int64_t)first * (cols / ACT_LEN);
}

/* 64-byte aligned zero memory. */
void *cpu_alloc(size_t bytes);
void cpu_release(void *p, size_t bytes);

size_t cpu_scratch_bytes(int n_tokens, int64_t cols);
void cpu_linear(struct worker *w, const struct linear_args *a, const struct linear_kernels *k,
                const struct cpu_kernels *rows);
void cpu_embed(struct worker *w, float *dst, const struct packed *table, const int32_t *id, int n);
void cpu_gather(struct worker *w, float *dst, const float *src, const int32_t *index, int n, int dim);

#endif

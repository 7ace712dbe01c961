/* Private to kernels/: the inner kernels of the CPU's operators, one table per CPU level, and the
 * operators themselves. An operator divides the work among threads and is written once; what it calls
 * on rows and blocks comes from the table of its level. Matrix products have a table of their own
 * (linear.h). */
#ifndef QUOLL_CPU_H
#define QUOLL_CPU_H

#include "kernels/kernels.h"

/* ---- Kernels of one row ------------------------------------------------------------------------ */

/* norm_args, one row; weight and bias may be NULL */
typedef void norm_row_fn(float *dst, const float *src, const float *weight, const float *bias, int dim,
                         float eps);
/* dst = act(gate) · up; up may be NULL */
typedef void gate_fn(float *dst, const float *gate, const float *up, int64_t n);
/* dst = s · src */
typedef void scale_fn(float *dst, const float *src, int64_t n, float s);
/* x = cap · tanh(x / cap) */
typedef void softcap_fn(float *x, int64_t n, float cap);
/* dst += src */
typedef void add_fn(float *dst, const float *src, int64_t n);
/* combine_args, elements begin ≤ i < end of one token */
typedef void combine_fn(const struct combine_args *a, int64_t token, int64_t begin, int64_t end);
/* Rotates the first 2 n_pairs elements of x in place; table: (n_pairs, 2), cos and sin. */
typedef void rope_row_fn(float *x, const float *table, int n_pairs);
/* f32_to_f16, n times. */
typedef void f16_row_fn(uint16_t *dst, const float *src, int64_t n);

/* ---- Kernels of one block of attention --------------------------------------------------------- */

/* The 64 positions of a page for one KV head, against rows of queries: (token, head) pairs that read that
 * head of that sequence. */
struct attention_block {
    int n_rows, head_dim;
    const float *q;             /* (n_rows, head_dim), when the keys are F32 or F16 */
    const struct act_block *q8; /* (n_rows, head_dim / ACT_LEN), when they are quantised */
    const void *k, *v;          /* the head's keys and values: kv.h */
    int64_t k_bytes, v_bytes;   /* their sizes */
    const void *next_k;         /* the keys of what the caller attends to next, to be prefetched; or NULL */
    const uint8_t *begin, *end; /* row r sees positions begin[r] ≤ i < end[r]; none: 64, 0 */
    bool whole;                 /* every row sees the whole page */
    const bool *merge;    /* row r's (o, m, l) take in the block's; else they become it. NULL: no row's */
    float scale, softcap; /* of the scores, as in attention_args */
    float *s;             /* (n_rows, KV_PAGE) */
    float *m, *l;         /* (n_rows); with merge, as many as n_rows rounded up to 16 */
    float *old, *new;     /* as m, used with merge only: what o and the block's output are multiplied by */
    float *o;             /* (n_rows, o_stride), o_stride = head_dim rounded up to 16 */
    int o_stride;
    float *tmp; /* attention_tmp_len(head_dim) */
};

/* The three steps of a block, in this order. Rows that see nothing are left alone.
 * scores: s = q k for visible positions (others: anything).
 * softmax: s = softcap(s · scale), m_b = max s, s = e^(s − m_b), 0 where not visible, l_b = the sum of s.
 * With merge: max = the larger of m and m_b, old = e^(m − max), new = e^(m_b − max), l = l · old + l_b · new,
 * m = max. values: o_b = s v over visible positions; with merge o = o · old + o_b · new. */
typedef void attention_block_fn(const struct attention_block *a);

/* A row's blocks that were computed apart: its (o, m, l) take in n of them, in order, as blocks merge above.
 */
struct attention_merge {
    float *o, *m, *l;
    bool fresh; /* (o, m, l) become the first block's */
    int n, head_dim;
    const float *o_b, *m_b, *l_b;
    int64_t o_stride, stride; /* from one block's o_b, and m_b or l_b, to the next's */
};
typedef void attention_merge_fn(const struct attention_merge *a);
/* out = o / l */
typedef void attention_finish_fn(float *out, const float *o, float l, int n);

/* Values as floats where a panel of 16 channels would reach over a row's end; else quants of values, scales,
 * and the probabilities of up to 16 rows times scales. */
static inline int attention_tmp_len(int head_dim)
{
    int stride = (head_dim + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    return KV_PAGE * (head_dim != stride ? stride : stride / 4 + stride / ACT_LEN + 16);
}

/* ---- Tables ------------------------------------------------------------------------------------ */

struct cpu_kernels {
    enum isa isa;
    norm_row_fn *norm_row[N_NORMS];
    gate_fn *gate[N_ACTS];
    scale_fn *scale;
    softcap_fn *softcap;
    add_fn *add;
    combine_fn *combine;
    rope_row_fn *rope_row[ROPE_HALF + 1]; /* by enum rope_pairing; ROPE_NONE: NULL */
    f16_row_fn *f16_row;
    attention_block_fn *attention_scores[QTYPE_COUNT]; /* by type of the keys */
    attention_block_fn *attention_softmax;
    attention_block_fn *attention_values[QTYPE_COUNT]; /* by type of the values */
    attention_merge_fn *attention_merge;
    attention_finish_fn *attention_finish;
};

/* The complete table of a level that is supported. */
const struct cpu_kernels *cpu_kernels(enum isa isa);

/* Row i of a norm. */
static inline void norm_one_row(const struct norm_args *a, const struct cpu_kernels *k, int64_t i, float *dst)
{
    k->norm_row[a->kind](dst, a->src + i * a->dim, a->weight, a->bias, a->dim, a->eps);
}

/* Elements begin … end − 1 of a gate. */
static inline void gate_piece(const struct gate_args *a, const struct cpu_kernels *k, int64_t begin,
                              int64_t end)
{
    k->gate[a->act](a->dst + begin, a->gate + begin, a->up ? a->up + begin : NULL, end - begin);
}

/* What each level has (cpu.c picks): kernels of rows, attention over bytes, attention over floats. */
#define ROW_KERNELS(level)                                                                       \
    norm_row_fn norm_rms_##level, norm_layer_##level;                                            \
    gate_fn gate_silu_##level, gate_gelu_tanh_##level, gate_gelu_erf_##level, gate_relu_##level; \
    scale_fn scale_##level;                                                                      \
    softcap_fn softcap_##level;                                                                  \
    add_fn add_##level;                                                                          \
    combine_fn combine_##level;                                                                  \
    rope_row_fn rope_adjacent_##level, rope_half_##level;                                        \
    f16_row_fn f16_row_##level
#define ATTENTION_BYTE_KERNELS(level) \
    attention_block_fn attention_scores_q8_0_##level, attention_scores_q4_0_##level
#define ATTENTION_KERNELS(level)                                                     \
    attention_block_fn attention_scores_f32_##level, attention_scores_f16_##level;   \
    attention_block_fn attention_values_f32_##level, attention_values_f16_##level;   \
    attention_block_fn attention_values_q8_0_##level, attention_values_q4_0_##level; \
    attention_block_fn attention_softmax_##level;                                    \
    attention_merge_fn attention_merge_##level;                                      \
    attention_finish_fn attention_finish_##level
ROW_KERNELS(scalar);
ROW_KERNELS(avx2);
ATTENTION_BYTE_KERNELS(scalar);
ATTENTION_BYTE_KERNELS(avx2);
ATTENTION_BYTE_KERNELS(avxvnni);
ATTENTION_BYTE_KERNELS(vnni);
ATTENTION_KERNELS(scalar);
ATTENTION_KERNELS(avx2);
ATTENTION_KERNELS(avx512);

/* ---- Operators (kernels.h), with the table to use ---------------------------------------------- */

void cpu_norm(struct worker *w, const struct norm_args *a, const struct cpu_kernels *k);
void cpu_rope_table(struct worker *w, const struct rope_table_args *a);
void cpu_rope_store(struct worker *w, const struct rope_store_args *a, const struct cpu_kernels *k);
void cpu_attention(struct worker *w, const struct attention_args *a, const struct cpu_kernels *k);
size_t cpu_attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads);
void cpu_gate(struct worker *w, const struct gate_args *a, const struct cpu_kernels *k);
void cpu_scale(struct worker *w, float *dst, const float *src, int64_t n, float by,
               const struct cpu_kernels *k);
void cpu_softcap(struct worker *w, float *x, int64_t n, float cap, const struct cpu_kernels *k);
void cpu_add(struct worker *w, float *dst, const float *src, int64_t n, const struct cpu_kernels *k);
void cpu_permute(struct worker *w, float *dst, const float *src, int n, int dim, const int32_t *order);
void cpu_combine(struct worker *w, const struct combine_args *a, const struct cpu_kernels *k);
void cpu_route(struct worker *w, const struct route_args *a);
void route_token(const struct route_args *a, int64_t token); /* its part for one token */

#endif

/* Private to kernels/: the inner kernels of the CPU's operators, one table per CPU level, and the
 * operators themselves. An operator divides the work among threads and is written once; what it calls
 * on rows and blocks comes from the table of its level. Matrix products have a table of their own
 * (linear.h). */
#ifndef QUOLL_CPU_H
#define QUOLL_CPU_H

#include "kernels/kernels.h"

/* ---- Kernels of one row ------------------------------------------------------------------------ */

/* dst = src / sqrt(mean(src²) + eps) · weight */
typedef void norm_row_fn(float *dst, const float *src, const float *weight, int dim, float eps);
/* dst = act(gate) · up */
typedef void gate_fn(float *dst, const float *gate, const float *up, int64_t n);
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
    const void *next_k;         /* the keys of what the caller attends to next, to be prefetched; or NULL */
    const uint8_t *begin, *end; /* row r sees positions begin[r] ≤ i < end[r]; none: 64, 0 */
    float scale;                /* of the scores */
    float *s;                   /* (n_rows, KV_PAGE) */
    float *m, *l;               /* (n_rows) */
    float *o;                   /* (n_rows, o_stride), o_stride = head_dim rounded up to 16 */
    int o_stride;
    float *tmp; /* attention_tmp_len(n_rows, head_dim) */
};

/* scores: s = q k for visible positions (others: anything).
 * softmax: m = max of s · scale, s = e^(s · scale − m), 0 where not visible, l = the sum of s.
 * values: o = s v over visible positions. Rows that see nothing are left alone. */
typedef void attention_block_fn(const struct attention_block *a);

/* One row's running (o, m, l) takes in the next block. */
typedef void attention_merge_fn(float *o, float *m, float *l, const float *o_b, float m_b, float l_b, int n);
/* out = o / l */
typedef void attention_finish_fn(float *out, const float *o, float l, int n);

static inline int attention_tmp_len(int n_rows, int head_dim)
{
    int keys = 2 * TILE_ROWS * head_dim, values = KV_PAGE * (ACT_LEN + n_rows);
    return keys > values ? keys : values;
}

/* ---- Tables ------------------------------------------------------------------------------------ */

struct cpu_kernels {
    enum isa isa;
    norm_row_fn *norm_row;
    gate_fn *gate[ACT_SILU + 1];          /* by enum act */
    rope_row_fn *rope_row[ROPE_HALF + 1]; /* by enum rope_pairing; ROPE_NONE: NULL */
    f16_row_fn *f16_row;
    attention_block_fn *attention_scores[QTYPE_COUNT]; /* by type of the keys */
    attention_block_fn *attention_softmax;
    attention_block_fn *attention_values[QTYPE_COUNT]; /* by type of the values */
    attention_merge_fn *attention_merge;
    attention_finish_fn *attention_finish;
};

/* The complete table of a level that is supported and built. */
const struct cpu_kernels *cpu_kernels(enum isa isa);

norm_row_fn norm_row_scalar, norm_row_avx2;
gate_fn gate_silu_scalar, gate_silu_avx2;
rope_row_fn rope_adjacent_scalar, rope_adjacent_avx2;
rope_row_fn rope_half_scalar, rope_half_avx2;
f16_row_fn f16_row_scalar, f16_row_avx2;

attention_block_fn attention_scores_f32_scalar, attention_scores_f32_avx2, attention_scores_f32_avx512;
attention_block_fn attention_scores_f16_scalar, attention_scores_f16_avx2, attention_scores_f16_avx512;
attention_block_fn attention_scores_q8_0_scalar, attention_scores_q8_0_avx2;
attention_block_fn attention_scores_q4_0_scalar, attention_scores_q4_0_avx2;
attention_block_fn attention_values_f32_scalar, attention_values_f32_avx2, attention_values_f32_avx512;
attention_block_fn attention_values_f16_scalar, attention_values_f16_avx2, attention_values_f16_avx512;
attention_block_fn attention_values_q8_0_scalar, attention_values_q8_0_avx2, attention_values_q8_0_avx512;
attention_block_fn attention_values_q4_0_scalar, attention_values_q4_0_avx2, attention_values_q4_0_avx512;
attention_block_fn attention_softmax_scalar, attention_softmax_avx2, attention_softmax_avx512;
attention_merge_fn attention_merge_scalar, attention_merge_avx2, attention_merge_avx512;
attention_finish_fn attention_finish_scalar, attention_finish_avx2, attention_finish_avx512;

/* ---- Operators (kernels.h), with the table to use ---------------------------------------------- */

void cpu_norm(struct worker *w, const struct norm_args *a, const struct cpu_kernels *k);
void cpu_rope_table(struct worker *w, const struct rope_table_args *a);
void cpu_rope_store(struct worker *w, const struct rope_store_args *a, const struct cpu_kernels *k);
void cpu_attention(struct worker *w, const struct attention_args *a, const struct cpu_kernels *k);
size_t cpu_attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads);
void cpu_gate(struct worker *w, float *dst, const float *gate, const float *up, int64_t n, enum act act,
              const struct cpu_kernels *k);

#endif

/* Private to kernels/: the inner kernels of the CPU's operators, one table per CPU level, and the
 * operators themselves. An operator divides the work among threads and is written once; what it calls
 * on rows and blocks comes from the table of its level. */
#ifndef QUOLL_CPU_H
#define QUOLL_CPU_H

#include "kernels/kernels.h"

/* One block of 64 positions of one KV head against some query rows (attention.c). The rows are
 * (token, head) pairs that read the same KV head of the same sequence. */
struct attention_block {
    int n_rows, head_dim;
    const float *q;             /* (n_rows, head_dim), for keys of F32 and F16 */
    const struct act_block *q8; /* (n_rows, head_dim / ACT_LEN), for quantised keys */
    const void *k;              /* the head's part of a page of keys: four packed tiles */
    const void *v;              /* the head's part of a page of values: 64 rows */
    const uint8_t *begin, *end; /* row r sees positions begin[r] ≤ i < end[r] ≤ 64 of the block; none:
                                   begin 64, end 0 */
    float scale;                /* of the scores */
    float *s;                   /* (n_rows, 64): scores, then probabilities */
    float *m, *l;               /* (n_rows): the block's maximum and sum */
    float *o;                   /* (n_rows, o_stride): the block's output, before division by l */
    int o_stride;               /* head_dim rounded up to 16 */
    float *tmp;                 /* attention_tmp_len(head_dim) floats */
};

typedef void attention_block_fn(const struct attention_block *a);

struct cpu_kernels {
    enum isa isa;

    /* dst = src / sqrt(mean(src²) + eps) · weight, over one row of dim */
    void (*norm_row)(float *dst, const float *src, const float *weight, int dim, float eps);
    /* dst = silu(gate) · up */
    void (*gate_silu)(float *dst, const float *gate, const float *up, int64_t n);
    /* Rotates n_pairs pairs of x in place; table: (n_pairs, 2), cos and sin. */
    void (*rope_row[3])(float *x, const float *table, int n_pairs); /* by enum rope_pairing */
    void (*f16_row)(uint16_t *dst, const float *src, int64_t n);    /* f32_to_f16, n times */

    attention_block_fn *attention_scores[QTYPE_COUNT]; /* by type of the keys: s = q k, unscaled */
    attention_block_fn *attention_softmax;             /* m, l, and s becomes e(s · scale − m) */
    attention_block_fn *attention_values[QTYPE_COUNT]; /* by type of the values: o = s v */
    /* (o, m, l) of one row takes in the next block's: o (stride floats). */
    void (*attention_merge)(float *o, float *m, float *l, const float *o_b, float m_b, float l_b, int n);
    void (*attention_finish)(float *out, const float *o, float l, int n); /* out = o / l */
};

/* The complete table of a level that is supported and built; made on first use. */
const struct cpu_kernels *cpu_kernels(enum isa isa);

/* ---- Operators (kernels.h), with the table to use ---------------------------------------------- */

void cpu_norm(struct worker *w, const struct norm_args *a, const struct cpu_kernels *k);
void cpu_rope_table(struct worker *w, const struct rope_table_args *a);
void cpu_rope_store(struct worker *w, const struct rope_store_args *a, const struct cpu_kernels *k);
void cpu_attention(struct worker *w, const struct attention_args *a, const struct cpu_kernels *k);
size_t cpu_attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads);
void cpu_gate(struct worker *w, float *dst, const float *gate, const float *up, int64_t n, enum act act,
              const struct cpu_kernels *k);

#endif

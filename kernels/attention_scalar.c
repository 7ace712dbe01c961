/* Reference kernels of attention over one block of 64 positions: numerics contract, rule 4, as plain
 * loops. One sum never spans two blocks; attention.c merges blocks in the order of their positions. */
#include "kernels/kv.h"
#include "kernels/mathf.h"

typedef float element_fn(const void *base, int64_t i);

MATHF_INLINE float element_f32(const void *base, int64_t i)
{
    return ((const float *)base)[i];
}

MATHF_INLINE float element_f16(const void *base, int64_t i)
{
    return f16_to_f32(((const uint16_t *)base)[i]);
}

/* s = fmaf(q, k, s) over the head's dimension, in order. */
MATHF_INLINE void scores_float(const struct attention_block *a, element_fn *key)
{
    for (int r = 0; r < a->n_rows; r++)
        for (int i = a->begin[r]; i < a->end[r]; i++) {
            int64_t tile = i / TILE_ROWS * (int64_t)a->head_dim;
            float s = 0;
            for (int d = 0; d < a->head_dim; d++)
                s = fmaf(a->q[r * a->head_dim + d], key(a->k, (tile + d) * TILE_ROWS + i % TILE_ROWS), s);
            a->s[r * KV_PAGE + i] = s;
        }
}

/* Quant j = 0 … 31 of block b for row i of the tile. */
typedef int quant_fn(const uint8_t *tile, int b, int i, int j);

MATHF_INLINE int quant_q8_0(const uint8_t *tile, int b, int i, int j)
{
    return (int8_t)tile[(b * 8 + j / 4) * 64 + i * 4 + j % 4];
}

MATHF_INLINE int quant_q4_0(const uint8_t *tile, int b, int i, int j)
{
    int pair = tile[(b * 4 + j % 16 / 4) * 64 + i * 4 + j % 4];
    return (j < 16 ? pair & 15 : pair >> 4) - 8;
}

/* The query is quantised too; per 32 elements s = fmaf(isum, d_k d_q, s), isum exact. */
MATHF_INLINE void scores_quantised(const struct attention_block *a, enum qtype t, quant_fn *quant)
{
    int n_blocks = a->head_dim / ACT_LEN;
    int64_t quants = kv_tile_quants(t, a->head_dim);
    int64_t tile_bytes = quants + n_blocks * TILE_ROWS * (int64_t)sizeof(uint16_t);
    for (int r = 0; r < a->n_rows; r++)
        for (int i = a->begin[r]; i < a->end[r]; i++) {
            const uint8_t *tile = (const uint8_t *)a->k + i / TILE_ROWS * tile_bytes;
            const uint16_t *d = (const uint16_t *)(const void *)(tile + quants);
            float s = 0;
            for (int b = 0; b < n_blocks; b++) {
                const struct act_block *q = &a->q8[r * n_blocks + b];
                int isum = 0;
                for (int j = 0; j < ACT_LEN; j++)
                    isum += quant(tile, b, i % TILE_ROWS, j) * q->q[j];
                s = fmaf((float)isum, f16_to_f32(d[b * TILE_ROWS + i % TILE_ROWS]) * q->d, s);
            }
            a->s[r * KV_PAGE + i] = s;
        }
}

MATHF_INLINE void attention_scores_f32_scalar_body(const struct attention_block *a)
{
    scores_float(a, element_f32);
}
FMA_VERSIONS(attention_scores_f32_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_scores_f16_scalar_body(const struct attention_block *a)
{
    scores_float(a, element_f16);
}
FMA_VERSIONS(attention_scores_f16_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_scores_q8_0_scalar_body(const struct attention_block *a)
{
    scores_quantised(a, QTYPE_Q8_0, quant_q8_0);
}
FMA_VERSIONS(attention_scores_q8_0_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_scores_q4_0_scalar_body(const struct attention_block *a)
{
    scores_quantised(a, QTYPE_Q4_0, quant_q4_0);
}
FMA_VERSIONS(attention_scores_q4_0_scalar, (const struct attention_block *a), (a))

/* A NaN among the scores may be lost to the maximum, but not to its own e^(s − m): it reaches l, and by
 * that every output of the row. */
MATHF_INLINE void attention_softmax_scalar_body(const struct attention_block *a)
{
    for (int r = 0; r < a->n_rows; r++) {
        int begin = a->begin[r], end = a->end[r];
        if (begin >= end)
            continue;
        float *s = a->s + r * KV_PAGE;
        float m = -INFINITY, l[16] = {0};
        for (int i = begin; i < end; i++) {
            s[i] *= a->scale;
            s[i] = a->softcap != 0 ? mathf_softcap(s[i], a->softcap) : s[i];
            m = s[i] > m ? s[i] : m;
        }
        for (int i = 0; i < KV_PAGE; i++) {
            s[i] = i >= begin && i < end ? mathf_exp(s[i] - m) : 0;
            l[i % 16] += s[i];
        }
        float sum = mathf_sum16(l);
        if (a->merge && a->merge[r]) {
            float max = m > a->m[r] ? m : a->m[r];
            a->old[r] = mathf_exp(a->m[r] - max);
            a->new[r] = mathf_exp(m - max);
            sum = fmaf(a->l[r], a->old[r], sum * a->new[r]);
            m = max;
        }
        a->m[r] = m;
        a->l[r] = sum;
    }
}
FMA_VERSIONS(attention_softmax_scalar, (const struct attention_block *a), (a))

/* o = fmaf(p, v, o) in the order of positions, every channel from zero; for quantised values p times the
 * position's scale, rounded, times the quant. Element c of a row, scale included or not: */
typedef float value_fn(const uint8_t *row, int c);

MATHF_INLINE float value_f32(const uint8_t *row, int c)
{
    return element_f32(row, c);
}

MATHF_INLINE float value_f16(const uint8_t *row, int c)
{
    return element_f16(row, c);
}

MATHF_INLINE float value_q8_0(const uint8_t *row, int c)
{
    return (float)(int8_t)row[c];
}

MATHF_INLINE float value_q4_0(const uint8_t *row, int c)
{
    int pair = row[c / 32 * 16 + c % 16];
    return (float)((c % 32 < 16 ? pair & 15 : pair >> 4) - 8);
}

MATHF_INLINE void values(const struct attention_block *a, enum qtype t, value_fn *value)
{
    int64_t row_bytes = kv_value_bytes(t, a->head_dim);
    const uint16_t *d = (const uint16_t *)(const void *)((const uint8_t *)a->v + KV_PAGE * row_bytes);
    bool quantised = t == QTYPE_Q8_0 || t == QTYPE_Q4_0;
    for (int r = 0; r < a->n_rows; r++) {
        if (a->begin[r] >= a->end[r])
            continue;
        float *o = a->o + r * a->o_stride, o_b[KV_HEAD_DIM_MAX] = {0};
        for (int i = a->begin[r]; i < a->end[r]; i++)
            for (int c = 0; c < a->head_dim; c++) {
                float p = a->s[r * KV_PAGE + i];
                p = quantised ? p * f16_to_f32(d[c / 32 * KV_PAGE + i]) : p;
                o_b[c] = fmaf(p, value((const uint8_t *)a->v + i * row_bytes, c), o_b[c]);
            }
        bool merge = a->merge && a->merge[r];
        for (int c = 0; c < a->head_dim; c++)
            o[c] = merge ? fmaf(o[c], a->old[r], o_b[c] * a->new[r]) : o_b[c];
    }
}

MATHF_INLINE void attention_values_f32_scalar_body(const struct attention_block *a)
{
    values(a, QTYPE_F32, value_f32);
}
FMA_VERSIONS(attention_values_f32_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_values_f16_scalar_body(const struct attention_block *a)
{
    values(a, QTYPE_F16, value_f16);
}
FMA_VERSIONS(attention_values_f16_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_values_q8_0_scalar_body(const struct attention_block *a)
{
    values(a, QTYPE_Q8_0, value_q8_0);
}
FMA_VERSIONS(attention_values_q8_0_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_values_q4_0_scalar_body(const struct attention_block *a)
{
    values(a, QTYPE_Q4_0, value_q4_0);
}
FMA_VERSIONS(attention_values_q4_0_scalar, (const struct attention_block *a), (a))

MATHF_INLINE void attention_merge_scalar_body(const struct attention_merge *a)
{
    for (int i = 0; i < a->n; i++) {
        const float *o_b = a->o_b + i * a->o_stride;
        float m_b = a->m_b[i * a->stride], l_b = a->l_b[i * a->stride];
        bool fresh = a->fresh && i == 0;
        float max = fresh || m_b > *a->m ? m_b : *a->m;
        float old = fresh ? 0 : mathf_exp(*a->m - max), new = mathf_exp(m_b - max);
        for (int c = 0; c < a->head_dim; c++)
            a->o[c] = fresh ? o_b[c] : fmaf(a->o[c], old, o_b[c] * new);
        *a->l = fresh ? l_b : fmaf(*a->l, old, l_b * new);
        *a->m = max;
    }
}
FMA_VERSIONS(attention_merge_scalar, (const struct attention_merge *a), (a))

MATHF_INLINE void attention_finish_scalar_body(float *out, const float *o, float l, int n)
{
    for (int c = 0; c < n; c++)
        out[c] = o[c] / l;
}
FMA_VERSIONS(attention_finish_scalar, (float *out, const float *o, float l, int n), (out, o, l, n))

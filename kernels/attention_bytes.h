/* Scores of quantised keys: byte dot products of 16 positions with some rows of queries at a time. Included
 * by attention_<isa>.c, which defines LEVEL(name) and, before:
 *
 *     BYTE_ROWS        rows that share each load of keys, up to 8
 *     isum             16 integer sums
 *     isum_floats      them as floats
 *     block_sums_TYPE  Σ of key quants times query quants over one block */
#include "kernels/attention_rows.h"
#include "kernels/kv.h"

typedef void block_sums_fn(isum sum[BYTE_ROWS], const uint8_t *quants, const struct act_block *q, int stride,
                           int n);

/* The scores s of n rows for the 16 positions of a tile. */
LANES_INLINE void score_tile(float *s, const uint8_t *tile, const struct act_block *q, int n_blocks,
                             int64_t quants, block_sums_fn *block_sums, int n)
{
    const uint16_t *d = (const uint16_t *)(const void *)(tile + quants);
    const int64_t block_bytes = quants / n_blocks;
    v16 score[BYTE_ROWS];
    LANES_UNROLL
    for (int r = 0; r < n; r++)
        score[r] = v16_zero();
    for (int b = 0; b < n_blocks; b++) {
        isum sum[BYTE_ROWS];
        v16 scale = v16_load_f16(d + b * TILE_ROWS);
        block_sums(sum, tile + b * block_bytes, q + b, n_blocks, n);
        LANES_UNROLL
        for (int r = 0; r < n; r++)
            score[r] =
                v16_fma(isum_floats(sum[r]), v16_mul(scale, v16_set1(q[r * n_blocks + b].d)), score[r]);
    }
    LANES_UNROLL
    for (int r = 0; r < n; r++)
        v16_store(s + r * KV_PAGE, score[r]);
}

LANES_INLINE void scores_quantised(const struct attention_block *a, enum qtype t, block_sums_fn *block_sums)
{
    const int n_blocks = a->head_dim / ACT_LEN, step = rows_step(a->n_rows, BYTE_ROWS);
    const int64_t quants = kv_tile_quants(t, a->head_dim);
    const int64_t tile_bytes = a->k_bytes / KV_TILES, v_bytes = a->v_bytes / KV_TILES;
    for (int r = 0; r < a->n_rows; r += step) {
        int n = a->n_rows - r < step ? a->n_rows - r : step;
        struct range g = rows_range(a, r, n);
        for (int i = g.begin / TILE_ROWS; i * TILE_ROWS < g.end; i++) {
            const uint8_t *tile = (const uint8_t *)a->k + i * tile_bytes;
            const struct act_block *q = a->q8 + r * n_blocks;
            float *s = a->s + r * KV_PAGE + i * TILE_ROWS;
            for (int64_t line = 0; r == 0 && line < v_bytes; line += 64)
                _mm_prefetch((const char *)a->v + i * v_bytes + line, _MM_HINT_T0);
#define SCORE(rows)                                                 \
    case rows:                                                      \
        score_tile(s, tile, q, n_blocks, quants, block_sums, rows); \
        break
            switch (n) {
#if BYTE_ROWS > 3
                SCORE(8);
                SCORE(7);
                SCORE(6);
                SCORE(5);
                SCORE(4);
#endif
                SCORE(3);
                SCORE(2);
                SCORE(1);
            default:
                break;
            }
        }
    }
}

void LEVEL(attention_scores_q8_0)(const struct attention_block *a)
{
    scores_quantised(a, QTYPE_Q8_0, block_sums_q8_0);
}

void LEVEL(attention_scores_q4_0)(const struct attention_block *a)
{
    scores_quantised(a, QTYPE_Q4_0, block_sums_q4_0);
}

/* Attention kernels of AVX2. Sums over floats are in attention_lanes.h; here are the byte dot products of
 * quantised keys. */
#define LEVEL(name) name##_avx2
#define MAX_ROWS    6

#include "kernels/attention_lanes.h"

/* x is a new value to the compiler, which else turns the chain of additions into trees whose leaves do not
 * fit in the registers. */
#define FORGET(x) __asm__("" : "+x"(x))

/* Rows of queries that share each load of keys. */
enum { ROWS = 3 };

/* sum[r]: Σ over one block of key quants times query quants, of 16 positions and n rows; row r's query is
 * q[r · stride]. */
typedef void block_sums_fn(__m256i sum[ROWS][2], const uint8_t *quants, const struct act_block *q, int stride,
                           int n);

LANES_INLINE __m256i load_bytes(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* Four bytes in every lane of 32 bits. */
LANES_INLINE __m256i broadcast_4(const void *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

/* vpmaddubsw takes one unsigned operand: |q| with the sign moved to the key. Both are at most 127 in
 * magnitude, so a pair's sum, 2 · 127², fits in 16 bits. */
LANES_INLINE void block_sums_q8_0(__m256i sum[ROWS][2], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const __m256i ones = _mm256_set1_epi16(1);
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i k0 = load_bytes(quants + 64 * g), k1 = load_bytes(quants + 64 * g + 32);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            __m256i x = broadcast_4(q[r * stride].q + 4 * g), abs = _mm256_abs_epi8(x);
            __m256i lo = _mm256_madd_epi16(_mm256_maddubs_epi16(abs, _mm256_sign_epi8(k0, x)), ones);
            __m256i hi = _mm256_madd_epi16(_mm256_maddubs_epi16(abs, _mm256_sign_epi8(k1, x)), ones);
            sum[r][0] = g == 0 ? lo : _mm256_add_epi32(sum[r][0], lo);
            sum[r][1] = g == 0 ? hi : _mm256_add_epi32(sum[r][1], hi);
            FORGET(sum[r][0]);
            FORGET(sum[r][1]);
        }
    }
}

/* Codes are 0 … 15, so 16-bit sums of all 8 groups fit (8 · 2 · 15 · 127 = 30,480); the zero point leaves as
 * 8 Σ q. */
LANES_INLINE void block_sums_q4_0(__m256i sum[ROWS][2], const uint8_t *quants, const struct act_block *q,
                                  int stride, int n)
{
    const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i k0 = load_bytes(quants + 64 * (g / 2)), k1 = load_bytes(quants + 64 * (g / 2) + 32);
        k0 = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(k0, 4) : k0, low);
        k1 = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(k1, 4) : k1, low);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            __m256i x = broadcast_4(q[r * stride].q + 16 * (g % 2) + 4 * (g / 2));
            __m256i lo = _mm256_maddubs_epi16(k0, x), hi = _mm256_maddubs_epi16(k1, x);
            sum[r][0] = g == 0 ? lo : _mm256_add_epi16(sum[r][0], lo);
            sum[r][1] = g == 0 ? hi : _mm256_add_epi16(sum[r][1], hi);
            FORGET(sum[r][0]);
            FORGET(sum[r][1]);
        }
    }
    LANES_UNROLL
    for (int r = 0; r < n; r++) {
        __m256i zero = _mm256_set1_epi32(8 * (q[r * stride].sum[0] + q[r * stride].sum[1]));
        sum[r][0] = _mm256_sub_epi32(_mm256_madd_epi16(sum[r][0], ones), zero);
        sum[r][1] = _mm256_sub_epi32(_mm256_madd_epi16(sum[r][1], ones), zero);
    }
}

/* The scores s of n rows for the 16 positions of a tile. */
LANES_INLINE void score_tile(float *s, const uint8_t *tile, const struct act_block *q, int n_blocks,
                             int64_t quants, block_sums_fn *block_sums, int n)
{
    const uint16_t *d = (const uint16_t *)(const void *)(tile + quants);
    const int64_t block_bytes = quants / n_blocks;
    v16 score[ROWS];
    for (int r = 0; r < n; r++)
        score[r] = v16_zero();
    for (int b = 0; b < n_blocks; b++) {
        __m256i sum[ROWS][2];
        v16 scale = v16_load_f16(d + b * TILE_ROWS);
        block_sums(sum, tile + b * block_bytes, q + b, n_blocks, n);
        LANES_UNROLL
        for (int r = 0; r < n; r++) {
            v16 isum = {_mm256_cvtepi32_ps(sum[r][0]), _mm256_cvtepi32_ps(sum[r][1])};
            score[r] = v16_fma(isum, v16_mul(scale, v16_set1(q[r * n_blocks + b].d)), score[r]);
        }
    }
    LANES_UNROLL
    for (int r = 0; r < n; r++)
        v16_store(s + r * KV_PAGE, score[r]);
}

LANES_INLINE void scores_quantised(const struct attention_block *a, enum qtype t, block_sums_fn *block_sums)
{
    const int n_blocks = a->head_dim / ACT_LEN;
    const int64_t quants = kv_tile_quants(t, a->head_dim), tile_bytes = a->k_bytes / 4;
    for (int r = 0; r < a->n_rows; r += ROWS) {
        int n = a->n_rows - r < ROWS ? a->n_rows - r : ROWS;
        struct range g = rows_range(a, r, n);
        for (int i = g.begin / TILE_ROWS * TILE_ROWS; i < g.end; i += TILE_ROWS) {
            const uint8_t *tile = (const uint8_t *)a->k + i / TILE_ROWS * tile_bytes;
            const struct act_block *q = a->q8 + r * n_blocks;
            float *s = a->s + r * KV_PAGE + i;
            for (int64_t line = 0; r == 0 && line < a->v_bytes / 4; line += 64)
                _mm_prefetch((const char *)a->v + i / TILE_ROWS * (a->v_bytes / 4) + line, _MM_HINT_T0);
            if (n == 3)
                score_tile(s, tile, q, n_blocks, quants, block_sums, 3);
            else if (n == 2)
                score_tile(s, tile, q, n_blocks, quants, block_sums, 2);
            else
                score_tile(s, tile, q, n_blocks, quants, block_sums, 1);
        }
    }
}

void attention_scores_q8_0_avx2(const struct attention_block *a)
{
    scores_quantised(a, QTYPE_Q8_0, block_sums_q8_0);
}

void attention_scores_q4_0_avx2(const struct attention_block *a)
{
    scores_quantised(a, QTYPE_Q4_0, block_sums_q4_0);
}

/* Attention kernels of AVX2. Sums over floats are in attention_lanes.h; here are the byte dot products of
 * quantised keys. */
#define LEVEL(name) name##_avx2
#define MAX_ROWS    6

#include "kernels/attention_lanes.h"

/* Σ over one block of key quants times query quants, for 16 positions. */
typedef v16 block_sums_fn(const uint8_t *quants, const struct act_block *q);

LANES_INLINE __m256i load_bytes(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* Four bytes in every lane of 32 bits. */
LANES_INLINE __m256i broadcast_4(const int8_t *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

/* vpmaddubsw takes one unsigned operand: |q| with the sign moved to the key. Both are at most 127 in
 * magnitude, so a pair's sum, 2 · 127², fits in 16 bits. */
LANES_INLINE v16 block_sums_q8_0(const uint8_t *quants, const struct act_block *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i lo = _mm256_setzero_si256(), hi = lo;
    LANES_UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i x = broadcast_4(q->q + 4 * g), abs = _mm256_abs_epi8(x);
        __m256i k0 = _mm256_sign_epi8(load_bytes(quants + 64 * g), x);
        __m256i k1 = _mm256_sign_epi8(load_bytes(quants + 64 * g + 32), x);
        lo = _mm256_add_epi32(lo, _mm256_madd_epi16(_mm256_maddubs_epi16(abs, k0), ones));
        hi = _mm256_add_epi32(hi, _mm256_madd_epi16(_mm256_maddubs_epi16(abs, k1), ones));
    }
    return (v16){_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)};
}

/* Codes are 0 … 15, so 16-bit sums of all 8 groups fit (8 · 2 · 15 · 127 = 30,480); the zero point leaves as
 * 8 Σ q. */
LANES_INLINE v16 block_sums_q4_0(const uint8_t *quants, const struct act_block *q)
{
    const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    __m256i lo = _mm256_setzero_si256(), hi = lo;
    LANES_UNROLL
    for (int g = 0; g < 4; g++) {
        __m256i x0 = broadcast_4(q->q + 4 * g), x1 = broadcast_4(q->q + 16 + 4 * g);
        __m256i k0 = load_bytes(quants + 64 * g), k1 = load_bytes(quants + 64 * g + 32);
        lo = _mm256_add_epi16(lo, _mm256_maddubs_epi16(_mm256_and_si256(k0, low), x0));
        hi = _mm256_add_epi16(hi, _mm256_maddubs_epi16(_mm256_and_si256(k1, low), x0));
        k0 = _mm256_and_si256(_mm256_srli_epi16(k0, 4), low);
        k1 = _mm256_and_si256(_mm256_srli_epi16(k1, 4), low);
        lo = _mm256_add_epi16(lo, _mm256_maddubs_epi16(k0, x1));
        hi = _mm256_add_epi16(hi, _mm256_maddubs_epi16(k1, x1));
    }
    __m256i zero = _mm256_set1_epi32(8 * (q->sum[0] + q->sum[1]));
    return (v16){_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_madd_epi16(lo, ones), zero)),
                 _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_madd_epi16(hi, ones), zero))};
}

LANES_INLINE void scores_quantised(const struct attention_block *a, enum qtype t, block_sums_fn *block_sums)
{
    int n_blocks = a->head_dim / ACT_LEN;
    int64_t quants = kv_tile_quants(t, a->head_dim), block_bytes = quants / n_blocks;
    int64_t tile_bytes = quants + n_blocks * TILE_ROWS * (int64_t)sizeof(uint16_t);
    struct range all = rows_range(a, 0, a->n_rows);
    for (int i = all.begin / TILE_ROWS * TILE_ROWS; i < all.end; i += TILE_ROWS) {
        const uint8_t *tile = (const uint8_t *)a->k + i / TILE_ROWS * tile_bytes;
        const uint16_t *d = (const uint16_t *)(const void *)(tile + quants);
        for (int64_t line = 0; line < tile_bytes; line += 64)
            _mm_prefetch((const char *)a->v + i / TILE_ROWS * tile_bytes + line, _MM_HINT_T0);
        for (int r = 0; r < a->n_rows; r++) {
            if (a->end[r] <= i || a->begin[r] >= i + TILE_ROWS)
                continue;
            const struct act_block *q = a->q8 + r * n_blocks;
            v16 s = v16_zero();
            for (int b = 0; b < n_blocks; b++) {
                v16 scale = v16_mul(v16_load_f16(d + b * TILE_ROWS), v16_set1(q[b].d));
                s = v16_fma(block_sums(tile + b * block_bytes, &q[b]), scale, s);
            }
            v16_store(a->s + r * KV_PAGE + i, s);
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

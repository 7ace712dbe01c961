/* Weights that no file holds: blocks of random bits, kept where they decode to what weights look like. It
 * knows no type's layout, so it makes those too that nothing here writes. */
#include "quant/quant.h"

#include <assert.h>
#include <math.h>

enum { POOL_LEN = 8192 }; /* elements that are drawn bit by bit; the rest repeats their blocks */

/* A block's largest magnitude: real matrices have a standard deviation of 0.01 to 0.1. */
static const float least = 0.02f, most = 0.2f;

/* Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014), SplitMix64. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Blocks have values on both sides of zero. That also keeps zero points inside the range of their codes,
 * whatever the field that holds them could say. */
static bool looks_real(const float *x, int n)
{
    float low = x[0], high = x[0];
    for (int i = 0; i < n; i++) {
        if (!(fabsf(x[i]) <= most)) /* NaN too */
            return false;
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    return (n == 1 || (low <= 0 && high >= 0)) && (high >= least || low <= -least);
}

static void draw_block(const struct qtype_info *q, uint8_t *block, uint64_t *state)
{
    float x[QK_K];
    size_t n_bytes = (size_t)q->block_bytes;
    do {
        for (size_t i = 0; i < n_bytes; i += sizeof(uint64_t)) {
            uint64_t bits = draw(state);
            memcpy(block + i, &bits, n_bytes - i < sizeof bits ? n_bytes - i : sizeof bits);
        }
        q->to_f32(x, block, q->block_len);
    } while (!looks_real(x, q->block_len));
}

void qtype_random(enum qtype t, void *dst, int64_t n, uint64_t *state)
{
    const struct qtype_info *q = &qtypes[t];
    assert(t < QTYPE_N_MATRIX && q->block_len <= QK_K && n % q->block_len == 0);
    size_t block = (size_t)q->block_bytes, total = (size_t)qtype_bytes(t, n);
    /* What repeats is one block, or as many elements without blocks. */
    size_t piece = q->block_len == 1 ? ACT_LEN * block : block;
    size_t pool = (size_t)qtype_bytes(t, POOL_LEN), n_pieces = pool / piece;
    uint8_t *bytes = dst;
    for (size_t at = 0; at < total && at < pool; at += block)
        draw_block(q, bytes + at, state);
    for (size_t at = pool; at < total; at += piece) {
        size_t from = (size_t)((draw(state) >> 32) * n_pieces >> 32) * piece; /* uniform, without division */
        memcpy(bytes + at, bytes + from, total - at < piece ? total - at : piece);
    }
}

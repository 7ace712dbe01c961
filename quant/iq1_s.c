/* IQ1_S: super-blocks of 256, 8 sub-blocks of 32 with 3-bit scales and a shift; eight elements per index.
 *
 *   byte   0      2              34                 50
 *          | d    | qs[32]       | uint16 qh[8]     |
 *          x[32 j + 8 k + i] = d (2 s[j] + 1) (v[index[4 j + k]][i] ± 1/8), v = −1, 0, 1
 *   qs[4 j + k]  bits 0–7 of index[4 j + k]
 *   qh[j]        bits 3 k …: bits 8–10 of index[4 j + k]; bits 12–14: s[j]; bit 15: the shift is −1/8
 *
 * In eighths, v and its shift are one integer: x = d / 8 (2 s + 1) (8 v ± 1).
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq1_s) == 2 + 32 + 16, "half scale, 32 indices, high bits and scales");

void iq1_s_unpack(struct block_256 *b, const void *block)
{
    struct block_iq1_s in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d) * 0.125f;
    for (int j = 0; j < 8; j++) {
        unsigned qh = in.qh[j];
        b->scale[2 * j] = b->scale[2 * j + 1] = (int8_t)(2 * (qh >> 12 & 7) + 1);
        for (int k = 0; k < 4; k++)
            grid_shifted(b->q + 32 * j + 8 * k, in.qs[4 * j + k] | (qh >> (3 * k) & 7) << 8, qh >> 15);
    }
}

void iq1_s_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq1_s), false, iq1_s_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq1(), 2048, 8, 32, 7, 1, 1, 1, false, SHIFT_BY_SUB};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq1_s out = {.d = f32_to_f16(b.d)};
    for (int j = 0; j < 8; j++) {
        unsigned qh = (unsigned)b.scale[j] << 12 | (unsigned)b.down[4 * j] << 15;
        for (int k = 0; k < 4; k++) {
            out.qs[4 * j + k] = (uint8_t)b.index[4 * j + k];
            qh |= (unsigned)b.index[4 * j + k] >> 8 << (3 * k);
        }
        out.qh[j] = (uint16_t)qh;
    }
    memcpy(block, &out, sizeof out);
}

void iq1_s_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq1_s), pack);
}

DEFINE_DOT(iq1_s, dot_256(row, x, n, sizeof(struct block_iq1_s), false, iq1_s_unpack))

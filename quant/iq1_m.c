/* IQ1_M: super-blocks of 256, 16 sub-blocks of 16 with 3-bit scales; eight elements, and a shift, per index.
 *
 *   byte   0              32           48                 56
 *          | qs[32]       | qh[16]     | uint16 scales[4] |
 *          x[16 j + i] = d (2 s[j] + 1) (v[index[2 j + i / 8]][i % 8] ± 1/8), v = −1, 0, 1
 *   qs[k]          bits 0–7 of index[k]
 *   qh[k / 2]      bits 4 (k % 2) …: bits 8–10 of index[k], then a bit that makes its shift −1/8
 *   scales[j / 4]  bits 3 (j % 4) …: s[j];  bits 12–15 of scales[m]: bits 4 m … 4 m + 3 of d
 *
 * In eighths, v and its shift are one integer: x = d / 8 (2 s + 1) (8 v ± 1).
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq1_m) == 32 + 16 + 8, "32 indices, high bits and shifts, scales");

void iq1_m_unpack(struct block_256 *b, const void *block)
{
    struct block_iq1_m in;
    memcpy(&in, block, sizeof in);
    int d = 0;
    for (int m = 0; m < 4; m++)
        d |= in.scales[m] >> 12 << (4 * m);
    b->d = f16_to_f32((uint16_t)d) * 0.125f;
    for (int j = 0; j < 16; j++)
        b->scale[j] = (int8_t)(2 * (in.scales[j / 4] >> (j % 4 * 3) & 7) + 1);
    for (int k = 0; k < 32; k++) {
        unsigned qh = (unsigned)in.qh[k / 2] >> (k % 2 * 4);
        grid_shifted(b->q + 8 * k, in.qs[k] | (qh & 7) << 8, qh >> 3 & 1);
    }
}

void iq1_m_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq1_m), false, iq1_m_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq1(), 2048, 8, 16, 7, 1, 1, 1, false, SHIFT_BY_GROUP};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq1_m out = {0};
    const unsigned d = f32_to_f16(b.d);
    for (int j = 0; j < 16; j++)
        out.scales[j / 4] = (uint16_t)(out.scales[j / 4] | b.scale[j] << (j % 4 * 3));
    for (int m = 0; m < 4; m++)
        out.scales[m] = (uint16_t)(out.scales[m] | (d >> (4 * m) & 15) << 12);
    for (int k = 0; k < 32; k++) {
        out.qs[k] = (uint8_t)b.index[k];
        out.qh[k / 2] = (uint8_t)(out.qh[k / 2] | (b.index[k] >> 8 | b.down[k] << 3) << (k % 2 * 4));
    }
    memcpy(block, &out, sizeof out);
}

void iq1_m_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq1_m), pack);
}

DEFINE_DOT(iq1_m, dot_256(row, x, n, sizeof(struct block_iq1_m), false, iq1_m_unpack))

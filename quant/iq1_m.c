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

DEFINE_DOT(iq1_m, dot_256(row, x, n, sizeof(struct block_iq1_m), false, iq1_m_unpack))

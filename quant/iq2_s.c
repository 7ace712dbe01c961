/* IQ2_S: super-blocks of 256, 16 sub-blocks of 16 with 4-bit scales; eight elements per index.
 *
 *   byte   0      2              34             66       74          82
 *          | d    | qs[32]       | signs[32]    | qh[8]  | scales[8] |
 *          x[16 j + i] = d / 8 (2 s[j] + 1) ± iq2_s_grid[index[2 j + i / 8]][i % 8]
 *   qs[k]          bits 0–7 of index[k];  qh[k / 4]  bits 2 (k % 4) …: bits 8–9 of index[k]
 *   signs[k]       bit i: sign of element 8 k + i
 *   scales[j / 2]  bits 4 (j % 2) …: s[j]
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq2_s) == 2 + 32 + 32 + 8 + 8, "half, indices, signs, high bits, scales");

void iq2_s_unpack(struct block_256 *b, const void *block)
{
    struct block_iq2_s in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d) * 0.125f;
    for (int j = 0; j < 16; j++)
        b->scale[j] = (int8_t)(2 * (in.scales[j / 2] >> (j % 2 * 4) & 15) + 1);
    for (int k = 0; k < 32; k++) {
        int index = in.qs[k] | (in.qh[k / 4] >> (k % 4 * 2) & 3) << 8;
        grid_signed(b->q + 8 * k, iq2_s_grid[index], in.signs[k]);
    }
}

void iq2_s_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq2_s), false, iq2_s_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq2_s(), 1024, 8, 16, 15, 0.125f, 43, 8, false, SHIFT_NONE};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq2_s out = {.d = f32_to_f16(b.d)};
    for (int j = 0; j < 8; j++)
        out.scales[j] = (uint8_t)(b.scale[2 * j] | b.scale[2 * j + 1] << 4);
    for (int k = 0; k < 32; k++) {
        out.qs[k] = (uint8_t)b.index[k];
        out.qh[k / 4] = (uint8_t)(out.qh[k / 4] | b.index[k] >> 8 << (k % 4 * 2));
        out.signs[k] = b.signs[k];
    }
    memcpy(block, &out, sizeof out);
}

void iq2_s_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq2_s), pack);
}

DEFINE_DOT(iq2_s, dot_256(row, x, n, sizeof(struct block_iq2_s), false, iq2_s_unpack))

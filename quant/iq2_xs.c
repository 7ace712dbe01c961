/* IQ2_XS: super-blocks of 256, 16 sub-blocks of 16 with 4-bit scales; eight elements per index.
 *
 *   byte   0      2                              66          74
 *          | d    | uint16 qs[32]                | scales[8] |
 *          x[16 j + i] = d / 8 (2 s[j] + 1) ± iq2_xs_grid[index[2 j + i / 8]][i % 8]
 *   qs[k]      bits 0–8: index[k]; bits 9–15: signs of seven elements, the eighth makes their number even
 *   scales[j / 2]  bits 4 (j % 2) …: s[j]
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq2_xs) == 2 + 64 + 8, "half scale, 32 indices with signs, 16 scales");

void iq2_xs_unpack(struct block_256 *b, const void *block)
{
    struct block_iq2_xs in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d) * 0.125f;
    for (int j = 0; j < 16; j++)
        b->scale[j] = (int8_t)(2 * (in.scales[j / 2] >> (j % 2 * 4) & 15) + 1);
    for (int k = 0; k < 32; k++)
        grid_signed(b->q + 8 * k, iq2_xs_grid[in.qs[k] & 511], grid_even_signs[in.qs[k] >> 9]);
}

void iq2_xs_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq2_xs), false, iq2_xs_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq2_xs(), 512, 8, 16, 15, 0.125f, 43, 8, true, SHIFT_NONE};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq2_xs out = {.d = f32_to_f16(b.d)};
    for (int j = 0; j < 8; j++)
        out.scales[j] = (uint8_t)(b.scale[2 * j] | b.scale[2 * j + 1] << 4);
    for (int k = 0; k < 32; k++)
        out.qs[k] = (uint16_t)(b.index[k] | (b.signs[k] & 127) << 9);
    memcpy(block, &out, sizeof out);
}

void iq2_xs_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq2_xs), pack);
}

DEFINE_DOT(iq2_xs, dot_256(row, x, n, sizeof(struct block_iq2_xs), false, iq2_xs_unpack))

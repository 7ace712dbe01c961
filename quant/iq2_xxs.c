/* IQ2_XXS: super-blocks of 256, 8 sub-blocks of 32 with 4-bit scales; eight elements per index, their signs
 * apart.
 *
 *   byte   0      2                              66
 *          | d    | 8 × (grid[4], uint32 signs)  |
 *          x[32 j + 8 k + i] = d / 8 (2 s[j] + 1) ± iq2_xxs_grid[grid[k]][i]
 *   signs  of sub-block j: bits 7 k …: signs of elements 8 k … 8 k + 6, the eighth makes their number even;
 *          bits 28–31: s[j]
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq2_xxs) == 2 + 64, "half scale, 32 indices, signs and scales");

void iq2_xxs_unpack(struct block_256 *b, const void *block)
{
    struct block_iq2_xxs in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d) * 0.125f;
    for (int j = 0; j < 8; j++) {
        uint32_t signs;
        memcpy(&signs, in.qs + 8 * j + 4, sizeof signs);
        b->scale[2 * j] = b->scale[2 * j + 1] = (int8_t)(2 * (signs >> 28) + 1);
        for (int k = 0; k < 4; k++)
            grid_signed(b->q + 32 * j + 8 * k, iq2_xxs_grid[in.qs[8 * j + k]],
                        grid_even_signs[signs >> (7 * k) & 127]);
    }
}

void iq2_xxs_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq2_xxs), false, iq2_xxs_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq2_xxs(), 256, 8, 32, 15, 0.125f, 43, 8, true, SHIFT_NONE};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq2_xxs out = {.d = f32_to_f16(b.d)};
    for (int j = 0; j < 8; j++) {
        uint32_t signs = (uint32_t)b.scale[j] << 28;
        for (int k = 0; k < 4; k++) {
            out.qs[8 * j + k] = (uint8_t)b.index[4 * j + k];
            signs |= (uint32_t)(b.signs[4 * j + k] & 127) << (7 * k);
        }
        memcpy(out.qs + 8 * j + 4, &signs, sizeof signs);
    }
    memcpy(block, &out, sizeof out);
}

void iq2_xxs_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq2_xxs), pack);
}

DEFINE_DOT(iq2_xxs, dot_256(row, x, n, sizeof(struct block_iq2_xxs), false, iq2_xxs_unpack))

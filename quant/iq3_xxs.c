/* IQ3_XXS: super-blocks of 256, 8 sub-blocks of 32 with 4-bit scales; four elements per index, signs apart.
 *
 *   byte   0      2                       66                    98
 *          | d    | qs[64]                | uint32 signs[8]     |
 *          x[32 j + 4 k + i] = d / 4 (2 s[j] + 1) ± iq3_xxs_grid[qs[8 j + k]][i]
 *   signs[j]  bits 7 m …: signs of elements 8 m … 8 m + 6 of sub-block j, the eighth makes their number even;
 *             bits 28–31: s[j]
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq3_xxs) == 2 + 64 + 32, "half scale, 64 indices, signs and scales");

void iq3_xxs_unpack(struct block_256 *b, const void *block)
{
    struct block_iq3_xxs in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d) * 0.25f;
    for (int j = 0; j < 8; j++) {
        uint32_t signs;
        memcpy(&signs, in.signs + 4 * j, sizeof signs);
        b->scale[2 * j] = b->scale[2 * j + 1] = (int8_t)(2 * (signs >> 28) + 1);
        for (int m = 0; m < 4; m++) {
            const uint8_t *index = in.qs + 8 * j + 2 * m;
            grid_signed(b->q + 32 * j + 8 * m,
                        iq3_xxs_grid[index[0]] | (uint64_t)iq3_xxs_grid[index[1]] << 32,
                        grid_even_signs[signs >> (7 * m) & 127]);
        }
    }
}

void iq3_xxs_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq3_xxs), false, iq3_xxs_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq3_xxs(), 256, 4, 32, 15, 0.25f, 62, 4, true, SHIFT_NONE};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq3_xxs out = {.d = f32_to_f16(b.d)};
    for (int k = 0; k < 64; k++)
        out.qs[k] = (uint8_t)b.index[k];
    for (int j = 0; j < 8; j++) {
        uint32_t signs = (uint32_t)b.scale[j] << 28;
        for (int m = 0; m < 4; m++)
            signs |= (uint32_t)(b.signs[4 * j + m] & 127) << (7 * m);
        memcpy(out.signs + 4 * j, &signs, sizeof signs);
    }
    memcpy(block, &out, sizeof out);
}

void iq3_xxs_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq3_xxs), pack);
}

DEFINE_DOT(iq3_xxs, dot_256(row, x, n, sizeof(struct block_iq3_xxs), false, iq3_xxs_unpack))

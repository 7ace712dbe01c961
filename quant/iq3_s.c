/* IQ3_S: super-blocks of 256, 8 sub-blocks of 32 with 4-bit scales; four elements per index.
 *
 *   byte   0      2                       66      74            106         110
 *          | d    | qs[64]                | qh[8] | signs[32]   | scales[4] |
 *          x[32 j + 4 k + i] = d (2 s[j] + 1) ± iq3_s_grid[index[8 j + k]][i]
 *   qs[k]          bits 0–7 of index[k];  qh[k / 8]  bit k % 8: bit 8 of index[k]
 *   signs[m]       bit i: sign of element 8 m + i
 *   scales[j / 2]  bits 4 (j % 2) …: s[j]
 */
#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/grids.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq3_s) == 2 + 64 + 8 + 32 + 4, "half, indices, high bits, signs, scales");

void iq3_s_unpack(struct block_256 *b, const void *block)
{
    struct block_iq3_s in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    for (int j = 0; j < 16; j++)
        b->scale[j] = (int8_t)(2 * (in.scales[j / 4] >> (j / 2 % 2 * 4) & 15) + 1);
    for (int m = 0; m < 32; m++) {
        unsigned high = (unsigned)in.qh[m / 4] >> (m % 4 * 2);
        unsigned first = in.qs[2 * m] | (high & 1) << 8, second = in.qs[2 * m + 1] | (high >> 1 & 1) << 8;
        grid_signed(b->q + 8 * m, iq3_s_grid[first] | (uint64_t)iq3_s_grid[second] << 32, in.signs[m]);
    }
}

void iq3_s_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq3_s), false, iq3_s_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    const struct lattice l = {lattice_iq3_s(), 512, 4, 32, 15, 1, 15, 1, false, SHIFT_NONE};
    struct lattice_block b;
    fit_functions()->lattice(&b, x, w, &l);
    struct block_iq3_s out = {.d = f32_to_f16(b.d)};
    for (int k = 0; k < 64; k++) {
        out.qs[k] = (uint8_t)b.index[k];
        out.qh[k / 8] = (uint8_t)(out.qh[k / 8] | b.index[k] >> 8 << (k % 8));
    }
    memcpy(out.signs, b.signs, sizeof out.signs);
    for (int j = 0; j < 4; j++)
        out.scales[j] = (uint8_t)(b.scale[2 * j] | b.scale[2 * j + 1] << 4);
    memcpy(block, &out, sizeof out);
}

void iq3_s_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq3_s), pack);
}

DEFINE_DOT(iq3_s, dot_256(row, x, n, sizeof(struct block_iq3_s), false, iq3_s_unpack))

/* Q5_K: super-blocks of 256, 8 sub-blocks of 32 with 6-bit scales and minima; 5-bit codes.
 *
 *   byte   0      2      4             16          48                               176
 *          | d    | dmin | scales[12]  | qh[32]    | qs[128]                        |
 *          x[32 j + i] = d s[j] code[32 j + i] − dmin m[j]
 *   scales                   as Q4_K's
 *   qs[32 g + i], g = 0…3    bits 0–3: those of code[64 g + i], bits 4–7: bits 0–3 of code[64 g + 32 + i]
 *   qh[i]                    bit j: bit 4 of code[32 j + i], j = 0…7
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q5_k) == 2 + 2 + 12 + 32 + 128, "halves, pairs, high bits, nibbles");

static void unpack(struct block_256 *b, const void *block)
{
    struct block_q5_k in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->dmin = f16_to_f32(in.dmin);
    q4_k_unpack_scales(b, in.scales);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) {
            int low = in.qs[j / 2 * 32 + i] >> (j % 2 * 4) & 15, high = in.qh[i] >> j & 1;
            b->q[32 * j + i] = (int8_t)(low | high << 4);
        }
}

static void store(void *block, const struct block_256 *b)
{
    struct block_q5_k out = {.d = f32_to_f16(b->d), .dmin = f32_to_f16(b->dmin)};
    q4_k_pack_scales(out.scales, b);
    for (int i = 0; i < 256; i++) {
        uint8_t *low = &out.qs[i / 64 * 32 + i % 32], *high = &out.qh[i % 32];
        *low = (uint8_t)(*low | (b->q[i] & 15) << (i / 32 % 2 * 4));
        *high = (uint8_t)(*high | b->q[i] >> 4 << (i / 32));
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_256 b;
    fit_functions()->super_min(&b, x, w, 32, 31, 63);
    store(block, &b);
}

void q5_k_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_q5_k), true, unpack);
}

void q5_k_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_q5_k), pack);
}

DEFINE_DOT(q5_k, dot_256(row, x, n, sizeof(struct block_q5_k), true, unpack))

DEFINE_CODES_256(q5_k, 0, 31, NULL, true)

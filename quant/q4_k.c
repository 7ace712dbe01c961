/* Q4_K: super-blocks of 256, 8 sub-blocks of 32 with 6-bit scales and minima; 4-bit codes.
 *
 *   byte   0      2      4             16                               144
 *          | d    | dmin | scales[12]  | qs[128]                        |
 *          x[32 j + i] = d s[j] code[32 j + i] − dmin m[j]
 *   scales[j], j = 0…3       bits 0–5: s[j],              bits 6–7: bits 4–5 of s[j + 4]
 *   scales[4 + j]            bits 0–5: m[j],              bits 6–7: bits 4–5 of m[j + 4]
 *   scales[8 + j]            bits 0–3: those of s[j + 4], bits 4–7: bits 0–3 of m[j + 4]
 *   qs[32 g + i], g = 0…3    bits 0–3: code[64 g + i],    bits 4–7: code[64 g + 32 + i]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q4_k) == 2 + 2 + 12 + 128, "two halves, 8 pairs of 6 bits, 256 nibbles");

static void unpack(struct block_256 *b, const void *block)
{
    struct block_q4_k in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->dmin = f16_to_f32(in.dmin);
    q4_k_unpack_scales(b, in.scales);
    for (int g = 0; g < 4; g++)
        for (int i = 0; i < 32; i++) {
            b->q[64 * g + i] = (int8_t)(in.qs[32 * g + i] & 15);
            b->q[64 * g + 32 + i] = (int8_t)(in.qs[32 * g + i] >> 4);
        }
}

static void store(void *block, const struct block_256 *b)
{
    struct block_q4_k out = {.d = f32_to_f16(b->d), .dmin = f32_to_f16(b->dmin)};
    q4_k_pack_scales(out.scales, b);
    for (int i = 0; i < 256; i++) {
        uint8_t *byte = &out.qs[i / 64 * 32 + i % 32];
        *byte = (uint8_t)(*byte | b->q[i] << (i / 32 % 2 * 4));
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_256 b;
    fit_functions()->super_min(&b, x, w, 32, 15, 63);
    store(block, &b);
}

void q4_k_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_q4_k), true, unpack);
}

void q4_k_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_q4_k), pack);
}

DEFINE_DOT(q4_k, dot_256(row, x, n, sizeof(struct block_q4_k), true, unpack))

DEFINE_CODES_256(q4_k, 0, 15, NULL, true)

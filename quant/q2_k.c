/* Q2_K: super-blocks of 256, 16 sub-blocks of 16 with 4-bit scales and minima; 2-bit codes.
 *
 *   byte   0                16                              80     82     84
 *          | scales[16]     | qs[64]                        | d    | dmin |
 *          x[16 j + i] = d (scales[j] & 15) code[16 j + i] − dmin (scales[j] >> 4)
 *   qs[32 h + l], h = 0…1, l = 0…31:  bits 2 k …: code[128 h + 32 k + l], k = 0…3
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q2_k) == 16 + 64 + 2 + 2, "scale and minimum nibbles, codes, two halves");

static void unpack(struct block_256 *b, const void *block)
{
    struct block_q2_k in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->dmin = f16_to_f32(in.dmin);
    for (int j = 0; j < 16; j++) {
        b->scale[j] = (int8_t)(in.scales[j] & 15);
        b->min[j] = in.scales[j] >> 4;
    }
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < 32; l++)
            b->q[32 * k + l] = (int8_t)(in.qs[k / 4 * 32 + l] >> (k % 4 * 2) & 3);
}

static void store(void *block, const struct block_256 *b)
{
    struct block_q2_k out = {.d = f32_to_f16(b->d), .dmin = f32_to_f16(b->dmin)};
    for (int j = 0; j < 16; j++)
        out.scales[j] = (uint8_t)(b->scale[j] | b->min[j] << 4);
    for (int i = 0; i < 256; i++) {
        uint8_t *byte = &out.qs[i / 128 * 32 + i % 32];
        *byte = (uint8_t)(*byte | b->q[i] << (i / 32 % 4 * 2));
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_256 b;
    fit_functions()->super_min(&b, x, w, 16, 3, 15);
    store(block, &b);
}

void q2_k_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_q2_k), true, unpack);
}

void q2_k_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_q2_k), pack);
}

DEFINE_DOT(q2_k, dot_256(row, x, n, sizeof(struct block_q2_k), true, unpack))

DEFINE_CODES_256(q2_k, 0, 3, NULL, true)

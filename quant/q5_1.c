/* Q5_1: blocks of 32 with a scale and a minimum, 5-bit codes.
 *
 *   byte   0      2      4          8                     24
 *          | d    | m    | qh[4]    | qs[16]              |      x[i] = d code[i] + m
 *   qs[i]  bits 0–3: bits 0–3 of code[i], bits 4–7: bits 0–3 of code[i + 16]
 *   qh     bit i of the little-endian 32: bit 4 of code[i]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q5_1) == 2 + 2 + 4 + 16, "half scale and minimum, high bits, nibbles");

static void unpack(struct block_32 *b, const void *block)
{
    struct block_q5_1 in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->m = f16_to_f32(in.m);
    for (int i = 0; i < 32; i++) {
        int low = in.qs[i % 16] >> (i / 16 * 4) & 15, high = in.qh[i / 8] >> (i % 8) & 1;
        b->q[i] = (int8_t)(low | high << 4);
    }
}

static void store(void *block, const struct block_32 *b)
{
    struct block_q5_1 out = {.d = f32_to_f16(b->d), .m = f32_to_f16(b->m)};
    for (int i = 0; i < 32; i++) {
        out.qs[i % 16] = (uint8_t)(out.qs[i % 16] | (b->q[i] & 15) << (i / 16 * 4));
        out.qh[i / 8] = (uint8_t)(out.qh[i / 8] | b->q[i] >> 4 << (i % 8));
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_32 b;
    fit_functions()->block_min(&b, x, w, 31);
    store(block, &b);
}

void q5_1_decode(float *dst, const void *src, int64_t n)
{
    decode_32(dst, src, n, sizeof(struct block_q5_1), true, unpack);
}

void q5_1_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 32, sizeof(struct block_q5_1), pack);
}

DEFINE_DOT(q5_1, dot_32(row, x, n, sizeof(struct block_q5_1), true, unpack))

DEFINE_CODES_32(q5_1, 0, 31, NULL, true)

/* Q4_1: blocks of 32 with a scale and a minimum, 4-bit codes.
 *
 *   byte   0      2      4                     20
 *          | d    | m    | qs[16]              |      x[i] = d code[i] + m
 *   qs[i]  bits 0–3: code[i], bits 4–7: code[i + 16]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q4_1) == 2 + 2 + 16, "half scale and minimum, 32 nibbles");

static void unpack(struct block_32 *b, const void *block)
{
    struct block_q4_1 in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->m = f16_to_f32(in.m);
    for (int i = 0; i < 16; i++) {
        b->q[i] = (int8_t)(in.qs[i] & 15);
        b->q[i + 16] = (int8_t)(in.qs[i] >> 4);
    }
}

static void store(void *block, const struct block_32 *b)
{
    struct block_q4_1 out = {.d = f32_to_f16(b->d), .m = f32_to_f16(b->m)};
    for (int i = 0; i < 16; i++)
        out.qs[i] = (uint8_t)(b->q[i] | b->q[i + 16] << 4);
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_32 b;
    fit_functions()->block_min(&b, x, w, 15);
    store(block, &b);
}

void q4_1_decode(float *dst, const void *src, int64_t n)
{
    decode_32(dst, src, n, sizeof(struct block_q4_1), true, unpack);
}

void q4_1_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 32, sizeof(struct block_q4_1), pack);
}

DEFINE_DOT(q4_1, dot_32(row, x, n, sizeof(struct block_q4_1), true, unpack))

DEFINE_CODES_32(q4_1, 0, 15, NULL, true)

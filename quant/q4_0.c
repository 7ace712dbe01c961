/* Q4_0: blocks of 32 with a scale, 4-bit codes around 8.
 *
 *   byte   0      2                     18
 *          | d    | qs[16]              |      x[i] = d (code[i] − 8)
 *   qs[i]  bits 0–3: code[i], bits 4–7: code[i + 16]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q4_0) == 2 + 16, "half scale, 32 nibbles");

static void unpack(struct block_32 *b, const void *block)
{
    struct block_q4_0 in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    for (int i = 0; i < 16; i++) {
        b->q[i] = (int8_t)((in.qs[i] & 15) - 8);
        b->q[i + 16] = (int8_t)((in.qs[i] >> 4) - 8);
    }
}

static void store(void *block, const struct block_32 *b)
{
    struct block_q4_0 out = {.d = f32_to_f16(b->d)};
    for (int i = 0; i < 16; i++)
        out.qs[i] = (uint8_t)((b->q[i] + 8) | (b->q[i + 16] + 8) << 4);
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    static const struct codes codes = {-8, 7, NULL};
    struct block_32 b;
    fit_functions()->block(&b, x, w, &codes);
    store(block, &b);
}

void q4_0_decode(float *dst, const void *src, int64_t n)
{
    decode_32(dst, src, n, sizeof(struct block_q4_0), false, unpack);
}

void q4_0_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 32, sizeof(struct block_q4_0), pack);
}

DEFINE_DOT(q4_0, dot_32(row, x, n, sizeof(struct block_q4_0), false, unpack))

DEFINE_CODES_32(q4_0, -8, 7, NULL, false)

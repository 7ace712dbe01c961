/* Q8_0: blocks of 32 with a scale, 8-bit codes.
 *
 *   byte   0      2                               34
 *          | d    | int8 qs[32]                   |      x[i] = d qs[i]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q8_0) == 2 + 32, "half scale, 32 bytes");

static void unpack(struct block_32 *b, const void *block)
{
    struct block_q8_0 in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    memcpy(b->q, in.qs, sizeof in.qs);
}

static void store(void *block, const struct block_32 *b)
{
    struct block_q8_0 out = {.d = f32_to_f16(b->d)};
    memcpy(out.qs, b->q, sizeof out.qs);
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_32 b;
    (void)w; /* rounding alone leaves nothing to weigh */
    fit_functions()->block_extreme(&b, x, 127);
    store(block, &b);
}

void q8_0_decode(float *dst, const void *src, int64_t n)
{
    decode_32(dst, src, n, sizeof(struct block_q8_0), false, unpack);
}

void q8_0_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 32, sizeof(struct block_q8_0), pack);
}

DEFINE_DOT(q8_0, dot_32(row, x, n, sizeof(struct block_q8_0), false, unpack))

DEFINE_CODES_32(q8_0, -127, 127, NULL, false)

/* MXFP4: blocks of 32 with a power of two as scale, 4-bit floats (E2M1), after the OCP microscaling formats.
 *
 *   byte   0    1                     17
 *          | e  | qs[16]              |      x[i] = 2^(e − 128) fp4_values[code[i]]
 *   qs[i]  bits 0–3: code[i], bits 4–7: code[i + 16]
 */
#include "quant/blocks.h"

#include <string.h>

_Static_assert(sizeof(struct block_mxfp4) == 1 + 16, "exponent, 32 nibbles");

static void unpack(struct block_32 *b, const void *block)
{
    struct block_mxfp4 in;
    memcpy(&in, block, sizeof in);
    b->d = e8m0_half_to_f32(in.e);
    for (int i = 0; i < 16; i++) {
        b->q[i] = fp4_values[in.qs[i] & 15];
        b->q[i + 16] = fp4_values[in.qs[i] >> 4];
    }
}

void mxfp4_decode(float *dst, const void *src, int64_t n)
{
    decode_32(dst, src, n, sizeof(struct block_mxfp4), false, unpack);
}

DEFINE_DOT(mxfp4, dot_32(row, x, n, sizeof(struct block_mxfp4), false, unpack))

/* MXFP4: blocks of 32 with a power of two as scale, 4-bit floats (E2M1), after the OCP microscaling formats.
 *
 *   byte   0    1                     17
 *          | e  | qs[16]              |      x[i] = 2^(e − 128) fp4_values[code[i]]
 *   qs[i]  bits 0–3: code[i], bits 4–7: code[i + 16]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

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

/* No scale is NaN as decoders have it: a block with a value that is not finite becomes infinite. */
static void pack(void *block, const float *x, const float *w)
{
    enum { N_SCALES = 253 }; /* of which twelve times are still finite */
    float scales[N_SCALES];
    int8_t q[32];
    int e;
    for (int i = 0; i < N_SCALES; i++)
        scales[i] = e8m0_half_to_f32((uint8_t)i);
    if (!fit_functions()->listed(&e, q, x, w, 32, &fp4_codes, scales, N_SCALES)) {
        e = 255;
        memset(q, 12, sizeof q);
    }
    struct block_mxfp4 out = {.e = (uint8_t)e};
    for (int i = 0; i < 16; i++)
        out.qs[i] = (uint8_t)(fp4_index(q[i]) | fp4_index(q[i + 16]) << 4);
    memcpy(block, &out, sizeof out);
}

void mxfp4_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 32, sizeof(struct block_mxfp4), pack);
}

DEFINE_DOT(mxfp4, dot_32(row, x, n, sizeof(struct block_mxfp4), false, unpack))

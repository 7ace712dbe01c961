/* TQ2_0: super-blocks of 256 with one scale; values −1, 0, 1 (and 2) of two bits.
 *
 *   byte   0                                64     66
 *          | qs[64]                         | d    |      x[i] = d (code[i] − 1)
 *   qs[32 h + l], h = 0…1, l = 0…31:  bits 2 k …: code[128 h + 32 k + l], k = 0…3
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_tq2_0) == 64 + 2, "256 codes of 2 bits, half scale");

void tq2_0_unpack(struct block_256 *b, const void *block)
{
    struct block_tq2_0 in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    memset(b->scale, 1, sizeof b->scale);
    for (int h = 0; h < 2; h++)
        for (int k = 0; k < 4; k++)
            for (int l = 0; l < 32; l++)
                b->q[128 * h + 32 * k + l] = (int8_t)((in.qs[32 * h + l] >> (2 * k) & 3) - 1);
}

void tq2_0_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_tq2_0), false, tq2_0_unpack);
}

static void pack(void *block, const float *x, const float *w)
{
    static const struct codes ternary = {-1, 1, NULL};
    int8_t q[QK_K];
    float d;
    fit_functions()->codes(&d, q, x, w, QK_K, &ternary);
    struct block_tq2_0 out = {.d = f32_to_f16(d)};
    for (int i = 0; i < QK_K; i++) {
        uint8_t *byte = &out.qs[i / 128 * 32 + i % 32];
        *byte = (uint8_t)(*byte | (q[i] + 1) << (i / 32 % 4 * 2));
    }
    memcpy(block, &out, sizeof out);
}

void tq2_0_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_tq2_0), pack);
}

DEFINE_DOT(tq2_0, dot_256(row, x, n, sizeof(struct block_tq2_0), false, tq2_0_unpack))

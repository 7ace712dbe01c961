/* NVFP4: blocks of 64, 4 sub-blocks of 16 with 8-bit float scales (E4M3), 4-bit floats (E2M1).
 *
 *   byte   0       4                            36
 *          | d[4]  | qs[32]                     |      x[16 j + i] = d[j] / 2 fp4_values[code[16 j + i]]
 *   qs[8 j + i]  bits 0–3: code[16 j + i], bits 4–7: code[16 j + 8 + i], i = 0…7
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_nvfp4) == 4 + 32, "4 float scales of 8 bits, 64 nibbles");

struct sub_block {
    float d;
    int8_t q[16];
};

ALWAYS_INLINE void unpack(struct sub_block sub[4], const void *block)
{
    struct block_nvfp4 in;
    memcpy(&in, block, sizeof in);
    for (int j = 0; j < 4; j++) {
        sub[j].d = e4m3_half_to_f32(in.d[j]);
        for (int i = 0; i < 8; i++) {
            sub[j].q[i] = fp4_values[in.qs[8 * j + i] & 15];
            sub[j].q[8 + i] = fp4_values[in.qs[8 * j + i] >> 4];
        }
    }
}

void nvfp4_decode(float *dst, const void *src, int64_t n)
{
    const struct block_nvfp4 *block = src;
    for (; n > 0; n -= 64, dst += 64, block++) {
        struct sub_block sub[4];
        unpack(sub, block);
        for (int i = 0; i < 64; i++)
            dst[i] = sub[i / 16].d * (float)sub[i / 16].q[i % 16];
    }
}

/* No scale is NaN as decoders have it: a sub-block with a value that is not finite becomes 0. */
static void pack(void *block, const float *x, const float *w)
{
    enum { N_SCALES = 0x7f };
    float scales[N_SCALES];
    struct block_nvfp4 out = {0};
    for (int i = 0; i < N_SCALES; i++)
        scales[i] = e4m3_half_to_f32((uint8_t)i);
    for (int j = 0; j < 4; j++) {
        int8_t q[16];
        int d;
        (void)fit_functions()->listed(&d, q, x + 16 * j, w ? w + 16 * j : NULL, 16, &fp4_codes, scales,
                                      N_SCALES);
        out.d[j] = (uint8_t)d;
        for (int i = 0; i < 8; i++)
            out.qs[8 * j + i] = (uint8_t)(fp4_index(q[i]) | fp4_index(q[8 + i]) << 4);
    }
    memcpy(block, &out, sizeof out);
}

void nvfp4_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 64, sizeof(struct block_nvfp4), pack);
}

/* As blocks of 16 (blocks.h): a float scale each, in order. */
ALWAYS_INLINE float dot(const void *row, const void *x, int64_t n)
{
    const struct block_nvfp4 *block = row;
    const struct act_block *a = x;
    float total = 0;
    while (n > 0) {
        float acc = 0;
        for (int i = 0; i < CHUNK_LEN / 64 && n > 0; i++, n -= 64, block++) {
            struct sub_block sub[4];
            unpack(sub, block);
            for (int j = 0; j < 4; j += 2, a++) {
                acc = fmaf((float)dot_i8(sub[j].q, a->q, 16), sub[j].d * a->d, acc);
                acc = fmaf((float)dot_i8(sub[j + 1].q, a->q + 16, 16), sub[j + 1].d * a->d, acc);
            }
        }
        total += acc;
    }
    return total;
}

DEFINE_DOT(nvfp4, dot(row, x, n))

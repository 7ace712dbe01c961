/* Q6_K: super-blocks of 256, 16 sub-blocks of 16 with 8-bit scales; 6-bit codes around 32.
 *
 *   byte   0                       128            192               208    210
 *          | ql[128]               | qh[64]       | int8 scales[16] | d    |
 *          x[16 j + i] = d scales[j] (code[16 j + i] − 32)
 *   for h = 0…1, l = 0…31:
 *   ql[64 h + l]        bits 0–3 of code[128 h + l],       then those of code[128 h + 64 + l]
 *   ql[64 h + 32 + l]   bits 0–3 of code[128 h + 32 + l],  then those of code[128 h + 96 + l]
 *   qh[32 h + l]        bits 2 k …: bits 4–5 of code[128 h + 32 k + l], k = 0…3
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q6_k) == 128 + 64 + 16 + 2, "low nibbles, high bits, scales, half");

static void unpack(struct block_256 *b, const void *block)
{
    struct block_q6_k in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    memcpy(b->scale, in.scales, sizeof in.scales);
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < 32; l++) {
            int low = in.ql[k / 4 * 64 + k % 2 * 32 + l] >> (k / 2 % 2 * 4) & 15;
            int high = in.qh[k / 4 * 32 + l] >> (k % 4 * 2) & 3;
            b->q[32 * k + l] = (int8_t)((low | high << 4) - 32);
        }
}

static void store(void *block, const struct block_256 *b)
{
    struct block_q6_k out = {.d = f32_to_f16(b->d)};
    memcpy(out.scales, b->scale, sizeof out.scales);
    for (int i = 0; i < 256; i++) {
        int code = b->q[i] + 32;
        uint8_t *low = &out.ql[i / 128 * 64 + i % 64], *high = &out.qh[i / 128 * 32 + i % 32];
        *low = (uint8_t)(*low | (code & 15) << (i / 64 % 2 * 4));
        *high = (uint8_t)(*high | code >> 4 << (i / 32 % 4 * 2));
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    static const struct codes codes = {-32, 31, NULL};
    struct block_256 b;
    fit_functions()->super(&b, x, w, 16, &codes, -128);
    store(block, &b);
}

void q6_k_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_q6_k), false, unpack);
}

void q6_k_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_q6_k), pack);
}

DEFINE_DOT(q6_k, dot_256(row, x, n, sizeof(struct block_q6_k), false, unpack))

DEFINE_CODES_256(q6_k, -32, 31, NULL, false)

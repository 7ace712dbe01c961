/* Q3_K: super-blocks of 256, 16 sub-blocks of 16 with 6-bit scales around 32; 3-bit codes around 4.
 *
 *   byte   0                32                         96            108    110
 *          | hmask[32]      | qs[64]                   | scales[12]  | d    |
 *          x[16 j + i] = d (s[j] − 32) (code[16 j + i] − 4)
 *   qs[32 h + l], h = 0…1, l = 0…31:  bits 2 k …: bits 0–1 of code[128 h + 32 k + l], k = 0…3
 *   hmask[l]     bit 4 h + k: bit 2 of code[128 h + 32 k + l]
 *   scales[j % 8], j = 0…15:      bits 4 (j / 8) …: bits 0–3 of s[j]
 *   scales[8 + j % 4]             bits 2 (j / 4) …: bits 4–5 of s[j]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_q3_k) == 32 + 64 + 12 + 2,
               "high bits, low bits, 16 scales of 6 bits, half");

static void unpack(struct block_256 *b, const void *block)
{
    struct block_q3_k in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    for (int j = 0; j < 16; j++) {
        int low = in.scales[j % 8] >> (j / 8 * 4) & 15, high = in.scales[8 + j % 4] >> (j / 4 * 2) & 3;
        b->scale[j] = (int8_t)((low | high << 4) - 32);
    }
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < 32; l++) {
            int low = in.qs[k / 4 * 32 + l] >> (k % 4 * 2) & 3, high = in.hmask[l] >> k & 1;
            b->q[32 * k + l] = (int8_t)((low | high << 2) - 4);
        }
}

static void store(void *block, const struct block_256 *b)
{
    struct block_q3_k out = {.d = f32_to_f16(b->d)};
    for (int j = 0; j < 16; j++) {
        int s = b->scale[j] + 32;
        uint8_t *low = &out.scales[j % 8], *high = &out.scales[8 + j % 4];
        *low = (uint8_t)(*low | (s & 15) << (j / 8 * 4));
        *high = (uint8_t)(*high | s >> 4 << (j / 4 * 2));
    }
    for (int i = 0; i < 256; i++) {
        int code = b->q[i] + 4;
        uint8_t *low = &out.qs[i / 128 * 32 + i % 32], *high = &out.hmask[i % 32];
        *low = (uint8_t)(*low | (code & 3) << (i / 32 % 4 * 2));
        *high = (uint8_t)(*high | code >> 2 << (i / 32));
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    static const struct codes codes = {-4, 3, NULL};
    struct block_256 b;
    fit_functions()->super(&b, x, w, 16, &codes, -32);
    store(block, &b);
}

void q3_k_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_q3_k), false, unpack);
}

void q3_k_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_q3_k), pack);
}

DEFINE_DOT(q3_k, dot_256(row, x, n, sizeof(struct block_q3_k), false, unpack))

DEFINE_CODES_256(q3_k, -4, 3, NULL, false)

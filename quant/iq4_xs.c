/* IQ4_XS: super-blocks of 256, 8 sub-blocks of 32 with 6-bit scales around 32; indices into IQ4_NL's book.
 *
 *   byte   0      2          4             8                          136
 *          | d    | scales_h | scales_l[4] | qs[128]                  |
 *          x[32 j + i] = d (s[j] − 32) iq4_values[index[32 j + i]]
 *   scales_l[j / 2]  bits 4 (j % 2) …: bits 0–3 of s[j];   scales_h  bits 2 j …: bits 4–5 of s[j]
 *   qs[16 j + i]     bits 0–3: index[32 j + i], bits 4–7: index[32 j + 16 + i]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq4_xs) == 2 + 2 + 4 + 128, "half scale, 8 scales of 6 bits, 256 nibbles");

static void unpack(struct block_256 *b, const void *block)
{
    struct block_iq4_xs in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    for (int j = 0; j < 8; j++) {
        int s = (in.scales_l[j / 2] >> (j % 2 * 4) & 15) | (in.scales_h >> (2 * j) & 3) << 4;
        b->scale[2 * j] = b->scale[2 * j + 1] = (int8_t)(s - 32);
        for (int i = 0; i < 16; i++) {
            b->q[32 * j + i] = iq4_values[in.qs[16 * j + i] & 15];
            b->q[32 * j + 16 + i] = iq4_values[in.qs[16 * j + i] >> 4];
        }
    }
}

static void store(void *block, const struct block_256 *b)
{
    struct block_iq4_xs out = {.d = f32_to_f16(b->d)};
    for (int j = 0; j < 8; j++) {
        int s = b->scale[2 * j] + 32;
        out.scales_l[j / 2] = (uint8_t)(out.scales_l[j / 2] | (s & 15) << (j % 2 * 4));
        out.scales_h = (uint16_t)(out.scales_h | s >> 4 << (2 * j));
        for (int i = 0; i < 16; i++)
            out.qs[16 * j + i] =
                (uint8_t)(iq4_index(b->q[32 * j + i]) | iq4_index(b->q[32 * j + 16 + i]) << 4);
    }
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_256 b;
    fit_functions()->super(&b, x, w, 32, &iq4_codes, -32);
    store(block, &b);
}

void iq4_xs_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_iq4_xs), false, unpack);
}

void iq4_xs_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_iq4_xs), pack);
}

DEFINE_DOT(iq4_xs, dot_256(row, x, n, sizeof(struct block_iq4_xs), false, unpack))

DEFINE_CODES_256(iq4_xs, 0, 15, iq4_values, false)

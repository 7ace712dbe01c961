/* IQ4_NL: blocks of 32 with a scale, 4-bit indices into a code book that is denser around zero.
 *
 *   byte   0      2                     18
 *          | d    | qs[16]              |      x[i] = d iq4_values[index[i]]
 *   qs[i]  bits 0–3: index[i], bits 4–7: index[i + 16]
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_iq4_nl) == 2 + 16, "half scale, 32 nibbles");

static void unpack(struct block_32 *b, const void *block)
{
    struct block_iq4_nl in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    for (int i = 0; i < 16; i++) {
        b->q[i] = iq4_values[in.qs[i] & 15];
        b->q[i + 16] = iq4_values[in.qs[i] >> 4];
    }
}

static void store(void *block, const struct block_32 *b)
{
    struct block_iq4_nl out = {.d = f32_to_f16(b->d)};
    for (int i = 0; i < 16; i++)
        out.qs[i] = (uint8_t)(iq4_index(b->q[i]) | iq4_index(b->q[i + 16]) << 4);
    memcpy(block, &out, sizeof out);
}

static void pack(void *block, const float *x, const float *w)
{
    struct block_32 b;
    fit_functions()->block(&b, x, w, &iq4_codes);
    store(block, &b);
}

void iq4_nl_decode(float *dst, const void *src, int64_t n)
{
    decode_32(dst, src, n, sizeof(struct block_iq4_nl), false, unpack);
}

void iq4_nl_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, 32, sizeof(struct block_iq4_nl), pack);
}

DEFINE_DOT(iq4_nl, dot_32(row, x, n, sizeof(struct block_iq4_nl), false, unpack))

DEFINE_CODES_32(iq4_nl, 0, 15, iq4_values, false)

/* TQ1_0: super-blocks of 256 with one scale; values −1, 0, 1, five to a byte.
 *
 *   byte   0                                48      52     54
 *          | qs[48]                         | qh[4] | d    |      x[i] = d (digit[i] − 1)
 *   qs[l],      l = 0…31: digit n of base 3 is that of element 32 n + l,        n = 0…4
 *   qs[32 + l], l = 0…15: digit n is that of element 160 + 16 n + l,            n = 0…4
 *   qh[l],      l = 0…3:  digit n is that of element 240 + 4 n + l,             n = 0…3
 *
 * A byte holds the fraction 0.digits of base 3 in 256ths, rounded up: digit n is the integer part of three
 * times what is left of byte · 3ⁿ / 256.
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_tq1_0) == 48 + 4 + 2, "bytes of five digits, of four, half scale");

static inline int8_t digit(uint8_t byte, int n)
{
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    return (int8_t)(((uint8_t)(byte * power[n]) * 3 >> 8) - 1);
}

void tq1_0_unpack(struct block_256 *b, const void *block)
{
    struct block_tq1_0 in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    memset(b->scale, 1, sizeof b->scale);
    for (int n = 0; n < 5; n++) {
        for (int l = 0; l < 32; l++)
            b->q[32 * n + l] = digit(in.qs[l], n);
        for (int l = 0; l < 16; l++)
            b->q[160 + 16 * n + l] = digit(in.qs[32 + l], n);
    }
    for (int n = 0; n < 4; n++)
        for (int l = 0; l < 4; l++)
            b->q[240 + 4 * n + l] = digit(in.qh[l], n);
}

void tq1_0_decode(float *dst, const void *src, int64_t n)
{
    decode_256(dst, src, n, sizeof(struct block_tq1_0), false, tq1_0_unpack);
}

/* The byte of n digits of base 3: their fraction in 256ths, rounded up. */
static uint8_t byte_of(const int8_t *q, int step, int n)
{
    unsigned v = 0;
    for (int i = 0; i < 5; i++)
        v = 3 * v + (i < n ? (unsigned)(q[i * step] + 1) : 0);
    return (uint8_t)((v * 256 + 242) / 243);
}

static void pack(void *block, const float *x, const float *w)
{
    static const struct codes ternary = {-1, 1, NULL};
    int8_t q[QK_K];
    float d;
    fit_functions()->codes(&d, q, x, w, QK_K, &ternary);
    struct block_tq1_0 out = {.d = f32_to_f16(d)};
    for (int l = 0; l < 32; l++)
        out.qs[l] = byte_of(q + l, 32, 5);
    for (int l = 0; l < 16; l++)
        out.qs[32 + l] = byte_of(q + 160 + l, 16, 5);
    for (int l = 0; l < 4; l++)
        out.qh[l] = byte_of(q + 240 + l, 4, 4);
    memcpy(block, &out, sizeof out);
}

void tq1_0_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    encode_blocks(dst, src, importance, n, QK_K, sizeof(struct block_tq1_0), pack);
}

DEFINE_DOT(tq1_0, dot_256(row, x, n, sizeof(struct block_tq1_0), false, tq1_0_unpack))

/* INT2Z, INT3Z, INT4Z, INT8Z: blocks of 32 asymmetric integers with a scale and an integer zero point, to
 * which the groups of GPTQ and AWQ checkpoints are rewritten.
 *
 *   byte   0      2       3          11        x[i] = d (code[i] − zero)
 *   INT2Z  | d    | zero  | q[8]     |         q[i]  bits 2 s …: bits 0–1 of code[8 s + i], s = 0…3
 *   INT3Z  | d    | zero  | q[8]     | qh[4] | qh[j] bit k: bit 2 of code[8 j + k]; 15 bytes
 *   INT4Z  | d    | zero  | q[16]        |     q[i]  bits 0–3: code[i], bits 4–7: code[i + 16]; 19 bytes
 *   INT8Z  | d    | zero (2 bytes) | q[32] |   q[i]  code[i]; 36 bytes
 */
#include "quant/blocks.h"
#include "quant/fit.h"

#include <string.h>

_Static_assert(sizeof(struct block_int2z) == 2 + 1 + 8, "half scale, zero point, 32 codes of 2 bits");
_Static_assert(sizeof(struct block_int3z) == 2 + 1 + 8 + 4, "half scale, zero point, 32 codes of 3 bits");
_Static_assert(sizeof(struct block_int4z) == 2 + 1 + 16, "half scale, zero point, 32 nibbles");
_Static_assert(sizeof(struct block_int8z) == 2 + 2 + 32, "half scale, zero point of 9 bits, 32 bytes");

static void unpack_int2z(struct block_zero *b, const void *block)
{
    struct block_int2z in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->zero = in.zero;
    for (int i = 0; i < 32; i++)
        b->q[i] = in.q[i % 8] >> (i / 8 * 2) & 3;
}

static void store_int2z(void *block, const struct block_zero *b)
{
    struct block_int2z out = {.d = f32_to_f16(b->d), .zero = (uint8_t)b->zero};
    for (int i = 0; i < 32; i++)
        out.q[i % 8] = (uint8_t)(out.q[i % 8] | b->q[i] << (i / 8 * 2));
    memcpy(block, &out, sizeof out);
}

static void pack_int2z(void *block, const float *x, const float *w)
{
    struct block_zero b;
    fit_functions()->group_zero(&b.d, &b.zero, b.q, x, w, 32, 2);
    store_int2z(block, &b);
}

static void unpack_int3z(struct block_zero *b, const void *block)
{
    struct block_int3z in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->zero = in.zero;
    for (int i = 0; i < 32; i++)
        b->q[i] = (uint8_t)((in.q[i % 8] >> (i / 8 * 2) & 3) | (in.qh[i / 8] >> (i % 8) & 1) << 2);
}

static void store_int3z(void *block, const struct block_zero *b)
{
    struct block_int3z out = {.d = f32_to_f16(b->d), .zero = (uint8_t)b->zero};
    for (int i = 0; i < 32; i++) {
        out.q[i % 8] = (uint8_t)(out.q[i % 8] | (b->q[i] & 3) << (i / 8 * 2));
        out.qh[i / 8] = (uint8_t)(out.qh[i / 8] | b->q[i] >> 2 << (i % 8));
    }
    memcpy(block, &out, sizeof out);
}

static void pack_int3z(void *block, const float *x, const float *w)
{
    struct block_zero b;
    fit_functions()->group_zero(&b.d, &b.zero, b.q, x, w, 32, 3);
    store_int3z(block, &b);
}

static void unpack_int4z(struct block_zero *b, const void *block)
{
    struct block_int4z in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->zero = in.zero;
    for (int i = 0; i < 16; i++) {
        b->q[i] = in.q[i] & 15;
        b->q[i + 16] = in.q[i] >> 4;
    }
}

static void store_int4z(void *block, const struct block_zero *b)
{
    struct block_int4z out = {.d = f32_to_f16(b->d), .zero = (uint8_t)b->zero};
    for (int i = 0; i < 16; i++)
        out.q[i] = (uint8_t)(b->q[i] | b->q[i + 16] << 4);
    memcpy(block, &out, sizeof out);
}

static void pack_int4z(void *block, const float *x, const float *w)
{
    struct block_zero b;
    fit_functions()->group_zero(&b.d, &b.zero, b.q, x, w, 32, 4);
    store_int4z(block, &b);
}

static void unpack_int8z(struct block_zero *b, const void *block)
{
    struct block_int8z in;
    memcpy(&in, block, sizeof in);
    b->d = f16_to_f32(in.d);
    b->zero = in.zero;
    memcpy(b->q, in.q, sizeof in.q);
}

static void store_int8z(void *block, const struct block_zero *b)
{
    struct block_int8z out = {.d = f32_to_f16(b->d), .zero = (uint16_t)b->zero};
    memcpy(out.q, b->q, sizeof out.q);
    memcpy(block, &out, sizeof out);
}

static void pack_int8z(void *block, const float *x, const float *w)
{
    struct block_zero b;
    fit_functions()->group_zero(&b.d, &b.zero, b.q, x, w, 32, 8);
    store_int8z(block, &b);
}

/* One scale and zero point for all n elements; codes: room for n. */
static void encode_group(void *dst, const float *src, const float *importance, int64_t n, uint8_t *codes,
                         int bits, int64_t block_bytes, store_zero *store)
{
    struct block_zero b;
    uint8_t *block = dst;
    fit_functions()->group_zero(&b.d, &b.zero, codes, src, importance, n, bits);
    for (int64_t i = 0; i < n; i += 32, block += block_bytes) {
        memcpy(b.q, codes + i, sizeof b.q);
        store(block, &b);
    }
}

#define DEFINE_INTZ(type, bits)                                                                        \
    void type##_decode(float *dst, const void *src, int64_t n)                                         \
    {                                                                                                  \
        decode_zero(dst, src, n, sizeof(struct block_##type), unpack_##type);                          \
    }                                                                                                  \
    void type##_encode(void *dst, const float *src, const float *importance, int64_t n)                \
    {                                                                                                  \
        encode_blocks(dst, src, importance, n, 32, sizeof(struct block_##type), pack_##type);          \
    }                                                                                                  \
    void type##_encode_group(void *dst, const float *src, const float *importance, int64_t n,          \
                             uint8_t *codes)                                                           \
    {                                                                                                  \
        encode_group(dst, src, importance, n, codes, bits, sizeof(struct block_##type), store_##type); \
    }                                                                                                  \
    DEFINE_DOT(type, dot_zero(row, x, n, sizeof(struct block_##type), unpack_##type))                  \
    DEFINE_CODES_ZERO(type, bits, unpack_##type, store_##type)

DEFINE_INTZ(int2z, 2)
DEFINE_INTZ(int3z, 3)
DEFINE_INTZ(int4z, 4)
DEFINE_INTZ(int8z, 8)

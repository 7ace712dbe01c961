/* The table of tensor types. A new type is one file of its own and one row here. */
#include "quant/formats.h"

#include <math.h>
#include <stddef.h>
#include <strings.h>

/* quantise without importances */
#define FROM_F32(type)                                                  \
    static void type##_from_f32(void *dst, const float *src, int64_t n) \
    {                                                                   \
        type##_encode(dst, src, NULL, n);                               \
    }

FROM_F32(f32)
FROM_F32(f16)
FROM_F32(bf16)
FROM_F32(q4_0)
FROM_F32(q4_1)
FROM_F32(q5_0)
FROM_F32(q5_1)
FROM_F32(q8_0)
FROM_F32(q2_k)
FROM_F32(q3_k)
FROM_F32(q4_k)
FROM_F32(q5_k)
FROM_F32(q6_k)
FROM_F32(iq4_nl)
FROM_F32(iq4_xs)
FROM_F32(iq1_s)
FROM_F32(iq1_m)
FROM_F32(iq2_xxs)
FROM_F32(iq2_xs)
FROM_F32(iq2_s)
FROM_F32(iq3_xxs)
FROM_F32(iq3_s)
FROM_F32(tq1_0)
FROM_F32(tq2_0)
FROM_F32(mxfp4)
FROM_F32(nvfp4)
FROM_F32(int2z)
FROM_F32(int3z)
FROM_F32(int4z)
FROM_F32(int8z)

#define FIELDS(type, id, len, bytes)                                                               \
    .name = #type, .gguf_id = id, .block_len = len, .block_bytes = bytes, .to_f32 = type##_decode, \
    .quantise = type##_encode, .from_f32 = type##_from_f32, .dot = type##_dot
#define CODES(type) .grid = type##_grid, .set_codes = type##_set_codes
#define FLOATS(type, id, len, bytes)                   \
    {                                                  \
        FIELDS(type, id, len, bytes), .x_is_f32 = true \
    }
#define MATRIX(type, id, len, bytes)              \
    {                                             \
        FIELDS(type, id, len, bytes), CODES(type) \
    }
#define GROUPS(type, id, len, bytes)                                                     \
    {                                                                                    \
        FIELDS(type, id, len, bytes), CODES(type), .quantise_group = type##_encode_group \
    }
#define PLAIN(type, id, len, bytes)  \
    {                                \
        FIELDS(type, id, len, bytes) \
    }
#define SUPER(type, id, bytes)                                 \
    {                                                          \
        FIELDS(type, id, QK_K, bytes), .unpack = type##_unpack \
    }
#define DATA(type, id, bytes)                                              \
    {                                                                      \
        .name = #type, .gguf_id = id, .block_len = 1, .block_bytes = bytes \
    }

/* clang-format off */
const struct qtype_info qtypes[QTYPE_COUNT] = {
    /*                      name    GGUF  elements  bytes of a block */
    [QTYPE_F32]    = FLOATS(f32,       0,   1,      sizeof(float)),
    [QTYPE_F16]    = FLOATS(f16,       1,   1,      sizeof(uint16_t)),
    [QTYPE_BF16]   = FLOATS(bf16,     30,   1,      sizeof(uint16_t)),
    [QTYPE_Q4_0]   = MATRIX(q4_0,      2,  32,      sizeof(struct block_q4_0)),
    [QTYPE_Q4_1]   = MATRIX(q4_1,      3,  32,      sizeof(struct block_q4_1)),
    [QTYPE_Q5_0]   = MATRIX(q5_0,      6,  32,      sizeof(struct block_q5_0)),
    [QTYPE_Q5_1]   = MATRIX(q5_1,      7,  32,      sizeof(struct block_q5_1)),
    [QTYPE_Q8_0]   = MATRIX(q8_0,      8,  32,      sizeof(struct block_q8_0)),
    [QTYPE_Q2_K]   = MATRIX(q2_k,     10, QK_K,     sizeof(struct block_q2_k)),
    [QTYPE_Q3_K]   = MATRIX(q3_k,     11, QK_K,     sizeof(struct block_q3_k)),
    [QTYPE_Q4_K]   = MATRIX(q4_k,     12, QK_K,     sizeof(struct block_q4_k)),
    [QTYPE_Q5_K]   = MATRIX(q5_k,     13, QK_K,     sizeof(struct block_q5_k)),
    [QTYPE_Q6_K]   = MATRIX(q6_k,     14, QK_K,     sizeof(struct block_q6_k)),
    [QTYPE_IQ4_NL] = MATRIX(iq4_nl,   20,  32,      sizeof(struct block_iq4_nl)),
    [QTYPE_IQ4_XS] = MATRIX(iq4_xs,   23, QK_K,     sizeof(struct block_iq4_xs)),
    [QTYPE_IQ1_S]  = SUPER(iq1_s,  19,           sizeof(struct block_iq1_s)),
    [QTYPE_IQ1_M]  = SUPER(iq1_m,  29,           sizeof(struct block_iq1_m)),
    [QTYPE_IQ2_XXS] = SUPER(iq2_xxs, 16,         sizeof(struct block_iq2_xxs)),
    [QTYPE_IQ2_XS] = SUPER(iq2_xs, 17,           sizeof(struct block_iq2_xs)),
    [QTYPE_IQ2_S]  = SUPER(iq2_s,  22,           sizeof(struct block_iq2_s)),
    [QTYPE_IQ3_XXS] = SUPER(iq3_xxs, 18,         sizeof(struct block_iq3_xxs)),
    [QTYPE_IQ3_S]  = SUPER(iq3_s,  21,           sizeof(struct block_iq3_s)),
    [QTYPE_TQ1_0]  = SUPER(tq1_0,  34,           sizeof(struct block_tq1_0)),
    [QTYPE_TQ2_0]  = SUPER(tq2_0,  35,           sizeof(struct block_tq2_0)),
    [QTYPE_MXFP4]  = PLAIN(mxfp4,      39,  32,      sizeof(struct block_mxfp4)),
    [QTYPE_NVFP4]  = PLAIN(nvfp4,      40,  64,      sizeof(struct block_nvfp4)),
    [QTYPE_INT2Z]  = GROUPS(int2z,    -1,  32,      sizeof(struct block_int2z)),
    [QTYPE_INT3Z]  = GROUPS(int3z,    -1,  32,      sizeof(struct block_int3z)),
    [QTYPE_INT4Z]  = GROUPS(int4z,    -1,  32,      sizeof(struct block_int4z)),
    [QTYPE_INT8Z]  = GROUPS(int8z,    -1,  32,      sizeof(struct block_int8z)),
    [QTYPE_I8]     = DATA(i8,         24,           sizeof(int8_t)),
    [QTYPE_I16]    = DATA(i16,        25,           sizeof(int16_t)),
    [QTYPE_I32]    = DATA(i32,        26,           sizeof(int32_t)),
    [QTYPE_I64]    = DATA(i64,        27,           sizeof(int64_t)),
    [QTYPE_F64]    = DATA(f64,        28,           sizeof(double)),
};
/* clang-format on */

const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

int code_nearest(const struct code_grid *g, int part, float x)
{
    const float scale = g->scale[part], v = scale != 0 ? (x - g->offset[part]) / scale : 0;
    if (!g->book)
        return (int)rintf(v > (float)g->lo ? (v < (float)g->hi ? v : (float)g->hi) : (float)g->lo);
    int code = g->lo;
    while (code < g->hi && 2 * v > (float)(g->book[code] + g->book[code + 1]))
        code++;
    return code;
}

int qtype_by_name(const char *name)
{
    for (int t = 0; t < QTYPE_COUNT; t++)
        if (strcasecmp(qtypes[t].name, name) == 0)
            return t;
    return -1;
}

int qtype_by_gguf_id(uint32_t id)
{
    for (int t = 0; t < QTYPE_COUNT; t++)
        if (qtypes[t].gguf_id >= 0 && (uint32_t)qtypes[t].gguf_id == id)
            return t;
    return -1;
}

enum qtype qtype_for_rows(enum qtype t, int64_t row_len)
{
    static const enum qtype of_32[QTYPE_COUNT] = {
        [QTYPE_Q2_K] = QTYPE_Q4_0,     [QTYPE_Q3_K] = QTYPE_Q4_0,    [QTYPE_Q4_K] = QTYPE_Q5_0,
        [QTYPE_Q5_K] = QTYPE_Q5_1,     [QTYPE_Q6_K] = QTYPE_Q8_0,    [QTYPE_IQ4_XS] = QTYPE_IQ4_NL,
        [QTYPE_IQ1_S] = QTYPE_IQ4_NL,  [QTYPE_IQ1_M] = QTYPE_IQ4_NL, [QTYPE_IQ2_XXS] = QTYPE_IQ4_NL,
        [QTYPE_IQ2_XS] = QTYPE_IQ4_NL, [QTYPE_IQ2_S] = QTYPE_IQ4_NL, [QTYPE_IQ3_XXS] = QTYPE_IQ4_NL,
        [QTYPE_IQ3_S] = QTYPE_IQ4_NL,  [QTYPE_TQ1_0] = QTYPE_Q4_0,   [QTYPE_TQ2_0] = QTYPE_Q4_0,
        [QTYPE_NVFP4] = QTYPE_Q4_0,
    };
    if (row_len % qtypes[t].block_len == 0)
        return t;
    return of_32[t] != QTYPE_F32 && row_len % qtypes[of_32[t]].block_len == 0 ? of_32[t] : QTYPE_F16;
}

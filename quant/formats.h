/* Inside quant/: what every format's file gives the table in qtypes.c, and the shapes, with quant.h's
 * struct block_256, to which all formats unpack. A format's file
 * holds its drawing, its unpacking and its packing; what is done with the numbers is written once, in
 * blocks.h (dequantise, dot) and fit.c (the search for the best scales). */
#ifndef QUOLL_QUANT_FORMATS_H
#define QUOLL_QUANT_FORMATS_H

#include "quant/quant.h"

/* A block of 32 unpacked: x = d q, or d q + m where the format has a minimum. */
struct block_32 {
    float d, m;
    int8_t q[32]; /* the zero point is already subtracted */
};

/* A block of 32 of asymmetric integers: x = d (q − zero). Of 8 bits, q − zero needs nine. */
struct block_zero {
    float d;
    int zero;
    uint8_t q[32];
};

/* The table's to_f32, quantise and dot. */
#define QTYPE_FUNCTIONS(type)                                                            \
    void type##_decode(float *dst, const void *src, int64_t n);                          \
    void type##_encode(void *dst, const float *src, const float *importance, int64_t n); \
    float type##_dot(const void *row, const void *x, int64_t n)

QTYPE_FUNCTIONS(f32);
QTYPE_FUNCTIONS(f16);
QTYPE_FUNCTIONS(bf16);

/* Types whose codes can be set one by one, and (INT types) whose blocks can share their scales. */
#define QTYPE_CODE_FUNCTIONS(type)                            \
    QTYPE_FUNCTIONS(type);                                    \
    void type##_grid(struct code_grid *g, const void *block); \
    void type##_set_codes(void *block, const int16_t *code)
#define QTYPE_GROUP_FUNCTIONS(type) \
    QTYPE_CODE_FUNCTIONS(type);     \
    void type##_encode_group(void *dst, const float *src, const float *importance, int64_t n, uint8_t *codes)

QTYPE_CODE_FUNCTIONS(q4_0);
QTYPE_CODE_FUNCTIONS(q4_1);
QTYPE_CODE_FUNCTIONS(q5_0);
QTYPE_CODE_FUNCTIONS(q5_1);
QTYPE_CODE_FUNCTIONS(q8_0);
QTYPE_CODE_FUNCTIONS(q2_k);
QTYPE_CODE_FUNCTIONS(q3_k);
QTYPE_CODE_FUNCTIONS(q4_k);
QTYPE_CODE_FUNCTIONS(q5_k);
QTYPE_CODE_FUNCTIONS(q6_k);
QTYPE_CODE_FUNCTIONS(iq4_nl);
QTYPE_CODE_FUNCTIONS(iq4_xs);
QTYPE_GROUP_FUNCTIONS(int2z);
QTYPE_GROUP_FUNCTIONS(int3z);
QTYPE_GROUP_FUNCTIONS(int4z);
QTYPE_GROUP_FUNCTIONS(int8z);

/* Types whose super-blocks only their own file unpacks. */
#define QTYPE_UNPACK_FUNCTIONS(type) \
    QTYPE_FUNCTIONS(type);           \
    void type##_unpack(struct block_256 *b, const void *block)

QTYPE_UNPACK_FUNCTIONS(iq1_s);
QTYPE_UNPACK_FUNCTIONS(iq1_m);
QTYPE_UNPACK_FUNCTIONS(iq2_xxs);
QTYPE_UNPACK_FUNCTIONS(iq2_xs);
QTYPE_UNPACK_FUNCTIONS(iq2_s);
QTYPE_UNPACK_FUNCTIONS(iq3_xxs);
QTYPE_UNPACK_FUNCTIONS(iq3_s);
QTYPE_UNPACK_FUNCTIONS(tq1_0);
QTYPE_UNPACK_FUNCTIONS(tq2_0);
QTYPE_FUNCTIONS(mxfp4);
QTYPE_FUNCTIONS(nvfp4);

/* The 12 bytes of 6-bit (scale, min) pairs that Q4_K and Q5_K share; drawn in q4_k.c. */
static inline void q4_k_unpack_scales(struct block_256 *b, const uint8_t bytes[12])
{
    for (int i = 0; i < 16; i++) {
        uint8_t scale;
        q4_k_scale_min(bytes, i / 2, &scale, &b->min[i]);
        b->scale[i] = (int8_t)scale;
    }
}

static inline void q4_k_pack_scales(uint8_t bytes[12], const struct block_256 *b)
{
    for (int j = 0; j < 4; j++) {
        int s = b->scale[2 * j], m = b->min[2 * j], s4 = b->scale[2 * (j + 4)], m4 = b->min[2 * (j + 4)];
        bytes[j] = (uint8_t)(s | s4 >> 4 << 6);
        bytes[4 + j] = (uint8_t)(m | m4 >> 4 << 6);
        bytes[8 + j] = (uint8_t)((s4 & 15) | (m4 & 15) << 4);
    }
}

/* The index of the code book's value q. */
static inline int iq4_index(int8_t q)
{
    int i = 0;
    while (i < 15 && iq4_values[i] < q)
        i++;
    return i;
}

/* … of fp4_values. */
static inline int fp4_index(int8_t q)
{
    int i = 0;
    while (fp4_values[i] != (q < 0 ? -q : q))
        i++;
    return q < 0 ? i + 8 : i;
}

#endif

/* quant/: tensor types, their block formats and the 8-bit activation format.
 *
 * One table, qtypes[], says everything the other rooms need to know about a type. The block
 * layouts are those of the GGUF specification (ggml's block formats), little-endian, bit for bit; those of
 * the INT types, which no file has, are ours. */
#ifndef QUOLL_QUANT_H
#define QUOLL_QUANT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum qtype {
    QTYPE_F32,
    QTYPE_F16,
    QTYPE_BF16,
    QTYPE_Q4_0,
    QTYPE_Q4_1,
    QTYPE_Q5_0,
    QTYPE_Q5_1,
    QTYPE_Q8_0,
    QTYPE_Q2_K,
    QTYPE_Q3_K,
    QTYPE_Q4_K,
    QTYPE_Q5_K,
    QTYPE_Q6_K,
    QTYPE_IQ4_NL,
    QTYPE_IQ4_XS,
    QTYPE_IQ1_S,
    QTYPE_IQ1_M,
    QTYPE_IQ2_XXS,
    QTYPE_IQ2_XS,
    QTYPE_IQ2_S,
    QTYPE_IQ3_XXS,
    QTYPE_IQ3_S,
    QTYPE_TQ1_0,
    QTYPE_TQ2_0,
    QTYPE_MXFP4,
    QTYPE_NVFP4,
    QTYPE_INT2Z, /* what GPTQ and AWQ checkpoints become: integers with a scale and a zero point */
    QTYPE_INT3Z,
    QTYPE_INT4Z,
    QTYPE_INT8Z,
    QTYPE_N_MATRIX, /* the types above can be weights of a matrix product; those below only hold data */
    QTYPE_I8 = QTYPE_N_MATRIX,
    QTYPE_I16,
    QTYPE_I32,
    QTYPE_I64,
    QTYPE_F64,
    QTYPE_COUNT
};

enum {
    ACT_LEN = 32,   /* activations per block of struct act_block */
    QK_K = 256,     /* elements of a k-quant super-block, and of a chunk of a sum over K */
    CHUNK_LEN = 256 /* numerics contract, rule 2 */
};

/* Block formats: GGUF's, byte for byte. d, m, dmin are IEEE half floats. */
struct block_q4_0 {
    uint16_t d;
    uint8_t qs[16];
}; /* x = d (q - 8); low nibbles are elements 0–15 */
struct block_q4_1 {
    uint16_t d, m;
    uint8_t qs[16];
}; /* x = d q + m */
struct block_q5_0 {
    uint16_t d;
    uint8_t qh[4], qs[16];
}; /* x = d (q - 16); bit j of qh is bit 4 of element j */
struct block_q5_1 {
    uint16_t d, m;
    uint8_t qh[4], qs[16];
}; /* x = d q + m */
struct block_q8_0 {
    uint16_t d;
    int8_t qs[32];
}; /* x = d q */
struct block_q2_k {
    uint8_t scales[16], qs[64];
    uint16_t d, dmin;
};
struct block_q3_k {
    uint8_t hmask[32], qs[64], scales[12];
    uint16_t d;
};
struct block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12], qs[128];
};
struct block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12], qh[32], qs[128];
};
struct block_q6_k {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint16_t d;
};
struct block_iq4_nl {
    uint16_t d;
    uint8_t qs[16];
}; /* x = d iq4_values[q] */
struct block_iq4_xs {
    uint16_t d, scales_h;
    uint8_t scales_l[4], qs[128];
};

struct block_iq1_s {
    uint16_t d;
    uint8_t qs[32];
    uint16_t qh[8];
};
struct block_iq1_m {
    uint8_t qs[32], qh[16];
    uint16_t scales[4];
};
struct block_iq2_xxs {
    uint16_t d;
    uint8_t qs[64];
};
struct block_iq2_xs {
    uint16_t d, qs[32];
    uint8_t scales[8];
};
struct block_iq2_s {
    uint16_t d;
    uint8_t qs[32], signs[32], qh[8], scales[8];
};
struct block_iq3_xxs {
    uint16_t d;
    uint8_t qs[64], signs[32];
};
struct block_iq3_s {
    uint16_t d;
    uint8_t qs[64], qh[8], signs[32], scales[4];
};
struct block_tq1_0 {
    uint8_t qs[48], qh[4];
    uint16_t d;
};
struct block_tq2_0 {
    uint8_t qs[64];
    uint16_t d;
};
struct block_mxfp4 {
    uint8_t e, qs[16];
}; /* x = 2^(e − 128) fp4_values[q] */
struct block_nvfp4 {
    uint8_t d[4], qs[32];
}; /* 64 elements: x = d / 2 fp4_values[q], d per 16 */

/* Asymmetric integers: x = d (q − zero), q = 0 … 2^bits − 1, zero = 0 … 2^bits, which GPTQ's zeros plus one
 * can reach. d is a half float. Packed: blocks of an odd size follow each other without gaps. */
struct __attribute__((packed)) block_int2z {
    uint16_t d;
    uint8_t zero, q[8]; /* bits 2 s, 2 s + 1 of q[i]: element 8 s + i */
};
struct __attribute__((packed)) block_int3z {
    uint16_t d;
    uint8_t zero, q[8], qh[4]; /* q: bits 0–1 as above; bit j of qh is bit 2 of element j */
};
struct __attribute__((packed)) block_int4z {
    uint16_t d;
    uint8_t zero, q[16]; /* low nibbles are elements 0–15 */
};
struct __attribute__((packed)) block_int8z {
    uint16_t d, zero;
    uint8_t q[32];
};

extern const int8_t iq4_values[16]; /* the non-linear 4-bit code book, −127 … 113 */

extern const int8_t
    fp4_values[16]; /* twice the 4-bit floats E2M1: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives */

/* A super-block of 256 unpacked: x = d scale q, or d scale q − dmin min where the format has minima.
 * scale and min belong to 16 elements; formats with sub-blocks of 32 repeat theirs. */
struct block_256 {
    float d, dmin;
    int8_t scale[16];
    uint8_t min[16];
    int8_t q[256]; /* the zero point is already subtracted */
};

/* Activations of quantised products (numerics contract, rule 3): x ≈ d q. */
struct act_block {
    float d;        /* amax / 127; NaN when an input is not finite; 0 when amax < 2⁻¹⁰⁰ */
    float ds;       /* d · (float)(sum[0] + sum[1]) */
    int16_t sum[2]; /* Σ q[0…15], Σ q[16…31] */
    int16_t unused[2];
    int8_t q[ACT_LEN];
};

/* What the codes of a block stand for, its scales given: x[i] = scale[i / 16] q + offset[i / 16], q = lo … hi
 * or, with a code book, book[q]. */
struct code_grid {
    float scale[16], offset[16];
    int lo, hi;
    const int8_t *book;
};

struct qtype_info {
    const char *name; /* as users type it: "q4_k" */
    int gguf_id;      /* GGUF's tensor type number, −1: none */
    int block_len;    /* elements per block */
    int block_bytes;  /* bytes per block */
    /* n elements, a multiple of block_len; src and dst need no alignment. */
    void (*to_f32)(float *dst, const void *src, int64_t n);
    /* Least squared error, each element's weighed by its importance (n of them, finite, at least 0; NULL: all
     * the same). In block types a NaN or an infinite value makes its block NaN; values beyond what a
     * half-float scale can reach (65504 × codes) saturate. The same bits on every CPU. */
    void (*quantise)(void *dst, const float *src, const float *importance, int64_t n);
    /* quantise without importances. */
    void (*from_f32)(void *dst, const float *src, int64_t n);
    /* For methods that choose codes themselves (GPTQ); NULL: types without such codes. A block's grid, and
     * other codes (block_len of them, lo … hi) in it. */
    void (*grid)(struct code_grid *g, const void *block);
    void (*set_codes)(void *block, const int16_t *code);
    /* quantise, n elements sharing one scale and zero point; codes: room for n. INT types; else NULL. */
    void (*quantise_group)(void *dst, const float *src, const float *importance, int64_t n, uint8_t *codes);
    /* Dot product of one row of n weights as the file has them, in the numerics contract's order:
     * x is float[n] when x_is_f32, else struct act_block[n / ACT_LEN]. */
    float (*dot)(const void *row, const void *x, int64_t n);
    /* Super-blocks whose layout only their own file knows (IQ1, IQ2, IQ3, TQ): one block to integers. No type
     * of these has minima. NULL: all others. */
    void (*unpack)(struct block_256 *b, const void *block);
    bool x_is_f32; /* F32, F16, BF16: activations stay float */
};

/* One row per type, indexed by enum qtype. Types past QTYPE_N_MATRIX have NULL functions. */
extern const struct qtype_info qtypes[QTYPE_COUNT];

/* The type with this name (case-insensitive, "Q4_K" or "q4_k") or GGUF number; −1: none. */
int qtype_by_name(const char *name);
int qtype_by_gguf_id(uint32_t id);

/* t where rows of row_len elements can have it, else what llama.cpp's quantize takes instead: a type of
 * blocks of 32 (Q4_K: Q5_0), where those do not divide the row either F16. */
enum qtype qtype_for_rows(enum qtype t, int64_t row_len);

/* The code of sub-block `part` (16 elements) nearest to x; NaN: some code. */
int code_nearest(const struct code_grid *g, int part, float x);
static inline float code_value(const struct code_grid *g, int part, int code)
{
    return g->scale[part] * (float)(g->book ? g->book[code] : code) + g->offset[part];
}

/* Bytes of n elements, a multiple of block_len. */
static inline int64_t qtype_bytes(enum qtype t, int64_t n)
{
    return n / qtypes[t].block_len * qtypes[t].block_bytes;
}

/* IEEE half and bfloat16. From float: round to nearest even, NaN stays NaN (quiet). */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

/* Half of the scales of MXFP4 (a power of two) and of NVFP4 (E4M3 without a sign): fp4_values are doubled. */
static inline float e8m0_half_to_f32(uint8_t e)
{
    uint32_t bits = e == 0 ? 0x00200000u : e == 1 ? 0x00400000u : (e - 1u) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float e4m3_half_to_f32(uint8_t e)
{
    uint32_t bits = (e & 0x7fu) << 20; /* a float with a too small exponent, denormals included */
    float f;
    memcpy(&f, &bits, sizeof f);
    return e == 0x7f ? 0 : f * 0x1p119f; /* 0x7f is NaN, which no scale is */
}

/* n elements of a type that can be a matrix's weights, a multiple of block_len, at random: finite, every
 * block on both sides of zero with a largest magnitude of 0.02 … 0.2. The same state (any number) gives the
 * same blocks and ends as another one. The first 8192 elements are drawn, the others repeat their blocks at
 * random. dst needs no alignment. */
void qtype_random(enum qtype t, void *dst, int64_t n, uint64_t *state);

/* x[n] -> dst[n / ACT_LEN]; n a multiple of ACT_LEN. The scalar reference of rule 3. */
void act_quantise(struct act_block *dst, const float *x, int64_t n);

/* The 6-bit (scale, min) pair of sub-block j = 0…7 of Q4_K's and Q5_K's 12 scale bytes. */
static inline void q4_k_scale_min(const uint8_t s[12], int j, uint8_t *scale, uint8_t *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6 << 4));
        *min = (uint8_t)((s[j + 4] >> 4) | (s[j] >> 6 << 4));
    }
}

#endif

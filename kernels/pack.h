/* Packed weights: private to kernels/.
 *
 * A matrix is cut in tiles of 16 rows, a tile in chunks of 256 columns (the last one may be shorter), a
 * chunk in blocks of 32 columns. SIMD lanes are rows, so what 16 rows need at the same time lies
 * together. Inside a block the columns form 8 groups of four; a group is 64 bytes, four per row:
 *
 *     group g:   byte 4r + i  =  row r, column 4g + i            (r = 0…15, i = 0…3)
 *
 * which is the operand of one 512-bit (two 256-bit) byte dot product. Codes of fewer than 8 bits are
 * stored as planes that expand to such groups with a shift and a mask:
 *
 *     8 bits   8 × 64 bytes    group g as it is
 *     4 bits   4 × 64 bytes    plane v: low nibble = group v, high nibble = group v + 4
 *     2 bits   2 × 64 bytes    plane h: bits 2s, 2s+1 = group 4h + s
 *     1 bit    1 × 64 bytes    bit g = group g
 *
 * A chunk is the sections below one after another, each for all its blocks; its bytes are exactly those
 * of 16 rows in the file:
 *
 *     low    8-, 4- or 2-bit planes                         per block of 32
 *     high   2- or 1-bit planes (upper bits of the codes)   per block of 32
 *     codes  zero points of asymmetric integers: bytes [16] (of 8-bit types words [16]) per block; or
 *            integer scales (and minima) of k-quants        8-bit:  [n][16]
 *                6-bit: [n/2][16] low nibble of code j | of code j + n/2 << 4,
 *                       [n/4][16] upper two bits of codes j, j + n/4, j + n/2, j + 3n/4
 *     d      half floats or bytes [16], per block, per half of one or per chunk
 *     m      likewise: the minima's scale
 *
 * Codes are unsigned; a weight is code − zero (types with a code book: table[code], decoded to table[code] +
 * zero; asymmetric integers: code − their own zero point).
 * F32, F16 and BF16 have one section: [column][16] elements. Types of code books and of base 3
 * (FIELD_FORMATS) keep the fields of their blocks, cut in pieces of 1, 2 or 4 bytes: [piece][16]. Their
 * chunks are one block of each row, so the field at byte n of a block begins at byte 16 n of the chunk. */
#ifndef QUOLL_PACK_H
#define QUOLL_PACK_H

#include "kernels/kernels.h"

/* One more whenever anything above changes for any type (ops->packed_layout): files of packed weights
 * (model/pack_cache.h) are then made anew. */
enum { PACK_LAYOUT = 2 };

/* The kernels' loops take a type's format as an argument and fold it away once inlined. Under sanitizers and
 * emulation (QUOLL_SMALL_KERNELS), where that takes minutes to compile, they stay functions. */
#ifdef QUOLL_SMALL_KERNELS
#define INLINE static __attribute__((unused))
#else
#define INLINE static inline __attribute__((always_inline))
#endif

enum {
    CHUNK_BLOCKS = CHUNK_LEN / ACT_LEN,
    GROUPS = ACT_LEN / 4, /* groups of four columns in a block */
    GROUP_BYTES = 4 * TILE_ROWS,
    MAX_CODES = 16,
    FP4_ZERO = 12, /* fp4_values + 12 are 0 … 24: five bits */
};

/* How scales apply; each has its own order of the sum (docs/numerics.md, rule 2). */
enum scale_kind {
    SCALE_NONE,        /* float types */
    SCALE_BLOCK,       /* d per 32 */
    SCALE_BLOCK_MIN,   /* d and m per 32 */
    SCALE_BLOCK_ZERO,  /* d and a zero point per 32 */
    SCALE_BLOCK16,     /* d per 16 */
    SCALE_SUPER32,     /* d per 256, integer scale per 32 (formats without integer codes: 1) */
    SCALE_SUPER32_MIN, /* and dmin, integer minima */
    SCALE_SUPER16,     /* d per 256, integer scale per 16 */
    SCALE_SUPER16_MIN,
};

/* What d is: a half float, or a byte that is a power of two (E8M0) or a small float (E4M3). */
enum scale_format { D_F16, D_E8M0, D_E4M3 };

/* One row's part of a chunk, as the file's block says it: codes in column order. */
struct row_chunk {
    uint8_t q[CHUNK_LEN];
    uint8_t code[MAX_CODES];
    uint16_t d[2 * CHUNK_BLOCKS]; /* k-quants use the first */
    uint16_t m[CHUNK_BLOCKS];     /* likewise; or zero points */
};

struct pack_format {
    enum scale_kind scales;
    enum scale_format d;
    int low_bits, high_bits; /* of a code; float types: bytes per element in low_bits / 8 */
    int zero;                /* weight = code − zero; 0 where rows have zero points of their own */
    const int8_t *code_book; /* decoded, a code is code_book[code] + zero; NULL: itself */
    int n_codes,
        code_bits; /* integer scales then minima (Q2_K: both in one byte); zero points: one a block */
    int code_zero; /* scale = code − code_zero (Q6_K: the code is a signed byte) */
    /* n_blocks blocks of 32 columns, in the file's layout, to and from r. */
    void (*read)(struct row_chunk *r, const void *src, int n_blocks);
    void (*write)(void *dst, const struct row_chunk *r, int n_blocks);
};

/* The quantised types, once: for the table, and as constants for the kernels.
 *   type, row functions, scales, d, low bits, high bits, zero, code book, codes, code bits, code zero */
#define PACK_FORMATS(X)                                                         \
    X(Q4_0, q4_0, SCALE_BLOCK, D_F16, 4, 0, 8, NULL, 0, 0, 0)                   \
    X(Q4_1, q4_1, SCALE_BLOCK_MIN, D_F16, 4, 0, 0, NULL, 0, 0, 0)               \
    X(Q5_0, q5_0, SCALE_BLOCK, D_F16, 4, 1, 16, NULL, 0, 0, 0)                  \
    X(Q5_1, q5_1, SCALE_BLOCK_MIN, D_F16, 4, 1, 0, NULL, 0, 0, 0)               \
    X(Q8_0, q8_0, SCALE_BLOCK, D_F16, 8, 0, 128, NULL, 0, 0, 0)                 \
    X(Q2_K, q2_k, SCALE_SUPER16_MIN, D_F16, 2, 0, 0, NULL, 16, 8, 0)            \
    X(Q3_K, q3_k, SCALE_SUPER16, D_F16, 2, 1, 4, NULL, 16, 6, 32)               \
    X(Q4_K, q4_k, SCALE_SUPER32_MIN, D_F16, 4, 0, 0, NULL, 16, 6, 0)            \
    X(Q5_K, q5_k, SCALE_SUPER32_MIN, D_F16, 4, 1, 0, NULL, 16, 6, 0)            \
    X(Q6_K, q6_k, SCALE_SUPER16, D_F16, 4, 2, 32, NULL, 16, 8, 0)               \
    X(IQ4_NL, q4_0, SCALE_BLOCK, D_F16, 4, 0, 128, iq4_values, 0, 0, 0)         \
    X(IQ4_XS, iq4_xs, SCALE_SUPER32, D_F16, 4, 0, 128, iq4_values, 8, 6, 32)    \
    X(TQ2_0, tq2_0, SCALE_SUPER32, D_F16, 2, 0, 1, NULL, 0, 0, 0)               \
    X(MXFP4, mxfp4, SCALE_BLOCK, D_E8M0, 4, 0, FP4_ZERO, fp4_values, 0, 0, 0)   \
    X(NVFP4, nvfp4, SCALE_BLOCK16, D_E4M3, 4, 0, FP4_ZERO, fp4_values, 0, 0, 0) \
    X(INT2Z, int2z, SCALE_BLOCK_ZERO, D_F16, 2, 0, 0, NULL, 1, 8, 0)            \
    X(INT3Z, int3z, SCALE_BLOCK_ZERO, D_F16, 2, 1, 0, NULL, 1, 8, 0)            \
    X(INT4Z, int4z, SCALE_BLOCK_ZERO, D_F16, 4, 0, 0, NULL, 1, 8, 0)            \
    X(INT8Z, int8z, SCALE_BLOCK_ZERO, D_F16, 8, 0, 0, NULL, 1, 16, 0)

/* Types that are packed as the fields of their blocks; quant/ draws these, and qtypes[].unpack reads them.
 * Decoded, their codes have so many bits, and a weight is code − zero.
 *   type, scales, bits, zero, fields: bytes and the size of the pieces that rows take turns in */
#define GRID_FORMATS(X)                                             \
    X(IQ1_S, SCALE_SUPER32, 5, 9, {2, 2}, {32, 4}, {16, 2})         \
    X(IQ1_M, SCALE_SUPER16, 5, 9, {32, 4}, {16, 2}, {8, 2})         \
    X(IQ2_XXS, SCALE_SUPER32, 7, 64, {2, 2}, {64, 4})               \
    X(IQ2_XS, SCALE_SUPER16, 7, 64, {2, 2}, {64, 4}, {8, 1})        \
    X(IQ2_S, SCALE_SUPER16, 7, 64, {2, 2}, {64, 4}, {8, 1}, {8, 1}) \
    X(IQ3_XXS, SCALE_SUPER32, 7, 64, {2, 2}, {96, 4})               \
    X(IQ3_S, SCALE_SUPER32, 5, 15, {2, 2}, {64, 4}, {8, 1}, {32, 4}, {4, 1})
#define FIELD_FORMATS(X) GRID_FORMATS(X) X(TQ1_0, SCALE_SUPER32, 2, 1, {52, 4}, {2, 2})

struct pack_field {
    uint8_t bytes, piece;
};
enum { MAX_FIELDS = 5 };

extern const struct pack_format pack_formats[QTYPE_N_MATRIX];
/* FIELD_FORMATS'; of all others the first has no bytes. */
extern const struct pack_field pack_fields[QTYPE_N_MATRIX][MAX_FIELDS];

/* Where the codes of group g lie among planes of `bits` bits: in the bits from plane_shift on of each byte of
 * plane plane_of. This and the drawing above are all that is said about it. */
static inline int plane_of(int bits, int g)
{
    return bits == 8 ? g : bits == 4 ? g % 4 : bits == 2 ? g / 4 : 0;
}

static inline int plane_shift(int bits, int g)
{
    return bits == 8 ? 0 : bits == 4 ? g / 4 * 4 : bits == 2 ? g % 4 * 2 : g;
}

/* The sections of a chunk of n_blocks blocks of 32 columns. */
struct chunk_view {
    const uint8_t *low, *high, *codes, *d;
    const uint16_t *m; /* d and m may be unaligned to 64, halves never to 2 */
};

/* How many bits a decoded code has. */
static inline int decoded_bits(const struct pack_format *f)
{
    return f->code_book ? (f->zero == FP4_ZERO ? 5 : 8) : f->low_bits + f->high_bits;
}

static inline bool scales_are_super(enum scale_kind k)
{
    return k >= SCALE_SUPER32;
}

static inline bool scales_have_min(enum scale_kind k)
{
    return k == SCALE_BLOCK_MIN || k == SCALE_SUPER32_MIN || k == SCALE_SUPER16_MIN;
}

/* Formats without minima have one zero point for all weights (or, SCALE_BLOCK_ZERO, points of their own). */
static inline bool scales_have_zero(enum scale_kind k)
{
    return !scales_have_min(k) && k != SCALE_BLOCK_ZERO;
}

static inline bool scales_by_16(enum scale_kind k)
{
    return k == SCALE_BLOCK16 || k == SCALE_SUPER16 || k == SCALE_SUPER16_MIN;
}

/* How many d (and m) n blocks have. */
static inline int n_scales(enum scale_kind k, int n_blocks)
{
    return scales_are_super(k) ? 1 : k == SCALE_BLOCK16 ? 2 * n_blocks : n_blocks;
}

static inline int d_bytes(const struct pack_format *f)
{
    return f->d == D_F16 ? 2 : 1;
}

static inline struct chunk_view chunk_view(const struct pack_format *f, const uint8_t *chunk, int n_blocks)
{
    struct chunk_view v;
    v.low = chunk;
    v.high = v.low + (size_t)n_blocks * GROUP_BYTES * (size_t)f->low_bits;
    v.codes = v.high + (size_t)n_blocks * GROUP_BYTES * (size_t)f->high_bits;
    int n_codes = f->scales == SCALE_BLOCK_ZERO ? n_blocks : f->n_codes;
    v.d = v.codes + n_codes * f->code_bits * TILE_ROWS / 8;
    v.m = (const uint16_t *)(const void *)(v.d + n_scales(f->scales, n_blocks) * d_bytes(f) * TILE_ROWS);
    return v;
}

/* Bytes of a tile's first n_cols columns, n_cols a multiple of the type's block length. Chunks before the
 * last are whole, so this is also the offset of the chunk that begins at n_cols. */
static inline int64_t tile_offset(enum qtype t, int64_t n_cols)
{
    return TILE_ROWS * qtype_bytes(t, n_cols);
}

/* Columns of the chunk that begins at column k. */
static inline int chunk_cols(const struct packed *p, int64_t k)
{
    return (int)(p->cols - k < CHUNK_LEN ? p->cols - k : CHUNK_LEN);
}

enum {
    MAX_ROW_CHUNK_BYTES = CHUNK_LEN * sizeof(float),
    MAX_CHUNK_BYTES = TILE_ROWS * MAX_ROW_CHUNK_BYTES,
};

/* Packs n_cols columns of n_rows rows that lie row_bytes apart; rows past n_rows are left alone. */
void pack_chunk(uint8_t *dst, enum qtype type, const uint8_t *src, int64_t row_bytes, int n_rows, int n_cols);
/* The chunk at column `col` of a view's tile, packed into the buffer. */
const uint8_t *pack_view_chunk(uint8_t buffer[MAX_CHUNK_BYTES], const struct packed *p, int64_t tile,
                               int64_t col);

/* One row's block of a chunk of FIELD_FORMATS. */
void pack_fields_read(void *dst, enum qtype type, const uint8_t *chunk, int row);
/* The chunk at column `col` of one row in the file's layout: the inverse of packing. */
void pack_unpack(void *dst, const struct packed *p, int64_t row, int64_t col);
/* One whole row, dequantised. */
void pack_row_to_f32(float *dst, const struct packed *p, int64_t row);

int cpu_packed_alloc(struct packed *p, enum qtype type, int64_t rows, int64_t cols);
int cpu_packed_lend(struct packed *p, enum qtype type, int64_t rows, int64_t cols);
void cpu_packed_release(struct packed *p);
void cpu_packed_view(struct packed *p, enum qtype type, int64_t rows, int64_t cols, const void *src);
void cpu_pack(struct packed *p, int64_t row0, int64_t n_rows, const void *src);

#endif

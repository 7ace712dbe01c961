/* A lane's share of packed weights: one row of one chunk (cuda.h draws the layout), from memory to bytes that
 * integer dot products take, with the scales beside them. */
#ifndef QUOLL_CUDA_DECODE_CUH
#define QUOLL_CUDA_DECODE_CUH

#include "kernels/cuda/state.cuh"

enum book { BOOK_NONE, BOOK_IQ4, BOOK_FP4 };

/* A format's facts, as pack.h's table has them. */
struct format {
    bool is_float, is_fields;
    enum scale_kind scales;
    enum scale_format d;
    int low, high; /* bits of a code */
    int zero;      /* subtracted from what block() gives: 0 where that is signed already */
    enum book code_book;
    int n_codes, code_bits, code_zero;
};

__host__ __device__ constexpr struct format quantised_format(enum scale_kind scales, enum scale_format d, int low, int high, int zero,
                                         int n_codes, int code_bits, int code_zero)
{
    const enum book book = low == 4 && zero == 128        ? BOOK_IQ4
                           : low == 4 && zero == FP4_ZERO ? BOOK_FP4
                                                          : BOOK_NONE;
    return {false, false,   scales,    d,        low, high, book != BOOK_NONE || low == 8 ? 0 : zero,
            book,  n_codes, code_bits, code_zero};
}

__host__ __device__ constexpr struct format format_of(int type)
{
    switch (type) {
#define QUANTISED(TYPE, fn, scales, d, low, high, zero, book, n_codes, code_bits, code_zero) \
    case QTYPE_##TYPE:                                                                       \
        return quantised_format(scales, d, low, high, zero, n_codes, code_bits, code_zero);
        PACK_FORMATS(QUANTISED)
#define FIELDS(TYPE, scales, bits, zero, ...) \
    case QTYPE_##TYPE:                        \
        return {false, true, scales, D_F16, bits, 0, QTYPE_##TYPE == QTYPE_TQ1_0 ? 1 : 0, BOOK_NONE, 0, 0, 0};
        FIELD_FORMATS(FIELDS)
    default:
        return {true, false, SCALE_NONE, D_F16, 0, 0, 0, BOOK_NONE, 0, 0, 0};
    }
}

/* pack.h's, for constants. */
__host__ __device__ constexpr bool is_super(enum scale_kind k)
{
    return k >= SCALE_SUPER32;
}
__host__ __device__ constexpr bool has_min(enum scale_kind k)
{
    return k == SCALE_BLOCK_MIN || k == SCALE_SUPER32_MIN || k == SCALE_SUPER16_MIN;
}
__host__ __device__ constexpr bool by_16(enum scale_kind k)
{
    return k == SCALE_BLOCK16 || k == SCALE_SUPER16 || k == SCALE_SUPER16_MIN;
}

/* ---- Pieces of memory ----------------------------------------------------------------------------- */

/* n ≤ 8 halves that begin at a multiple of 2 bytes (of 16 when there are 8), two in a word. */
DEVICE void load_halves(uint32_t x[4], const uint8_t *p, int n)
{
    if (n == 8) {
        const word4 v = load_once<word4>(p);
        for (int i = 0; i < 4; i++)
            x[i] = v.v[i];
        return;
    }
    for (int i = 0; i < 4; i++) {
        x[i] = 2 * i < n ? load_once<uint16_t>(p + 4 * i) : 0;
        if (2 * i + 1 < n)
            x[i] |= (uint32_t)load_once<uint16_t>(p + 4 * i + 2) << 16;
    }
}

/* n ≤ 16 bytes; 8 or 16 begin at a multiple of their number. */
DEVICE void load_bytes(uint32_t x[4], const uint8_t *p, int n)
{
    if (n == 16) {
        const word4 v = load_once<word4>(p);
        for (int i = 0; i < 4; i++)
            x[i] = v.v[i];
    } else if (n == 8) {
        const word2 v = load_once<word2>(p);
        x[0] = v.v[0];
        x[1] = v.v[1];
    } else {
        x[0] = x[1] = x[2] = x[3] = 0;
        for (int i = 0; i < 16; i++)
            if (i < n)
                x[i / 4] |= (uint32_t)p[i] << i % 4 * 8;
    }
}

DEVICE float half_at(const uint32_t *x, int i)
{
    return half_to_float((uint16_t)(x[i / 2] >> i % 2 * 16));
}

DEVICE int byte_at(const uint32_t *x, int i)
{
    return (int)(x[i / 4] >> i % 4 * 8 & 255);
}

DEVICE int count_ones(uint32_t x)
{
#ifdef QUOLL_CUDA_HOST
    return __builtin_popcount(x);
#else
    return __popc(x);
#endif
}

/* The row's bytes of block b's planes: `bits` words. */
template <int BITS> DEVICE void load_planes(uint32_t *x, const uint8_t *planes, int b, int row)
{
    const uint8_t *p = planes + b * TILE_ROWS * 4 * BITS;
    if constexpr (BITS == 8) {
        for (int h = 0; h < 2; h++) {
            const word4 v = load_once<word4>(p + h * 16 * TILE_ROWS + row * 16);
            for (int i = 0; i < 4; i++)
                x[4 * h + i] = v.v[i];
        }
    } else if constexpr (BITS == 4) {
        const word4 v = load_once<word4>(p + row * 16);
        for (int i = 0; i < 4; i++)
            x[i] = v.v[i];
    } else if constexpr (BITS == 2) {
        const word2 v = load_once<word2>(p + row * 8);
        x[0] = v.v[0];
        x[1] = v.v[1];
    } else {
        x[0] = load_once<uint32_t>(p + row * 4);
    }
}

/* ---- Code books ------------------------------------------------------------------------------------ */

/* Low nibbles of x's bytes are four indices, high nibbles four more: their entries. */
DEVICE void look_up(uint32_t *low, uint32_t *high, uint32_t x, const uint32_t book[4])
{
    uint32_t part[2];
    for (int i = 0; i < 2; i++) {
        const uint32_t index = x >> 16 * i, three = index & 0x7777;
        part[i] = pick_bytes(pick_bytes(book[0], book[1], three), pick_bytes(book[2], book[3], three),
                             0x3210 | (index & 0x8888) >> 1);
    }
    *low = pick_bytes(part[0], part[1], 0x6420);
    *high = pick_bytes(part[0], part[1], 0x7531);
}

#define BOOK_WORD(a, b, c, d) \
    ((uint32_t)(uint8_t)(a) | (uint32_t)(uint8_t)(b) << 8 | (uint32_t)(uint8_t)(c) << 16 | (uint32_t)(uint8_t)(d) << 24)

/* quant.h's iq4_values and fp4_values. */
template <int BOOK> DEVICE void look_up_book(uint32_t *low, uint32_t *high, uint32_t x)
{
    if constexpr (BOOK == BOOK_IQ4) {
        const uint32_t book[4] = {BOOK_WORD(-127, -104, -83, -65), BOOK_WORD(-49, -35, -22, -10),
                                  BOOK_WORD(1, 13, 25, 38), BOOK_WORD(53, 69, 89, 113)};
        look_up(low, high, x, book);
    } else {
        const uint32_t book[4] = {BOOK_WORD(0, 1, 2, 3), BOOK_WORD(4, 6, 8, 12), BOOK_WORD(0, -1, -2, -3),
                                  BOOK_WORD(-4, -6, -8, -12)};
        look_up(low, high, x, book);
    }
}

/* Four magnitudes, negative where a bit of signs is set. Magnitudes are 1 … 127: no byte carries. */
DEVICE uint32_t with_signs(uint32_t magnitudes, uint32_t signs)
{
    const uint32_t ones = (signs & 15) * 0x00204081u & 0x01010101u, mask = ones * 255;
    return (magnitudes ^ mask) + ones;
}

/* Seven signs; the eighth makes the number of negative ones even. */
DEVICE uint32_t even_signs(uint32_t seven)
{
    return seven | (uint32_t)(count_ones(seven) & 1) << 7;
}

/* ---- Formats of planes ---------------------------------------------------------------------------- */

/* What one lane holds of a row's chunk: scales, once open() has loaded them; a block's codes are fetched apart, so
 * that many fetches can be on their way together. Scales are indexed by constants where loops over blocks
 * are unrolled. */
template <int TYPE, bool FIELDS = format_of(TYPE).is_fields> struct lane_chunk {
    static constexpr struct format F = format_of(TYPE);
    static constexpr int CODES = F.scales == SCALE_BLOCK_ZERO ? 0 : F.n_codes * F.code_bits / 8;
    const uint8_t *at_low, *at_high;
    int row;
    uint32_t codes[4], d_bits[4], m_bits[4];

    struct raw {
        uint32_t low[F.low], high[F.high ? F.high : 1];
    };

    /* n blocks; nothing is loaded yet. */
    __device__ __forceinline__ void place(const uint8_t *chunk, int row_, int n, const struct device_grids &)
    {
        at_low = chunk;
        at_high = chunk + n * GROUP_BYTES * F.low;
        row = row_;
    }

    __device__ __forceinline__ struct raw fetch(int b) const
    {
        struct raw r;
        load_planes<F.low>(r.low, at_low, b, row);
        if constexpr (F.high > 0)
            load_planes<F.high>(r.high, at_high, b, row);
        else
            r.high[0] = 0; /* not used, but copied */
        return r;
    }

    __device__ __forceinline__ void load_scales(int n)
    {
        const uint8_t *at_codes = at_high + n * GROUP_BYTES * F.high;
        const int codes_bytes = F.scales == SCALE_BLOCK_ZERO ? n * F.code_bits / 8 : CODES;
        const int n_d = is_super(F.scales) ? 1 : F.scales == SCALE_BLOCK16 ? 2 * n : n;
        const uint8_t *at_d = at_codes + codes_bytes * TILE_ROWS;
        const int each = F.d == D_F16 ? 2 : 1;
        const uint8_t *at_m = at_d + n_d * each * TILE_ROWS;
        if constexpr (F.scales == SCALE_BLOCK_ZERO && F.code_bits == 16)
            load_halves(codes, at_codes + row * codes_bytes, n);
        else if constexpr (F.scales == SCALE_BLOCK_ZERO)
            load_bytes(codes, at_codes + row * n, n);
        else if constexpr (CODES == 16)
            load_bytes(codes, at_codes + row * 16, 16);
        else if constexpr (CODES == 12)
            for (int i = 0; i < 3; i++)
                codes[i] = load_once<uint32_t>(at_codes + row * 12 + 4 * i);
        else if constexpr (CODES == 6)
            load_halves(codes, at_codes + row * 6, 3);
        if constexpr (is_super(F.scales)) {
            d_bits[0] = load_once<uint16_t>(at_d + row * 2);
            if constexpr (has_min(F.scales))
                m_bits[0] = load_once<uint16_t>(at_m + row * 2);
        } else {
            if constexpr (F.d == D_F16)
                load_halves(d_bits, at_d + row * n * 2, n);
            else
                load_bytes(d_bits, at_d + row * n_d, n_d);
            if constexpr (has_min(F.scales))
                load_halves(m_bits, at_m + row * n * 2, n);
        }
    }

    /* Codes of block b: word g has columns 4g …; less F.zero they are the weights. */
    __device__ __forceinline__ void block(uint32_t w[GROUPS], const struct raw &r, int) const
    {
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            if constexpr (F.low == 8) {
                w[g] = r.low[g];
            } else if constexpr (F.code_book != BOOK_NONE) {
                if (g < 4)
                    look_up_book<F.code_book>(&w[g], &w[g + 4], r.low[g]);
            } else if constexpr (F.low == 4) {
                w[g] = r.low[g % 4] >> (g < 4 ? 0 : 4) & 0x0f0f0f0f;
            } else {
                w[g] = r.low[g / 4] >> 2 * (g % 4) & 0x03030303;
            }
            if constexpr (F.high == 1)
                w[g] |= (r.high[0] >> g & 0x01010101) << F.low;
            else if constexpr (F.high == 2)
                w[g] |= (r.high[g / 4] >> 2 * (g % 4) & 0x03030303) << F.low;
        }
    }

    /* Integer code j of a row, of n. */
    __device__ __forceinline__ int code(int j) const
    {
        if constexpr (F.code_bits == 8) {
            return byte_at(codes, j);
        } else {
            constexpr int half = F.n_codes < 4 ? 1 : F.n_codes / 2, quarter = F.n_codes < 4 ? 1 : F.n_codes / 4;
            return (byte_at(codes, j % half) >> (j < half ? 0 : 4) & 15) |
                   (byte_at(codes, half + j % quarter) >> 2 * (j / quarter) & 3) << 4;
        }
    }

    /* Of super-blocks: the scale of block b's half `half` (of those by 32: of both). */
    __device__ __forceinline__ int scale(int b, int half) const
    {
        const int j = by_16(F.scales) ? 2 * b + half : b;
        if constexpr (F.n_codes == 0)
            return 1;
        else if constexpr (F.scales == SCALE_SUPER16_MIN)
            return code(j) & 15;
        else if constexpr (F.scales == SCALE_SUPER16 && F.code_bits == 8)
            return (int8_t)code(j);
        else
            return code(j) - F.code_zero;
    }

    __device__ __forceinline__ int min(int b, int half) const
    {
        if constexpr (F.scales == SCALE_SUPER16_MIN)
            return code(2 * b + half) >> 4;
        else if constexpr (F.scales == SCALE_SUPER32_MIN)
            return code(CHUNK_BLOCKS + b);
        else
            return 0;
    }

    /* A block's own zero point. */
    __device__ __forceinline__ int zero(int b) const
    {
        if constexpr (F.scales == SCALE_BLOCK_ZERO && F.code_bits == 16)
            return (int)(codes[b / 2] >> b % 2 * 16 & 0xffff);
        else
            return byte_at(codes, b);
    }

    /* The scale of block b (of those by 16: of half a block); of super-blocks the common one. */
    __device__ __forceinline__ float d(int b) const
    {
        if constexpr (is_super(F.scales))
            return half_at(d_bits, 0);
        else if constexpr (F.d == D_F16)
            return half_at(d_bits, b);
        else if constexpr (F.d == D_E8M0)
            return scale_e8m0((uint8_t)byte_at(d_bits, b));
        else
            return scale_e4m3((uint8_t)byte_at(d_bits, b));
    }

    __device__ __forceinline__ float m(int b) const
    {
        return half_at(m_bits, is_super(F.scales) ? 0 : b);
    }
};

/* ---- Formats of fields ------------------------------------------------------------------------------ */

/* These read as they go: what fields a format has, pack.h's FIELD_FORMATS says, quant/ draws them. */
template <int TYPE> struct lane_chunk<TYPE, true> {
    static constexpr struct format F = format_of(TYPE);
    const uint8_t *chunk;
    int row;
    struct device_grids grids;

    struct raw {
    };

    __device__ __forceinline__ void place(const uint8_t *chunk_, int row_, int, const struct device_grids &g)
    {
        chunk = chunk_;
        row = row_;
        grids = g;
    }

    __device__ __forceinline__ struct raw fetch(int) const
    {
        return {};
    }

    __device__ __forceinline__ void load_scales(int)
    {
    }

    /* Piece i of a field that begins at byte `at` of a row's block. */
    __device__ __forceinline__ uint32_t word(int at, int i) const
    {
        return *(const uint32_t *)(const void *)(chunk + TILE_ROWS * at + (i * TILE_ROWS + row) * 4);
    }
    __device__ __forceinline__ uint32_t half(int at, int i) const
    {
        return *(const uint16_t *)(const void *)(chunk + TILE_ROWS * at + (i * TILE_ROWS + row) * 2);
    }
    __device__ __forceinline__ uint32_t byte(int at, int i) const
    {
        return chunk[TILE_ROWS * at + i * TILE_ROWS + row];
    }

    __device__ __forceinline__ static void pair(uint32_t w[2], uint64_t x, uint32_t signs)
    {
        w[0] = with_signs((uint32_t)x, signs);
        w[1] = with_signs((uint32_t)(x >> 32), signs >> 4);
    }

    /* IQ1: entries are 8 v + 128, weights 8 v ± 1. */
    __device__ __forceinline__ static void shifted(uint32_t w[2], uint64_t x, bool down)
    {
        for (int i = 0; i < 2; i++) {
            const uint32_t bytes = (uint32_t)(x >> 32 * i);
            w[i] = (down ? bytes - 0x01010101u : bytes + 0x01010101u) ^ 0x80808080u;
        }
    }

    /* TQ1_0: digit n of base 3 of four bytes. */
    __device__ __forceinline__ static uint32_t digits(uint32_t x, int n)
    {
        const uint32_t power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
        uint32_t even = ((x & 0x00ff00ff) * power & 0x00ff00ff) * 3 >> 8 & 0x00ff00ff;
        uint32_t odd = ((x >> 8 & 0x00ff00ff) * power & 0x00ff00ff) * 3 >> 8 & 0x00ff00ff;
        return even | odd << 8;
    }

    __device__ __forceinline__ void block(uint32_t w[GROUPS], const struct raw &, int b) const
    {
        if constexpr (TYPE == QTYPE_TQ1_0) {
            for (int g = 0; g < GROUPS; g++)
                if (b < 5)
                    w[g] = digits(word(0, g), b);
                else if (b < 7 || g < 4)
                    w[g] = digits(word(0, 8 + g % 4), 2 * (b - 5) + g / 4);
                else
                    w[g] = digits(word(0, 12), g - 4);
        } else {
            for (int k = 0; k < 4; k++)
                eight(w + 2 * k, b, k);
        }
    }

    /* Columns 8 k … of block b. */
    __device__ __forceinline__ void eight(uint32_t to[2], int b, int k) const
    {
        if constexpr (TYPE == QTYPE_IQ1_S) {
            const uint32_t qh = half(34, b);
            shifted(to, grids.iq1[(word(2, b) >> 8 * k & 255) | (qh >> 3 * k & 7) << 8], qh >> 15);
        } else if constexpr (TYPE == QTYPE_IQ1_M) {
            const uint32_t qh = half(32, b) >> 4 * k;
            shifted(to, grids.iq1[(word(0, b) >> 8 * k & 255) | (qh & 7) << 8], qh >> 3 & 1);
        } else if constexpr (TYPE == QTYPE_IQ2_XXS) {
            pair(to, grids.iq2_xxs[word(2, 2 * b) >> 8 * k & 255],
                 even_signs(word(2, 2 * b + 1) >> 7 * k & 127));
        } else if constexpr (TYPE == QTYPE_IQ2_XS) {
            const uint32_t x = word(2, 2 * b + k / 2) >> k % 2 * 16;
            pair(to, grids.iq2_xs[x & 511], even_signs(x >> 9 & 127));
        } else if constexpr (TYPE == QTYPE_IQ2_S) {
            const uint32_t high = byte(66, b) >> 2 * k & 3;
            pair(to, grids.iq2_s[(word(2, b) >> 8 * k & 255) | high << 8], word(2, 8 + b) >> 8 * k);
        } else if constexpr (TYPE == QTYPE_IQ3_XXS) {
            const uint32_t x = word(2, 2 * b + k / 2) >> k % 2 * 16;
            const uint32_t signs = even_signs(word(2, 16 + b) >> 7 * k & 127);
            to[0] = with_signs(grids.iq3_xxs[x & 255], signs);
            to[1] = with_signs(grids.iq3_xxs[x >> 8 & 255], signs >> 4);
        } else if constexpr (TYPE == QTYPE_IQ3_S) {
            const uint32_t x = word(2, 2 * b + k / 2) >> k % 2 * 16, high = byte(66, b) >> 2 * k;
            const uint32_t signs = word(74, b) >> 8 * k;
            to[0] = with_signs(grids.iq3_s[(x & 255) | (high & 1) << 8], signs);
            to[1] = with_signs(grids.iq3_s[(x >> 8 & 255) | (high >> 1 & 1) << 8], signs >> 4);
        }
    }

    __device__ __forceinline__ int scale(int b, int h) const
    {
        if constexpr (TYPE == QTYPE_IQ1_S)
            return (int)(2 * (half(34, b) >> 12 & 7) + 1);
        else if constexpr (TYPE == QTYPE_IQ1_M)
            return (int)(2 * (half(48, (2 * b + h) / 4) >> (2 * b + h) % 4 * 3 & 7) + 1);
        else if constexpr (TYPE == QTYPE_IQ2_XXS)
            return (int)(2 * (word(2, 2 * b + 1) >> 28) + 1);
        else if constexpr (TYPE == QTYPE_IQ2_XS)
            return (int)(2 * (byte(66, b) >> 4 * h & 15) + 1);
        else if constexpr (TYPE == QTYPE_IQ2_S)
            return (int)(2 * (byte(74, b) >> 4 * h & 15) + 1);
        else if constexpr (TYPE == QTYPE_IQ3_XXS)
            return (int)(2 * (word(2, 16 + b) >> 28) + 1);
        else if constexpr (TYPE == QTYPE_IQ3_S)
            return (int)(2 * (byte(106, b / 2) >> b % 2 * 4 & 15) + 1);
        else
            return 1;
    }

    __device__ __forceinline__ int min(int, int) const
    {
        return 0;
    }
    __device__ __forceinline__ int zero(int) const
    {
        return 0;
    }
    __device__ __forceinline__ float m(int) const
    {
        return 0;
    }

    __device__ __forceinline__ float d(int) const
    {
        if constexpr (TYPE == QTYPE_IQ1_M) {
            uint32_t bits = 0;
            for (int i = 0; i < 4; i++)
                bits |= half(48, i) >> 12 << 4 * i;
            return half_to_float((uint16_t)bits) * 0.125f;
        } else if constexpr (TYPE == QTYPE_TQ1_0) {
            return half_to_float((uint16_t)half(52, 0));
        } else {
            const float factor = TYPE == QTYPE_IQ3_S ? 1.0f : TYPE == QTYPE_IQ3_XXS ? 0.25f : 0.125f;
            return half_to_float((uint16_t)half(0, 0)) * factor;
        }
    }
};

/* Every quantised type, for switches. */
#define QUANTISED_TYPES(X)                                                                                       \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS) X(TQ2_0) \
    X(MXFP4) X(NVFP4) X(INT2Z) X(INT3Z) X(INT4Z) X(INT8Z) X(IQ1_S) X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S)        \
    X(IQ3_XXS) X(IQ3_S) X(TQ1_0)

#endif

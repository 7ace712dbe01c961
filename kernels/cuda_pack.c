/* The GPU's layout of packed weights (cuda.h draws it), made and undone by the host. */
#include "kernels/cuda.h"

#include "kernels/pack.h"

#include <string.h>

enum { PIECE = 16 /* bytes that a lane loads at once */ };

/* Byte i of row `row` in block b of planes of `bits` bits. */
static size_t plane_byte(int bits, int b, int row, int i)
{
    const int row_bytes = 4 * bits, unit = row_bytes < PIECE ? row_bytes : PIECE;
    return (size_t)(b * TILE_ROWS * row_bytes + i / unit * TILE_ROWS * unit + row * unit + i % unit);
}

static uint32_t load32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void store32(uint8_t *p, uint32_t x)
{
    memcpy(p, &x, sizeof x);
}

/* Bits shift … shift + bits − 1 of a block's 32 codes to planes of `bits` bits, or back (|=). */
static void planes_write(uint8_t *planes, int b, int row, const uint8_t q[ACT_LEN], int bits, int shift)
{
    uint32_t mask = 0x01010101u * ((1u << bits) - 1), word[GROUPS] = {0};
    for (int g = 0; g < GROUPS; g++)
        word[plane_of(bits, g)] |= (load32(q + 4 * g) >> shift & mask) << plane_shift(bits, g);
    for (int p = 0; p < bits; p++)
        store32(planes + plane_byte(bits, b, row, 4 * p), word[p]);
}

static void planes_read(uint8_t q[ACT_LEN], const uint8_t *planes, int b, int row, int bits, int shift)
{
    uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    for (int g = 0; g < GROUPS; g++) {
        uint32_t word = load32(planes + plane_byte(bits, b, row, 4 * plane_of(bits, g)));
        store32(q + 4 * g, load32(q + 4 * g) | (word >> plane_shift(bits, g) & mask) << shift);
    }
}

/* Codes of 8 bits are signed where their zero point is 128. */
static unsigned sign_flip(const struct pack_format *f)
{
    return f->low_bits == 8 && f->zero == 128 ? 0x80 : 0;
}

/* A row's integer codes: bytes, or 6 bits in nibbles and pairs. */
static int codes_bytes(const struct pack_format *f)
{
    return f->n_codes * f->code_bits / 8;
}

static void codes_write(uint8_t *to, const uint8_t *code, int n, int bits)
{
    if (bits == 8) {
        memcpy(to, code, (size_t)n);
        return;
    }
    for (int i = 0; i < n / 2; i++)
        to[i] = (uint8_t)((code[i] & 15) | (code[i + n / 2] & 15) << 4);
    for (int i = 0; i < n / 4; i++)
        to[n / 2 + i] = (uint8_t)(code[i] >> 4 | code[i + n / 4] >> 4 << 2 | code[i + n / 2] >> 4 << 4 |
                                  code[i + 3 * n / 4] >> 4 << 6);
}

static void codes_read(uint8_t *code, const uint8_t *from, int n, int bits)
{
    if (bits == 8) {
        memcpy(code, from, (size_t)n);
        return;
    }
    for (int i = 0; i < n; i++) {
        int low = from[i % (n / 2)] >> (i < n / 2 ? 0 : 4) & 15;
        code[i] = (uint8_t)(low | (from[n / 2 + i % (n / 4)] >> (2 * (i / (n / 4))) & 3) << 4);
    }
}

/* The sections of a chunk that is to be written. */
struct sections {
    uint8_t *low, *high, *codes, *d, *m;
};

static struct sections sections_of(const struct pack_format *f, uint8_t *chunk, int n_blocks)
{
    const struct chunk_view v = chunk_view(f, chunk, n_blocks);
    const uint8_t *m = (const uint8_t *)v.m;
    return (struct sections){chunk, chunk + (v.high - chunk), chunk + (v.codes - chunk),
                             chunk + (v.d - chunk), chunk + (m - chunk)};
}

static void row_write(uint8_t *chunk, const struct pack_format *f, int row, const struct row_chunk *r,
                      int n_blocks)
{
    const struct sections s = sections_of(f, chunk, n_blocks);
    const int n = n_scales(f->scales, n_blocks), each = d_bytes(f);
    for (int b = 0; b < n_blocks; b++) {
        uint8_t q[ACT_LEN];
        for (int i = 0; i < ACT_LEN; i++)
            q[i] = (uint8_t)(r->q[ACT_LEN * b + i] ^ sign_flip(f));
        planes_write(s.low, b, row, q, f->low_bits, 0);
        if (f->high_bits)
            planes_write(s.high, b, row, q, f->high_bits, f->low_bits);
    }
    if (f->scales == SCALE_BLOCK_ZERO) {
        for (int b = 0; b < n_blocks; b++)
            memcpy(s.codes + (row * n_blocks + b) * f->code_bits / 8, &r->m[b], (size_t)f->code_bits / 8);
    } else if (f->n_codes) {
        codes_write(s.codes + row * codes_bytes(f), r->code, f->n_codes, f->code_bits);
    }
    for (int b = 0; b < n; b++) {
        memcpy(s.d + (row * n + b) * each, &r->d[b], (size_t)each);
        if (scales_have_min(f->scales))
            memcpy(s.m + (row * n + b) * 2, &r->m[b], 2);
    }
}

static void row_read(struct row_chunk *r, uint8_t *chunk, const struct pack_format *f, int row, int n_blocks)
{
    const struct sections s = sections_of(f, chunk, n_blocks);
    const int n = n_scales(f->scales, n_blocks), each = d_bytes(f);
    *r = (struct row_chunk){0};
    for (int b = 0; b < n_blocks; b++) {
        uint8_t *q = r->q + ACT_LEN * b;
        planes_read(q, s.low, b, row, f->low_bits, 0);
        if (f->high_bits)
            planes_read(q, s.high, b, row, f->high_bits, f->low_bits);
        for (int i = 0; i < ACT_LEN; i++)
            q[i] = (uint8_t)(q[i] ^ sign_flip(f));
    }
    if (f->scales == SCALE_BLOCK_ZERO) {
        for (int b = 0; b < n_blocks; b++)
            memcpy(&r->m[b], s.codes + (row * n_blocks + b) * f->code_bits / 8, (size_t)f->code_bits / 8);
    } else if (f->n_codes) {
        codes_read(r->code, s.codes + row * codes_bytes(f), f->n_codes, f->code_bits);
    }
    for (int b = 0; b < n; b++) {
        memcpy(&r->d[b], s.d + (row * n + b) * each, (size_t)each);
        if (scales_have_min(f->scales))
            memcpy(&r->m[b], s.m + (row * n + b) * 2, 2);
    }
}

/* Where element `col` of a row of floats is, each of `bytes` bytes. */
static size_t float_at(int row, int col, int n_cols, int bytes)
{
    const int each = PIECE / bytes, first = col / each * each;
    const int width = n_cols - first < each ? n_cols - first : each;
    return (size_t)((first * TILE_ROWS + row * width + col % each) * bytes);
}

void cuda_pack_chunk(uint8_t *dst, enum qtype type, const uint8_t *src, int64_t row_bytes, int n_rows,
                     int n_cols)
{
    const struct pack_format *f = &pack_formats[type];
    if (f->scales != SCALE_NONE && !f->read) {
        pack_chunk(dst, type, src, row_bytes, n_rows, n_cols);
        return;
    }
    const int bytes = f->low_bits / 8;
    for (int r = 0; r < n_rows; r++, src += row_bytes) {
        if (f->scales == SCALE_NONE) {
            for (int c = 0; c < n_cols; c += PIECE / bytes) {
                const int left = n_cols - c, each = left < PIECE / bytes ? left : PIECE / bytes;
                memcpy(dst + float_at(r, c, n_cols, bytes), src + c * bytes, (size_t)(each * bytes));
            }
        } else {
            struct row_chunk rc;
            f->read(&rc, src, n_cols / ACT_LEN);
            row_write(dst, f, r, &rc, n_cols / ACT_LEN);
        }
    }
}

void cuda_unpack_chunk(uint8_t *dst, enum qtype type, const uint8_t *chunk, int row, int n_cols)
{
    const struct pack_format *f = &pack_formats[type];
    if (f->scales == SCALE_NONE) {
        const int bytes = f->low_bits / 8;
        for (int c = 0; c < n_cols; c++)
            memcpy(dst + c * bytes, chunk + float_at(row, c, n_cols, bytes), (size_t)bytes);
    } else if (!f->read) {
        pack_fields_read(dst, type, chunk, row);
    } else {
        struct row_chunk rc;
        uint8_t copy[MAX_CHUNK_BYTES];
        memcpy(copy, chunk, (size_t)tile_offset(type, n_cols));
        row_read(&rc, copy, f, row, n_cols / ACT_LEN);
        f->write(dst, &rc, n_cols / ACT_LEN);
    }
}

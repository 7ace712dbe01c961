/* Packing: rows as the file has them into tiles (pack.h draws them), and back.
 *
 * pack_rows.c reads one row's blocks as plain codes and scales and writes them again; the planes are
 * built from those for all formats alike, 32-bit words at a time. */
#include "kernels/pack.h"

#include "kernels/linear.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Planes: codes of one row ↔ its bytes in the tile ------------------------------------------ */

/* Four columns of one row are one 32-bit word of a plane, at word index row. */
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

/* Bits `shift` … `shift + bits − 1` of a block's 32 codes into planes of `bits` bits. */
INLINE void planes_write(uint8_t *planes, int row, const uint8_t q[ACT_LEN], int bits, int shift)
{
    uint32_t mask = 0x01010101u * ((1u << bits) - 1), word[GROUPS] = {0};
    for (int g = 0; g < GROUPS; g++)
        word[plane_of(bits, g)] |= (load32(q + 4 * g) >> shift & mask) << plane_shift(bits, g);
    for (int p = 0; p < bits; p++)
        store32(planes + p * GROUP_BYTES + 4 * row, word[p]);
}

INLINE void planes_read(uint8_t q[ACT_LEN], const uint8_t *planes, int row, int bits, int shift)
{
    uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    for (int g = 0; g < GROUPS; g++) {
        uint32_t word = load32(planes + plane_of(bits, g) * GROUP_BYTES + 4 * row);
        store32(q + 4 * g, load32(q + 4 * g) | (word >> plane_shift(bits, g) & mask) << shift);
    }
}

INLINE void codes_write(uint8_t *codes, int row, const uint8_t *code, int n, int bits)
{
    if (bits == 8) { /* always MAX_CODES of them */
        for (int i = 0; i < MAX_CODES; i++)
            codes[i * TILE_ROWS + row] = code[i];
        return;
    }
    uint8_t *hi = codes + n / 2 * TILE_ROWS;
    for (int i = 0; i < n / 2; i++)
        codes[i * TILE_ROWS + row] = (uint8_t)((code[i] & 15) | (code[i + n / 2] & 15) << 4);
    for (int i = 0; i < n / 4; i++)
        hi[i * TILE_ROWS + row] = (uint8_t)(code[i] >> 4 | code[i + n / 4] >> 4 << 2 |
                                            code[i + n / 2] >> 4 << 4 | code[i + 3 * n / 4] >> 4 << 6);
}

INLINE void codes_read(uint8_t *code, const uint8_t *codes, int row, int n, int bits)
{
    if (bits == 8) { /* always MAX_CODES of them */
        for (int i = 0; i < MAX_CODES; i++)
            code[i] = codes[i * TILE_ROWS + row];
        return;
    }
    const uint8_t *hi = codes + n / 2 * TILE_ROWS;
    for (int i = 0; i < n; i++) {
        int low = codes[i % (n / 2) * TILE_ROWS + row] >> (i < n / 2 ? 0 : 4) & 15;
        code[i] = (uint8_t)(low | (hi[i % (n / 4) * TILE_ROWS + row] >> (2 * (i / (n / 4))) & 3) << 4);
    }
}

INLINE void zeros_write(uint8_t *codes, int row, const uint16_t *zero, int n, int bits)
{
    for (int b = 0; b < n; b++) {
        if (bits == 8)
            codes[b * TILE_ROWS + row] = (uint8_t)zero[b];
        else
            memcpy(codes + 2 * (b * TILE_ROWS + row), &zero[b], 2);
    }
}

INLINE void zeros_read(uint16_t *zero, const uint8_t *codes, int row, int n, int bits)
{
    for (int b = 0; b < n; b++) {
        if (bits == 8)
            zero[b] = codes[b * TILE_ROWS + row];
        else
            memcpy(&zero[b], codes + 2 * (b * TILE_ROWS + row), 2);
    }
}

INLINE void chunk_write(uint8_t *chunk, const struct pack_format *f, int row, const struct row_chunk *r,
                        int n_blocks)
{
    struct chunk_view v = chunk_view(f, chunk, n_blocks);
    uint8_t *low = chunk, *high = chunk + (v.high - chunk), *codes = chunk + (v.codes - chunk);
    for (int b = 0; b < n_blocks; b++) {
        const uint8_t *q = r->q + ACT_LEN * b;
        planes_write(low + b * f->low_bits * GROUP_BYTES, row, q, f->low_bits, 0);
        if (f->high_bits)
            planes_write(high + b * f->high_bits * GROUP_BYTES, row, q, f->high_bits, f->low_bits);
    }
    if (f->scales == SCALE_BLOCK_ZERO)
        zeros_write(codes, row, r->m, n_blocks, f->code_bits);
    else if (f->n_codes)
        codes_write(codes, row, r->code, f->n_codes, f->code_bits);
    uint8_t *d = chunk + (v.d - chunk);
    uint16_t *m = (uint16_t *)(void *)(chunk + ((const uint8_t *)v.m - chunk));
    for (int b = 0; b < n_scales(f->scales, n_blocks); b++) {
        if (f->d == D_F16)
            memcpy(d + 2 * (b * TILE_ROWS + row), &r->d[b], 2);
        else
            d[b * TILE_ROWS + row] = (uint8_t)r->d[b];
        if (scales_have_min(f->scales))
            m[b * TILE_ROWS + row] = r->m[b];
    }
}

/* The formats as constants, which the inlined loops fold: packing is most of a load's time. */
#define DEFINE_WRITE(TYPE, fn, ...)                                                            \
    static void write_##TYPE(uint8_t *chunk, int row, const struct row_chunk *r, int n_blocks) \
    {                                                                                          \
        const struct pack_format f = {__VA_ARGS__, NULL, NULL};                                \
        chunk_write(chunk, &f, row, r, n_blocks);                                              \
    }
PACK_FORMATS(DEFINE_WRITE)

#define WRITE_ROW(TYPE, ...) [QTYPE_##TYPE] = write_##TYPE,
static void (*const chunk_writers[QTYPE_N_MATRIX])(uint8_t *, int, const struct row_chunk *,
                                                   int) = {PACK_FORMATS(WRITE_ROW)};

static void chunk_read(struct row_chunk *r, const uint8_t *chunk, const struct pack_format *f, int row,
                       int n_blocks)
{
    struct chunk_view v = chunk_view(f, chunk, n_blocks);
    memset(r->q, 0, sizeof r->q);
    for (int b = 0; b < n_blocks; b++) {
        uint8_t *q = r->q + ACT_LEN * b;
        planes_read(q, v.low + b * f->low_bits * GROUP_BYTES, row, f->low_bits, 0);
        if (f->high_bits)
            planes_read(q, v.high + b * f->high_bits * GROUP_BYTES, row, f->high_bits, f->low_bits);
    }
    if (f->scales == SCALE_BLOCK_ZERO)
        zeros_read(r->m, v.codes, row, n_blocks, f->code_bits);
    else if (f->n_codes)
        codes_read(r->code, v.codes, row, f->n_codes, f->code_bits);
    for (int b = 0; b < n_scales(f->scales, n_blocks); b++) {
        if (f->d == D_F16)
            memcpy(&r->d[b], v.d + 2 * (b * TILE_ROWS + row), 2);
        else
            r->d[b] = v.d[b * TILE_ROWS + row];
        if (scales_have_min(f->scales))
            r->m[b] = v.m[b * TILE_ROWS + row];
    }
}

/* ---- Fields of blocks: 16 rows take turns ------------------------------------------------------ */

INLINE void pieces_write(uint8_t *dst, const uint8_t *src, int n, int piece, int row)
{
    for (int i = 0; i < n; i++)
        memcpy(dst + (i * TILE_ROWS + row) * piece, src + i * piece, (size_t)piece);
}

INLINE void pieces_read(uint8_t *dst, const uint8_t *src, int n, int piece, int row)
{
    for (int i = 0; i < n; i++)
        memcpy(dst + i * piece, src + (i * TILE_ROWS + row) * piece, (size_t)piece);
}

static void fields_write(uint8_t *chunk, enum qtype type, const uint8_t *src, int row)
{
    for (const struct pack_field *f = pack_fields[type]; f < pack_fields[type] + MAX_FIELDS; f++) {
        if (f->piece == 4)
            pieces_write(chunk, src, f->bytes / 4, 4, row);
        else if (f->piece == 2)
            pieces_write(chunk, src, f->bytes / 2, 2, row);
        else
            pieces_write(chunk, src, f->bytes, 1, row);
        chunk += TILE_ROWS * f->bytes;
        src += f->bytes;
    }
}

void pack_fields_read(void *dst, enum qtype type, const uint8_t *chunk, int row)
{
    uint8_t *to = dst;
    for (const struct pack_field *f = pack_fields[type]; f < pack_fields[type] + MAX_FIELDS; f++) {
        if (f->bytes)
            pieces_read(to, chunk, f->bytes / f->piece, f->piece, row);
        chunk += TILE_ROWS * f->bytes;
        to += f->bytes;
    }
}

/* ---- Matrices --------------------------------------------------------------------------------- */

int cpu_packed_lend(struct packed *p, enum qtype type, int64_t rows, int64_t cols)
{
    memset(p, 0, sizeof *p);
    if (type >= QTYPE_N_MATRIX || rows < 1 || cols < 1 || cols % qtypes[type].block_len)
        return -1;
    p->type = type;
    p->rows = rows;
    p->cols = cols;
    p->n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    p->tile_bytes = tile_offset(type, cols);
    p->is_lent = true;
    return 0;
}

int cpu_packed_alloc(struct packed *p, enum qtype type, int64_t rows, int64_t cols)
{
    if (cpu_packed_lend(p, type, rows, cols))
        return -1;
    p->is_lent = false;
    p->data = cpu_alloc(packed_bytes(p));
    return p->data ? 0 : -1;
}

void cpu_packed_release(struct packed *p)
{
    if (!p->is_view && !p->is_lent)
        cpu_release(p->data, packed_bytes(p));
    memset(p, 0, sizeof *p);
}

void cpu_packed_view(struct packed *p, enum qtype type, int64_t rows, int64_t cols, const void *src)
{
    *p = (struct packed){.type = type, .rows = rows, .cols = cols, .view = src, .is_view = true};
    p->n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
}

/* Float types: element (row, column) at [column][row]. */
INLINE void floats_write(uint8_t *chunk, int row, const uint8_t *src, int n_cols, size_t bytes)
{
    for (int k = 0; k < n_cols; k++)
        memcpy(chunk + (size_t)(k * TILE_ROWS + row) * bytes, src + (size_t)k * bytes, bytes);
}

void pack_chunk(uint8_t *dst, enum qtype type, const uint8_t *src, int64_t row_bytes, int n_rows, int n_cols)
{
    const struct pack_format *f = &pack_formats[type];
    for (int r = 0; r < n_rows; r++, src += row_bytes) {
        if (f->low_bits == 32) {
            floats_write(dst, r, src, n_cols, 4);
        } else if (f->low_bits == 16) {
            floats_write(dst, r, src, n_cols, 2);
        } else if (!f->read) {
            fields_write(dst, type, src, r);
        } else {
            struct row_chunk rc;
            f->read(&rc, src, n_cols / ACT_LEN);
            chunk_writers[type](dst, r, &rc, n_cols / ACT_LEN);
        }
    }
}

/* Fresh memory gets its pages in one call instead of a fault for each (Linux 5.14 has it; elsewhere they
 * fault). */
static void populate(uint8_t *begin, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    enum { PAGE = 4096 };
    size_t before = (uintptr_t)begin % PAGE;
    (void)madvise(begin - before, before + bytes, MADV_POPULATE_WRITE);
#else
    (void)begin, (void)bytes;
#endif
}

void cpu_pack(struct packed *p, int64_t row0, int64_t n_rows, const void *src)
{
    int64_t row_bytes = qtype_bytes(p->type, p->cols);
    populate((uint8_t *)p->data + row0 / TILE_ROWS * p->tile_bytes,
             (size_t)((n_rows + TILE_ROWS - 1) / TILE_ROWS * p->tile_bytes));
    for (int64_t row = row0; row < row0 + n_rows; row += TILE_ROWS) {
        const uint8_t *from = (const uint8_t *)src + (row - row0) * row_bytes;
        uint8_t *tile = (uint8_t *)p->data + row / TILE_ROWS * p->tile_bytes;
        int rows = (int)(row0 + n_rows - row < TILE_ROWS ? row0 + n_rows - row : TILE_ROWS);
        for (int64_t k = 0; k < p->cols; k += CHUNK_LEN)
            pack_chunk(tile + tile_offset(p->type, k), p->type, from + qtype_bytes(p->type, k), row_bytes,
                       rows, chunk_cols(p, k));
    }
}

const uint8_t *pack_view_chunk(uint8_t buffer[MAX_CHUNK_BYTES], const struct packed *p, int64_t tile,
                               int64_t col)
{
    int64_t row_bytes = qtype_bytes(p->type, p->cols), row = tile * TILE_ROWS;
    int rows = (int)(p->rows - row < TILE_ROWS ? p->rows - row : TILE_ROWS);
    int n_cols = chunk_cols(p, col);
    if (rows < TILE_ROWS)
        memset(buffer, 0, (size_t)tile_offset(p->type, n_cols));
    pack_chunk(buffer, p->type, (const uint8_t *)p->view + row * row_bytes + qtype_bytes(p->type, col),
               row_bytes, rows, n_cols);
    return buffer;
}

void pack_unpack(void *dst, const struct packed *p, int64_t row, int64_t col)
{
    const struct pack_format *f = &pack_formats[p->type];
    int n_cols = chunk_cols(p, col), r = (int)(row % TILE_ROWS);
    if (p->is_view) {
        const uint8_t *src = (const uint8_t *)p->view + row * qtype_bytes(p->type, p->cols);
        memcpy(dst, src + qtype_bytes(p->type, col), (size_t)qtype_bytes(p->type, n_cols));
        return;
    }
    const uint8_t *chunk =
        (const uint8_t *)p->data + row / TILE_ROWS * p->tile_bytes + tile_offset(p->type, col);
    if (f->scales == SCALE_NONE) {
        size_t bytes = (size_t)f->low_bits / 8;
        for (int k = 0; k < n_cols; k++)
            memcpy((uint8_t *)dst + (size_t)k * bytes, chunk + (size_t)(k * TILE_ROWS + r) * bytes, bytes);
    } else if (!f->read) {
        pack_fields_read(dst, p->type, chunk, r);
    } else {
        struct row_chunk rc;
        chunk_read(&rc, chunk, f, r, n_cols / ACT_LEN);
        f->write(dst, &rc, n_cols / ACT_LEN);
    }
}

void pack_row_to_f32(float *dst, const struct packed *p, int64_t row)
{
    uint8_t blocks[MAX_ROW_CHUNK_BYTES];
    for (int64_t k = 0; k < p->cols; k += CHUNK_LEN) {
        pack_unpack(blocks, p, row, k);
        qtypes[p->type].to_f32(dst + k, blocks, chunk_cols(p, k));
    }
}

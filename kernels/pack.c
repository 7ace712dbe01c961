/* Packing: rows as the file has them into tiles (pack.h draws them), and back.
 *
 * A format says how to read one row's blocks as plain codes and scales, and how to write them again;
 * the planes are built from those for all formats alike, 32-bit words at a time. */
#include "kernels/pack.h"

#include "kernels/linear.h"

#include <stdlib.h>
#include <string.h>

/* ---- Row formats: the file's blocks ↔ codes in column order ----------------------------------- */

/* Low nibbles of n bytes are elements 0 … n−1, high nibbles the next n. */
static void nibbles_read(uint8_t *q, const uint8_t *src, int n)
{
    for (int i = 0; i < n; i++) {
        q[i] = src[i] & 15;
        q[n + i] = src[i] >> 4;
    }
}

static void nibbles_write(uint8_t *dst, const uint8_t *q, int n)
{
    for (int i = 0; i < n; i++)
        dst[i] = (uint8_t)((q[i] & 15) | (q[n + i] & 15) << 4);
}

/* Bit i of 32 becomes bit 4 of element i. */
static void bits5_read(uint8_t *q, const uint8_t src[4])
{
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)(q[i] | ((src[i / 8] >> (i % 8) & 1) << 4));
}

static void bits5_write(uint8_t dst[4], const uint8_t *q)
{
    memset(dst, 0, 4);
    for (int i = 0; i < 32; i++)
        dst[i / 8] = (uint8_t)(dst[i / 8] | ((q[i] >> 4 & 1) << (i % 8)));
}

static void q4_0_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q4_0 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        nibbles_read(r->q + 32 * i, b[i].qs, 16);
    }
}

static void q4_0_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q4_0 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
    }
}

static void q4_1_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q4_1 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].m;
        nibbles_read(r->q + 32 * i, b[i].qs, 16);
    }
}

static void q4_1_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q4_1 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].m = r->m[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
    }
}

static void q5_0_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q5_0 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        nibbles_read(r->q + 32 * i, b[i].qs, 16);
        bits5_read(r->q + 32 * i, b[i].qh);
    }
}

static void q5_0_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q5_0 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
        bits5_write(b[i].qh, r->q + 32 * i);
    }
}

static void q5_1_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q5_1 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].m;
        nibbles_read(r->q + 32 * i, b[i].qs, 16);
        bits5_read(r->q + 32 * i, b[i].qh);
    }
}

static void q5_1_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q5_1 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].m = r->m[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
        bits5_write(b[i].qh, r->q + 32 * i);
    }
}

/* Signed bytes become unsigned codes with zero point 128. */
static void q8_0_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q8_0 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        for (int j = 0; j < 32; j++)
            r->q[32 * i + j] = (uint8_t)((uint8_t)b[i].qs[j] ^ 0x80);
    }
}

static void q8_0_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q8_0 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        for (int j = 0; j < 32; j++)
            b[i].qs[j] = (int8_t)(r->q[32 * i + j] ^ 0x80);
    }
}

/* Q2_K and Q3_K: 128 elements share 32 bytes, four shifts of two bits. */
static void pairs_read(uint8_t *q, const uint8_t qs[64])
{
    for (int half = 0; half < 2; half++)
        for (int s = 0; s < 4; s++)
            for (int j = 0; j < 32; j++)
                q[128 * half + 32 * s + j] = qs[32 * half + j] >> (2 * s) & 3;
}

static void pairs_write(uint8_t qs[64], const uint8_t *q)
{
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 32; j++) {
            const uint8_t *e = q + 128 * half + j;
            qs[32 * half + j] = (uint8_t)((e[0] & 3) | (e[32] & 3) << 2 | (e[64] & 3) << 4 | (e[96] & 3) << 6);
        }
}

static void q2_k_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q2_k *b = src;
    (void)n;
    r->d[0] = b->d;
    r->m[0] = b->dmin;
    memcpy(r->code, b->scales, sizeof b->scales);
    pairs_read(r->q, b->qs);
}

static void q2_k_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q2_k *b = dst;
    (void)n;
    b->d = r->d[0];
    b->dmin = r->m[0];
    memcpy(b->scales, r->code, sizeof b->scales);
    pairs_write(b->qs, r->q);
}

/* hmask bit j of byte l is bit 2 of element 32 j + l; 6-bit scales: nibbles in bytes 0–7 (code i and
 * i + 8), upper bits in bytes 8–11 (codes i, i+4, i+8, i+12). */
static void q3_k_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q3_k *b = src;
    (void)n;
    r->d[0] = b->d;
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? b->scales[i] & 15 : b->scales[i - 8] >> 4;
        r->code[i] = (uint8_t)(low | (b->scales[8 + i % 4] >> (2 * (i / 4)) & 3) << 4);
    }
    pairs_read(r->q, b->qs);
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++)
            r->q[32 * j + l] = (uint8_t)(r->q[32 * j + l] | (b->hmask[l] >> j & 1) << 2);
}

static void q3_k_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q3_k *b = dst;
    (void)n;
    b->d = r->d[0];
    memset(b->scales, 0, sizeof b->scales);
    for (int i = 0; i < 16; i++) {
        b->scales[i % 8] = (uint8_t)(b->scales[i % 8] | (r->code[i] & 15) << (i < 8 ? 0 : 4));
        b->scales[8 + i % 4] = (uint8_t)(b->scales[8 + i % 4] | r->code[i] >> 4 << (2 * (i / 4)));
    }
    pairs_write(b->qs, r->q);
    memset(b->hmask, 0, sizeof b->hmask);
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++)
            b->hmask[l] = (uint8_t)(b->hmask[l] | (r->q[32 * j + l] >> 2 & 1) << j);
}

/* The 12 bytes of Q4_K and Q5_K: codes 0–7 are scales, 8–15 minima. */
static void k_scales_read(uint8_t code[16], const uint8_t s[12])
{
    for (int j = 0; j < 8; j++)
        q4_k_scale_min(s, j, &code[j], &code[8 + j]);
}

static void k_scales_write(uint8_t s[12], const uint8_t code[16])
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)((code[j] & 63) | code[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)((code[j + 8] & 63) | code[j + 12] >> 4 << 6);
        s[j + 8] = (uint8_t)((code[j + 4] & 15) | (code[j + 12] & 15) << 4);
    }
}

static void q4_k_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q4_k *b = src;
    (void)n;
    r->d[0] = b->d;
    r->m[0] = b->dmin;
    k_scales_read(r->code, b->scales);
    for (int j = 0; j < 4; j++)
        nibbles_read(r->q + 64 * j, b->qs + 32 * j, 32);
}

static void q4_k_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q4_k *b = dst;
    (void)n;
    b->d = r->d[0];
    b->dmin = r->m[0];
    k_scales_write(b->scales, r->code);
    for (int j = 0; j < 4; j++)
        nibbles_write(b->qs + 32 * j, r->q + 64 * j, 32);
}

/* qh bit j of byte l is bit 4 of element 32 j + l. */
static void q5_k_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q5_k *b = src;
    (void)n;
    r->d[0] = b->d;
    r->m[0] = b->dmin;
    k_scales_read(r->code, b->scales);
    for (int j = 0; j < 4; j++)
        nibbles_read(r->q + 64 * j, b->qs + 32 * j, 32);
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++)
            r->q[32 * j + l] = (uint8_t)(r->q[32 * j + l] | (b->qh[l] >> j & 1) << 4);
}

static void q5_k_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q5_k *b = dst;
    (void)n;
    b->d = r->d[0];
    b->dmin = r->m[0];
    k_scales_write(b->scales, r->code);
    memset(b->qh, 0, sizeof b->qh);
    for (int j = 0; j < 4; j++)
        nibbles_write(b->qs + 32 * j, r->q + 64 * j, 32);
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++)
            b->qh[l] = (uint8_t)(b->qh[l] | (r->q[32 * j + l] >> 4 & 1) << j);
}

/* Per 128 elements: 64 bytes of nibbles (low: elements 0–63, high: 64–127) and 32 bytes whose bit pairs s
 * belong to elements 32 s + l. */
static void q6_k_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q6_k *b = src;
    (void)n;
    r->d[0] = b->d;
    memcpy(r->code, b->scales, sizeof b->scales);
    for (int half = 0; half < 2; half++) {
        uint8_t *q = r->q + 128 * half;
        nibbles_read(q, b->ql + 64 * half, 64);
        for (int s = 0; s < 4; s++)
            for (int l = 0; l < 32; l++)
                q[32 * s + l] = (uint8_t)(q[32 * s + l] | (b->qh[32 * half + l] >> (2 * s) & 3) << 4);
    }
}

static void q6_k_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q6_k *b = dst;
    (void)n;
    b->d = r->d[0];
    memcpy(b->scales, r->code, sizeof b->scales);
    for (int half = 0; half < 2; half++) {
        const uint8_t *q = r->q + 128 * half;
        nibbles_write(b->ql + 64 * half, q, 64);
        for (int l = 0; l < 32; l++)
            b->qh[32 * half + l] =
                (uint8_t)(q[l] >> 4 | q[32 + l] >> 4 << 2 | q[64 + l] >> 4 << 4 | q[96 + l] >> 4 << 6);
    }
}

/* Scales of 6 bits: nibbles in scales_l, upper pairs in scales_h. */
static void iq4_xs_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_iq4_xs *b = src;
    (void)n;
    r->d[0] = b->d;
    for (int j = 0; j < 8; j++) {
        int low = b->scales_l[j / 2] >> (4 * (j % 2)) & 15;
        r->code[j] = (uint8_t)(low | (b->scales_h >> (2 * j) & 3) << 4);
        nibbles_read(r->q + 32 * j, b->qs + 16 * j, 16);
    }
}

static void iq4_xs_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_iq4_xs *b = dst;
    (void)n;
    b->d = r->d[0];
    b->scales_h = 0;
    memset(b->scales_l, 0, sizeof b->scales_l);
    for (int j = 0; j < 8; j++) {
        b->scales_l[j / 2] = (uint8_t)(b->scales_l[j / 2] | (r->code[j] & 15) << (4 * (j % 2)));
        b->scales_h = (uint16_t)(b->scales_h | r->code[j] >> 4 << (2 * j));
        nibbles_write(b->qs + 16 * j, r->q + 32 * j, 16);
    }
}

#define TABLE_ROW(TYPE, fn, ...) [QTYPE_##TYPE] = {__VA_ARGS__, fn##_read, fn##_write},

const struct pack_format pack_formats[QTYPE_N_MATRIX] = {
    [QTYPE_F32] = {.scales = SCALE_NONE, .low_bits = 32},
    [QTYPE_F16] = {.scales = SCALE_NONE, .low_bits = 16},
    [QTYPE_BF16] = {.scales = SCALE_NONE, .low_bits = 16},
    PACK_FORMATS(TABLE_ROW)
};

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
static void planes_write(uint8_t *planes, int row, const uint8_t q[ACT_LEN], int bits, int shift)
{
    uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    int n_planes = bits, per_plane = GROUPS / bits;
    for (int p = 0; p < n_planes; p++) {
        uint32_t word = 0;
        for (int s = 0; s < per_plane; s++) {
            /* 4 bits: groups p and p + 4; 2 bits: 4p + s; 1 bit: s */
            int g = bits == 4 ? p + 4 * s : per_plane * p + s;
            word |= (load32(q + 4 * g) >> shift & mask) << (bits * s);
        }
        store32(planes + p * GROUP_BYTES + 4 * row, word);
    }
}

static void planes_read(uint8_t q[ACT_LEN], const uint8_t *planes, int row, int bits, int shift)
{
    uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    int n_planes = bits, per_plane = GROUPS / bits;
    for (int p = 0; p < n_planes; p++) {
        uint32_t word = load32(planes + p * GROUP_BYTES + 4 * row);
        for (int s = 0; s < per_plane; s++) {
            int g = bits == 4 ? p + 4 * s : per_plane * p + s;
            store32(q + 4 * g, load32(q + 4 * g) | (word >> (bits * s) & mask) << shift);
        }
    }
}

static void codes_write(uint8_t *codes, int row, const uint8_t *code, int n, int bits)
{
    if (bits == 8) {
        for (int i = 0; i < n; i++)
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

static void codes_read(uint8_t *code, const uint8_t *codes, int row, int n, int bits)
{
    if (bits == 8) {
        for (int i = 0; i < n; i++)
            code[i] = codes[i * TILE_ROWS + row];
        return;
    }
    const uint8_t *hi = codes + n / 2 * TILE_ROWS;
    for (int i = 0; i < n; i++) {
        int low = codes[i % (n / 2) * TILE_ROWS + row] >> (i < n / 2 ? 0 : 4) & 15;
        code[i] = (uint8_t)(low | (hi[i % (n / 4) * TILE_ROWS + row] >> (2 * (i / (n / 4))) & 3) << 4);
    }
}

static void chunk_write(uint8_t *chunk, const struct pack_format *f, int row, const struct row_chunk *r,
                        int n_blocks)
{
    struct chunk_view v = chunk_view(f, chunk, n_blocks);
    uint8_t *low = chunk, *high = chunk + (v.high - chunk), *codes = chunk + (v.codes - chunk);
    for (int b = 0; b < n_blocks; b++) {
        const uint8_t *q = r->q + ACT_LEN * b;
        if (f->low_bits == 8)
            for (int g = 0; g < GROUPS; g++)
                memcpy(low + (b * GROUPS + g) * GROUP_BYTES + 4 * row, q + 4 * g, 4);
        else
            planes_write(low + b * f->low_bits * GROUP_BYTES, row, q, f->low_bits, 0);
        if (f->high_bits)
            planes_write(high + b * f->high_bits * GROUP_BYTES, row, q, f->high_bits, f->low_bits);
    }
    if (f->n_codes)
        codes_write(codes, row, r->code, f->n_codes, f->code_bits);
    int n_d = scales_are_super(f->scales) ? 1 : n_blocks;
    uint16_t *d = (uint16_t *)(void *)(chunk + ((const uint8_t *)v.d - chunk));
    uint16_t *m = (uint16_t *)(void *)(chunk + ((const uint8_t *)v.m - chunk));
    for (int b = 0; b < n_d; b++) {
        d[b * TILE_ROWS + row] = r->d[b];
        if (scales_have_min(f->scales))
            m[b * TILE_ROWS + row] = r->m[b];
    }
}

static void chunk_read(struct row_chunk *r, const uint8_t *chunk, const struct pack_format *f, int row,
                       int n_blocks)
{
    struct chunk_view v = chunk_view(f, chunk, n_blocks);
    memset(r->q, 0, sizeof r->q);
    for (int b = 0; b < n_blocks; b++) {
        uint8_t *q = r->q + ACT_LEN * b;
        if (f->low_bits == 8)
            for (int g = 0; g < GROUPS; g++)
                memcpy(q + 4 * g, v.low + (b * GROUPS + g) * GROUP_BYTES + 4 * row, 4);
        else
            planes_read(q, v.low + b * f->low_bits * GROUP_BYTES, row, f->low_bits, 0);
        if (f->high_bits)
            planes_read(q, v.high + b * f->high_bits * GROUP_BYTES, row, f->high_bits, f->low_bits);
    }
    if (f->n_codes)
        codes_read(r->code, v.codes, row, f->n_codes, f->code_bits);
    int n_d = scales_are_super(f->scales) ? 1 : n_blocks;
    for (int b = 0; b < n_d; b++) {
        r->d[b] = v.d[b * TILE_ROWS + row];
        if (scales_have_min(f->scales))
            r->m[b] = v.m[b * TILE_ROWS + row];
    }
}

/* ---- Matrices --------------------------------------------------------------------------------- */

int cpu_packed_alloc(struct packed *p, enum qtype type, int64_t rows, int64_t cols)
{
    memset(p, 0, sizeof *p);
    if (type >= QTYPE_N_MATRIX || rows < 1 || cols < 1 || cols % qtypes[type].block_len)
        return -1;
    p->type = type;
    p->rows = rows;
    p->cols = cols;
    p->n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    p->tile_bytes = tile_offset(type, cols);
    p->data = cpu_alloc((size_t)(p->n_tiles * p->tile_bytes));
    return p->data ? 0 : -1;
}

void cpu_packed_release(struct packed *p)
{
    if (!p->is_view)
        cpu_release(p->data, (size_t)(p->n_tiles * p->tile_bytes));
    memset(p, 0, sizeof *p);
}

void cpu_packed_view(struct packed *p, enum qtype type, int64_t rows, int64_t cols, const void *src)
{
    *p = (struct packed){.type = type, .rows = rows, .cols = cols, .view = src, .is_view = true};
    p->n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
}

void pack_chunk(uint8_t *dst, enum qtype type, const uint8_t *src, int64_t row_bytes, int n_rows, int n_cols)
{
    const struct pack_format *f = &pack_formats[type];
    for (int r = 0; r < n_rows; r++, src += row_bytes) {
        if (f->scales == SCALE_NONE) {
            size_t bytes = (size_t)f->low_bits / 8;
            for (int k = 0; k < n_cols; k++)
                memcpy(dst + (size_t)(k * TILE_ROWS + r) * bytes, src + (size_t)k * bytes, bytes);
        } else {
            struct row_chunk rc;
            f->read(&rc, src, n_cols / ACT_LEN);
            chunk_write(dst, f, r, &rc, n_cols / ACT_LEN);
        }
    }
}

void cpu_pack(struct packed *p, int64_t row0, int64_t n_rows, const void *src)
{
    int64_t row_bytes = qtype_bytes(p->type, p->cols);
    for (int64_t row = row0; row < row0 + n_rows; row += TILE_ROWS) {
        const uint8_t *from = (const uint8_t *)src + (row - row0) * row_bytes;
        uint8_t *tile = (uint8_t *)p->data + row / TILE_ROWS * p->tile_bytes;
        int rows = (int)(row0 + n_rows - row < TILE_ROWS ? row0 + n_rows - row : TILE_ROWS);
        for (int64_t k = 0; k < p->cols; k += CHUNK_LEN)
            pack_chunk(tile + tile_offset(p->type, k), p->type, from + qtype_bytes(p->type, k), row_bytes, rows,
                       chunk_cols(p, k));
    }
}

const uint8_t *pack_view_chunk(uint8_t buffer[MAX_CHUNK_BYTES], const struct packed *p, int64_t tile, int64_t col)
{
    int64_t row_bytes = qtype_bytes(p->type, p->cols), row = tile * TILE_ROWS;
    int rows = (int)(p->rows - row < TILE_ROWS ? p->rows - row : TILE_ROWS);
    int n_cols = chunk_cols(p, col);
    if (rows < TILE_ROWS)
        memset(buffer, 0, (size_t)tile_offset(p->type, n_cols));
    pack_chunk(buffer, p->type, (const uint8_t *)p->view + row * row_bytes + qtype_bytes(p->type, col), row_bytes,
               rows, n_cols);
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
    const uint8_t *chunk = (const uint8_t *)p->data + row / TILE_ROWS * p->tile_bytes + tile_offset(p->type, col);
    if (f->scales == SCALE_NONE) {
        size_t bytes = (size_t)f->low_bits / 8;
        for (int k = 0; k < n_cols; k++)
            memcpy((uint8_t *)dst + (size_t)k * bytes, chunk + (size_t)(k * TILE_ROWS + r) * bytes, bytes);
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

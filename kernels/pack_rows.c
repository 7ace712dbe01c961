/* Row formats: one row's blocks of a chunk, as the file has them, to plain codes in column order and back.
 * quant/ draws the block layouts. */
#include "kernels/pack.h"

#include <string.h>

/* Low nibbles of n bytes are elements 0 … n−1, high nibbles the next n. */
static inline void nibbles_read(uint8_t *q, const uint8_t *src, int n)
{
    for (int i = 0; i < n; i++) {
        q[i] = src[i] & 15;
        q[n + i] = src[i] >> 4;
    }
}

static inline void nibbles_write(uint8_t *dst, const uint8_t *q, int n)
{
    for (int i = 0; i < n; i++)
        dst[i] = (uint8_t)((q[i] & 15) | (q[n + i] & 15) << 4);
}

/* Bit pairs s = 0…3 of n bytes are elements n s … n s + n − 1. */
static inline void pairs_read(uint8_t *q, const uint8_t *src, int n)
{
    for (int s = 0; s < 4; s++)
        for (int i = 0; i < n; i++)
            q[n * s + i] = src[i] >> (2 * s) & 3;
}

static inline void pairs_write(uint8_t *dst, const uint8_t *q, int n)
{
    for (int i = 0; i < n; i++)
        dst[i] =
            (uint8_t)((q[i] & 3) | (q[n + i] & 3) << 2 | (q[2 * n + i] & 3) << 4 | (q[3 * n + i] & 3) << 6);
}

/* Bit i of 32 becomes bit `to` of element i. Eight at a time: bit i of a byte, tested in byte i of a word. */
static void bits_read(uint8_t *q, const uint8_t src[4], int to)
{
    const uint64_t each = 0x0101010101010101;
    for (int i = 0; i < 4; i++) {
        uint64_t set = src[i] * each & 0x8040201008040201, word;
        memcpy(&word, q + 8 * i, sizeof word);
        word |= ((set + 0x7f * each) >> 7 & each) << to;
        memcpy(q + 8 * i, &word, sizeof word);
    }
}

static void bits_write(uint8_t dst[4], const uint8_t *q, int from)
{
    memset(dst, 0, 4);
    for (int i = 0; i < 32; i++)
        dst[i / 8] = (uint8_t)(dst[i / 8] | ((q[i] >> from & 1) << (i % 8)));
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
        bits_read(r->q + 32 * i, b[i].qh, 4);
    }
}

static void q5_0_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q5_0 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
        bits_write(b[i].qh, r->q + 32 * i, 4);
    }
}

static void q5_1_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q5_1 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].m;
        nibbles_read(r->q + 32 * i, b[i].qs, 16);
        bits_read(r->q + 32 * i, b[i].qh, 4);
    }
}

static void q5_1_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q5_1 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].m = r->m[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
        bits_write(b[i].qh, r->q + 32 * i, 4);
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

static void q2_k_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_q2_k *b = src;
    (void)n;
    r->d[0] = b->d;
    r->m[0] = b->dmin;
    memcpy(r->code, b->scales, sizeof b->scales);
    for (int half = 0; half < 2; half++)
        pairs_read(r->q + 128 * half, b->qs + 32 * half, 32);
}

static void q2_k_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_q2_k *b = dst;
    (void)n;
    b->d = r->d[0];
    b->dmin = r->m[0];
    memcpy(b->scales, r->code, sizeof b->scales);
    for (int half = 0; half < 2; half++)
        pairs_write(b->qs + 32 * half, r->q + 128 * half, 32);
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
    for (int half = 0; half < 2; half++)
        pairs_read(r->q + 128 * half, b->qs + 32 * half, 32);
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
    for (int half = 0; half < 2; half++)
        pairs_write(b->qs + 32 * half, r->q + 128 * half, 32);
    memset(b->hmask, 0, sizeof b->hmask);
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++)
            b->hmask[l] = (uint8_t)(b->hmask[l] | (r->q[32 * j + l] >> 2 & 1) << j);
}

static void tq2_0_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_tq2_0 *b = src;
    (void)n;
    r->d[0] = b->d;
    for (int half = 0; half < 2; half++)
        pairs_read(r->q + 128 * half, b->qs + 32 * half, 32);
}

static void tq2_0_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_tq2_0 *b = dst;
    (void)n;
    b->d = r->d[0];
    for (int half = 0; half < 2; half++)
        pairs_write(b->qs + 32 * half, r->q + 128 * half, 32);
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

static void int2z_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_int2z *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].zero;
        pairs_read(r->q + 32 * i, b[i].q, 8);
    }
}

static void int2z_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_int2z *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].zero = (uint8_t)r->m[i];
        pairs_write(b[i].q, r->q + 32 * i, 8);
    }
}

static void int3z_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_int3z *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].zero;
        pairs_read(r->q + 32 * i, b[i].q, 8);
        bits_read(r->q + 32 * i, b[i].qh, 2);
    }
}

static void int3z_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_int3z *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].zero = (uint8_t)r->m[i];
        pairs_write(b[i].q, r->q + 32 * i, 8);
        bits_write(b[i].qh, r->q + 32 * i, 2);
    }
}

static void int4z_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_int4z *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].zero;
        nibbles_read(r->q + 32 * i, b[i].q, 16);
    }
}

static void int4z_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_int4z *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].zero = (uint8_t)r->m[i];
        nibbles_write(b[i].q, r->q + 32 * i, 16);
    }
}

static void int8z_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_int8z *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].d;
        r->m[i] = b[i].zero;
        memcpy(r->q + 32 * i, b[i].q, 32);
    }
}

static void int8z_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_int8z *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].d = r->d[i];
        b[i].zero = r->m[i];
        memcpy(b[i].q, r->q + 32 * i, 32);
    }
}

static void mxfp4_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_mxfp4 *b = src;
    for (int i = 0; i < n; i++) {
        r->d[i] = b[i].e;
        nibbles_read(r->q + 32 * i, b[i].qs, 16);
    }
}

static void mxfp4_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_mxfp4 *b = dst;
    for (int i = 0; i < n; i++) {
        b[i].e = (uint8_t)r->d[i];
        nibbles_write(b[i].qs, r->q + 32 * i, 16);
    }
}

/* Blocks of 64, sub-blocks of 16. */
static void nvfp4_read(struct row_chunk *r, const void *src, int n)
{
    const struct block_nvfp4 *b = src;
    for (int i = 0; i < 2 * n; i++) {
        r->d[i] = b[i / 4].d[i % 4];
        nibbles_read(r->q + 16 * i, b[i / 4].qs + i % 4 * 8, 8);
    }
}

static void nvfp4_write(void *dst, const struct row_chunk *r, int n)
{
    struct block_nvfp4 *b = dst;
    for (int i = 0; i < 2 * n; i++) {
        b[i / 4].d[i % 4] = (uint8_t)r->d[i];
        nibbles_write(b[i / 4].qs + i % 4 * 8, r->q + 16 * i, 8);
    }
}

#define TABLE_ROW(TYPE, fn, ...) [QTYPE_##TYPE] = {__VA_ARGS__, fn##_read, fn##_write},

#define FIELD_FORMAT_ROW(TYPE, kind, bits, point, ...) \
    [QTYPE_##TYPE] = {.scales = (kind), .low_bits = (bits), .zero = (point)},

const struct pack_format pack_formats[QTYPE_N_MATRIX] = {
    [QTYPE_F32] = {.scales = SCALE_NONE, .low_bits = 32},
    [QTYPE_F16] = {.scales = SCALE_NONE, .low_bits = 16},
    [QTYPE_BF16] = {.scales = SCALE_NONE, .low_bits = 16},
    PACK_FORMATS(TABLE_ROW) FIELD_FORMATS(FIELD_FORMAT_ROW)};

#define FIELDS_ROW(TYPE, kind, bits, point, ...) [QTYPE_##TYPE] = {__VA_ARGS__},

const struct pack_field pack_fields[QTYPE_N_MATRIX][MAX_FIELDS] = {FIELD_FORMATS(FIELDS_ROW)};

#include "model/source.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Names -------------------------------------------------------------------------------------- */

bool source_is_float(const struct tensor *t)
{
    return t->type == QTYPE_F32 || t->type == QTYPE_F16 || t->type == QTYPE_BF16;
}

bool source_name_ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* The tensor whose name is name with `end` replaced by `other`. */
static const struct tensor *sibling(const struct weights *w, const char *name, const char *end,
                                    const char *other)
{
    char full[512];
    int stem = (int)(strlen(name) - strlen(end));
    int n = snprintf(full, sizeof full, "%.*s%s", stem, name, other);
    return n > 0 && n < (int)sizeof full ? weights_find(w, full) : NULL;
}

bool source_is_companion(const struct weights *w, const struct tensor *t)
{
    static const char *const ends[][2] = {{".qzeros", ".qweight"},
                                          {".scales", ".qweight"},
                                          {".g_idx", ".qweight"},
                                          {".weight_scale", ".weight"}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (source_name_ends(t->name, ends[i][0]))
            return sibling(w, t->name, ends[i][0], ends[i][1]) != NULL;
    return false;
}

const char *source_stem(const char *name, size_t *len)
{
    *len = strlen(name);
    if (!source_name_ends(name, ".qweight"))
        return "";
    *len -= strlen("qweight");
    return "weight";
}

/* ---- Opening ------------------------------------------------------------------------------------ */

struct where {
    const struct weights *w;
    char *err;
    size_t errlen;
};

static int fault(const struct where *at, const struct tensor *t, const char *what)
{
    return err_set(at->err, at->errlen, "%s: tensor '%s' %s", weights_path(at->w), t->name, what);
}

static int check_shape(const struct where *at, const struct tensor *t, int64_t cols, int64_t rows)
{
    if (t->dims[0] == cols && t->dims[1] == rows && t->dims[2] == 1 && t->dims[3] == 1)
        return 0;
    return err_set(at->err, at->errlen,
                   "%s: tensor '%s' has shape [%" PRId64 ", %" PRId64
                   "], the hyper-parameters imply [%" PRId64 ", %" PRId64 "]",
                   weights_path(at->w), t->name, t->dims[0], t->dims[1], cols, rows);
}

static float float_at(const struct tensor *t, int64_t i)
{
    float v;
    qtypes[t->type].to_f32(&v, (const char *)t->data + (uint64_t)i * (uint64_t)qtypes[t->type].block_bytes,
                           1);
    return v;
}

/* Scales become half floats (which THUDM's, GPTQ's and AWQ's are): none may overflow. */
static int check_scales(const struct where *at, const struct tensor *t, int64_t cols, int64_t rows)
{
    if (t->type != QTYPE_F16 && t->type != QTYPE_BF16 && t->type != QTYPE_F32)
        return fault(at, t, "has scales of a type that is no float");
    if (check_shape(at, t, cols, rows))
        return -1;
    for (int64_t i = 0; i < cols * rows; i++)
        if (!(fabsf(float_at(t, i)) < 65520.0f)) /* what rounds to infinity */
            return fault(at, t, "has a scale that is not finite as a half float");
    return 0;
}

static uint16_t scale_at(const struct tensor *t, int64_t i)
{
    uint16_t h;
    if (t->type != QTYPE_F16)
        return f32_to_f16(float_at(t, i));
    memcpy(&h, (const char *)t->data + 2 * i, sizeof h);
    return h;
}

static uint32_t word_at(const struct tensor *t, int64_t i)
{
    uint32_t v;
    memcpy(&v, (const char *)t->data + 4 * i, sizeof v);
    return v;
}

/* THUDM's int8 and int4, and llama2.c's version 2. */
static int open_scaled(struct source *s, const struct where *at, int64_t total)
{
    const struct tensor *t = s->tensor;
    s->scales = sibling(at->w, t->name, ".weight", ".weight_scale");
    if (!s->scales)
        return fault(at, t, "has type i8, which is a weight only with a weight_scale beside it");
    if (s->cols % ACT_LEN)
        return fault(at, t, "is quantised, but its width is no multiple of 32");
    bool nibbles = t->dims[0] * 2 == s->cols;
    if (check_shape(at, t, nibbles ? s->cols / 2 : s->cols, total))
        return -1;
    int64_t per_row = s->scales->n_dims == 1 ? 1 : s->scales->dims[0];
    if (per_row < 1 || s->cols % per_row || s->cols / per_row % ACT_LEN)
        return fault(at, s->scales, "has groups that are no multiple of 32 columns");
    if (s->scales->n_dims == 1 ? check_scales(at, s->scales, total, 1)
                               : check_scales(at, s->scales, per_row, total))
        return -1;
    s->group = (int)(s->cols / per_row);
    s->kind = nibbles ? SOURCE_INT4 : SOURCE_INT8;
    s->type = nibbles ? QTYPE_Q4_0 : QTYPE_Q8_0;
    return 0;
}

/* Columns in order of their groups; every group must be whole, for a block has one scale. */
static int sort_columns(struct source *s, const struct where *at, int n_groups)
{
    const struct tensor *g = s->order;
    bool in_order = true;
    int32_t *next = calloc((size_t)n_groups + 1, sizeof *next);
    s->sorted = malloc((size_t)s->cols * sizeof *s->sorted);
    int rc = next && s->sorted ? 0 : err_set(at->err, at->errlen, "%s: out of memory", weights_path(at->w));
    for (int64_t i = 0; rc == 0 && i < s->cols; i++) {
        uint32_t group = word_at(g, i);
        if (group >= (uint32_t)n_groups)
            rc = fault(at, g, "has a group that there are no scales for");
        else
            next[group + 1]++;
        in_order &= group == (uint32_t)(i / s->group);
    }
    for (int i = 1; rc == 0 && i <= n_groups; i++) {
        if (next[i] % ACT_LEN)
            rc = fault(at, g, "has groups that are no multiple of 32 columns");
        next[i] += next[i - 1];
    }
    for (int64_t i = 0; rc == 0 && i < s->cols; i++)
        s->sorted[next[word_at(g, i)]++] = (int32_t)i;
    free(next);
    if (rc || in_order) {
        free(s->sorted);
        s->sorted = NULL;
    }
    return rc;
}

/* What the checkpoint's configuration says of its quantisation, under either file's key. */
static const struct meta *quant_meta(const struct weights *w, const char *name)
{
    char key[128];
    (void)snprintf(key, sizeof key, "config.quantization_config.%s", name);
    return weights_meta_find(w, key);
}

static bool quant_is(const struct weights *w, const char *name, const char *value)
{
    const struct meta *m = quant_meta(w, name);
    struct wstr v;
    return m && meta_str(m, 0, &v) && v.len == strlen(value) && memcmp(v.s, value, v.len) == 0;
}

static int zero_of(const struct source *s, int64_t row, int64_t group);

/* Symmetric checkpoints, whose zero points are all in the middle, need none in memory. */
static enum qtype packed_type(const struct source *s, int64_t n_groups)
{
    static const enum qtype types[] = {
        [2] = QTYPE_INT2Z, [3] = QTYPE_INT3Z, [4] = QTYPE_INT4Z, [8] = QTYPE_INT8Z};
    if (s->bits != 4 && s->bits != 8)
        return types[s->bits];
    for (int64_t g = 0; g < n_groups; g++)
        for (int64_t r = 0; r < s->rows; r++)
            if (zero_of(s, r, g) != 1 << (s->bits - 1))
                return types[s->bits];
    return s->bits == 4 ? QTYPE_Q4_0 : QTYPE_Q8_0;
}

static int open_packed(struct source *s, const struct where *at, int64_t total)
{
    const struct tensor *t = s->tensor;
    bool awq = quant_is(at->w, "quant_method", "awq");
    int64_t bits;
    const struct meta *m = quant_meta(at->w, "bits");
    if (!m)
        m = quant_meta(at->w, "w_bit"); /* AWQ's own file */
    if (!m || !meta_int(m, 0, &bits) || (bits != 2 && bits != 3 && bits != 4 && bits != 8) ||
        (awq && bits != 4))
        return err_set(at->err, at->errlen, "%s: key 'config.quantization_config.bits' must be %s",
                       weights_path(at->w), awq ? "4" : "2, 3, 4 or 8");
    if (awq && quant_meta(at->w, "version") && !quant_is(at->w, "version", "gemm") &&
        !quant_is(at->w, "version", "GEMM"))
        return err_set(at->err, at->errlen,
                       "%s: key 'config.quantization_config.version': only AWQ's GEMM packing is supported",
                       weights_path(at->w));
    s->kind = awq ? SOURCE_AWQ : SOURCE_GPTQ;
    s->bits = (int)bits;
    s->zero_offset = awq || quant_is(at->w, "checkpoint_format", "gptq_v2") ? 0 : 1;
    s->scales = sibling(at->w, t->name, ".qweight", ".scales");
    s->zeros = sibling(at->w, t->name, ".qweight", ".qzeros");
    s->order = sibling(at->w, t->name, ".qweight", ".g_idx");
    if (!s->scales || !s->zeros)
        return fault(at, t, "is quantised, but its scales or qzeros are missing");
    if (t->type != QTYPE_I32 || s->zeros->type != QTYPE_I32 || (s->order && s->order->type != QTYPE_I32))
        return fault(at, t, "and its zeros and groups must be of 32-bit integers");
    if (s->cols % ACT_LEN || total * bits % 32)
        return fault(at, t, "is quantised, but its shape is no multiple of 32");

    int64_t n_groups = s->scales->dims[1];
    if (n_groups < 1 || s->cols % n_groups || s->cols / n_groups % ACT_LEN)
        return fault(at, s->scales, "has groups that are no multiple of 32 columns");
    s->group = (int)(s->cols / n_groups);
    if (awq ? check_shape(at, t, total / 8, s->cols) : check_shape(at, t, total, s->cols * bits / 32))
        return -1;
    if (check_shape(at, s->zeros, total * bits / 32, n_groups) ||
        check_scales(at, s->scales, total, n_groups) ||
        (s->order && (check_shape(at, s->order, s->cols, 1) || sort_columns(s, at, (int)n_groups))))
        return -1;
    s->type = packed_type(s, n_groups);
    return 0;
}

int source_open(struct source *s, const struct weights *w, int64_t total, enum qtype quantise, char *err,
                size_t errlen)
{
    const struct where at = {w, err, errlen};
    const struct tensor *t = s->tensor;
    if (source_name_ends(t->name, ".qweight"))
        return open_packed(s, &at, total);
    if (t->type == QTYPE_I8)
        return open_scaled(s, &at, total);
    s->kind = SOURCE_PLAIN;
    s->type = t->type;
    if (source_is_float(t) && quantise != QTYPE_F32 && s->cols % qtypes[quantise].block_len == 0) {
        s->quantise = true;
        s->type = quantise;
    }
    return 0;
}

void source_close(struct source *s)
{
    free(s->sorted);
    s->sorted = NULL;
}

/* ---- Rows --------------------------------------------------------------------------------------- */

int64_t source_row(const struct source *s, int64_t r)
{
    if (s->pair_len) {
        int64_t in_head = r % s->head_len;
        if (in_head < s->pair_len)
            r += in_head % 2 * (s->pair_len / 2) + in_head / 2 - in_head;
    }
    return s->first + r / s->run * s->stride + r % s->run;
}

static bool is_contiguous(const struct source *s, int64_t row, int64_t n)
{
    return !s->pair_len && row / s->run == (row + n - 1) / s->run;
}

const void *source_direct(const struct source *s, int64_t row, int64_t n)
{
    if (s->kind != SOURCE_PLAIN || s->quantise || !is_contiguous(s, row, n))
        return NULL;
    return (const char *)s->tensor->data + source_row(s, row) * qtype_bytes(s->type, s->cols);
}

void source_range(const struct source *s, int64_t row, int64_t n, uint64_t *from, uint64_t *bytes)
{
    *from = *bytes = 0;
    if (s->kind == SOURCE_GPTQ || s->kind == SOURCE_AWQ || !is_contiguous(s, row, n))
        return;
    const struct tensor *t = s->tensor;
    uint64_t row_bytes = (uint64_t)qtype_bytes(t->type, t->dims[0]);
    *from = (uint64_t)source_row(s, row) * row_bytes;
    *bytes = (uint64_t)n * row_bytes;
}

/* Bits of a stream of codes packed in 32-bit words that lie `step` words apart. */
static int code_at(const struct tensor *t, int64_t base, int64_t step, int64_t i, int bits)
{
    int64_t bit = i * bits;
    int shift = (int)(bit % 32);
    uint32_t v = word_at(t, base + bit / 32 * step) >> shift;
    if (shift + bits > 32) /* 3 bits may lie across two words */
        v |= word_at(t, base + (bit / 32 + 1) * step) << (32 - shift);
    return (int)(v & ((1u << bits) - 1));
}

/* Which nibble of a word holds column i % 8 of AWQ's packing: the word's nibbles are columns 0 2 4 6 1 3 5 7.
 */
static int awq_nibble(int64_t i)
{
    return (int)(i % 8 / 2 + i % 2 * 4);
}

static int zero_of(const struct source *s, int64_t row, int64_t group)
{
    int64_t r = source_row(s, row);
    if (s->kind == SOURCE_AWQ)
        return (int)(word_at(s->zeros, group * s->zeros->dims[0] + r / 8) >> 4 * awq_nibble(r) & 15);
    return code_at(s->zeros, group * s->zeros->dims[0], 1, r, s->bits) + s->zero_offset;
}

/* One block of 32 codes, as its type has them. */
static void write_block(const struct source *s, void *dst, uint16_t d, int zero, const uint8_t q[ACT_LEN])
{
    switch (s->type) {
    case QTYPE_Q4_0: {
        struct block_q4_0 *b = dst;
        memcpy(&b->d, &d, sizeof d);
        for (int i = 0; i < 16; i++)
            b->qs[i] = (uint8_t)(q[i] | q[i + 16] << 4);
        break;
    }
    case QTYPE_Q8_0: {
        struct block_q8_0 *b = dst;
        memcpy(&b->d, &d, sizeof d);
        for (int i = 0; i < ACT_LEN; i++)
            b->qs[i] = (int8_t)(q[i] - 128);
        break;
    }
    case QTYPE_INT8Z: {
        struct block_int8z *b = dst;
        b->d = d;
        b->zero = (uint16_t)zero;
        memcpy(b->q, q, ACT_LEN);
        break;
    }
    case QTYPE_INT4Z: {
        struct block_int4z *b = dst;
        b->d = d;
        b->zero = (uint8_t)zero;
        for (int i = 0; i < 16; i++)
            b->q[i] = (uint8_t)(q[i] | q[i + 16] << 4);
        break;
    }
    case QTYPE_INT3Z: {
        struct block_int3z *b = dst;
        b->d = d;
        b->zero = (uint8_t)zero;
        memset(b->qh, 0, sizeof b->qh);
        for (int i = 0; i < ACT_LEN; i++)
            b->qh[i / 8] = (uint8_t)(b->qh[i / 8] | (q[i] >> 2) << i % 8);
        for (int i = 0; i < 8; i++)
            b->q[i] =
                (uint8_t)((q[i] & 3) | (q[i + 8] & 3) << 2 | (q[i + 16] & 3) << 4 | (q[i + 24] & 3) << 6);
        break;
    }
    default: { /* QTYPE_INT2Z */
        struct block_int2z *b = dst;
        b->d = d;
        b->zero = (uint8_t)zero;
        for (int i = 0; i < 8; i++)
            b->q[i] = (uint8_t)(q[i] | q[i + 8] << 2 | q[i + 16] << 4 | q[i + 24] << 6);
        break;
    }
    }
}

/* The 32 codes of row `out` from column `first` on. */
static void read_codes(const struct source *s, int64_t out, int64_t first, uint8_t q[ACT_LEN])
{
    const struct tensor *t = s->tensor;
    if (s->kind == SOURCE_GPTQ && !s->sorted && 32 % s->bits == 0) { /* whole words, the usual case */
        const int per_word = 32 / s->bits;
        for (int k = 0; k < s->bits; k++) {
            uint32_t word = word_at(t, (first * s->bits / 32 + k) * t->dims[0] + out);
            for (int i = 0; i < per_word; i++, word >>= s->bits)
                q[k * per_word + i] = (uint8_t)(word & ((1u << s->bits) - 1));
        }
        return;
    }
    for (int i = 0; i < ACT_LEN; i++) {
        int64_t col = s->sorted ? s->sorted[first + i] : first + i;
        if (s->kind == SOURCE_AWQ)
            q[i] = (uint8_t)(word_at(t, col * t->dims[0] + out / 8) >> 4 * awq_nibble(out) & 15);
        else
            q[i] = (uint8_t)code_at(t, out, t->dims[0], col, s->bits);
    }
}

/* GPTQ and AWQ: n rows that the caller keeps few, because codes of neighbouring rows share cache lines. */
static void packed_rows(const struct source *s, int64_t row, int64_t n, char *dst)
{
    const int64_t row_bytes = qtype_bytes(s->type, s->cols), block_bytes = qtypes[s->type].block_bytes;
    for (int64_t b = 0; b < s->cols / ACT_LEN; b++)
        for (int64_t r = row; r < row + n; r++) {
            int64_t out = source_row(s, r), first = b * ACT_LEN;
            int64_t group = s->sorted ? word_at(s->order, s->sorted[first]) : first / s->group;
            uint8_t q[ACT_LEN];
            read_codes(s, out, first, q);
            write_block(s, dst + (r - row) * row_bytes + b * block_bytes,
                        scale_at(s->scales, group * s->scales->dims[0] + out), zero_of(s, r, group), q);
        }
}

static void scaled_row(const struct source *s, int64_t r, char *dst)
{
    const int64_t block_bytes = qtypes[s->type].block_bytes, n_groups = s->cols / s->group;
    const uint8_t *src = (const uint8_t *)s->tensor->data + r * s->tensor->dims[0];
    for (int64_t b = 0; b < s->cols / ACT_LEN; b++) {
        uint8_t q[ACT_LEN]; /* codes without sign: 8 or 128 more */
        for (int i = 0; i < ACT_LEN; i++) {
            int64_t col = b * ACT_LEN + i;
            if (s->kind == SOURCE_INT4)
                q[i] = (uint8_t)(src[col / 2] >> (col % 2 ? 0 : 4) & 15) ^ 8;
            else
                q[i] = src[col] ^ 128;
        }
        write_block(s, dst + b * block_bytes, scale_at(s->scales, r * n_groups + b * ACT_LEN / s->group), 0,
                    q);
    }
}

void source_rows(const struct source *s, int64_t row, int64_t n, void *dst, float *scratch)
{
    enum { FEW = 16 };
    const int64_t row_bytes = qtype_bytes(s->type, s->cols);
    char *out = dst;
    if (s->kind == SOURCE_GPTQ || s->kind == SOURCE_AWQ) {
        for (int64_t i = 0; i < n; i += FEW)
            packed_rows(s, row + i, n - i < FEW ? n - i : FEW, out + i * row_bytes);
        return;
    }
    const enum qtype from = s->tensor->type;
    for (int64_t i = 0; i < n; i++, out += row_bytes) {
        int64_t r = source_row(s, row + i);
        if (s->kind != SOURCE_PLAIN) {
            scaled_row(s, r, out);
            continue;
        }
        const char *src = (const char *)s->tensor->data + r * qtype_bytes(from, s->cols);
        if (s->quantise) {
            qtypes[from].to_f32(scratch, src, s->cols);
            qtypes[s->type].from_f32(out, scratch, s->cols);
        } else {
            memcpy(out, src, (size_t)row_bytes);
        }
    }
}

void source_floats(const struct source *s, int64_t row, float *dst, float *room)
{
    char *bytes = (char *)(room + s->cols); /* no type takes more than a float per element */
    float *values = s->sorted ? room : dst;
    source_rows(s, row, 1, bytes, room);
    qtypes[s->type].to_f32(values, bytes, s->cols);
    if (s->sorted)
        for (int64_t j = 0; j < s->cols; j++)
            dst[s->sorted[j]] = values[j];
}

void source_vector(const struct source *s, float *dst)
{
    const struct tensor *t = s->tensor;
    for (int64_t i = 0; i < s->cols; i++)
        dst[i] = float_at(t, source_row(s, i)) + s->plus;
}

/* Kernels of attention over one block of 64 positions, 16 lanes at a time: the same sums as
 * attention_scalar.c. Included by attention_<isa>.c, which first defines LEVEL(name) and MAX_ROWS, 6 or 12:
 * how many rows of a product fit in the level's registers.
 *
 * Scores and values are one product C = A B: A are query rows or probabilities; B, in panels of 16
 * columns, are keys (a row per element of the head, 16 positions wide) or values (a row per position, 16
 * channels wide). */
#include "kernels/kv.h"
#include "kernels/lanes16.h"

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

struct product {
    int n; /* length of the sums */
    const float *a;
    int a_stride;
    const void *b; /* panel j, row i: 16 elements at j · b_panel + i · b_stride */
    int b_stride, b_panel;
    bool b_f16;
    bool add; /* goes on with the sums that C holds */
    float *c; /* panel j, row r: at r · c_stride + 16 j */
    int c_stride;
    const uint8_t *next; /* what is read after B, prefetched at the pace of B; NULL: nothing */
};

LANES_INLINE vec load_b(const uint8_t *b, bool f16)
{
    return f16 ? vec_load_f16((const uint16_t *)(const void *)b) : vec_load((const float *)(const void *)b);
}

/* With n_rows and n_panels constant the sums stay in registers. Which operand is kept beside them, and which
 * passes through one register, is chosen so that all fit: up to three rows keep A. */
LANES_INLINE void product_tile(const struct product *p, int n_rows, int n_panels, bool f16)
{
    enum { MAX_VECS = 32 / VEC_LEN };
    const int n_vecs = n_panels * 16 / VEC_LEN, elem = f16 ? 2 : 4;
    const int64_t a_stride = p->a_stride, c_stride = p->c_stride;
    const int64_t b_stride = (int64_t)p->b_stride * elem, b_panel = (int64_t)p->b_panel * elem;
    vec acc[MAX_ROWS][MAX_VECS];
    UNROLL
    for (int r = 0; r < n_rows; r++) {
        UNROLL
        for (int j = 0; j < n_vecs; j++)
            acc[r][j] = p->add ? vec_load(p->c + r * c_stride + VEC_LEN * j) : vec_set1(0);
    }
    const float *a = p->a, *a_end = a + p->n;
    const uint8_t *b = p->b, *next = p->next ? p->next : p->b;
    const int64_t next_step = p->next ? n_panels * 16 * elem : 0;
    for (; a < a_end; a++, b += b_stride, next += next_step) {
        vec x[3], y[MAX_VECS];
        _mm_prefetch((const char *)next, _MM_HINT_T0);
        UNROLL
        for (int r = 0; r < n_rows && n_rows <= 3; r++)
            x[r] = vec_set1(a[r * a_stride]);
        UNROLL
        for (int j = 0; j < n_vecs; j++) {
            y[j] = load_b(b + j * VEC_LEN / 16 * b_panel + j * VEC_LEN % 16 * elem, f16);
            UNROLL
            for (int r = 0; r < n_rows && n_rows <= 3; r++)
                acc[r][j] = vec_fma(x[r], y[j], acc[r][j]);
        }
        UNROLL
        for (int r = 0; r < n_rows && n_rows > 3; r++) {
            vec z = vec_set1(a[r * a_stride]);
            UNROLL
            for (int j = 0; j < n_vecs; j++)
                acc[r][j] = vec_fma(z, y[j], acc[r][j]);
        }
    }
    UNROLL
    for (int r = 0; r < n_rows; r++) {
        UNROLL
        for (int j = 0; j < n_vecs; j++)
            vec_store(p->c + r * c_stride + VEC_LEN * j, acc[r][j]);
    }
}

#define PRODUCT_TILE(rows, panels)                                 \
    static void product_##rows##x##panels(const struct product *p) \
    {                                                              \
        if (p->b_f16)                                              \
            product_tile(p, rows, panels, true);                   \
        else                                                       \
            product_tile(p, rows, panels, false);                  \
    }
PRODUCT_TILE(1, 1)
PRODUCT_TILE(2, 1)
PRODUCT_TILE(3, 1)
PRODUCT_TILE(4, 1)
PRODUCT_TILE(5, 1)
PRODUCT_TILE(6, 1)
PRODUCT_TILE(1, 2)
PRODUCT_TILE(2, 2)
PRODUCT_TILE(3, 2)
#if MAX_ROWS > 6
PRODUCT_TILE(7, 1)
PRODUCT_TILE(8, 1)
PRODUCT_TILE(9, 1)
PRODUCT_TILE(10, 1)
PRODUCT_TILE(11, 1)
PRODUCT_TILE(12, 1)
PRODUCT_TILE(4, 2)
PRODUCT_TILE(5, 2)
PRODUCT_TILE(6, 2)
PRODUCT_TILE(7, 2)
PRODUCT_TILE(8, 2)
PRODUCT_TILE(9, 2)
PRODUCT_TILE(10, 2)
PRODUCT_TILE(11, 2)
PRODUCT_TILE(12, 2)
#endif

typedef void product_fn(const struct product *p);

/* By rows and panels. */
static product_fn *const product_tiles[MAX_ROWS + 1][3] = {
    [1] = {NULL, product_1x1, product_1x2},    [2] = {NULL, product_2x1, product_2x2},
    [3] = {NULL, product_3x1, product_3x2},
#if MAX_ROWS > 6
    [4] = {NULL, product_4x1, product_4x2},    [5] = {NULL, product_5x1, product_5x2},
    [6] = {NULL, product_6x1, product_6x2},    [7] = {NULL, product_7x1, product_7x2},
    [8] = {NULL, product_8x1, product_8x2},    [9] = {NULL, product_9x1, product_9x2},
    [10] = {NULL, product_10x1, product_10x2}, [11] = {NULL, product_11x1, product_11x2},
    [12] = {NULL, product_12x1, product_12x2},
#else
    [4] = {NULL, product_4x1, NULL},        [5] = {NULL, product_5x1, NULL},
    [6] = {NULL, product_6x1, NULL},
#endif
};

/* n_rows ≤ MAX_ROWS rows by one or two panels. */
static void product(struct product p, int n_rows, int n_panels)
{
    product_fn *run = product_tiles[n_rows][n_panels];
    if (run) {
        run(&p);
        return;
    }
    const int elem = p.b_f16 ? 2 : 4;
    run = product_tiles[n_rows][1];
    run(&p);
    p.b = (const uint8_t *)p.b + (int64_t)p.b_panel * elem;
    p.next = p.next ? p.next + p.n * 16 * elem : NULL;
    p.c += 16;
    run(&p);
}

/* Rows go in groups of equal size, as far as that goes: a small last group would leave the processor waiting
 * for one sum after the other. */
static int rows_step(int n_rows)
{
    int n_groups = (n_rows + MAX_ROWS - 1) / MAX_ROWS;
    return (n_rows + n_groups - 1) / n_groups;
}

/* What the rows from r on, n of them, see: any of them, and all of them. */
struct range {
    int begin, end, all_begin, all_end;
};

static struct range rows_range(const struct attention_block *a, int r, int n)
{
    struct range g = {KV_PAGE, 0, 0, KV_PAGE};
    for (int i = r; i < r + n; i++) {
        g.begin = a->begin[i] < g.begin ? a->begin[i] : g.begin;
        g.end = a->end[i] > g.end ? a->end[i] : g.end;
        g.all_begin = a->begin[i] > g.all_begin ? a->begin[i] : g.all_begin;
        g.all_end = a->end[i] < g.all_end ? a->end[i] : g.all_end;
    }
    return g;
}

/* With few rows, one token's, reading is what takes the time: half floats are used where they lie and the
 * next data prefetched. With many, converting them once saves more. */
enum { FEW_ROWS = 2 * MAX_ROWS };

/* ---- Scores ------------------------------------------------------------------------------------ */

/* Two tiles of 16 positions at a time. */
LANES_INLINE void scores_float(const struct attention_block *a, bool f16)
{
    const int pair = 2 * TILE_ROWS, panel = TILE_ROWS * a->head_dim, step = rows_step(a->n_rows);
    struct range all = rows_range(a, 0, a->n_rows);
    bool convert = f16 && a->n_rows > FEW_ROWS;
    struct product p = {.n = a->head_dim,
                        .a_stride = a->head_dim,
                        .b_stride = TILE_ROWS,
                        .b_panel = panel,
                        .b_f16 = f16 && !convert,
                        .c_stride = KV_PAGE};
    for (int begin = all.begin / pair * pair; begin < all.end; begin += pair) {
        const int64_t offset = (int64_t)begin * a->head_dim * (f16 ? 2 : 4);
        const void *keys = (const uint8_t *)a->k + offset;
        if (convert) {
            for (int i = 0; i < 2 * panel; i += 16)
                v16_store(a->tmp + i, v16_load_f16((const uint16_t *)keys + i));
            keys = a->tmp;
        }
        for (int r = 0; r < a->n_rows; r += step) {
            int n = a->n_rows - r < step ? a->n_rows - r : step;
            struct range g = rows_range(a, r, n);
            int first = g.begin < begin + TILE_ROWS ? 0 : 1, last = g.end > begin + TILE_ROWS ? 2 : 1;
            if (g.end <= begin || g.begin >= begin + pair)
                continue;
            p.a = a->q + r * a->head_dim;
            p.b = (const uint8_t *)keys + (int64_t)first * panel * (p.b_f16 ? 2 : 4);
            p.c = a->s + r * KV_PAGE + begin + TILE_ROWS * first;
            p.next = r == 0 && a->n_rows <= FEW_ROWS ? (const uint8_t *)a->v + offset : NULL;
            product(p, n, last - first);
        }
    }
}

void LEVEL(attention_scores_f32)(const struct attention_block *a)
{
    scores_float(a, false);
}

void LEVEL(attention_scores_f16)(const struct attention_block *a)
{
    scores_float(a, true);
}

/* ---- Probabilities ----------------------------------------------------------------------------- */

void LEVEL(attention_softmax)(const struct attention_block *a)
{
    const v16 scale = v16_set1(a->scale), lowest = v16_set1(-INFINITY);
    for (int r = 0; r < a->n_rows; r++) {
        int begin = a->begin[r], end = a->end[r];
        if (begin >= end)
            continue;
        float *p = a->s + r * KV_PAGE;
        v16 s[4], max = lowest, l = v16_zero();
        UNROLL
        for (int t = 0; t < 4; t++) {
            s[t] = v16_mul(v16_load(p + 16 * t), scale);
            if (a->softcap != 0)
                s[t] = v16_softcap(s[t], a->softcap);
            s[t] = v16_keep(s[t], begin - 16 * t, end - 16 * t, lowest);
            max = v16_max(max, s[t]);
        }
        float m = v16_max_lane(max);
        UNROLL
        for (int t = 0; t < 4; t++) {
            s[t] = v16_exp(v16_sub(s[t], v16_set1(m)));
            s[t] = v16_keep(s[t], begin - 16 * t, end - 16 * t, v16_zero());
            l = v16_add(l, s[t]);
            v16_store(p + 16 * t, s[t]);
        }
        a->m[r] = m;
        a->l[r] = v16_sum(l);
    }
}

/* ---- Values ------------------------------------------------------------------------------------ */

enum { CHANNELS = 32 }; /* two panels; and a block of the quantised types */

/* C = A B for all rows, B having KV_PAGE rows: each row's sum runs over what it sees. */
static void values_product(const struct attention_block *a, struct product p, int n_panels)
{
    const float *probabilities = p.a, *out = p.c;
    const uint8_t *values = p.b, *next = p.next;
    int64_t value_bytes = (int64_t)p.b_stride * (p.b_f16 ? 2 : 4);
    const int step = rows_step(a->n_rows);
    for (int r = 0; r < a->n_rows; r += step) {
        int n = a->n_rows - r < step ? a->n_rows - r : step;
        struct range g = rows_range(a, r, n);
        /* Rows that begin together share the positions that all of them see. */
        int shared = g.begin == g.all_begin && g.all_begin < g.all_end ? g.all_end - g.begin : 0;
        if (shared > 0) {
            p.n = shared;
            p.a = probabilities + r * KV_PAGE + g.begin;
            p.b = values + g.begin * value_bytes;
            p.c = (float *)out + r * p.c_stride;
            p.add = false;
            p.next = r == 0 ? next : NULL;
            product(p, n, n_panels);
        }
        for (int i = r; i < r + n; i++) {
            int begin = a->begin[i] + shared, end = a->end[i];
            if (begin >= end)
                continue;
            p.n = end - begin;
            p.a = probabilities + i * KV_PAGE + begin;
            p.b = values + begin * value_bytes;
            p.c = (float *)out + i * p.c_stride;
            p.add = shared > 0;
            p.next = NULL;
            product(p, 1, n_panels);
        }
    }
}

/* Channels from c on, n ≤ CHANNELS of them, of one position; zeros up to the whole panel. */
LANES_INLINE void widen(float *dst, const void *row, int c, int n, bool f16)
{
    int i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(dst + i,
                  f16 ? v16_load_f16((const uint16_t *)row + c + i) : v16_load((const float *)row + c + i));
    for (; i % 16 != 0 || i < n; i++)
        dst[i] = i >= n ? 0 : f16 ? _cvtsh_ss(((const uint16_t *)row)[c + i]) : ((const float *)row)[c + i];
}

/* Values are used where they lie, or copied as floats: for many rows, or when a value is no whole number of
 * panels. */
LANES_INLINE void values_float(const struct attention_block *a, bool f16)
{
    struct range all = rows_range(a, 0, a->n_rows);
    bool copy = a->n_rows > FEW_ROWS || a->head_dim % 16 != 0;
    const int bytes = f16 ? 2 : 4;
    for (int c = 0; c < a->o_stride; c += CHANNELS) {
        int n = a->head_dim - c < CHANNELS ? a->head_dim - c : CHANNELS;
        struct product p = {.a = a->s,
                            .a_stride = KV_PAGE,
                            .b = (const uint8_t *)a->v + c * bytes,
                            .b_stride = a->head_dim,
                            .b_panel = 16,
                            .b_f16 = f16,
                            .c = a->o + c,
                            .c_stride = a->o_stride,
                            .next = a->next_k ? (const uint8_t *)a->next_k + c * KV_PAGE * bytes : NULL};
        if (copy) {
            for (int i = all.begin; i < all.end; i++)
                widen(a->tmp + i * CHANNELS, (const uint8_t *)a->v + (int64_t)i * a->head_dim * bytes, c, n,
                      f16);
            p.b = a->tmp;
            p.b_stride = CHANNELS;
            p.b_f16 = false;
            p.next = NULL;
        }
        values_product(a, p, (n + 15) / 16);
    }
}

void LEVEL(attention_values_f32)(const struct attention_block *a)
{
    values_float(a, false);
}

void LEVEL(attention_values_f16)(const struct attention_block *a)
{
    values_float(a, true);
}

/* Quants and scale of one block as floats; the result is the scale. */
typedef float read_block_fn(float *q, const void *block);

LANES_INLINE float read_q8_0(float *q, const void *block)
{
    const struct block_q8_0 *b = block;
    v16_store(q, v16_from_i8(_mm_loadu_si128((const __m128i *)(const void *)b->qs)));
    v16_store(q + 16, v16_from_i8(_mm_loadu_si128((const __m128i *)(const void *)(b->qs + 16))));
    return _cvtsh_ss(b->d);
}

LANES_INLINE float read_q4_0(float *q, const void *block)
{
    const struct block_q4_0 *b = block;
    const __m128i low = _mm_set1_epi8(15), zero = _mm_set1_epi8(8);
    __m128i pairs = _mm_loadu_si128((const __m128i *)(const void *)b->qs);
    v16_store(q, v16_from_i8(_mm_sub_epi8(_mm_and_si128(pairs, low), zero)));
    v16_store(q + 16, v16_from_i8(_mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(pairs, 4), low), zero)));
    return _cvtsh_ss(b->d);
}

/* Per block of 32 channels: probabilities times the positions' scales, times the quants. */
LANES_INLINE void values_quantised(const struct attention_block *a, int block_bytes,
                                   read_block_fn *read_block)
{
    struct range all = rows_range(a, 0, a->n_rows);
    int n_blocks = a->head_dim / CHANNELS;
    float d[KV_PAGE] = {0}, *quants = a->tmp, *scaled = a->tmp + KV_PAGE * CHANNELS;
    for (int b = 0; b < n_blocks; b++) {
        for (int i = all.begin; i < all.end; i++) {
            int64_t offset = ((int64_t)i * n_blocks + b) * block_bytes;
            d[i] = read_block(quants + i * CHANNELS, (const uint8_t *)a->v + offset);
            _mm_prefetch((const char *)(a->next_k ? a->next_k : a->v) + offset, _MM_HINT_T0);
        }
        for (int r = 0; r < a->n_rows; r++)
            for (int i = 0; i < KV_PAGE; i += 16)
                v16_store(scaled + r * KV_PAGE + i,
                          v16_mul(v16_load(a->s + r * KV_PAGE + i), v16_load(d + i)));
        struct product p = {.a = scaled,
                            .a_stride = KV_PAGE,
                            .b = quants,
                            .b_stride = CHANNELS,
                            .b_panel = 16,
                            .c = a->o + b * CHANNELS,
                            .c_stride = a->o_stride};
        values_product(a, p, CHANNELS / 16);
    }
}

void LEVEL(attention_values_q8_0)(const struct attention_block *a)
{
    values_quantised(a, sizeof(struct block_q8_0), read_q8_0);
}

void LEVEL(attention_values_q4_0)(const struct attention_block *a)
{
    values_quantised(a, sizeof(struct block_q4_0), read_q4_0);
}

/* ---- Running results --------------------------------------------------------------------------- */

void LEVEL(attention_merge)(float *o, float *m, float *l, const float *o_b, float m_b, float l_b, int n)
{
    float max = m_b > *m ? m_b : *m;
    float old = mathf_exp(*m - max), new = mathf_exp(m_b - max);
    v16 olds = v16_set1(old), news = v16_set1(new);
    int c = 0;
    for (; c + 16 <= n; c += 16)
        v16_store(o + c, v16_fma(v16_load(o + c), olds, v16_mul(v16_load(o_b + c), news)));
    for (; c < n; c++)
        o[c] = fmaf(o[c], old, o_b[c] * new);
    *l = fmaf(*l, old, l_b * new);
    *m = max;
}

void LEVEL(attention_finish)(float *out, const float *o, float l, int n)
{
    v16 ls = v16_set1(l);
    int c = 0;
    for (; c + 16 <= n; c += 16)
        v16_store(out + c, v16_div(v16_load(o + c), ls));
    for (; c < n; c++)
        out[c] = o[c] / l;
}

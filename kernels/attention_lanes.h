/* Kernels of attention over one block of 64 positions, 16 lanes at a time: the same sums as
 * attention_scalar.c. Included by attention_<isa>.c, which first defines LEVEL(name) and MAX_ROWS, 6 or 12:
 * how many rows of a product fit in the level's registers.
 *
 * Scores and values are one product C = A B: A are query rows or probabilities; B, in panels of 16
 * columns, are keys (a row per element of the head, 16 positions wide) or values (a row per position, 16
 * channels wide). */
#include "kernels/kv.h"
#include "kernels/lanes16.h"

/* The rows of a product; with `ragged`, what each of them sees of B and where its sums go. */
struct product {
    int begin, end; /* the rows of B that every row of A takes in: its sums go over them */
    const float *a; /* row r, element i: at r · a_stride + i */
    int a_stride;
    const void *b; /* panel j, row i: 16 elements at j · b_panel + i · b_stride */
    int b_stride, b_panel;
    bool b_f16;
    float *c; /* panel j, row r: at r · c_stride + 16 j */
    int c_stride;
    const uint8_t *next; /* what is read after B, prefetched at the pace of B; NULL: nothing */
    int next_step;
    /* Ragged only, by row. */
    const uint8_t *first, *last; /* of the rows of B that it takes in, outside begin … end too */
    const bool *merge;           /* NULL: no row's */
    const float *old, *new;      /* C = C · old + A B · new */
};

LANES_INLINE vec load_b(const uint8_t *b, bool f16)
{
    return f16 ? vec_load_f16((const uint16_t *)(const void *)b) : vec_load((const float *)(const void *)b);
}

/* C = A B. With n_rows and n_panels constant the sums stay in registers. Which operand is kept beside them,
 * and which passes through one register, is chosen so that all fit: up to three rows keep A. */
LANES_INLINE void product_tile(const struct product *p, int n_rows, int n_panels, bool f16, bool ragged)
{
    enum { MAX_VECS = 32 / VEC_LEN };
    const int n_vecs = n_panels * 16 / VEC_LEN, elem = f16 ? 2 : 4;
    const int64_t a_stride = p->a_stride, c_stride = p->c_stride;
    const int64_t b_stride = (int64_t)p->b_stride * elem, b_panel = (int64_t)p->b_panel * elem;
    vec acc[MAX_ROWS][MAX_VECS];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        LANES_UNROLL
        for (int j = 0; j < n_vecs; j++)
            acc[r][j] = vec_set1(0);
    }
    const float *a = p->a + p->begin, *a_end = p->a + p->end;
    const uint8_t *b = (const uint8_t *)p->b + p->begin * b_stride, *next = p->next ? p->next : b;
    const int64_t next_step = p->next ? p->next_step : 0;
    for (; a < a_end; a++, b += b_stride, next += next_step) {
        vec x[3], y[MAX_VECS];
        _mm_prefetch((const char *)next, _MM_HINT_T0);
        LANES_UNROLL
        for (int r = 0; r < n_rows && n_rows <= 3; r++)
            x[r] = vec_set1(a[r * a_stride]);
        LANES_UNROLL
        for (int j = 0; j < n_vecs; j++) {
            y[j] = load_b(b + j * VEC_LEN / 16 * b_panel + j * VEC_LEN % 16 * elem, f16);
            LANES_UNROLL
            for (int r = 0; r < n_rows && n_rows <= 3; r++)
                acc[r][j] = vec_fma(x[r], y[j], acc[r][j]);
        }
        LANES_UNROLL
        for (int r = 0; r < n_rows && n_rows > 3; r++) {
            vec z = vec_set1(a[r * a_stride]);
            LANES_UNROLL
            for (int j = 0; j < n_vecs; j++)
                acc[r][j] = vec_fma(z, y[j], acc[r][j]);
        }
    }
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        float *c = p->c + r * c_stride;
        if (ragged) {
            if (p->first[r] >= p->last[r])
                continue;
            for (int i = p->begin < p->end ? p->end : p->first[r]; i < p->last[r]; i++) {
                vec z = vec_set1(p->a[r * a_stride + i]);
                LANES_UNROLL
                for (int j = 0; j < n_vecs; j++) {
                    const uint8_t *y = (const uint8_t *)p->b + i * b_stride;
                    y += j * VEC_LEN / 16 * b_panel + j * VEC_LEN % 16 * elem;
                    acc[r][j] = vec_fma(z, load_b(y, f16), acc[r][j]);
                }
            }
            if (p->merge && p->merge[r]) {
                vec old = vec_set1(p->old[r]), new = vec_set1(p->new[r]);
                LANES_UNROLL
                for (int j = 0; j < n_vecs; j++)
                    vec_store(c + VEC_LEN * j,
                              vec_fma(vec_load(c + VEC_LEN * j), old, vec_mul(acc[r][j], new)));
                continue;
            }
        }
        LANES_UNROLL
        for (int j = 0; j < n_vecs; j++)
            vec_store(c + VEC_LEN * j, acc[r][j]);
    }
}

#define PRODUCT_TILE(rows, panels)                                        \
    static void product_##rows##x##panels(const struct product *p)        \
    {                                                                     \
        if (p->b_f16)                                                     \
            product_tile(p, rows, panels, true, false);                   \
        else                                                              \
            product_tile(p, rows, panels, false, false);                  \
    }                                                                     \
    static void product_ragged_##rows##x##panels(const struct product *p) \
    {                                                                     \
        if (p->b_f16)                                                     \
            product_tile(p, rows, panels, true, true);                    \
        else                                                              \
            product_tile(p, rows, panels, false, true);                   \
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

/* By kind, rows and panels. */
#define TILES(rows, panels)        [rows][panels] = product_##rows##x##panels
#define TILES_RAGGED(rows, panels) [rows][panels] = product_ragged_##rows##x##panels
#if MAX_ROWS > 6
#define EACH_TILE(tile)                                                                                    \
    tile(1, 1), tile(2, 1), tile(3, 1), tile(4, 1), tile(5, 1), tile(6, 1), tile(7, 1), tile(8, 1),        \
        tile(9, 1), tile(10, 1), tile(11, 1), tile(12, 1), tile(1, 2), tile(2, 2), tile(3, 2), tile(4, 2), \
        tile(5, 2), tile(6, 2), tile(7, 2), tile(8, 2), tile(9, 2), tile(10, 2), tile(11, 2), tile(12, 2)
#else
#define EACH_TILE(tile) \
    tile(1, 1), tile(2, 1), tile(3, 1), tile(4, 1), tile(5, 1), tile(6, 1), tile(1, 2), tile(2, 2), tile(3, 2)
#endif
static product_fn *const product_tiles[2][MAX_ROWS + 1][3] = {{EACH_TILE(TILES)}, {EACH_TILE(TILES_RAGGED)}};

/* n_rows ≤ MAX_ROWS rows by one or two panels. p is used up. */
static void product(struct product *p, int n_rows, int n_panels, bool ragged)
{
    product_fn *const *run = product_tiles[ragged][n_rows];
    if (run[n_panels]) {
        run[n_panels](p);
        return;
    }
    p->next_step /= 2;
    run[1](p);
    p->b = (const uint8_t *)p->b + (int64_t)p->b_panel * (p->b_f16 ? 2 : 4);
    p->next = p->next ? p->next + (p->end - p->begin) * p->next_step : NULL;
    p->c += 16;
    run[1](p);
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
    if (a->whole)
        return (struct range){0, KV_PAGE, 0, KV_PAGE};
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
            bool f16_keys = f16 && !convert;
            struct product p = {
                .end = a->head_dim,
                .a = a->q + r * a->head_dim,
                .a_stride = a->head_dim,
                .b = (const uint8_t *)keys + (int64_t)first * panel * (f16_keys ? 2 : 4),
                .b_stride = TILE_ROWS,
                .b_panel = panel,
                .b_f16 = f16_keys,
                .c = a->s + r * KV_PAGE + begin + TILE_ROWS * first,
                .c_stride = KV_PAGE,
                .next = r == 0 ? (const uint8_t *)a->v + offset : NULL,
                .next_step = (last - first) * TILE_ROWS * (f16 ? 2 : 4),
            };
            product(&p, n, last - first, false);
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

/* Rows go through each step together: one row's maximum, exponentials and sum wait for each other, those of
 * different rows do not. */
enum { SOFTMAX_ROWS = 16 };

/* s = softcap(s · scale), invisible ones −Inf; returns its maximum. */
LANES_INLINE float scale_row(const struct attention_block *a, int r, bool cap)
{
    const v16 scale = v16_set1(a->scale), lowest = v16_set1(-INFINITY);
    float *s = a->s + r * KV_PAGE;
    v16 max = lowest;
    LANES_UNROLL
    for (int t = 0; t < KV_PAGE; t += 16) {
        v16 x = v16_mul(v16_load(s + t), scale);
        if (cap)
            x = v16_softcap(x, a->softcap);
        if (!a->whole)
            x = v16_keep(x, a->begin[r] - t, a->end[r] - t, lowest);
        v16_store(s + t, x);
        max = v16_max(max, x);
    }
    return v16_max_lane(max);
}

/* s = e^(s − m), of −Inf 0; returns its sum. */
LANES_INLINE float exp_row(const struct attention_block *a, int r, float m)
{
    float *s = a->s + r * KV_PAGE;
    v16 l = v16_zero();
    LANES_UNROLL
    for (int t = 0; t < KV_PAGE; t += EXP_LANES) {
        v16 x[EXP_LANES / 16];
        LANES_UNROLL
        for (int i = 0; i < EXP_LANES / 16; i++)
            x[i] = v16_sub(v16_load(s + t + 16 * i), v16_set1(m));
        v16_exp_low(x);
        LANES_UNROLL
        for (int i = 0; i < EXP_LANES / 16; i++) {
            int at = t + 16 * i;
            if (!a->whole)
                x[i] = v16_keep(x[i], a->begin[r] - at, a->end[r] - at, v16_zero());
            v16_store(s + at, x[i]);
            l = v16_add(l, x[i]);
        }
    }
    return v16_sum(l);
}

/* Running maxima and sums of rows r … r + n − 1 take in the block's. */
LANES_INLINE void merge_sums(const struct attention_block *a, int r, int n, const float *m_b,
                             const float *l_b)
{
    float m[SOFTMAX_ROWS], l[SOFTMAX_ROWS];
    v16 max = v16_max(v16_load(a->m + r), v16_load(m_b));
    v16 old = v16_exp(v16_sub(v16_load(a->m + r), max)), new = v16_exp(v16_sub(v16_load(m_b), max));
    v16_store(m, max);
    v16_store(l, v16_fma(v16_load(a->l + r), old, v16_mul(v16_load(l_b), new)));
    v16_store(a->old + r, old);
    v16_store(a->new + r, new);
    for (int i = 0; i < n; i++)
        if (a->merge[r + i] && a->begin[r + i] < a->end[r + i]) {
            a->m[r + i] = m[i];
            a->l[r + i] = l[i];
        }
}

void LEVEL(attention_softmax)(const struct attention_block *a)
{
    float m_b[SOFTMAX_ROWS] = {0}, l_b[SOFTMAX_ROWS] = {0};
    for (int r = 0; r < a->n_rows; r += SOFTMAX_ROWS) {
        int n = a->n_rows - r < SOFTMAX_ROWS ? a->n_rows - r : SOFTMAX_ROWS;
        for (int i = 0; i < n; i++)
            m_b[i] = a->softcap != 0 ? scale_row(a, r + i, true) : scale_row(a, r + i, false);
        for (int i = 0; i < n; i++)
            l_b[i] = exp_row(a, r + i, m_b[i]);
        if (a->merge)
            merge_sums(a, r, n, m_b, l_b);
        for (int i = 0; i < n; i++)
            if (!(a->merge && a->merge[r + i]) && a->begin[r + i] < a->end[r + i]) {
                a->m[r + i] = m_b[i];
                a->l[r + i] = l_b[i];
            }
    }
}

/* ---- Values ------------------------------------------------------------------------------------ */

enum { CHANNELS = 32 }; /* two panels; and a block of the quantised types */

/* C = A B for all rows, B having KV_PAGE rows: each row's sum runs over what it sees. */
static void values_product(const struct attention_block *a, const struct product *all, int n_panels)
{
    const int step = rows_step(a->n_rows);
    for (int r = 0; r < a->n_rows; r += step) {
        int n = a->n_rows - r < step ? a->n_rows - r : step;
        struct range g = rows_range(a, r, n);
        struct product p = *all;
        /* Rows that begin together share the positions that all of them see. */
        p.begin = g.begin;
        p.end = g.begin == g.all_begin ? g.all_end : g.begin;
        p.a += r * p.a_stride;
        p.c += r * p.c_stride;
        p.next = r == 0 ? p.next : NULL;
        p.first = a->begin + r;
        p.last = a->end + r;
        p.merge = a->merge ? a->merge + r : NULL;
        p.old = a->old + r;
        p.new = a->new + r;
        product(&p, n, n_panels, true);
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
                            .next = a->next_k ? (const uint8_t *)a->next_k + c * KV_PAGE * bytes : NULL,
                            .next_step = n * bytes};
        if (copy) {
            for (int i = all.begin; i < all.end; i++)
                widen(a->tmp + i * CHANNELS, (const uint8_t *)a->v + (int64_t)i * a->head_dim * bytes, c, n,
                      f16);
            p.b = a->tmp;
            p.b_stride = CHANNELS;
            p.b_f16 = false;
        }
        values_product(a, &p, (n + 15) / 16);
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
        values_product(a, &p, CHANNELS / 16);
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

/* Kernels of attention over one block of 64 positions, 16 lanes at a time: the same sums as
 * attention_scalar.c. Included by attention_<isa>.c, which first defines LEVEL(name) and MAX_ROWS, 6 or 12:
 * how many rows of a product fit in the level's registers.
 *
 * Scores and values are one product C = A B: A are query rows or probabilities; B, in panels of 16
 * columns, are keys (a row per element of the head, 16 positions wide) or values (a row per position, 16
 * channels wide). */
#include "kernels/attention_rows.h"
#include "kernels/kv.h"
#include "kernels/lanes16.h"

/* What B is made of; bytes are signed. */
enum element { B_F32, B_F16, B_I8 };

LANES_INLINE int element_bytes(enum element e)
{
    return e == B_F32 ? 4 : e == B_F16 ? 2 : 1;
}

LANES_INLINE vec load_b(const uint8_t *b, enum element e)
{
    return e == B_F32   ? vec_load((const float *)(const void *)b)
           : e == B_F16 ? vec_load_f16((const uint16_t *)(const void *)b)
                        : vec_load_i8((const int8_t *)b);
}

/* The rows of a product; with `ragged`, what each of them sees of B and where its sums go. */
struct product {
    int begin, end; /* the rows of B that every row of A takes in: its sums go over them */
    const float *a; /* row r, element i: at r · a_stride + i */
    int a_stride;
    const uint8_t *b; /* panel j, row i: 16 elements at j · b_panel + i · b_stride */
    int64_t b_stride, b_panel;
    float *c; /* panel j, row r: at r · c_stride + 16 j */
    int c_stride;
    const uint8_t *next; /* what is read after B, prefetched at the pace of B; NULL: nothing */
    int64_t next_step;
    /* Ragged only, by row. */
    const uint8_t *first, *last; /* of the rows of B that it takes in, outside begin … end too */
    const bool *merge;           /* NULL: no row's */
    const float *old, *new;      /* C = C · old + A B · new */
};

/* C = A B. With n_rows and n_panels constant the sums stay in registers. Which operand is kept beside them,
 * and which passes through one register, is chosen so that all fit: up to three rows keep A. B is widened as
 * it is read: that takes other units of the processor than the sums do. */
LANES_INLINE void product_tile(const struct product *p, int n_rows, int n_panels, enum element e, bool ragged)
{
    enum { MAX_VECS = 32 / VEC_LEN };
    const int n_vecs = n_panels * 16 / VEC_LEN, elem = element_bytes(e);
    const int64_t a_stride = p->a_stride, c_stride = p->c_stride;
    const int64_t b_stride = p->b_stride, b_panel = p->b_panel;
    vec acc[MAX_ROWS][MAX_VECS];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        LANES_UNROLL
        for (int j = 0; j < n_vecs; j++)
            acc[r][j] = vec_set1(0);
    }
    const float *a = p->a + p->begin, *a_end = p->a + p->end;
    const uint8_t *b = p->b + p->begin * b_stride, *next = p->next ? p->next : b;
    const int64_t next_step = p->next ? p->next_step : 0;
    for (; a < a_end; a++, b += b_stride, next += next_step) {
        vec x[3], y[MAX_VECS];
        _mm_prefetch((const char *)next, _MM_HINT_T0);
        LANES_UNROLL
        for (int r = 0; r < n_rows && n_rows <= 3; r++)
            x[r] = vec_set1(a[r * a_stride]);
        LANES_UNROLL
        for (int j = 0; j < n_vecs; j++) {
            y[j] = load_b(b + j * VEC_LEN / 16 * b_panel + j * VEC_LEN % 16 * elem, e);
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
                    const uint8_t *y = p->b + i * b_stride;
                    y += j * VEC_LEN / 16 * b_panel + j * VEC_LEN % 16 * elem;
                    acc[r][j] = vec_fma(z, load_b(y, e), acc[r][j]);
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

typedef void product_fn(const struct product *p);

/* A function for every number of rows and panels, and a table of them. */
#define TILE_NAME(kind, rows, panels) product_##kind##_##rows##x##panels
#define TILE(kind, rows, panels, e, ragged)                            \
    static void TILE_NAME(kind, rows, panels)(const struct product *p) \
    {                                                                  \
        product_tile(p, rows, panels, e, ragged);                      \
    }
#define TILES_3(kind, first, second, third, panels, e, ragged) \
    TILE(kind, first, panels, e, ragged)                       \
    TILE(kind, second, panels, e, ragged)                      \
    TILE(kind, third, panels, e, ragged)
#define ROW_3(kind, first, second, third, panels)                                                         \
    [first][panels] = TILE_NAME(kind, first, panels), [second][panels] = TILE_NAME(kind, second, panels), \
    [third][panels] = TILE_NAME(kind, third, panels)
#if MAX_ROWS > 6
#define TILES(kind, e, ragged)                                                          \
    TILES_3(kind, 1, 2, 3, 1, e, ragged)                                                \
    TILES_3(kind, 4, 5, 6, 1, e, ragged)                                                \
    TILES_3(kind, 7, 8, 9, 1, e, ragged)                                                \
    TILES_3(kind, 10, 11, 12, 1, e, ragged)                                             \
    TILES_3(kind, 1, 2, 3, 2, e, ragged)                                                \
    TILES_3(kind, 4, 5, 6, 2, e, ragged)                                                \
    TILES_3(kind, 7, 8, 9, 2, e, ragged)                                                \
    TILES_3(kind, 10, 11, 12, 2, e, ragged)                                             \
    static product_fn *const product_##kind[MAX_ROWS + 1][3] = {                        \
        ROW_3(kind, 1, 2, 3, 1),    ROW_3(kind, 4, 5, 6, 1),   ROW_3(kind, 7, 8, 9, 1), \
        ROW_3(kind, 10, 11, 12, 1), ROW_3(kind, 1, 2, 3, 2),   ROW_3(kind, 4, 5, 6, 2), \
        ROW_3(kind, 7, 8, 9, 2),    ROW_3(kind, 10, 11, 12, 2)};
#else
#define TILES(kind, e, ragged)                                   \
    TILES_3(kind, 1, 2, 3, 1, e, ragged)                         \
    TILES_3(kind, 4, 5, 6, 1, e, ragged)                         \
    TILES_3(kind, 1, 2, 3, 2, e, ragged)                         \
    static product_fn *const product_##kind[MAX_ROWS + 1][3] = { \
        ROW_3(kind, 1, 2, 3, 1), ROW_3(kind, 4, 5, 6, 1), ROW_3(kind, 1, 2, 3, 2)};
#endif
TILES(keys_f32, B_F32, false)
TILES(keys_f16, B_F16, false)
TILES(values_f32, B_F32, true)
TILES(values_f16, B_F16, true)
TILES(values_i8, B_I8, true)

/* n_rows ≤ MAX_ROWS rows by one or two panels. p is used up. */
static void product(product_fn *const tiles[MAX_ROWS + 1][3], struct product *p, int n_rows, int n_panels)
{
    product_fn *const *run = tiles[n_rows];
    if (run[n_panels]) {
        run[n_panels](p);
        return;
    }
    p->next_step /= 2;
    run[1](p);
    p->b += p->b_panel;
    p->next = p->next ? p->next + (p->end - p->begin) * p->next_step : NULL;
    p->c += 16;
    run[1](p);
}

/* ---- Scores ------------------------------------------------------------------------------------ */

/* Two tiles of 16 positions at a time. */
static void scores_float(const struct attention_block *a, product_fn *const tiles[MAX_ROWS + 1][3], int elem)
{
    const int pair = 2 * TILE_ROWS, panel = TILE_ROWS * a->head_dim, step = rows_step(a->n_rows, MAX_ROWS);
    for (int r = 0; r < a->n_rows; r += step) {
        int n = a->n_rows - r < step ? a->n_rows - r : step;
        struct range g = rows_range(a, r, n);
        for (int begin = g.begin / TILE_ROWS * TILE_ROWS; begin < g.end; begin += pair) {
            int n_panels = g.end - begin > TILE_ROWS ? 2 : 1;
            struct product p = {
                .end = a->head_dim,
                .a = a->q + r * a->head_dim,
                .a_stride = a->head_dim,
                .b = (const uint8_t *)a->k + (int64_t)begin * a->head_dim * elem,
                .b_stride = (int64_t)TILE_ROWS * elem,
                .b_panel = (int64_t)panel * elem,
                .c = a->s + r * KV_PAGE + begin,
                .c_stride = KV_PAGE,
                .next = r == 0 ? (const uint8_t *)a->v + a->v_bytes / KV_PAGE * begin : NULL,
                .next_step = a->v_bytes / KV_PAGE * TILE_ROWS * n_panels / a->head_dim,
            };
            product(tiles, &p, n, n_panels);
        }
    }
}

void LEVEL(attention_scores_f32)(const struct attention_block *a)
{
    scores_float(a, product_keys_f32, element_bytes(B_F32));
}

void LEVEL(attention_scores_f16)(const struct attention_block *a)
{
    scores_float(a, product_keys_f16, element_bytes(B_F16));
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

/* Values as rows of elements, their scales by block and position, or NULL. */
struct values {
    product_fn *const (*tiles)[3];
    const void *v;
    int64_t stride; /* bytes of a row */
    int elem;
    const float *d;
    float *scaled; /* (MAX_ROWS, KV_PAGE), with d */
};

static const float *scale_rows(const struct attention_block *a, int r, int n, const float *d, float *scaled)
{
    for (int i = 0; i < n; i++)
        for (int t = 0; t < KV_PAGE; t += 16)
            v16_store(scaled + i * KV_PAGE + t,
                      v16_mul(v16_load(a->s + (r + i) * KV_PAGE + t), v16_load(d + t)));
    return scaled;
}

/* Each row's sum runs over what it sees. */
static void values_product(const struct attention_block *a, const struct values *v)
{
    const int step = rows_step(a->n_rows, MAX_ROWS);
    for (int r = 0; r < a->n_rows; r += step) {
        int n = a->n_rows - r < step ? a->n_rows - r : step;
        struct range g = rows_range(a, r, n);
        for (int c = 0; c < a->o_stride; c += CHANNELS) {
            int n_panels = a->o_stride - c < CHANNELS ? 1 : 2;
            struct product p = {
                /* Rows that begin together share the positions that all of them see. */
                .begin = g.begin,
                .end = g.begin == g.all_begin ? g.all_end : g.begin,
                .a =
                    v->d ? scale_rows(a, r, n, v->d + c / CHANNELS * KV_PAGE, v->scaled) : a->s + r * KV_PAGE,
                .a_stride = KV_PAGE,
                .b = (const uint8_t *)v->v + c * v->elem,
                .b_stride = v->stride,
                .b_panel = 16 * v->elem,
                .c = a->o + r * a->o_stride + c,
                .c_stride = a->o_stride,
                .next =
                    r == 0 && a->next_k ? (const uint8_t *)a->next_k + a->k_bytes / a->o_stride * c : NULL,
                .next_step = a->k_bytes / a->o_stride * n_panels * 16 / KV_PAGE,
                .first = a->begin + r,
                .last = a->end + r,
                .merge = a->merge ? a->merge + r : NULL,
                .old = a->old + r,
                .new = a->new + r,
            };
            product(v->tiles, &p, n, n_panels);
        }
    }
}

/* Rows of floats with zeros up to whole panels. */
static void widen(const struct attention_block *a, bool f16)
{
    struct range all = rows_range(a, 0, a->n_rows);
    for (int i = all.begin; i < all.end; i++)
        for (int c = 0; c < a->o_stride; c++) {
            int64_t at = (int64_t)i * a->head_dim + c;
            float x = c >= a->head_dim ? 0
                      : f16            ? _cvtsh_ss(((const uint16_t *)a->v)[at])
                                       : ((const float *)a->v)[at];
            a->tmp[i * a->o_stride + c] = x;
        }
}

static void values_float(const struct attention_block *a, bool f16)
{
    if (a->head_dim == a->o_stride) {
        const int elem = element_bytes(f16 ? B_F16 : B_F32);
        const struct values v = {f16 ? product_values_f16 : product_values_f32,
                                 a->v,
                                 (int64_t)a->head_dim * elem,
                                 elem,
                                 NULL,
                                 NULL};
        values_product(a, &v);
    } else {
        const int elem = element_bytes(B_F32);
        const struct values v = {product_values_f32, a->tmp, (int64_t)a->o_stride * elem, elem, NULL, NULL};
        widen(a, f16);
        values_product(a, &v);
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

/* Per block of 32 channels: probabilities times the positions' scales, times the quants, of which row_bytes
 * are in a row of the page. tmp: the quants as bytes where they are not yet, then the scales. */
static void values_quantised(const struct attention_block *a, const void *quants, int row_bytes)
{
    const uint16_t *half = (const uint16_t *)(const void *)((const uint8_t *)a->v + KV_PAGE * row_bytes);
    float *d = a->tmp + KV_PAGE * a->head_dim / 4, *scaled = d + KV_PAGE * a->head_dim / CHANNELS;
    for (int i = 0; i < KV_PAGE * a->head_dim / CHANNELS; i += 16)
        v16_store(d + i, v16_load_f16(half + i));
    const struct values v = {product_values_i8, quants, a->head_dim, 1, d, scaled};
    values_product(a, &v);
}

void LEVEL(attention_values_q8_0)(const struct attention_block *a)
{
    values_quantised(a, a->v, a->head_dim);
}

void LEVEL(attention_values_q4_0)(const struct attention_block *a)
{
    const __m128i low = _mm_set1_epi8(15), zero = _mm_set1_epi8(8);
    const uint8_t *pairs = a->v;
    __m128i *quants = (__m128i *)(void *)a->tmp;
    for (int i = 0; i < KV_PAGE * a->head_dim / CHANNELS; i++) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(pairs + 16 * i));
        _mm_storeu_si128(quants + 2 * i, _mm_sub_epi8(_mm_and_si128(x, low), zero));
        _mm_storeu_si128(quants + 2 * i + 1, _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(x, 4), low), zero));
    }
    values_quantised(a, quants, a->head_dim / 2);
}

/* ---- Running results --------------------------------------------------------------------------- */

enum { MERGE_BLOCKS = 16 };

/* o = (… (o · old[0] + o_b[0] · new[0]) · old[1] + …) for some channels, which stay in registers. */
LANES_INLINE void merge_channels(float *o, const float *o_b, int64_t stride, const float *old,
                                 const float *new, int n, int n_vecs)
{
    v16 x[4];
    LANES_UNROLL
    for (int j = 0; j < n_vecs; j++)
        x[j] = v16_load(o + 16 * j);
    for (int i = 0; i < n; i++, o_b += stride) {
        LANES_UNROLL
        for (int j = 0; j < n_vecs; j++)
            x[j] = v16_fma(x[j], v16_set1(old[i]), v16_mul(v16_load(o_b + 16 * j), v16_set1(new[i])));
    }
    LANES_UNROLL
    for (int j = 0; j < n_vecs; j++)
        v16_store(o + 16 * j, x[j]);
}

/* Up to MERGE_BLOCKS blocks from the i-th on. */
static void merge_some(const struct attention_merge *a, int begin, int n)
{
    float old[MERGE_BLOCKS] = {0}, new[MERGE_BLOCKS] = {0};
    const float *o_b = a->o_b + begin * a->o_stride, *m_b = a->m_b + begin * a->stride,
                *l_b = a->l_b + begin * a->stride;
    float m = *a->m, l = *a->l;
    for (int i = 0; i < n; i++) {
        float block = m_b[i * a->stride], max = block > m ? block : m;
        old[i] = m - max;
        new[i] = block - max;
        m = max;
    }
    v16_store(old, v16_exp(v16_load(old)));
    v16_store(new, v16_exp(v16_load(new)));
    for (int i = 0; i < n; i++)
        l = fmaf(l, old[i], l_b[i * a->stride] * new[i]);
    int c = 0;
    for (; c + 64 <= a->head_dim; c += 64)
        merge_channels(a->o + c, o_b + c, a->o_stride, old, new, n, 4);
    for (; c + 16 <= a->head_dim; c += 16)
        merge_channels(a->o + c, o_b + c, a->o_stride, old, new, n, 1);
    for (; c < a->head_dim; c++)
        for (int i = 0; i < n; i++)
            a->o[c] = fmaf(a->o[c], old[i], o_b[i * a->o_stride + c] * new[i]);
    *a->m = m;
    *a->l = l;
}

void LEVEL(attention_merge)(const struct attention_merge *a)
{
    int i = 0;
    if (a->fresh) {
        memcpy(a->o, a->o_b, (size_t)a->head_dim * sizeof *a->o);
        *a->m = *a->m_b;
        *a->l = *a->l_b;
        i = 1;
    }
    for (; i < a->n; i += MERGE_BLOCKS)
        merge_some(a, i, a->n - i < MERGE_BLOCKS ? a->n - i : MERGE_BLOCKS);
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

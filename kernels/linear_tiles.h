/* The loops of a product, written once: tiles of 16 rows, chunks of 256 columns, panels of tokens. A level
 * defines, before including this:
 *
 *     MAC_TOKENS, FMA_TOKENS   how many tokens its sums take at once, 16 at most and a power of two
 *     FMA_CHUNKS               of how many chunks one token's float sums go on at once
 *     MAC_NIBBLES              when decoded codes of 8 bits are to be in halves (struct chunk)
 *     MAC_ANY_BITS             when its sums of decoded codes do not depend on how many bits a code has
 *     tokens_at_once(f)
 *         MAC_TOKENS, or fewer for formats that need more registers
 *     decode_blocks(c, f, v, n_blocks)
 *         the codes of a chunk to c->w
 *     mac_tokens(f, c, n_blocks, x, width, n, total)
 *         total[t][row] += the chunk's share, in the contract's order, for tokens t = 0 … n − 1 whose block
 *         b is x[b · width + t]; n is constant after inlining
 *     mac_packed(f, c, packed, n_blocks, x, width, n, total)
 *         the same from the packed codes; c holds the scales only
 *     fma_tokens(w, n_cols, x, stride, width, n, total)
 *         the same for float weights w[column][row]; token t's activation of a column is
 *         x[t / 4 · stride + column · width + t % 4]; n is FMA_TOKENS (1, or a multiple of 4), 4 or less
 *     fma_packed(type, src, n_cols, n_chunks, x, total)
 *         the same for one token and n_chunks ≤ FMA_CHUNKS packed chunks of n_cols columns of a float type
 *     peak_dots(n), peak_fmas(n)
 *         n rounds of the multiply-adds those are made of, on registers alone; how many they were
 *
 * and gets the functions of struct linear_kernels. */

#include "kernels/linear_decode.h"
#include "kernels/linear_fields.h"

/* Where the chunk at column k of a tile lies packed. */
static const uint8_t *chunk_data(const struct packed *w, int64_t tile, int64_t k, uint8_t *buffer)
{
    if (w->is_view)
        return pack_view_chunk(buffer, w, tile, k);
    return (const uint8_t *)w->data + tile * w->tile_bytes + tile_offset(w->type, k);
}

/* One token reads every weight once, and the hardware's prefetchers stop at each page: asks for the chunk
 * that is read a few thousand cycles from now. */
INLINE void prefetch_chunk(const uint8_t *chunk, int64_t bytes)
{
    enum { AHEAD = 6144, LINE = 64 };
    for (int64_t i = 0; i < bytes; i += LINE)
        __builtin_prefetch(chunk + AHEAD + i, 0, 3);
}

/* Tokens that share one decoding of a chunk; their sums stay in the first cache. */
enum { GROUP_TOKENS = 256 };

typedef float totals[GROUP_TOKENS][TILE_ROWS];

typedef float row_vector __attribute__((vector_size(sizeof(float) * TILE_ROWS), aligned(4), may_alias));

/* Whole vectors and nothing to decide inside the loop: tokens lie rows apart, so that each is a cache line of
 * its own and as many as possible should be on their way at once. */
INLINE void store_whole_rows(float *out, int64_t stride, const float *bias, bool add, int n,
                             const totals total)
{
    for (int t = 0; t < n; t++, out += stride) {
        row_vector y = *(const row_vector *)(const void *)total[t];
        if (bias)
            y += *(const row_vector *)(const void *)bias;
        if (add)
            y = *(const row_vector *)(void *)out + y;
        *(row_vector *)(void *)out = y;
    }
}

static void store_totals(const struct linear_job *j, int64_t tile, int t0, int n, const totals total)
{
    const int64_t row0 = tile * TILE_ROWS, stride = j->w->rows, rest = stride - row0;
    float *out = j->out + t0 * stride + row0;
    const float *bias = j->bias ? j->bias + row0 : NULL;
    if (rest >= TILE_ROWS) {
        if (bias)
            store_whole_rows(out, stride, bias, j->add, n, total);
        else if (j->add)
            store_whole_rows(out, stride, NULL, true, n, total);
        else
            store_whole_rows(out, stride, NULL, false, n, total);
        return;
    }
    for (int t = 0; t < n; t++, out += stride)
        for (int r = 0; r < (int)rest; r++) {
            float y = total[t][r];
            if (bias)
                y += bias[r];
            out[r] = j->add ? out[r] + y : y;
        }
}

/* Asks for the lines that store_totals will write, while there is work to do until then. */
static void prefetch_sums(const struct linear_job *j, int64_t tile, int t0, int n)
{
    for (int t = t0; t < t0 + n; t++)
        __builtin_prefetch(j->out + t * j->w->rows + tile * TILE_ROWS, 1, 2);
}

/* n tokens of one panel against one chunk: whole tiles of tokens, then halves of what is left. */
INLINE void mac_panel(const struct pack_format f, const struct chunk *c, int n_blocks,
                      const struct act_block *x, int width, float (*total)[TILE_ROWS])
{
    const int at_once = tokens_at_once(f);
    int t = 0;
    for (; t + at_once <= width; t += at_once)
        mac_tokens(f, c, n_blocks, x + t, width, at_once, total + t);
    if (at_once > 8 && width - t >= 8) {
        mac_tokens(f, c, n_blocks, x + t, width, 8, total + t);
        t += 8;
    }
    if (at_once > 4 && width - t >= 4) {
        mac_tokens(f, c, n_blocks, x + t, width, 4, total + t);
        t += 4;
    }
    if (at_once > 2 && width - t >= 2) {
        mac_tokens(f, c, n_blocks, x + t, width, 2, total + t);
        t += 2;
    }
    for (; t < width; t++)
        mac_tokens(f, c, n_blocks, x + t, width, 1, total + t);
}

/* Of a format, the products of decoded codes need to know only the scales and how many bits a code has (at
 * least 4; 8: wide) at compile time: types that agree in these share the compiled loops. */
#ifdef MAC_ANY_BITS
#define MAC_SHAPES(X) \
    X(BLOCK, 8)       \
    X(BLOCK_MIN, 8)   \
    X(BLOCK_ZERO, 8)  \
    X(BLOCK16, 8)     \
    X(SUPER32, 8)     \
    X(SUPER32_MIN, 8) \
    X(SUPER16, 8)     \
    X(SUPER16_MIN, 8)
#else
#define MAC_SHAPES(X) \
    X(BLOCK, 4)       \
    X(BLOCK, 5)       \
    X(BLOCK, 8)       \
    X(BLOCK_MIN, 4)   \
    X(BLOCK_MIN, 5)   \
    X(BLOCK_ZERO, 4)  \
    X(BLOCK_ZERO, 8)  \
    X(BLOCK16, 5)     \
    X(SUPER32, 4)     \
    X(SUPER32, 5)     \
    X(SUPER32, 7)     \
    X(SUPER32, 8)     \
    X(SUPER32_MIN, 4) \
    X(SUPER32_MIN, 5) \
    X(SUPER16, 4)     \
    X(SUPER16, 5)     \
    X(SUPER16, 6)     \
    X(SUPER16, 7)     \
    X(SUPER16_MIN, 4)
#endif

#define DEFINE_MAC_PANEL(KIND, BITS)                                                                         \
    static __attribute__((noinline)) void mac_panel_##KIND##_##BITS(const struct chunk *c, int zero,         \
                                                                    int n_blocks, const struct act_block *x, \
                                                                    int width, float(*total)[TILE_ROWS])     \
    {                                                                                                        \
        const struct pack_format f = {.scales = SCALE_##KIND, .low_bits = BITS, .zero = zero};               \
        mac_panel(f, c, n_blocks, x, width, total);                                                          \
    }
MAC_SHAPES(DEFINE_MAC_PANEL)

static mac_panel_fn *mac_panel_of(const struct pack_format *f)
{
#define MAC_PANEL_ENTRY(KIND, BITS) [SCALE_##KIND][BITS] = mac_panel_##KIND##_##BITS,
    static mac_panel_fn *const panels[][8 + 1] = {MAC_SHAPES(MAC_PANEL_ENTRY)};
#ifdef MAC_ANY_BITS
    return panels[f->scales][8];
#else
    int bits = decoded_bits(f);
    return panels[f->scales][bits < 4 ? 4 : bits];
#endif
}

/* What is compiled for each type, with its format as a constant that the inlined loops fold. */
struct type_loops {
    void (*decode)(struct chunk *c, const uint8_t *src, int n_blocks);
    /* is_few(n) tokens, too few to store decoded codes for; c is scratch. */
    void (*mac_few)(struct chunk *c, const uint8_t *src, int n_blocks, const struct act_block *x, int n,
                    float (*total)[TILE_ROWS]);
};

static bool is_few(int n_tokens)
{
    return n_tokens == 1 || (MAC_TOKENS >= 4 && (n_tokens == 2 || n_tokens == 4));
}

INLINE void mac_few(const struct pack_format f, struct chunk *c, const struct chunk_view *v, int n_blocks,
                    const struct act_block *x, int n, float (*total)[TILE_ROWS])
{
    const int at_once = tokens_at_once(f);
    if (n == 1)
        mac_packed(f, c, v, n_blocks, x, 1, 1, total);
    else if (n == 2)
        mac_packed(f, c, v, n_blocks, x, 2, at_once < 2 ? at_once : 2, total);
    else
        for (int t = 0; t < n; t += at_once)
            mac_packed(f, c, v, n_blocks, x + t, n, at_once < 4 ? at_once : 4, total + t);
}

#define CONSTANT_FORMAT(...) ((struct pack_format){__VA_ARGS__, NULL, NULL})

#define DEFINE_TYPE_LOOPS(TYPE, fn, ...)                                                                    \
    static __attribute__((noinline)) void scales_##TYPE(struct chunk *c, const struct chunk_view *v, int n) \
    {                                                                                                       \
        decode_scales(c, CONSTANT_FORMAT(__VA_ARGS__), *v, n);                                              \
    }                                                                                                       \
    static void decode_##TYPE(struct chunk *c, const uint8_t *src, int n)                                   \
    {                                                                                                       \
        const struct pack_format f = CONSTANT_FORMAT(__VA_ARGS__);                                          \
        const struct chunk_view v = chunk_view(&f, src, n);                                                 \
        scales_##TYPE(c, &v, n);                                                                            \
        decode_blocks(c, f, v, n);                                                                          \
    }                                                                                                       \
    static void mac_few_##TYPE(struct chunk *c, const uint8_t *src, int n, const struct act_block *x,       \
                               int n_tokens, float(*total)[TILE_ROWS])                                      \
    {                                                                                                       \
        const struct pack_format f = CONSTANT_FORMAT(__VA_ARGS__);                                          \
        const struct chunk_view v = chunk_view(&f, src, n);                                                 \
        scales_##TYPE(c, &v, n);                                                                            \
        mac_few(f, c, &v, n, x, n_tokens, total);                                                           \
    }
PACK_FORMATS(DEFINE_TYPE_LOOPS)

#define DEFINE_FIELD_LOOPS(TYPE, ...)                                                                 \
    static void decode_##TYPE(struct chunk *c, const uint8_t *src, int n)                             \
    {                                                                                                 \
        (void)n;                                                                                      \
        decode_fields_##TYPE(c, src);                                                                 \
    }                                                                                                 \
    static void mac_few_##TYPE(struct chunk *c, const uint8_t *src, int n, const struct act_block *x, \
                               int n_tokens, float(*total)[TILE_ROWS])                                \
    {                                                                                                 \
        const struct pack_format *f = &pack_formats[QTYPE_##TYPE];                                    \
        decode_fields_##TYPE(c, src);                                                                 \
        mac_panel_of(f)(c, f->zero, n, x, n_tokens, total);                                           \
    }
FIELD_FORMATS(DEFINE_FIELD_LOOPS)

#define TYPE_LOOPS(TYPE, ...) [QTYPE_##TYPE] = {decode_##TYPE, mac_few_##TYPE},
static const struct type_loops type_loops[QTYPE_N_MATRIX] = {PACK_FORMATS(TYPE_LOOPS)
                                                                 FIELD_FORMATS(TYPE_LOOPS)};

/* prepare: what mac needs done to a decoded chunk, NULL: nothing. */
static void tiles_of_codes(const struct linear_job *j, mac_panel_fn *mac,
                           void (*prepare)(struct chunk *c, const struct pack_format *f, int n_blocks))
{
    const struct packed *w = j->w;
    const struct pack_format *f = &pack_formats[w->type];
    const struct type_loops *loops = &type_loops[w->type];
    alignas(64) struct chunk c;
    alignas(64) totals total;
    alignas(64) uint8_t buffer[MAX_CHUNK_BYTES];
    for (int t0 = 0; t0 < j->n_tokens; t0 += GROUP_TOKENS) {
        int n = j->n_tokens - t0 < GROUP_TOKENS ? j->n_tokens - t0 : GROUP_TOKENS;
        for (int64_t tile = j->tile_begin; tile < j->tile_end; tile++) {
            memset(total, 0, sizeof total[0] * (size_t)n);
            for (int64_t k = 0; k < w->cols; k += CHUNK_LEN) {
                int n_blocks = chunk_cols(w, k) / ACT_LEN;
                const uint8_t *src = chunk_data(w, tile, k, buffer);
                if (is_few(j->n_tokens)) {
                    prefetch_chunk(src, tile_offset(w->type, n_blocks * ACT_LEN));
                    const struct act_block *x = (const struct act_block *)j->x + k / ACT_LEN * n;
                    loops->mac_few(&c, src, n_blocks, x, n, total);
                    continue;
                }
                loops->decode(&c, src, n_blocks);
                if (prepare)
                    prepare(&c, f, n_blocks);
                const bool is_last = k + CHUNK_LEN >= w->cols;
                for (int t = 0; t < n; t += PANEL) {
                    int width;
                    const struct act_block *x = panel_of(j->x, w->cols, j->n_tokens, t0 + t, &width);
                    if (is_last)
                        prefetch_sums(j, tile, t0 + t, width);
                    mac(&c, f->zero, n_blocks, x + k / ACT_LEN * width, width, total + t);
                }
            }
            store_totals(j, tile, t0, n, total);
        }
    }
}

static void tiles_fast(const struct linear_job *j)
{
    tiles_of_codes(j, mac_panel_of(&pack_formats[j->w->type]), NULL);
}

/* n tokens against one chunk of float weights; panels lie `stride` floats apart. */
static void fma_panels(const float (*w)[TILE_ROWS], int n_cols, const float *x, int64_t stride, int64_t k,
                       int n, float (*total)[TILE_ROWS])
{
    int t = 0;
    for (; t + FMA_TOKENS <= n; t += FMA_TOKENS)
        fma_tokens(w, n_cols, x + t / FLOAT_PANEL * stride + k * FLOAT_PANEL, stride, FLOAT_PANEL, FMA_TOKENS,
                   total + t);
    for (; t + FLOAT_PANEL <= n; t += FLOAT_PANEL)
        fma_tokens(w, n_cols, x + t / FLOAT_PANEL * stride + k * FLOAT_PANEL, stride, FLOAT_PANEL,
                   FLOAT_PANEL, total + t);
    x += t / FLOAT_PANEL * stride + k * (n - t);
    if (n - t == 3)
        fma_tokens(w, n_cols, x, stride, 3, 3, total + t);
    else if (n - t == 2)
        fma_tokens(w, n_cols, x, stride, 2, 2, total + t);
    else if (n - t == 1)
        fma_tokens(w, n_cols, x, stride, 1, 1, total + t);
}

/* One token, one tile of a float type: chunks' sums are independent, so that several go on at once. */
INLINE void fma_one(const struct linear_job *j, enum qtype type, int64_t tile, float *total)
{
    alignas(64) uint8_t buffer[MAX_CHUNK_BYTES];
    const float *x = j->x;
    const int64_t step = FMA_CHUNKS * CHUNK_LEN, cols = j->w->cols;
    int64_t k = 0;
    for (; !j->w->is_view && k + step <= cols; k += step) { /* a view's chunks do not follow one another */
        const uint8_t *src = chunk_data(j->w, tile, k, buffer);
        prefetch_chunk(src, tile_offset(type, step));
        fma_packed(type, src, CHUNK_LEN, FMA_CHUNKS, x + k, total);
    }
    for (; k < cols; k += CHUNK_LEN)
        fma_packed(type, chunk_data(j->w, tile, k, buffer), chunk_cols(j->w, k), 1, x + k, total);
}

static void decode_chunk_floats(float (*floats)[TILE_ROWS], enum qtype type, const uint8_t *src, int n_cols)
{
    alignas(64) struct chunk c;
    if (type == QTYPE_F32) {
        decode_f32(floats, src, n_cols);
    } else if (type == QTYPE_F16) {
        decode_f16(floats, src, n_cols);
    } else if (type == QTYPE_BF16) {
        decode_bf16(floats, src, n_cols);
    } else {
        type_loops[type].decode(&c, src, n_cols / ACT_LEN);
        decode_floats(floats, pack_formats[type], &c, n_cols / ACT_LEN);
    }
}

/* Float weights, and with --compute f32 all others: one function for all types, because multiplying is most
 * of its time. */
static void tiles_f32(const struct linear_job *j)
{
    const struct packed *w = j->w;
    const enum qtype type = w->type;
    const bool one = j->n_tokens == 1 && qtypes[type].x_is_f32;
    alignas(64) float floats[CHUNK_LEN][TILE_ROWS];
    alignas(64) totals total;
    alignas(64) uint8_t buffer[MAX_CHUNK_BYTES];
    for (int t0 = 0; t0 < j->n_tokens; t0 += GROUP_TOKENS) {
        int n = j->n_tokens - t0 < GROUP_TOKENS ? j->n_tokens - t0 : GROUP_TOKENS;
        for (int64_t tile = j->tile_begin; tile < j->tile_end; tile++) {
            memset(total, 0, sizeof total[0] * (size_t)n);
            if (one && type == QTYPE_F32)
                fma_one(j, QTYPE_F32, tile, total[0]);
            else if (one && type == QTYPE_F16)
                fma_one(j, QTYPE_F16, tile, total[0]);
            else if (one)
                fma_one(j, QTYPE_BF16, tile, total[0]);
            for (int64_t k = 0; k < w->cols && !one; k += CHUNK_LEN) {
                const int n_cols = chunk_cols(w, k);
                decode_chunk_floats(floats, type, chunk_data(w, tile, k, buffer), n_cols);
                fma_panels((const float(*)[TILE_ROWS])floats, n_cols, (const float *)j->x + t0 * w->cols,
                           w->cols * FLOAT_PANEL, k, n, total);
            }
            store_totals(j, tile, t0, n, total);
        }
    }
}

#define LINEAR_KERNELS(quantise_)                                                                \
    {                                                                                            \
        .fast = tiles_fast, .f32 = tiles_f32, .act_quantise = quantise_, .peak_dots = peak_dots, \
        .peak_fmas = peak_fmas                                                                   \
    }

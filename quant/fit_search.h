/* The search of fit.h, compiled once per CPU level by the files that include this one after defining
 * FIT_NAME.
 *
 * A block's scale is found by trying many. Each lane of a vector is a trial (an inverse scale, or a line),
 * and all lanes walk through the block's elements together, so that no sum runs across lanes and every CPU
 * level has the same bits. In a trial's own units, v = x / d, the codes are q = nearest(v) and what they
 * leave is e = v − q, a small number with all its digits. The best scale for these codes is then not d but
 * the least-squares one,
 *
 *     d (1 + Σweq / Σwq²), which leaves d² (Σwe² − (Σweq)² / Σwq²),
 *
 * with a minimum the line of regression of e on q. Trials start around the scale that puts the block's
 * extreme on the outermost code, and go on in finer steps around the best.
 *
 * In super-blocks the sub-blocks' scales are themselves rounded to a few bits of a common half-float scale:
 * neighbouring roundings are the lanes then, and the common scale is fitted again to what they became.
 *
 * An element's squared error counts times its importance and times the magnitude √(mean x² + x²): large
 * weights matter more than their squared error says, for they belong to the inputs and outputs that stand
 * out. (With Q4_0 of Qwen2.5-Coder 0.5B the divergence falls to two thirds; more weight on them, x², is worse
 * again.)
 *
 * Blocks are first brought to a magnitude of 1 by a power of two, where no float's square overflows or
 * vanishes. All scales are rounded to half floats before the final codes are chosen, so the codes answer to
 * the stored scale: one above 65504 becomes 65504, and the codes saturate. A block with an infinite value or
 * a NaN gets a NaN scale and so decodes to NaN: the fault stays visible. */
#include "quant/fit.h"

#include <math.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8, TRIALS = 2 * LANES, SUB_MAX = 32, N_SUB_MAX = 16 };

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t m8 __attribute__((vector_size(32))); /* −1: true */

/* ---- Lanes -------------------------------------------------------------------------------------- */

INLINE v8 all(float x)
{
    return (v8){x, x, x, x, x, x, x, x};
}

INLINE v8 load(const float *x)
{
    v8 v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE v8 pick(m8 mask, v8 a, v8 b)
{
#ifdef __AVX2__
    return (v8)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (v8)((mask & (m8)a) | (~mask & (m8)b));
#endif
}

INLINE v8 lesser(v8 a, v8 b)
{
#ifdef __AVX2__
    return (v8)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return pick(a < b, a, b);
#endif
}

INLINE v8 greater(v8 a, v8 b)
{
#ifdef __AVX2__
    return (v8)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return pick(a > b, a, b);
#endif
}

/* rint for |v| < 2²² */
INLINE v8 round_even(v8 v)
{
    return v + 0x1.8p23f - 0x1.8p23f;
}

/* The sum over lanes, in one fixed order. */
INLINE float sum8(v8 v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

INLINE void store_codes(int8_t q[LANES], v8 v)
{
#ifdef __AVX2__
    __m256i wide = _mm256_cvtps_epi32((__m256)v);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    half = _mm_packs_epi16(half, half);
    memcpy(q, &half, LANES);
#else
    for (int l = 0; l < LANES; l++)
        q[l] = (int8_t)v[l];
#endif
}

INLINE v8 load_codes(const int8_t q[LANES])
{
#ifdef __AVX2__
    return (v8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)q)));
#else
    v8 v;
    for (int l = 0; l < LANES; l++)
        v[l] = q[l];
    return v;
#endif
}

/* ---- Codes -------------------------------------------------------------------------------------- */

struct coder {
    v8 lo, hi;
    bool book;
    float unit;      /* between the outermost codes */
    float value[16]; /* of a book, */
    float edge[15];  /* the halfway points between them, */
    float edge3[8];  /* edges 1, 5, 9, 13 */
    float edge4[8];  /* and 0, 2 … 14 */
};

INLINE struct coder coder_of(const struct codes *codes)
{
    struct coder c = {
        all((float)codes->lo), all((float)codes->hi), codes->book != NULL, 1, {0}, {0}, {0}, {0}};
    if (!c.book)
        return c;
    for (int i = 0; i < 16; i++)
        c.value[i] = codes->book[i];
    for (int i = 0; i < 15; i++)
        c.edge[i] = (c.value[i] + c.value[i + 1]) / 2;
    for (int i = 0; i < 8; i++) {
        c.edge3[i] = c.edge[i % 4 * 4 + 1];
        c.edge4[i] = c.edge[i * 2];
    }
    c.unit = c.value[1] - c.value[0];
    return c;
}

/* The value of the book nearest to each lane, by bisection. */
INLINE v8 look_up(const struct coder *c, v8 v)
{
    float q[LANES];
    memcpy(q, &v, sizeof q);
    for (int l = 0; l < LANES; l++) {
        int i = 0;
        for (int s = 8; s > 0; s /= 2)
            i += q[l] > c->edge[i + s - 1] ? s : 0;
        q[l] = c->value[i];
    }
    return load(q);
}

/* The code nearest to v: by rounding, or by the same bisection of the book. */
INLINE v8 nearest(const struct coder *c, v8 v)
{
    if (!c->book)
        return round_even(lesser(greater(v, c->lo), c->hi));
#ifdef __AVX2__
    const __m256 x = (__m256)v, low = _mm256_loadu_ps(c->value), high = _mm256_loadu_ps(c->value + 8);
    __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(c->edge[7]), _CMP_GT_OQ);
    __m256i i = _mm256_and_si256(_mm256_castps_si256(above), _mm256_set1_epi32(8));
    __m256 edge = _mm256_blendv_ps(_mm256_set1_ps(c->edge[3]), _mm256_set1_ps(c->edge[11]), above);
    __m256i step = _mm256_castps_si256(_mm256_cmp_ps(x, edge, _CMP_GT_OQ));
    i = _mm256_or_si256(i, _mm256_and_si256(step, _mm256_set1_epi32(4)));
    edge = _mm256_permutevar8x32_ps(_mm256_loadu_ps(c->edge3), _mm256_srli_epi32(i, 2));
    step = _mm256_castps_si256(_mm256_cmp_ps(x, edge, _CMP_GT_OQ));
    i = _mm256_or_si256(i, _mm256_and_si256(step, _mm256_set1_epi32(2)));
    edge = _mm256_permutevar8x32_ps(_mm256_loadu_ps(c->edge4), _mm256_srli_epi32(i, 1));
    step = _mm256_castps_si256(_mm256_cmp_ps(x, edge, _CMP_GT_OQ));
    i = _mm256_sub_epi32(i, step);
    return (v8)_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, i), _mm256_permutevar8x32_ps(high, i), above);
#else
    return look_up(c, v);
#endif
}

/* ---- What is fitted ----------------------------------------------------------------------------- */

/* A block in the units of the search: x 2^exponent with a largest magnitude of 1 … 2, weights of at most 1.
 */
struct wide {
    float x[QK_K], w[QK_K];
    int exponent;
};

INLINE float largest(const float *x, int64_t n)
{
    float max = 0;
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        finite &= a <= 0x1.fffffep127f;
        max = a > max ? a : max;
    }
    return finite ? max : NAN;
}

/* Weights relative to the largest; 1 where they say nothing. */
INLINE float weight_unit(const float *w, int64_t n)
{
    float max = w ? largest(w, n) : 0;
    return max > 0 ? 1 / max : 0;
}

INLINE float weight(const float *w, int64_t i, float unit)
{
    float v = unit > 0 ? w[i] * unit : 1;
    return v > 0x1p-20f ? v : 0x1p-20f;
}

static int exponent_of(float max)
{
    int exponent = 0;
    (void)frexpf(max, &exponent);
    return 1 - exponent;
}

/* false: a value is not finite */
INLINE bool widen(struct wide *to, const float *x, const float *w, int n)
{
    float max = largest(x, n), unit = weight_unit(w, n);
    if (!(max >= 0))
        return false;
    to->exponent = max > 0 ? exponent_of(max) : 0;
    double factor = ldexp(1, to->exponent);
    v8 squares = {0};
    for (int i = 0; i < n; i++)
        to->x[i] = (float)(x[i] * factor);
    for (int i = 0; i < n; i += LANES)
        squares += load(to->x + i) * load(to->x + i);
    const float mean = max > 0 ? sum8(squares) / (float)n : 1;
    for (int i = 0; i < n; i++)
        to->w[i] = weight(w, i, unit) * sqrtf(mean + to->x[i] * to->x[i]);
    return true;
}

/* The half float nearest to d 2^−exponent, as a float. */
static float stored_half(float d, int exponent)
{
    double v = ldexp((double)d, -exponent);
    return f16_to_f32(f32_to_f16((float)(v < -65504 ? -65504 : v > 65504 ? 65504 : v)));
}

/* For scales that must not vanish: the common scale of a super-block, of which its sub-blocks' are multiples
 * (it is below 2⁻²⁵ for values below 10⁻⁴ in Q6_K or IQ4_XS), and one beside a minimum, which alone would
 * be a poor value for the whole block. */
static float stored_scale(float d, int exponent)
{
    double v = ldexp((double)d, -exponent);
    return d != 0 && fabs(v) < 0x1p-24 ? copysignf(0x1p-24f, d) : stored_half(d, exponent);
}

/* Back in the units of the search: at most 2^24 more than 1, or so small that it does not matter. */
static float in_units(float stored, int exponent)
{
    return (float)ldexp((double)stored, exponent);
}

/* The first lane that has the least error; none is NaN. */
INLINE int best_lane(const v8 *error, int n_vectors)
{
    v8 least = error[0];
    for (int h = 1; h < n_vectors; h++)
        least = lesser(least, error[h]);
    float half[4], min;
    for (int l = 0; l < 4; l++)
        half[l] = least[l] < least[l + 4] ? least[l] : least[l + 4];
    half[0] = half[0] < half[2] ? half[0] : half[2];
    half[1] = half[1] < half[3] ? half[1] : half[3];
    min = half[0] < half[1] ? half[0] : half[1];
    for (int h = 0; h < n_vectors; h++) {
#ifdef __AVX2__
        int mask = _mm256_movemask_ps((__m256)(error[h] == min));
        if (mask)
            return h * LANES + __builtin_ctz((unsigned)mask);
#else
        for (int l = 0; l < LANES; l++)
            if (error[h][l] == min)
                return h * LANES + l;
#endif
    }
    return 0;
}

/* One lane's value. */
INLINE float lane(const v8 *v, int k)
{
    float values[LANES];
    memcpy(values, &v[k / LANES], sizeof values);
    return values[k % LANES];
}

/* ---- One scale ---------------------------------------------------------------------------------- */

struct scale_fit {
    float d, inverse, error; /* inverse: of the trial that led to d */
};

/* Tries all inverse scales; better ones than *best replace it. */
INLINE void try_scales(struct scale_fit *best, const float *x, const float *w, int n, const struct coder *c,
                       const v8 inverse[2])
{
    v8 ee[2] = {{0}}, eq[2] = {{0}}, qq[2] = {{0}}, d[2], error[2];
    for (int i = 0; i < n; i++) {
        const v8 xi = all(x[i]), wi = all(w[i]);
        for (int h = 0; h < 2; h++) {
            v8 v = xi * inverse[h], q = nearest(c, v), e = v - q, we = wi * e;
            ee[h] += we * e;
            eq[h] += we * q;
            qq[h] += wi * q * q;
        }
    }
    for (int h = 0; h < 2; h++) {
        v8 slope = pick(qq[h] > 0, eq[h] / qq[h], all(0));
        d[h] = pick(qq[h] > 0, (all(1) + slope) / inverse[h], all(0));
        error[h] = (ee[h] - slope * eq[h]) / (inverse[h] * inverse[h]);
    }
    int k = best_lane(error, 2);
    if (lane(error, k) < best->error)
        *best = (struct scale_fit){lane(d, k), lane(inverse, k), lane(error, k)};
}

static const v8 fine[2] = {{-8, -7, -6, -5, -4, -3, -2, -1}, {0, 1, 2, 3, 4, 5, 6, 7}};

/* The d for which x ≈ d q is best. finer: goes on in steps of a twenty-fifth, which a super-block, whose
 * scales are rounded afterwards, gains nothing from. */
INLINE float search_scale(const float *x, const float *w, int n, const struct coder *c, bool finer)
{
    static const v8 step = {-1, -0.7f, -0.4f, -0.1f, 0, 0.3f, 0.6f, 1};
    float extreme = 0;
    for (int i = 0; i < n; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    if (fabsf(extreme) < 0x1p-60f) /* beside values of 1 in the same super-block */
        return 0;
    struct scale_fit best = {0, 1, INFINITY};
    v8 inverse[2] = {(c->lo - step * c->unit) / extreme, (c->hi + step * c->unit) / extreme};
    try_scales(&best, x, w, n, c, inverse);
    if (finer && best.d != 0) {
        const float at = best.inverse, width = c->unit / c->hi[0] * 0.04f;
        for (int h = 0; h < 2; h++)
            inverse[h] = at * (all(1) + fine[h] * width);
        try_scales(&best, x, w, n, c, inverse);
    }
    return best.d;
}

/* Codes for d as it is stored; the weighted squared error. */
INLINE float assign(int8_t *q, const float *x, const float *w, int n, const struct coder *c, float d, float m)
{
    const v8 inverse = all(d != 0 ? 1 / d : 0);
    v8 error = {0};
    for (int i = 0; i < n; i += LANES) {
        v8 xi = load(x + i) - m, v = xi * inverse, code = nearest(c, v), e = xi - d * code;
        error += load(w + i) * e * e;
        store_codes(q + i, code);
    }
    return sum8(error);
}

/* ---- A line: x ≈ d q + m ------------------------------------------------------------------------ */

struct line_fit {
    float d, m, error;
    float lo, hi; /* the trial that led here: where it has the codes 0 and q_max */
};

INLINE void try_lines(struct line_fit *best, const float *x, const float *w, int n, int q_max, const v8 lo[2],
                      const v8 hi[2], bool m_below_0)
{
    const v8 zero = all(0), top = all((float)q_max);
    v8 sq[2] = {{0}}, sqq[2] = {{0}}, se[2] = {{0}}, seq[2] = {{0}}, see[2] = {{0}};
    v8 inverse[2], d[2], m[2], error[2];
    float sw = 0;
    for (int h = 0; h < 2; h++)
        inverse[h] = top / (hi[h] - lo[h]);
    for (int i = 0; i < n; i++) {
        const v8 xi = all(x[i]), wi = all(w[i]);
        sw += w[i];
        for (int h = 0; h < 2; h++) {
            v8 v = (xi - lo[h]) * inverse[h];
            v8 q = round_even(lesser(greater(v, zero), top)), e = v - q, we = wi * e, wq = wi * q;
            sq[h] += wq;
            sqq[h] += wq * q;
            se[h] += we;
            seq[h] += we * q;
            see[h] += we * e;
        }
    }
    for (int h = 0; h < 2; h++) {
        v8 det = sw * sqq[h] - sq[h] * sq[h];
        v8 b = pick(det > 0, (sw * seq[h] - sq[h] * se[h]) / det, zero), a = (se[h] - b * sq[h]) / sw;
        v8 left = see[h] - a * se[h] - b * seq[h];
        m[h] = lo[h] + a / inverse[h];
        if (m_below_0) { /* else the best line through 0: e grows by what the minimum was */
            v8 c = lo[h] * inverse[h], eq = seq[h] + c * sq[h];
            v8 b0 = pick(sqq[h] > 0, eq / sqq[h], zero);
            v8 left0 = see[h] + (c + c) * se[h] + c * c * sw - b0 * eq;
            m8 above = m[h] > 0;
            m[h] = pick(above, zero, m[h]);
            b = pick(above, b0, b);
            left = pick(above, left0, left);
        }
        d[h] = (all(1) + b) / inverse[h];
        error[h] = pick(d[h] > 0, left / (inverse[h] * inverse[h]), all(INFINITY));
    }
    int k = best_lane(error, 2);
    if (lane(error, k) < best->error)
        *best = (struct line_fit){lane(d, k), lane(m, k), lane(error, k), lane(lo, k), lane(hi, k)};
}

/* The line for which x ≈ d q + m is best, d ≥ 0. */
INLINE struct line_fit search_line(const float *x, const float *w, int n, int q_max, bool m_below_0)
{
    /* How far the ends are moved inwards, in code units: all pairs of four. */
    static const v8 low[2] = {{-0.3f, -0.3f, -0.3f, -0.3f, 0, 0, 0, 0},
                              {0.3f, 0.3f, 0.3f, 0.3f, 0.7f, 0.7f, 0.7f, 0.7f}};
    static const v8 high = {-0.3f, 0, 0.3f, 0.7f, -0.3f, 0, 0.3f, 0.7f};
    static const v8 by4[2] = {{-1.5f, -1.5f, -1.5f, -1.5f, -0.5f, -0.5f, -0.5f, -0.5f},
                              {0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f}};
    static const v8 of4 = {-1.5f, -0.5f, 0.5f, 1.5f, -1.5f, -0.5f, 0.5f, 1.5f};
    float lo = x[0], hi = x[0];
    for (int i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (m_below_0 && lo > 0)
        lo = 0;
    struct line_fit best = {0, lo, INFINITY, lo, hi};
    if (hi - lo < 0x1p-60f)
        return best;
    float unit = (hi - lo) / (float)q_max;
    v8 los[2], his[2];
    for (int h = 0; h < 2; h++) {
        los[h] = lo + low[h] * unit;
        his[h] = hi - high * unit;
    }
    try_lines(&best, x, w, n, q_max, los, his, m_below_0);
    for (int pass = 0; pass < 3 && best.d > 0; pass++) {
        /* Around the trial itself, then around the line that it led to. */
        float at_lo = pass == 0 ? best.lo : best.m,
              at_hi = pass == 0 ? best.hi : best.m + best.d * (float)q_max;
        float width = unit * (pass == 2 ? 0.03f : 0.1f);
        for (int h = 0; h < 2; h++) {
            los[h] = at_lo + by4[h] * width;
            his[h] = at_hi + of4 * width;
        }
        try_lines(&best, x, w, n, q_max, los, his, m_below_0);
    }
    return best;
}

/* ---- Blocks of 32 ------------------------------------------------------------------------------- */

static void fit_block(struct block_32 *b, const float *x, const float *w, const struct codes *codes)
{
    struct wide wide;
    *b = (struct block_32){0};
    if (!widen(&wide, x, w, 32)) {
        b->d = NAN;
        return;
    }
    const struct coder c = coder_of(codes);
    b->d = stored_half(search_scale(wide.x, wide.w, 32, &c, true), wide.exponent);
    (void)assign(b->q, wide.x, wide.w, 32, &c, in_units(b->d, wide.exponent), 0);
}

static void fit_block_extreme(struct block_32 *b, const float *x, int q_max)
{
    const struct codes codes = {-q_max, q_max, NULL};
    struct wide wide;
    *b = (struct block_32){0};
    if (!widen(&wide, x, NULL, 32)) {
        b->d = NAN;
        return;
    }
    const struct coder c = coder_of(&codes);
    b->d = stored_half(largest(wide.x, 32) / (float)q_max, wide.exponent);
    (void)assign(b->q, wide.x, wide.w, 32, &c, in_units(b->d, wide.exponent), 0);
}

static void fit_block_min(struct block_32 *b, const float *x, const float *w, int q_max)
{
    const struct codes codes = {0, q_max, NULL};
    struct wide wide;
    *b = (struct block_32){0};
    if (!widen(&wide, x, w, 32)) {
        b->d = b->m = NAN;
        return;
    }
    const struct coder c = coder_of(&codes);
    struct line_fit line = search_line(wide.x, wide.w, 32, q_max, false);
    b->d = stored_scale(line.d, wide.exponent);
    b->m = stored_half(line.m, wide.exponent);
    (void)assign(b->q, wide.x, wide.w, 32, &c, in_units(b->d, wide.exponent), in_units(b->m, wide.exponent));
}

/* ---- Groups of any length with an integer zero point --------------------------------------------- */

static void fit_group_zero(float *d, int *zero, uint8_t *q, const float *x, const float *w, int64_t n,
                           int bits)
{
    /* How much of the range from the least to the greatest value is kept; each with three zero points. */
    enum { N_SHRINKS = 32 };
    const float max = largest(x, n), unit = weight_unit(w, n), q_max = (float)((1 << bits) - 1);
    *zero = 1 << (bits - 1);
    for (int64_t i = 0; i < n; i++)
        q[i] = (uint8_t)*zero;
    *d = max >= 0 ? 0 : NAN;
    if (!(max > 0))
        return;
    const int exponent = exponent_of(max);
    const float factor = (float)ldexp(1, exponent / 2), rest = (float)ldexp(1, exponent - exponent / 2);
    float lo = 0, hi = 0, best = INFINITY;
    for (int64_t i = 0; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    lo = lo * factor * rest;
    hi = hi * factor * rest;
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)(x[i] * factor * rest) * (double)(x[i] * factor * rest);
    const float mean = (float)(squares / (double)n);
    for (int k = 0; k < N_SHRINKS * 3; k += TRIALS) {
        v8 inverse[2], low[2], high[2], ee[2] = {{0}}, eq[2] = {{0}}, qq[2] = {{0}};
        float zeros[TRIALS], ds[TRIALS];
        for (int l = 0; l < TRIALS; l++) {
            float keep = 1.05f - (float)((k + l) / 3) * (bits > 4 ? 0.01f : 0.024f);
            ds[l] = (hi - lo) * keep / q_max;
            zeros[l] = rintf(-lo * keep / ds[l]) + (float)((k + l) % 3 - 1);
            zeros[l] = zeros[l] < 1 ? 1 : zeros[l] > q_max ? q_max : zeros[l];
            inverse[l / LANES][l % LANES] = 1 / ds[l];
            low[l / LANES][l % LANES] = -zeros[l];
            high[l / LANES][l % LANES] = q_max - zeros[l];
        }
        for (int64_t i = 0; i < n; i++) {
            const float scaled = x[i] * factor * rest;
            const v8 xi = all(scaled), wi = all(weight(w, i, unit) * sqrtf(mean + scaled * scaled));
            for (int h = 0; h < 2; h++) {
                v8 v = xi * inverse[h], code = round_even(lesser(greater(v, low[h]), high[h]));
                v8 e = v - code, we = wi * e;
                ee[h] += we * e;
                eq[h] += we * code;
                qq[h] += wi * code * code;
            }
        }
        for (int l = 0; l < TRIALS; l++) {
            const int h = l / LANES, i = l % LANES;
            float slope = qq[h][i] > 0 ? eq[h][i] / qq[h][i] : 0;
            float error = (ee[h][i] - slope * eq[h][i]) * ds[l] * ds[l];
            if (error < best && 1 + slope > 0) {
                best = error;
                *zero = (int)zeros[l];
                *d = stored_scale(ds[l] * (1 + slope), exponent);
            }
        }
    }
    if (*d == 0)
        return;
    const float stored = in_units(*d, exponent), inverse = 1 / stored, z = (float)*zero;
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * factor * rest * inverse;
        v = v < -z ? -z : v > q_max - z ? q_max - z : v;
        q[i] = (uint8_t)(rintf(v) + z);
    }
}

/* ---- Super-blocks ------------------------------------------------------------------------------- */

enum { ROUNDS = 3 };

/* Writes a sub-block's scale and min to all the groups of 16 elements that it covers. */
INLINE void set_sub(struct block_256 *b, int j, int sub_len, float scale, float min)
{
    for (int i = j * sub_len / 16; i < (j + 1) * sub_len / 16; i++) {
        b->scale[i] = (int8_t)scale;
        b->min[i] = (uint8_t)min;
    }
}

/* The error that pairs of a scale and a minimum, as they would be stored, leave. */
INLINE void try_pairs(v8 *error, int n_vectors, const float *x, const float *w, int n, const struct coder *c,
                      const v8 *d, const v8 *m)
{
    v8 inverse[2];
    for (int h = 0; h < n_vectors; h++) {
        error[h] = all(0);
        inverse[h] = pick(d[h] != 0, all(1) / d[h], all(0));
    }
    for (int i = 0; i < n; i++) {
        const v8 xi = all(x[i]), wi = all(w[i]);
        for (int h = 0; h < n_vectors; h++) {
            v8 above = xi + m[h], v = above * inverse[h], e = above - d[h] * nearest(c, v);
            error[h] += wi * e * e;
        }
    }
}

/* A super-block in the search: the common scales in its units, beside the stored ones in b. */
struct super {
    struct wide wide;
    float d[N_SUB_MAX], m[N_SUB_MAX]; /* what the sub-blocks want */
    float scale_lo, scale_hi, min_hi;
    int sub_len;
};

INLINE float clampf(float v, float lo, float hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* The best integers for the common scales of b, and the error that remains. */
INLINE float choose_integers(struct block_256 *b, const struct super *s, const struct coder *c)
{
    static const v8 near4 = {-1, 0, 1, 2, -1, 0, 1, 2}, near8 = {-3, -2, -1, 0, 1, 2, 3, 4};
    static const v8 by4[2] = {{-1, -1, -1, -1, 0, 0, 0, 0}, {1, 1, 1, 1, 2, 2, 2, 2}};
    const int n = s->sub_len;
    const float d = in_units(b->d, s->wide.exponent), dmin = in_units(b->dmin, s->wide.exponent);
    const v8 lo = all(s->scale_lo), hi = all(s->scale_hi), zero = all(0);
    float total = 0;
    for (int j = 0; j < QK_K / n; j++) {
        const float *x = s->wide.x + j * n, *w = s->wide.w + j * n;
        float at = d != 0 ? floorf(clampf(s->d[j] / d, s->scale_lo, s->scale_hi)) : 0;
        float min_at = dmin != 0 ? floorf(clampf(s->m[j] / dmin, 0, s->min_hi)) : 0;
        v8 scale[2], min[2] = {zero, zero}, ds[2], ms[2] = {zero, zero}, error[2];
        int n_vectors = s->min_hi > 0 ? 2 : 1, k;
        if (s->min_hi > 0) {
            for (int h = 0; h < 2; h++) {
                scale[h] = lesser(greater(at + by4[h], lo), hi);
                min[h] = lesser(greater(min_at + near4, zero), all(s->min_hi));
                ds[h] = d * scale[h];
                ms[h] = dmin * min[h];
            }
            try_pairs(error, 2, x, w, n, c, ds, ms);
        } else {
            scale[0] = lesser(greater(at + near8, lo), hi);
            ds[0] = d * scale[0];
            try_pairs(error, 1, x, w, n, c, ds, ms);
        }
        k = best_lane(error, n_vectors);
        total += lane(error, k);
        set_sub(b, j, n, lane(scale, k), lane(min, k));
        (void)assign(b->q + j * n, x, w, n, c, lane(ds, k), -lane(ms, k));
    }
    return total;
}

/* The best d and dmin for the scales, mins and codes of b: normal equations for what b leaves. */
INLINE void refit(struct block_256 *b, const struct super *s)
{
    const int exponent = s->wide.exponent;
    const float d = in_units(b->d, exponent), dmin = in_units(b->dmin, exponent);
    v8 uu = {0}, uv = {0}, vv = {0}, eu = {0}, ev = {0};
    for (int i = 0; i < QK_K; i += LANES) {
        v8 w = load(s->wide.w + i), v = all(-(float)b->min[i / 16]);
        v8 u = load_codes(b->q + i) * (float)b->scale[i / 16];
        v8 e = load(s->wide.x + i) - (d * u + dmin * v);
        uu += w * u * u;
        uv += w * u * v;
        vv += w * v * v;
        eu += w * e * u;
        ev += w * e * v;
    }
    const float su = sum8(uu), suv = sum8(uv), sv = sum8(vv), seu = sum8(eu), sev = sum8(ev);
    const float det = su * sv - suv * suv;
    float to_d = d, to_dmin = dmin;
    if (det > 0x1p-20f * su * sv) {
        to_d += (seu * sv - sev * suv) / det;
        to_dmin += (su * sev - suv * seu) / det;
    } else if (su > 0) {
        to_d += seu / su;
    }
    if (to_d != 0 && to_dmin >= 0) {
        b->d = stored_scale(to_d, exponent);
        b->dmin = stored_scale(to_dmin, exponent);
    }
}

/* From what the sub-blocks want to a super-block: alternates between the best integers for the common scales
 * and the best common scales for the integers. */
INLINE float settle(struct block_256 *b, const struct super *s, const struct coder *c, float best)
{
    struct block_256 trial = *b;
    float d = b->d;
    for (int round = 0; round < ROUNDS; round++) {
        float error = choose_integers(&trial, s, c);
        if (error < best) {
            best = error;
            *b = trial;
        } else if (round > 0) {
            break;
        }
        refit(&trial, s);
        if (trial.d == d && trial.dmin == b->dmin)
            break;
        d = trial.d;
    }
    return best;
}

static void fit_super(struct block_256 *b, const float *x, const float *w, int sub_len,
                      const struct codes *codes, int scale_lo)
{
    struct super s = {.sub_len = sub_len, .scale_lo = (float)scale_lo, .scale_hi = (float)(-scale_lo - 1)};
    *b = (struct block_256){0};
    if (!widen(&s.wide, x, w, QK_K)) {
        b->d = NAN;
        return;
    }
    const struct coder c = coder_of(codes);
    float extreme = 0;
    for (int j = 0; j < QK_K / sub_len; j++) {
        s.d[j] = search_scale(s.wide.x + j * sub_len, s.wide.w + j * sub_len, sub_len, &c, false);
        extreme = fabsf(s.d[j]) > fabsf(extreme) ? s.d[j] : extreme;
    }
    b->d = stored_scale(extreme / s.scale_lo, s.wide.exponent);
    (void)settle(b, &s, &c, INFINITY);
}

static void fit_super_min(struct block_256 *b, const float *x, const float *w, int sub_len, int q_max,
                          int scale_max)
{
    const struct codes codes = {0, q_max, NULL};
    struct super s = {.sub_len = sub_len, .scale_hi = (float)scale_max, .min_hi = (float)scale_max};
    *b = (struct block_256){0};
    if (!widen(&s.wide, x, w, QK_K)) {
        b->d = b->dmin = NAN;
        return;
    }
    const struct coder c = coder_of(&codes);
    float d_max = 0, m_max = 0;
    for (int j = 0; j < QK_K / sub_len; j++) {
        struct line_fit line =
            search_line(s.wide.x + j * sub_len, s.wide.w + j * sub_len, sub_len, q_max, true);
        s.d[j] = line.d;
        s.m[j] = -line.m;
        d_max = s.d[j] > d_max ? s.d[j] : d_max;
        m_max = s.m[j] > m_max ? s.m[j] : m_max;
    }
    b->d = stored_scale(d_max / s.scale_hi, s.wide.exponent);
    b->dmin = stored_scale(m_max / s.scale_hi, s.wide.exponent);
    (void)settle(b, &s, &c, INFINITY);
}

/* ---- Lattices ------------------------------------------------------------------------------- */

#include "quant/fit_lattice.h"

/* ---- Blocks of other lengths and scales ---------------------------------------------------------------- */

static void fit_codes(float *d, int8_t *q, const float *x, const float *w, int n, const struct codes *codes)
{
    struct wide wide;
    *d = NAN;
    memset(q, 0, (size_t)n);
    if (!widen(&wide, x, w, n))
        return;
    const struct coder c = coder_of(codes);
    *d = stored_half(search_scale(wide.x, wide.w, n, &c, true), wide.exponent);
    (void)assign(q, wide.x, wide.w, n, &c, in_units(*d, wide.exponent), 0);
}

static bool fit_listed(int *scale, int8_t *q, const float *x, const float *w, int n,
                       const struct codes *codes, const float *scales, int n_scales)
{
    struct wide wide;
    *scale = 0;
    memset(q, 0, (size_t)n);
    if (!widen(&wide, x, w, n))
        return false;
    const struct coder c = coder_of(codes);
    const float d = fabsf(search_scale(wide.x, wide.w, n, &c, true)); /* the codes are as many below 0 */
    if (d == 0)
        return true;
    int at = 0;
    while (at < n_scales - 1 && in_units(scales[at], wide.exponent) < d)
        at++;
    float best = INFINITY;
    for (int s = at > 2 ? at - 3 : 0; s <= at + 1 && s < n_scales; s++) {
        int8_t codes_of_s[QK_K];
        float error = assign(codes_of_s, wide.x, wide.w, n, &c, in_units(scales[s], wide.exponent), 0);
        if (error <= best) { /* of equals the largest: all may be far too small */
            best = error;
            *scale = s;
            memcpy(q, codes_of_s, (size_t)n);
        }
    }
    return true;
}

const struct fit_functions FIT_NAME = {
    .block = fit_block,
    .block_min = fit_block_min,
    .block_extreme = fit_block_extreme,
    .group_zero = fit_group_zero,
    .super = fit_super,
    .super_min = fit_super_min,
    .lattice = fit_lattice_block,
    .codes = fit_codes,
    .listed = fit_listed,
};

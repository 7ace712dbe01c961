/* The quantisers: codes and scales that make the squared error of a block small.
 *
 * For given codes q the best scale is the least-squares one, d = Σxq / Σq², which leaves the error
 * Σx² − (Σxq)² / Σq²; with a minimum it is the line of regression of x on q. So the search is for codes: they
 * come from rounding with a few dozen trial scales around the one that puts the block's extreme on
 * the outermost code, and from the best one's own least-squares scale. In super-blocks the scales
 * are themselves rounded to a few bits of a common half-float scale: neighbouring roundings are
 * tried and the common scale is fitted again to what they became.
 *
 * Everything is computed in double, where no float's square overflows or vanishes. All scales are
 * rounded to half floats before the final codes are chosen, so the codes answer to the stored scale: one
 * above 65504 becomes 65504, and the codes saturate. A block with an infinite value or a NaN gets a NaN
 * scale and so decodes to NaN: the fault stays visible. */
#include "quant/fit.h"

#include <math.h>
#include <string.h>

/* Finer trials than these leave errors that are smaller by less than a thousandth. */
enum { REFINEMENTS = 6, STEPS = 4 };
static const double STEP = 0.3; /* of trial scales, in code units at the outermost code */

static inline double clamp(double v, double lo, double hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* rint for |v| < 2⁵¹, without a call where the CPU level has no instruction for it. */
static inline double round_even(double v)
{
    return v + 0x1.8p52 - 0x1.8p52;
}

static const float iq4_edges[15] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                    7,       19,     31.5f, 45.5f, 61,  79,     101};
const struct codes iq4_codes = {-127, 113, iq4_values, iq4_edges};

/* The code nearest to v. */
static inline double nearest(const struct codes *c, double v)
{
    if (!c->book)
        return round_even(clamp(v, c->lo, c->hi));
    int i = 0;
    for (int step = 8; step > 0; step /= 2) /* no branch: it would be a coin's toss */
        i += v > c->edges[i + step - 1] ? step : 0;
    return c->book[i];
}

static float nearest_half(double v)
{
    return f16_to_f32(f32_to_f16((float)clamp(v, -65504, 65504)));
}

/* For scales that must not vanish: the common scale of a super-block, of which its sub-blocks' are multiples
 * (it is below 2⁻²⁵ for values below 10⁻⁴ in Q6_K or IQ4_XS), and one beside a minimum, which alone would
 * be a poor value for the whole block. */
static float half_scale(double d)
{
    return d != 0 && fabs(d) < 0x1p-24 ? copysignf(0x1p-24f, (float)d) : nearest_half(d);
}

/* Widens x; false when a value is not finite. */
static bool widen(double *wide, const float *x, int n)
{
    bool finite = true;
    for (int i = 0; i < n; i++) {
        wide[i] = x[i];
        finite = finite && isfinite(x[i]);
    }
    return finite;
}

/* Rounds x·inv to codes: the least-squares scale for them, and how much of Σx² it explains. */
static double regress(double *d, const double *x, int n, const struct codes *c, double inv)
{
    double xq = 0, qq = 0;
    for (int i = 0; i < n; i++) {
        double q = nearest(c, x[i] * inv);
        xq += x[i] * q;
        qq += q * q;
    }
    *d = qq > 0 ? xq / qq : 0;
    return *d * xq;
}

/* The d for which x ≈ d q is best. */
static double search_scale(const double *x, int n, const struct codes *c)
{
    double extreme = 0;
    for (int i = 0; i < n; i++)
        extreme = fabs(x[i]) > fabs(extreme) ? x[i] : extreme;
    if (extreme == 0)
        return 0;
    double best = 0, best_d = 0;
    for (int k = -STEPS; k <= STEPS; k++) {
        double unit = c->book ? c->book[1] - c->book[0] : 1;
        for (int side = 0; side < 2; side++) {
            double edge = side ? c->hi + k * STEP * unit : c->lo - k * STEP * unit, d;
            double gain = regress(&d, x, n, c, edge / extreme);
            if (gain > best) {
                best = gain;
                best_d = d;
            }
        }
    }
    for (int i = 0; i < REFINEMENTS && best_d != 0; i++) {
        double d, gain = regress(&d, x, n, c, 1 / best_d);
        if (gain <= best)
            break;
        best = gain;
        best_d = d;
    }
    return best_d;
}

struct line {
    double d, m; /* x ≈ d q + m */
};

/* Rounds (x − from.m) / from.d to 0 … q_max: the line of regression, and how much of Σx² it explains. A
 * line with m > 0 is replaced by the best one through zero when m must not be positive. */
static double regress_line(struct line *to, const double *x, int n, int q_max, struct line from,
                           bool m_below_0)
{
    double inv = 1 / from.d, sx = 0, sq = 0, sxq = 0, sqq = 0;
    for (int i = 0; i < n; i++) {
        double q = round_even(clamp((x[i] - from.m) * inv, 0, q_max));
        sx += x[i];
        sq += q;
        sxq += x[i] * q;
        sqq += q * q;
    }
    double det = n * sqq - sq * sq;
    to->d = det > 0 ? (n * sxq - sx * sq) / det : 0;
    to->m = (sx - to->d * sq) / n;
    if (m_below_0 && to->m > 0) {
        to->m = 0;
        to->d = sqq > 0 ? sxq / sqq : 0;
    }
    return to->d * sxq + to->m * sx;
}

/* The line for which x ≈ d q + m is best, d ≥ 0. */
static struct line search_line(const double *x, int n, int q_max, bool m_below_0)
{
    double lo = x[0], hi = x[0];
    for (int i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (m_below_0 && lo > 0)
        lo = 0;
    struct line best_line = {0, lo};
    if (hi <= lo)
        return best_line;
    double best = -INFINITY;
    for (int k = -STEPS; k <= STEPS; k++) {
        double d = (hi - lo) / (q_max + k * STEP);
        struct line from = {d, (lo + hi - d * q_max) / 2}, to;
        double gain = regress_line(&to, x, n, q_max, from, m_below_0);
        if (gain > best && to.d > 0) {
            best = gain;
            best_line = to;
        }
    }
    for (int i = 0; i < REFINEMENTS && best_line.d > 0; i++) {
        struct line to;
        double gain = regress_line(&to, x, n, q_max, best_line, m_below_0);
        if (gain <= best || to.d <= 0)
            break;
        best = gain;
        best_line = to;
    }
    return best_line;
}

/* Codes for the scale d and the minimum m as they are stored; the squared error. */
static double assign(int8_t *q, const double *x, int n, const struct codes *c, double d, double m)
{
    double error = 0, inv = d != 0 ? 1 / d : 0;
    for (int i = 0; i < n; i++) {
        double code = nearest(c, (x[i] - m) * inv);
        double e = x[i] - (d * code + m);
        error += e * e;
        q[i] = (int8_t)code;
    }
    return error;
}

void fit_32(struct block_32 *b, const float *x, const struct codes *codes)
{
    double wide[32];
    *b = (struct block_32){0};
    if (widen(wide, x, 32))
        b->d = nearest_half(search_scale(wide, 32, codes));
    else
        b->d = NAN;
    if (isfinite(b->d))
        (void)assign(b->q, wide, 32, codes, b->d, 0);
}

void fit_32_extreme(struct block_32 *b, const float *x, int q_max)
{
    const struct codes codes = {-q_max, q_max, NULL, NULL};
    double wide[32], extreme = 0;
    *b = (struct block_32){0};
    if (!widen(wide, x, 32)) {
        b->d = NAN;
        return;
    }
    for (int i = 0; i < 32; i++)
        extreme = fabs(wide[i]) > extreme ? fabs(wide[i]) : extreme;
    b->d = nearest_half(extreme / q_max);
    (void)assign(b->q, wide, 32, &codes, b->d, 0);
}

void fit_32_min(struct block_32 *b, const float *x, int q_max)
{
    const struct codes codes = {0, q_max, NULL, NULL};
    double wide[32];
    *b = (struct block_32){0};
    if (!widen(wide, x, 32)) {
        b->d = b->m = NAN;
        return;
    }
    struct line line = search_line(wide, 32, q_max, false);
    b->d = half_scale(line.d);
    b->m = nearest_half(line.m);
    (void)assign(b->q, wide, 32, &codes, b->d, b->m);
}

void fit_32_zero(struct block_zero *b, const float *x, int q_max)
{
    double wide[32], lo = 0, hi = 0; /* zero has a code of its own */
    *b = (struct block_zero){0};
    if (!widen(wide, x, 32)) {
        b->d = NAN;
        return;
    }
    for (int i = 0; i < 32; i++) {
        lo = wide[i] < lo ? wide[i] : lo;
        hi = wide[i] > hi ? wide[i] : hi;
    }
    b->d = nearest_half((hi - lo) / q_max);
    if (hi > lo)
        b->zero = (int)round_even(-lo / (hi - lo) * q_max);
    double inv = b->d != 0 ? 1 / (double)b->d : 0;
    for (int i = 0; i < 32; i++)
        b->q[i] = (uint8_t)(round_even(clamp(wide[i] * inv, -b->zero, q_max - b->zero)) + b->zero);
}

enum { ROUNDS = 3, MAX_SUB = 16 };

/* Writes a sub-block's scale and min to all the groups of 16 elements that it covers. */
static void set_sub(struct block_256 *b, int j, int sub_len, int scale, int min)
{
    for (int i = j * sub_len / 16; i < (j + 1) * sub_len / 16; i++) {
        b->scale[i] = (int8_t)scale;
        b->min[i] = (uint8_t)min;
    }
}

/* Sub-block j: the scale and min among the neighbours of those given, and their codes, that leave the
 * least error, which is returned. */
static double best_sub(struct block_256 *b, const double *x, int j, int sub_len, const struct codes *c,
                       const struct codes *scales, const struct codes *mins, int scale, int min)
{
    double best = INFINITY;
    int8_t q[256];
    for (int s = scale - 1; s <= scale + 1; s++)
        for (int m = min - 1; m <= min + 1; m++) {
            if (s < scales->lo || s > scales->hi || m < mins->lo || m > mins->hi)
                continue;
            double error = assign(q, x, sub_len, c, (double)b->d * s, -(double)b->dmin * m);
            if (error < best) {
                best = error;
                set_sub(b, j, sub_len, s, m);
                memcpy(b->q + j * sub_len, q, (size_t)sub_len);
            }
        }
    return best;
}

/* The best d and dmin for the scales, mins and codes of b: two normal equations. */
static void refit(struct block_256 *b, const double *x)
{
    double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
    for (int i = 0; i < 256; i++) {
        double u = b->scale[i / 16] * b->q[i], v = b->min[i / 16];
        uu += u * u;
        uv += u * v;
        vv += v * v;
        xu += x[i] * u;
        xv += x[i] * v;
    }
    double det = uu * vv - uv * uv;
    double d = det > 0 ? (xu * vv - xv * uv) / det : uu > 0 ? xu / uu : 0;
    double dmin = vv > 0 ? (d * uv - xv) / vv : 0;
    if (d != 0 && dmin >= 0) {
        b->d = half_scale(d);
        b->dmin = half_scale(dmin);
    }
}

/* From sub-block scales d[j] and minima m[j] to a super-block: rounds them to the common scales,
 * then alternates between the best integers for those and the best common scales for the integers. */
static void fit_super(struct block_256 *b, const double *x, int sub_len, const struct codes *c,
                      const struct codes *scales, const struct codes *mins, const double *d, const double *m)
{
    struct block_256 trial = *b;
    double best = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        double error = 0;
        for (int j = 0; j < QK_K / sub_len; j++) {
            double scale = trial.d != 0 ? nearest(scales, d[j] / trial.d) : 0;
            double min = trial.dmin != 0 ? nearest(mins, m[j] / trial.dmin) : 0;
            error += best_sub(&trial, x + j * sub_len, j, sub_len, c, scales, mins, (int)scale, (int)min);
        }
        if (error >= best)
            break;
        best = error;
        *b = trial;
        refit(&trial, x);
    }
}

void fit_256(struct block_256 *b, const float *x, int sub_len, const struct codes *codes, int scale_lo)
{
    const struct codes scales = {scale_lo, -scale_lo - 1, NULL, NULL}, no_mins = {0, 0, NULL, NULL};
    double wide[QK_K], d[MAX_SUB], m[MAX_SUB] = {0}, extreme = 0;
    *b = (struct block_256){0};
    if (!widen(wide, x, QK_K)) {
        b->d = NAN;
        return;
    }
    for (int j = 0; j < QK_K / sub_len; j++) {
        d[j] = search_scale(wide + j * sub_len, sub_len, codes);
        extreme = fabs(d[j]) > fabs(extreme) ? d[j] : extreme;
    }
    b->d = half_scale(extreme / scale_lo);
    fit_super(b, wide, sub_len, codes, &scales, &no_mins, d, m);
}

void fit_256_min(struct block_256 *b, const float *x, int sub_len, int q_max, int scale_max)
{
    const struct codes codes = {0, q_max, NULL, NULL}, scales = {0, scale_max, NULL, NULL};
    double wide[QK_K], d[MAX_SUB], m[MAX_SUB], d_max = 0, m_max = 0;
    *b = (struct block_256){0};
    if (!widen(wide, x, QK_K)) {
        b->d = b->dmin = NAN;
        return;
    }
    for (int j = 0; j < QK_K / sub_len; j++) {
        struct line line = search_line(wide + j * sub_len, sub_len, q_max, true);
        d[j] = line.d;
        m[j] = -line.m;
        d_max = d[j] > d_max ? d[j] : d_max;
        m_max = m[j] > m_max ? m[j] : m_max;
    }
    b->d = half_scale(d_max / scale_max);
    b->dmin = half_scale(m_max / scale_max);
    fit_super(b, wide, sub_len, &codes, &scales, &scales, d, m);
}

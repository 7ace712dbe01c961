/* Functions of float that every CPU level computes with the same bits (numerics contract, rule 5). This
 * is the scalar definition; lanes16.h repeats it operation by operation on 16 lanes. Every fmaf is
 * written, nothing else is fused.
 *
 * A NaN's sign and payload are not part of the contract: where one level gives a NaN, all do. */
#ifndef QUOLL_MATHF_H
#define QUOLL_MATHF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* CUDA's files say it in their own way. */
#ifndef MATHF_INLINE
#define MATHF_INLINE static inline __attribute__((always_inline))
#endif

/* Defines the function `name` of an inlined name_body, compiled twice: for CPUs with FMA, where fmaf is one
 * instruction, and without, where libm's gives the same bits, slowly. (target_clones would say it shorter,
 * but clang 14 names the result differently in other files, and ThreadSanitizer crashes in its resolver.) */
#define FMA_VERSIONS(name, parameters, arguments)                    \
    __attribute__((target("fma"))) static void name##_fma parameters \
    {                                                                \
        name##_body arguments;                                       \
    }                                                                \
    static void name##_libm parameters                               \
    {                                                                \
        name##_body arguments;                                       \
    }                                                                \
    void name parameters                                             \
    {                                                                \
        if (__builtin_cpu_supports("fma"))                           \
            name##_fma arguments;                                    \
        else                                                         \
            name##_libm arguments;                                   \
    }

/* e^x = 2^n e^r, n = round(x / ln 2), |r| ≤ ln(2) / 2 (a little more by rounding); ln 2 in two parts, so
 * that r is right to its last bits. e^r is 1 + r + a polynomial whose relative error is at most
 * 2^-28 there (minimax with the first two coefficients fixed, so that e^0 = 1 exactly). */
#define EXP_LOG2E  0x1.715476p+0f
#define EXP_LN2_HI 0x1.62e43p-1f
#define EXP_LN2_LO (-0x1.05c61p-29f)
#define EXP_C6     0x1.6a2416p-10f
#define EXP_C5     0x1.1239f4p-7f
#define EXP_C4     0x1.5558f2p-5f
#define EXP_C3     0x1.555492p-3f
#define EXP_C2     0x1.fffffcp-2f
/* Above the first e^x is +Inf, as it must; below the second it is 0, where it would be denormal
 * (under 2^-126): a probability that small never counts, and denormals are slow. */
#define EXP_MAX 0x1.62e42ep+6f
#define EXP_MIN (-0x1.5d5894p+6f)

/* e^x within 1 ulp, EXP_MIN ≤ x ≤ EXP_MAX; e^0 = 1. Without branches, for loops. */
MATHF_INLINE float mathf_exp_inside(float x)
{
    float n = rintf(x * EXP_LOG2E);
    float r = fmaf(n, -EXP_LN2_HI, x);
    r = fmaf(n, -EXP_LN2_LO, r);
    float p = fmaf(EXP_C6, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1);
    p = fmaf(p, r, 1);
    uint32_t bits; /* times 2^n: p is in [0.7, 1.42], the result normal between the two limits */
    memcpy(&bits, &p, sizeof bits);
    bits += (uint32_t)(int32_t)n << 23;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* e^x within 1 ulp; 0 below EXP_MIN; NaN stays. */
MATHF_INLINE float mathf_exp(float x)
{
    if (!(x <= EXP_MAX)) /* or NaN */
        return x + INFINITY;
    if (x < EXP_MIN)
        return 0;
    return mathf_exp_inside(x);
}

/* x / (1 + e^-x) (Elfwing et al. 2017). It goes to −0 as e^-x overflows; of −Inf it is NaN: a fault stays
 * visible. */
MATHF_INLINE float mathf_silu(float x)
{
    return x / (1 + mathf_exp(-x));
}

/* tanh x: near 0 x + x³ p(x²), p minimax with a relative error of at most 2^-27.7 below TANH_NEAR; from there
 * 1 − 2 / (e^2x + 1), whose cancellation costs no more than a bit. */
#define TANH_NEAR 0.625f
#define TANH_C4   (-0x1.750ce4p-8f)
#define TANH_C3   0x1.51f8cep-6f
#define TANH_C2   (-0x1.b835a4p-5f)
#define TANH_C1   0x1.1106f6p-3f
#define TANH_C0   (-0x1.555532p-2f)

/* tanh x within 2 ulp; NaN stays; of −0 it is +0. */
MATHF_INLINE float mathf_tanh(float x)
{
    float a = x < 0 ? -x : x;
    if (a < TANH_NEAR) {
        float z = x * x;
        float p = fmaf(TANH_C4, z, TANH_C3);
        p = fmaf(p, z, TANH_C2);
        p = fmaf(p, z, TANH_C1);
        p = fmaf(p, z, TANH_C0);
        return fmaf(x * z, p, x);
    }
    float y = 1 - 2 / (1 + mathf_exp(2 * a));
    return x < 0 ? -y : y;
}

/* Bounds x softly to −cap … cap (Gemma 2). */
MATHF_INLINE float mathf_softcap(float x, float cap)
{
    return cap * mathf_tanh(x / cap);
}

/* GELU (Hendrycks & Gimpel 2016) with tanh: 0.5 (1 + tanh u) is 1 / (1 + e^−2u), which has no cancellation
 * where u is negative. −2u = −x (GELU_C1 + GELU_C3 x²), GELU_C1 = 2 √(2/π), GELU_C3 = 0.044715 GELU_C1.
 * Of −Inf it is NaN, as of SiLU. */
#define GELU_C1 0x1.988454p+0f
#define GELU_C3 0x1.2444f2p-4f

MATHF_INLINE float mathf_gelu_tanh(float x)
{
    return x / (1 + mathf_exp(-x * fmaf(GELU_C3, x * x, GELU_C1)));
}

/* GELU with erf: x Φ(x), Φ the normal distribution. Its tail Φ(−a) = e^(−a²/2) R(a), a ≥ 0, has no
 * cancellation; R is a polynomial in t = 4 / (4 + a) without constant term, minimax with a relative error of
 * at most 2^-26.9 up to a = 13.5, from where the tail is 0 in any case. */
#define ERF_C10 0x1.09fde8p-6f
#define ERF_C9  (-0x1.f28f82p-5f)
#define ERF_C8  0x1.8094bep-5f
#define ERF_C7  0x1.1e63f8p-5f
#define ERF_C6  0x1.cded5p-8f
#define ERF_C5  0x1.700092p-4f
#define ERF_C4  0x1.22275cp-4f
#define ERF_C3  0x1.884fe2p-4f
#define ERF_C2  0x1.976212p-4f
#define ERF_C1  0x1.989336p-4f

MATHF_INLINE float mathf_gelu_erf(float x)
{
    float a = x < 0 ? -x : x;
    float t = 4 / (4 + a);
    float p = fmaf(ERF_C10, t, ERF_C9);
    p = fmaf(p, t, ERF_C8);
    p = fmaf(p, t, ERF_C7);
    p = fmaf(p, t, ERF_C6);
    p = fmaf(p, t, ERF_C5);
    p = fmaf(p, t, ERF_C4);
    p = fmaf(p, t, ERF_C3);
    p = fmaf(p, t, ERF_C2);
    p = fmaf(p, t, ERF_C1);
    float tail = mathf_exp(-0.5f * x * x) * (p * t);
    return x * (x < 0 ? tail : 1 - tail);
}

/* NaN stays. */
MATHF_INLINE float mathf_relu(float x)
{
    return x < 0 ? 0 : x;
}

/* Rotates (x0, x1) by an angle, table: its cos and sin. The product by the sine is rounded first. */
MATHF_INLINE void mathf_rotate(float *x0, float *x1, const float *table)
{
    float a = *x0, b = *x1, c = table[0], s = table[1];
    *x0 = fmaf(a, c, -(b * s));
    *x1 = fmaf(b, c, a * s);
}

/* The sum of 16 partial sums, element j of which took in the indexes that are j modulo 16:
 * (((0+8)+(4+12)) + ((2+10)+(6+14))) + (((1+9)+(5+13)) + ((3+11)+(7+15))). */
MATHF_INLINE float mathf_sum16(const float s[16])
{
    float t[8];
    for (int j = 0; j < 8; j++)
        t[j] = s[j] + s[j + 8];
    for (int j = 0; j < 4; j++)
        t[j] = t[j] + t[j + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

#endif

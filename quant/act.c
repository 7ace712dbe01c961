/* 8-bit activations: the scalar reference of the numerics contract's rule 3. */
#include "quant/quant.h"

#include <math.h>
#include <string.h>

_Static_assert(sizeof(struct act_block) == 2 * 4 + 2 * 2 + 4 + 32, "scales, sums, padding, 32 values");

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

void act_quantise(struct act_block *dst, const float *x, int64_t n)
{
    for (; n > 0; n -= ACT_LEN, x += ACT_LEN, dst++) {
        /* Magnitudes are compared as integers: the order is that of the floats, Inf and NaN on top. */
        uint32_t amax_bits = 0;
        for (int i = 0; i < ACT_LEN; i++) {
            uint32_t bits = float_bits(x[i]) & 0x7fffffff;
            amax_bits = bits > amax_bits ? bits : amax_bits;
        }
        *dst = (struct act_block){0};
        if (amax_bits >= 0x7f800000) { /* the fault stays visible: every product becomes NaN */
            dst->d = dst->ds = NAN;
            continue;
        }
        float amax;
        memcpy(&amax, &amax_bits, sizeof amax);
        if (amax < 0x1p-100f) /* 127 / amax stays far from overflow */
            continue;
        float inv = 127.0f / amax;
        for (int i = 0; i < ACT_LEN; i++) {
            dst->q[i] = (int8_t)lrintf(x[i] * inv); /* rounds half to even; |x·inv| < 127.5 */
            dst->sum[i / 16] = (int16_t)(dst->sum[i / 16] + dst->q[i]);
        }
        dst->d = amax / 127.0f;
        dst->ds = dst->d * (float)(dst->sum[0] + dst->sum[1]);
    }
}

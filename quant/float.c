/* F32, F16 and BF16: conversions and dot products of rows that stay floats. */
#include "quant/blocks.h"

#include <string.h>

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* half   s eeeee mmmmmmmmmm               exponent bias 15
 * float  s eeeeeeee mmmmmmmmmm0000000000000     bias 127 = 15 + 112
 *
 * A denormal half is mmm·2⁻²⁴, and 2⁻²⁴ is the last bit of a float in [0.5, 1): set the bits there and
 * subtract the 0.5. That needs no denormal float, so it holds under flush-to-zero too. */
float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t em = h & 0x7fff;
    uint32_t bits = (em << 13) + (112u << 23);
    if (em < 0x400)
        bits = bits_of(float_of(0x3f000000 | em) - 0.5f);
    else if (em >= 0x7c00) /* exponent 31 becomes 255; NaNs become quiet */
        bits = (bits + (112u << 23)) | (em > 0x7c00 ? 0x400000 : 0);
    return float_of(sign | bits);
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = bits_of(f);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t a = bits & 0x7fffffff;
    uint32_t h;
    if (a > 0x7f800000)
        h = 0x7e00 | (a >> 13 & 0x1ff);
    else if (a >= 0x477ff000) /* 65520, halfway from the largest half to 65536 */
        h = 0x7c00;
    else if (a < 0x38800000)                          /* 2⁻¹⁴: a denormal half; the addition rounds */
        h = bits_of(float_of(a) + 0.5f) - 0x3f000000; /* to units of 2⁻²⁴, see above */
    else
        h = (a - (112u << 23) + 0xfff + (a >> 13 & 1)) >> 13; /* half to even; a carry goes to the exponent */
    return (uint16_t)(sign | h);
}

float bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t bits = bits_of(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Rows in a file may have any alignment. */
static uint16_t load_16(const void *row, int64_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)row + 2 * i, sizeof h);
    return h;
}

static void store_16(void *row, int64_t i, uint16_t h)
{
    memcpy((uint8_t *)row + 2 * i, &h, sizeof h);
}

static float load_f32(const void *row, int64_t i)
{
    float f;
    memcpy(&f, (const uint8_t *)row + 4 * i, sizeof f);
    return f;
}

static float load_f16(const void *row, int64_t i)
{
    return f16_to_f32(load_16(row, i));
}

static float load_bf16(const void *row, int64_t i)
{
    return bf16_to_f32(load_16(row, i));
}

/* In chunks: acc = fmaf(w, x, acc) from zero, in order; then total = total + acc. */
ALWAYS_INLINE float dot_float(const void *row, const void *x, int64_t n, float (*load)(const void *, int64_t))
{
    const float *xs = x;
    float total = 0;
    for (int64_t begin = 0; begin < n; begin += CHUNK_LEN) {
        int64_t end = n - begin < CHUNK_LEN ? n : begin + CHUNK_LEN;
        float acc = 0;
        for (int64_t i = begin; i < end; i++)
            acc = fmaf(load(row, i), xs[i], acc);
        total += acc;
    }
    return total;
}

void f32_decode(float *dst, const void *src, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

void f32_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    (void)importance;
    memcpy(dst, src, (size_t)n * sizeof *src);
}

DEFINE_DOT(f32, dot_float(row, x, n, load_f32))

void f16_decode(float *dst, const void *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = load_f16(src, i);
}

void f16_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    (void)importance;
    for (int64_t i = 0; i < n; i++)
        store_16(dst, i, f32_to_f16(src[i]));
}

DEFINE_DOT(f16, dot_float(row, x, n, load_f16))

void bf16_decode(float *dst, const void *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = load_bf16(src, i);
}

void bf16_encode(void *dst, const float *src, const float *importance, int64_t n)
{
    (void)importance;
    for (int64_t i = 0; i < n; i++)
        store_16(dst, i, f32_to_bf16(src[i]));
}

DEFINE_DOT(bf16, dot_float(row, x, n, load_bf16))

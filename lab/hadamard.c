#include "lab/hadamard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* SplitMix64 (Steele, Lea & Flood 2014): signs are the same everywhere and for ever. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int rotation_init(struct rotation *r, int64_t n, uint64_t seed)
{
    int64_t m = n;
    while (m % 2 == 0)
        m /= 2;
    *r = (struct rotation){.n = n, .m = m};
    r->sign = malloc((size_t)n * sizeof *r->sign);
    r->small = calloc((size_t)m, (size_t)m * sizeof *r->small);
    if (!r->sign || !r->small) {
        rotation_free(r);
        return -1;
    }
    const double one = 1 / sqrt((double)(n / m)), pi = 3.14159265358979323846;
    for (int64_t i = 0; i < n; i++)
        r->sign[i] = next_random(&seed) >> 63 ? -one : one;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < m; j++) {
            const double angle = 2 * pi * (double)(i * j % m) / (double)m;
            r->small[i * m + j] = (cos(angle) + sin(angle)) / sqrt((double)m);
        }
    return 0;
}

void rotation_free(struct rotation *r)
{
    free(r->sign);
    free(r->small);
    *r = (struct rotation){0};
}

/* x (len · width) becomes H x without the factor, len a power of two. */
static void walsh_hadamard(double *x, int64_t len, int64_t width)
{
    for (int64_t half = width; half < len * width; half *= 2)
        for (double *a = x; a < x + len * width; a += 2 * half)
            for (int64_t i = 0; i < half; i++) {
                const double sum = a[i] + a[half + i], difference = a[i] - a[half + i];
                a[i] = sum;
                a[half + i] = difference;
            }
}

void rotation_apply(const struct rotation *r, double *x, int64_t width, double *room)
{
    const int64_t m = r->m, len = r->n / m, part = len * width;
    for (int64_t i = 0; i < r->n; i++)
        for (int64_t j = 0; j < width; j++)
            x[i * width + j] *= r->sign[i];
    for (int64_t i = 0; i < m; i++)
        walsh_hadamard(x + i * part, len, width);
    if (m == 1)
        return;
    memcpy(room, x, (size_t)(m * part) * sizeof *x);
    memset(x, 0, (size_t)(m * part) * sizeof *x);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < m; j++) {
            const double a = r->small[i * m + j];
            for (int64_t k = 0; k < part; k++)
                x[i * part + k] += a * room[j * part + k];
        }
}

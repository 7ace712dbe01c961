/* What the tests of kernels/ share: repeatable random numbers, comparison of bits, all CPU levels. */
#ifndef QUOLL_TESTS_KERNELS_SUPPORT_H
#define QUOLL_TESTS_KERNELS_SUPPORT_H

#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* xorshift64* (Vigna 2016) */
static inline float random_uniform(uint64_t *state) /* −1 … 1 */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)((double)(*state * 0x2545f4914f6cdd1du >> 40) / (double)(1 << 23) - 1.0);
}

static inline float *random_row(uint64_t seed, size_t n)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_uniform(&state);
    return x;
}

/* The first element whose bits differ, −1: none. A NaN equals a NaN: which one is not specified. */
static inline int64_t first_difference(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return i;
    return -1;
}

/* The level after `isa` that this machine and build have, ISA_COUNT: none. Begin with ISA_SCALAR. */
static inline enum isa next_isa(enum isa isa)
{
    int i = (int)isa;
    do
        i++;
    while (i < ISA_COUNT && !isa_supported((enum isa)i));
    return (enum isa)i;
}

#endif

/* The quantisers' search for every CPU, and the choice between it and the faster ones. */
#define FIT_NAME fit_plain
#include "quant/fit_search.h"

static const int8_t fp4_ascending[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12};

const struct codes iq4_codes = {-127, 113, iq4_values};
const struct codes fp4_codes = {-12, 12, fp4_ascending};

const struct fit_functions *fit_functions(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return &fit_avx2;
#endif
    return &fit_plain;
}

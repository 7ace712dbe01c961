/* The quantisers' search for CPUs with AVX2. */
#define FIT_NAME fit_avx2
#include "quant/fit_search.h"

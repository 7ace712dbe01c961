/* Products with AVX-512 without VNNI. */
#include "kernels/linear_512.h"

#include "kernels/linear_tiles.h"

const struct linear_kernels linear_avx512 = LINEAR_KERNELS(act_quantise_avx2);

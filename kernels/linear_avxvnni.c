/* Products with AVX-VNNI's vpdpbusd: CPUs that have it without AVX-512, or before it. */
#define QUOLL_AVXVNNI
#include "kernels/linear_256.h"
#include "kernels/linear_tiles.h"

const struct linear_kernels linear_avxvnni = LINEAR_KERNELS(act_quantise_avx2);

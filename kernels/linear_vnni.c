/* Products with AVX512-VNNI's vpdpbusd. */
#define QUOLL_VNNI
#include "kernels/linear_512.h"

#include "kernels/linear_tiles.h"

const struct linear_kernels linear_vnni = LINEAR_KERNELS(act_quantise_avx2);

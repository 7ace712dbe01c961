/* Attention kernels of AVX-512. Quantised keys stay with AVX2's kernels. */
#define LANES16_AVX512
#define LEVEL(name) name##_avx512
#define MAX_ROWS    12

#include "kernels/attention_lanes.h"

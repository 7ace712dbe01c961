/* Attention kernels of AVX512-VNNI: quantised keys. */
#define LANES16_AVX512
#define LEVEL(name) name##_vnni

#include "kernels/attention_vnni.h"

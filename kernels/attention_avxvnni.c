/* Attention kernels of AVX-VNNI: quantised keys. */
#define LEVEL(name) name##_avxvnni

#include "kernels/attention_vnni.h"

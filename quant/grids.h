/* For quant/ and kernels/: what the IQ1, IQ2 and IQ3 types share. Each of their indices stands for eight
 * (IQ3: four) values at once; they are kept, and given signs, in the bytes of a 64-bit word, element 0
 * lowest. */
#ifndef QUOLL_QUANT_GRIDS_H
#define QUOLL_QUANT_GRIDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Magnitudes. */
extern const uint64_t iq2_xxs_grid[256], iq2_xs_grid[512], iq2_s_grid[1024];
extern const uint32_t iq3_xxs_grid[256], iq3_s_grid[512];
/* 8 v + 128, v = −1, 0, 1. */
extern const uint64_t iq1_grid[2048];

#define EACH_BYTE 0x0101010101010101ull

/* Byte i is 0xff where bit i of the index is set. */
extern const uint64_t grid_sign_masks[256];
/* Seven signs are stored; the eighth makes the number of negative ones even. */
extern const uint8_t grid_even_signs[128];

/* q[i] = −magnitude i where bit i of signs is set. Magnitudes are 1 … 127, so no byte carries into the next.
 */
static inline void grid_signed(int8_t q[8], uint64_t magnitudes, unsigned signs)
{
    uint64_t mask = grid_sign_masks[signs];
    uint64_t x = (magnitudes ^ mask) + (mask & EACH_BYTE);
    memcpy(q, &x, sizeof x);
}

/* IQ1: q = 8 v + 1, or 8 v − 1. */
static inline void grid_shifted(int8_t q[8], unsigned index, bool down)
{
    uint64_t x = iq1_grid[index] + EACH_BYTE - (down ? 2 * EACH_BYTE : 0);
    x ^= 0x80 * EACH_BYTE;
    memcpy(q, &x, sizeof x);
}

#endif

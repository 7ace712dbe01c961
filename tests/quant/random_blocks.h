/* Blocks of any bits: types that are only read have no other, and quantisers do not make all that files hold.
 */
#ifndef QUOLL_TESTS_RANDOM_BLOCKS_H
#define QUOLL_TESTS_RANDOM_BLOCKS_H

#include "quant/quant.h"

#include <math.h>

/* n elements at dst, whole blocks; scales that are no numbers or far from 1 are drawn again. */
static inline void random_blocks(void *dst, enum qtype t, int64_t n, uint32_t *state)
{
    const struct qtype_info *q = &qtypes[t];
    uint8_t *block = dst;
    float x[QK_K];
    for (; n > 0; n -= q->block_len, block += q->block_bytes) {
        float max;
        do {
            for (int i = 0; i < q->block_bytes; i++) {
                *state = *state * 1664525 + 1013904223;
                block[i] = (uint8_t)(*state >> 24);
            }
            if (t == QTYPE_INT8Z) { /* zero points are 0 … 256 */
                struct block_int8z *b = (void *)block;
                b->zero = (uint16_t)(b->zero % 257);
            }
            q->to_f32(x, block, q->block_len);
            max = 0;
            for (int i = 0; i < q->block_len; i++)
                max = fabsf(x[i]) <= max ? max : fabsf(x[i]); /* NaN stays */
        } while (!(max > 0.001f && max < 1000));
    }
}

#endif

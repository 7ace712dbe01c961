/* Inside a page of the KV cache: private to kernels/.
 *
 * A head's 64 values are 64 rows of elements, those of quantised types being their blocks' quants as the
 * file has them (row_bytes = head_dim, or half of it for Q4_0), then the scales, half floats
 * [head_dim / 32][64]. Its 64 keys are four tiles of 16
 * positions, so that SIMD lanes are positions; a tile has the bytes of its 16 rows, rearranged (r is the
 * position within the tile):
 *
 *     F32, F16   element c of all rows, then element c + 1:  [head_dim][16]
 *     Q8_0       per block of 32 elements 8 groups of 64 bytes; group g: byte 4r + i = element 4g + i of
 *                row r; after all blocks the scales, half floats [head_dim / 32][16]
 *     Q4_0       per block 4 groups of 64 bytes; group g: byte 4r + i = element 4g + i of row r in the
 *                low nibble, element 16 + 4g + i in the high one; then the scales likewise
 */
#ifndef QUOLL_KV_H
#define QUOLL_KV_H

#include "kernels/cpu.h"

enum { KV_HEAD_DIM_MAX = 512, KV_TILES = KV_PAGE / TILE_ROWS /* of keys in a page */ };

/* Bytes of a tile before its scales. */
static inline int64_t kv_tile_quants(enum qtype t, int head_dim)
{
    return TILE_ROWS * (int64_t)head_dim / (t == QTYPE_Q4_0 ? 2 : 1);
}

/* Bytes of a value's row without its scales. */
static inline int64_t kv_value_bytes(enum qtype t, int head_dim)
{
    return t == QTYPE_F32   ? 4 * (int64_t)head_dim
           : t == QTYPE_F16 ? 2 * (int64_t)head_dim
                            : kv_tile_quants(t, head_dim) / TILE_ROWS;
}

/* Writes one head's key or value (head_dim floats) as position i = 0 … 63 of a page. Different positions
 * may be written at the same time. */
void kv_store_key(const struct kv_layout *l, void *page, int kv_head, int i, const float *x,
                  const struct cpu_kernels *k);
void kv_store_value(const struct kv_layout *l, void *page, int kv_head, int i, const float *x,
                    const struct cpu_kernels *k);

#endif

/* CUDA, as the rest of kernels/ sees it: the operators of kernels.h for a GPU, in a plug-in library
 * (libquoll-cuda.so, from kernels/cuda/) that is opened when it is asked for, so that the program starts on
 * machines without a driver; and the layout of packed weights there. */
#ifndef QUOLL_CUDA_H
#define QUOLL_CUDA_H

#include "kernels/kernels.h"

/* The operators on a device (0 …). exact: to the CPU's bits for prompts, too (docs/gpu.md). Only one device
 * in a process's life. NULL: there is no plug-in, no driver, no such device, one too old: err says what. */
const struct ops *ops_cuda(int device, bool exact, char *err, size_t errlen);
/* Bytes of the device's memory: what is free now, and all. −1: it cannot be asked, err says why. */
int cuda_memory(int device, size_t *free_bytes, size_t *total_bytes, char *err, size_t errlen);
/* What plans need of them, which needs no GPU: buffers' sizes. */
const struct ops *cuda_plan_ops(void);
/* 0: there is a GPU that ops_cuda would take as device 0; −1: there is none, err says why. */
int cuda_probe(char *err, size_t errlen);

/* ---- Packed weights on the GPU ------------------------------------------------------------------- *
 *
 * A tile of 16 rows is cut in chunks of 256 columns, and a chunk is made of the sections that pack.h draws
 * for the CPU: low, high, codes, d, m, at the same places and of the same sizes. Inside a section the CPU
 * puts next to each other what 16 SIMD lanes read at once, four bytes of each row; here a row's share of a
 * block of 32 columns stays together, in pieces of up to 16 bytes, which one lane loads at once:
 *
 *     low    of b bits: per block, 16 rows of 4 b bytes; 8 bits: the rows' first 16 bytes, then their second.
 *            Bytes 4v … 4v + 3 are what the CPU's plane v has of the row: 4 bits: low nibbles of columns
 *            4v …, high nibbles of columns 16 + 4v …; 2 bits: bits 2s, 2s + 1: columns 16 v + 4 s …
 *     high   likewise: 1 bit: bit g: columns 4g …
 *     codes  16 rows: k-quants: all of a row's codes, packed as on the CPU; zero points: of all blocks
 *     d, m   16 rows: the scales of all blocks
 *
 * so that half a warp reads 256 bytes in a row with one instruction. Codes of 8 bits with zero point 128 are
 * stored as signed bytes. Floats: 16 bytes of columns of each row, then the next (what is left of the
 * columns: less of each). Types of code books and of base 3 (FIELD_FORMATS): as on the CPU. */

/* Packs n_cols columns of n_rows rows that lie row_bytes apart, as pack_chunk does; rows past n_rows are left
 * alone. */
void cuda_pack_chunk(uint8_t *dst, enum qtype type, const uint8_t *src, int64_t row_bytes, int n_rows,
                     int n_cols);
/* One row of a chunk in the file's layout: the inverse. */
void cuda_unpack_chunk(uint8_t *dst, enum qtype type, const uint8_t *chunk, int row, int n_cols);

/* ---- Between the program and the plug-in --------------------------------------------------------- */

enum { CUDA_PLUGIN_VERSION = 2 }; /* one more whenever anything that both know changes */

/* What the plug-in needs of the program. */
struct cuda_host {
    const struct qtype_info *types;
    void (*pack_chunk)(uint8_t *dst, enum qtype type, const uint8_t *src, int64_t row_bytes, int n_rows,
                       int n_cols);
    const uint64_t *iq1, *iq2_xxs, *iq2_xs, *iq2_s; /* quant/grids.h */
    const uint32_t *iq3_xxs, *iq3_s;
};

const struct cuda_host *cuda_host_tables(void);

/* The plug-in's functions: quoll_cuda_open's device −1 only asks whether device 0 could be opened (NULL and
 * an empty err: it could); quoll_cuda_memory is cuda_memory. */
int quoll_cuda_version(void);
const struct ops *quoll_cuda_open(const struct cuda_host *host, int device, bool exact, char *err,
                                  size_t errlen);
int quoll_cuda_memory(int device, size_t *free_bytes, size_t *total_bytes, char *err, size_t errlen);

#endif

/* What every kernel file begins with: CUDA, or the host executor that stands for it in tests, and the few
 * instructions that C++ has no words for, each with a twin of the same bits for the host.
 *
 * Kernels are compiled with --fmad=false: a multiplication and an addition are two roundings unless fmaf is
 * written (docs/numerics.md). */
#ifndef QUOLL_CUDA_DEVICE_CUH
#define QUOLL_CUDA_DEVICE_CUH

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef QUOLL_CUDA_HOST
#include "tests/cuda/executor.h"
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define threadIdx exec_thread
#define blockIdx exec_block
#define blockDim exec_block_dim
#define gridDim exec_grid_dim
#else
#include <cuda_runtime.h>
#endif

#define DEVICE static __device__ __forceinline__
#define MATHF_INLINE DEVICE
#include "kernels/mathf.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wextra" /* C's comparisons of enums and integers */
extern "C" {
#include "kernels/pack.h"
}
#pragma GCC diagnostic pop

/* ---- Words and vectors -------------------------------------------------------------------------- */

struct __align__(8) word2 {
    uint32_t v[2];
};
struct __align__(16) word4 {
    uint32_t v[4];
};
struct __align__(16) float4_ {
    float v[4];
};

enum { WARP = 32, ALL_LANES = -1 };

#ifdef QUOLL_CUDA_HOST

DEVICE void sync_block()
{
    exec_barrier();
}

DEVICE void sync_warp()
{
    exec_warp_barrier(0xffffffff);
}

/* The value of the lane whose number differs in these bits, among the lanes of mask. */
template <typename T> DEVICE T shuffle_xor(uint32_t mask, T x, int bits)
{
    T y;
    const uint8_t *all = exec_exchange(mask, &x, sizeof x);
    memcpy(&y, all + ((exec_thread.x % WARP) ^ (unsigned)bits) * EXEC_SLOT, sizeof y);
    return y;
}

template <typename T> DEVICE T shuffle(uint32_t mask, T x, int lane)
{
    T y;
    const uint8_t *all = exec_exchange(mask, &x, sizeof x);
    memcpy(&y, all + lane * EXEC_SLOT, sizeof y);
    return y;
}

DEVICE float half_to_float(uint16_t h)
{
    return f16_to_f32(h);
}

DEVICE uint16_t float_to_half(float f)
{
    return f32_to_f16(f);
}

/* Four signed bytes times four signed bytes, added up. */
DEVICE int dot4(uint32_t a, uint32_t b, int sum)
{
    for (int i = 0; i < 4; i++)
        sum += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return sum;
}

/* The same, a unsigned. */
DEVICE int dot4_unsigned(uint32_t a, uint32_t b, int sum)
{
    for (int i = 0; i < 4; i++)
        sum += (uint8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return sum;
}

/* Byte i of the result is byte (selector >> 4 i & 7) of y:x. */
DEVICE uint32_t pick_bytes(uint32_t x, uint32_t y, uint32_t selector)
{
    uint64_t both = (uint64_t)y << 32 | x;
    uint32_t z = 0;
    for (int i = 0; i < 4; i++)
        z |= (uint32_t)(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return z;
}

/* Memory that is read once: past the first cache. */
template <typename T> DEVICE T load_once(const void *p)
{
    return *(const T *)p;
}

#else

DEVICE void sync_block()
{
    __syncthreads();
}

DEVICE void sync_warp()
{
    __syncwarp();
}

template <typename T> DEVICE T shuffle_xor(uint32_t mask, T x, int bits)
{
    return __shfl_xor_sync(mask, x, bits);
}

template <typename T> DEVICE T shuffle(uint32_t mask, T x, int lane)
{
    return __shfl_sync(mask, x, lane);
}

DEVICE float half_to_float(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

DEVICE uint16_t float_to_half(float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

DEVICE int dot4(uint32_t a, uint32_t b, int sum)
{
    return __dp4a((int)a, (int)b, sum);
}

DEVICE int dot4_unsigned(uint32_t a, uint32_t b, int sum)
{
    int d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

DEVICE uint32_t pick_bytes(uint32_t x, uint32_t y, uint32_t selector)
{
    return __byte_perm(x, y, selector);
}

template <typename T> DEVICE T load_once(const void *p);
template <> __device__ __forceinline__ word4 load_once<word4>(const void *p)
{
    word4 x;
    asm("ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.v[0]), "=r"(x.v[1]), "=r"(x.v[2]), "=r"(x.v[3])
                 : "l"(p));
    return x;
}
template <> __device__ __forceinline__ word2 load_once<word2>(const void *p)
{
    word2 x;
    asm("ld.global.nc.L1::no_allocate.v2.b32 {%0, %1}, [%2];"
                 : "=r"(x.v[0]), "=r"(x.v[1])
                 : "l"(p));
    return x;
}
template <> __device__ __forceinline__ uint32_t load_once<uint32_t>(const void *p)
{
    uint32_t x;
    asm("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(x) : "l"(p));
    return x;
}
template <> __device__ __forceinline__ uint16_t load_once<uint16_t>(const void *p)
{
    uint16_t x;
    asm("ld.global.nc.L1::no_allocate.b16 %0, [%1];" : "=h"(x) : "l"(p));
    return x;
}

#endif

/* Two floats as half floats, lo in the lower bits; and what is not exact: 2^x to some 22 bits. */
#ifdef QUOLL_CUDA_HOST
DEVICE uint32_t half_pair(float lo, float hi)
{
    return f32_to_f16(lo) | (uint32_t)f32_to_f16(hi) << 16;
}

DEVICE float fast_exp2(float x)
{
    return exp2f(x);
}
#else
DEVICE uint32_t half_pair(float lo, float hi)
{
    uint32_t p;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(hi), "f"(lo));
    return p;
}

DEVICE float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

DEVICE uint32_t load32(const uint8_t *p)
{
    return *(const uint32_t *)(const void *)p;
}

DEVICE float bfloat_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

DEVICE uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

DEVICE float bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Half the scale of MXFP4, and of NVFP4: as quant.h's. */
DEVICE float scale_e8m0(uint8_t e)
{
    return bits_float(e == 0 ? 0x00200000u : e == 1 ? 0x00400000u : (e - 1u) << 23);
}

DEVICE float scale_e4m3(uint8_t e)
{
    return e == 0x7f ? 0 : bits_float((e & 0x7fu) << 20) * 0x1p119f;
}

/* ---- Tensor cores -------------------------------------------------------------------------------- */

/* sum (16 × 8, int32) += a (16 × 32) · b (32 × 8), signed bytes; exact. A lane holds (g = lane / 4, t = lane % 4)
 *     a[0] row g, columns 4 t …     a[1] row g + 8     a[2], a[3] the same, columns 16 + 4 t …
 *     b[0] rows 4 t …, column g     b[1] rows 16 + 4 t …
 *     sum[0], sum[1] row g, columns 2 t, 2 t + 1        sum[2], sum[3] row g + 8 */
DEVICE void mma_k32(int sum[4], const uint32_t a[4], const uint32_t b[2]);
/* The same of 16 columns: a[0], a[1] and b[0]. */
DEVICE void mma_k16(int sum[4], const uint32_t a[2], uint32_t b);
/* sum (16 × 8, float) += a (16 × 16) · b (16 × 8), half floats, in pairs:
 *     a[0] row g, columns 2 t, 2 t + 1   a[1] row g + 8   a[2], a[3] the same, columns 8 + 2 t …
 *     b[0] rows 2 t, 2 t + 1, column g   b[1] rows 8 + 2 t … */
DEVICE void mma_half(float sum[4], const uint32_t a[4], const uint32_t b[2]);

/* Four matrices of 8 rows × 16 bytes that lie one after the other, from p on, 512 bytes of shared memory: of each,
 * lane l has bytes 4 (l % 4) … of row l / 4, which is what the fragments above are made of. A tile of 16 rows cut in
 * lines of 16 bytes a row, as float weights lie, is a[0] … a[3]. */
DEVICE void load_matrices(uint32_t to[4], const uint8_t *p);
/* The same of rows that lie elsewhere: lane l says where row l % 8 of matrix l / 8 is. */
DEVICE void load_matrix_rows(uint32_t to[4], const uint8_t *row);
/* Of half floats, with rows and columns exchanged: lane l has rows 2 (l % 4), 2 (l % 4) + 1 of column l / 4. */
DEVICE void load_matrix_columns(uint32_t to[4], const uint8_t *row);

#ifdef QUOLL_CUDA_HOST

DEVICE void load_matrix_rows(uint32_t to[4], const uint8_t *row)
{
    const uint8_t *all = exec_exchange(0xffffffff, &row, sizeof row);
    const int lane = (int)(exec_thread.x % WARP);
    for (int m = 0; m < 4; m++) {
        memcpy(&row, all + (8 * m + lane / 4) * EXEC_SLOT, sizeof row);
        to[m] = *(const uint32_t *)(const void *)(row + lane % 4 * 4);
    }
}

DEVICE void load_matrix_columns(uint32_t to[4], const uint8_t *row)
{
    const uint8_t *all = exec_exchange(0xffffffff, &row, sizeof row);
    const int lane = (int)(exec_thread.x % WARP);
    for (int m = 0; m < 4; m++) {
        to[m] = 0;
        for (int i = 0; i < 2; i++) {
            memcpy(&row, all + (8 * m + lane % 4 * 2 + i) * EXEC_SLOT, sizeof row);
            to[m] |= (uint32_t)((const uint16_t *)(const void *)row)[lane / 4] << 16 * i;
        }
    }
}

DEVICE void load_matrices(uint32_t to[4], const uint8_t *p)
{
    load_matrix_rows(to, p + exec_thread.x % WARP * 16);
}

DEVICE void mma_bytes(int sum[4], const uint32_t *a, const uint32_t *b, int n_halves)
{
    uint32_t mine[6] = {0};
    for (int h = 0; h < n_halves; h++) {
        mine[2 * h] = a[2 * h];
        mine[2 * h + 1] = a[2 * h + 1];
        mine[4 + h] = b[h];
    }
    const uint8_t *all = exec_exchange(0xffffffff, mine, sizeof mine);
    const int lane = (int)(exec_thread.x % WARP);
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (int h = 0; h < n_halves; h++)
            for (int t = 0; t < 4; t++) {
                const uint32_t *x = (const uint32_t *)(const void *)(all + (row % 8 * 4 + t) * EXEC_SLOT);
                const uint32_t *y = (const uint32_t *)(const void *)(all + (col * 4 + t) * EXEC_SLOT);
                sum[i] = dot4(x[2 * h + row / 8], y[4 + h], sum[i]);
            }
    }
}

DEVICE void mma_k32(int sum[4], const uint32_t a[4], const uint32_t b[2])
{
    mma_bytes(sum, a, b, 2);
}

DEVICE void mma_k16(int sum[4], const uint32_t a[2], uint32_t b)
{
    mma_bytes(sum, a, &b, 1);
}

/* The hardware's own order of a sum is not specified; this one is index order. */
DEVICE void mma_half(float sum[4], const uint32_t a[4], const uint32_t b[2])
{
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const uint8_t *all = exec_exchange(0xffffffff, mine, sizeof mine);
    const int lane = (int)(exec_thread.x % WARP);
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            const uint32_t *x = (const uint32_t *)(const void *)(all + (row % 8 * 4 + k % 8 / 2) * EXEC_SLOT);
            const uint32_t *y = (const uint32_t *)(const void *)(all + (col * 4 + k % 8 / 2) * EXEC_SLOT);
            const uint32_t p = x[k / 8 * 2 + row / 8], q = y[4 + k / 8];
            sum[i] += half_to_float((uint16_t)(p >> k % 2 * 16)) * half_to_float((uint16_t)(q >> k % 2 * 16));
        }
    }
}

#else

DEVICE void mma_k32(int sum[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void mma_k16(int sum[4], const uint32_t a[2], uint32_t b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

DEVICE void mma_half(float sum[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void load_matrix_rows(uint32_t to[4], const uint8_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

DEVICE void load_matrix_columns(uint32_t to[4], const uint8_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

DEVICE void load_matrices(uint32_t to[4], const uint8_t *p)
{
    load_matrix_rows(to, p + threadIdx.x % WARP * 16);
}

#endif

/* ---- Copies that go on beside the work ------------------------------------------------------------ */

/* Copies 16 bytes to shared memory, or zeros where there is nothing to read. What a thread has begun is a group once
 * it says so; it is there, for that thread, when it has waited until no more than n of its groups are under way. */
DEVICE void copy_async(uint8_t *to, const uint8_t *from, bool there);
DEVICE void copy_group();
template <int N> DEVICE void copy_wait();

#ifdef QUOLL_CUDA_HOST

DEVICE void copy_async(uint8_t *to, const uint8_t *from, bool there)
{
    exec_copy_async(to, there ? from : NULL);
}

DEVICE void copy_group()
{
    exec_copy_group();
}

template <int N> DEVICE void copy_wait()
{
    exec_copy_wait(N);
}

#else

DEVICE void copy_async(uint8_t *to, const uint8_t *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

DEVICE void copy_group()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> DEVICE void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif

/* ---- One kernel after another ------------------------------------------------------------------------ */

/* The first thing that every thread of every kernel calls, but for what reads weights only. From compute capability
 * 9.0 on a kernel's blocks are started while the last ones of the kernel before still run (programmatic dependent
 * launch, state.cuh): here they wait until it is done and what it wrote is seen, and let the next kernel's come. */
DEVICE void begin_kernel();
/* Weights that this thread's warp reads soon: into the second cache. */
DEVICE void prefetch(const uint8_t *p);

#ifdef QUOLL_CUDA_HOST

DEVICE void begin_kernel()
{
    exec_begin_kernel();
}

DEVICE void prefetch(const uint8_t *p)
{
    (void)p;
}

#else

DEVICE void begin_kernel()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

DEVICE void prefetch(const uint8_t *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

#endif

/* ---- Launches ------------------------------------------------------------------------------------- */

/* The block's dynamic shared memory. */
#ifdef QUOLL_CUDA_HOST
#define SHARED_MEMORY(name) uint8_t *const name = (uint8_t *)exec_shared
#else
#define SHARED_MEMORY(name) extern __shared__ __align__(16) uint8_t name[]
#endif

#endif

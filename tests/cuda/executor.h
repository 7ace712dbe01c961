/* The host executor: CUDA's kernels run in plain C++ on a machine without a GPU, for tests only.
 *
 * kernels/cuda/'s files are compiled a second time, by the C++ compiler with -DQUOLL_CUDA_HOST, and this
 * header stands for CUDA's own. A launch runs its blocks one after the other; the threads of a block are
 * fibers, each on a stack of its own, which change hands only at barriers and at what a warp does together.
 * So a barrier that is missing, or that not all threads reach, shows: threads run in an order that tests
 * choose (forwards, backwards, at random), and a block whose threads wait for ever ends the test.
 *
 * "Device memory" lies in an address range of its own, each allocation followed by a page that nobody may
 * touch. A launch whose arguments hold a host address ends the test; in strict mode the host cannot touch
 * device memory outside launches and copies. Fresh memory, shared memory included, holds NaNs. Any call of
 * the runtime can be made to fail (exec_fail_after).
 *
 * What it cannot show: speed, the memory model within a warp, the code that nvcc makes. */
#ifndef QUOLL_TESTS_CUDA_EXECUTOR_H
#define QUOLL_TESTS_CUDA_EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- For the tests ----------------------------------------------------------------------------- */

enum exec_order { EXEC_FORWARDS, EXEC_BACKWARDS, EXEC_SHUFFLED };

void exec_set_order(enum exec_order order);
void exec_set_strict(bool strict);
/* The n-th call of the runtime from now on (0: the next) fails, as every one after it of a sticky error;
 * −1: none does. */
void exec_fail_after(int n, bool sticky);
bool exec_failed(void);       /* since exec_fail_after: the call was made */
size_t exec_bytes_held(void); /* of device and pinned memory */
int64_t exec_launches(void);  /* kernels run so far */
int64_t exec_graph_launches(void);
void exec_set_memory(size_t bytes); /* of the device; allocating more fails */

/* ---- For the kernels ---------------------------------------------------------------------------- */

struct exec_index {
    unsigned x, y, z;
};
extern struct exec_index exec_thread, exec_block, exec_block_dim, exec_grid_dim;
extern void *exec_shared; /* the block's dynamic shared memory */

void exec_barrier(void);
void exec_warp_barrier(uint32_t mask);
/* Every lane of the mask brings n ≤ EXEC_SLOT bytes; lane i's are at result + i · EXEC_SLOT until the warp's
 * next but one call. */
enum { EXEC_SLOT = 64 };
const uint8_t *exec_exchange(uint32_t mask, const void *mine, size_t n);

/* cp.async of 16 bytes (zeros: from NULL): done when the thread waits for its group, and not before; what a
 * thread has begun and never waited for ends the test. */
void exec_copy_async(void *to, const void *from);
void exec_copy_group(void);
void exec_copy_wait(int n_under_way);

/* Every thread must call it: where it would wait for the kernel before. */
void exec_begin_kernel(void);

/* Runs body(closure) on every thread; closure: the kernel's arguments, and the address of its code among
 * them. */
void exec_launch(struct exec_index grid, struct exec_index block, size_t shared_bytes, void (*body)(void *),
                 const void *code, const void *closure, size_t bytes);

/* ---- The runtime's functions ------------------------------------------------------------------- */

typedef int cudaError_t;
enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorIllegalAddress = 700,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum {
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
};
typedef struct exec_stream *cudaStream_t;
typedef struct exec_event *cudaEvent_t;
typedef struct exec_graph *cudaGraph_t, *cudaGraphExec_t;

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device);
struct cudaDeviceProp {
    char name[256];
};
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
struct cudaFuncAttributes {
    int ptxVersion;
};
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, ...);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, int mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x);
cudaError_t cudaGraphDestroy(cudaGraph_t g);

#ifdef __cplusplus
}
#endif

#endif

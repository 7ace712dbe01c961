/* The backend's one device: its stream, its memory, what went wrong; and how kernels are launched.
 *
 * Operators cannot fail: the first error is kept, all that follows does nothing, and ops->finish tells it. */
#ifndef QUOLL_CUDA_STATE_CUH
#define QUOLL_CUDA_STATE_CUH

#include "kernels/cuda/device.cuh"

extern "C" {
#include "kernels/cuda.h"
}

struct cuda_state {
    bool is_open;
    int device, n_sms, max_shared;
    int capability; /* 10 · major + minor */
    bool exact;
    bool has_wide_bfloats; /* BF16 weights that half floats do not reach have been packed */
    bool overlaps; /* kernels begin before the one before has ended */
    cudaStream_t stream;
    char error[256]; /* "": none */
};

extern struct cuda_state cuda;

/* Remembers the first failure; false after one. */
bool cuda_check(cudaError_t e, const char *what);

/* A slot as the device has it. */
struct device_slot {
    const int32_t *pages;
    int64_t pos, begin, end;
};

/* What the host gave to an operator, on the device: from the slice that begin announced, else copied now. The
 * copy lasts until the next but a few operators, as does what they do with it. */
const void *cuda_staged(const void *host, size_t bytes);
const struct device_slot *cuda_slots(const struct kv_slot *slot, int n);
/* Whether p is of the device's memory. */
bool cuda_is_device(const void *p);
/* old, which holds so many bytes, as a larger block of which those are the beginning; NULL (and the error is
 * kept): out of memory, old is as it was. */
void *cuda_grow(void *old, size_t bytes, size_t larger, const char *what);
/* Recorded launches may hold addresses that are about to change. */
void cuda_forget_graphs(void);
/* Pages that the slice's attention is to be laid out for, so that its launches serve longer sequences too; 0:
 * as many as there are. */
extern int64_t cuda_slice_pages;
/* Room for the backend's own scratch, at least so many bytes, the same for all who ask; NULL: none. */
void *cuda_workspace(size_t bytes);

/* Code books of IQ types, on the device. */
struct device_grids {
    const uint64_t *iq1, *iq2_xxs, *iq2_xs, *iq2_s;
    const uint32_t *iq3_xxs, *iq3_s;
};
extern struct device_grids cuda_grids;

/* The table of types, the host's. */
extern const struct qtype_info *cuda_types;

#ifdef QUOLL_CUDA_HOST
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct exec_place {
    void *p;
};
inline void *operator new(size_t, exec_place at)
{
    return at.p;
}

/* Arguments, made in place, one by one: the executor looks for addresses among them, so nothing else may look
 * like one, gaps included. */
template <typename... P> struct exec_args;
template <> struct exec_args<> {
    template <typename K, typename... Done> void call(K kernel, Done... done)
    {
        kernel(done...);
    }
};
template <typename H, typename... P> struct exec_args<H, P...> {
    H head;
    exec_args<P...> tail;
    template <typename A, typename... B> explicit exec_args(A a, B... b) : head(a), tail(b...)
    {
    }
    template <typename K, typename... Done> void call(K kernel, Done... done)
    {
        tail.call(kernel, done..., head);
    }
};
template <typename... P> struct exec_call {
    void (*kernel)(P...);
    exec_args<P...> args;
    template <typename... A> explicit exec_call(void (*k)(P...), A... a) : kernel(k), args(a...)
    {
    }
    static void run(void *p)
    {
        exec_call *c = (exec_call *)p;
        c->args.call(c->kernel);
    }
};

/* kernel<<<grid, block, shared>>>(args) on the backend's stream. */
template <typename... P, typename... A>
static void launch(void (*kernel)(P...), dim3 grid, int block, size_t shared, A... args)
{
    if (cuda.error[0])
        return;
    typedef exec_call<P...> call;
    alignas(call) char place[sizeof(call)] = {0};
    new (exec_place{place}) call(kernel, args...);
    exec_launch({grid.x, grid.y, grid.z}, {(unsigned)block, 1, 1}, shared, call::run, (const void *)kernel, place,
                sizeof place);
    (void)cuda_check(cudaGetLastError(), "a kernel");
}
#else
template <typename... P, typename... A>
static void launch(void (*kernel)(P...), dim3 grid, int block, size_t shared, A... args)
{
    if (cuda.error[0])
        return;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = dim3((unsigned)block);
    c.dynamicSmemBytes = shared;
    c.stream = cuda.stream;
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    c.attrs = &overlap;
    c.numAttrs = cuda.overlaps ? 1 : 0;
    if (shared > 48 << 10)
        (void)cuda_check(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
            "shared memory");
    (void)cuda_check(cudaLaunchKernelEx(&c, kernel, P(args)...), "a kernel's launch");
}
#endif

/* Blocks of `each` for n items, as many as a grid can have. */
static inline unsigned blocks_for(int64_t n, int64_t each)
{
    const int64_t blocks = (n + each - 1) / each, most = 0x7fffffff;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* ---- Operators (kernels.h), one file each -------------------------------------------------------- */

extern "C" {
void cuda_embed(struct worker *w, float *dst, const struct packed *table, const int32_t *id, int n);
void cuda_gather(struct worker *w, float *dst, const float *src, const int32_t *index, int n, int dim);
void cuda_norm(struct worker *w, const struct norm_args *a);
void cuda_linear(struct worker *w, const struct linear_args *a);
void cuda_rope_table(struct worker *w, const struct rope_table_args *a);
void cuda_rope_store(struct worker *w, const struct rope_store_args *a);
void cuda_attention(struct worker *w, const struct attention_args *a);
void cuda_gate(struct worker *w, const struct gate_args *a);
void cuda_scale(struct worker *w, float *dst, const float *src, int64_t n, float s);
void cuda_softcap(struct worker *w, float *x, int64_t n, float cap);
void cuda_add(struct worker *w, float *dst, const float *src, int64_t n);
void cuda_permute(struct worker *w, float *dst, const float *src, int n, int dim, const int32_t *order);
void cuda_route(struct worker *w, const struct route_args *a);
void cuda_combine(struct worker *w, const struct combine_args *a);
size_t cuda_scratch_bytes(int n_tokens, int64_t cols);
size_t cuda_attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads);
}

/* Rows of float to blocks of 8-bit activations: (n_rows, cols / 32). */
void cuda_act_quantise(struct act_block *dst, const float *x, int64_t n_rows, int64_t cols);
/* The compute capability, 10 · major + minor, that the kernels in use were compiled for. */
cudaError_t cuda_compiled_for(int *capability);
/* Tables that a slice's positions need are there (rope.cu). */
void cuda_rope_reach(int64_t pos);
void cuda_rope_release(void);

#endif

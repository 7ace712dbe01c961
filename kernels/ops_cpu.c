/* The CPU's row of the operator table: one per level, the operators bound to that level's kernels. */
#include "kernels/cpu.h"
#include "kernels/linear.h"
#include "kernels/pack.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Large buffers come from mmap: zero, and resident only where written. */
enum { MMAP_FROM = 1 << 20 };

void *cpu_alloc(size_t bytes)
{
    if (bytes >= MMAP_FROM) {
        void *p =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    size_t rounded = (bytes + 63) / 64 * 64;
    void *p = aligned_alloc(64, rounded ? rounded : 64);
    if (p)
        memset(p, 0, rounded);
    return p;
}

void cpu_release(void *p, size_t bytes)
{
    if (p && bytes >= MMAP_FROM)
        (void)munmap(p, bytes);
    else
        free(p);
}

static void copy(void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
}

/* NAME_op: cpu_op with the level's kernels as its last argument. */
#define BIND(NAME, op, kernels, parameters, ...) \
    static void NAME##_##op parameters           \
    {                                            \
        cpu_##op(__VA_ARGS__, kernels);          \
    }

#define CPU_OPS(NAME, ISA)                                                                                   \
    BIND(NAME, norm, cpu_kernels(ISA), (struct worker * w, const struct norm_args *a), w, a)                 \
    BIND(NAME, linear, cpu_kernels(ISA), (struct worker * w, const struct linear_args *a), w, a,             \
         linear_kernels(ISA))                                                                                \
    BIND(NAME, rope_store, cpu_kernels(ISA), (struct worker * w, const struct rope_store_args *a), w, a)     \
    BIND(NAME, attention, cpu_kernels(ISA), (struct worker * w, const struct attention_args *a), w, a)       \
    BIND(NAME, gate, cpu_kernels(ISA), (struct worker * w, const struct gate_args *a), w, a)                 \
    BIND(NAME, scale, cpu_kernels(ISA),                                                                      \
         (struct worker * w, float *dst, const float *src, int64_t n, float by), w, dst, src, n, by)         \
    BIND(NAME, softcap, cpu_kernels(ISA), (struct worker * w, float *x, int64_t n, float cap), w, x, n, cap) \
    BIND(NAME, add, cpu_kernels(ISA), (struct worker * w, float *dst, const float *src, int64_t n), w, dst,  \
         src, n)                                                                                             \
    BIND(NAME, combine, cpu_kernels(ISA), (struct worker * w, const struct combine_args *a), w, a)           \
    static const struct ops NAME##_ops = {                                                                   \
        .name = "cpu",                                                                                       \
        .isa = ISA,                                                                                          \
        .packed_layout = PACK_LAYOUT,                                                                        \
        .on_host = true,                                                                                     \
        .alloc = cpu_alloc,                                                                                  \
        .release = cpu_release,                                                                              \
        .upload = copy,                                                                                      \
        .download = copy,                                                                                    \
        .packed_alloc = cpu_packed_alloc,                                                                    \
        .packed_release = cpu_packed_release,                                                                \
        .packed_lend = cpu_packed_lend,                                                                      \
        .packed_view = cpu_packed_view,                                                                      \
        .pack = cpu_pack,                                                                                    \
        .scratch_bytes = cpu_scratch_bytes,                                                                  \
        .attention_scratch_bytes = cpu_attention_scratch_bytes,                                              \
        .embed = cpu_embed,                                                                                  \
        .gather = cpu_gather,                                                                                \
        .norm = NAME##_norm,                                                                                 \
        .linear = NAME##_linear,                                                                             \
        .rope_table = cpu_rope_table,                                                                        \
        .rope_store = NAME##_rope_store,                                                                     \
        .attention = NAME##_attention,                                                                       \
        .gate = NAME##_gate,                                                                                 \
        .scale = NAME##_scale,                                                                               \
        .softcap = NAME##_softcap,                                                                           \
        .add = NAME##_add,                                                                                   \
        .permute = cpu_permute,                                                                              \
        .route = cpu_route,                                                                                  \
        .combine = NAME##_combine,                                                                           \
    };
CPU_OPS(scalar, ISA_SCALAR)
CPU_OPS(avx2, ISA_AVX2)
CPU_OPS(avxvnni, ISA_AVXVNNI)
CPU_OPS(avx512, ISA_AVX512)
CPU_OPS(vnni, ISA_VNNI)
CPU_OPS(amx, ISA_AMX)

const struct ops *ops_cpu(enum isa isa)
{
    switch (isa) {
    case ISA_AVX2:
        return &avx2_ops;
    case ISA_AVXVNNI:
        return &avxvnni_ops;
    case ISA_AVX512:
        return &avx512_ops;
    case ISA_VNNI:
        return &vnni_ops;
    case ISA_AMX:
        return &amx_ops;
    default:
        return &scalar_ops;
    }
}

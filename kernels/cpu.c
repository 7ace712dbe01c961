/* The table of kernels of each CPU level: the scalar one is complete, faster levels overwrite what they
 * have. */
#include "kernels/cpu.h"

#include <threads.h>

static struct cpu_kernels tables[ISA_COUNT];

static void fill_scalar(struct cpu_kernels *k)
{
    (void)k;
}

static void fill_avx2(struct cpu_kernels *k)
{
    (void)k;
}

static void fill_avx512(struct cpu_kernels *k)
{
    (void)k;
}

static void fill(void)
{
    for (int isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        struct cpu_kernels *k = &tables[isa];
        k->isa = (enum isa)isa;
        fill_scalar(k);
        if (isa >= ISA_AVX2)
            fill_avx2(k);
        if (isa >= ISA_AVX512)
            fill_avx512(k);
    }
}

const struct cpu_kernels *cpu_kernels(enum isa isa)
{
    static once_flag once = ONCE_FLAG_INIT;
    call_once(&once, fill);
    return &tables[isa];
}

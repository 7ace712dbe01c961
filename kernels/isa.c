/* Which CPU levels this machine runs. __builtin_cpu_supports also asks XGETBV whether the operating
 * system saves the wide registers; what it has no name for in every supported compiler is read from
 * CPUID here. */
#include "kernels/kernels.h"

#include <cpuid.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[ISA_COUNT] = {
    [ISA_SCALAR] = "scalar", [ISA_AVX2] = "avx2", [ISA_AVXVNNI] = "avxvnni",
    [ISA_AVX512] = "avx512", [ISA_VNNI] = "vnni", [ISA_AMX] = "amx",
};

struct cpuid_regs {
    unsigned a, b, c, d;
};

static struct cpuid_regs cpuid(unsigned leaf, unsigned sub)
{
    struct cpuid_regs r = {0, 0, 0, 0};
    if (!__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d))
        memset(&r, 0, sizeof r);
    return r;
}

static bool has_avx2(void)
{
    enum { F16C = 1u << 29 };
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (cpuid(1, 0).c & F16C);
}

static bool has_avxvnni(void)
{
    enum { AVX_VNNI = 1u << 4 };
    return has_avx2() && cpuid(7, 0).a >= 1 && (cpuid(7, 1).a & AVX_VNNI);
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

/* Linux hands the tile registers out on request only, to the whole process, threads to come included
 * (Documentation/arch/x86/xstate.rst). */
static bool has_amx(void)
{
    enum { AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25 };
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned d = cpuid(7, 0).d;
    return has_vnni() && (d & AMX_TILE) && (d & AMX_INT8) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

bool isa_supported(enum isa isa)
{
#ifdef QUOLL_EMULATE_AVX512
    if (isa > ISA_AVX2 && isa < ISA_COUNT)
        return has_avx2();
#endif
    switch (isa) {
    case ISA_SCALAR:
        return true;
    case ISA_AVX2:
        return has_avx2();
    case ISA_AVXVNNI:
        return has_avxvnni();
    case ISA_AVX512:
        return has_avx512();
    case ISA_VNNI:
        return has_vnni();
    case ISA_AMX:
        return has_amx();
    case ISA_COUNT:
        break;
    }
    return false;
}

enum isa isa_best(void)
{
    for (int isa = ISA_COUNT - 1; isa > ISA_SCALAR; isa--)
        if (isa_supported((enum isa)isa))
            return (enum isa)isa;
    return ISA_SCALAR;
}

const char *isa_name(enum isa isa)
{
    return names[isa];
}

int isa_by_name(const char *name)
{
    if (strcasecmp(name, "auto") == 0)
        return (int)isa_best();
    for (int isa = 0; isa < ISA_COUNT; isa++)
        if (strcasecmp(name, names[isa]) == 0)
            return isa;
    return -1;
}

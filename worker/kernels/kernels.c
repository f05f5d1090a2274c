#include "worker/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined __x86_64__
#include <cpuid.h>
#elif defined __aarch64__
#include <sys/auxv.h>
#endif

#include "worker/kernels/levels.h"
#include "worker/kernels/packed_level.h"

static const char *const names[ISA_COUNT] = { "scalar", "avx2", "avxvnni", "avx512", "neon", "neon-i8mm" };

const char *isa_name(enum isa isa)
{
    return names[isa];
}

#ifdef __x86_64__
/* Compilers of our age cannot ask for it by name. */
static bool has_avxvnni(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#endif

bool isa_is_available(enum isa isa)
{
    switch (isa) {
    case ISA_SCALAR:
        return true;
#if defined __x86_64__
    case ISA_AVX2:
        /* Every CPU with AVX2 and FMA has F16C; compilers of our age cannot ask for it by name. */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ISA_AVXVNNI:
        return isa_is_available(ISA_AVX2) && has_avxvnni();
    case ISA_AVX512:
        return isa_is_available(ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#elif defined __aarch64__
    case ISA_NEON:
        return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    case ISA_NEON_I8MM:
        return isa_is_available(ISA_NEON) && (getauxval(AT_HWCAP2) & HWCAP2_I8MM);
#endif
    default:
        return false;
    }
}

void kernels_init(struct kernels *k, enum isa isa)
{
    memset(k, 0, sizeof *k);
    k->isa = isa;
    k->packed = &packed_level_scalar;
    rows_init_scalar(k);
    attention_init_scalar(k);
#if defined __x86_64__
    if (isa >= ISA_AVX2) {
        k->packed = &packed_level_avx2;
        rows_init_avx2(k);
        attention_init_avx2(k);
    }
    if (isa == ISA_AVXVNNI)
        k->packed = &packed_level_avxvnni;
    if (isa >= ISA_AVX512) {
        k->packed = &packed_level_avx512;
        rows_init_avx512(k);
        attention_init_avx512(k);
    }
#elif defined __aarch64__
    if (isa == ISA_NEON)
        k->packed = &packed_level_neon;
    if (isa == ISA_NEON_I8MM)
        k->packed = &packed_level_neon_i8mm;
#endif
}

bool isa_choose(enum isa *isa, char *problem, size_t problem_size)
{
    const char *wanted = getenv("WOOLLY_ISA");
    *isa = ISA_COUNT - 1;
    if (!wanted || !*wanted) {
        while (!isa_is_available(*isa))
            --*isa;
        return true;
    }
    while (strcmp(wanted, names[*isa]) != 0)
        if ((*isa)-- == ISA_SCALAR) {
            *isa = ISA_SCALAR;
            snprintf(problem, problem_size,
                     "WOOLLY_ISA is '%.40s'; it can be scalar, avx2, avxvnni, avx512, neon or neon-i8mm",
                     wanted);
            return false;
        }
    if (isa_is_available(*isa))
        return true;
    snprintf(problem, problem_size, "WOOLLY_ISA asks for %s, which this machine does not have", wanted);
    return false;
}

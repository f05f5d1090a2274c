#include "worker/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/kernels/levels.h"

static const char *const names[ISA_COUNT] = { "scalar", "avx2", "avx512" };

const char *isa_name(enum isa isa)
{
    return names[isa];
}

bool isa_is_available(enum isa isa)
{
    switch (isa) {
    case ISA_SCALAR:
        return true;
#ifdef __x86_64__
    case ISA_AVX2:
        /* Every CPU with AVX2 and FMA has F16C; compilers of our age cannot ask for it by name. */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ISA_AVX512:
        return isa_is_available(ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#endif
    default:
        return false;
    }
}

void kernels_init(struct kernels *k, enum isa isa)
{
    memset(k, 0, sizeof *k);
    k->isa = isa;
    products_init_scalar(k);
    rows_init_scalar(k);
    attention_init_scalar(k);
#ifdef __x86_64__
    if (isa >= ISA_AVX2) {
        products_init_avx2(k);
        rows_init_avx2(k);
        attention_init_avx2(k);
    }
    if (isa >= ISA_AVX512) {
        products_init_avx512(k);
        rows_init_avx512(k);
        attention_init_avx512(k);
    }
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
            snprintf(problem, problem_size, "WOOLLY_ISA is '%.40s'; it can be scalar, avx2 or avx512",
                     wanted);
            return false;
        }
    if (isa_is_available(*isa))
        return true;
    snprintf(problem, problem_size, "WOOLLY_ISA asks for %s, which this machine does not have", wanted);
    return false;
}

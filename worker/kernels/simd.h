/* What the fast kernels of every instruction set share: the constants of exp, and a rule: loops over a
 * constant number of registers carry "#pragma GCC unroll", because they must disappear or the registers land
 * in memory (clang ignores the pragma and unrolls them anyway). */
#ifndef WOOLLY_KERNELS_SIMD_H
#define WOOLLY_KERNELS_SIMD_H

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* A line of packed weights as the compiler's vectors. */
typedef uint32_t dwords __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef float floats __attribute__((vector_size(64)));

/* exp(x) = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; e^r by its Taylor series to r^7, whose rest
 * is below 6e-9. ln 2 is taken off in two parts, the first with few enough bits for n * LN2_HIGH to be exact.
 * The bounds keep 2^n a normal number. */
#define EXP_LOWEST  (-87.0f)
#define EXP_HIGHEST 88.0f
#define LOG2_E      1.44269504088896341f
#define LN2_HIGH    0.693359375f
#define LN2_LOW     (-2.12194440054690583e-4f)
#define EXP_C2      (1.0f / 2)
#define EXP_C3      (1.0f / 6)
#define EXP_C4      (1.0f / 24)
#define EXP_C5      (1.0f / 120)
#define EXP_C6      (1.0f / 720)
#define EXP_C7      (1.0f / 5040)

#endif

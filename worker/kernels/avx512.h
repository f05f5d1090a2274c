/* Helpers of the AVX-512 kernels. */
#ifndef WOOLLY_KERNELS_AVX512_H
#define WOOLLY_KERNELS_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "worker/kernels/simd.h"

/* The first n of 16 lanes, 0 <= n <= 16. */
INLINE __mmask16 first_lanes(int n)
{
    return (__mmask16)((1u << n) - 1);
}

/* Sixteen f16 numbers, of which the masked ones are read; the others are 0. */
INLINE __m512 load_halves(const uint16_t *p, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

INLINE __m512 exp16(__m512 x)
{
    /* In this order of operands a NaN passes. */
    x = _mm512_max_ps(_mm512_set1_ps(EXP_LOWEST), x);
    x = _mm512_min_ps(_mm512_set1_ps(EXP_HIGHEST), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(LOG2_E)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2_HIGH), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2_LOW), r);
    __m512 e = _mm512_set1_ps(EXP_C7);
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP_C6));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP_C5));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP_C4));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP_C3));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP_C2));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(e, n);
}

/* tanh |x| = (1 - e) / (1 + e) with e = exp(-2 |x|), and the sign of x. The error is that of e: absolute, not
 * relative to small results. */
INLINE __m512 tanh16(__m512 x)
{
    __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f)), one = _mm512_set1_ps(1);
    __m512 e = exp16(_mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(-2)));
    __m512 y = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    return _mm512_or_ps(y, sign);
}

#endif

/* Helpers of the AVX2 kernels (with FMA and F16C). */
#ifndef WOOLLY_KERNELS_AVX2_H
#define WOOLLY_KERNELS_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "worker/kernels/simd.h"

/* All ones in the first n of 8 lanes; n may be less than 0 or more than 8. */
INLINE __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of eight floats; the others are 0 and not read. */
INLINE __m256 load_floats(const float *p, int n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(n));
}

/* The first n of eight 16-bit words; the others are 0 and not read. */
INLINE __m128i load_words(const uint16_t *p, int n)
{
    if (n >= 8)
        return _mm_loadu_si128((const void *)p);
    uint16_t copy[8] = { 0 };
    memcpy(copy, p, (size_t)n * sizeof *p);
    return _mm_loadu_si128((const void *)copy);
}

INLINE void store_floats(float *p, __m256 v, int n)
{
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, first_lanes(n), v);
}

INLINE float sum_lanes(__m256 v)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE float max_lanes(__m256 v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE __m256 exp8(__m256 x)
{
    /* In this order of operands a NaN passes. */
    x = _mm256_max_ps(_mm256_set1_ps(EXP_LOWEST), x);
    x = _mm256_min_ps(_mm256_set1_ps(EXP_HIGHEST), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_HIGH), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_LOW), r);
    __m256 e = _mm256_set1_ps(EXP_C7);
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP_C6));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP_C5));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP_C4));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP_C3));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP_C2));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(1));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(1));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(e, _mm256_castsi256_ps(power));
}

/* tanh |x| = (1 - e) / (1 + e) with e = exp(-2 |x|), and the sign of x. The error is that of e: absolute, not
 * relative to small results. */
INLINE __m256 tanh8(__m256 x)
{
    __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f)), one = _mm256_set1_ps(1);
    __m256 e = exp8(_mm256_mul_ps(_mm256_or_ps(x, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(2)));
    __m256 y = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    return _mm256_or_ps(y, sign);
}

#endif

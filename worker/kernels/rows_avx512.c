/* Rows of activations and of logits with AVX-512. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/avx512.h"
#include "worker/kernels/levels.h"

#define LOGIT_LANES  16
#define LOGIT_HIGHER _mm512_max_ps
#include "worker/kernels/logits.h"

/* The squares are summed in double, as in the reference: it costs little and takes one error away. */
static void rms_norm(float *out, const float *x, const float *weight, int n, float eps)
{
    __m512d sum = _mm512_setzero_pd(), sum2 = _mm512_setzero_pd();
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - i < 16 ? n - i : 16), x + i);
        __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        sum = _mm512_fmadd_pd(a, a, sum);
        sum2 = _mm512_fmadd_pd(b, b, sum2);
    }
    double mean = _mm512_reduce_add_pd(_mm512_add_pd(sum, sum2)) / n;
    __m512 factor = _mm512_set1_ps((float)(1 / sqrt(mean + eps)));
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor);
        _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
    }
}

static void layer_norm(float *out, const float *x, const float *weight, const float *bias, int n, float eps)
{
    __m512d sum = _mm512_setzero_pd(), squares = _mm512_setzero_pd();
    for (int i = 0; i < n; i += 8) {
        __mmask16 mask = first_lanes(n - i < 8 ? n - i : 8);
        sum = _mm512_add_pd(sum, _mm512_cvtps_pd(_mm512_castps512_ps256(_mm512_maskz_loadu_ps(mask, x + i))));
    }
    __m512d mean = _mm512_set1_pd(_mm512_reduce_add_pd(sum) / n);
    for (int i = 0; i < n; i += 8) {
        __mmask8 mask = (__mmask8)first_lanes(n - i < 8 ? n - i : 8);
        __m512d v = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, x + i));
        v = _mm512_maskz_sub_pd(mask, v, mean);
        squares = _mm512_fmadd_pd(v, v, squares);
    }
    __m512d factor = _mm512_set1_pd(1 / sqrt(_mm512_reduce_add_pd(squares) / n + (double)eps));
    for (int i = 0; i < n; i += 8) {
        __mmask8 mask = (__mmask8)first_lanes(n - i < 8 ? n - i : 8);
        __m512d v = _mm512_sub_pd(_mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, x + i)), mean);
        __m256 y = _mm512_cvtpd_ps(_mm512_mul_pd(v, factor));
        y = _mm256_fmadd_ps(y, _mm256_maskz_loadu_ps(mask, weight + i),
                            _mm256_maskz_loadu_ps(mask, bias + i));
        _mm256_mask_storeu_ps(out + i, mask, y);
    }
}

/* Eight pairs lie in a register as they lie in memory; each meets its cosine twice, and swapped its sine. */
static void rope(float *x, const float *cosines, const float *sines, int n_pairs)
{
    __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (int i = 0; i < n_pairs; i += 8) {
        int count = n_pairs - i < 8 ? n_pairs - i : 8;
        __mmask16 mask = first_lanes(2 * count), half = first_lanes(count);
        __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, cosines + i));
        __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, sines + i));
        __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i);
        __m512 turned = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
        _mm512_mask_storeu_ps(x + 2 * i, mask, _mm512_fmaddsub_ps(v, c, turned));
    }
}

static void rope_halves(float *x, const float *cosines, const float *sines, int n_pairs)
{
    for (int i = 0; i < n_pairs; i += 16) {
        __mmask16 mask = first_lanes(n_pairs - i < 16 ? n_pairs - i : 16);
        __m512 c = _mm512_maskz_loadu_ps(mask, cosines + i), s = _mm512_maskz_loadu_ps(mask, sines + i);
        __m512 a = _mm512_maskz_loadu_ps(mask, x + i), b = _mm512_maskz_loadu_ps(mask, x + i + n_pairs);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + i + n_pairs, mask, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
    }
}

static void silu_gate(float *gate, const float *up, int n)
{
    __m512 one = _mm512_set1_ps(1);
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 below = _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), g)));
        __m512 y = _mm512_mul_ps(_mm512_div_ps(g, below), _mm512_maskz_loadu_ps(mask, up + i));
        _mm512_mask_storeu_ps(gate + i, mask, y);
    }
}

/* As the scalar one: x / (1 + exp(-2 u)). */
static void gelu_gate(float *gate, const float *up, int n)
{
    __m512 one = _mm512_set1_ps(1);
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(x, _mm512_set1_ps(GELU_CUBE)));
        __m512 below = exp16(_mm512_mul_ps(_mm512_add_ps(x, cube), _mm512_set1_ps(-2 * GELU_SCALE)));
        __m512 y = _mm512_div_ps(x, _mm512_add_ps(one, below));
        if (up)
            y = _mm512_mul_ps(y, _mm512_maskz_loadu_ps(mask, up + i));
        _mm512_mask_storeu_ps(gate + i, mask, y);
    }
}

static void soft_cap(float *x, float cap, int n)
{
    __m512 caps = _mm512_set1_ps(cap);
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 y = tanh16(_mm512_div_ps(_mm512_maskz_loadu_ps(mask, x + i), caps));
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(caps, y));
    }
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(x + i, mask, sum);
    }
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        _mm256_mask_storeu_epi16(out + i, mask, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
}

/* Those of 16 that lie between two bounds, behind the n_found there are; returns how many there are then.
 * Packed in a register and stored whole: some processors take a hundred cycles to store packed. */
INLINE int collect16(float *found, int32_t *places, int n_found, const float *x, int at, __mmask16 here,
                     float least, float most)
{
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 v = _mm512_maskz_loadu_ps(here, x + at);
    __mmask16 is_found = _mm512_mask_cmp_ps_mask(here, v, _mm512_set1_ps(least), _CMP_GE_OQ);
    is_found = _mm512_mask_cmp_ps_mask(is_found, v, _mm512_set1_ps(most), _CMP_LE_OQ);
    v = _mm512_min_ps(v, _mm512_set1_ps(FLT_MAX));
    lanes = _mm512_add_epi32(_mm512_set1_epi32(at), lanes);
    _mm512_storeu_ps(found + n_found, _mm512_maskz_compress_ps(is_found, v));
    _mm512_storeu_si512(places + n_found, _mm512_maskz_compress_epi32(is_found, lanes));
    return n_found + __builtin_popcount(is_found);
}

static int collect(float *found, int32_t *places, const float *x, int n, const float *maxima, float least,
                   float most)
{
    int n_found = 0, at = 0;
    for (; at + LOGIT_BLOCK <= n; at += LOGIT_BLOCK) {
        if (maxima && maxima[at / LOGIT_BLOCK] < least)
            continue;
#pragma GCC unroll 4
        for (int i = 0; i < LOGIT_BLOCK; i += 16)
            n_found = collect16(found, places, n_found, x, at + i, 0xffff, least, most);
    }
    for (; at < n; at += 16)
        n_found =
            collect16(found, places, n_found, x, at, first_lanes(n - at < 16 ? n - at : 16), least, most);
    return n_found;
}

void rows_init_avx512(struct kernels *k)
{
    logits_init(k);
    k->logits.collect = collect;
    k->rms_norm = rms_norm;
    k->layer_norm = layer_norm;
    k->rope = rope;
    k->rope_halves = rope_halves;
    k->silu_gate = silu_gate;
    k->gelu_gate = gelu_gate;
    k->soft_cap = soft_cap;
    k->add = add;
    k->store_f16 = store_f16;
}

/* Rows of activations with AVX-512. RoPE, LayerNorm and the residual sum stay scalar: they are a few thousand
 * elements per token, and the compiler vectorises the sum. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/avx512.h"
#include "worker/kernels/levels.h"

static void quantise_block(int16_t *q, float *q_scale, const float *x)
{
    __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
    __m512 low_abs = _mm512_abs_ps(low), high_abs = _mm512_abs_ps(high);
    __m512 max = _mm512_set1_ps(FLT_MAX);
    bool is_finite = (_mm512_cmp_ps_mask(low_abs, max, _CMP_LE_OQ) &
                      _mm512_cmp_ps_mask(high_abs, max, _CMP_LE_OQ)) == 0xffff;
    float largest = _mm512_reduce_max_ps(_mm512_max_ps(low_abs, high_abs));
    if (!is_finite || largest < FLT_MIN * 32767) {
        *q_scale = is_finite ? 0 : NAN;
        memset(q, 0, Q16_BLOCK * sizeof *q);
        return;
    }
    *q_scale = largest / 32767;
    __m512 inverse = _mm512_set1_ps(32767 / largest);
    __m256i low_q = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse)));
    __m256i high_q = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)));
    _mm256_storeu_si256((void *)q, low_q);
    _mm256_storeu_si256((void *)(q + 16), high_q);
}

static void quantise(int16_t *q, float *q_scale, const float *x, int n)
{
    for (int i = 0; i < n; i += Q16_BLOCK)
        quantise_block(q + i, q_scale + i / Q16_BLOCK, x + i);
}

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

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i < 16 ? n - i : 16);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        _mm256_mask_storeu_epi16(out + i, mask, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
}

void rows_init_avx512(struct kernels *k)
{
    k->quantise = quantise;
    k->rms_norm = rms_norm;
    k->silu_gate = silu_gate;
    k->gelu_gate = gelu_gate;
    k->soft_cap = soft_cap;
    k->store_f16 = store_f16;
}

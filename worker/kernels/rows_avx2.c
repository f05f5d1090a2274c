/* Rows of activations with AVX2. RoPE, LayerNorm and the residual sum stay scalar: they are a few thousand
 * elements per token, and the compiler vectorises the sum. */
#include <float.h>
#include <math.h>

#include "worker/kernels/avx2.h"
#include "worker/kernels/levels.h"

static void quantise_block(int16_t *q, float *q_scale, const float *x)
{
    __m256 v[4], largest8 = _mm256_setzero_ps(), max = _mm256_set1_ps(FLT_MAX);
    __m256 finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));

#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        __m256 absolute = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v[i]);
        finite = _mm256_and_ps(finite, _mm256_cmp_ps(absolute, max, _CMP_LE_OQ));
        largest8 = _mm256_max_ps(largest8, absolute);
    }
    bool is_finite = _mm256_movemask_ps(finite) == 0xff;
    float largest = max_lanes(largest8);
    if (!is_finite || largest < FLT_MIN * 32767) {
        *q_scale = is_finite ? 0 : NAN;
        memset(q, 0, Q16_BLOCK * sizeof *q);
        return;
    }
    *q_scale = largest / 32767;
    __m256 inverse = _mm256_set1_ps(32767 / largest);

#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        __m256i words = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        _mm_storeu_si128((void *)(q + 8 * i),
                         _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    }
}

static void quantise(int16_t *q, float *q_scale, const float *x, int n)
{
    for (int i = 0; i < n; i += Q16_BLOCK)
        quantise_block(q + i, q_scale + i / Q16_BLOCK, x + i);
}

/* The squares are summed in double, as in the reference: it costs little and takes one error away. */
static void rms_norm(float *out, const float *x, const float *weight, int n, float eps)
{
    __m256d sum = _mm256_setzero_pd(), sum2 = _mm256_setzero_pd();
    for (int i = 0; i < n; i += 8) {
        __m256 v = load_floats(x + i, n - i);
        __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
        __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
        sum = _mm256_fmadd_pd(a, a, sum);
        sum2 = _mm256_fmadd_pd(b, b, sum2);
    }
    sum = _mm256_add_pd(sum, sum2);
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
    double mean = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two))) / n;
    __m256 factor = _mm256_set1_ps((float)(1 / sqrt(mean + eps)));
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load_floats(x + i, n - i), factor);
        store_floats(out + i, _mm256_mul_ps(v, load_floats(weight + i, n - i)), n - i);
    }
}

static void silu_gate(float *gate, const float *up, int n)
{
    __m256 one = _mm256_set1_ps(1);
    for (int i = 0; i < n; i += 8) {
        __m256 g = load_floats(gate + i, n - i);
        __m256 below = _mm256_add_ps(one, exp8(_mm256_sub_ps(_mm256_setzero_ps(), g)));
        __m256 y = _mm256_mul_ps(_mm256_div_ps(g, below), load_floats(up + i, n - i));
        store_floats(gate + i, y, n - i);
    }
}

/* As the scalar one: x / (1 + exp(-2 u)). */
static void gelu_gate(float *gate, const float *up, int n)
{
    __m256 one = _mm256_set1_ps(1);
    for (int i = 0; i < n; i += 8) {
        __m256 x = load_floats(gate + i, n - i);
        __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_mul_ps(x, _mm256_set1_ps(GELU_CUBE)));
        __m256 below = exp8(_mm256_mul_ps(_mm256_add_ps(x, cube), _mm256_set1_ps(-2 * GELU_SCALE)));
        __m256 y = _mm256_div_ps(x, _mm256_add_ps(one, below));
        store_floats(gate + i, up ? _mm256_mul_ps(y, load_floats(up + i, n - i)) : y, n - i);
    }
}

static void soft_cap(float *x, float cap, int n)
{
    __m256 caps = _mm256_set1_ps(cap);
    for (int i = 0; i < n; i += 8)
        store_floats(x + i, _mm256_mul_ps(caps, tanh8(_mm256_div_ps(load_floats(x + i, n - i), caps))),
                     n - i);
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i += 8) {
        int count = n - i < 8 ? n - i : 8;
        __m128i halves = _mm256_cvtps_ph(load_floats(x + i, count), _MM_FROUND_TO_NEAREST_INT);
        uint16_t copy[8];
        _mm_storeu_si128((void *)copy, halves);
        memcpy(out + i, copy, (size_t)count * sizeof *out);
    }
}

void rows_init_avx2(struct kernels *k)
{
    k->quantise = quantise;
    k->rms_norm = rms_norm;
    k->silu_gate = silu_gate;
    k->gelu_gate = gelu_gate;
    k->soft_cap = soft_cap;
    k->store_f16 = store_f16;
}

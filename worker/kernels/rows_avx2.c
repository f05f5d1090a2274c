/* Rows of activations and of logits with AVX2. */
#include <float.h>
#include <math.h>

#include "worker/kernels/avx2.h"
#include "worker/kernels/levels.h"

#define LOGIT_LANES  8
#define LOGIT_HIGHER _mm256_max_ps
#include "worker/kernels/logits.h"

static __m128i first_four(int n)
{
    return _mm_cmpgt_epi32(_mm_set1_epi32(n), _mm_setr_epi32(0, 1, 2, 3));
}

/* The first n of four floats; the others are 0 and not read. */
static __m128 load_four(const float *p, int n)
{
    return n >= 4 ? _mm_loadu_ps(p) : _mm_maskload_ps(p, first_four(n));
}

static double sum_doubles(__m256d v)
{
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
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
    double mean = sum_doubles(_mm256_add_pd(sum, sum2)) / n;
    __m256 factor = _mm256_set1_ps((float)(1 / sqrt(mean + eps)));
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load_floats(x + i, n - i), factor);
        store_floats(out + i, _mm256_mul_ps(v, load_floats(weight + i, n - i)), n - i);
    }
}

/* Four doubles a step; what lies behind the row counts as the mean. */
static void layer_norm(float *out, const float *x, const float *weight, const float *bias, int n, float eps)
{
    __m256d sum = _mm256_setzero_pd(), squares = _mm256_setzero_pd();
    for (int i = 0; i < n; i += 4)
        sum = _mm256_add_pd(sum, _mm256_cvtps_pd(load_four(x + i, n - i)));
    __m256d mean = _mm256_set1_pd(sum_doubles(sum) / n);
    for (int i = 0; i < n; i += 4) {
        __m256d v = _mm256_sub_pd(_mm256_cvtps_pd(load_four(x + i, n - i)), mean);
        __m256d inside = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(first_four(n - i)));
        v = _mm256_and_pd(v, inside);
        squares = _mm256_fmadd_pd(v, v, squares);
    }
    __m256d factor = _mm256_set1_pd(1 / sqrt(sum_doubles(squares) / n + (double)eps));
    for (int i = 0; i < n; i += 4) {
        __m256d v = _mm256_sub_pd(_mm256_cvtps_pd(load_four(x + i, n - i)), mean);
        __m128 y = _mm256_cvtpd_ps(_mm256_mul_pd(v, factor));
        y = _mm_fmadd_ps(y, load_four(weight + i, n - i), load_four(bias + i, n - i));
        if (n - i >= 4)
            _mm_storeu_ps(out + i, y);
        else
            _mm_maskstore_ps(out + i, first_four(n - i), y);
    }
}

/* Four pairs lie in a register as they lie in memory; each meets its cosine twice, and swapped its sine. */
static void rope(float *x, const float *cosines, const float *sines, int n_pairs)
{
    __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (int i = 0; i < n_pairs; i += 4) {
        int left = n_pairs - i;
        __m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(load_four(cosines + i, left)), twice);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(load_four(sines + i, left)), twice);
        __m256 v = load_floats(x + 2 * i, 2 * left);
        __m256 turned = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), s);
        store_floats(x + 2 * i, _mm256_fmaddsub_ps(v, c, turned), 2 * left);
    }
}

static void rope_halves(float *x, const float *cosines, const float *sines, int n_pairs)
{
    for (int i = 0; i < n_pairs; i += 8) {
        int left = n_pairs - i;
        __m256 c = load_floats(cosines + i, left), s = load_floats(sines + i, left);
        __m256 a = load_floats(x + i, left), b = load_floats(x + i + n_pairs, left);
        store_floats(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)), left);
        store_floats(x + i + n_pairs, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)), left);
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

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 8)
        store_floats(x + i, _mm256_add_ps(load_floats(x + i, n - i), load_floats(y + i, n - i)), n - i);
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

static int collect(float *found, int32_t *places, const float *x, int n, const float *maxima, float least,
                   float most)
{
    __m256 leasts = _mm256_set1_ps(least), mosts = _mm256_set1_ps(most);
    int n_found = 0;
    for (int at = 0; at < n; at += 8) {
        if (maxima && at % LOGIT_BLOCK == 0 && maxima[at / LOGIT_BLOCK] < least) {
            at += LOGIT_BLOCK - 8;
            continue;
        }
        __m256 v = load_floats(x + at, n - at);
        __m256 is_found =
            _mm256_and_ps(_mm256_cmp_ps(v, leasts, _CMP_GE_OQ), _mm256_cmp_ps(v, mosts, _CMP_LE_OQ));
        unsigned mask = (unsigned)_mm256_movemask_ps(is_found);
        if (n - at < 8)
            mask &= (1u << (n - at)) - 1;
        for (; mask; mask &= mask - 1) {
            int i = at + __builtin_ctz(mask);
            found[n_found] = x[i] < FLT_MAX ? x[i] : FLT_MAX;
            places[n_found++] = i;
        }
    }
    return n_found;
}

void rows_init_avx2(struct kernels *k)
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

/* Attention over a cache of floats with AVX2, and what every type needs: weights and records. As with
 * AVX-512, but four queries times one vector of 16, which is two registers: eight sums. */
#include <math.h>
#include <string.h>

#include "worker/kernels/attention_avx2.h"

enum { QUERIES = 4 };

INLINE __m256 load_numbers(enum kv_type type, const void *b, size_t i)
{
    const void *halves = (const uint16_t *)b + i;
    if (type == KV_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128(halves));
    if (type == KV_BF16)
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(halves)), 16));
    return _mm256_loadu_ps((const float *)b + i);
}

INLINE void multiply_queries(enum kv_type type, int n, const struct product *p)
{
    for (int v = 0; v < p->n_v; v++) {
        __m256 sum[QUERIES][2];
        size_t at = (size_t)v * p->v_stride + (size_t)p->first * p->k_stride;
        float *out = p->out + 16 * v;

#pragma GCC unroll 16
        for (int i = 0; i < n; i++) {
            sum[i][0] = _mm256_loadu_ps(out + (size_t)i * p->out_stride);
            sum[i][1] = _mm256_loadu_ps(out + (size_t)i * p->out_stride + 8);
        }
        for (int k = p->first; k < p->last; k++, at += p->k_stride) {
            __m256 low = load_numbers(type, p->b, at), high = load_numbers(type, p->b, at + 8);
            if (p->ahead)
                __builtin_prefetch((const char *)p->b + at * (type == KV_F32 ? 4 : 2) + p->ahead);

#pragma GCC unroll 16
            for (int i = 0; i < n; i++) {
                __m256 each = _mm256_set1_ps(p->a[(size_t)i * p->a_stride + (size_t)k]);
                sum[i][0] = _mm256_fmadd_ps(each, low, sum[i][0]);
                sum[i][1] = _mm256_fmadd_ps(each, high, sum[i][1]);
            }
        }

#pragma GCC unroll 16
        for (int i = 0; i < n; i++) {
            _mm256_storeu_ps(out + (size_t)i * p->out_stride, sum[i][0]);
            _mm256_storeu_ps(out + (size_t)i * p->out_stride + 8, sum[i][1]);
        }
    }
}

INLINE void multiply(enum kv_type type, int n, const struct product *p)
{
    if (n == 4)
        multiply_queries(type, 4, p);
    else if (n == 3)
        multiply_queries(type, 3, p);
    else if (n == 2)
        multiply_queries(type, 2, p);
    else
        multiply_queries(type, 1, p);
}

static void multiply_f32(int n, const struct product *p)
{
    multiply(KV_F32, n, p);
}

static void multiply_f16(int n, const struct product *p)
{
    multiply(KV_F16, n, p);
}

static void multiply_bf16(int n, const struct product *p)
{
    multiply(KV_BF16, n, p);
}

/* n, a multiple of 16, numbers to f32. */
INLINE void widen(enum kv_type type, float *out, const void *from, size_t n, ptrdiff_t ahead)
{
    for (size_t i = 0; i < n; i += 8) {
        if (ahead)
            __builtin_prefetch((const uint16_t *)from + i + ahead / 2);
        _mm256_storeu_ps(out + i, load_numbers(type, from, i));
    }
}

static void widen_f16(float *out, const void *from, size_t n, ptrdiff_t ahead)
{
    widen(KV_F16, out, from, n, ahead);
}

static void widen_bf16(float *out, const void *from, size_t n, ptrdiff_t ahead)
{
    widen(KV_BF16, out, from, n, ahead);
}

static const struct float_level level = {
    .queries = QUERIES,
    .multiply = { [KV_F32] = multiply_f32, [KV_F16] = multiply_f16, [KV_BF16] = multiply_bf16 },
    .widen = { [KV_F16] = widen_f16, [KV_BF16] = widen_bf16 },
};

static void scores(struct tile *t, const char *block)
{
    scores_by_products(&level, t, block);
}

static void add_values(struct tile *t, const char *block)
{
    add_values_by_products(&level, t, block);
}

/* --- weights and records --- */

INLINE __m256 exp2_8(__m256 x)
{
    /* In this order of operands a NaN passes. */
    x = _mm256_max_ps(_mm256_set1_ps(EXP2_LOWEST), x);
    __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_sub_ps(x, n), e = _mm256_set1_ps(EXP2_C6);
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP2_C5));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP2_C4));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP2_C3));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP2_C2));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(EXP2_C1));
    e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(1));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(e, _mm256_castsi256_ps(power));
}

static float exp2_1(float x)
{
    return _mm256_cvtss_f32(exp2_8(_mm256_set1_ps(x)));
}

static void cap_scores(float *score, float cap)
{
    __m256 caps = _mm256_set1_ps(cap);
    for (int p = 0; p < KV_BLOCK; p += 8)
        _mm256_storeu_ps(score + p,
                         _mm256_mul_ps(caps, tanh8(_mm256_div_ps(_mm256_loadu_ps(score + p), caps))));
}

static void move_reference(const struct kv_layout *l, float *record, float top)
{
    float *reference = record_reference(l, record), shrink = exp2_1(*reference - top);
    for (int i = 0; i < l->width + 16; i += 8)
        _mm256_storeu_ps(record + i, _mm256_mul_ps(_mm256_loadu_ps(record + i), _mm256_set1_ps(shrink)));
    *reference = top;
}

static void weigh_query(const struct tile *t, int query)
{
    const struct kv_layout *l = t->layout;
    float *score = t->score + query * KV_BLOCK, *record = t->record + (size_t)query * record_floats(l);
    float *total = record + l->width;
    __m256 none = _mm256_set1_ps(-INFINITY), top8 = none, sum = _mm256_setzero_ps();
    if (t->soft_cap > 0)
        cap_scores(score, t->soft_cap);
    for (int p = 0; p < KV_BLOCK; p += 8) {
        __m256 seen = _mm256_castsi256_ps(seen_lanes(t, query, p));
        top8 = _mm256_max_ps(top8, _mm256_blendv_ps(none, _mm256_loadu_ps(score + p), seen));
    }
    float top = max_lanes(top8);
    if (top > *record_reference(l, record) + REFERENCE_SLACK)
        move_reference(l, record, top);
    __m256 reference = _mm256_set1_ps(*record_reference(l, record));
    for (int p = 0; p < KV_BLOCK; p += 8) {
        __m256 weight = exp2_8(_mm256_sub_ps(_mm256_loadu_ps(score + p), reference));
        weight = _mm256_and_ps(weight, _mm256_castsi256_ps(seen_lanes(t, query, p)));
        _mm256_storeu_ps(score + p, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    _mm256_storeu_ps(total, _mm256_add_ps(_mm256_loadu_ps(total), sum));
}

static void weigh(struct tile *t)
{
    for (int i = 0; i < t->n; i++)
        if (!sees_nothing(t, i))
            weigh_query(t, i);
}

static void merge(const struct kv_layout *l, float *into, const float *from)
{
    float *to = record_reference(l, into), more = from[l->width + 16], top = *to > more ? *to : more;
    __m256 a = _mm256_set1_ps(exp2_1(*to - top)), b = _mm256_set1_ps(exp2_1(more - top));
    for (int d = 0; d < l->width + 16; d += 8)
        _mm256_storeu_ps(into + d, _mm256_fmadd_ps(_mm256_loadu_ps(into + d), a,
                                                   _mm256_mul_ps(_mm256_loadu_ps(from + d), b)));
    *to = top;
}

static void finish(const struct kv_layout *l, float *out, const float *record)
{
    __m256 total = _mm256_set1_ps(sum_lanes(_mm256_loadu_ps(record + l->width)));
    for (int d = 0; d < l->head_dim; d += 8)
        store_floats(out + d, _mm256_div_ps(_mm256_loadu_ps(record + d), total), l->head_dim - d);
}

void attention_init_avx2(struct kernels *k)
{
    k->attention = (struct attention_kernels){
        .quantise = quantise_queries_avx2,
        .scores = { [KV_F32] = scores,
                    [KV_F16] = scores,
                    [KV_BF16] = scores,
                    [KV_Q8] = scores_q8_avx2,
                    [KV_Q4] = scores_q4_avx2 },
        .weigh = weigh,
        .add_values = { [KV_F32] = add_values,
                        [KV_F16] = add_values,
                        [KV_BF16] = add_values,
                        [KV_Q8] = add_values_q8_avx2,
                        [KV_Q4] = add_values_q4_avx2 },
        .merge = merge,
        .finish = finish,
    };
}

/* Attention over a cache of floats with AVX-512, and what every type needs: weights and records.
 *
 * Scores and weighted values are one matrix product, because keys lie transposed: up to eight queries times
 * two vectors of 16 positions, or of 16 elements of the output, in sixteen sums; each number of the cache is
 * widened once for eight queries. With more queries than that a block is widened to f32 once, into L1, which
 * changes no bit. */
#include <math.h>
#include <string.h>

#include "worker/kernels/attention_avx512.h"

enum { QUERIES = 8 };

INLINE __m512 load_numbers(enum kv_type type, const void *b, size_t i, ptrdiff_t ahead)
{
    const uint16_t *halves = (const uint16_t *)b + i;
    if (ahead)
        __builtin_prefetch((type == KV_F32 ? (const char *)((const float *)b + i) : (const char *)halves) +
                           ahead);
    if (type == KV_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)halves));
    if (type == KV_BF16)
        return _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)halves)), 16));
    return _mm512_loadu_ps((const float *)b + i);
}

/* n queries, nv vectors from vector v on. */
INLINE void multiply_strip(enum kv_type type, int n, int nv, const struct product *p, int v)
{
    __m512 sum[QUERIES][2];
    size_t at = (size_t)v * p->v_stride + (size_t)p->first * p->k_stride;
    const float *a = p->a + p->first;

#pragma GCC unroll 16
    for (int i = 0; i < n; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            sum[i][j] = _mm512_loadu_ps(p->out + (size_t)i * p->out_stride + 16 * (v + j));
    for (int k = p->first; k < p->last; k++, a++, at += p->k_stride) {
        __m512 b[2];

#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            b[j] = load_numbers(type, p->b, at + (size_t)j * p->v_stride, p->ahead);

#pragma GCC unroll 16
        for (int i = 0; i < n; i++) {
            __m512 each = _mm512_set1_ps(a[(size_t)i * p->a_stride]);
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++)
                sum[i][j] = _mm512_fmadd_ps(each, b[j], sum[i][j]);
        }
    }

#pragma GCC unroll 16
    for (int i = 0; i < n; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            _mm512_storeu_ps(p->out + (size_t)i * p->out_stride + 16 * (v + j), sum[i][j]);
}

INLINE void multiply_queries(enum kv_type type, int n, const struct product *p)
{
    int v = 0;
    for (; v + 2 <= p->n_v; v += 2)
        multiply_strip(type, n, 2, p, v);
    if (v < p->n_v)
        multiply_strip(type, n, 1, p, v);
}

INLINE void multiply(enum kv_type type, int n, const struct product *p)
{
    switch (n) {
    case 1:
        multiply_queries(type, 1, p);
        break;
    case 2:
        multiply_queries(type, 2, p);
        break;
    case 3:
        multiply_queries(type, 3, p);
        break;
    case 4:
        multiply_queries(type, 4, p);
        break;
    case 5:
        multiply_queries(type, 5, p);
        break;
    case 6:
        multiply_queries(type, 6, p);
        break;
    case 7:
        multiply_queries(type, 7, p);
        break;
    case 8:
        multiply_queries(type, 8, p);
        break;
    }
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

INLINE void widen(enum kv_type type, float *out, const void *from, size_t n, ptrdiff_t ahead)
{
    for (size_t i = 0; i < n; i += 16)
        _mm512_storeu_ps(out + i, load_numbers(type, from, i, ahead));
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

INLINE __m512 exp2_16(__m512 x)
{
    /* In this order of operands a NaN passes. */
    x = _mm512_max_ps(_mm512_set1_ps(EXP2_LOWEST), x);
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(x, n), e = _mm512_set1_ps(EXP2_C6);
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP2_C5));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP2_C4));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP2_C3));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP2_C2));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(EXP2_C1));
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(e, n);
}

static float exp2_1(float x)
{
    return _mm512_cvtss_f32(exp2_16(_mm512_set1_ps(x)));
}

static void cap_scores(float *score, float cap)
{
    __m512 caps = _mm512_set1_ps(cap);
    for (int i = 0; i < KV_BLOCK; i += 16)
        _mm512_storeu_ps(score + i,
                         _mm512_mul_ps(caps, tanh16(_mm512_div_ps(_mm512_loadu_ps(score + i), caps))));
}

static void move_reference(const struct kv_layout *l, float *record, float top)
{
    float *reference = record_reference(l, record), shrink = exp2_1(*reference - top);
    for (int i = 0; i < l->width + 16; i += 16)
        _mm512_storeu_ps(record + i, _mm512_mul_ps(_mm512_loadu_ps(record + i), _mm512_set1_ps(shrink)));
    *reference = top;
}

static void weigh_query(const struct tile *t, int query)
{
    const struct kv_layout *l = t->layout;
    float *score = t->score + query * KV_BLOCK, *record = t->record + (size_t)query * record_floats(l);
    uint64_t seen = seen_mask(t, query);
    __m512 s[KV_GROUPS], none = _mm512_set1_ps(-INFINITY);
    __m512 reference = _mm512_set1_ps(*record_reference(l, record));
    if (t->soft_cap > 0)
        cap_scores(score, t->soft_cap);

#pragma GCC unroll 4
    for (int i = 0; i < KV_GROUPS; i++)
        s[i] = _mm512_mask_loadu_ps(none, (__mmask16)(seen >> 16 * i), score + 16 * i);
    __m512 top = _mm512_max_ps(_mm512_max_ps(s[0], s[1]), _mm512_max_ps(s[2], s[3]));
    if (_mm512_cmp_ps_mask(top, _mm512_add_ps(reference, _mm512_set1_ps(REFERENCE_SLACK)), _CMP_GT_OQ)) {
        move_reference(l, record, _mm512_reduce_max_ps(top));
        reference = _mm512_set1_ps(*record_reference(l, record));
    }

#pragma GCC unroll 4
    for (int i = 0; i < KV_GROUPS; i++) {
        s[i] = _mm512_maskz_mov_ps((__mmask16)(seen >> 16 * i), exp2_16(_mm512_sub_ps(s[i], reference)));
        _mm512_storeu_ps(score + 16 * i, s[i]);
    }
    __m512 sum = _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3]));
    float *total = record + l->width;
    _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), sum));
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
    __m512 a = _mm512_set1_ps(exp2_1(*to - top)), b = _mm512_set1_ps(exp2_1(more - top));
    for (int d = 0; d < l->width + 16; d += 16)
        _mm512_storeu_ps(into + d, _mm512_fmadd_ps(_mm512_loadu_ps(into + d), a,
                                                   _mm512_mul_ps(_mm512_loadu_ps(from + d), b)));
    *to = top;
}

static void finish(const struct kv_layout *l, float *out, const float *record)
{
    __m512 total = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_loadu_ps(record + l->width)));
    for (int d = 0; d < l->head_dim; d += 16) {
        __mmask16 mask = first_lanes(l->head_dim - d < 16 ? l->head_dim - d : 16);
        _mm512_mask_storeu_ps(out + d, mask, _mm512_div_ps(_mm512_loadu_ps(record + d), total));
    }
}

void attention_init_avx512(struct kernels *k)
{
    k->attention = (struct attention_kernels){
        .quantise = quantise_queries_avx512,
        .scores = { [KV_F32] = scores,
                    [KV_F16] = scores,
                    [KV_BF16] = scores,
                    [KV_Q8] = scores_q8_avx512,
                    [KV_Q4] = scores_q4_avx512 },
        .weigh = weigh,
        .add_values = { [KV_F32] = add_values,
                        [KV_F16] = add_values,
                        [KV_BF16] = add_values,
                        [KV_Q8] = add_values_q8_avx512,
                        [KV_Q4] = add_values_q4_avx512 },
        .merge = merge,
        .finish = finish,
    };
}

/* Attention with AVX2. Up to four query heads share each key and value loaded. For a block of positions: all
 * scores, then the weights by a vector exp, then the values, eight elements of the head at a time with their
 * sums in registers. */
#include <math.h>

#include "worker/kernels/avx2.h"
#include "worker/kernels/levels.h"

enum { HEADS = 4 }; /* per pass over the cache; sixteen registers hold no more */

INLINE __m256 load_cached(bool is_f16, const void *base, size_t i, int n)
{
    return is_f16 ? _mm256_cvtph_ps(load_words((const uint16_t *)base + i, n))
                  : load_floats((const float *)base + i, n);
}

INLINE void block_scores(bool is_f16, int heads, const struct attention *a, const float *q, int start,
                         int from, int n, float (*score)[ATTENTION_BLOCK])
{
    int dim = a->head_dim;
    for (int p = from; p < n; p++) {
        size_t base = (size_t)(start + p) * (size_t)dim;
        __m256 sum[HEADS];

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            sum[h] = _mm256_setzero_ps();
        for (int d = 0; d < dim; d += 8) {
            __m256 k = load_cached(is_f16, a->k, base + (size_t)d, dim - d);

#pragma GCC unroll 16
            for (int h = 0; h < heads; h++)
                sum[h] = _mm256_fmadd_ps(load_floats(q + h * dim + d, dim - d), k, sum[h]);
        }

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            score[h][p] = sum_lanes(sum[h]) * a->scale;
    }
    for (int h = 0; h < heads; h++) {
        for (int p = 0; p < from; p++)
            score[h][p] = -INFINITY;
        for (int p = n; p < ATTENTION_BLOCK; p++)
            score[h][p] = -INFINITY;
    }
}

INLINE void cap_scores(float *score, float cap)
{
    __m256 caps = _mm256_set1_ps(cap);
    for (int p = 0; p < ATTENTION_BLOCK; p += 8)
        _mm256_storeu_ps(score + p,
                         _mm256_mul_ps(caps, tanh8(_mm256_div_ps(_mm256_loadu_ps(score + p), caps))));
}

/* Turns scores into weights; positions before `from` and from n on get weight 0. Returns what earlier sums
 * shrink by. */
INLINE float block_weights(float *score, int from, int n, float *highest, float *total)
{
    __m256 none = _mm256_set1_ps(-INFINITY), top8 = none;
    for (int p = 0; p < ATTENTION_BLOCK; p += 8)
        top8 = _mm256_max_ps(top8, _mm256_loadu_ps(score + p));
    float top = max_lanes(top8), before = *highest;
    *highest = top > before ? top : before;
    __m256 max = _mm256_set1_ps(*highest), sum = _mm256_setzero_ps();
    for (int p = 0; p < ATTENTION_BLOCK; p += 8) {
        __m256 weight = exp8(_mm256_sub_ps(_mm256_loadu_ps(score + p), max));
        __m256i seen = _mm256_andnot_si256(first_lanes(from - p), first_lanes(n - p));
        weight = _mm256_and_ps(weight, _mm256_castsi256_ps(seen));
        _mm256_storeu_ps(score + p, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    float shrink = expf(before - *highest);
    *total = *total * shrink + sum_lanes(sum);
    return shrink;
}

INLINE void block_values(bool is_f16, int heads, const struct attention *a, float *out, int start, int from,
                         int n, const float (*weight)[ATTENTION_BLOCK], const float *shrink)
{
    int dim = a->head_dim;
    for (int d = 0; d < dim; d += 8) {
        __m256 sum[HEADS];

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            sum[h] = _mm256_mul_ps(load_floats(out + h * dim + d, dim - d), _mm256_set1_ps(shrink[h]));
        for (int p = from; p < n; p++) {
            __m256 v = load_cached(is_f16, a->v, (size_t)(start + p) * (size_t)dim + (size_t)d, dim - d);

#pragma GCC unroll 16
            for (int h = 0; h < heads; h++)
                sum[h] = _mm256_fmadd_ps(_mm256_set1_ps(weight[h][p]), v, sum[h]);
        }

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            store_floats(out + h * dim + d, sum[h], dim - d);
    }
}

INLINE void attend_heads(bool is_f16, int heads, const struct attention *a, const float *q, float *out)
{
    float score[HEADS][ATTENTION_BLOCK], shrink[HEADS], highest[HEADS], total[HEADS];
    for (int h = 0; h < heads; h++) {
        highest[h] = -INFINITY;
        total[h] = 0;
    }
    memset(out, 0, (size_t)heads * (size_t)a->head_dim * sizeof *out);
    for (int start = attention_start(a); start < a->n_pos; start += ATTENTION_BLOCK) {
        int n = a->n_pos - start < ATTENTION_BLOCK ? a->n_pos - start : ATTENTION_BLOCK;
        int from = a->first_pos > start ? a->first_pos - start : 0;
        block_scores(is_f16, heads, a, q, start, from, n, score);
        for (int h = 0; h < heads; h++) {
            if (a->soft_cap > 0)
                cap_scores(score[h], a->soft_cap);
            shrink[h] = block_weights(score[h], from, n, &highest[h], &total[h]);
        }
        block_values(is_f16, heads, a, out, start, from, n, (const float(*)[ATTENTION_BLOCK])score, shrink);
    }
    for (int h = 0; h < heads; h++)
        for (int d = 0; d < a->head_dim; d++)
            out[h * a->head_dim + d] /= total[h];
}

INLINE void attend(bool is_f16, const struct attention *a)
{
    int left = a->n_group;
    const float *q = a->q;
    float *out = a->out;
    while (left) {
        int heads = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (heads == 4)
            attend_heads(is_f16, 4, a, q, out);
        else if (heads == 2)
            attend_heads(is_f16, 2, a, q, out);
        else
            attend_heads(is_f16, 1, a, q, out);
        q += heads * a->head_dim;
        out += heads * a->head_dim;
        left -= heads;
    }
}

static void attend_f32(const struct attention *a)
{
    attend(false, a);
}

static void attend_f16(const struct attention *a)
{
    attend(true, a);
}

void attention_init_avx2(struct kernels *k)
{
    k->attend_f32 = attend_f32;
    k->attend_f16 = attend_f16;
}

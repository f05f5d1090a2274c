/* Attention with AVX-512. Up to eight query heads share each key and value loaded. For a block of positions:
 * all scores, then the weights by a vector exp, then the values, sixteen elements of the head at a time with
 * their sums in registers. */
#include <math.h>
#include <string.h>

#include "worker/kernels/avx512.h"
#include "worker/kernels/levels.h"

INLINE __m512 load_cached(bool is_f16, const void *base, size_t i, __mmask16 mask)
{
    return is_f16 ? load_halves((const uint16_t *)base + i, mask)
                  : _mm512_maskz_loadu_ps(mask, (const float *)base + i);
}

INLINE void block_scores(bool is_f16, int heads, const struct attention *a, const float *q, int start,
                         int from, int n, float (*score)[ATTENTION_BLOCK])
{
    int dim = a->head_dim;
    for (int p = from; p < n; p++) {
        size_t base = (size_t)(start + p) * (size_t)dim;
        __m512 sum[ATTENTION_HEADS];

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            sum[h] = _mm512_setzero_ps();
        for (int d = 0; d < dim; d += 16) {
            __mmask16 mask = first_lanes(dim - d < 16 ? dim - d : 16);
            __m512 k = load_cached(is_f16, a->k, base + (size_t)d, mask);

#pragma GCC unroll 16
            for (int h = 0; h < heads; h++)
                sum[h] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, q + h * dim + d), k, sum[h]);
        }

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            score[h][p] = _mm512_reduce_add_ps(sum[h]) * a->scale;
    }
}

INLINE __m512 cap_scores(__m512 score, float cap)
{
    __m512 caps = _mm512_set1_ps(cap);
    return _mm512_mul_ps(caps, tanh16(_mm512_div_ps(score, caps)));
}

/* Turns scores, capped if soft_cap is above 0, into weights; positions before `from` and from n on get weight
 * 0. Returns what earlier sums shrink by. */
INLINE float block_weights(float *score, int from, int n, float soft_cap, float *highest, float *total)
{
    uint32_t seen = (uint32_t)((1ull << n) - (1ull << from));
    __mmask16 mask[2] = { (__mmask16)seen, (__mmask16)(seen >> 16) };
    __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 low = _mm512_mask_loadu_ps(none, mask[0], score);
    __m512 high = _mm512_mask_loadu_ps(none, mask[1], score + 16);
    if (soft_cap > 0) {
        low = cap_scores(low, soft_cap);
        high = cap_scores(high, soft_cap);
    }
    float top = _mm512_reduce_max_ps(_mm512_max_ps(low, high));
    float before = *highest;
    *highest = top > before ? top : before;
    __m512 max = _mm512_set1_ps(*highest);
    low = _mm512_maskz_mov_ps(mask[0], exp16(_mm512_sub_ps(low, max)));
    high = _mm512_maskz_mov_ps(mask[1], exp16(_mm512_sub_ps(high, max)));
    _mm512_storeu_ps(score, low);
    _mm512_storeu_ps(score + 16, high);
    float shrink = expf(before - *highest);
    *total = *total * shrink + _mm512_reduce_add_ps(_mm512_add_ps(low, high));
    return shrink;
}

INLINE void block_values(bool is_f16, int heads, const struct attention *a, float *out, int start, int from,
                         int n, const float (*weight)[ATTENTION_BLOCK], const float *shrink)
{
    int dim = a->head_dim;
    for (int d = 0; d < dim; d += 16) {
        __mmask16 mask = first_lanes(dim - d < 16 ? dim - d : 16);
        __m512 sum[ATTENTION_HEADS];

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            sum[h] = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, out + h * dim + d), _mm512_set1_ps(shrink[h]));
        for (int p = from; p < n; p++) {
            __m512 v = load_cached(is_f16, a->v, (size_t)(start + p) * (size_t)dim + (size_t)d, mask);

#pragma GCC unroll 16
            for (int h = 0; h < heads; h++)
                sum[h] = _mm512_fmadd_ps(_mm512_set1_ps(weight[h][p]), v, sum[h]);
        }

#pragma GCC unroll 16
        for (int h = 0; h < heads; h++)
            _mm512_mask_storeu_ps(out + h * dim + d, mask, sum[h]);
    }
}

INLINE void attend_heads(bool is_f16, int heads, const struct attention *a, const float *q, float *out)
{
    float score[ATTENTION_HEADS][ATTENTION_BLOCK], shrink[ATTENTION_HEADS];
    float highest[ATTENTION_HEADS], total[ATTENTION_HEADS];
    for (int h = 0; h < heads; h++) {
        highest[h] = -INFINITY;
        total[h] = 0;
    }
    memset(out, 0, (size_t)heads * (size_t)a->head_dim * sizeof *out);
    for (int start = attention_start(a); start < a->n_pos; start += ATTENTION_BLOCK) {
        int n = a->n_pos - start < ATTENTION_BLOCK ? a->n_pos - start : ATTENTION_BLOCK;
        int from = a->first_pos > start ? a->first_pos - start : 0;
        block_scores(is_f16, heads, a, q, start, from, n, score);
        for (int h = 0; h < heads; h++)
            shrink[h] = block_weights(score[h], from, n, a->soft_cap, &highest[h], &total[h]);
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
        int heads = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (heads == 8)
            attend_heads(is_f16, 8, a, q, out);
        else if (heads == 4)
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

void attention_init_avx512(struct kernels *k)
{
    k->attend_f32 = attend_f32;
    k->attend_f16 = attend_f16;
}

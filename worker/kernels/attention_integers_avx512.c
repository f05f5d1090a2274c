/* Attention over a cache of integers with AVX-512 VNNI. A byte dot product takes four elements of 16 keys, or
 * four values of 16 elements, at once: 64 bytes of the cache per instruction, none of them widened. The other
 * side, queries and weights, has more than eight bits: a high byte and seven low bits, a dot product each, so
 * that the sum is exact. Four queries times two vectors of the cache are sixteen sums. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/attention_avx512.h"

enum { QUERIES = 4 };

/* Of queries or weights: 128 * high + low is what meets the cache. A line of the cache, 64 bytes, is of keys
 * four elements each of 16 positions, of values four positions each of 16 elements; in q4 it is two lines: of
 * keys the next four elements, of values the next 16. */
struct bytes {
    const int8_t *high, *low;
    size_t stride; /* from query to query */
};

INLINE __m512i low_halves(__m512i line)
{
    return _mm512_and_si512(line, _mm512_set1_epi8(15));
}

INLINE __m512i high_halves(__m512i line)
{
    return low_halves(_mm512_srli_epi16(line, 4));
}

INLINE __m512i broadcast_quad(const int8_t *at)
{
    int32_t quad;
    memcpy(&quad, at, sizeof quad);
    return _mm512_set1_epi32(quad);
}

/* Adds one quad of n queries times nv vectors. Of each dot product one side has a sign: values of q8 have it,
 * keys of q8 (moved by 128) and all of q4 do not. */
INLINE void add_quad(bool is_signed, int n, int nv, __m512i high[QUERIES][2], __m512i low[QUERIES][2],
                     const struct bytes *a, int quad, const __m512i *b)
{
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        __m512i h = broadcast_quad(a->high + (size_t)i * a->stride + 4 * quad);
        __m512i w = broadcast_quad(a->low + (size_t)i * a->stride + 4 * quad);
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) {
            high[i][j] = is_signed ? _mm512_dpbusd_epi32(high[i][j], h, b[j])
                                   : _mm512_dpbusd_epi32(high[i][j], b[j], h);
            low[i][j] =
                is_signed ? _mm512_dpbusd_epi32(low[i][j], w, b[j]) : _mm512_dpbusd_epi32(low[i][j], b[j], w);
        }
    }
}

INLINE __m512 whole_sum(__m512i high, __m512i low)
{
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 7), low));
}

INLINE __m512 load_scales(const uint16_t *scales)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scales));
}

/* --- queries --- */

/* Bytes [n][depth] of high parts, then as many of low ones, in the place of words. */
static struct bytes query_bytes(const struct tile *t)
{
    const int8_t *bytes = (const void *)t->words;
    size_t stride = (size_t)t->layout->depth;
    return (struct bytes){ bytes, bytes + (size_t)t->n * stride, stride };
}

/* The factor that makes integers up to `most` of numbers up to `largest`. */
static float inverse_of(float largest, float most)
{
    return largest >= FLT_MIN * most ? most / largest : 0;
}

static void quantise_query(struct tile *t, int query, int8_t *high, int8_t *low)
{
    const struct kv_layout *l = t->layout;
    const float *q = t->q + query * l->head_dim;
    __m512 largest = _mm512_setzero_ps(), most = _mm512_set1_ps(FLT_MAX);
    __mmask16 strange = 0;
    for (int d = 0; d < l->head_dim; d += 16) {
        __mmask16 mask = first_lanes(l->head_dim - d < 16 ? l->head_dim - d : 16);
        __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(mask, q + d));
        strange |= _mm512_cmp_ps_mask(size, most, _CMP_NLE_UQ);
        largest = _mm512_max_ps(largest, size);
    }
    float top = _mm512_reduce_max_ps(largest);
    __m512 inverse = _mm512_set1_ps(strange ? 0 : inverse_of(top, QUERY_MOST));
    t->q_scale[query] = strange ? NAN : top / QUERY_MOST;
    for (int part = 0; part < l->n_parts; part++) {
        __m512i sum = _mm512_setzero_si512();
        for (int d = part * KV_PART; d < (part + 1) * KV_PART && d < l->depth; d += 16) {
            int left = l->head_dim - d, room = l->depth - d;
            __mmask16 mask = first_lanes(left < 0 ? 0 : left < 16 ? left : 16);
            __m512i i =
                _mm512_maskz_cvtps_epi32(mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, q + d), inverse));
            __mmask16 store = first_lanes(room < 16 ? room : 16);
            sum = _mm512_add_epi32(sum, i);
            _mm512_mask_cvtepi32_storeu_epi8(high + d, store, _mm512_srai_epi32(i, 7));
            _mm512_mask_cvtepi32_storeu_epi8(low + d, store, _mm512_and_si512(i, _mm512_set1_epi32(127)));
        }
        t->q_sum[query * l->n_parts + part] = _mm512_reduce_add_epi32(sum);
    }
}

void quantise_queries_avx512(struct tile *t)
{
    struct bytes b = query_bytes(t);
    for (int i = 0; i < t->n; i++)
        quantise_query(t, i, (int8_t *)(uintptr_t)b.high + (size_t)i * b.stride,
                       (int8_t *)(uintptr_t)b.low + (size_t)i * b.stride);
}

/* n queries from q on, nv groups of positions from `group` on. */
INLINE void scores_strip(bool is_q4, int n, int nv, struct tile *t, const char *block, int q, int group)
{
    const struct kv_layout *l = t->layout;
    int n_parts = l->n_parts, quads = l->depth / 4;
    const uint16_t *scales = (const uint16_t *)(const void *)block + group * n_parts * KV_GROUP;
    size_t group_bytes = (size_t)(is_q4 ? quads / 2 : quads) * 64;
    const uint8_t *lines = (const uint8_t *)block + l->k + (size_t)group * group_bytes;
    struct bytes a = query_bytes(t);
    ptrdiff_t ahead = t->ahead;
    __m512 score[QUERIES][2];

    a.high += (size_t)q * a.stride;
    a.low += (size_t)q * a.stride;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            score[i][j] = _mm512_setzero_ps();
    for (int part = 0; part < n_parts; part++) {
        int first = part * (KV_PART / 4), last = first + KV_PART / 4 < quads ? first + KV_PART / 4 : quads;
        __m512i high[QUERIES][2], low[QUERIES][2];
        const int32_t *q_sum = t->q_sum + q * n_parts + part;
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++) {
                high[i][j] = _mm512_setzero_si512();
                low[i][j] = _mm512_set1_epi32(is_q4 ? 0 : -128 * q_sum[i * n_parts]);
            }
#pragma GCC unroll 4
        for (int quad = first; quad < last; quad += is_q4 ? 2 : 1) {
            const uint8_t *line = lines + (size_t)(is_q4 ? quad / 2 : quad) * 64;
            __m512i b[2], c[2];
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++) {
                b[j] = _mm512_loadu_si512(line + (size_t)j * group_bytes);
                if (ahead)
                    __builtin_prefetch(line + (size_t)j * group_bytes + ahead);
                c[j] = high_halves(b[j]);
                b[j] = is_q4 ? low_halves(b[j]) : b[j];
            }
            add_quad(false, n, nv, high, low, &a, quad, b);
            if (is_q4)
                add_quad(false, n, nv, high, low, &a, quad + 1, c);
        }
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) {
            const uint16_t *scale = scales + (j * n_parts + part) * KV_GROUP;
            __m512 scale16 = load_scales(scale);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                score[i][j] = _mm512_fmadd_ps(whole_sum(high[i][j], low[i][j]), scale16, score[i][j]);
                if (is_q4)
                    score[i][j] = _mm512_fmadd_ps(load_scales(scale + KV_BLOCK * n_parts),
                                                  _mm512_set1_ps((float)q_sum[i * n_parts]), score[i][j]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            _mm512_storeu_ps(t->score + (q + i) * KV_BLOCK + (group + j) * KV_GROUP,
                             _mm512_mul_ps(score[i][j], _mm512_set1_ps(t->q_scale[q + i])));
}

INLINE void scores_queries(bool is_q4, int n, struct tile *t, const char *block, int q)
{
    int from = t->from[q] / KV_GROUP, to = (t->to[q + n - 1] + KV_GROUP - 1) / KV_GROUP;
    for (; from + 2 <= to; from += 2)
        scores_strip(is_q4, n, 2, t, block, q, from);
    if (from < to)
        scores_strip(is_q4, n, 1, t, block, q, from);
}

INLINE void scores(bool is_q4, struct tile *t, const char *block)
{
    int q = 0;
    for (; q + QUERIES <= t->n; q += QUERIES)
        scores_queries(is_q4, QUERIES, t, block, q);
    if (t->n - q == 3)
        scores_queries(is_q4, 3, t, block, q);
    else if (t->n - q == 2)
        scores_queries(is_q4, 2, t, block, q);
    else if (t->n - q == 1)
        scores_queries(is_q4, 1, t, block, q);
}

/* --- values --- */

/* Weights of up to four queries as integers. */
struct weights {
    int8_t high[QUERIES][KV_BLOCK], low[QUERIES][KV_BLOCK];
    float scale[QUERIES], least[QUERIES]; /* least: the weighted sum of the minima */
};

/* Weights with the scales of their values in them become integers of 0..WEIGHT_MOST. */
INLINE void quantise_weights(bool is_q4, const struct tile *t, const uint16_t *scales, int query,
                             struct weights *w, int i)
{
    const float *weight = t->score + query * KV_BLOCK;
    uint64_t seen = seen_mask(t, query);
    __m512 scaled[KV_GROUPS], least = _mm512_setzero_ps();
    __mmask16 strange = 0;
#pragma GCC unroll 4
    for (int g = 0; g < KV_GROUPS; g++) {
        __mmask16 mask = (__mmask16)(seen >> 16 * g);
        __m512 each = _mm512_loadu_ps(weight + 16 * g);
        scaled[g] = _mm512_maskz_mul_ps(mask, each, load_scales(scales + 16 * g));
        strange |= _mm512_cmp_ps_mask(scaled[g], scaled[g], _CMP_UNORD_Q);
        if (is_q4)
            least = _mm512_mask3_fmadd_ps(each, load_scales(scales + KV_BLOCK + 16 * g), least, mask);
    }
    float largest = _mm512_reduce_max_ps(
        _mm512_max_ps(_mm512_max_ps(scaled[0], scaled[1]), _mm512_max_ps(scaled[2], scaled[3])));
    __m512 inverse = _mm512_set1_ps(inverse_of(largest, WEIGHT_MOST));
    w->scale[i] = strange ? NAN : largest >= FLT_MIN * WEIGHT_MOST ? largest / WEIGHT_MOST : 0;
    w->least[i] = is_q4 ? _mm512_reduce_add_ps(least) : 0;
#pragma GCC unroll 4
    for (int g = 0; g < KV_GROUPS; g++) {
        __m512i word = _mm512_cvtps_epi32(_mm512_mul_ps(scaled[g], inverse));
        _mm_storeu_si128((void *)(w->high[i] + 16 * g), _mm512_cvtepi32_epi8(_mm512_srli_epi32(word, 7)));
        _mm_storeu_si128((void *)(w->low[i] + 16 * g),
                         _mm512_cvtepi32_epi8(_mm512_and_si512(word, _mm512_set1_epi32(127))));
    }
}

/* n queries from q on, nv vectors of the values from `vector` on. */
INLINE void values_strip(bool is_q4, int n, int nv, struct tile *t, const char *block,
                         const struct weights *w, int q, int vector)
{
    const struct kv_layout *l = t->layout;
    size_t line_of = (size_t)(is_q4 ? vector / 2 : vector);
    size_t quad_bytes = (size_t)(is_q4 ? l->width / 32 : l->width / 16) * 64;
    const uint8_t *line = (const uint8_t *)block + l->v + line_of * 64;
    struct bytes a = { w->high[0], w->low[0], KV_BLOCK };
    ptrdiff_t ahead = t->ahead;
    __m512i high[QUERIES][2], low[QUERIES][2];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            high[i][j] = low[i][j] = _mm512_setzero_si512();
            /* Quads that none of the queries sees have weights of 0. */
#pragma GCC unroll 4
    for (int quad = t->from[q] / 4; quad < (t->to[q + n - 1] + 3) / 4; quad++) {
        __m512i b[2];
        b[0] = _mm512_loadu_si512(line + (size_t)quad * quad_bytes);
        if (ahead)
            __builtin_prefetch(line + (size_t)quad * quad_bytes + ahead);
        if (is_q4) {
            b[1] = high_halves(b[0]);
            b[0] = low_halves(b[0]);
        } else if (nv == 2)
            b[1] = _mm512_loadu_si512(line + (size_t)quad * quad_bytes + 64);
        if (ahead && !is_q4)
            __builtin_prefetch(line + (size_t)quad * quad_bytes + 64 + ahead);
        add_quad(!is_q4, n, nv, high, low, &a, quad, b);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        if (sees_nothing(t, q + i))
            continue;
        float *out = t->record + (size_t)(q + i) * record_floats(l) + 16 * vector;
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) {
            __m512 sum = _mm512_fmadd_ps(whole_sum(high[i][j], low[i][j]), _mm512_set1_ps(w->scale[i]),
                                         _mm512_set1_ps(w->least[i]));
            _mm512_storeu_ps(out + 16 * j, _mm512_add_ps(_mm512_loadu_ps(out + 16 * j), sum));
        }
    }
}

INLINE void values_queries(bool is_q4, int n, struct tile *t, const char *block, int q)
{
    const uint16_t *scales = (const void *)(block + t->layout->v_scales);
    int vectors = t->layout->width / 16, v = 0;
    struct weights w;
    for (int i = 0; i < n; i++)
        if (sees_nothing(t, q + i)) {
            memset(w.high[i], 0, KV_BLOCK);
            memset(w.low[i], 0, KV_BLOCK);
        } else
            quantise_weights(is_q4, t, scales, q + i, &w, i);
    for (; v + 2 <= vectors; v += 2)
        values_strip(is_q4, n, 2, t, block, &w, q, v);
    if (v < vectors)
        values_strip(is_q4, n, 1, t, block, &w, q, v);
}

INLINE void add_values(bool is_q4, struct tile *t, const char *block)
{
    int q = 0;
    for (; q + QUERIES <= t->n; q += QUERIES)
        values_queries(is_q4, QUERIES, t, block, q);
    if (t->n - q == 3)
        values_queries(is_q4, 3, t, block, q);
    else if (t->n - q == 2)
        values_queries(is_q4, 2, t, block, q);
    else if (t->n - q == 1)
        values_queries(is_q4, 1, t, block, q);
}

void scores_q8_avx512(struct tile *t, const char *block)
{
    scores(false, t, block);
}

void scores_q4_avx512(struct tile *t, const char *block)
{
    scores(true, t, block);
}

void add_values_q8_avx512(struct tile *t, const char *block)
{
    add_values(false, t, block);
}

void add_values_q4_avx512(struct tile *t, const char *block)
{
    add_values(true, t, block);
}

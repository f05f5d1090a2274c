/* Attention over a cache of integers with AVX2. Without byte dot products four bytes of a lane are widened to
 * words and meet the words of queries or weights in 16-bit multiply-adds, whose sums are as exact: sixteen
 * bytes of a line become the halves of four sums. Two queries share what is widened. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/attention_avx2.h"

enum { QUERIES = 2 };

/* Sums of 16 lanes, each in two halves side by side. */
struct sums {
    __m256i part[4];
};

INLINE __m256i broadcast_quad(const int16_t *words)
{
    int64_t quad;
    memcpy(&quad, words, sizeof quad);
    return _mm256_set1_epi64x(quad);
}

/* A quarter of a line as words; of q4 its low or its high halves. Values of q8 have a sign. */
INLINE __m256i quarter_words(enum kv_type type, bool is_signed, const uint8_t *at, bool is_high)
{
    __m128i bytes = _mm_loadu_si128((const void *)at);
    if (type == KV_Q4) {
        bytes = is_high ? _mm_srli_epi16(bytes, 4) : bytes;
        bytes = _mm_and_si128(bytes, _mm_set1_epi8(15));
    }
    return is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
}

INLINE void add_line(enum kv_type type, bool is_signed, int n, struct sums *sums, const int16_t *words,
                     size_t stride, const uint8_t *line, bool is_high)
{
    __m256i quad[QUERIES];
    for (int i = 0; i < n; i++)
        quad[i] = broadcast_quad(words + (size_t)i * stride);
#pragma GCC unroll 4
    for (int part = 0; part < 4; part++) {
        __m256i b = quarter_words(type, is_signed, line + 16 * part, is_high);
#pragma GCC unroll 2
        for (int i = 0; i < n; i++)
            sums[i].part[part] = _mm256_add_epi32(sums[i].part[part], _mm256_madd_epi16(b, quad[i]));
    }
}

/* Lanes 0..7 where half is 0, else 8..15. */
INLINE __m256i whole_sums(const struct sums *s, int half)
{
    __m256i mixed = _mm256_hadd_epi32(s->part[2 * half], s->part[2 * half + 1]);
    return _mm256_permute4x64_epi64(mixed, 0xd8);
}

INLINE __m256 load_scales(const uint16_t *scales)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)scales));
}

/* The factor that makes integers up to `most` of numbers up to `largest`. */
static float inverse_of(float largest, float most)
{
    return largest >= FLT_MIN * most ? most / largest : 0;
}

/* --- queries --- */

static void quantise_query(struct tile *t, int query)
{
    const struct kv_layout *l = t->layout;
    const float *q = t->q + query * l->head_dim;
    int16_t *words = t->words + query * l->depth;
    __m256 largest = _mm256_setzero_ps(), strange = _mm256_setzero_ps();
    for (int d = 0; d < l->head_dim; d += 8) {
        __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), load_floats(q + d, l->head_dim - d));
        strange = _mm256_or_ps(strange, _mm256_cmp_ps(size, _mm256_set1_ps(FLT_MAX), _CMP_NLE_UQ));
        largest = _mm256_max_ps(largest, size);
    }
    bool is_strange = _mm256_movemask_ps(strange) != 0;
    float top = max_lanes(largest);
    __m256 inverse = _mm256_set1_ps(is_strange ? 0 : inverse_of(top, QUERY_MOST));
    t->q_scale[query] = is_strange ? NAN : top / QUERY_MOST;
    memset(t->q_sum + query * l->n_parts, 0, (size_t)l->n_parts * sizeof *t->q_sum);
    for (int d = 0; d < l->head_dim; d += 8) {
        __m256i i = _mm256_cvtps_epi32(_mm256_mul_ps(load_floats(q + d, l->head_dim - d), inverse));
        i = _mm256_and_si256(i, first_lanes(is_strange ? 0 : l->head_dim - d));
        __m128i eight = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
        __m128i sum = _mm_madd_epi16(eight, _mm_set1_epi16(1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        t->q_sum[query * l->n_parts + d / KV_PART] += _mm_cvtsi128_si32(sum);
        _mm_storeu_si128((void *)(words + d), eight);
    }
}

void quantise_queries_avx2(struct tile *t)
{
    for (int i = 0; i < t->n; i++)
        quantise_query(t, i);
}

/* n queries from q on, one group of positions. */
INLINE void scores_strip(enum kv_type type, int n, struct tile *t, const char *block, int q, int group)
{
    const struct kv_layout *l = t->layout;
    int n_parts = l->n_parts, quads = l->depth / 4, per_line = type == KV_Q4 ? 2 : 1;
    const uint16_t *scales = (const uint16_t *)(const void *)block + group * n_parts * KV_GROUP;
    const uint8_t *lines = (const uint8_t *)block + l->k + group * (quads / per_line) * 64;
    const int16_t *words = t->words + q * l->depth;
    __m256 score[QUERIES][2];
    for (int i = 0; i < n; i++)
        score[i][0] = score[i][1] = _mm256_setzero_ps();
    for (int part = 0; part < n_parts; part++) {
        int first = part * (KV_PART / 4), last = first + KV_PART / 4 < quads ? first + KV_PART / 4 : quads;
        const int32_t *q_sum = t->q_sum + q * n_parts + part;
        struct sums sums[QUERIES];
        memset(sums, 0, sizeof sums);
        for (int quad = first; quad < last; quad += per_line) {
            const uint8_t *line = lines + quad / per_line * 64;
            if (t->ahead)
                __builtin_prefetch(line + t->ahead);
            add_line(type, false, n, sums, words + 4 * quad, (size_t)l->depth, line, false);
            if (type == KV_Q4)
                add_line(type, false, n, sums, words + 4 * quad + 4, (size_t)l->depth, line, true);
        }
        for (int i = 0; i < n; i++) {
            int32_t moved = type == KV_Q4 ? 0 : -128 * q_sum[i * n_parts];
            for (int half = 0; half < 2; half++) {
                const uint16_t *scale = scales + part * KV_GROUP + 8 * half;
                __m256i sum = _mm256_add_epi32(whole_sums(&sums[i], half), _mm256_set1_epi32(moved));
                score[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), load_scales(scale), score[i][half]);
                if (type == KV_Q4)
                    score[i][half] =
                        _mm256_fmadd_ps(load_scales(scale + KV_BLOCK * n_parts),
                                        _mm256_set1_ps((float)q_sum[i * n_parts]), score[i][half]);
            }
        }
    }
    for (int i = 0; i < n; i++)
        for (int half = 0; half < 2; half++)
            _mm256_storeu_ps(t->score + (q + i) * KV_BLOCK + group * KV_GROUP + 8 * half,
                             _mm256_mul_ps(score[i][half], _mm256_set1_ps(t->q_scale[q + i])));
}

INLINE void scores_queries(enum kv_type type, int n, struct tile *t, const char *block, int q)
{
    int to = (t->to[q + n - 1] + KV_GROUP - 1) / KV_GROUP;
    for (int group = t->from[q] / KV_GROUP; group < to; group++)
        scores_strip(type, n, t, block, q, group);
}

INLINE void scores(enum kv_type type, struct tile *t, const char *block)
{
    int q = 0;
    for (; q + QUERIES <= t->n; q += QUERIES)
        scores_queries(type, QUERIES, t, block, q);
    if (q < t->n)
        scores_queries(type, 1, t, block, q);
}

/* --- values --- */

/* Weights of up to two queries as integers. */
struct weights {
    int16_t words[QUERIES][KV_BLOCK];
    float scale[QUERIES], least[QUERIES]; /* least: the weighted sum of the minima */
};

/* Weights with the scales of their values in them become integers of 0..WEIGHT_MOST. */
INLINE void quantise_weights(enum kv_type type, const struct tile *t, const uint16_t *scales, int query,
                             struct weights *w, int i)
{
    const float *weight = t->score + query * KV_BLOCK;
    float scaled[KV_BLOCK];
    __m256 least = _mm256_setzero_ps(), strange = _mm256_setzero_ps(), top8 = _mm256_setzero_ps();
    for (int p = 0; p < KV_BLOCK; p += 8) {
        __m256 seen = _mm256_castsi256_ps(seen_lanes(t, query, p)), each = _mm256_loadu_ps(weight + p);
        __m256 product = _mm256_and_ps(seen, _mm256_mul_ps(each, load_scales(scales + p)));
        strange = _mm256_or_ps(strange, _mm256_cmp_ps(product, product, _CMP_UNORD_Q));
        top8 = _mm256_max_ps(top8, product);
        _mm256_storeu_ps(scaled + p, product);
        if (type == KV_Q4)
            least = _mm256_fmadd_ps(each, _mm256_and_ps(seen, load_scales(scales + KV_BLOCK + p)), least);
    }
    float largest = max_lanes(top8);
    __m256 inverse = _mm256_set1_ps(inverse_of(largest, WEIGHT_MOST));
    w->scale[i] = _mm256_movemask_ps(strange)        ? NAN
                  : largest >= FLT_MIN * WEIGHT_MOST ? largest / WEIGHT_MOST
                                                     : 0;
    w->least[i] = sum_lanes(least);
    for (int p = 0; p < KV_BLOCK; p += 8) {
        __m256i word = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(scaled + p), inverse));
        _mm_storeu_si128((void *)(w->words[i] + p),
                         _mm_packs_epi32(_mm256_castsi256_si128(word), _mm256_extracti128_si256(word, 1)));
    }
}

/* n queries from q on, one vector of 16 elements. */
INLINE void values_strip(enum kv_type type, int n, struct tile *t, const char *block, const struct weights *w,
                         int q, int vector)
{
    const struct kv_layout *l = t->layout;
    int per_line = type == KV_Q4 ? 2 : 1;
    size_t quad_bytes = (size_t)(l->width / 16 / per_line) * 64;
    const uint8_t *line = (const uint8_t *)block + l->v + vector / per_line * 64;
    struct sums sums[QUERIES];
    memset(sums, 0, sizeof sums);
    /* Quads that none of the queries sees have weights of 0. */
    for (int quad = t->from[q] / 4; quad < (t->to[q + n - 1] + 3) / 4; quad++) {
        const uint8_t *here = line + (size_t)quad * quad_bytes;
        if (t->ahead)
            __builtin_prefetch(here + t->ahead);
        if (vector % per_line)
            add_line(type, false, n, sums, w->words[0] + 4 * quad, KV_BLOCK, here, true);
        else
            add_line(type, type == KV_Q8, n, sums, w->words[0] + 4 * quad, KV_BLOCK, here, false);
    }
    for (int i = 0; i < n; i++) {
        if (sees_nothing(t, q + i))
            continue;
        float *out = t->record + (size_t)(q + i) * record_floats(l) + 16 * vector;
        for (int half = 0; half < 2; half++) {
            __m256 sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole_sums(&sums[i], half)),
                                         _mm256_set1_ps(w->scale[i]), _mm256_set1_ps(w->least[i]));
            _mm256_storeu_ps(out + 8 * half, _mm256_add_ps(_mm256_loadu_ps(out + 8 * half), sum));
        }
    }
}

INLINE void values_queries(enum kv_type type, int n, struct tile *t, const char *block, int q)
{
    const uint16_t *scales = (const void *)(block + t->layout->v_scales);
    struct weights w;
    memset(&w, 0, sizeof w);
    for (int i = 0; i < n; i++)
        if (!sees_nothing(t, q + i))
            quantise_weights(type, t, scales, q + i, &w, i);
    for (int v = 0; v < t->layout->width / 16; v++)
        values_strip(type, n, t, block, &w, q, v);
}

INLINE void add_values(enum kv_type type, struct tile *t, const char *block)
{
    int q = 0;
    for (; q + QUERIES <= t->n; q += QUERIES)
        values_queries(type, QUERIES, t, block, q);
    if (q < t->n)
        values_queries(type, 1, t, block, q);
}

void scores_q8_avx2(struct tile *t, const char *block)
{
    scores(KV_Q8, t, block);
}

void scores_q4_avx2(struct tile *t, const char *block)
{
    scores(KV_Q4, t, block);
}

void add_values_q8_avx2(struct tile *t, const char *block)
{
    add_values(KV_Q8, t, block);
}

void add_values_q4_avx2(struct tile *t, const char *block)
{
    add_values(KV_Q4, t, block);
}

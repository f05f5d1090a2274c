/* Inside of attention: a tile of queries on its way through the blocks, and the jobs that each level does on
 * it. attention.c goes over chunks and blocks and says which positions each query sees. */
#ifndef WOOLLY_KERNELS_ATTENTION_TILE_H
#define WOOLLY_KERNELS_ATTENTION_TILE_H

#include "worker/kernels/attention.h"

/* 2^r = 1 + r (C1 + r (C2 + ...)) for |r| <= 1/2, off by at most 5.1e-9: interpolation of (2^r - 1) / r at
 * the Chebyshev nodes. Scores are kept in units of log 2, which goes into the queries. */
#define EXP2_C1     0.6931471880262287f
#define EXP2_C2     0.24022650760567846f
#define EXP2_C3     0.05550357114219158f
#define EXP2_C4     0.00961808255730196f
#define EXP2_C5     0.0013390863364625236f
#define EXP2_C6     0.00015453162939696504f
#define EXP2_LOWEST (-126.0f)

/* Most integers of queries and weights; the dot products split them into a high part and seven bits. */
#define QUERY_MOST  16383
#define WEIGHT_MOST 16383

enum { KV_GROUP = 16, KV_GROUPS = KV_BLOCK / KV_GROUP, KV_PART = 32 };

/* What is known of a query after some positions: out[width], the sum of weights 2^(score - reference), the
 * reference. The sum is in 16 lanes, added up at the end; out is the weighted sum of values. The reference is
 * the highest score but for REFERENCE_SLACK at most: it moves only when a score is higher by more, which is
 * seldom, and seen without looking for the highest. Weights stay below 2^REFERENCE_SLACK. */
#define REFERENCE_SLACK 8

static inline size_t record_floats(const struct kv_layout *l)
{
    return (size_t)l->width + 32;
}

static inline float *record_reference(const struct kv_layout *l, float *record)
{
    return record + l->width + 16;
}

struct tile {
    const struct kv_layout *layout;
    int n;          /* queries: rows in order, of each its heads */
    float soft_cap; /* in units of log 2 */
    /* What each query sees of the current block, positions from..to-1; nothing where to <= from. Neither ever
     * falls from a query to the next. */
    int from[ATTENTION_QUERIES], to[ATTENTION_QUERIES];
    /* From the current block to the next, if that is to be fetched ahead: every line read asks for the one as
     * far on. Measured, one thread, f16, 8 queries: 6.6 GB/s without, 9.7 in two bursts per block. */
    ptrdiff_t ahead;

    float *q;       /* [n][head_dim] times scale / log 2 */
    int16_t *words; /* [n][depth] q over q_scale, rounded; AVX-512 holds [2][n][depth] bytes here */
    float *q_scale; /* [n] */
    int32_t *q_sum; /* [n][n_parts] sums of words */

    float *score;  /* [n][KV_BLOCK] scores, then weights */
    float *record; /* [n][record_floats] of the current chunk */
    float *merged; /* [n][record_floats] of the chunks before */
    float *wide;   /* [KV_BLOCK][width or head_dim] keys or values of a block in f32 */
};

struct attention_kernels {
    /* For q8 and q4, from t->q: words, q_scale, q_sum. */
    void (*quantise)(struct tile *t);

    /* Scores of every position that a query sees; others may be anything. */
    void (*scores[KV_TYPES])(struct tile *t, const char *block);

    /* Caps scores if asked to; makes weights of them, 0 where a query does not see; moves the record to a new
     * reference if need be and adds to its sum. */
    void (*weigh)(struct tile *t);

    /* Adds weights times values to the record. */
    void (*add_values[KV_TYPES])(struct tile *t, const char *block);

    /* Adds the record `from` to `into`, which may be empty: 0, its reference minus infinity. */
    void (*merge)(const struct kv_layout *l, float *into, const float *from);

    /* out[head_dim] = what the record says */
    void (*finish)(const struct kv_layout *l, float *out, const float *record);
};

static inline bool sees_nothing(const struct tile *t, int query)
{
    return t->to[query] <= t->from[query];
}

/* out[i][16 v...] += sum of a[i][k] b[k][v] for first <= k < last, one k after the other; b is vectors of 16
 * numbers of the cache. Rows of `a` and `out` are queries. */
struct product {
    float *out;
    size_t out_stride;
    const float *a;
    size_t a_stride;
    const void *b;
    size_t k_stride, v_stride; /* numbers from k to k + 1 and from vector to vector */
    int n_v, first, last;
    ptrdiff_t ahead; /* of what is read, to prefetch */
};

/* What a level has for a cache of floats; attention_products.c makes scores and values of it. */
struct float_level {
    int queries; /* most of a product */
    void (*multiply[KV_TYPES])(int n, const struct product *p);
    void (*widen[KV_TYPES])(float *out, const void *from, size_t n, ptrdiff_t ahead); /* n in whole 16 */
};

void scores_by_products(const struct float_level *level, struct tile *t, const char *block);
void add_values_by_products(const struct float_level *level, struct tile *t, const char *block);

#endif

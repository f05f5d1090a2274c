/* Inside of attention with AVX2: the jobs of a cache of integers, in attention_integers_avx2.c. */
#ifndef WOOLLY_KERNELS_ATTENTION_AVX2_H
#define WOOLLY_KERNELS_ATTENTION_AVX2_H

#include "worker/kernels/attention_tile.h"
#include "worker/kernels/avx2.h"
#include "worker/kernels/levels.h"

/* All ones in those of eight positions from `first` on that a query sees. */
INLINE __m256i seen_lanes(const struct tile *t, int query, int first)
{
    return _mm256_andnot_si256(first_lanes(t->from[query] - first), first_lanes(t->to[query] - first));
}

void quantise_queries_avx2(struct tile *t);
void scores_q8_avx2(struct tile *t, const char *block);
void scores_q4_avx2(struct tile *t, const char *block);
void add_values_q8_avx2(struct tile *t, const char *block);
void add_values_q4_avx2(struct tile *t, const char *block);

#endif

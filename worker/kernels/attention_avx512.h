/* Inside of attention with AVX-512: the jobs of a cache of integers, in attention_integers_avx512.c. */
#ifndef WOOLLY_KERNELS_ATTENTION_AVX512_H
#define WOOLLY_KERNELS_ATTENTION_AVX512_H

#include "worker/kernels/attention_tile.h"
#include "worker/kernels/avx512.h"
#include "worker/kernels/levels.h"

/* A bit for each position of the block that a query sees; it sees at least one. */
INLINE uint64_t seen_mask(const struct tile *t, int query)
{
    return UINT64_MAX >> (KV_BLOCK - t->to[query]) & UINT64_MAX << t->from[query];
}

void quantise_queries_avx512(struct tile *t);
void scores_q8_avx512(struct tile *t, const char *block);
void scores_q4_avx512(struct tile *t, const char *block);
void add_values_q8_avx512(struct tile *t, const char *block);
void add_values_q4_avx512(struct tile *t, const char *block);

#endif

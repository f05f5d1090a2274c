/* Attention over caches of one type as woolly-bench-kernels runs it: so many sequences that a pass reads keys
 * and values no cache of the CPU still holds. One thread calls it; attention_pass uses all threads of the
 * pool. */
#ifndef WOOLLY_TOOLS_BENCH_ATTENTION_H
#define WOOLLY_TOOLS_BENCH_ATTENTION_H

#include <stddef.h>

#include "worker/kernels/kernels.h"
#include "worker/model/pool.h"

/* The shape: query heads that share a KV head, and their elements, as TinyLlama has them. */
enum {
    ATTENTION_HEADS = 8,
    ATTENTION_HEAD_DIM = 64,
    ATTENTION_MAX_ROWS = ATTENTION_QUERIES / ATTENTION_HEADS
};

struct attention_bench {
    const struct kernels *kernels;
    struct kv_layout layout;
    const char *blocks; /* [n_blocks][layout.bytes], not ours */
    size_t n_blocks;
    int32_t *table;       /* [n_blocks] 0, 1, 2, ... */
    float *q;             /* [ATTENTION_MAX_ROWS][ATTENTION_HEADS][ATTENTION_HEAD_DIM] */
    float *out;           /* of each thread, as q */
    char *scratch;        /* of each thread */
    size_t scratch_bytes; /* of one */
    int n_rows, depth;    /* as set */
    size_t n_units;       /* one KV head of a sequence each */
};

/* Fills `memory`, 64-byte aligned and room for `bytes`, with a random cache. */
void attention_init(struct attention_bench *a, const struct kernels *k, enum kv_type type, char *memory,
                    size_t bytes, int n_threads);
void attention_fini(struct attention_bench *a);

/* For the passes that follow: rows, at most ATTENTION_MAX_ROWS, the last of which sees `depth` positions. */
void attention_set(struct attention_bench *a, int n_rows, int depth);

/* Of a pass. */
double attention_bytes(const struct attention_bench *a);
double attention_ops(const struct attention_bench *a);

void attention_pass(struct attention_bench *a, struct pool *pool);

#endif

#include "worker/tools/bench_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/tools/bench_run.h"

enum { ROW = ATTENTION_HEADS * ATTENTION_HEAD_DIM, TILE = ATTENTION_MAX_ROWS * ROW };

/* One block is drawn, the others repeat it: what the numbers are costs nothing. */
static void fill_blocks(struct attention_bench *a, char *memory)
{
    float key[ATTENTION_HEAD_DIM], value[ATTENTION_HEAD_DIM];
    uint64_t random = 1;
    memset(memory, 0, a->layout.bytes);
    for (int pos = 0; pos < KV_BLOCK; pos++) {
        for (int i = 0; i < ATTENTION_HEAD_DIM; i++) {
            key[i] = bench_random(&random);
            value[i] = bench_random(&random);
        }
        kv_store(a->kernels, &a->layout, memory, pos, key, value);
    }
    for (size_t i = 1; i < a->n_blocks; i++)
        memcpy(memory + i * a->layout.bytes, memory, a->layout.bytes);
}

void attention_init(struct attention_bench *a, const struct kernels *k, enum kv_type type, char *memory,
                    size_t bytes, int n_threads)
{
    uint64_t random = 2;
    *a = (struct attention_bench){ .kernels = k,
                                   .layout = kv_layout(type, ATTENTION_HEAD_DIM),
                                   .blocks = memory };
    a->n_blocks = bytes / a->layout.bytes;
    fill_blocks(a, memory);
    a->table = xcalloc(a->n_blocks, sizeof *a->table);
    for (size_t i = 0; i < a->n_blocks; i++)
        a->table[i] = (int32_t)i;
    a->q = xcalloc(TILE, sizeof *a->q);
    for (int i = 0; i < TILE; i++)
        a->q[i] = bench_random(&random);
    a->out = xcalloc((size_t)n_threads * TILE, sizeof *a->out);
    a->scratch_bytes = (attention_scratch_bytes(&a->layout) + 63) / 64 * 64;
    a->scratch = aligned_alloc(64, (size_t)n_threads * a->scratch_bytes);
    if (!a->scratch)
        abort();
    attention_set(a, 1, KV_BLOCK);
}

void attention_fini(struct attention_bench *a)
{
    free(a->table);
    free(a->q);
    free(a->out);
    free(a->scratch);
}

static size_t blocks_per_unit(const struct attention_bench *a)
{
    return ((size_t)a->depth + KV_BLOCK - 1) / KV_BLOCK;
}

void attention_set(struct attention_bench *a, int n_rows, int depth)
{
    a->n_rows = n_rows;
    a->depth = depth;
    a->n_units = a->n_blocks / blocks_per_unit(a);
}

double attention_bytes(const struct attention_bench *a)
{
    return (double)(a->n_units * blocks_per_unit(a) * a->layout.bytes);
}

/* Of scores and of the sum of values, a multiply-add for every element, position and query. Positions that
 * the earlier rows do not see are few. */
double attention_ops(const struct attention_bench *a)
{
    return 4.0 * ATTENTION_HEAD_DIM * ATTENTION_HEADS * a->n_rows * a->depth * (double)a->n_units;
}

static void run_share(void *arg, int thread, int n_threads)
{
    const struct attention_bench *a = arg;
    int64_t first, last;
    pool_share((int64_t)a->n_units, 1, thread, n_threads, &first, &last);
    for (int64_t unit = first; unit < last; unit++)
        attention_compute(a->kernels, &(struct attention){
                                          .layout = &a->layout,
                                          .memory = a->blocks,
                                          .page_bytes = a->layout.bytes,
                                          .table = a->table + (size_t)unit * blocks_per_unit(a),
                                          .n_rows = a->n_rows,
                                          .n_heads = ATTENTION_HEADS,
                                          .pos = a->depth - a->n_rows,
                                          .window = INT32_MAX,
                                          .scale = 1 / sqrtf(ATTENTION_HEAD_DIM),
                                          .q = a->q,
                                          .out = a->out + (size_t)thread * TILE,
                                          .stride = ROW,
                                          .scratch = a->scratch + (size_t)thread * a->scratch_bytes,
                                      });
}

void attention_pass(struct attention_bench *a, struct pool *pool)
{
    pool_run(pool, run_share, a);
}

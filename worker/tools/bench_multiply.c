#include "worker/tools/bench_multiply.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/kernels/quantise.h"
#include "worker/tools/bench_run.h"

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(64, bytes);
    if (!p)
        abort();
    return p;
}

/* A few rows are drawn and quantised, the others repeat them: what the numbers are costs nothing. */
static void fill_matrix(char *packed, enum weight_type type)
{
    size_t row_bytes = weight_row_bytes(type, MULTIPLY_IN),
           group_bytes = packed_group_size(type, MULTIPLY_IN);
    char *rows = xmalloc(PACK_ROWS * row_bytes);
    float *x = xmalloc(MULTIPLY_IN * sizeof *x);
    uint64_t random = 1;
    for (int row = 0; row < PACK_ROWS; row++) {
        for (int i = 0; i < MULTIPLY_IN; i++)
            x[i] = bench_random(&random);
        weight_quantiser(type)(rows + (size_t)row * row_bytes, x, MULTIPLY_IN);
    }
    pack_rows(packed, type, rows, MULTIPLY_IN, 0, PACK_ROWS);
    for (size_t group = 1; group < MULTIPLY_OUT / PACK_ROWS; group++)
        memcpy(packed + group * group_bytes, packed, group_bytes);
    free(x);
    free(rows);
}

bool multiply_knows(enum weight_type type)
{
    return weight_info(type) && packed_size(type, MULTIPLY_OUT, MULTIPLY_IN) && weight_quantiser(type);
}

void multiply_init(struct multiply *m, const struct kernels *k, enum weight_type type, char *memory,
                   size_t bytes)
{
    const size_t n = (size_t)MULTIPLY_MAX_ROWS * MULTIPLY_IN;
    size_t matrix_bytes = packed_size(type, MULTIPLY_OUT, MULTIPLY_IN);
    uint64_t random = 2;
    *m = (struct multiply){
        .kernels = k,
        .type = type,
        .weights = memory,
        .matrix_bytes = matrix_bytes,
        .n_matrices = (int)(bytes / matrix_bytes),
        .x = aligned(n * sizeof(float)),
        .blocks = aligned(n / PACK_K * sizeof(struct activation_block)),
        .out = aligned((size_t)MULTIPLY_MAX_ROWS * MULTIPLY_OUT * sizeof(float)),
    };
    fill_matrix(memory, type);
    for (int i = 1; i < m->n_matrices; i++)
        memcpy(memory + (size_t)i * matrix_bytes, memory, matrix_bytes);
    for (size_t i = 0; i < n; i++)
        m->x[i] = bench_random(&random);
    multiply_set_rows(m, 1);
}

void multiply_fini(struct multiply *m)
{
    free(m->x);
    free(m->blocks);
    free(m->out);
}

void multiply_set_rows(struct multiply *m, int n_rows)
{
    m->in = (struct activations){
        .n_rows = n_rows,
        .n = MULTIPLY_IN,
        .stride = MULTIPLY_IN,
        .x = m->x,
        .planes = 1,
        .block_stride = (size_t)n_rows,
        .blocks = m->blocks,
    };
    for (int row = 0; row < n_rows && packed_wants_blocks(m->type); row++)
        packed_quantise(m->kernels->packed, m->blocks + row, (size_t)n_rows, 1,
                        m->x + (size_t)row * MULTIPLY_IN, MULTIPLY_IN);
}

static void run_share(void *arg, int thread, int n_threads)
{
    const struct multiply *m = arg;
    int64_t first, last;
    pool_share(MULTIPLY_OUT, PACK_ROWS, thread, n_threads, &first, &last);
    if (first < last)
        packed_multiply(m->kernels->packed, m->type, m->out, MULTIPLY_OUT,
                        m->weights + (size_t)m->next * m->matrix_bytes, (int)first, (int)last, &m->in);
}

void multiply_pass(struct multiply *m, struct pool *pool)
{
    pool_run(pool, run_share, m);
    m->next = (m->next + 1) % m->n_matrices;
}

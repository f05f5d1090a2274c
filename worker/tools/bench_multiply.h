/* The products of one weight type as woolly-bench-kernels runs them: many packed matrices of one shape, so
 * that each pass reads weights no cache still holds, and rows of activations already quantised. One thread
 * calls it; multiply_pass uses all threads of the pool. */
#ifndef WOOLLY_TOOLS_BENCH_MULTIPLY_H
#define WOOLLY_TOOLS_BENCH_MULTIPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/kernels/kernels.h"
#include "worker/model/pool.h"

/* The shape: that of TinyLlama's widest matrices. */
enum { MULTIPLY_IN = 2048, MULTIPLY_OUT = 5632, MULTIPLY_MAX_ROWS = 512 };

struct multiply {
    const struct kernels *kernels;
    enum weight_type type;
    const char *weights; /* [n_matrices][matrix_bytes], not ours */
    size_t matrix_bytes;
    int n_matrices, next;
    float *x;                        /* [MULTIPLY_MAX_ROWS][MULTIPLY_IN] */
    struct activation_block *blocks; /* of x, as many rows as set */
    struct activations in;
    float *out; /* [MULTIPLY_MAX_ROWS][MULTIPLY_OUT] */
};

/* Whether the type has products and a way to make weights. */
bool multiply_knows(enum weight_type type);

/* Fills `memory`, 64-byte aligned and with room for one matrix at least, with random weights. */
void multiply_init(struct multiply *m, const struct kernels *k, enum weight_type type, char *memory,
                   size_t bytes);
void multiply_fini(struct multiply *m);

/* Quantises so many rows of activations, at most MULTIPLY_MAX_ROWS, for the passes that follow. */
void multiply_set_rows(struct multiply *m, int n_rows);

/* The next matrix times those rows. */
void multiply_pass(struct multiply *m, struct pool *pool);

#endif

/* Inside of kernels: what each job and instruction set puts into the table, and what they share. */
#ifndef WOOLLY_KERNELS_LEVELS_H
#define WOOLLY_KERNELS_LEVELS_H

#include "worker/kernels/blocks.h"
#include "worker/kernels/kernels.h"

void products_init_scalar(struct kernels *k);
void products_init_avx2(struct kernels *k);
void products_init_avx512(struct kernels *k);
void rows_init_scalar(struct kernels *k);
void rows_init_avx2(struct kernels *k);
void rows_init_avx512(struct kernels *k);
void attention_init_scalar(struct kernels *k);
void attention_init_avx2(struct kernels *k);
void attention_init_avx512(struct kernels *k);

/* Positions per block of attention. A guess: long enough to spread the cost of rescaling, short enough for
 * the scores of eight heads to stay in L1. */
enum { ATTENTION_BLOCK = 32 };

/* Where the blocks begin: those wholly before the window are skipped. */
static inline int attention_start(const struct attention *a)
{
    return a->first_pos / ATTENTION_BLOCK * ATTENTION_BLOCK;
}

/* The numbers of GELU's tanh formula: sqrt(2 / pi), and the weight of the cube. */
#define GELU_SCALE 0.797884560802865356f
#define GELU_CUBE  0.044715f

/* Query heads an attention kernel takes in one pass over the cache. */
enum { ATTENTION_HEADS = 8 };

/* A tile is some weight rows times some activation rows, computed in registers. `out` points at the tile's
 * first element, `weights` at its first row, `first_row` is its first activation row. */
typedef void tile_fn(float *out, size_t out_stride, const char *weights, size_t row_bytes,
                     const struct activations *a, int first_row);

enum { TILE_MAX_ROWS = 4 };

struct tile_set {
    enum weight_type type;
    int wide;                       /* weight rows of the wide tiles */
    int max_rows;                   /* activation rows a tile takes at most, up to TILE_MAX_ROWS */
    tile_fn *narrow[TILE_MAX_ROWS]; /* one weight row times 1, 2, ... activation rows */
    tile_fn *wider[TILE_MAX_ROWS];  /* `wide` weight rows times 1, 2, ... */
};

/* How many bytes ahead of a weight to prefetch when one activation row makes memory the bound: the same place
 * of the next tile, so that the beginnings of its rows are there too, but at least 8 KB (SmolLM2-135M shapes,
 * Q8_0, rows of 612 bytes, one thread: 115 tok/s with 2.4 KB, 184 with 8). Past the end of the weights a
 * prefetch does nothing. */
static inline size_t prefetch_distance(size_t row_bytes)
{
    return row_bytes > 2048 ? 4 * row_bytes : 8192;
}

/* Covers the product with tiles. */
void tiles_multiply(const struct tile_set *t, float *out, size_t out_stride, const void *weights, int first,
                    int last, const struct activations *a);

#endif

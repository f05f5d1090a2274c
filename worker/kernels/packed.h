/* Weights as the products read them: repacked once at load, the same bytes per weight as in the file.
 *
 * A matrix is cut into groups of 32 rows (outputs), a group into super-blocks of 256 elements of k (the last
 * may be shorter), and a super-block holds the scales of its 32 rows first and then their quants as lines. A
 * line is 64 bytes: four consecutive elements of k for each of sixteen rows, one row per 32-bit lane. So one
 * vector load feeds one dot-product instruction for sixteen outputs, no sum is ever reduced across lanes, and
 * a group is read from memory front to back. Quants of less than eight bits share lines: nibbles of two
 * neighbouring blocks of 32, or planes of one or two bits. Every instruction set reads the same layout.
 *
 * Activations are quantised to 8 bits: one float scale per super-block, and per block of 32 a level, the step
 * of its quants in eighths of the largest one. Scales of weights times a level are exact in f32, sums of a
 * block are exact in int32; so every instruction set does the same roundings in the same order and all give
 * the same bits.
 *
 *     out = sum over super-blocks of  scale * part
 *     part = sum over blocks, in order, of  (level * weight scale) * (integer dot product)
 *
 * Both sums are chains of fused multiply-adds. What a product gives for a row of activations depends on
 * nothing but that row. */
#ifndef WOOLLY_KERNELS_PACKED_H
#define WOOLLY_KERNELS_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/kernels/weight.h"

enum {
    PACK_LAYOUT = 1, /* one more with any change of what packing gives: packed weights are kept in files */
    PACK_ROWS = 32,  /* rows of a group */
    PACK_K = 256,    /* elements of a super-block */
    PACK_BLOCK = 32, /* elements that share a level */
    PACK_BLOCKS = PACK_K / PACK_BLOCK,
    PACK_LEVELS = 8
};

/* One super-block of one row of activations: x is about scale * level * q. With infinity or NaN among the
 * elements the scale is NaN; elements past the end of the row are 0. */
struct activation_block {
    int8_t q[PACK_K];
    float level[PACK_BLOCKS];          /* 1 to PACK_LEVELS */
    float level_sum[PACK_BLOCKS];      /* level * sum of q, of each 32 */
    int16_t level_sums[PACK_BLOCKS];   /* the same */
    int16_t level_sums16[PACK_K / 16]; /* level * sum of q, of each 16 */
    int16_t sums[PACK_BLOCKS];         /* sum of q, of each 32 */
    int16_t sums16[PACK_K / 16];       /* of each 16 */
    float scale;
    uint8_t step[PACK_BLOCKS]; /* level - 1 */
    uint8_t pad[20];
};

_Static_assert(sizeof(struct activation_block) == 448, "whole cache lines");

/* Rows of activations: x for products with float weights, blocks for those with quantised ones.
 *
 * A row has one or two planes. The second plane of a row is what the first one's rounding left over,
 * quantised again: with it activations have about 16 bits. To a product the planes are rows like others,
 * whose results it adds. */
struct activations {
    int n_rows;
    int n;                                 /* elements per row */
    size_t stride;                         /* floats from row to row of x */
    const float *x;                        /* [n_rows][stride] */
    int planes;                            /* 1 or 2 */
    size_t block_stride;                   /* from super-block to super-block, at least n_rows * planes */
    const struct activation_block *blocks; /* [super-blocks of n][block_stride]: rows, each with its planes */
};

struct packed_level;

/* out[r * out_stride + i] = weight row i times activation row r, for every r and first <= i < last. first is
 * a multiple of PACK_ROWS, last too or the number of weight rows. */
void packed_multiply(const struct packed_level *level, enum weight_type type, float *out, size_t out_stride,
                     const void *packed, int first, int last, const struct activations *a);

/* Takes what a product gives, up to PACK_ROWS outputs of all rows at a time, while that is still in the
 * cache: outputs i..i+width-1 of rows first_row..first_row+n_rows-1, in `values`, which may be changed. */
typedef void packed_sink(void *arg, float (*values)[PACK_ROWS], int first_row, int n_rows, int i, int width);

/* As packed_multiply, of which nothing is stored. */
void packed_multiply_to(packed_sink *sink, void *arg, const struct packed_level *level, enum weight_type type,
                        const void *packed, int first, int last, const struct activations *a);

/* The planes of one row of n elements: plane p of super-block s at out[s * stride + p]. */
void packed_quantise(const struct packed_level *level, struct activation_block *out, size_t stride,
                     int planes, const float *x, int n);

/* Whether products with the type read `blocks`; else they read x. */
bool packed_wants_blocks(enum weight_type type);

/* Super-blocks of a row of n elements. */
static inline int packed_super_blocks(int n)
{
    return (n + PACK_K - 1) / PACK_K;
}

/* Bytes of a packed matrix, and of each of its groups. n is a multiple of the type's block_len. 0 for a type
 * that has no packed form: those of weight_info without numbers of our own (integers, IQ1 to IQ3). */
uint64_t packed_size(enum weight_type type, int n_rows, int n);
size_t packed_group_size(enum weight_type type, int n);

/* Packs rows first..last-1 of a matrix of n_rows rows of n elements, which lie at `rows` as in the file, into
 * `packed` (64-byte aligned). first is a multiple of PACK_ROWS, last too or n_rows. Threads may pack
 * different rows at the same time. */
void pack_rows(void *packed, enum weight_type type, const void *rows, int n, int first, int last);

#endif

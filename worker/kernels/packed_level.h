/* Inside of kernels: what an instruction set brings to the packed products, and the form in which they meet.
 *
 * The scales of a super-block are first expanded to f32. With few rows of activations the tiles unpack quants
 * as they read them; with many the quants too are expanded first, to a byte each, and stay in the first-level
 * cache while tile after tile passes. */
#ifndef WOOLLY_KERNELS_PACKED_LEVEL_H
#define WOOLLY_KERNELS_PACKED_LEVEL_H

#include "worker/kernels/packed_layout.h"

/* How a block's minimum counts: not; a float per 32; integers of 16 bits per 32 or per 16 in units of
 * neg_base, in pairs. Quants of blocks with minima have no offset. */
enum min_kind { MIN_NONE, MIN_FLOAT, MIN_PAIRS_32, MIN_PAIRS_16 };

struct expanded {
    float scale[PACK_K / 16][PACK_ROWS];      /* per 32 or per 16 */
    float minimum[PACK_BLOCKS][PACK_ROWS];    /* MIN_FLOAT: added times the level's sum */
    int16_t pairs[PACK_BLOCKS][PACK_ROWS][2]; /* MIN_PAIRS: minima of blocks 2p and 2p + 1 */
    float neg_base[PACK_ROWS];
    /* Scale times each level, when many rows come. The levels of a scale lie together: rows use any of them,
     * and 2 KB apart they cost the tiles of scales per 16 a tenth of their speed. */
    float levelled[PACK_K / 16][PACK_LEVELS][PACK_ROWS];
    uint8_t buffer[PACK_K / 4][GROUP_LINE]; /* quants of a byte each, as LINES_8 */
} __attribute__((aligned(64)));

/* What a tile is about, beyond its expanded scales. */
struct tile_facts {
    const uint8_t *lines; /* planes first, as they lie in the weights; or e.buffer */
    enum line_kind kind;  /* of the weights' lines, also where `lines` is e.buffer: it bounds the quants */
    const uint8_t *table; /* of LINES_TABLE */
    int blocks;           /* of 32 */
    int offset;           /* of quants */
    int n_prefetch;       /* lines to ask for with each half of a block, from `prefetch` on */
    const uint8_t *prefetch;
};

/* Adds a super-block's products with a few neighbouring rows of activations to their totals. */
typedef void packed_tile(float (*totals)[PACK_ROWS], const struct expanded *e, const struct tile_facts *t,
                         const struct activation_block *rows);

/* The same for float weights: n elements of k from `weights` on, and of rows x_stride apart. */
typedef void packed_float_tile(float (*totals)[PACK_ROWS], const void *weights, int n, const float *x,
                               size_t x_stride);

enum { PACKED_MAX_TILE = 6 };

enum tile_kind { PER_32, PER_32_FLOATS, PER_32_PAIRS, PER_16, PER_16_PAIRS, PACKED_KINDS };

/* Kinds of tiles by (scales per 16, minima); see packed_kind in packed.c. Where a level has no tiles for a
 * kind of lines they are expanded to LINES_8. */
struct packed_level {
    void (*quantise)(struct activation_block *out, size_t stride, int planes, const float *x, int n);
    int max_tile; /* rows of the largest tile, up to PACKED_MAX_TILE */
    void (*expand_lines)(struct expanded *e, const struct pack_format *f, int blocks, const uint8_t *planes);
    void (*expand_scales)(struct expanded *e, enum scale_kind kind, int blocks, const uint8_t *scales);
    void (*expand_levels)(struct expanded *e, int n_scales);
    packed_tile *tiles[LINE_KINDS][PACKED_KINDS][PACKED_MAX_TILE];
    packed_tile *levelled_tiles[PACKED_KINDS][PACKED_MAX_TILE]; /* read `levelled` */
    packed_float_tile *f32_tiles[PACKED_MAX_TILE], *f16_tiles[PACKED_MAX_TILE], *bf16_tiles[PACKED_MAX_TILE];
};

extern const struct packed_level packed_level_scalar;
extern const struct packed_level packed_level_avx2;
extern const struct packed_level packed_level_avxvnni;
extern const struct packed_level packed_level_avx512;
extern const struct packed_level packed_level_neon;
extern const struct packed_level packed_level_neon_i8mm;

/* X(name, scales per 16, minima) of the kinds, in the order of the tables. */
#define PACKED_TILE_KINDS(X)                                                                                 \
    X(per_32, false, MIN_NONE)                                                                               \
    X(per_32_floats, false, MIN_FLOAT)                                                                       \
    X(per_32_pairs, false, MIN_PAIRS_32)                                                                     \
    X(per_16, true, MIN_NONE)                                                                                \
    X(per_16_pairs, true, MIN_PAIRS_16)

#endif

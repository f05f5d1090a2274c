/* Inside of kernels: where things lie in a super-block of packed weights.
 *
 *     scales    as scale_kind says
 *     planes    the high bits of quants of 3, 5 and 6 bits
 *     lines     their low bits, or all
 *
 * Sections are multiples of 64 bytes and of two vectors: rows 0-15 first, then rows 16-31. With b the block
 * of 32 elements, i = 0..7 the place of four elements in it, v the vector:
 *
 *     8 bits    line (8b + i, v)
 *     4 bits    line (8p + i, v) has block 2p in its low nibbles and block 2p + 1 in its high ones
 *     2 bits    line (2b + i / 4, v) has place i in bits 2 (i % 4) up
 *     1 bit     line (b, v) has place i in bit i
 *
 * Quants of 5 bits are 4 and 1, those of 6 bits 4 and 2, those of 3 bits 2 and 1. All are unsigned; a weight
 * is its scale times (quant - offset), or times the table's entry for it. */
#ifndef WOOLLY_KERNELS_PACKED_LAYOUT_H
#define WOOLLY_KERNELS_PACKED_LAYOUT_H

#include "worker/kernels/packed.h"

enum line_kind {
    LINES_NONE,
    LINES_8,
    LINES_6,
    LINES_5,
    LINES_4,
    LINES_TABLE, /* as LINES_4, nibbles being places in a table of quants */
    LINES_3,
    LINES_2,
    LINES_FLOAT,
    LINE_KINDS
};

/* Scales of n blocks of 32 rows. "Six" fields are six bits wide, sixteen of them in three dwords of a row:
 * see six_fields in packed_scalar.c. */
enum scale_kind {
    SCALES_HALF,       /* per 32: f16                      [n][32] */
    SCALES_HALF_MIN,   /* per 32: f16 scale, f16 minimum   [n][2][32] */
    SCALES_BF16,       /* per 32: bf16                     [n][32] */
    SCALES_WHOLE,      /* per 256: f32                     [32] */
    SCALES_SIX_MIN,    /* per 32: six bits; a six-bit minimum   dword[2][3][16], f16 scale[32], base[32] */
    SCALES_SIX_32,     /* per 32: six bits - 32                 dword[2][2][16], f16 scale[32] */
    SCALES_SIX_16,     /* per 16: six bits - 32                 dword[2][3][16], f16 scale[32] */
    SCALES_BYTE_16,    /* per 16: int8                          dword[2][4][16], f16 scale[32] */
    SCALES_NIBBLE_MIN, /* per 16: four bits; a four-bit minimum dword[2][4][16], f16 scale[32], base[32] */
};

struct pack_format {
    enum line_kind lines;
    enum scale_kind scales;
    int offset;           /* of the quants */
    const uint8_t *table; /* [16] of LINES_TABLE */
};

/* lines is LINES_NONE for a type without a packed form. */
const struct pack_format *pack_format(enum weight_type type);

static inline bool has_scales_per_16(enum scale_kind kind)
{
    return kind == SCALES_SIX_16 || kind == SCALES_BYTE_16 || kind == SCALES_NIBBLE_MIN;
}

/* Activations are at most QUANT_MOST steps. Super-blocks whose largest is so small that a step would not be a
 * normal number become 0. */
#define QUANT_MOST       127.0f
#define SMALLEST_LARGEST 0x1p-110f

/* Tops of the levels that are tried, and a number that all their squares divide. */
enum { LOWEST_TOP = 5, TOP_SQUARES = 25 * 36 * 49 * 16 };

enum { LINE = 64, GROUP_LINE = 2 * LINE };

static inline size_t scales_size(enum scale_kind kind, int blocks)
{
    switch (kind) {
    case SCALES_HALF:
    case SCALES_BF16:
        return (size_t)blocks * 64;
    case SCALES_HALF_MIN:
    case SCALES_WHOLE:
        return kind == SCALES_WHOLE ? 128 : (size_t)blocks * 128;
    case SCALES_SIX_MIN:
        return 6 * 64 + 128;
    case SCALES_SIX_32:
        return 4 * 64 + 64;
    case SCALES_SIX_16:
        return 6 * 64 + 64;
    case SCALES_BYTE_16:
        return 8 * 64 + 64;
    case SCALES_NIBBLE_MIN:
        return 8 * 64 + 128;
    }
    return 0;
}

/* Bytes of the planes, which come before the lines. */
static inline size_t planes_size(enum line_kind kind, int blocks)
{
    switch (kind) {
    case LINES_6:
        return (size_t)blocks * 2 * GROUP_LINE;
    case LINES_5:
    case LINES_3:
        return (size_t)blocks * GROUP_LINE;
    default:
        return 0;
    }
}

static inline size_t lines_size(enum line_kind kind, int blocks)
{
    switch (kind) {
    case LINES_8:
        return (size_t)blocks * 8 * GROUP_LINE;
    case LINES_6:
    case LINES_5:
    case LINES_4:
    case LINES_TABLE:
        return (size_t)(blocks + 1) / 2 * 8 * GROUP_LINE;
    case LINES_3:
    case LINES_2:
        return (size_t)blocks * 2 * GROUP_LINE;
    default:
        return 0;
    }
}

static inline size_t super_block_size(const struct pack_format *f, int blocks)
{
    return scales_size(f->scales, blocks) + planes_size(f->lines, blocks) + lines_size(f->lines, blocks);
}

/* Blocks of 32 in super-block s of a row of n elements. */
static inline int blocks_in(int n, int s)
{
    int left = n - s * PACK_K;
    return (left < PACK_K ? left : PACK_K) / PACK_BLOCK;
}

#endif

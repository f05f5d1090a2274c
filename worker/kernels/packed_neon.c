/* Packed products with the dot products of NEON: the four activations of a place are a lane of a vector. */
#define PACKED_LEVEL packed_level_neon

#include "worker/kernels/packed_neon.h"

INLINE void add_products(int rows, int vectors, enum line_kind lines, bool is_arranged,
                         int32x4_t (*dot)[LARGEST_TILE], const struct tile_facts *t, const uint8_t *base,
                         const struct activation_block *a, struct places p, int v)
{
    add_dot_products(rows, vectors, lines, is_arranged, dot, t, base, a, p, v);
}

INLINE void arrange(int8x16_t *first, int8x16_t *second)
{
    (void)first;
    (void)second;
}

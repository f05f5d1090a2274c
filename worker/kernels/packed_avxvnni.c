/* Packed products with AVX2 and the dot products of AVX-VNNI. */
#define PACKED_LEVEL packed_level_avxvnni
#define TWO_UP_TO    3
#define LARGEST_TILE 3
#define SATURATES    false

#include "worker/kernels/packed_avx2.h"

INLINE __m256i add_pairs(__m256i sum, __m256i x, __m256i y)
{
    return _mm256_dpwssd_avx_epi32(sum, x, y);
}

INLINE void add_products(int rows, int vectors, int depth, enum line_kind lines,
                         __m256i (*dot)[PACKED_MAX_TILE], const struct tile_facts *t, const uint8_t *base,
                         const struct activation_block *a, struct places p, int v)
{
    (void)depth;
#pragma GCC unroll 8
    for (int i = p.first; i < p.first + p.n; i++) {
        __m256i w[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            w[j] = load_quants(lines, t, base, p, i, v + j);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256i x = broadcast(a[r].q + PACK_BLOCK * p.b + 4 * i);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                dot[j][r] = _mm256_dpbusd_avx_epi32(dot[j][r], w[j], x);
        }
    }
}

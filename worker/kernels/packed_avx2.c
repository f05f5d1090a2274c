/* Packed products with AVX2: bytes are multiplied and added in pairs to 16 bits, and as many of those summed
 * as fit before they are widened. */
#define PACKED_LEVEL packed_level_avx2
#define TWO_UP_TO    2
#define LARGEST_TILE 4
#define SATURATES    true

#include "worker/kernels/packed_avx2.h"

INLINE __m256i add_pairs(__m256i sum, __m256i x, __m256i y)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
}

/* Signed weights lend their sign to the activations. */
INLINE __m256i multiply(bool is_signed, __m256i w, __m256i x)
{
    return is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                     : _mm256_maddubs_epi16(w, x);
}

INLINE void add_products(int rows, int vectors, int depth, enum line_kind lines,
                         __m256i (*dot)[PACKED_MAX_TILE], const struct tile_facts *t, const uint8_t *base,
                         const struct activation_block *a, struct places p, int v)
{
    bool is_signed = depth == 1;
    int step = depth < p.n ? depth : p.n;
    __m256i offset = _mm256_set1_epi8((char)t->offset), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int i = p.first; i < p.first + p.n; i += step) {
        __m256i sum[VECTORS][PACKED_MAX_TILE];
#pragma GCC unroll 8
        for (int k = i; k < i + step; k++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) {
                __m256i w = load_quants(lines, t, base, p, k, v + j);
                if (is_signed)
                    w = _mm256_sub_epi8(w, offset);
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++) {
                    __m256i product = multiply(is_signed, w, broadcast(a[r].q + PACK_BLOCK * p.b + 4 * k));
                    sum[j][r] = k == i ? product : _mm256_add_epi16(sum[j][r], product);
                }
            }
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                dot[j][r] = _mm256_add_epi32(dot[j][r], _mm256_madd_epi16(sum[j][r], ones));
    }
}

/* Packed products with the matrix products of NEON: two outputs times two rows of activations, eight elements
 * of k each. Lines of two neighbouring places, zipped, are two such pairs of outputs. */
#define PACKED_LEVEL packed_level_neon_i8mm

#include "worker/kernels/packed_neon.h"

INLINE void arrange(int8x16_t *first, int8x16_t *second)
{
    int32x4_t x = vreinterpretq_s32_s8(*first), y = vreinterpretq_s32_s8(*second);
    *first = vreinterpretq_s8_s32(vzip1q_s32(x, y));
    *second = vreinterpretq_s8_s32(vzip2q_s32(x, y));
}

/* Two rows' sixteen elements, as halves with eight of each. An odd row stands with itself. */
INLINE void pair_rows(int8x16_t out[2], const int8_t *first, const int8_t *second)
{
    int64x2_t x = vreinterpretq_s64_s8(vld1q_s8(first)), y = vreinterpretq_s64_s8(vld1q_s8(second));
    out[0] = vreinterpretq_s8_s64(vtrn1q_s64(x, y));
    out[1] = vreinterpretq_s8_s64(vtrn2q_s64(x, y));
}

INLINE void add_products(int rows, int vectors, enum line_kind lines, bool is_arranged,
                         int32x4_t (*dot)[LARGEST_TILE], const struct tile_facts *t, const uint8_t *base,
                         const struct activation_block *a, struct places p, int v)
{
    enum { PAIRS = LARGEST_TILE / 2 };
    int32x4_t low[VECTORS][PAIRS], high[VECTORS][PAIRS]; /* of a vector's outputs 0, 1 and 2, 3 */
    int pairs = (rows + 1) / 2;

    if (rows == 1 && !is_arranged) {
        add_dot_products(rows, vectors, lines, is_arranged, dot, t, base, a, p, v);
        return;
    }
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++)
#pragma GCC unroll 2
        for (int r = 0; r < pairs; r++)
            low[j][r] = high[j][r] = vdupq_n_s32(0);
#pragma GCC unroll 2
    for (int i = p.first; i < p.first + p.n; i += 4) {
        int8x16_t x[PAIRS][2];
#pragma GCC unroll 2
        for (int r = 0; r < pairs; r++)
            pair_rows(x[r], a[2 * r].q + PACK_BLOCK * p.b + 4 * i,
                      a[2 * r + 1 < rows ? 2 * r + 1 : 2 * r].q + PACK_BLOCK * p.b + 4 * i);
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
#pragma GCC unroll 2
            for (int k = 0; k < 2; k++) {
                int8x16_t first = load_quants(lines, is_arranged, t, base, p, i + 2 * k, v + j);
                int8x16_t second = load_quants(lines, is_arranged, t, base, p, i + 2 * k + 1, v + j);
                if (!is_arranged)
                    arrange(&first, &second);
#pragma GCC unroll 2
                for (int r = 0; r < pairs; r++) {
                    low[j][r] = vmmlaq_s32(low[j][r], first, x[r][k]);
                    high[j][r] = vmmlaq_s32(high[j][r], second, x[r][k]);
                }
            }
    }
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++)
#pragma GCC unroll 2
        for (int r = 0; r < pairs; r++) {
            dot[j][2 * r] = vaddq_s32(dot[j][2 * r], vuzp1q_s32(low[j][r], high[j][r]));
            if (2 * r + 1 < rows)
                dot[j][2 * r + 1] = vaddq_s32(dot[j][2 * r + 1], vuzp2q_s32(low[j][r], high[j][r]));
        }
}

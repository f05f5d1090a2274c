/* Products with AVX-512.
 *
 * A tile keeps one vector of sixteen partial sums per (weight row, activation row) and walks both rows once;
 * each weight is loaded and unpacked once for all activation rows of the tile. Nothing of one sum's sequence
 * depends on the tile's size. With one activation row memory is the bound, and rows are too short for the
 * hardware to see streams in them: the same place of the next tile is prefetched (300 MB of Q8_0 in rows of
 * 2048 on Zen 5, one thread: 7.5 GB/s without, 29 GB/s with it). Quantised blocks of 32: one int16 dot
 * product (VNNI), one convert, and one fused multiply-add with the product of both scales. */
#include "worker/kernels/avx512.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/unpacked.h"

/* Wide tiles: more weight rows at a time mean more streams from memory and more work per loaded activation;
 * the registers are the bound. */
enum { WIDE_FLOAT = 2, WIDE_QUANT = 4, MAX_ROWS = 4 };

/* Weights i..i+15 of a row of floats, where the mask says so. */
INLINE __m512 load_weights(enum weight_type type, const char *row, int i, __mmask16 mask)
{
    if (type == WEIGHT_F32)
        return _mm512_maskz_loadu_ps(mask, (const float *)row + i);
    const uint16_t *p = (const uint16_t *)row + i;
    if (type == WEIGHT_F16)
        return load_halves(p, mask);
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}

/* Two chains of sums per result, so that one row alone does not wait for the adder. */
INLINE void float_step(enum weight_type type, int wide, int rows, __m512 (*sum)[MAX_ROWS], const char *w,
                       size_t row_bytes, const float *x, size_t stride, int i, __mmask16 mask)
{
    __m512 weight[WIDE_FLOAT];

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++) {
        const char *row = w + (size_t)j * row_bytes;
        if (rows == 1)
            _mm_prefetch(row + prefetch_distance(row_bytes) + (size_t)i * (type == WEIGHT_F32 ? 4 : 2),
                         _MM_HINT_T0);
        weight[j] = load_weights(type, row, i, mask);
    }

#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        __m512 activation = _mm512_maskz_loadu_ps(mask, x + (size_t)r * stride + i);

#pragma GCC unroll 16
        for (int j = 0; j < wide; j++)
            sum[j][r] = _mm512_fmadd_ps(weight[j], activation, sum[j][r]);
    }
}

INLINE void float_tile(enum weight_type type, int wide, int rows, float *out, size_t out_stride,
                       const char *w, size_t row_bytes, const struct activations *a, int first_row)
{
    const float *x = a->x + (size_t)first_row * a->stride;
    __m512 even[WIDE_FLOAT][MAX_ROWS], odd[WIDE_FLOAT][MAX_ROWS];

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            even[j][r] = odd[j][r] = _mm512_setzero_ps();
    int i = 0;
    for (; i + 32 <= a->n; i += 32) {
        float_step(type, wide, rows, even, w, row_bytes, x, a->stride, i, 0xffff);
        float_step(type, wide, rows, odd, w, row_bytes, x, a->stride, i + 16, 0xffff);
    }
    for (; i < a->n; i += 16)
        float_step(type, wide, rows, even, w, row_bytes, x, a->stride, i,
                   first_lanes(a->n - i < 16 ? a->n - i : 16));

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            out[(size_t)r * out_stride + (size_t)j] =
                _mm512_reduce_add_ps(_mm512_add_ps(even[j][r], odd[j][r]));
}

INLINE size_t block_bytes(enum weight_type type)
{
    return type == WEIGHT_Q8_0 ? sizeof(struct block_q8_0) : sizeof(struct block_q4_0);
}

INLINE __m512 broadcast_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)*p));
}

/* The 32 integers of block i of a row, and its scale in every lane. */
INLINE __m512i load_block(enum weight_type type, const char *row, int i, __m512 *scale)
{
    if (type == WEIGHT_Q8_0) {
        const struct block_q8_0 *b = (const struct block_q8_0 *)row + i;
        *scale = broadcast_half(&b->scale);
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)b->q));
    }
    /* Sixteen bytes twice, widened to words; the second half is shifted to its high nibbles. */
    const struct block_q4_0 *b = (const struct block_q4_0 *)row + i;
    *scale = broadcast_half(&b->scale);
    __m512i words = _mm512_cvtepu8_epi16(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)b->q)));
    __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    words = _mm512_and_si512(_mm512_srlv_epi16(words, shift), _mm512_set1_epi16(15));
    return _mm512_sub_epi16(words, _mm512_set1_epi16(8));
}

INLINE void quant_tile(enum weight_type type, int wide, int rows, float *out, size_t out_stride,
                       const char *w, size_t row_bytes, const struct activations *a, int first_row)
{
    const int16_t *q = a->q + (size_t)first_row * a->stride;
    const float *q_scale = a->q_scale + (size_t)first_row * a->stride / Q16_BLOCK;
    __m512 sum[WIDE_QUANT][MAX_ROWS];

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            sum[j][r] = _mm512_setzero_ps();
    for (int i = 0; i < a->n / 32; i++) {
        __m512i weight[WIDE_QUANT];
        __m512 scale[WIDE_QUANT];

#pragma GCC unroll 16
        for (int j = 0; j < wide; j++) {
            const char *row = w + (size_t)j * row_bytes;
            if (rows == 1)
                _mm_prefetch(row + prefetch_distance(row_bytes) + (size_t)i * block_bytes(type), _MM_HINT_T0);
            weight[j] = load_block(type, row, i, &scale[j]);
        }

#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            __m512i activation = _mm512_load_si512(q + (size_t)r * a->stride + 32 * i);
            __m512 activation_scale = _mm512_set1_ps(q_scale[(size_t)r * a->stride / Q16_BLOCK + (size_t)i]);

#pragma GCC unroll 16
            for (int j = 0; j < wide; j++) {
                __m512i dot = _mm512_dpwssd_epi32(_mm512_setzero_si512(), weight[j], activation);
                sum[j][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                            _mm512_mul_ps(scale[j], activation_scale), sum[j][r]);
            }
        }
    }

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            out[(size_t)r * out_stride + (size_t)j] = _mm512_reduce_add_ps(sum[j][r]);
}

#define TILE(kind, name, type, wide, rows)                                                                   \
    static void name##_##wide##x##rows(float *out, size_t out_stride, const char *w, size_t row_bytes,       \
                                       const struct activations *a, int first_row)                           \
    {                                                                                                        \
        kind##_tile(type, wide, rows, out, out_stride, w, row_bytes, a, first_row);                          \
    }

#define PRODUCT(kind, name, type, wide)                                                                      \
    TILE(kind, name, type, 1, 1)                                                                             \
    TILE(kind, name, type, 1, 2)                                                                             \
    TILE(kind, name, type, 1, 3)                                                                             \
    TILE(kind, name, type, 1, 4)                                                                             \
    TILE(kind, name, type, wide, 1)                                                                          \
    TILE(kind, name, type, wide, 2)                                                                          \
    TILE(kind, name, type, wide, 3)                                                                          \
    TILE(kind, name, type, wide, 4)                                                                          \
    static const struct tile_set name##_tiles = {                                                            \
        type,                                                                                                \
        wide,                                                                                                \
        MAX_ROWS,                                                                                            \
        { name##_1x1, name##_1x2, name##_1x3, name##_1x4 },                                                  \
        { name##_##wide##x1, name##_##wide##x2, name##_##wide##x3, name##_##wide##x4 },                      \
    };                                                                                                       \
    static void multiply_##name(float *out, size_t out_stride, const void *weights, int first, int last,     \
                                const struct activations *a)                                                 \
    {                                                                                                        \
        tiles_multiply(&name##_tiles, out, out_stride, weights, first, last, a);                             \
    }

PRODUCT(float, f32, WEIGHT_F32, 2)
PRODUCT(float, f16, WEIGHT_F16, 2)
PRODUCT(float, bf16, WEIGHT_BF16, 2)
PRODUCT(quant, q8_0, WEIGHT_Q8_0, 4)
PRODUCT(quant, q4_0, WEIGHT_Q4_0, 4)

UNPACKED_TYPES(UNPACKED_PRODUCT)

void products_init_avx512(struct kernels *k)
{
    k->weights[WEIGHT_F32].multiply = multiply_f32;
    k->weights[WEIGHT_F16].multiply = multiply_f16;
    k->weights[WEIGHT_BF16].multiply = multiply_bf16;
    k->weights[WEIGHT_Q8_0].multiply = multiply_q8_0;
    k->weights[WEIGHT_Q4_0].multiply = multiply_q4_0;
    UNPACKED_TYPES(UNPACKED_ENTRY)
}

/* Products with AVX2.
 *
 * A tile keeps one vector of eight partial sums per (weight row, activation row) and walks both rows once;
 * each weight is loaded and unpacked once for all activation rows of the tile. Nothing of one sum's sequence
 * depends on the tile's size. Quantised blocks of 32: two int16 multiply-adds, one convert, and one fused
 * multiply-add with the product of both scales. Sixteen registers allow tiles of two by two. */
#include "worker/kernels/avx2.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/unpacked.h"

enum { WIDE = 2, MAX_ROWS = 2 };

INLINE int lanes_left(int n, int i)
{
    return n - i < 8 ? n - i : 8;
}

INLINE __m256 load_weights(enum weight_type type, const char *row, int i, int n)
{
    if (type == WEIGHT_F32)
        return load_floats((const float *)row + i, n);
    __m128i words = load_words((const uint16_t *)row + i, n);
    if (type == WEIGHT_F16)
        return _mm256_cvtph_ps(words);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

/* Two chains of sums per result, so that one row alone does not wait for the adder. */
INLINE void float_step(enum weight_type type, int wide, int rows, __m256 (*sum)[MAX_ROWS], const char *w,
                       size_t row_bytes, const float *x, size_t stride, int i, int n)
{
    __m256 weight[WIDE];

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++) {
        const char *row = w + (size_t)j * row_bytes;
        if (rows == 1)
            _mm_prefetch(row + prefetch_distance(row_bytes) + (size_t)i * (type == WEIGHT_F32 ? 4 : 2),
                         _MM_HINT_T0);
        weight[j] = load_weights(type, row, i, n);
    }

#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        __m256 activation = load_floats(x + (size_t)r * stride + i, n);

#pragma GCC unroll 16
        for (int j = 0; j < wide; j++)
            sum[j][r] = _mm256_fmadd_ps(weight[j], activation, sum[j][r]);
    }
}

INLINE void float_tile(enum weight_type type, int wide, int rows, float *out, size_t out_stride,
                       const char *w, size_t row_bytes, const struct activations *a, int first_row)
{
    const float *x = a->x + (size_t)first_row * a->stride;
    __m256 even[WIDE][MAX_ROWS], odd[WIDE][MAX_ROWS];

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            even[j][r] = odd[j][r] = _mm256_setzero_ps();
    int i = 0;
    for (; i + 16 <= a->n; i += 16) {
        float_step(type, wide, rows, even, w, row_bytes, x, a->stride, i, 8);
        float_step(type, wide, rows, odd, w, row_bytes, x, a->stride, i + 8, 8);
    }
    for (; i < a->n; i += 8)
        float_step(type, wide, rows, even, w, row_bytes, x, a->stride, i, lanes_left(a->n, i));

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            out[(size_t)r * out_stride + (size_t)j] = sum_lanes(_mm256_add_ps(even[j][r], odd[j][r]));
}

INLINE size_t block_bytes(enum weight_type type)
{
    return type == WEIGHT_Q8_0 ? sizeof(struct block_q8_0) : sizeof(struct block_q4_0);
}

INLINE __m256 broadcast_half(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)*p));
}

/* The 32 integers of block i of a row in two vectors, and its scale in every lane. */
INLINE void load_block(enum weight_type type, const char *row, int i, __m256i *low, __m256i *high,
                       __m256 *scale)
{
    if (type == WEIGHT_Q8_0) {
        const struct block_q8_0 *b = (const struct block_q8_0 *)row + i;
        *scale = broadcast_half(&b->scale);
        *low = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)b->q));
        *high = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(b->q + 16)));
        return;
    }
    const struct block_q4_0 *b = (const struct block_q4_0 *)row + i;
    *scale = broadcast_half(&b->scale);
    __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)b->q));
    __m256i eight = _mm256_set1_epi16(8);
    *low = _mm256_sub_epi16(_mm256_and_si256(words, _mm256_set1_epi16(15)), eight);
    *high = _mm256_sub_epi16(_mm256_srli_epi16(words, 4), eight);
}

INLINE void quant_tile(enum weight_type type, int wide, int rows, float *out, size_t out_stride,
                       const char *w, size_t row_bytes, const struct activations *a, int first_row)
{
    const int16_t *q = a->q + (size_t)first_row * a->stride;
    const float *q_scale = a->q_scale + (size_t)first_row * a->stride / Q16_BLOCK;
    __m256 sum[WIDE][MAX_ROWS];

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            sum[j][r] = _mm256_setzero_ps();
    for (int i = 0; i < a->n / 32; i++) {
        __m256i low[WIDE], high[WIDE];
        __m256 scale[WIDE];

#pragma GCC unroll 16
        for (int j = 0; j < wide; j++) {
            const char *row = w + (size_t)j * row_bytes;
            if (rows == 1)
                _mm_prefetch(row + prefetch_distance(row_bytes) + (size_t)i * block_bytes(type), _MM_HINT_T0);
            load_block(type, row, i, &low[j], &high[j], &scale[j]);
        }

#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const int16_t *block = q + (size_t)r * a->stride + 32 * i;
            __m256i first = _mm256_load_si256((const void *)block);
            __m256i second = _mm256_load_si256((const void *)(block + 16));
            __m256 activation_scale = _mm256_set1_ps(q_scale[(size_t)r * a->stride / Q16_BLOCK + (size_t)i]);

#pragma GCC unroll 16
            for (int j = 0; j < wide; j++) {
                __m256i dot =
                    _mm256_add_epi32(_mm256_madd_epi16(low[j], first), _mm256_madd_epi16(high[j], second));
                sum[j][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                                            _mm256_mul_ps(scale[j], activation_scale), sum[j][r]);
            }
        }
    }

#pragma GCC unroll 16
    for (int j = 0; j < wide; j++)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            out[(size_t)r * out_stride + (size_t)j] = sum_lanes(sum[j][r]);
}

#define TILE(kind, name, type, wide, rows)                                                                   \
    static void name##_##wide##x##rows(float *out, size_t out_stride, const char *w, size_t row_bytes,       \
                                       const struct activations *a, int first_row)                           \
    {                                                                                                        \
        kind##_tile(type, wide, rows, out, out_stride, w, row_bytes, a, first_row);                          \
    }

#define PRODUCT(kind, name, type)                                                                            \
    TILE(kind, name, type, 1, 1)                                                                             \
    TILE(kind, name, type, 1, 2)                                                                             \
    TILE(kind, name, type, 2, 1)                                                                             \
    TILE(kind, name, type, 2, 2)                                                                             \
    static const struct tile_set name##_tiles = {                                                            \
        type, WIDE, MAX_ROWS, { name##_1x1, name##_1x2 }, { name##_2x1, name##_2x2 },                        \
    };                                                                                                       \
    static void multiply_##name(float *out, size_t out_stride, const void *weights, int first, int last,     \
                                const struct activations *a)                                                 \
    {                                                                                                        \
        tiles_multiply(&name##_tiles, out, out_stride, weights, first, last, a);                             \
    }

PRODUCT(float, f32, WEIGHT_F32)
PRODUCT(float, f16, WEIGHT_F16)
PRODUCT(float, bf16, WEIGHT_BF16)
PRODUCT(quant, q8_0, WEIGHT_Q8_0)
PRODUCT(quant, q4_0, WEIGHT_Q4_0)

UNPACKED_TYPES(UNPACKED_PRODUCT)

void products_init_avx2(struct kernels *k)
{
    k->weights[WEIGHT_F32].multiply = multiply_f32;
    k->weights[WEIGHT_F16].multiply = multiply_f16;
    k->weights[WEIGHT_BF16].multiply = multiply_bf16;
    k->weights[WEIGHT_Q8_0].multiply = multiply_q8_0;
    k->weights[WEIGHT_Q4_0].multiply = multiply_q4_0;
    UNPACKED_TYPES(UNPACKED_ENTRY)
}

/* The reference of the products: a weight row times activations in the plainest order. How the rows of block
 * types become numbers is in blocks_*.c. */
#include "worker/kernels/half.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/unpacked.h"

static void dequantise_f32(float *out, const void *row, int n)
{
    memcpy(out, row, (size_t)n * sizeof *out);
}

static void dequantise_f16(float *out, const void *row, int n)
{
    const uint16_t *w = row;
    for (int i = 0; i < n; i++)
        out[i] = float_of_half(w[i]);
}

static void dequantise_bf16(float *out, const void *row, int n)
{
    const uint16_t *w = row;
    for (int i = 0; i < n; i++)
        out[i] = float_of_bf16(w[i]);
}

static float dot_f32(const void *row, const struct activations *a, int r)
{
    const float *w = row, *x = a->x + (size_t)r * a->stride;
    float sum = 0;
    for (int i = 0; i < a->n; i++)
        sum += w[i] * x[i];
    return sum;
}

static float dot_f16(const void *row, const struct activations *a, int r)
{
    const uint16_t *w = row;
    const float *x = a->x + (size_t)r * a->stride;
    float sum = 0;
    for (int i = 0; i < a->n; i++)
        sum += float_of_half(w[i]) * x[i];
    return sum;
}

static float dot_bf16(const void *row, const struct activations *a, int r)
{
    const uint16_t *w = row;
    const float *x = a->x + (size_t)r * a->stride;
    float sum = 0;
    for (int i = 0; i < a->n; i++)
        sum += float_of_bf16(w[i]) * x[i];
    return sum;
}

/* The integer sum of a block is exact: at most 32 * 128 * 32767, which fits. */
static float dot_q8_0(const void *row, const struct activations *a, int r)
{
    const struct block_q8_0 *b = row;
    const int16_t *q = a->q + (size_t)r * a->stride;
    const float *q_scale = a->q_scale + (size_t)r * a->stride / Q16_BLOCK;
    float sum = 0;
    for (int i = 0; i < a->n / 32; i++, b++, q += 32) {
        int32_t dot = 0;
        for (int j = 0; j < 32; j++)
            dot += b->q[j] * q[j];
        sum += (float)dot * (float_of_half(b->scale) * q_scale[i]);
    }
    return sum;
}

static float dot_q4_0(const void *row, const struct activations *a, int r)
{
    const struct block_q4_0 *b = row;
    const int16_t *q = a->q + (size_t)r * a->stride;
    const float *q_scale = a->q_scale + (size_t)r * a->stride / Q16_BLOCK;
    float sum = 0;
    for (int i = 0; i < a->n / 32; i++, b++, q += 32) {
        int32_t dot = 0;
        for (int j = 0; j < 16; j++)
            dot += ((b->q[j] & 15) - 8) * q[j] + ((b->q[j] >> 4) - 8) * q[j + 16];
        sum += (float)dot * (float_of_half(b->scale) * q_scale[i]);
    }
    return sum;
}

/* Each weight row stays in the cache while it meets every activation row. */
#define MULTIPLY(name, type, dot)                                                                            \
    static void name(float *out, size_t out_stride, const void *weights, int first, int last,                \
                     const struct activations *a)                                                            \
    {                                                                                                        \
        size_t row_bytes = weight_row_bytes(type, (uint64_t)a->n);                                           \
        for (int i = first; i < last; i++)                                                                   \
            for (int r = 0; r < a->n_rows; r++)                                                              \
                out[(size_t)r * out_stride + (size_t)i] =                                                    \
                    dot((const char *)weights + (size_t)i * row_bytes, a, r);                                \
    }

MULTIPLY(multiply_f32, WEIGHT_F32, dot_f32)
MULTIPLY(multiply_f16, WEIGHT_F16, dot_f16)
MULTIPLY(multiply_bf16, WEIGHT_BF16, dot_bf16)
MULTIPLY(multiply_q8_0, WEIGHT_Q8_0, dot_q8_0)
MULTIPLY(multiply_q4_0, WEIGHT_Q4_0, dot_q4_0)

UNPACKED_TYPES(UNPACKED_PRODUCT)

void products_init_scalar(struct kernels *k)
{
    k->weights[WEIGHT_F32] = (struct weight_kernels){ false, dequantise_f32, multiply_f32 };
    k->weights[WEIGHT_F16] = (struct weight_kernels){ false, dequantise_f16, multiply_f16 };
    k->weights[WEIGHT_BF16] = (struct weight_kernels){ false, dequantise_bf16, multiply_bf16 };
    k->weights[WEIGHT_Q8_0] = (struct weight_kernels){ true, dequantise_q8_0, multiply_q8_0 };
    k->weights[WEIGHT_Q4_0] = (struct weight_kernels){ true, dequantise_q4_0, multiply_q4_0 };
    UNPACKED_TYPES(UNPACKED_REFERENCE)
}

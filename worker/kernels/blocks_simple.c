/* Types of 32 weights with one scale, and perhaps one base, for all. */
#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"

void dequantise_q8_0(float *out, const void *row, int n)
{
    const struct block_q8_0 *b = row;
    for (int i = 0; i < n; i += 32, b++)
        for (int j = 0; j < 32; j++)
            out[i + j] = float_of_half(b->scale) * (float)b->q[j];
}

void dequantise_q4_0(float *out, const void *row, int n)
{
    const struct block_q4_0 *b = row;
    for (int i = 0; i < n; i += 32, b++)
        for (int j = 0; j < 16; j++) {
            out[i + j] = float_of_half(b->scale) * (float)((b->q[j] & 15) - 8);
            out[i + j + 16] = float_of_half(b->scale) * (float)((b->q[j] >> 4) - 8);
        }
}

void dequantise_q4_1(float *out, const void *row, int n)
{
    const struct block_q4_1 *b = row;
    for (int i = 0; i < n; i += 32, b++) {
        float scale = float_of_half(b->scale), base = float_of_half(b->base);
        for (int j = 0; j < 16; j++) {
            out[i + j] = scale * (float)(b->q[j] & 15) + base;
            out[i + j + 16] = scale * (float)(b->q[j] >> 4) + base;
        }
    }
}

/* The five bits of weight i. */
static int five_bits(const uint8_t *q, const uint8_t *high, int i)
{
    int low = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
    return low | (high[i / 8] >> i % 8 & 1) << 4;
}

void dequantise_q5_0(float *out, const void *row, int n)
{
    const struct block_q5_0 *b = row;
    for (int i = 0; i < n; i += 32, b++)
        for (int j = 0; j < 32; j++)
            out[i + j] = float_of_half(b->scale) * (float)(five_bits(b->q, b->high, j) - 16);
}

void dequantise_q5_1(float *out, const void *row, int n)
{
    const struct block_q5_1 *b = row;
    for (int i = 0; i < n; i += 32, b++)
        for (int j = 0; j < 32; j++)
            out[i + j] =
                float_of_half(b->scale) * (float)five_bits(b->q, b->high, j) + float_of_half(b->base);
}

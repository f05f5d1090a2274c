/* Blocks whose scale follows from the extremes alone. The order of operations is the reference's, in f32 with
 * the scale not yet rounded to f16: other engines' files come out the same to the byte. */
#include <math.h>

#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"
#include "worker/kernels/quantise.h"

/* A NaN becomes 0. */
static int clamp(float v, int highest)
{
    if (!(v > 0))
        return 0;
    return v < (float)highest ? (int)v : highest;
}

/* The first number of the largest size, with its sign. */
static float extreme(const float *x, int n)
{
    float largest = 0, value = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            value = x[i];
        }
    return value;
}

static float inverse_of(float scale)
{
    return scale != 0 ? 1 / scale : 0;
}

void quantise_q8_0(void *row, const float *x, int n)
{
    struct block_q8_0 *b = row;
    for (int i = 0; i < n; i += 32, b++) {
        float scale = fabsf(extreme(x + i, 32)) / 127, inverse = inverse_of(scale);
        b->scale = half_of_float(scale);
        for (int j = 0; j < 32; j++)
            b->q[j] = (int8_t)(clamp(roundf(x[i + j] * inverse) + 128, 255) - 128);
    }
}

void quantise_q4_0(void *row, const float *x, int n)
{
    struct block_q4_0 *b = row;
    for (int i = 0; i < n; i += 32, b++) {
        float scale = extreme(x + i, 32) / -8, inverse = inverse_of(scale);
        b->scale = half_of_float(scale);
        for (int j = 0; j < 16; j++)
            b->q[j] = (uint8_t)(clamp(x[i + j] * inverse + 8.5f, 15) |
                                clamp(x[i + j + 16] * inverse + 8.5f, 15) << 4);
    }
}

/* The low nibbles of 32 integers into q, bit 4 of each into high. */
static void pack_five_bits(uint8_t *q, uint8_t *high, const int *five)
{
    for (int j = 0; j < 16; j++)
        q[j] = (uint8_t)((five[j] & 15) | (five[j + 16] & 15) << 4);
    for (int j = 0; j < 4; j++)
        high[j] = 0;
    for (int j = 0; j < 32; j++)
        high[j / 8] = (uint8_t)(high[j / 8] | five[j] >> 4 << j % 8);
}

void quantise_q5_0(void *row, const float *x, int n)
{
    struct block_q5_0 *b = row;
    for (int i = 0; i < n; i += 32, b++) {
        float scale = extreme(x + i, 32) / -16, inverse = inverse_of(scale);
        int five[32];
        b->scale = half_of_float(scale);
        for (int j = 0; j < 32; j++)
            five[j] = clamp(x[i + j] * inverse + 16.5f, 31);
        pack_five_bits(b->q, b->high, five);
    }
}

static void find_range(const float *x, float *lowest, float *highest)
{
    *lowest = *highest = x[0];
    for (int i = 1; i < 32; i++) {
        *lowest = x[i] < *lowest ? x[i] : *lowest;
        *highest = x[i] > *highest ? x[i] : *highest;
    }
}

void quantise_q4_1(void *row, const float *x, int n)
{
    struct block_q4_1 *b = row;
    for (int i = 0; i < n; i += 32, b++) {
        float lowest, highest;
        find_range(x + i, &lowest, &highest);
        float scale = (highest - lowest) / 15, inverse = inverse_of(scale);
        b->scale = half_of_float(scale);
        b->base = half_of_float(lowest);
        for (int j = 0; j < 16; j++)
            b->q[j] = (uint8_t)(clamp((x[i + j] - lowest) * inverse + 0.5f, 15) |
                                clamp((x[i + j + 16] - lowest) * inverse + 0.5f, 15) << 4);
    }
}

void quantise_q5_1(void *row, const float *x, int n)
{
    struct block_q5_1 *b = row;
    for (int i = 0; i < n; i += 32, b++) {
        float lowest, highest;
        int five[32];
        find_range(x + i, &lowest, &highest);
        float scale = (highest - lowest) / 31, inverse = inverse_of(scale);
        b->scale = half_of_float(scale);
        b->base = half_of_float(lowest);
        for (int j = 0; j < 32; j++)
            five[j] = clamp((x[i + j] - lowest) * inverse + 0.5f, 31);
        pack_five_bits(b->q, b->high, five);
    }
}

/* The extreme number becomes -127, whatever its sign. */
void quantise_q8_k(void *row, const float *x, int n)
{
    struct block_q8_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        float largest = extreme(x, LONG_BLOCK), inverse = largest != 0 ? -127 / largest : 0;
        b->scale = inverse_of(inverse);
        for (int s = 0; s < 16; s++)
            b->sums[s] = 0;
        for (int i = 0; i < LONG_BLOCK; i++) {
            b->q[i] = (int8_t)(clamp(rintf(x[i] * inverse) + 128, 255) - 128);
            b->sums[i / 16] = (int16_t)(b->sums[i / 16] + b->q[i]);
        }
    }
}

/* 0, 1 or 2 for about -scale, 0 or scale. */
static int ternary(float v)
{
    return clamp(roundf(v) + 1, 2);
}

/* `count` bytes of `places` digits to the base three from x, the first digit of each byte first; as a
 * fraction of 256, rounded up so that the reader's cuts fall on the right side. */
static const float *write_digits(uint8_t *bytes, int count, int places, const float *x, float inverse)
{
    for (int i = 0; i < count; i++) {
        int digits = 0;
        for (int place = 0; place < 5; place++)
            digits = 3 * digits + (place < places ? ternary(x[place * count + i] * inverse) : 0);
        bytes[i] = (uint8_t)((digits * 256 + 242) / 243);
    }
    return x + count * places;
}

void quantise_tq1_0(void *row, const float *x, int n)
{
    struct block_tq1_0 *b = row;
    for (; n > 0; n -= LONG_BLOCK, b++) {
        float scale = fabsf(extreme(x, LONG_BLOCK)), inverse = inverse_of(scale);
        b->scale = half_of_float(scale);
        x = write_digits(b->q, 32, 5, x, inverse);
        x = write_digits(b->q + 32, 16, 5, x, inverse);
        x = write_digits(b->last, 4, 4, x, inverse);
    }
}

void quantise_tq2_0(void *row, const float *x, int n)
{
    struct block_tq2_0 *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        float scale = fabsf(extreme(x, LONG_BLOCK)), inverse = inverse_of(scale);
        b->scale = half_of_float(scale);
        for (int i = 0; i < 64; i++)
            b->q[i] = 0;
        for (int i = 0; i < LONG_BLOCK; i++) {
            uint8_t *q = &b->q[i / 128 * 32 + i % 32];
            *q = (uint8_t)(*q | ternary(x[i] * inverse) << i % 128 / 32 * 2);
        }
    }
}

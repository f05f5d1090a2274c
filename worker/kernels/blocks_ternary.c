/* Types of weights that are -scale, 0 or scale. */
#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"

/* Digit `place` of a byte that holds d0 d1 d2 ... as the fraction 0.d0d1d2... to the base three, times 256:
 * multiplying by 3^place moves the digit before the point, and what overflows a byte were digits before it.
 */
static int digit(uint8_t byte, int place)
{
    static const uint8_t powers[5] = { 1, 3, 9, 27, 81 };
    uint8_t fraction = (uint8_t)(byte * powers[place]);
    return fraction * 3 >> 8;
}

/* `count` bytes of `places` digits: the first digit of each, then the second of each, ... */
static float *read_digits(float *out, float scale, const uint8_t *bytes, int count, int places)
{
    for (int place = 0; place < places; place++)
        for (int i = 0; i < count; i++)
            *out++ = scale * (float)(digit(bytes[i], place) - 1);
    return out;
}

void dequantise_tq1_0(float *out, const void *row, int n)
{
    const struct block_tq1_0 *b = row;
    for (; n > 0; n -= LONG_BLOCK, b++) {
        float scale = float_of_half(b->scale);
        out = read_digits(out, scale, b->q, 32, 5);
        out = read_digits(out, scale, b->q + 32, 16, 5);
        out = read_digits(out, scale, b->last, 4, 4);
    }
}

void dequantise_tq2_0(float *out, const void *row, int n)
{
    const struct block_tq2_0 *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int i = 0; i < LONG_BLOCK; i++) {
            int q = b->q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
            out[i] = float_of_half(b->scale) * (float)(q - 1);
        }
}

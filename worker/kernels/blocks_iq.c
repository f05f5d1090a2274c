/* Types whose four bits are places in a table of sixteen values. */
#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"

const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t mxfp4_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static void look_up(float *out, float scale, const uint8_t *q, const int8_t *values)
{
    for (int i = 0; i < 16; i++) {
        out[i] = scale * (float)values[q[i] & 15];
        out[i + 16] = scale * (float)values[q[i] >> 4];
    }
}

void dequantise_iq4_nl(float *out, const void *row, int n)
{
    const struct block_iq4_nl *b = row;
    for (int i = 0; i < n; i += 32, b++)
        look_up(out + i, float_of_half(b->scale), b->q, iq4_values);
}

void dequantise_iq4_xs(float *out, const void *row, int n)
{
    const struct block_iq4_xs *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int s = 0; s < 8; s++) {
            int sub = (b->sub_low[s / 2] >> s % 2 * 4 & 15) | (b->sub_high >> 2 * s & 3) << 4;
            look_up(out + 32 * s, float_of_half(b->scale) * (float)(sub - 32), b->q + 16 * s, iq4_values);
        }
}

float mxfp4_scale(uint8_t exponent)
{
    /* The two smallest are below the normal floats. */
    return float_of_bits(exponent < 2 ? 0x200000u << exponent : (uint32_t)(exponent - 1) << 23);
}

void dequantise_mxfp4(float *out, const void *row, int n)
{
    const struct block_mxfp4 *b = row;
    for (int i = 0; i < n; i += 32, b++)
        look_up(out + i, mxfp4_scale(b->exponent), b->q, mxfp4_values);
}

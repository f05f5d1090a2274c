/* The K types: 256 weights in sub-blocks, whose scales are integers that share one f16 scale. */
#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"

/* The two bits of weight i, where each 32 bytes hold 128 weights in four layers. */
static int two_bits(const uint8_t *q, int i)
{
    return q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

void dequantise_q2_k(float *out, const void *row, int n)
{
    const struct block_q2_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int s = 0; s < 16; s++) {
            float scale = float_of_half(b->scale) * (float)(b->sub[s] & 15);
            float base = float_of_half(b->base) * (float)(b->sub[s] >> 4);
            for (int i = 16 * s; i < 16 * s + 16; i++)
                out[i] = scale * (float)two_bits(b->q, i) - base;
        }
}

void dequantise_q3_k(float *out, const void *row, int n)
{
    const struct block_q3_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int s = 0; s < 16; s++) {
            int low = s < 8 ? b->sub[s] & 15 : b->sub[s - 8] >> 4;
            int high = b->sub[8 + s % 4] >> s / 4 * 2 & 3;
            float scale = float_of_half(b->scale) * (float)((low | high << 4) - 32);
            for (int i = 16 * s; i < 16 * s + 16; i++) {
                int q = two_bits(b->q, i) | (b->high[i % 32] >> i / 32 & 1) << 2;
                out[i] = scale * (float)(q - 4);
            }
        }
}

/* The six-bit scale and base of sub-block s. The first four pairs lie in the low six bits of bytes 0-7. Of
 * the others the low four bits lie in bytes 8-11 (scale below, base above) and the high two at the top of
 * bytes 0-7. */
static void unpack_pair(const uint8_t *sub, int s, int *scale, int *base)
{
    if (s < 4) {
        *scale = sub[s] & 63;
        *base = sub[s + 4] & 63;
        return;
    }
    *scale = (sub[s + 4] & 15) | sub[s - 4] >> 6 << 4;
    *base = sub[s + 4] >> 4 | sub[s] >> 6 << 4;
}

void dequantise_q4_k(float *out, const void *row, int n)
{
    const struct block_q4_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int s = 0; s < 8; s++) {
            int sub_scale, sub_base;
            unpack_pair(b->sub, s, &sub_scale, &sub_base);
            float scale = float_of_half(b->scale) * (float)sub_scale;
            float base = float_of_half(b->base) * (float)sub_base;
            for (int i = 0; i < 32; i++)
                out[32 * s + i] = scale * (float)(b->q[s / 2 * 32 + i] >> s % 2 * 4 & 15) - base;
        }
}

void dequantise_q5_k(float *out, const void *row, int n)
{
    const struct block_q5_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int s = 0; s < 8; s++) {
            int sub_scale, sub_base;
            unpack_pair(b->sub, s, &sub_scale, &sub_base);
            float scale = float_of_half(b->scale) * (float)sub_scale;
            float base = float_of_half(b->base) * (float)sub_base;
            for (int i = 0; i < 32; i++) {
                int q = (b->q[s / 2 * 32 + i] >> s % 2 * 4 & 15) | (b->high[i] >> s & 1) << 4;
                out[32 * s + i] = scale * (float)q - base;
            }
        }
}

void dequantise_q6_k(float *out, const void *row, int n)
{
    const struct block_q6_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int i = 0; i < LONG_BLOCK; i++) {
            int low = b->low[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
            float scale = float_of_half(b->scale) * (float)b->sub[i / 16];
            out[i] = scale * (float)((low | two_bits(b->high, i) << 4) - 32);
        }
}

void dequantise_q8_k(float *out, const void *row, int n)
{
    const struct block_q8_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, out += LONG_BLOCK, b++)
        for (int i = 0; i < LONG_BLOCK; i++)
            out[i] = b->scale * (float)b->q[i];
}

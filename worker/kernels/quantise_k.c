/* The K types and those of value tables: what fit.c finds, packed. */
#include <math.h>

#include "worker/kernels/blocks.h"
#include "worker/kernels/fit.h"
#include "worker/kernels/half.h"
#include "worker/kernels/quantise.h"

/* The low two bits of 256 codes, as dequantising reads them. */
static void pack_two_bits(uint8_t *q, const uint8_t *codes, int shift)
{
    for (int i = 0; i < 64; i++) {
        const uint8_t *c = codes + i / 32 * 128 + i % 32;
        q[i] = (uint8_t)((c[0] >> shift & 3) | (c[32] >> shift & 3) << 2 | (c[64] >> shift & 3) << 4 |
                         (c[96] >> shift & 3) << 6);
    }
}

/* One bit of 256 codes: code i into bit i / 32 of byte i % 32. */
static void pack_bit(uint8_t *bits, const uint8_t *codes, int shift)
{
    for (int i = 0; i < 32; i++) {
        int byte = 0;
        for (int layer = 0; layer < 8; layer++)
            byte |= (codes[32 * layer + i] >> shift & 1) << layer;
        bits[i] = (uint8_t)byte;
    }
}

/* The low nibbles of 256 codes: in runs of 2 * `half`, the first half below, the second above. */
static void pack_nibbles(uint8_t *q, const uint8_t *codes, int half)
{
    for (int i = 0; i < 128; i++) {
        const uint8_t *c = codes + i / half * 2 * half + i % half;
        q[i] = (uint8_t)((c[0] & 15) | (c[half] & 15) << 4);
    }
}

/* The inverse of unpack_pair. */
static void pack_pairs(uint8_t *sub, const int *scale, const int *base)
{
    for (int s = 0; s < 4; s++) {
        sub[s] = (uint8_t)(scale[s] | scale[s + 4] >> 4 << 6);
        sub[s + 4] = (uint8_t)(base[s] | base[s + 4] >> 4 << 6);
        sub[s + 8] = (uint8_t)((scale[s + 4] & 15) | (base[s + 4] & 15) << 4);
    }
}

void quantise_q2_k(void *row, const float *x, int n)
{
    struct block_q2_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        struct fit_affine f = { .n_subs = 16, .len = 16, .sub_high = 15, .q_high = 3 };
        fit_affine(&f, x);
        b->scale = f.scale;
        b->base = f.base;
        for (int s = 0; s < 16; s++)
            b->sub[s] = (uint8_t)(f.sub_scale[s] | f.sub_base[s] << 4);
        pack_two_bits(b->q, f.q, 0);
    }
}

void quantise_q3_k(void *row, const float *x, int n)
{
    static const struct ladder ladder = { -4, 8, NULL };
    struct block_q3_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        struct fit_signed f = { &ladder, .n_subs = 16, .len = 16, .sub_low = -32, .sub_high = 31 };
        fit_signed(&f, x);
        b->scale = f.scale;
        for (int i = 0; i < 12; i++)
            b->sub[i] = 0;
        for (int s = 0; s < 16; s++) {
            int sub = f.sub[s] + 32;
            b->sub[s % 8] = (uint8_t)(b->sub[s % 8] | (sub & 15) << s / 8 * 4);
            b->sub[8 + s % 4] = (uint8_t)(b->sub[8 + s % 4] | sub >> 4 << s / 4 * 2);
        }
        pack_two_bits(b->q, f.q, 0);
        pack_bit(b->high, f.q, 2);
    }
}

void quantise_q4_k(void *row, const float *x, int n)
{
    struct block_q4_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        struct fit_affine f = { .n_subs = 8, .len = 32, .sub_high = 63, .q_high = 15 };
        fit_affine(&f, x);
        b->scale = f.scale;
        b->base = f.base;
        pack_pairs(b->sub, f.sub_scale, f.sub_base);
        pack_nibbles(b->q, f.q, 32);
    }
}

void quantise_q5_k(void *row, const float *x, int n)
{
    struct block_q5_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        struct fit_affine f = { .n_subs = 8, .len = 32, .sub_high = 63, .q_high = 31 };
        fit_affine(&f, x);
        b->scale = f.scale;
        b->base = f.base;
        pack_pairs(b->sub, f.sub_scale, f.sub_base);
        pack_nibbles(b->q, f.q, 32);
        pack_bit(b->high, f.q, 4);
    }
}

void quantise_q6_k(void *row, const float *x, int n)
{
    static const struct ladder ladder = { -32, 64, NULL };
    struct block_q6_k *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        struct fit_signed f = { &ladder, .n_subs = 16, .len = 16, .sub_low = -128, .sub_high = 127 };
        fit_signed(&f, x);
        b->scale = f.scale;
        for (int s = 0; s < 16; s++)
            b->sub[s] = (int8_t)f.sub[s];
        pack_nibbles(b->low, f.q, 64);
        pack_two_bits(b->high, f.q, 4);
    }
}

static const struct ladder iq4_ladder = { 0, 16, iq4_values };

void quantise_iq4_nl(void *row, const float *x, int n)
{
    struct block_iq4_nl *b = row;
    for (; n > 0; n -= 32, x += 32, b++) {
        uint8_t q[32];
        b->scale = half_of_float(ladder_fit(&iq4_ladder, x, 32));
        ladder_encode(&iq4_ladder, float_of_half(b->scale), x, 32, q);
        for (int i = 0; i < 16; i++)
            b->q[i] = (uint8_t)(q[i] | q[i + 16] << 4);
    }
}

void quantise_iq4_xs(void *row, const float *x, int n)
{
    struct block_iq4_xs *b = row;
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK, b++) {
        struct fit_signed f = { &iq4_ladder, .n_subs = 8, .len = 32, .sub_low = -32, .sub_high = 31 };
        int sub_high = 0;
        fit_signed(&f, x);
        b->scale = f.scale;
        for (int s = 0; s < 8; s++)
            sub_high |= (f.sub[s] + 32) >> 4 << 2 * s;
        b->sub_high = (uint16_t)sub_high;
        for (int s = 0; s < 4; s++)
            b->sub_low[s] = (uint8_t)(((f.sub[2 * s] + 32) & 15) | ((f.sub[2 * s + 1] + 32) & 15) << 4);
        pack_nibbles(b->q, f.q, 16);
    }
}

/* The largest value a block can hold is 12 halves: the two powers of two around largest / 12 are tried. */
void quantise_mxfp4(void *row, const float *x, int n)
{
    static const int8_t ascending[15] = { -12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12 };
    static const struct ladder ladder = { 0, 15, ascending };
    struct block_mxfp4 *b = row;
    for (; n > 0; n -= 32, x += 32, b++) {
        float largest = 0;
        for (int i = 0; i < 32; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        int power = largest > 0 && isfinite(largest) ? ilogbf(largest) - 2 + 127 : 0;
        double best = INFINITY;
        *b = (struct block_mxfp4){ 0 };
        for (int e = power; e <= power + 1; e++) {
            uint8_t q[32], exponent = (uint8_t)(e < 0 ? 0 : e > 254 ? 254 : e);
            double error = ladder_encode(&ladder, mxfp4_scale(exponent), x, 32, q);
            if (!(error < best))
                continue;
            best = error;
            b->exponent = exponent;
            for (int i = 0; i < 32; i++) /* the codes of the file: 0 to 7 up from zero, 9 to 15 down */
                q[i] = (uint8_t)(q[i] >= 7 ? q[i] - 7 : 15 - q[i]);
            for (int i = 0; i < 16; i++)
                b->q[i] = (uint8_t)(q[i] | q[i + 16] << 4);
        }
    }
}

#include "worker/kernels/quantise.h"

#include <stddef.h>
#include <string.h>

#include "worker/kernels/half.h"

static void store_f32(void *row, const float *x, int n)
{
    memcpy(row, x, (size_t)n * sizeof *x);
}

static void store_f16(void *row, const float *x, int n)
{
    uint16_t *out = row;
    for (int i = 0; i < n; i++)
        out[i] = half_of_float(x[i]);
}

/* Rounds to nearest, ties to even: the carry runs into the exponent by itself. A NaN stays one. */
static void store_bf16(void *row, const float *x, int n)
{
    uint16_t *out = row;
    for (int i = 0; i < n; i++) {
        uint32_t bits = bits_of_float(x[i]);
        if ((bits & 0x7fffffff) > 0x7f800000)
            out[i] = (uint16_t)(bits >> 16 | 64);
        else
            out[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

quantise_fn *weight_quantiser(enum weight_type type)
{
    static quantise_fn *const quantisers[WEIGHT_TYPES] = {
        [WEIGHT_F32] = store_f32,        [WEIGHT_F16] = store_f16,          [WEIGHT_BF16] = store_bf16,
        [WEIGHT_Q8_0] = quantise_q8_0,   [WEIGHT_Q4_0] = quantise_q4_0,     [WEIGHT_Q4_1] = quantise_q4_1,
        [WEIGHT_Q5_0] = quantise_q5_0,   [WEIGHT_Q5_1] = quantise_q5_1,     [WEIGHT_Q2_K] = quantise_q2_k,
        [WEIGHT_Q3_K] = quantise_q3_k,   [WEIGHT_Q4_K] = quantise_q4_k,     [WEIGHT_Q5_K] = quantise_q5_k,
        [WEIGHT_Q6_K] = quantise_q6_k,   [WEIGHT_IQ4_NL] = quantise_iq4_nl, [WEIGHT_IQ4_XS] = quantise_iq4_xs,
        [WEIGHT_MXFP4] = quantise_mxfp4, [WEIGHT_TQ1_0] = quantise_tq1_0,   [WEIGHT_TQ2_0] = quantise_tq2_0,
        [WEIGHT_Q8_K] = quantise_q8_k,
    };
    return quantisers[type];
}

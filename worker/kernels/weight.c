#include "worker/kernels/weight.h"

#include <stddef.h>
#include <string.h>

#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"

static const struct weight_info infos[WEIGHT_TYPES] = {
    [WEIGHT_F32] = { "F32", 1, 4 },
    [WEIGHT_F16] = { "F16", 1, 2 },
    [WEIGHT_Q4_0] = { "Q4_0", 32, 18 },
    [WEIGHT_Q4_1] = { "Q4_1", 32, 20 },
    [WEIGHT_Q5_0] = { "Q5_0", 32, 22 },
    [WEIGHT_Q5_1] = { "Q5_1", 32, 24 },
    [WEIGHT_Q8_0] = { "Q8_0", 32, 34 },
    [WEIGHT_Q8_1] = { "Q8_1", 32, 36 },
    [WEIGHT_Q2_K] = { "Q2_K", 256, 84 },
    [WEIGHT_Q3_K] = { "Q3_K", 256, 110 },
    [WEIGHT_Q4_K] = { "Q4_K", 256, 144 },
    [WEIGHT_Q5_K] = { "Q5_K", 256, 176 },
    [WEIGHT_Q6_K] = { "Q6_K", 256, 210 },
    [WEIGHT_Q8_K] = { "Q8_K", 256, 292 },
    [WEIGHT_IQ2_XXS] = { "IQ2_XXS", 256, 66 },
    [WEIGHT_IQ2_XS] = { "IQ2_XS", 256, 74 },
    [WEIGHT_IQ3_XXS] = { "IQ3_XXS", 256, 98 },
    [WEIGHT_IQ1_S] = { "IQ1_S", 256, 50 },
    [WEIGHT_IQ4_NL] = { "IQ4_NL", 32, 18 },
    [WEIGHT_IQ3_S] = { "IQ3_S", 256, 110 },
    [WEIGHT_IQ2_S] = { "IQ2_S", 256, 82 },
    [WEIGHT_IQ4_XS] = { "IQ4_XS", 256, 136 },
    [WEIGHT_I8] = { "I8", 1, 1 },
    [WEIGHT_I16] = { "I16", 1, 2 },
    [WEIGHT_I32] = { "I32", 1, 4 },
    [WEIGHT_I64] = { "I64", 1, 8 },
    [WEIGHT_F64] = { "F64", 1, 8 },
    [WEIGHT_IQ1_M] = { "IQ1_M", 256, 56 },
    [WEIGHT_BF16] = { "BF16", 1, 2 },
    [WEIGHT_TQ1_0] = { "TQ1_0", 256, 54 },
    [WEIGHT_TQ2_0] = { "TQ2_0", 256, 66 },
    [WEIGHT_MXFP4] = { "MXFP4", 32, 17 },
};

const struct weight_info *weight_info(uint32_t type)
{
    return type < WEIGHT_TYPES && infos[type].name ? &infos[type] : NULL;
}

const char *weight_name(enum weight_type type)
{
    return infos[type].name;
}

uint64_t weight_row_bytes(enum weight_type type, uint64_t elements)
{
    return elements / (uint64_t)infos[type].block_len * (uint64_t)infos[type].block_bytes;
}

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

dequantise_fn *weight_dequantise(enum weight_type type)
{
    static dequantise_fn *const functions[WEIGHT_TYPES] = {
        [WEIGHT_F32] = dequantise_f32,       [WEIGHT_F16] = dequantise_f16,
        [WEIGHT_BF16] = dequantise_bf16,     [WEIGHT_Q4_0] = dequantise_q4_0,
        [WEIGHT_Q4_1] = dequantise_q4_1,     [WEIGHT_Q5_0] = dequantise_q5_0,
        [WEIGHT_Q5_1] = dequantise_q5_1,     [WEIGHT_Q8_0] = dequantise_q8_0,
        [WEIGHT_Q2_K] = dequantise_q2_k,     [WEIGHT_Q3_K] = dequantise_q3_k,
        [WEIGHT_Q4_K] = dequantise_q4_k,     [WEIGHT_Q5_K] = dequantise_q5_k,
        [WEIGHT_Q6_K] = dequantise_q6_k,     [WEIGHT_Q8_K] = dequantise_q8_k,
        [WEIGHT_IQ4_NL] = dequantise_iq4_nl, [WEIGHT_IQ4_XS] = dequantise_iq4_xs,
        [WEIGHT_MXFP4] = dequantise_mxfp4,   [WEIGHT_TQ1_0] = dequantise_tq1_0,
        [WEIGHT_TQ2_0] = dequantise_tq2_0,
    };
    return functions[type];
}

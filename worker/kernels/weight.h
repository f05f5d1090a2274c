/* The weight types of GGUF files: their numbers, names and block sizes. A tensor's row of n elements takes
 * n / block_len * block_bytes bytes; n is always a multiple of block_len. Which of them the engine can
 * compute with is what the kernel table says, not this one. */
#ifndef WOOLLY_KERNELS_WEIGHT_H
#define WOOLLY_KERNELS_WEIGHT_H

#include <stdint.h>

enum weight_type {
    WEIGHT_F32 = 0,
    WEIGHT_F16 = 1,
    WEIGHT_Q4_0 = 2,
    WEIGHT_Q4_1 = 3,
    WEIGHT_Q5_0 = 6,
    WEIGHT_Q5_1 = 7,
    WEIGHT_Q8_0 = 8,
    WEIGHT_Q8_1 = 9,
    WEIGHT_Q2_K = 10,
    WEIGHT_Q3_K = 11,
    WEIGHT_Q4_K = 12,
    WEIGHT_Q5_K = 13,
    WEIGHT_Q6_K = 14,
    WEIGHT_Q8_K = 15,
    WEIGHT_IQ2_XXS = 16,
    WEIGHT_IQ2_XS = 17,
    WEIGHT_IQ3_XXS = 18,
    WEIGHT_IQ1_S = 19,
    WEIGHT_IQ4_NL = 20,
    WEIGHT_IQ3_S = 21,
    WEIGHT_IQ2_S = 22,
    WEIGHT_IQ4_XS = 23,
    WEIGHT_I8 = 24,
    WEIGHT_I16 = 25,
    WEIGHT_I32 = 26,
    WEIGHT_I64 = 27,
    WEIGHT_F64 = 28,
    WEIGHT_IQ1_M = 29,
    WEIGHT_BF16 = 30,
    WEIGHT_TQ1_0 = 34,
    WEIGHT_TQ2_0 = 35,
    WEIGHT_MXFP4 = 39,
    WEIGHT_TYPES = 40 /* one more than the highest number known */
};

struct weight_info {
    const char *name; /* "Q4_0" */
    int block_len;    /* elements */
    int block_bytes;
};

/* NULL for a number no type has. */
const struct weight_info *weight_info(uint32_t type);

/* "Q4_0", of a type that weight_info knows. */
const char *weight_name(enum weight_type type);

/* Turns one row of n weights, as in a file, to f32; NULL for types without numbers of our own. */
typedef void dequantise_fn(float *out, const void *row, int n);
dequantise_fn *weight_dequantise(enum weight_type type);

/* Bytes of one row of `elements`, which is a multiple of block_len. */
uint64_t weight_row_bytes(enum weight_type type, uint64_t elements);

#endif

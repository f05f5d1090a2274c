/* The product for weight types that have no kernel of their own: a piece of a few weight rows is turned to
 * f32 on the stack and goes through the level's own f32 product with every activation row. The pieces are cut
 * at fixed places and their sums added in order, so a result depends on nothing but its two rows. */
#ifndef WOOLLY_KERNELS_UNPACKED_H
#define WOOLLY_KERNELS_UNPACKED_H

#include "worker/kernels/levels.h"

typedef void dequantise_fn(float *out, const void *row, int n);
typedef void multiply_fn(float *out, size_t out_stride, const void *weights, int first, int last,
                         const struct activations *a);

void multiply_unpacked(enum weight_type type, dequantise_fn *dequantise, multiply_fn *multiply_f32,
                       float *out, size_t out_stride, const void *weights, int first, int last,
                       const struct activations *a);

#define UNPACKED_TYPES(X)                                                                                    \
    X(q4_1, WEIGHT_Q4_1)                                                                                     \
    X(q5_0, WEIGHT_Q5_0)                                                                                     \
    X(q5_1, WEIGHT_Q5_1)                                                                                     \
    X(q2_k, WEIGHT_Q2_K)                                                                                     \
    X(q3_k, WEIGHT_Q3_K)                                                                                     \
    X(q4_k, WEIGHT_Q4_K)                                                                                     \
    X(q5_k, WEIGHT_Q5_K)                                                                                     \
    X(q6_k, WEIGHT_Q6_K)                                                                                     \
    X(q8_k, WEIGHT_Q8_K)                                                                                     \
    X(iq4_nl, WEIGHT_IQ4_NL)                                                                                 \
    X(iq4_xs, WEIGHT_IQ4_XS)                                                                                 \
    X(tq1_0, WEIGHT_TQ1_0)                                                                                   \
    X(tq2_0, WEIGHT_TQ2_0)                                                                                   \
    X(mxfp4, WEIGHT_MXFP4)

/* For a level that has a multiply_f32: the products, and their entries in its table. */
#define UNPACKED_PRODUCT(name, type)                                                                         \
    static void multiply_##name(float *out, size_t out_stride, const void *weights, int first, int last,     \
                                const struct activations *a)                                                 \
    {                                                                                                        \
        multiply_unpacked(type, dequantise_##name, multiply_f32, out, out_stride, weights, first, last, a);  \
    }
#define UNPACKED_ENTRY(name, type) k->weights[type].multiply = multiply_##name;
#define UNPACKED_REFERENCE(name, type)                                                                       \
    k->weights[type] = (struct weight_kernels){ false, dequantise_##name, multiply_##name };

#endif

/* From numbers to the blocks of weight types, for writing model files: slow and careful, never on the way of
 * a token. Any thread may call any of it.
 *
 * Types with one scale per 32 weights follow the reference's arithmetic to the bit. The others look for the
 * smallest sum of squared errors: that is the expected squared error of a product with activations of equal
 * variance, and nothing is known of the activations here. */
#ifndef WOOLLY_KERNELS_QUANTISE_H
#define WOOLLY_KERNELS_QUANTISE_H

#include "worker/kernels/weight.h"

/* n finite numbers into whole blocks at row. Numbers that are not finite give some valid block. */
typedef void quantise_fn(void *row, const float *x, int n);

/* NULL for a type that cannot be written. */
quantise_fn *weight_quantiser(enum weight_type type);

void quantise_q8_0(void *row, const float *x, int n);
void quantise_q4_0(void *row, const float *x, int n);
void quantise_q4_1(void *row, const float *x, int n);
void quantise_q5_0(void *row, const float *x, int n);
void quantise_q5_1(void *row, const float *x, int n);
void quantise_q2_k(void *row, const float *x, int n);
void quantise_q3_k(void *row, const float *x, int n);
void quantise_q4_k(void *row, const float *x, int n);
void quantise_q5_k(void *row, const float *x, int n);
void quantise_q6_k(void *row, const float *x, int n);
void quantise_q8_k(void *row, const float *x, int n);
void quantise_iq4_nl(void *row, const float *x, int n);
void quantise_iq4_xs(void *row, const float *x, int n);
void quantise_mxfp4(void *row, const float *x, int n);
void quantise_tq1_0(void *row, const float *x, int n);
void quantise_tq2_0(void *row, const float *x, int n);

#endif

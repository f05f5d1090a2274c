/* Inside of kernels: what each job and instruction set puts into the table, and what they share. */
#ifndef WOOLLY_KERNELS_LEVELS_H
#define WOOLLY_KERNELS_LEVELS_H

#include "worker/kernels/blocks.h"
#include "worker/kernels/kernels.h"

void rows_init_scalar(struct kernels *k);
void rows_init_avx2(struct kernels *k);
void rows_init_avx512(struct kernels *k);
void attention_init_scalar(struct kernels *k);
void attention_init_avx2(struct kernels *k);
void attention_init_avx512(struct kernels *k);

/* The numbers of GELU's tanh formula: sqrt(2 / pi), and the weight of the cube. */
#define GELU_SCALE 0.797884560802865356f
#define GELU_CUBE  0.044715f

#endif

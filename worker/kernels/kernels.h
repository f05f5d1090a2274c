/* The arithmetic of the engine: one table of functions, filled with the scalar reference and then overwritten
 * job by job with what the instruction set at hand does faster. Includes only libc; keeps no state; every
 * function may be called by any thread.
 *
 * The rule that makes a request's answer independent of its neighbours: each output element is computed by
 * one fixed sequence of operations, whatever the number of activation rows, the range [first, last) of output
 * rows asked for, or the place of the element in a tile. Two levels may differ in the last bits, one level
 * never differs from itself.
 *
 * Quantised weights meet activations of 16 bits, not 8: blocks of 32 with one f32 scale each. With weights in
 * the file's layout (one scale per 32) a 512-bit int16 dot product takes as many instructions per block as a
 * 256-bit int8 one, and it takes the rounding of activations out of the logits: 8-bit activations put the
 * error of stories260K-Q8_0 at 0.06 root mean square, these below 0.001. */
#ifndef WOOLLY_KERNELS_KERNELS_H
#define WOOLLY_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/kernels/weight.h"

enum isa {
    ISA_SCALAR,
    ISA_AVX2,   /* with FMA and F16C */
    ISA_AVX512, /* F, BW, DQ, VL, VNNI, and all of ISA_AVX2 */
    ISA_COUNT
};

enum { Q16_BLOCK = 32 }; /* elements that share a scale in quantised activations */

/* Rows of activations. x is always there; q and q_scale where the weight type wants_q16. */
struct activations {
    int n_rows;
    int n;                /* elements per row */
    size_t stride;        /* elements from row to row, a multiple of Q16_BLOCK */
    const float *x;       /* [n_rows][stride] */
    const int16_t *q;     /* [n_rows][stride], 64-byte aligned: x is about q * q_scale */
    const float *q_scale; /* [n_rows][stride / Q16_BLOCK] */
};

/* The query heads of one row that share one KV head, over positions first_pos..n_pos-1. */
struct attention {
    int n_group;   /* query heads */
    int first_pos; /* what lies before is out of the window */
    int n_pos;     /* more than first_pos */
    int head_dim;
    float scale;    /* of the scores */
    float soft_cap; /* scores become soft_cap * tanh(score / soft_cap); 0 for none */
    const float *q; /* [n_group][head_dim] */
    const void *k;  /* [n_pos][head_dim], f32 or f16 as the kernel says */
    const void *v;  /* [n_pos][head_dim] */
    float *out;     /* [n_group][head_dim] */
};

struct weight_kernels {
    bool wants_q16;

    /* One row of n weights to f32. */
    void (*dequantise)(float *out, const void *row, int n);

    /* out[r * out_stride + i] = weight row i times activation row r, for every r and first <= i < last.
     * `weights` is row 0; rows are a->n elements each and lie as in the file. */
    void (*multiply)(float *out, size_t out_stride, const void *weights, int first, int last,
                     const struct activations *a);
};

struct kernels {
    enum isa isa;
    struct weight_kernels weights[WEIGHT_TYPES]; /* multiply is NULL for types we cannot compute with */

    /* One row. n is a multiple of Q16_BLOCK. A block that holds infinity or NaN gets a NaN scale. */
    void (*quantise)(int16_t *q, float *q_scale, const float *x, int n);

    /* out = x / sqrt(mean(x^2) + eps) * weight; out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *weight, int n, float eps);

    /* out = (x - mean) / sqrt(variance + eps) * weight + bias; out may be x. */
    void (*layer_norm)(float *out, const float *x, const float *weight, const float *bias, int n, float eps);

    /* Turns the pairs (x[2i], x[2i+1]), i < n_pairs, by the angles whose cosines and sines are given. */
    void (*rope)(float *x, const float *cosines, const float *sines, int n_pairs);

    /* The same for the pairs (x[i], x[i + n_pairs]). */
    void (*rope_halves)(float *x, const float *cosines, const float *sines, int n_pairs);

    /* gate = gate / (1 + exp(-gate)) * up */
    void (*silu_gate)(float *gate, const float *up, int n);

    /* gate = gelu(gate) * up, or gelu(gate) where up is NULL; gelu by its tanh formula */
    void (*gelu_gate)(float *gate, const float *up, int n);

    /* x = cap * tanh(x / cap) */
    void (*soft_cap)(float *x, float cap, int n);

    /* x += y */
    void (*add)(float *x, const float *y, int n);

    /* Rounds to nearest, ties to even; too large becomes infinity. */
    void (*store_f16)(uint16_t *out, const float *x, int n);

    /* Softmax-weighted sum of values, one block of positions at a time, so no score outlives its block.
     * Blocks are cut at fixed absolute positions. */
    void (*attend_f32)(const struct attention *a);
    void (*attend_f16)(const struct attention *a);
};

const char *isa_name(enum isa isa);

/* Whether this build has the level and this CPU runs it. */
bool isa_is_available(enum isa isa);

/* Fills the table; the level must be available. */
void kernels_init(struct kernels *k, enum isa isa);

/* The level to run on: what the environment variable WOOLLY_ISA names, else the best available. False, with
 * one line in `problem`, when it names none or one this CPU lacks. */
bool isa_choose(enum isa *isa, char *problem, size_t problem_size);

#endif

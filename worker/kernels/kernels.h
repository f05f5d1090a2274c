/* The arithmetic of the engine: one table of functions, filled with the scalar reference and then overwritten
 * job by job with what the instruction set at hand does faster. Includes only libc; keeps no state; every
 * function may be called by any thread.
 *
 * The rule that makes a request's answer independent of its neighbours: each output element is computed by
 * one fixed sequence of operations, whatever the number of activation rows, the range [first, last) of output
 * rows asked for, or the place of the element in a tile. Two levels may differ in the last bits, one level
 * never differs from itself.
 *
 * Products are of packed weights: packed.h. */
#ifndef WOOLLY_KERNELS_KERNELS_H
#define WOOLLY_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/kernels/attention_tile.h"
#include "worker/kernels/packed.h"

enum isa {
    ISA_SCALAR,
    ISA_AVX2,      /* with FMA and F16C */
    ISA_AVXVNNI,   /* AVX-VNNI, and all of ISA_AVX2 */
    ISA_AVX512,    /* F, BW, DQ, VL, VNNI, and all of ISA_AVX2 */
    ISA_NEON,      /* with dot products; only products of weights are faster than scalar */
    ISA_NEON_I8MM, /* and with products of 8-bit matrices */
    ISA_COUNT
};

/* Passes over the logits of one token, which lie in blocks of LOGIT_BLOCK. Not-a-number counts as minus
 * infinity, plus infinity as FLT_MAX. Every level gives the same bits. */
enum { LOGIT_BLOCK = 128 };

struct logit_kernels {
    /* maxima[b] = the highest of block b */
    void (*maxima)(float *maxima, const float *x, int n);

    /* weights[i] = exp((x[i] - max) * slope), for max the highest of x; below e^-87 it is 0 */
    void (*weights)(float *weights, const float *x, int n, float max, float slope);

    /* sums[b] = the sum of such weights over block b */
    void (*sums)(float *sums, const float *x, int n, float max, float slope);

    /* The sum of the weights, or their number where `weights` is NULL, over those that are at least `least`,
     * which is more than minus infinity. */
    double (*sum_above)(const float *x, const float *weights, int n, float least);

    /* Those between `least`, which is finite, and `most`, and their places, in order; returns how many. Both
     * arrays must have room for 16 more; `found` may be x. With `maxima` blocks that hold none are passed
     * over. */
    int (*collect)(float *found, int32_t *places, const float *x, int n, const float *maxima, float least,
                   float most);
};

struct kernels {
    enum isa isa;
    struct logit_kernels logits;
    const struct packed_level *packed;

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

    struct attention_kernels attention;
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

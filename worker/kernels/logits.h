/* The passes over a row of logits, written once in the compiler's vectors; every level defines LOGIT_LANES,
 * the floats of its registers, includes this file and so compiles it for itself. All arithmetic is single
 * operations of IEEE floats in one fixed order, nothing fused: every level gives the same bits, and a request
 * sampled on one machine goes on the same on another.
 *
 * A logit as the formulas can bear it: NaN counts as minus infinity, plus infinity as FLT_MAX. */
#ifndef WOOLLY_KERNELS_LOGITS_H
#define WOOLLY_KERNELS_LOGITS_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "worker/kernels/kernels.h"
#include "worker/kernels/simd.h"

typedef float logit_lanes __attribute__((vector_size(4 * LOGIT_LANES)));
typedef float logit_four __attribute__((vector_size(16)));
typedef uint32_t logit_bits __attribute__((vector_size(4 * LOGIT_LANES)));

/* Four chains of exp side by side: 38 us for 150,000 logits, one after the other 53 (AVX-512, gcc 12). */
enum { LOGIT_VECTORS = LOGIT_BLOCK / LOGIT_LANES, LOGIT_GROUP = 4 };

INLINE logit_lanes logit_load(const float *x)
{
    logit_lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

#define LOGIT_EACH _Pragma("GCC unroll 4") for (int i = 0; i < LOGIT_GROUP; i++)

/* exp of what is not above 0, within 1e-7 of itself; 0 below EXP_LOWEST and for NaN, 1 above 0. Adding
 * 1.5 * 2^23 rounds to an integer that then stands in the lowest bits. The terms of the series are paired,
 * for shorter chains. */
INLINE void logit_exp(logit_lanes x[LOGIT_GROUP])
{
    const float rounder = 12582912;
    logit_lanes shifted[LOGIT_GROUP], n[LOGIT_GROUP], r[LOGIT_GROUP], r2[LOGIT_GROUP], e[LOGIT_GROUP];
    LOGIT_EACH r[i] = (logit_lanes)((logit_bits)(x[i] < 0) & (logit_bits)x[i]);
    LOGIT_EACH shifted[i] = r[i] * LOG2_E + rounder;
    LOGIT_EACH n[i] = shifted[i] - rounder;
    LOGIT_EACH r[i] = r[i] - n[i] * LN2_HIGH - n[i] * LN2_LOW;
    LOGIT_EACH r2[i] = r[i] * r[i];
    LOGIT_EACH e[i] = (EXP_C4 + EXP_C5 * r[i]) + r2[i] * (EXP_C6 + EXP_C7 * r[i]);
    LOGIT_EACH e[i] = (EXP_C2 + EXP_C3 * r[i]) + r2[i] * e[i];
    LOGIT_EACH e[i] = 1 + (r[i] + r2[i] * e[i]);
    LOGIT_EACH e[i] *= (logit_lanes)(((logit_bits)shifted[i] << 23) + 0x3f800000u);
    LOGIT_EACH x[i] = (logit_lanes)((logit_bits)(x[i] >= EXP_LOWEST) & (logit_bits)e[i]);
}

/* A whole block at x: in place, or the last and shorter one with `filler` behind it. */
INLINE const float *logit_block(float padded[LOGIT_BLOCK], const float *x, int n, float filler)
{
    if (n >= LOGIT_BLOCK)
        return x;
    for (int i = 0; i < LOGIT_BLOCK; i++)
        padded[i] = i < n ? x[i] : filler;
    return padded;
}

/* a > b ? a : b, so b where one is NaN */
#ifndef LOGIT_HIGHER
INLINE logit_lanes logit_higher(logit_lanes a, logit_lanes b)
{
    logit_bits is_above = (logit_bits)(a > b);
    return (logit_lanes)((is_above & (logit_bits)a) | (~is_above & (logit_bits)b));
}
#define LOGIT_HIGHER logit_higher
#endif

static void logit_maxima(float *maxima, const float *x, int n)
{
    for (int at = 0; at < n; at += LOGIT_BLOCK) {
        float padded[LOGIT_BLOCK], lanes[LOGIT_LANES];
        const float *block = logit_block(padded, x + at, n - at, -INFINITY);
        logit_lanes a = (logit_lanes){ 0 } - INFINITY, b = a;
        for (int i = 0; i < LOGIT_BLOCK; i += 2 * LOGIT_LANES) {
            a = LOGIT_HIGHER(logit_load(block + i), a);
            b = LOGIT_HIGHER(logit_load(block + i + LOGIT_LANES), b);
        }
        a = LOGIT_HIGHER(a, b);
        memcpy(lanes, &a, sizeof lanes);
        for (int half = LOGIT_LANES / 2; half > 0; half /= 2)
            for (int i = 0; i < half; i++)
                lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
        *maxima++ = lanes[0] < FLT_MAX ? lanes[0] : FLT_MAX;
    }
}

/* The sum of a block, by halves: the first 64 and the last 64, and so on. */
INLINE float logit_sum(logit_lanes w[LOGIT_VECTORS])
{
    logit_four fours[LOGIT_LANES / 4];
#pragma GCC unroll 16
    for (int half = LOGIT_VECTORS / 2; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < half; i++)
            w[i] += w[i + half];
    memcpy(fours, &w[0], sizeof fours);
#pragma GCC unroll 16
    for (int half = LOGIT_LANES / 8; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < half; i++)
            fours[i] += fours[i + half];
    return (fours[0][0] + fours[0][2]) + (fours[0][1] + fours[0][3]);
}

INLINE void logit_block_weights(logit_lanes w[LOGIT_VECTORS], const float *block, float max, float slope)
{
#pragma GCC unroll 32
    for (int at = 0; at < LOGIT_VECTORS; at += LOGIT_GROUP) {
        LOGIT_EACH w[at + i] = (logit_load(block + (at + i) * LOGIT_LANES) - max) * slope;
        logit_exp(w + at);
    }
}

static void logit_weights(float *weights, const float *x, int n, float max, float slope)
{
    for (int at = 0; at < n; at += LOGIT_BLOCK) {
        float padded[LOGIT_BLOCK];
        logit_lanes w[LOGIT_VECTORS];
        logit_block_weights(w, logit_block(padded, x + at, n - at, -INFINITY), max, slope);
        if (n - at >= LOGIT_BLOCK)
            memcpy(weights + at, w, sizeof w);
        else
            memcpy(weights + at, w, (size_t)(n - at) * sizeof *weights);
    }
}

static void logit_sums(float *sums, const float *x, int n, float max, float slope)
{
    for (int at = 0; at < n; at += LOGIT_BLOCK) {
        float padded[LOGIT_BLOCK];
        logit_lanes w[LOGIT_VECTORS];
        logit_block_weights(w, logit_block(padded, x + at, n - at, -INFINITY), max, slope);
        *sums++ = logit_sum(w);
    }
}

static double logit_sum_above(const float *x, const float *weights, int n, float least)
{
    double sum = 0;
    for (int at = 0; at < n; at += LOGIT_BLOCK) {
        float padded[LOGIT_BLOCK], padded_weights[LOGIT_BLOCK];
        logit_lanes w[LOGIT_VECTORS], ones = 1 - (logit_lanes){ 0 };
        const float *block = logit_block(padded, x + at, n - at, -INFINITY);
        const float *block_weights = weights ? logit_block(padded_weights, weights + at, n - at, 0) : NULL;
#pragma GCC unroll 16
        for (int i = 0; i < LOGIT_VECTORS; i++) {
            logit_lanes here = weights ? logit_load(block_weights + i * LOGIT_LANES) : ones;
            logit_bits is_reached = (logit_bits)(logit_load(block + i * LOGIT_LANES) >= least);
            w[i] = (logit_lanes)(is_reached & (logit_bits)here);
        }
        sum += logit_sum(w);
    }
    return sum;
}

static inline void logits_init(struct kernels *k)
{
    k->logits.maxima = logit_maxima;
    k->logits.weights = logit_weights;
    k->logits.sums = logit_sums;
    k->logits.sum_above = logit_sum_above;
}

#endif

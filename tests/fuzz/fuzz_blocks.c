/* Any bytes as blocks of any weight type: dequantising and products stay inside their memory, every level
 * agrees with the scalar one or both are not finite, and any finite numbers can be quantised to any type. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/kernels/kernels.h"
#include "worker/kernels/quantise.h"

enum { MAX_N = 512, N_ROWS = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(int holds)
{
    if (!holds)
        abort();
}

/* A fixed row of activations between -1 and 1. */
static void fill_activations(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)((i * 37 + 11) % 201 - 100) / 100;
}

/* Sums in another order differ by roundings of what was summed; where a term or sum overflows all bets are
 * off. `sizes` is the sum of the sizes of the terms. */
static void compare(float a, float b, double sizes, int n)
{
    if (!(sizes < FLT_MAX / 4))
        return;
    require(isfinite(a) && isfinite(b));
    require(fabs((double)a - b) <= 4.0 * n * FLT_EPSILON * sizes + n * (double)FLT_MIN);
}

static void check_product(enum weight_type type, const uint8_t *row, const float *w, int n)
{
    static float x[N_ROWS * MAX_N], q_scale[N_ROWS * MAX_N / Q16_BLOCK];
    static int16_t q[N_ROWS * MAX_N] __attribute__((aligned(64)));
    float reference[N_ROWS];
    double sizes = 0;
    for (int r = 0; r < N_ROWS; r++)
        fill_activations(x + r * MAX_N, MAX_N - r);
    for (int i = 0; i < n; i++)
        sizes += fabs((double)w[i]);
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        struct kernels k;
        float out[N_ROWS];
        if (!isa_is_available(isa))
            continue;
        kernels_init(&k, isa);
        for (int r = 0; r < N_ROWS; r++)
            k.quantise(q + r * MAX_N, q_scale + r * MAX_N / Q16_BLOCK, x + r * MAX_N, MAX_N);
        struct activations a = { N_ROWS, n, MAX_N, x, q, q_scale };
        k.weights[type].multiply(out, 1, row, 0, 1, &a);
        if (isa == ISA_SCALAR)
            memcpy(reference, out, sizeof out);
        for (int r = 0; r < N_ROWS; r++)
            compare(out[r], reference[r], sizes, n);
    }
}

static void check_quantiser(enum weight_type type, const float *x, int n)
{
    quantise_fn *quantise = weight_quantiser(type);
    if (!quantise)
        return;
    void *row = malloc(weight_row_bytes(type, (uint64_t)n));
    quantise(row, x, n);
    free(row);
}

/* The first byte names a type, the others are a row of it; the numbers they give are quantised to the type
 * that the second byte names. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static float w[MAX_N];
    struct kernels k;
    kernels_init(&k, ISA_SCALAR);
    if (!len || !weight_info(bytes[0]) || !k.weights[bytes[0]].multiply)
        return 0;
    enum weight_type type = bytes[0];
    size_t block = (size_t)weight_info(type)->block_bytes, block_len = (size_t)weight_info(type)->block_len;
    size_t n_blocks = (len - 1) / block;
    if (n_blocks > MAX_N / block_len)
        n_blocks = MAX_N / block_len;
    if (!n_blocks)
        return 0;
    int n = (int)(n_blocks * block_len);
    uint8_t *row = malloc(n_blocks * block); /* of its own, so that reading past the end is seen */
    memcpy(row, bytes + 1, n_blocks * block);
    k.weights[type].dequantise(w, row, n);
    check_product(type, row, w, n);
    enum weight_type to = bytes[1] % WEIGHT_TYPES;
    if (weight_info(to) && n % weight_info(to)->block_len == 0)
        check_quantiser(to, w, n);
    free(row);
    return 0;
}

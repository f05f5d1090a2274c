/* Any bytes as blocks of any weight type: dequantising, packing and products stay inside their memory, every
 * level gives the bits of the scalar one, and any finite numbers can be quantised to any type. */
#include <float.h>
#include <math.h>
#include <stdbool.h>
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

/* Activations of at most 1 are rounded by at most half a step of 1 / 127. `sizes` is the sum of the sizes of
 * the weights. Sums are up to 127 * 8 times the result before the scale of the activations comes in: where
 * that is near overflow all bets are off. */
static void compare(float a, double b, double sizes, int n)
{
    if (!(sizes < FLT_MAX / 4096))
        return;
    require(isfinite(a));
    require(fabs(a - b) <= (0.5 / 127 + 4.0 * n * FLT_EPSILON) * sizes + n * (double)FLT_MIN);
}

/* For some bytes a product is far from that of the numbers: a scale and a minimum that nearly cancel leave a
 * small weight with the rounding of large numbers; a scale of the range of f32 may overflow when it meets a
 * level, though its weights are 0. */
static bool is_always_near(enum weight_type type)
{
    switch (type) {
    case WEIGHT_Q4_1:
    case WEIGHT_Q5_1:
    case WEIGHT_Q2_K:
    case WEIGHT_Q4_K:
    case WEIGHT_Q5_K:
    case WEIGHT_Q8_K:
    case WEIGHT_MXFP4:
        return false;
    default:
        return true;
    }
}

static bool is_same(const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i] != b[i] && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

static void multiply(const struct kernels *k, enum weight_type type, const void *packed, float *out,
                     const float *x, int n)
{
    static struct activation_block blocks[MAX_N / PACK_K * N_ROWS];
    for (int r = 0; r < N_ROWS; r++)
        packed_quantise(k->packed, blocks + r, N_ROWS, 1, x + r * MAX_N, n);
    struct activations a = { N_ROWS, n, MAX_N, x, 1, N_ROWS, blocks };
    packed_multiply(k->packed, type, out, 1, packed, 0, 1, &a);
}

/* Every level gives the bits of the scalar one, and that is near what f32 numbers give. */
static void check_product(enum weight_type type, const uint8_t *row, const float *w, int n)
{
    static float x[N_ROWS * MAX_N];
    float reference[N_ROWS];
    double sizes = 0;
    void *packed = aligned_alloc(64, packed_size(type, 1, n));
    pack_rows(packed, type, row, n, 0, 1);
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
        multiply(&k, type, packed, out, x, n);
        if (isa == ISA_SCALAR)
            memcpy(reference, out, sizeof out);
        require(is_same(out, reference, N_ROWS));
    }
    free(packed);
    for (int r = 0; r < N_ROWS && is_always_near(type); r++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += (double)w[i] * (double)x[r * MAX_N + i];
        compare(reference[r], sum, sizes, n);
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
    if (!len || !weight_info(bytes[0]) || !weight_dequantise(bytes[0]))
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
    weight_dequantise(type)(w, row, n);
    check_product(type, row, w, n);
    enum weight_type to = bytes[1] % WEIGHT_TYPES;
    if (weight_info(to) && n % weight_info(to)->block_len == 0)
        check_quantiser(to, w, n);
    free(row);
    return 0;
}

/* Every kernel of every instruction set this CPU has, against double precision or the scalar reference: odd
 * sizes, inputs and outputs that end at a forbidden page, outputs poisoned beforehand, and bounds on the
 * error that follow from the number of roundings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/kernels/half.h"
#include "worker/kernels/kernels.h"

#define EPS ((double)FLT_EPSILON)

/* A seeded generator of our own, so that every run sees the same numbers. */
static uint64_t random_state;

static uint32_t random_word(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* -1 to 1 */
static float random_float(void)
{
    return (float)random_word() / (float)(1u << 30) - 1;
}

/* Memory whose last byte lies right before a page that may not be touched. */
struct guarded {
    char *map;
    size_t map_bytes;
    void *data;
};

static struct guarded guarded_create(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    struct guarded g = { .map_bytes = body + page };
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + body, page, PROT_NONE), 0);
    g.data = g.map + body - bytes;
    return g;
}

static void guarded_destroy(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
}

static struct guarded guarded_floats(size_t n)
{
    struct guarded g = guarded_create(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        ((float *)g.data)[i] = random_float();
    return g;
}

static struct guarded guarded_poison(size_t n)
{
    struct guarded g = guarded_create(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        ((float *)g.data)[i] = NAN;
    return g;
}

/* Calls the check with each level there is; says which ones did not run. */
static void on_every_level(void (*check)(const struct kernels *k))
{
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        struct kernels k;
        if (!isa_is_available(isa)) {
            print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
            continue;
        }
        kernels_init(&k, isa);
        random_state = 7;
        check(&k);
    }
}

static void say_if_scalar(const struct kernels *k, const char *job, bool is_same)
{
    if (k->isa != ISA_SCALAR && is_same)
        print_message("%s %s: same as scalar\n", isa_name(k->isa), job);
}

/* --- products --- */

static const enum weight_type types[] = { WEIGHT_F32,   WEIGHT_F16,   WEIGHT_BF16,   WEIGHT_Q8_0,
                                          WEIGHT_Q4_0,  WEIGHT_Q4_1,  WEIGHT_Q5_0,   WEIGHT_Q5_1,
                                          WEIGHT_Q2_K,  WEIGHT_Q3_K,  WEIGHT_Q4_K,   WEIGHT_Q5_K,
                                          WEIGHT_Q6_K,  WEIGHT_Q8_K,  WEIGHT_IQ4_NL, WEIGHT_IQ4_XS,
                                          WEIGHT_TQ1_0, WEIGHT_TQ2_0, WEIGHT_MXFP4 };
enum { N_TYPES = sizeof types / sizeof *types };

/* Where the scales of a block lie, of which a random one may be infinite. */
static const struct {
    enum weight_type type;
    int n_scales, at; /* f16, one behind the other */
} scales[] = { { WEIGHT_Q8_0, 1, 0 },   { WEIGHT_Q4_0, 1, 0 },   { WEIGHT_Q4_1, 2, 0 },
               { WEIGHT_Q5_0, 1, 0 },   { WEIGHT_Q5_1, 2, 0 },   { WEIGHT_Q2_K, 2, 80 },
               { WEIGHT_Q3_K, 1, 108 }, { WEIGHT_Q4_K, 2, 0 },   { WEIGHT_Q5_K, 2, 0 },
               { WEIGHT_Q6_K, 1, 208 }, { WEIGHT_IQ4_NL, 1, 0 }, { WEIGHT_IQ4_XS, 1, 0 },
               { WEIGHT_TQ1_0, 1, 52 }, { WEIGHT_TQ2_0, 1, 64 } };

/* Random bytes, but scales around 1/64. */
static void fill_blocks(enum weight_type type, void *row, int n)
{
    const struct weight_info *info = weight_info(type);
    for (int block = 0; block < n / info->block_len; block++) {
        uint8_t *b = (uint8_t *)row + (size_t)block * (size_t)info->block_bytes;
        for (int i = 0; i < info->block_bytes; i++)
            b[i] = (uint8_t)random_word();
        for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
            for (int j = 0; scales[i].type == type && j < scales[i].n_scales; j++) {
                uint16_t scale = half_of_float(random_float() / 64);
                memcpy(b + scales[i].at + 2 * j, &scale, sizeof scale);
            }
        if (type == WEIGHT_Q8_K)
            memcpy(b, &(float){ random_float() / 64 }, sizeof(float));
        if (type == WEIGHT_MXFP4)
            b[0] = (uint8_t)(120 + random_word() % 8);
    }
}

static void fill_weights(enum weight_type type, void *row, int n)
{
    uint16_t *halves = row;
    if (type == WEIGHT_F32)
        for (int i = 0; i < n; i++)
            ((float *)row)[i] = random_float();
    else if (type == WEIGHT_F16)
        for (int i = 0; i < n; i++)
            halves[i] = half_of_float(random_float());
    else if (type == WEIGHT_BF16)
        for (int i = 0; i < n; i++)
            halves[i] = (uint16_t)(bits_of_float(random_float()) >> 16);
    else
        fill_blocks(type, row, n);
}

/* One product: weights and activations, each ending at a forbidden page. */
struct product {
    enum weight_type type;
    int n, n_out, n_rows;
    struct guarded weights, x, q, q_scale;
    struct activations a;
};

static struct product product_create(const struct kernels *k, enum weight_type type, int n, int n_out,
                                     int n_rows)
{
    struct product p = { .type = type, .n = n, .n_out = n_out, .n_rows = n_rows };
    size_t row_bytes = weight_row_bytes(type, (uint64_t)n);
    /* The last row of x is not padded to the stride: nothing behind n may be read. */
    size_t stride = ((size_t)n + 31) / 32 * 32, last = (size_t)(n_rows - 1) * stride;

    p.weights = guarded_create(row_bytes * (size_t)n_out);
    for (int i = 0; i < n_out; i++)
        fill_weights(type, (char *)p.weights.data + (size_t)i * row_bytes, n);
    p.x = guarded_floats(last + (size_t)n);
    p.q = guarded_create((last + stride) * sizeof(int16_t));
    p.q_scale = guarded_create((last + stride) / Q16_BLOCK * sizeof(float));
    if (k->weights[type].wants_q16)
        for (int r = 0; r < n_rows; r++) {
            size_t at = (size_t)r * stride;
            k->quantise((int16_t *)p.q.data + at, (float *)p.q_scale.data + at / Q16_BLOCK,
                        (float *)p.x.data + at, n);
        }
    p.a = (struct activations){ n_rows, n, stride, p.x.data, p.q.data, p.q_scale.data };
    return p;
}

static void product_destroy(struct product *p)
{
    guarded_destroy(&p->weights);
    guarded_destroy(&p->x);
    guarded_destroy(&p->q);
    guarded_destroy(&p->q_scale);
}

/* The activation a product really sees. */
static double activation(const struct kernels *k, const struct product *p, int r, int i)
{
    size_t at = (size_t)r * p->a.stride + (size_t)i;
    if (!k->weights[p->type].wants_q16)
        return p->a.x[at];
    return (double)p->a.q[at] * p->a.q_scale[at / Q16_BLOCK];
}

/* A sum of n terms in any order is off by at most n eps times the sum of their sizes; the terms of a
 * quantised block are summed exactly, then rounded, scaled and added: blocks, plus the lanes of a vector,
 * plus three. */
static void check_product(const struct kernels *k, const struct product *p, const float *out, size_t stride)
{
    size_t row_bytes = weight_row_bytes(p->type, (uint64_t)p->n);
    double roundings = k->weights[p->type].wants_q16 ? p->n / 32 + 16 + 3 : p->n + 1;
    float *w = malloc((size_t)p->n * sizeof *w);
    for (int i = 0; i < p->n_out; i++) {
        k->weights[p->type].dequantise(w, (const char *)p->weights.data + (size_t)i * row_bytes, p->n);
        for (int r = 0; r < p->n_rows; r++) {
            double sum = 0, sizes = 0;
            for (int j = 0; j < p->n; j++) {
                double term = w[j] * activation(k, p, r, j);
                sum += term;
                sizes += fabs(term);
            }
            double error = fabs(out[(size_t)r * stride + (size_t)i] - sum);
            if (!(error <= roundings * EPS * sizes))
                fail_msg("%s %s n %d row %d output %d: off by %g, allowed %g", isa_name(k->isa),
                         weight_name(p->type), p->n, r, i, error, roundings * EPS * sizes);
        }
    }
    free(w);
}

static void check_products(const struct kernels *k)
{
    static const int float_sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 100, 172, 513 };
    static const int quant_sizes[] = { 32, 64, 96, 160, 352, 1056 };
    static const int long_sizes[] = { 256, 512, 1280 };
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    for (int t = 0; t < N_TYPES; t++) {
        int block_len = weight_info(types[t])->block_len;
        const int *sizes = block_len == 1 ? float_sizes : block_len == 32 ? quant_sizes : long_sizes;
        int n_sizes = block_len == 1 ? 15 : block_len == 32 ? 6 : 3;
        say_if_scalar(k, weight_name(types[t]),
                      k->weights[types[t]].multiply == scalar.weights[types[t]].multiply);
        for (int s = 0; s < n_sizes; s++)
            for (int n_out = 1; n_out <= 37; n_out += 4)
                for (int n_rows = 1; n_rows <= 9; n_rows += n_rows < 5 ? 1 : 4) {
                    struct product p = product_create(k, types[t], sizes[s], n_out, n_rows);
                    struct guarded out = guarded_poison((size_t)(n_rows * n_out));
                    k->weights[types[t]].multiply(out.data, (size_t)n_out, p.weights.data, 0, n_out, &p.a);
                    check_product(k, &p, out.data, (size_t)n_out);
                    guarded_destroy(&out);
                    product_destroy(&p);
                }
    }
}

static void test_products_agree_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_products);
}

static void check_independence(const struct kernels *k)
{
    enum { N_OUT = 71, N_ROWS = 11 };
    static const int cuts[] = { 0, 1, 4, 9, 40, 43, 71 };
    for (int t = 0; t < N_TYPES; t++) {
        int n = weight_info(types[t])->block_len == 256 ? 512 : 352;
        struct product p = product_create(k, types[t], n, N_OUT, N_ROWS);
        static float whole[N_ROWS][N_OUT], part[N_ROWS][N_OUT];
        k->weights[types[t]].multiply(whole[0], N_OUT, p.weights.data, 0, N_OUT, &p.a);
        for (int count = 1; count <= N_ROWS; count++) {
            memset(part, 0xff, sizeof part);
            for (int r = 0; r < N_ROWS; r += count) {
                struct activations some = p.a;
                some.n_rows = r + count <= N_ROWS ? count : N_ROWS - r;
                some.x += (size_t)r * some.stride;
                some.q += (size_t)r * some.stride;
                some.q_scale += (size_t)r * some.stride / Q16_BLOCK;
                for (size_t c = 0; c + 1 < sizeof cuts / sizeof *cuts; c++)
                    k->weights[types[t]].multiply(part[r], N_OUT, p.weights.data, cuts[c], cuts[c + 1],
                                                  &some);
            }
            assert_memory_equal(part, whole, sizeof whole);
        }
        product_destroy(&p);
    }
}

static void test_a_product_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    on_every_level(check_independence);
}

/* More rows than partial sums have room for on the stack. */
static void check_many_rows(const struct kernels *k)
{
    enum { N_OUT = 6, N_ROWS = 131 };
    struct product p = product_create(k, WEIGHT_Q4_K, 768, N_OUT, N_ROWS);
    struct guarded out = guarded_poison((size_t)(N_ROWS * N_OUT));
    k->weights[WEIGHT_Q4_K].multiply(out.data, N_OUT, p.weights.data, 0, N_OUT, &p.a);
    check_product(k, &p, out.data, N_OUT);
    guarded_destroy(&out);
    product_destroy(&p);
}

static void test_a_product_takes_any_number_of_rows(void **state)
{
    (void)state;
    on_every_level(check_many_rows);
}

/* --- blocks --- */

/* The types that no model file at hand holds; worked out by hand from the descriptions of the formats. */
static void test_blocks_are_read_as_the_format_says(void **state)
{
    (void)state;
    struct kernels k;
    float w[256];
    kernels_init(&k, ISA_SCALAR);

    /* 2^(128 - 127) times the 4-bit floats 1 and -6 */
    uint8_t mxfp4[17] = { 128, 0xf2 };
    k.weights[WEIGHT_MXFP4].dequantise(w, mxfp4, 32);
    assert_true(w[0] == 2 && w[16] == -12 && w[1] == 0);

    /* two bits each, less one, times 0.5 */
    uint8_t tq2_0[66] = { [0] = 0x92, [32] = 0x01, [65] = 0x38 };
    k.weights[WEIGHT_TQ2_0].dequantise(w, tq2_0, 256);
    assert_true(w[0] == 0.5f && w[32] == -0.5f && w[64] == 0 && w[96] == 0.5f && w[128] == 0);

    /* The digits 21001 are 190 of 243, so the byte is 190 / 243 * 256 rounded up. */
    uint8_t tq1_0[54] = { [0] = 201, [33] = 201, [48] = 201, [53] = 0x3c };
    k.weights[WEIGHT_TQ1_0].dequantise(w, tq1_0, 256);
    assert_true(w[0] == 1 && w[32] == 0 && w[64] == -1 && w[96] == -1 && w[128] == 0);
    assert_true(w[161] == 1 && w[177] == 0 && w[193] == -1 && w[209] == -1 && w[225] == 0);
    assert_true(w[240] == 1 && w[244] == 0 && w[248] == -1 && w[252] == -1);

    struct {
        float scale;
        int8_t q[256];
        int16_t sums[16];
    } q8_k = { 0.25f, { [0] = -128, [255] = 127 }, { 0 } };
    k.weights[WEIGHT_Q8_K].dequantise(w, &q8_k, 256);
    assert_true(w[0] == -32 && w[255] == 31.75f && w[1] == 0);
}

/* With scales of 1 and sums below 2^24 nothing rounds. The extremes sit in one pair, where an intermediate of
 * 16 bits would overflow. */
static void check_integers(const struct kernels *k)
{
    static const enum weight_type quants[] = { WEIGHT_Q8_0, WEIGHT_Q4_0 };
    for (int t = 0; t < 2; t++)
        for (int round = 0; round < 200; round++) {
            struct product p = product_create(k, quants[t], 32, 1, 1);
            uint16_t one = half_of_float(1);
            int16_t *q = p.q.data;
            float w[32], out, expected = 0;
            memcpy(p.weights.data, &one, sizeof one);
            if (round < 32) {
                memset((char *)p.weights.data + 2, quants[t] == WEIGHT_Q8_0 ? 0x80 : 0x00,
                       (size_t)weight_info(quants[t])->block_bytes - 2);
                memset(q, 0, 32 * sizeof *q);
                q[round] = q[round ^ 1] = round % 3 ? 32767 : -32767;
            } else
                for (int i = 0; i < 32; i++)
                    q[i] = (int16_t)((int)(random_word() % 4001) - 2000);
            *(float *)p.q_scale.data = 1;
            k->weights[quants[t]].dequantise(w, p.weights.data, 32);
            for (int i = 0; i < 32; i++)
                expected += w[i] * (float)q[i];
            k->weights[quants[t]].multiply(&out, 1, p.weights.data, 0, 1, &p.a);
            assert_true(out == expected);
            product_destroy(&p);
        }
}

static void test_integer_parts_are_exact(void **state)
{
    (void)state;
    on_every_level(check_integers);
}

/* --- rows --- */

static void check_quantise(const struct kernels *k)
{
    static const float specials[] = { 0, -0.0f, 1e-42f, 1e-37f, FLT_MAX, -FLT_MAX, INFINITY, -INFINITY, NAN };
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "quantise", k->quantise == scalar.quantise);
    for (int round = 0; round < 300; round++) {
        int n = 32 * (1 + round % 3);
        struct guarded x = guarded_floats((size_t)n), q = guarded_create((size_t)n * 2);
        struct guarded scale = guarded_poison((size_t)n / 32);
        int16_t expected_q[96];
        float expected_scale[3], *values = x.data;
        for (int i = 0; i < n; i++)
            values[i] = ldexpf(values[i], (int)(random_word() % 200) - 100 - round % 60);
        if (round % 4 == 0)
            for (int i = 0; i < 32; i++)
                values[i] = round % 8 ? specials[(round / 4 + i) % 2] : values[i] * 0;
        if (round % 5 == 0)
            values[random_word() % 32] = specials[round / 5 % 9];
        memset(q.data, 0x55, (size_t)n * 2);
        scalar.quantise(expected_q, expected_scale, values, n);
        k->quantise(q.data, scale.data, values, n);
        assert_memory_equal(q.data, expected_q, (size_t)n * 2);
        for (int b = 0; b < n / 32; b++) {
            float s = ((float *)scale.data)[b];
            assert_true(s == expected_scale[b] || (isnan(s) && isnan(expected_scale[b])));
            /* Half a step, and the roundings of scale, inverse and quotient at the largest of 32767 steps. */
            for (int i = 32 * b; i < 32 * b + 32 && s > 0; i++)
                assert_true(fabs(values[i] - (double)s * expected_q[i]) <= s * (0.5 + 4 * 32767 * EPS));
        }
        guarded_destroy(&x);
        guarded_destroy(&q);
        guarded_destroy(&scale);
    }
}

static void test_quantising_gives_the_same_integers_on_every_level(void **state)
{
    (void)state;
    on_every_level(check_quantise);
}

static void check_norm(const struct kernels *k)
{
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "rms_norm", k->rms_norm == scalar.rms_norm);
    for (int n = 1; n < 200; n += 3) {
        struct guarded x = guarded_floats((size_t)n), w = guarded_floats((size_t)n);
        struct guarded out = guarded_poison((size_t)n);
        const float *xs = x.data, *ws = w.data;
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += (double)xs[i] * xs[i];
        k->rms_norm(out.data, xs, ws, n, 1e-5f);
        for (int i = 0; i < n; i++) {
            double expected = xs[i] / sqrt(sum / n + (double)1e-5f) * ws[i];
            /* Three roundings to float: the factor and two products. */
            assert_true(fabs(((float *)out.data)[i] - expected) <= 2 * EPS * fabs(expected) + FLT_MIN);
        }
        guarded_destroy(&x);
        guarded_destroy(&w);
        guarded_destroy(&out);
    }
}

static void test_rms_norm_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_norm);
}

static void check_silu(const struct kernels *k)
{
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "silu_gate", k->silu_gate == scalar.silu_gate);
    for (int n = 1; n < 100; n++) {
        struct guarded gate = guarded_floats((size_t)n), up = guarded_floats((size_t)n);
        float *g = gate.data, before[100];
        for (int i = 0; i < n; i++)
            before[i] = g[i] *= n % 10 ? 8 : 150;
        k->silu_gate(g, up.data, n);
        for (int i = 0; i < n; i++) {
            double expected = before[i] / (1 + exp(-(double)before[i])) * ((float *)up.data)[i];
            /* exp within 4 eps, then a sum, a quotient and a product; beyond the range of exp only smallness
             * can be asked for: below 200 e^-87. */
            assert_true(fabs(g[i] - expected) <= 6 * EPS * fabs(expected) + 4e-36);
        }
        guarded_destroy(&gate);
        guarded_destroy(&up);
    }
}

static void test_silu_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_silu);
}

static void check_layer_norm(const struct kernels *k)
{
    for (int n = 1; n < 200; n += 3) {
        struct guarded x = guarded_floats((size_t)n), w = guarded_floats((size_t)n);
        struct guarded b = guarded_floats((size_t)n), out = guarded_poison((size_t)n);
        const float *xs = x.data, *ws = w.data, *bs = b.data;
        double mean = 0, variance = 0;
        for (int i = 0; i < n; i++)
            mean += (double)xs[i] / n;
        for (int i = 0; i < n; i++)
            variance += ((double)xs[i] - mean) * ((double)xs[i] - mean) / n;
        k->layer_norm(out.data, xs, ws, bs, n, 1e-5f);
        for (int i = 0; i < n; i++) {
            double term = ((double)xs[i] - mean) / sqrt(variance + (double)1e-5f) * (double)ws[i];
            /* rounding to single, a product and a sum */
            assert_true(fabs(((float *)out.data)[i] - (term + (double)bs[i])) <=
                        3 * EPS * (fabs(term) + fabs((double)bs[i])) + 1e-12);
        }
        struct guarded *all[] = { &x, &w, &b, &out };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            guarded_destroy(all[i]);
    }
}

static void test_layer_norm_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_layer_norm);
}

static void check_gelu(const struct kernels *k)
{
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "gelu_gate", k->gelu_gate == scalar.gelu_gate);
    for (int n = 1; n < 100; n++) {
        struct guarded gate = guarded_floats((size_t)n), up = guarded_floats((size_t)n);
        float *g = gate.data, *ups = n % 3 ? up.data : NULL, before[100];
        for (int i = 0; i < n; i++)
            before[i] = g[i] *= n % 10 ? 4 : 150;
        k->gelu_gate(g, ups, n);
        for (int i = 0; i < n; i++) {
            double x = (double)before[i], u = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
            double expected = 0.5 * x * (1 + tanh(u)) * (ups ? (double)ups[i] : 1);
            /* As silu; and exp takes on the relative error of its argument times the argument. The formula in
             * double loses what is far below 1. */
            assert_true(fabs((double)g[i] - expected) <=
                        (6 + 16 * fmin(fabs(u), 44)) * EPS * fabs(expected) + 1e-15);
        }
        guarded_destroy(&gate);
        guarded_destroy(&up);
    }
}

static void test_gelu_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_gelu);
}

static void check_soft_cap(const struct kernels *k)
{
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "soft_cap", k->soft_cap == scalar.soft_cap);
    for (int n = 1; n < 100; n++) {
        struct guarded x = guarded_floats((size_t)n);
        float *xs = x.data, before[100], cap = n % 2 ? 30 : 0.5f;
        for (int i = 0; i < n; i++)
            before[i] = xs[i] *= n % 10 ? 4 : 1000;
        k->soft_cap(xs, cap, n);
        /* exp of the double argument within 4 eps, then a difference, a sum, a quotient and a product */
        for (int i = 0; i < n; i++)
            assert_true(fabs((double)xs[i] - (double)cap * tanh((double)before[i] / (double)cap)) <=
                        10 * EPS * (double)cap);
        guarded_destroy(&x);
    }
}

static void test_soft_cap_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_soft_cap);
}

static void check_rope_and_add(const struct kernels *k)
{
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "rope", k->rope == scalar.rope);
    say_if_scalar(k, "add", k->add == scalar.add);
    for (int n = 1; n < 70; n++) {
        struct guarded x = guarded_floats(2 * (size_t)n), c = guarded_floats((size_t)n);
        struct guarded s = guarded_floats((size_t)n), y = guarded_floats(2 * (size_t)n);
        float *xs = x.data, *cs = c.data, *ss = s.data, *ys = y.data, before[140];
        memcpy(before, xs, 2 * (size_t)n * sizeof *xs);
        k->rope(xs, cs, ss, n);
        for (int i = 0; i < n; i++) {
            double a = before[2 * i], b = before[2 * i + 1];
            assert_true(fabs(xs[2 * i] - (a * cs[i] - b * ss[i])) <=
                        2 * EPS * (fabs(a * cs[i]) + fabs(b * ss[i])));
            assert_true(fabs(xs[2 * i + 1] - (a * ss[i] + b * cs[i])) <=
                        2 * EPS * (fabs(a * ss[i]) + fabs(b * cs[i])));
        }
        memcpy(before, xs, 2 * (size_t)n * sizeof *xs);
        k->rope_halves(xs, cs, ss, n);
        for (int i = 0; i < n; i++) {
            double a = (double)before[i], b = (double)before[i + n], cosine = (double)cs[i];
            double sine = (double)ss[i];
            assert_true(fabs((double)xs[i] - (a * cosine - b * sine)) <=
                        2 * EPS * (fabs(a * cosine) + fabs(b * sine)));
            assert_true(fabs((double)xs[i + n] - (a * sine + b * cosine)) <=
                        2 * EPS * (fabs(a * sine) + fabs(b * cosine)));
        }
        memcpy(before, xs, 2 * (size_t)n * sizeof *xs);
        k->add(xs, ys, 2 * n);
        for (int i = 0; i < 2 * n; i++)
            assert_true(xs[i] == before[i] + ys[i]);
        guarded_destroy(&x);
        guarded_destroy(&c);
        guarded_destroy(&s);
        guarded_destroy(&y);
    }
}

static void test_rope_turns_pairs_and_add_adds(void **state)
{
    (void)state;
    on_every_level(check_rope_and_add);
}

/* Every f16 number, its neighbours in f32, and the middle to the next f16 number. */
static void check_store(const struct kernels *k)
{
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "store_f16", k->store_f16 == scalar.store_f16);
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint32_t bits = bits_of_float(float_of_half((uint16_t)h));
        float x[5];
        uint16_t expected[5];
        for (int i = 0; i < 5; i++)
            x[i] = float_of_bits(bits + (uint32_t)((i - 1) * (i < 3 ? 1 : 0xfff + (i == 4))));
        scalar.store_f16(expected, x, 5);
        uint16_t here[5];
        k->store_f16(here, x, 5);
        assert_memory_equal(here, expected, sizeof here);
        if (!isnan(x[1]))
            assert_int_equal(expected[1], h);
    }
    for (int n = 1; n < 50; n++) {
        struct guarded x = guarded_floats((size_t)n), out = guarded_create((size_t)n * 2);
        uint16_t expected[50];
        scalar.store_f16(expected, x.data, n);
        k->store_f16(out.data, x.data, n);
        assert_memory_equal(out.data, expected, (size_t)n * 2);
        guarded_destroy(&x);
        guarded_destroy(&out);
    }
}

static void test_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(half_of_float(1), 0x3c00);
    assert_int_equal(half_of_float(65519), 0x7bff);
    assert_int_equal(half_of_float(65520), 0x7c00);
    assert_int_equal(half_of_float(0x1p-25f), 0);
    assert_int_equal(half_of_float(0x1.000002p-25f), 1);
    assert_true(float_of_half(0x8001) == -0x1p-24f);
    on_every_level(check_store);
}

/* --- attention --- */

/* A score of d terms is off by (d + 1) eps times the sum of their sizes; its weight then by that share, and
 * as much again through the maximum; a soft cap shrinks it and adds a few roundings of the cap. To the
 * weighted mean every position and every block adds a rounding, and exp four. */
static void check_head(const struct kernels *k, const struct attention *a, const float *keys,
                       const float *values, int head)
{
    double *weight = malloc((size_t)a->n_pos * sizeof *weight), total = 0, worst = 0, top = -INFINITY;
    int dim = a->head_dim;
    const float *q = a->q + head * dim;
    for (int p = a->first_pos; p < a->n_pos; p++) {
        double sum = 0, sizes = 0;
        for (int d = 0; d < dim; d++) {
            sum += (double)q[d] * keys[p * dim + d];
            sizes += fabs((double)q[d] * keys[p * dim + d]);
        }
        weight[p] = sum * a->scale;
        if (a->soft_cap > 0)
            weight[p] = (double)a->soft_cap * tanh(weight[p] / (double)a->soft_cap);
        top = fmax(top, weight[p]);
        worst = fmax(worst, (dim + 2) * EPS * sizes * a->scale + 10 * EPS * (double)a->soft_cap);
    }
    for (int p = a->first_pos; p < a->n_pos; p++)
        total += weight[p] = exp(weight[p] - top);
    for (int d = 0; d < dim; d++) {
        double sum = 0, sizes = 0;
        for (int p = a->first_pos; p < a->n_pos; p++) {
            sum += weight[p] * values[p * dim + d] / total;
            sizes += weight[p] * fabs((double)values[p * dim + d]) / total;
        }
        double error = fabs(a->out[head * dim + d] - sum);
        double allowed = (4 * worst + (2 * a->n_pos + 24) * EPS) * sizes;
        if (!(error <= allowed))
            fail_msg("%s attention dim %d positions %d head %d: off by %g, allowed %g", isa_name(k->isa), dim,
                     a->n_pos, head, error, allowed);
    }
    free(weight);
}

static void check_attention_of(const struct kernels *k, bool is_f16, int dim, int first_pos, int n_pos,
                               int n_group, float soft_cap)
{
    size_t n = (size_t)dim * (size_t)n_pos, n_q = (size_t)dim * (size_t)n_group;
    size_t element = is_f16 ? sizeof(uint16_t) : sizeof(float);
    struct guarded keys = guarded_floats(n), values = guarded_floats(n), q = guarded_floats(n_q);
    struct guarded k_cache = guarded_create(n * element), v_cache = guarded_create(n * element);
    struct guarded out = guarded_poison(n_q);
    float *ks = keys.data, *vs = values.data;
    for (size_t i = 0; i < n_q; i++)
        ((float *)q.data)[i] *= 3;
    for (size_t i = 0; i < n; i++)
        if (is_f16) {
            ks[i] = float_of_half(((uint16_t *)k_cache.data)[i] = half_of_float(ks[i]));
            vs[i] = float_of_half(((uint16_t *)v_cache.data)[i] = half_of_float(vs[i]));
        } else {
            ((float *)k_cache.data)[i] = ks[i];
            ((float *)v_cache.data)[i] = vs[i];
        }
    struct attention a = { .n_group = n_group,
                           .first_pos = first_pos,
                           .n_pos = n_pos,
                           .head_dim = dim,
                           .scale = (float)(1 / sqrt(dim)),
                           .soft_cap = soft_cap,
                           .q = q.data,
                           .k = k_cache.data,
                           .v = v_cache.data,
                           .out = out.data };
    if (is_f16)
        k->attend_f16(&a);
    else
        k->attend_f32(&a);
    for (int h = 0; h < n_group; h++)
        check_head(k, &a, ks, vs, h);

    /* One head alone gives the same bits as in its group. */
    float *alone = malloc((size_t)dim * sizeof *alone);
    struct attention one = a;
    one.n_group = 1;
    one.q += (n_group - 1) * dim;
    one.out = alone;
    if (is_f16)
        k->attend_f16(&one);
    else
        k->attend_f32(&one);
    assert_memory_equal(alone, a.out + (n_group - 1) * dim, (size_t)dim * sizeof *alone);
    free(alone);
    struct guarded *all[] = { &keys, &values, &q, &k_cache, &v_cache, &out };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        guarded_destroy(all[i]);
}

static void check_attention(const struct kernels *k)
{
    static const int dims[] = { 2, 7, 8, 16, 20, 64, 80 };
    static const int positions[] = { 1, 2, 17, 31, 32, 33, 64, 100 };
    struct kernels scalar;
    kernels_init(&scalar, ISA_SCALAR);
    say_if_scalar(k, "attend_f32", k->attend_f32 == scalar.attend_f32);
    say_if_scalar(k, "attend_f16", k->attend_f16 == scalar.attend_f16);
    for (int d = 0; d < 7; d++)
        for (int p = 0; p < 8; p++)
            for (int n_group = 1; n_group <= 11; n_group += 1 + n_group / 4)
                for (int is_f16 = 0; is_f16 < 2; is_f16++)
                    check_attention_of(k, is_f16, dims[d], 0, positions[p], n_group, 0);
    /* Windows that begin in the last block, at its edge and before it. */
    for (int p = 0; p < 8; p++)
        for (int first = 0; first < positions[p]; first += 1 + positions[p] / 5)
            for (int is_f16 = 0; is_f16 < 2; is_f16++) {
                check_attention_of(k, is_f16, 20, first, positions[p], 3, 0);
                check_attention_of(k, is_f16, 16, first, positions[p], 5, 1.5f);
            }
}

static void test_attention_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_attention);
}

static void test_an_unknown_instruction_set_is_refused(void **state)
{
    (void)state;
    enum isa isa;
    char problem[120] = "";
    setenv("WOOLLY_ISA", "mmx", 1);
    assert_false(isa_choose(&isa, problem, sizeof problem));
    assert_non_null(strstr(problem, "mmx"));
    setenv("WOOLLY_ISA", "scalar", 1);
    assert_true(isa_choose(&isa, problem, sizeof problem));
    assert_int_equal(isa, ISA_SCALAR);
    unsetenv("WOOLLY_ISA");
    assert_true(isa_choose(&isa, problem, sizeof problem));
    assert_true(isa_is_available(isa));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_agree_with_double_precision),
        cmocka_unit_test(test_a_product_does_not_depend_on_its_neighbours),
        cmocka_unit_test(test_a_product_takes_any_number_of_rows),
        cmocka_unit_test(test_blocks_are_read_as_the_format_says),
        cmocka_unit_test(test_integer_parts_are_exact),
        cmocka_unit_test(test_quantising_gives_the_same_integers_on_every_level),
        cmocka_unit_test(test_rms_norm_agrees_with_double_precision),
        cmocka_unit_test(test_silu_agrees_with_double_precision),
        cmocka_unit_test(test_layer_norm_agrees_with_double_precision),
        cmocka_unit_test(test_gelu_agrees_with_double_precision),
        cmocka_unit_test(test_soft_cap_agrees_with_double_precision),
        cmocka_unit_test(test_rope_turns_pairs_and_add_adds),
        cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_attention_agrees_with_double_precision),
        cmocka_unit_test(test_an_unknown_instruction_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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

/* --- blocks --- */

/* The types that no model file at hand holds; worked out by hand from the descriptions of the formats. */
static void test_blocks_are_read_as_the_format_says(void **state)
{
    (void)state;
    float w[256];

    /* 2^(128 - 127) times the 4-bit floats 1 and -6 */
    uint8_t mxfp4[17] = { 128, 0xf2 };
    weight_dequantise(WEIGHT_MXFP4)(w, mxfp4, 32);
    assert_true(w[0] == 2 && w[16] == -12 && w[1] == 0);

    /* two bits each, less one, times 0.5 */
    uint8_t tq2_0[66] = { [0] = 0x92, [32] = 0x01, [65] = 0x38 };
    weight_dequantise(WEIGHT_TQ2_0)(w, tq2_0, 256);
    assert_true(w[0] == 0.5f && w[32] == -0.5f && w[64] == 0 && w[96] == 0.5f && w[128] == 0);

    /* The digits 21001 are 190 of 243, so the byte is 190 / 243 * 256 rounded up. */
    uint8_t tq1_0[54] = { [0] = 201, [33] = 201, [48] = 201, [53] = 0x3c };
    weight_dequantise(WEIGHT_TQ1_0)(w, tq1_0, 256);
    assert_true(w[0] == 1 && w[32] == 0 && w[64] == -1 && w[96] == -1 && w[128] == 0);
    assert_true(w[161] == 1 && w[177] == 0 && w[193] == -1 && w[209] == -1 && w[225] == 0);
    assert_true(w[240] == 1 && w[244] == 0 && w[248] == -1 && w[252] == -1);

    struct {
        float scale;
        int8_t q[256];
        int16_t sums[16];
    } q8_k = { 0.25f, { [0] = -128, [255] = 127 }, { 0 } };
    weight_dequantise(WEIGHT_Q8_K)(w, &q8_k, 256);
    assert_true(w[0] == -32 && w[255] == 31.75f && w[1] == 0);
}

/* --- rows --- */

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
        cmocka_unit_test(test_blocks_are_read_as_the_format_says),
        cmocka_unit_test(test_rms_norm_agrees_with_double_precision),
        cmocka_unit_test(test_silu_agrees_with_double_precision),
        cmocka_unit_test(test_layer_norm_agrees_with_double_precision),
        cmocka_unit_test(test_gelu_agrees_with_double_precision),
        cmocka_unit_test(test_soft_cap_agrees_with_double_precision),
        cmocka_unit_test(test_rope_turns_pairs_and_add_adds),
        cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_an_unknown_instruction_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Packed products of every instruction set this CPU has: the bits of the scalar ones, with sizes at every
 * edge, the largest quants and scales that are no numbers; and the scalar ones against double precision. */
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

static const enum weight_type types[] = { WEIGHT_F32,   WEIGHT_F16,   WEIGHT_BF16,   WEIGHT_Q8_0,
                                          WEIGHT_Q4_0,  WEIGHT_Q4_1,  WEIGHT_Q5_0,   WEIGHT_Q5_1,
                                          WEIGHT_Q2_K,  WEIGHT_Q3_K,  WEIGHT_Q4_K,   WEIGHT_Q5_K,
                                          WEIGHT_Q6_K,  WEIGHT_Q8_K,  WEIGHT_IQ4_NL, WEIGHT_IQ4_XS,
                                          WEIGHT_TQ1_0, WEIGHT_TQ2_0, WEIGHT_MXFP4 };
enum { N_TYPES = sizeof types / sizeof *types };

/* --- weights --- */

enum fill {
    FILL_SANE,          /* random quants, scales around 1/64 */
    FILL_LARGEST,       /* every bit of the quants set: the largest of unsigned ones */
    FILL_MOST_NEGATIVE, /* bytes of -128 */
    FILL_STRANGE,       /* random quants, some scales that are zero, infinite, no number or very small */
};

/* Where the f16 scales of a block lie, one behind the other. */
static const struct {
    enum weight_type type;
    int n_scales, at;
} scales[] = { { WEIGHT_Q8_0, 1, 0 },   { WEIGHT_Q4_0, 1, 0 },   { WEIGHT_Q4_1, 2, 0 },
               { WEIGHT_Q5_0, 1, 0 },   { WEIGHT_Q5_1, 2, 0 },   { WEIGHT_Q2_K, 2, 80 },
               { WEIGHT_Q3_K, 1, 108 }, { WEIGHT_Q4_K, 2, 0 },   { WEIGHT_Q5_K, 2, 0 },
               { WEIGHT_Q6_K, 1, 208 }, { WEIGHT_IQ4_NL, 1, 0 }, { WEIGHT_IQ4_XS, 1, 0 },
               { WEIGHT_TQ1_0, 1, 52 }, { WEIGHT_TQ2_0, 1, 64 } };

static float random_scale(enum fill fill)
{
    static const float strange[] = { 0,        -0.0f,    INFINITY,  -INFINITY, NAN,
                                     65504.0f, 0x1p-24f, -0x1p-20f, 0x1p-14f,  1 };
    if (fill == FILL_STRANGE && random_word() % 8 == 0)
        return strange[random_word() % (sizeof strange / sizeof *strange)];
    return random_float() / 64;
}

static void fill_block(enum weight_type type, uint8_t *b, enum fill fill)
{
    for (int i = 0; i < weight_info(type)->block_bytes; i++)
        b[i] = (uint8_t)(fill == FILL_LARGEST ? 0xff : fill == FILL_MOST_NEGATIVE ? 0x80 : random_word());
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        for (int j = 0; scales[i].type == type && j < scales[i].n_scales; j++) {
            uint16_t scale = half_of_float(random_scale(fill));
            memcpy(b + scales[i].at + 2 * j, &scale, sizeof scale);
        }
    if (type == WEIGHT_Q8_K)
        memcpy(b, &(float){ random_scale(fill) }, sizeof(float));
    if (type == WEIGHT_MXFP4 && fill != FILL_STRANGE) /* else any exponent */
        b[0] = (uint8_t)(120 + random_word() % 8);
}

static void fill_weights(enum weight_type type, void *row, int n, enum fill fill)
{
    const struct weight_info *info = weight_info(type);
    for (int i = 0; i < n / info->block_len; i++) {
        float x = random_scale(fill);
        uint16_t half = type == WEIGHT_F16 ? half_of_float(x) : (uint16_t)(bits_of_float(x) >> 16);
        if (type == WEIGHT_F32)
            ((float *)row)[i] = x;
        else if (type == WEIGHT_F16 || type == WEIGHT_BF16)
            ((uint16_t *)row)[i] = half;
        else
            fill_block(type, (uint8_t *)row + (size_t)i * (size_t)info->block_bytes, fill);
    }
}

/* --- a product --- */

struct problem {
    enum weight_type type;
    int n, n_out;
    size_t row_bytes;
    char *weights;
    void *packed;
    struct activations a;
    float *x;
    struct activation_block *blocks;
    float *out;
    size_t out_stride;
};

/* Memory that ends at a page which may not be touched; the page before it knows its size. */
static void *take(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page,
           all = body + 2 * page;
    char *map = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    memcpy(map, &all, sizeof all);
    assert_true(mprotect(map + page + body, page, PROT_NONE) == 0);
    return map + page + body - bytes;
}

static void give_back(void *p)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), all;
    char *map = (char *)((uintptr_t)p / page * page - page);
    memcpy(&all, map, sizeof all);
    munmap(map, all);
}

/* Blocks of 32 differ in size, so that all levels occur. */
static void fill_activations(const struct problem *p, enum fill fill)
{
    for (int r = 0; r < p->a.n_rows; r++)
        for (int i = 0; i < p->n; i++) {
            float size = fill == FILL_LARGEST ? 1 : (float)(1 + (i / 32 * 3 + r) % 8) / 8;
            float x = fill == FILL_LARGEST ? 1 : fill == FILL_MOST_NEGATIVE ? -1 : random_float();
            p->x[(size_t)r * p->a.stride + (size_t)i] = x * size;
        }
    if (fill == FILL_STRANGE)
        p->x[random_word() % (uint32_t)p->n] = random_word() % 2 ? INFINITY : NAN;
}

static struct problem problem_create(enum weight_type type, int n, int n_out, int n_rows, int planes,
                                     enum fill fill)
{
    const struct packed_level *scalar;
    struct kernels k;
    struct problem p = { .type = type, .n = n, .n_out = n_out, .out_stride = (size_t)n_out + 3 };
    size_t block_stride = (size_t)(n_rows * planes + 1);

    kernels_init(&k, ISA_SCALAR);
    scalar = k.packed;
    p.row_bytes = weight_row_bytes(type, (uint64_t)n);
    p.weights = take(p.row_bytes * (size_t)n_out);
    for (int i = 0; i < n_out; i++)
        fill_weights(type, p.weights + (size_t)i * p.row_bytes, n, fill);
    p.packed = take(packed_size(type, n_out, n));
    pack_rows(p.packed, type, p.weights, n, 0, n_out);
    p.a = (struct activations){
        .n_rows = n_rows, .n = n, .stride = (size_t)n + 5, .planes = planes, .block_stride = block_stride
    };
    p.a.x = p.x = take((size_t)n_rows * p.a.stride * sizeof(float));
    p.a.blocks = p.blocks = take((size_t)packed_super_blocks(n) * block_stride * sizeof *p.blocks);
    fill_activations(&p, fill);
    for (int r = 0; r < n_rows; r++)
        packed_quantise(scalar, p.blocks + r * planes, block_stride, planes, p.x + (size_t)r * p.a.stride, n);
    p.out = take((size_t)n_rows * p.out_stride * sizeof(float));
    return p;
}

static void problem_destroy(struct problem *p)
{
    give_back(p->weights);
    give_back(p->packed);
    give_back(p->x);
    give_back(p->blocks);
    give_back(p->out);
}

/* Outputs that no product wrote hold this. */
#define POISON 0x7fc12345u

static void multiply(const struct problem *p, const struct kernels *k)
{
    uint32_t poison = POISON;
    for (size_t i = 0; i < (size_t)p->a.n_rows * p->out_stride; i++)
        memcpy(p->out + i, &poison, sizeof poison);
    packed_multiply(k->packed, p->type, p->out, p->out_stride, p->packed, 0, p->n_out, &p->a);
}

/* Equal bits, but for what a NaN carries. */
static void check_same(const struct problem *p, const struct kernels *k, const float *expected)
{
    for (int r = 0; r < p->a.n_rows; r++)
        for (size_t i = 0; i < p->out_stride; i++) {
            float got = p->out[(size_t)r * p->out_stride + i], want = expected[(size_t)r * p->out_stride + i];
            bool is_output = i < (size_t)p->n_out;
            if (is_output ? isnan(got) && isnan(want) && bits_of_float(got) != POISON
                          : bits_of_float(got) == POISON)
                continue;
            if (bits_of_float(got) != bits_of_float(want))
                fail_msg("%s %s, n %d, %d outputs, row %d of %d, %d planes: output %d is %a and not %a",
                         isa_name(k->isa), weight_name(p->type), p->n, p->n_out, r, p->a.n_rows, p->a.planes,
                         (int)i, (double)got, (double)want);
        }
}

/* Every level against the scalar one. */
static void check_problem(enum weight_type type, int n, int n_out, int n_rows, int planes, enum fill fill)
{
    struct kernels k;
    if (n % weight_info(type)->block_len)
        n = (n + PACK_K - 1) / PACK_K * PACK_K;
    struct problem p = problem_create(type, n, n_out, n_rows, planes, fill);
    size_t bytes = (size_t)n_rows * p.out_stride * sizeof(float);
    float *expected = take(bytes);

    kernels_init(&k, ISA_SCALAR);
    multiply(&p, &k);
    memcpy(expected, p.out, bytes);
    for (enum isa isa = ISA_SCALAR + 1; isa < ISA_COUNT; isa++)
        if (isa_is_available(isa)) {
            kernels_init(&k, isa);
            multiply(&p, &k);
            check_same(&p, &k, expected);
        }
    give_back(expected);
    problem_destroy(&p);
}

static void say_what_did_not_run(void)
{
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++)
        if (!isa_is_available(isa))
            print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
}

static const int lengths[] = { 256, 32, 288, 64, 576, 96 }, outputs[] = { 33, 1, 70, 32, 31 };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths, N_OUTPUTS = sizeof outputs / sizeof *outputs };

static void test_every_level_has_the_bits_of_scalar_for_all_sizes(void **state)
{
    (void)state;
    say_what_did_not_run();
    random_state = 7;
    for (int t = 0; t < N_TYPES; t++) {
        for (int i = 0; i < N_LENGTHS * N_OUTPUTS; i++)
            check_problem(types[t], lengths[i % N_LENGTHS], outputs[i % N_OUTPUTS], 1 + i % 3, 1, FILL_SANE);
        for (int rows = 1; rows <= 61; rows += rows == 13 ? 35 : 1)
            check_problem(types[t], lengths[rows % N_LENGTHS], outputs[rows % N_OUTPUTS], rows, 1 + rows % 2,
                          FILL_SANE);
    }
}

static void test_more_rows_than_fit_at_a_time_give_the_same_bits(void **state)
{
    (void)state;
    random_state = 8;
    check_problem(WEIGHT_Q4_K, 512, 33, 515, 1, FILL_SANE);
    check_problem(WEIGHT_Q8_0, 96, 33, 515, 2, FILL_SANE);
}

/* Sums of 16 bits, where a level has them, must hold the largest products there are. */
static void test_the_largest_quants_do_not_overflow(void **state)
{
    (void)state;
    random_state = 9;
    for (int t = 0; t < N_TYPES; t++)
        for (int rows = 1; rows <= 48; rows = rows < 6 ? rows + 1 : rows * 2) {
            check_problem(types[t], 288, 33, rows, 1, FILL_LARGEST);
            check_problem(types[t], 288, 33, rows, 1, FILL_MOST_NEGATIVE);
        }
}

static void test_strange_scales_give_the_same_bits(void **state)
{
    (void)state;
    random_state = 10;
    for (int t = 0; t < N_TYPES; t++)
        for (int rows = 1; rows <= 48; rows = rows < 6 ? rows + 1 : rows * 2)
            check_problem(types[t], 288, 70, rows, 1, FILL_STRANGE);
}

/* --- packing --- */

/* What layout 1 makes of seeded weights. Files of packed weights go by its number, so a change here needs
 * another PACK_LAYOUT. */
static const uint64_t layout_1[N_TYPES] = {
    0xe78ac879aa31027d, /* F32 */
    0xcf6900d6c3c7ab42, /* F16 */
    0xc95722b12afb29d5, /* BF16 */
    0x4d4e9bc77f2658a0, /* Q8_0 */
    0x927acc54630a955a, /* Q4_0 */
    0xb38819f08ad24df4, /* Q4_1 */
    0x262cae07ad72078d, /* Q5_0 */
    0x75b20a9d439e8699, /* Q5_1 */
    0xebebeba9e5558d76, /* Q2_K */
    0x5f0a3ad09b529dfc, /* Q3_K */
    0xc38cd97e65cd336f, /* Q4_K */
    0x51fcced07b1b26b2, /* Q5_K */
    0xf2df67edefe110cb, /* Q6_K */
    0x27d6978cd2aa8d52, /* Q8_K */
    0x927acc54630a955a, /* IQ4_NL */
    0xc3843412a0f8b8f5, /* IQ4_XS */
    0xd95c05b7e3e9b9b4, /* TQ1_0 */
    0x9dff4ad418165e15, /* TQ2_0 */
    0xd578e7fee3d37511, /* MXFP4 */
};

static uint64_t sum_packed(enum weight_type type)
{
    int n = weight_info(type)->block_len == PACK_K ? 512 : 288;
    struct problem p = problem_create(type, n, 70, 1, 1, FILL_SANE);
    uint64_t sum = 0xcbf29ce484222325u;
    for (uint64_t i = 0; i < packed_size(type, 70, n); i++)
        sum = (sum ^ ((const uint8_t *)p.packed)[i]) * 0x100000001b3u;
    problem_destroy(&p);
    return sum;
}

static void test_packing_gives_the_bytes_of_its_layout(void **state)
{
    (void)state;
    assert_int_equal(PACK_LAYOUT, 1);
    for (int t = 0; t < N_TYPES; t++) {
        random_state = 13;
        uint64_t sum = sum_packed(types[t]);
        if (sum != layout_1[t])
            fail_msg("%s: packed bytes have the sum 0x%016llx", weight_name(types[t]),
                     (unsigned long long)sum);
    }
}

/* --- activations --- */

static float strange_activation(void)
{
    static const float strange[] = { 0,         -0.0f,     INFINITY, -INFINITY, NAN,    0x1p-149f,
                                     0x1p-126f, 0x1p-110f, 0x1p-90f, 0x1p127f,  FLT_MAX };
    return strange[random_word() % (sizeof strange / sizeof *strange)];
}

static void fill_row(float *x, int n, int round)
{
    for (int i = 0; i < n; i++) {
        x[i] = random_float() * (float)(1 + random_word() % 8) * ldexpf(1, round % 64 * 4 - 128);
        if (round % 5 == 0 && random_word() % 64 == 0)
            x[i] = strange_activation();
        if (round % 7 == 0 && i / 32 % 2 == 0)
            x[i] = 0;
    }
}

static void test_every_level_quantises_to_the_same_bits(void **state)
{
    enum { MOST = 576, BLOCKS = 3 * 3 };
    static struct activation_block expected[BLOCKS], got[BLOCKS];
    static float x[MOST];
    struct kernels scalar, k;
    (void)state;
    random_state = 11;
    kernels_init(&scalar, ISA_SCALAR);
    for (int round = 0; round < 1000; round++) {
        int n = lengths[round % N_LENGTHS], planes = 1 + round % 2;
        fill_row(x, n, round);
        memset(expected, 0xaa, sizeof expected);
        packed_quantise(scalar.packed, expected, 3, planes, x, n);
        for (enum isa isa = ISA_SCALAR + 1; isa < ISA_COUNT; isa++) {
            if (!isa_is_available(isa))
                continue;
            kernels_init(&k, isa);
            memset(got, 0xaa, sizeof got);
            packed_quantise(k.packed, got, 3, planes, x, n);
            if (memcmp(expected, got, sizeof got) != 0)
                fail_msg("%s differs in round %d, n %d", isa_name(isa), round, n);
        }
    }
}

/* --- the scalar products --- */

/* Types with minima, and the bytes that hold their quants. */
static const struct {
    enum weight_type type;
    int first, last;
} quants[] = { { WEIGHT_Q4_1, 4, 20 },
               { WEIGHT_Q5_1, 4, 24 },
               { WEIGHT_Q2_K, 16, 80 },
               { WEIGHT_Q4_K, 16, 144 },
               { WEIGHT_Q5_K, 16, 176 } };

/* A row of weights, and of what they would be with quants of 0: minus their minima. */
static void dequantise_row(const struct problem *p, int row, float *w, float *minima)
{
    char *copy = p->weights + (size_t)row * p->row_bytes;
    memset(minima, 0, (size_t)p->n * sizeof *minima);
    weight_dequantise(p->type)(w, copy, p->n);
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++)
        if (quants[i].type == p->type) {
            int bytes = weight_info(p->type)->block_bytes;
            for (char *block = copy; block < copy + p->row_bytes; block += bytes)
                memset(block + quants[i].first, 0, (size_t)(quants[i].last - quants[i].first));
            weight_dequantise(p->type)(minima, copy, p->n);
        }
}

/* Element i of a row of activations as the product sees it. */
static double activation(const struct problem *p, int row, int i)
{
    double x = 0;
    if (!packed_wants_blocks(p->type))
        return (double)p->x[(size_t)row * p->a.stride + (size_t)i];
    for (int plane = 0; plane < p->a.planes; plane++) {
        const struct activation_block *b =
            p->blocks + (size_t)(i / PACK_K) * p->a.block_stride + row * p->a.planes + plane;
        x += (double)b->scale * (double)b->level[i % PACK_K / 32] * b->q[i % PACK_K];
    }
    return x;
}

static void check_against_double(enum weight_type type, int n, int n_out, int n_rows, int planes)
{
    struct kernels k;
    struct problem p = problem_create(type, n, n_out, n_rows, planes, FILL_SANE);
    float *w = take((size_t)n * sizeof *w), *minima = take((size_t)n * sizeof *w);
    /* A rounding for each element of a chain of floats, or two for 16 quants; some around. */
    double roundings = (packed_wants_blocks(type) ? n / 8 : n) + 8;

    kernels_init(&k, ISA_SCALAR);
    multiply(&p, &k);
    for (int i = 0; i < n_out; i++) {
        dequantise_row(&p, i, w, minima);
        for (int r = 0; r < n_rows; r++) {
            double sum = 0, size = 0, got = (double)p.out[(size_t)r * p.out_stride + (size_t)i];
            for (int j = 0; j < n; j++) {
                double x = activation(&p, r, j);
                sum += (double)w[j] * x;
                size += (fabs((double)w[j] - (double)minima[j]) + 2 * fabs((double)minima[j])) * fabs(x);
            }
            /* The first plane alone may be larger than both. */
            if (!(fabs(got - sum) <= roundings * EPS * size * 2))
                fail_msg("%s: row %d, output %d is %g and not %g", weight_name(type), r, i, got, sum);
        }
    }
    give_back(w);
    give_back(minima);
    problem_destroy(&p);
}

static void test_products_are_those_of_the_dequantised_weights(void **state)
{
    (void)state;
    random_state = 12;
    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < N_LENGTHS; i++) {
            int n = lengths[i];
            if (n % weight_info(types[t])->block_len == 0)
                check_against_double(types[t], n, outputs[i % N_OUTPUTS], 2, 1 + i % 2);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing_gives_the_bytes_of_its_layout),
        cmocka_unit_test(test_products_are_those_of_the_dequantised_weights),
        cmocka_unit_test(test_every_level_quantises_to_the_same_bits),
        cmocka_unit_test(test_every_level_has_the_bits_of_scalar_for_all_sizes),
        cmocka_unit_test(test_more_rows_than_fit_at_a_time_give_the_same_bits),
        cmocka_unit_test(test_the_largest_quants_do_not_overflow),
        cmocka_unit_test(test_strange_scales_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Attention and the blocks of its cache, on every instruction set this CPU has and for every type of cache:
 * against double precision with bounds on the error that follow from the number of roundings; bit for bit
 * against itself, whatever shares a tile; and with garbage in every byte that a query must not see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static void *allocate(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* A sequence in the cache: what was stored, and what the cache made of it. */
struct sequence {
    struct kv_layout layout;
    int n_pos, n_blocks;
    char *memory;
    int32_t *table;
    float *given_keys, *given_values; /* [n_pos][head_dim] */
    float *keys, *values;
};

enum { N_STRANGERS = 3 }; /* pages of nobody between those of the sequence */

/* Every byte is `garbage` before something is stored. */
static struct sequence sequence_create(const struct kernels *k, enum kv_type type, int dim, int n_pos,
                                       int garbage)
{
    struct sequence s = { .layout = kv_layout(type, dim), .n_pos = n_pos };
    size_t n = (size_t)dim * (size_t)n_pos, bytes;
    s.n_blocks = (n_pos + KV_BLOCK - 1) / KV_BLOCK;
    bytes = (size_t)(s.n_blocks + N_STRANGERS) * s.layout.bytes;
    s.memory = allocate(bytes);
    memset(s.memory, garbage, bytes);
    s.table = allocate((size_t)s.n_blocks * sizeof *s.table);
    for (int i = 0; i < s.n_blocks; i++) /* back to front */
        s.table[i] = s.n_blocks - 1 - i + (i == 1 ? N_STRANGERS : 0);
    float **all[] = { &s.given_keys, &s.given_values, &s.keys, &s.values };
    for (int i = 0; i < 4; i++)
        *all[i] = allocate(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        /* Channels of keys differ in size. */
        s.given_keys[i] = random_float() * (i % (size_t)dim == 3 ? 6 : 1);
        s.given_values[i] = random_float();
    }
    for (int p = 0; p < n_pos; p++) {
        size_t at = (size_t)p * (size_t)dim;
        char *block = s.memory + (size_t)s.table[p / KV_BLOCK] * s.layout.bytes;
        kv_store(k, &s.layout, block, p % KV_BLOCK, s.given_keys + at, s.given_values + at);
    }
    for (int p = 0; p < n_pos; p++) {
        size_t at = (size_t)p * (size_t)dim;
        const char *block = s.memory + (size_t)s.table[p / KV_BLOCK] * s.layout.bytes;
        kv_load(&s.layout, block, p % KV_BLOCK, s.keys + at, s.values + at);
    }
    return s;
}

static void sequence_destroy(struct sequence *s)
{
    void *all[] = { s->memory, s->table, s->given_keys, s->given_values, s->keys, s->values };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* Queries of a sequence and room for what they give. */
struct question {
    struct attention a;
    float *q, *out;
    char *scratch;
};

static struct question question_create(const struct sequence *s, int pos, int n_rows, int n_heads, int window,
                                       float soft_cap)
{
    size_t dim = (size_t)s->layout.head_dim, stride = (size_t)n_heads * dim + 5;
    size_t n = stride * (size_t)n_rows, scratch_bytes = attention_scratch_bytes(&s->layout);
    struct question x = { .q = allocate(n * sizeof(float)), .out = allocate(n * sizeof(float)) };
    for (size_t i = 0; i < n; i++) {
        x.q[i] = 3 * random_float();
        x.out[i] = 777;
    }
    x.scratch = allocate(scratch_bytes);
    memset(x.scratch, 0xff, scratch_bytes);
    x.a = (struct attention){ .layout = &s->layout,
                              .memory = s->memory,
                              .page_bytes = s->layout.bytes,
                              .table = s->table,
                              .n_rows = n_rows,
                              .n_heads = n_heads,
                              .pos = pos,
                              .window = window,
                              .scale = (float)(1 / sqrt((double)dim)),
                              .soft_cap = soft_cap,
                              .q = x.q,
                              .out = x.out,
                              .stride = stride,
                              .scratch = x.scratch };
    return x;
}

static void question_destroy(struct question *x)
{
    free(x->q);
    free(x->out);
    free(x->scratch);
}

/* Calls the check with each level there is and each type; says which did not run. */
static void on_every_level(void (*check)(const struct kernels *k, enum kv_type type))
{
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        struct kernels k;
        if (!isa_is_available(isa)) {
            print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
            continue;
        }
        kernels_init(&k, isa);
        for (enum kv_type type = 0; type < KV_TYPES; type++) {
            random_state = 7;
            check(&k, type);
        }
    }
}

/* --- against double precision --- */

static bool is_integer(enum kv_type type)
{
    return type == KV_Q8 || type == KV_Q4;
}

static double largest_of(const float *x, int n)
{
    double largest = 0;
    for (int i = 0; i < n; i++)
        largest = fabs((double)x[i]) > largest ? fabs((double)x[i]) : largest;
    return largest;
}

/* A score of d terms is off by d eps times the sum of their sizes, and a few more for scale and cap. With
 * integers a term is s * i, or s * i + m, whose parts are at most three times the largest element in size;
 * and each element of q is off by half of 1/16383 of the largest. */
static double score_of(const struct question *x, const float *q, const float *key, double *error)
{
    int dim = x->a.layout->head_dim;
    double sum = 0, sizes = 0, largest = largest_of(key, dim), key_sizes = 0;
    for (int d = 0; d < dim; d++) {
        sum += (double)q[d] * (double)key[d];
        sizes += fabs((double)q[d]) * (is_integer(x->a.layout->type) ? 3 * largest : fabs((double)key[d]));
        key_sizes += fabs((double)key[d]);
    }
    double scale = (double)x->a.scale, cap = (double)x->a.soft_cap;
    *error = (dim + 6) * EPS * sizes * scale + 10 * EPS * cap;
    if (is_integer(x->a.layout->type))
        *error += 0.5 / QUERY_MOST * (1 + 4 * EPS) * largest_of(q, dim) * key_sizes * scale;
    return cap > 0 ? cap * tanh(sum * scale / cap) : sum * scale;
}

/* A score's error is its weight's by that share, and as much again through the maximum. To the weighted mean
 * every position, block and chunk adds a rounding, and exp2 four. Integer weights are off by half of 1/16383
 * of the largest in their block. */
static void check_query(const struct kernels *k, const struct sequence *s, const struct question *x, int row,
                        int head)
{
    int dim = s->layout.head_dim, pos = x->a.pos + row;
    int first = pos >= x->a.window ? pos - x->a.window + 1 : 0, n = pos + 1;
    const float *q = x->q + (size_t)row * x->a.stride + head * dim;
    const float *out = x->out + (size_t)row * x->a.stride + head * dim;
    double *weight = allocate((size_t)n * sizeof *weight), *largest = allocate((size_t)n * sizeof *largest);
    double top = -INFINITY, total = 0, worst = 0, rounded = 0;
    for (int p = first; p < n; p++) {
        double error;
        weight[p] = score_of(x, q, s->keys + p * dim, &error);
        largest[p] = largest_of(s->values + p * dim, dim);
        worst = fmax(worst, error);
        top = fmax(top, weight[p]);
    }
    for (int p = first; p < n; p++)
        total += weight[p] = exp(weight[p] - top);
    for (int block = first / KV_BLOCK * KV_BLOCK; block < n && is_integer(s->layout.type);
         block += KV_BLOCK) {
        double most = 0;
        for (int p = block > first ? block : first; p < n && p < block + KV_BLOCK; p++)
            most = fmax(most, weight[p] / total * 2 * largest[p]);
        rounded += KV_BLOCK * most * 0.5 / WEIGHT_MOST * (1 + 4 * EPS);
    }
    for (int d = 0; d < dim; d++) {
        double sum = 0, sizes = 0;
        for (int p = first; p < n; p++) {
            double value = fabs((double)s->values[p * dim + d]);
            sum += weight[p] / total * (double)s->values[p * dim + d];
            sizes += weight[p] / total * (is_integer(s->layout.type) ? 3 * largest[p] : value);
        }
        double error = fabs((double)out[d] - sum);
        double allowed = (4 * worst + (2 * (n - first) + 64) * EPS) * sizes + rounded;
        if (!(error <= allowed))
            fail_msg("%s %s dim %d heads %d rows %d from %d window %d: row %d head %d off by %g, allowed %g",
                     isa_name(k->isa), kv_type_name(s->layout.type), dim, x->a.n_heads, x->a.n_rows, x->a.pos,
                     x->a.window, row, head, error, allowed);
    }
    free(weight);
    free(largest);
}

static void check_answer(const struct kernels *k, const struct sequence *s, int pos, int n_rows, int n_heads,
                         int window, float soft_cap)
{
    struct question x = question_create(s, pos, n_rows, n_heads, window, soft_cap);
    attention_compute(k, &x.a);
    for (int r = 0; r < n_rows; r++) {
        for (int h = 0; h < n_heads; h++)
            if (r % 5 == 0 || r == n_rows - 1)
                check_query(k, s, &x, r, h);
        for (size_t i = (size_t)(n_heads * s->layout.head_dim); i < x.a.stride; i++)
            assert_true(x.out[(size_t)r * x.a.stride + i] == 777); /* what is not the tile's */
    }
    question_destroy(&x);
}

static void check_attention(const struct kernels *k, enum kv_type type)
{
    static const int dims[] = { 2, 7, 8, 16, 20, 64, 80, 128, 256 };
    static const int positions[] = { 0, 15, 63, 64, 130 };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        /* Every size of group with one size of head; the reference is slow. */
        bool has_all = dims[i] == 20 && k->isa != ISA_SCALAR;
        struct sequence s = sequence_create(k, type, dims[i], 140, 0xff);
        for (size_t p = 0; p < sizeof positions / sizeof *positions; p++)
            for (int n_heads = 1; n_heads <= 9; n_heads += has_all ? 1 : n_heads == 1 ? 3 : 4) {
                int n_rows = 1 + (int)(random_word() % 7);
                check_answer(k, &s, positions[p], n_rows, n_heads, INT_MAX, 0);
                check_answer(k, &s, positions[p], n_rows, n_heads, 1 + (int)(random_word() % 70), 1.5f);
            }
        sequence_destroy(&s);
    }
    struct sequence s = sequence_create(k, type, 64, 600, 0xff);
    check_answer(k, &s, 255, 2, 3, INT_MAX, 0); /* a chunk for one, two for the other */
    check_answer(k, &s, 511, 1, 8, INT_MAX, 0);
    check_answer(k, &s, 530, 64, 1, INT_MAX, 0);
    check_answer(k, &s, 530, 64, 1, 20, 0); /* first and last row have nothing in common */
    check_answer(k, &s, 500, 40, 1, 9, 0);  /* the last do not see the first chunk */
    check_answer(k, &s, 590, 8, 8, 300, 2);
    check_answer(k, &s, 0, 64, 1, INT_MAX, 0);
    sequence_destroy(&s);
}

static void test_attention_agrees_with_double_precision(void **state)
{
    (void)state;
    on_every_level(check_attention);
}

/* --- bit for bit --- */

/* The row computed alone, one head after the other. */
static void check_row_alone(const struct kernels *k, const struct question *x, int row)
{
    size_t dim = (size_t)x->a.layout->head_dim;
    float *out = allocate(x->a.stride * sizeof *out);
    struct attention alone = x->a;
    alone.n_rows = 1;
    alone.pos += row;
    for (int heads = 1; heads <= x->a.n_heads; heads += x->a.n_heads > 1 ? x->a.n_heads - 1 : 1)
        for (int h = 0; h + heads <= x->a.n_heads; h += heads) {
            size_t at = (size_t)row * x->a.stride + (size_t)h * dim;
            alone.n_heads = heads;
            alone.q = x->q + at;
            alone.out = out;
            attention_compute(k, &alone);
            assert_memory_equal(out, x->out + at, (size_t)heads * dim * sizeof *out);
        }
    free(out);
}

/* Chunks computed each on its own, last first, then merged. */
static void check_parts(const struct kernels *k, const struct question *x)
{
    size_t floats = attention_partial_floats(x->a.layout, x->a.n_rows * x->a.n_heads);
    int first = attention_first_chunk(&x->a), last = attention_last_chunk(&x->a);
    float *partials = allocate((size_t)(last + 1) * floats * sizeof *partials), *whole = x->out;
    size_t bytes = ((size_t)x->a.n_rows * x->a.stride) * sizeof *whole;
    struct attention a = x->a;
    memset(partials, 0xff, (size_t)(last + 1) * floats * sizeof *partials);
    a.out = allocate(bytes);
    memcpy(a.out, whole, bytes);
    for (int r = 0; r < a.n_rows; r++)
        memset(a.out + (size_t)r * a.stride, 0, (size_t)(a.n_heads * a.layout->head_dim) * sizeof *whole);
    for (int chunk = last - 1; chunk >= first; chunk--)
        attention_compute_chunks(k, &a, chunk, chunk + 1, partials);
    for (int r = 0; r < a.n_rows; r++)
        attention_merge(k, &a, r, r + 1, partials, partials + (size_t)last * floats);
    assert_memory_equal(a.out, whole, bytes);
    free(a.out);
    free(partials);
}

static void check_bits(const struct kernels *k, enum kv_type type)
{
    static const int dims[] = { 8, 32, 64, 80, 128, 256 };
    bool is_slow = k->isa == ISA_SCALAR;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i += is_slow ? 3 : 1) {
        struct sequence s = sequence_create(k, type, dims[i], 800, 0xff);
        for (int n_heads = 1; n_heads <= 8; n_heads += is_slow ? 3 : 1)
            for (int way = 0; way < 4; way++) {
                int n_rows = n_heads > 4 ? 6 : way ? ATTENTION_QUERIES / n_heads : 11;
                int pos = way == 0 ? 0 : way == 1 ? 230 : way == 2 ? 505 : 730;
                int window = way < 2 ? INT_MAX : way == 2 ? 9 : 260;
                struct question x = question_create(&s, pos, n_rows, n_heads, window, way == 3 ? 2.5f : 0);
                attention_compute(k, &x.a);
                for (int r = 0; r < n_rows; r += is_slow ? 5 : 1)
                    check_row_alone(k, &x, r);
                check_parts(k, &x);
                question_destroy(&x);
            }
        sequence_destroy(&s);
    }
}

static void test_a_query_gives_the_same_bits_in_any_tile_and_from_any_parts(void **state)
{
    (void)state;
    on_every_level(check_bits);
}

/* Rows `from`.. of the sequence become infinite or not a number, as a broken model would have them. */
static void store_strange(const struct kernels *k, struct sequence *s, int from, int to)
{
    int dim = s->layout.head_dim;
    float *strange = allocate((size_t)dim * sizeof *strange);
    for (int p = from; p < to; p++) {
        for (int d = 0; d < dim; d++)
            strange[d] = p % 2 ? INFINITY : d % 3 ? -NAN : -INFINITY;
        kv_store(k, &s->layout, s->memory + (size_t)s->table[p / KV_BLOCK] * s->layout.bytes, p % KV_BLOCK,
                 strange, strange);
    }
    free(strange);
}

/* The same question over a clean cache, and over one full of garbage where it must not look: unused bytes,
 * positions behind, positions before the window. */
static void check_garbage(const struct kernels *k, enum kv_type type)
{
    static const int garbage[] = { 0xff, 0x7c, 0x7f, 0x80 };
    for (int dim = 20; dim <= 64; dim += 44)
        for (size_t g = 0; g < sizeof garbage / sizeof *garbage; g++)
            for (int window = 40; window <= 1000; window += 960) {
                random_state = 11;
                struct sequence clean = sequence_create(k, type, dim, 300, 0);
                random_state = 11;
                struct sequence dirty = sequence_create(k, type, dim, 300, garbage[g]);
                uint64_t seed = random_state;
                struct question x = question_create(&clean, 270, 6, 3, window, 0);
                random_state = seed;
                struct question y = question_create(&dirty, 270, 6, 3, window, 0);
                store_strange(k, &dirty, 276, 300);
                if (window == 40)
                    store_strange(k, &dirty, 0, 270 - 39);
                attention_compute(k, &x.a);
                attention_compute(k, &y.a);
                for (int r = 0; r < 6; r++)
                    for (int i = 0; i < 3 * dim; i++)
                        assert_true(isfinite(x.out[(size_t)r * x.a.stride + (size_t)i]));
                assert_memory_equal(x.out, y.out, 6 * x.a.stride * sizeof *x.out);

                /* The last row's own position is strange: only that row may show it. */
                store_strange(k, &dirty, 275, 276);
                attention_compute(k, &y.a);
                assert_memory_equal(x.out, y.out, (5 * x.a.stride) * sizeof *x.out);
                for (int i = 0; i < 3 * dim; i++)
                    assert_false(isfinite(y.out[5 * y.a.stride + (size_t)i]));
                question_destroy(&x);
                question_destroy(&y);
                sequence_destroy(&clean);
                sequence_destroy(&dirty);
            }
}

static void test_garbage_that_a_query_does_not_see_never_reaches_it(void **state)
{
    (void)state;
    on_every_level(check_garbage);
}

/* --- blocks --- */

/* Half a step, a step being the range of what shares a scale over the integers there are; and the roundings
 * of scale, minimum and quotient. */
static void check_run(enum kv_type type, const float *given, const float *got, int n)
{
    double low = 0, high = 0, step;
    for (int i = 0; i < n; i++) {
        low = i ? fmin(low, (double)given[i]) : (double)given[i];
        high = i ? fmax(high, (double)given[i]) : (double)given[i];
    }
    double largest = fmax(fabs(low), fabs(high)), half_eps = 0x1p-11;
    step = type == KV_Q8 ? largest / 127 : (high - low) / 15;
    for (int i = 0; i < n; i++) {
        double allowed = type == KV_F32    ? 0
                         : type == KV_F16  ? fabs((double)given[i]) * 0x1p-11 + 0x1p-25
                         : type == KV_BF16 ? fabs((double)given[i]) * 0x1p-8
                         : type == KV_Q8   ? step * 0.5 + largest * half_eps + 127 * 0x1p-25
                                           : step * 0.5 + 3 * largest * half_eps + 16 * 0x1p-25;
        if (!(fabs((double)given[i] - (double)got[i]) <= allowed))
            fail_msg("%s: %g came back as %g, allowed %g off", kv_type_name(type), (double)given[i],
                     (double)got[i], allowed);
    }
}

static void check_blocks(const struct kernels *k, enum kv_type type)
{
    static const int dims[] = { 2, 7, 20, 64, 80, 130 };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        int dim = dims[i];
        struct sequence s = sequence_create(k, type, dim, 2 * KV_BLOCK, 0xff);
        for (int p = 0; p < s.n_pos; p++) {
            for (int d = 0; d < dim; d += 32)
                check_run(type, s.given_keys + p * dim + d, s.keys + p * dim + d,
                          dim - d < 32 ? dim - d : 32);
            check_run(type, s.given_values + p * dim, s.values + p * dim, dim);
        }
        sequence_destroy(&s);
    }
}

static void test_what_is_stored_comes_back_as_near_as_the_type_allows(void **state)
{
    (void)state;
    on_every_level(check_blocks);
}

static void test_blocks_of_every_level_are_the_same(void **state)
{
    (void)state;
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        struct kernels k;
        kernels_init(&k, ISA_SCALAR);
        random_state = 3;
        struct sequence expected = sequence_create(&k, type, 72, 100, 0x55);
        for (enum isa isa = ISA_SCALAR + 1; isa < ISA_COUNT; isa++) {
            if (!isa_is_available(isa))
                continue;
            kernels_init(&k, isa);
            random_state = 3;
            struct sequence s = sequence_create(&k, type, 72, 100, 0x55);
            assert_memory_equal(s.memory, expected.memory,
                                (size_t)(s.n_blocks + N_STRANGERS) * s.layout.bytes);
            sequence_destroy(&s);
        }
        sequence_destroy(&expected);
    }
}

static void test_extreme_numbers_come_back_as_zero_themselves_or_not_a_number(void **state)
{
    (void)state;
    struct kernels k;
    kernels_init(&k, ISA_SCALAR);
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        static const float extremes[] = { 0, -0.0f, 1e-42f, 1e-9f, 3e38f, -3e38f };
        struct kv_layout l = kv_layout(type, 8);
        char *block = allocate(l.bytes);
        for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
            float x[8], key[8], value[8], size = fabsf(extremes[i]);
            for (int d = 0; d < 8; d++)
                x[d] = extremes[i];
            kv_store(&k, &l, block, 5, x, x);
            kv_load(&l, block, 5, key, value);
            for (int d = 0; d < 8; d++) {
                assert_true(size > 1 || fabsf(key[d] - x[d]) <= size + 1e-7f);
                assert_true(size < 1 || !isfinite(key[d]) || fabsf(key[d] / x[d] - 1) < 0x1p-8f);
                assert_true(key[d] == value[d] || (isnan(key[d]) && isnan(value[d])));
            }
        }
        free(block);
    }
}

static void test_types_have_names(void **state)
{
    (void)state;
    enum kv_type type;
    for (enum kv_type t = 0; t < KV_TYPES; t++) {
        assert_true(kv_type_parse(kv_type_name(t), &type));
        assert_int_equal(type, t);
    }
    assert_false(kv_type_parse("q5", &type));
    assert_false(kv_type_parse("", &type));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_agrees_with_double_precision),
        cmocka_unit_test(test_a_query_gives_the_same_bits_in_any_tile_and_from_any_parts),
        cmocka_unit_test(test_garbage_that_a_query_does_not_see_never_reaches_it),
        cmocka_unit_test(test_what_is_stored_comes_back_as_near_as_the_type_allows),
        cmocka_unit_test(test_blocks_of_every_level_are_the_same),
        cmocka_unit_test(test_extreme_numbers_come_back_as_zero_themselves_or_not_a_number),
        cmocka_unit_test(test_types_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

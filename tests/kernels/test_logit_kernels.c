/* The passes over a row of logits: what they compute, and that every level gives the same bits. Rows end at a
 * forbidden page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/kernels/kernels.h"

#define EPS ((double)FLT_EPSILON)

enum { MOST = 1500, MOST_BLOCKS = (MOST + LOGIT_BLOCK - 1) / LOGIT_BLOCK };

static const int sizes[] = { 1, 2, 3, 7, 8, 15, 16, 17, 100, 127, 128, 129, 256, 300, MOST };
enum { N_SIZES = sizeof sizes / sizeof *sizes };

/* What the passes over one row gave. */
struct passes {
    float maxima[MOST_BLOCKS], sums[MOST_BLOCKS], weights[MOST], found[MOST + 16];
    int32_t places[MOST + 16];
    double weight_above, count_above;
    int n_found;
};

/* A row of n floats before a page that may not be touched. */
static float *guarded_row(int n)
{
    static char *map;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (sizeof(float) * MOST + page - 1) / page * page;

    if (!map) {
        map = mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(map != MAP_FAILED);
        assert_int_equal(mprotect(map + body, page, PROT_NONE), 0);
    }
    return (float *)(map + body) - n;
}

static float *random_row(int n, bool has_specials)
{
    static const float specials[] = { NAN, -INFINITY, INFINITY, -FLT_MAX, FLT_MAX, 0, -0.0f, 1e-42f };
    float *x = guarded_row(n);

    for (int i = 0; i < n; i++)
        x[i] = has_specials && rand() % 3 == 0 ? specials[rand() % 8]
                                               : (float)rand() / (float)RAND_MAX * 50 - 30;
    return x;
}

static float highest(const float *x, int n)
{
    float max = -INFINITY;

    for (int i = 0; i < n; i++)
        if (x[i] > max)
            max = x[i];
    return fminf(max, FLT_MAX);
}

static void run_passes(struct passes *p, const struct kernels *k, const float *x, int n, float slope)
{
    float max = highest(x, n);

    memset(p, 0, sizeof *p);
    k->logits.maxima(p->maxima, x, n);
    if (max == -INFINITY)
        return;
    k->logits.sums(p->sums, x, n, max, slope);
    k->logits.weights(p->weights, x, n, max, slope);
    p->weight_above = k->logits.sum_above(x, p->weights, n, -3);
    p->count_above = k->logits.sum_above(x, NULL, n, -3);
    p->n_found = k->logits.collect(p->found, p->places, x, n, p->maxima, -3, INFINITY);
    /* What lies behind them is room to write, and nothing more. */
    memset(p->found + p->n_found, 0, sizeof p->found - (size_t)p->n_found * sizeof *p->found);
    memset(p->places + p->n_found, 0, sizeof p->places - (size_t)p->n_found * sizeof *p->places);
}

/* Calls the check with each level there is. */
static void on_every_level(void (*check)(const struct kernels *k))
{
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        struct kernels k;
        if (!isa_is_available(isa)) {
            print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
            continue;
        }
        kernels_init(&k, isa);
        srand(7);
        check(&k);
    }
}

static void check_bits(const struct kernels *k)
{
    static struct passes expected, here;
    struct kernels scalar;

    kernels_init(&scalar, ISA_SCALAR);
    for (int s = 0; s < N_SIZES; s++)
        for (int round = 0; round < 40; round++) {
            const float *x = random_row(sizes[s], round % 2);
            float slope = round % 5 ? 1 : round % 10 ? 0.3f : FLT_MAX;
            run_passes(&expected, &scalar, x, sizes[s], slope);
            run_passes(&here, k, x, sizes[s], slope);
            assert_memory_equal(&here, &expected, sizeof here);
        }
}

static void test_every_level_gives_the_same_bits(void **state)
{
    (void)state;
    on_every_level(check_bits);
}

static void check_weights(const struct kernels *k)
{
    float x[LOGIT_BLOCK], w[LOGIT_BLOCK];

    for (int round = 0; round < 3000; round++) {
        for (int i = 0; i < LOGIT_BLOCK; i++)
            x[i] = -(float)rand() / (float)RAND_MAX * (round % 2 ? 87 : 3);
        k->logits.weights(w, x, LOGIT_BLOCK, 0, 1);
        for (int i = 0; i < LOGIT_BLOCK; i++)
            assert_true(fabs((double)w[i] - exp((double)x[i])) <= 1.5 * EPS * exp((double)x[i]));
    }
    const float edges[] = { 0, -0.0f, INFINITY, -87, -87.001f, -1e30f, -INFINITY, NAN };
    k->logits.weights(w, edges, 8, 0, 1);
    assert_true(w[0] == 1 && w[1] == 1 && w[2] == 1);
    assert_true(w[3] >= FLT_MIN);
    for (int i = 4; i < 8; i++)
        assert_true(w[i] == 0);
}

static void test_weights_are_exponentials(void **state)
{
    (void)state;
    on_every_level(check_weights);
}

static void check_passes(const struct kernels *k)
{
    static struct passes p;

    for (int s = 0; s < N_SIZES; s++)
        for (int round = 0; round < 40; round++) {
            int n = sizes[s], n_found = 0;
            const float *x = random_row(n, round % 2);
            double weight_above = 0;
            run_passes(&p, k, x, n, 1);
            for (int b = 0; b * LOGIT_BLOCK < n; b++) {
                int at = b * LOGIT_BLOCK, count = n - at < LOGIT_BLOCK ? n - at : LOGIT_BLOCK;
                double sum = 0;
                assert_true(p.maxima[b] == highest(x + at, count));
                for (int i = at; i < at + count; i++)
                    sum += (double)p.weights[i];
                /* seven sums of positive terms */
                assert_true(fabs((double)p.sums[b] - sum) <= 7 * EPS * sum);
            }
            if (highest(x, n) == -INFINITY)
                continue;
            for (int i = 0; i < n; i++)
                if (x[i] >= -3) {
                    weight_above += (double)p.weights[i];
                    assert_int_equal(p.places[n_found], i);
                    assert_true(p.found[n_found] == fminf(x[i], FLT_MAX));
                    n_found++;
                }
            assert_int_equal(p.n_found, n_found);
            assert_true(p.count_above == n_found);
            assert_true(fabs(p.weight_above - weight_above) <= 7 * EPS * weight_above);
        }
}

static void test_passes_agree_with_plain_loops(void **state)
{
    (void)state;
    on_every_level(check_passes);
}

static void check_in_place(const struct kernels *k)
{
    float x[MOST + 16];
    int32_t places[MOST + 16];

    for (int round = 0; round < 50; round++) {
        int n = 1 + rand() % MOST, n_expected = 0;
        float expected[MOST];
        for (int i = 0; i < n; i++) {
            x[i] = (float)(rand() % 100);
            if (x[i] >= 20 && x[i] <= 90 - round)
                expected[n_expected++] = x[i];
        }
        assert_int_equal(k->logits.collect(x, places, x, n, NULL, 20, (float)(90 - round)), n_expected);
        assert_memory_equal(x, expected, (size_t)n_expected * sizeof *x);
    }
}

static void test_a_range_is_collected_in_place(void **state)
{
    (void)state;
    on_every_level(check_in_place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_level_gives_the_same_bits),
        cmocka_unit_test(test_weights_are_exponentials),
        cmocka_unit_test(test_passes_agree_with_plain_loops),
        cmocka_unit_test(test_a_range_is_collected_in_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

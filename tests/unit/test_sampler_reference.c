/* The sampler against a slow and plain one: everything sorted, everything in double precision. Where a share
 * or a draw falls within rounding of a border, both sides of the border are right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/kernels/kernels.h"
#include "worker/sampler.h"

enum { MOST = 6000 };

static const double slack = 1e-5; /* of a share, of a draw, of a logarithm */

static uint64_t random_state;

static uint32_t random_word(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static double random_share(void)
{
    return random_word() / 0x1p31;
}

/* --- the plain sampler --- */

struct reference {
    int n; /* possible tokens */
    float max;
    double log_z;
    float x[MOST]; /* by rank */
    int32_t ids[MOST];
    float by_id[MOST]; /* as the formulas can bear it */
};

static struct reference reference;

static int compare_ids(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    float x = reference.by_id[i], y = reference.by_id[j];

    return x != y ? (x < y) - (x > y) : (i > j) - (i < j);
}

static void rank_all(const float *logits, int n_vocab)
{
    struct reference *r = &reference;
    double z = 0;

    r->n = 0;
    for (int i = 0; i < n_vocab; i++) {
        r->by_id[i] = isnan(logits[i]) ? -INFINITY : fminf(logits[i], FLT_MAX);
        if (r->by_id[i] > -INFINITY)
            r->ids[r->n++] = i;
    }
    qsort(r->ids, (size_t)r->n, sizeof *r->ids, compare_ids);
    for (int i = 0; i < r->n; i++) {
        r->x[i] = r->by_id[r->ids[i]];
        z += exp((double)(r->x[i] - r->x[0]));
    }
    r->max = r->x[0];
    r->log_z = log(z);
}

static double weight_of(float x, float temperature)
{
    return exp((double)(x - reference.max) / (double)temperature);
}

/* How many the filters keep when the borders of top-p and min-p are moved. */
static int count_kept(const struct sampling *how, double p_shift, double min_shift)
{
    const struct reference *r = &reference;
    int kept = how->top_k > 0 && how->top_k < r->n ? how->top_k : r->n, n = 0;
    double total = 0, sum = 0;

    if (how->top_p < 1) {
        for (int i = 0; i < kept; i++)
            total += weight_of(r->x[i], 1);
        do
            sum += weight_of(r->x[n++], 1);
        while (n < kept && sum < ((double)how->top_p + p_shift) * total);
        kept = n;
    }
    if (how->min_p > 0) {
        double least = r->max + log((double)how->min_p) - min_shift * (fabs((double)r->max) + 1);
        for (n = 1; n < kept && (double)r->x[n] >= least; n++)
            ;
        kept = n;
    }
    return kept;
}

/* The same as the sampler's: its bits are published. */
static double unit_of(uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = { (uint32_t)position, (uint32_t)(position >> 32), 0, 0 };
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, words[4];

    philox4x32(counter, key, words);
    return (double)(((uint64_t)words[0] << 32 | words[1]) >> 11) * 0x1p-53;
}

/* The weight of the first `kept` by rank, and of those of them with a lower id. */
static double total_weight(const struct sampling *how, int kept, int32_t id, double *before)
{
    double total = 0;

    *before = 0;
    for (int i = 0; i < kept; i++) {
        double w = weight_of(reference.x[i], how->temperature);
        total += w;
        *before += reference.ids[i] < id ? w : 0;
    }
    return total;
}

/* Whether the draw gives this token, by id, when the number of those kept lies in these bounds. */
static bool is_drawn(const struct sampling *how, int fewest, int most, double unit, int32_t id)
{
    const struct reference *r = &reference;
    float x = r->by_id[id], last = r->x[most - 1];
    double here = weight_of(x, how->temperature), fewest_before, most_before;
    double fewest_total = total_weight(how, fewest, id, &fewest_before);
    double most_total = total_weight(how, most, id, &most_before);

    return (x > last || (x == last && id <= r->ids[most - 1])) &&
           unit >= fewest_before / most_total - slack && unit <= (most_before + here) / fewest_total + slack;
}

/* --- the comparison --- */

static void check_logprob(const struct token_logprob *t)
{
    double x = (double)reference.by_id[t->id], expected = x - (double)reference.max - reference.log_z;

    assert_true(fabs((double)t->logprob - expected) <= slack * fmax(1, fabs(expected) / 10));
}

static void check_choice(const struct sampling *how, uint64_t position, const struct choice *c)
{
    const struct reference *r = &reference;

    assert_int_equal(c->n_top, how->n_logprobs < r->n ? how->n_logprobs : r->n);
    for (int i = 0; i < c->n_top; i++) {
        assert_int_equal(c->top[i].id, r->ids[i]);
        check_logprob(&c->top[i]);
    }
    check_logprob(&c->token);
    if (!(how->temperature > 0)) {
        assert_int_equal(c->token.id, r->ids[0]);
        return;
    }
    double unit = unit_of(how->seed, position);
    bool is_right = false;
    for (int i = -1; i <= 1 && !is_right; i++)
        is_right = is_drawn(how, count_kept(how, -slack, i * slack), count_kept(how, slack, i * slack), unit,
                            c->token.id);
    if (!is_right)
        fail_msg("token %d of logit %g drawn with unit %.9f, temperature %g, top_k %d, top_p %.8f, min_p %g; "
                 "%d kept",
                 (int)c->token.id, (double)r->by_id[c->token.id], unit, (double)how->temperature, how->top_k,
                 (double)how->top_p, (double)how->min_p, count_kept(how, 0, 0));
}

/* --- the logits --- */

static double random_normal(void)
{
    return sqrt(-2 * log(random_share() + 1e-12)) * cos(2 * M_PI * random_share());
}

enum shape {
    NORMAL,
    NARROW,
    WIDE,
    TIED,
    EQUAL,
    RISING,
    FALLING,
    PEAKED,
    TWO_LEVELS, /* far apart, each of many */
    FULL_OF_HOLES,
    SENSELESS, /* every kind of number */
    ZEROS,     /* of both signs */
    HUGE_ONES,
    N_SHAPES
};

static float logit_of(enum shape shape, int i)
{
    static const float specials[] = { NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 0, 1e-42f, 7 };

    switch (shape) {
    case NORMAL:
        return (float)(3 * random_normal());
    case NARROW:
        return (float)(0.1 * random_normal() - 200);
    case WIDE:
        return (float)(40 * random_normal());
    case TIED:
        return (float)(random_word() % 9) / 4;
    case EQUAL:
        return -2.5f;
    case RISING:
        return (float)i / 100;
    case FALLING:
        return -(float)i / 1000;
    case PEAKED:
        return random_word() % 200 ? (float)random_normal() : 15 + (float)random_normal();
    case TWO_LEVELS:
        return i % 3 ? -60 : 20;
    case FULL_OF_HOLES:
        return random_word() % 10 ? -INFINITY : (float)random_normal();
    case SENSELESS:
        return specials[random_word() % 8];
    case ZEROS:
        return random_word() % 2 ? 0.0f : -0.0f;
    default:
        return (float)(1e37 * random_normal());
    }
}

static struct sampling random_sampling(void)
{
    static const float temperatures[] = { 0, 0.3f, 1, 1, 1.7f, 50 };
    static const int top_ks[] = { 0, 0, 0, 1, 2, 5, 40, 500, 1 << 30 };
    static const float top_ps[] = { 1, 1, 0, 0.1f, 0.5f, 0.95f, 0.999f, 0.99999994f };
    static const float min_ps[] = { 0, 0, 1e-12f, 1e-3f, 0.05f, 0.9f, 1 };

    return (struct sampling){ .temperature = temperatures[random_word() % 6],
                              .top_k = top_ks[random_word() % 9],
                              .top_p = top_ps[random_word() % 8],
                              .min_p = min_ps[random_word() % 7],
                              .seed = random_word(),
                              .n_logprobs = (int)(random_word() % 21) };
}

/* One sampler of every level. */
static int create_samplers(struct sampler *samplers[ISA_COUNT], int n_vocab)
{
    int n = 0;

    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_is_available(isa))
            continue;
        setenv("WOOLLY_ISA", isa_name(isa), 1);
        samplers[n++] = sampler_create(n_vocab);
    }
    unsetenv("WOOLLY_ISA");
    return n;
}

/* By fields: between them lies padding. */
static void check_same(const struct choice *a, const struct choice *b)
{
    assert_memory_equal(&a->token, &b->token, sizeof a->token);
    assert_int_equal(a->n_top, b->n_top);
    assert_memory_equal(a->top, b->top, (size_t)a->n_top * sizeof *a->top);
}

static void check_shape(enum shape shape, int n_vocab)
{
    struct sampler *samplers[ISA_COUNT];
    int n_samplers = create_samplers(samplers, n_vocab);
    float *logits = xcalloc((size_t)n_vocab, sizeof *logits);

    for (int i = 0; i < n_vocab; i++)
        logits[i] = logit_of(shape, i);
    rank_all(logits, n_vocab);
    for (uint64_t position = 0; position < 200 && reference.n > 0; position++) {
        struct sampling how = random_sampling();
        struct choice c, other;
        assert_true(sampler_choose(samplers[0], &how, logits, position, &c));
        check_choice(&how, position, &c);
        for (int i = 1; i < n_samplers; i++) {
            assert_true(sampler_choose(samplers[i], &how, logits, position, &other));
            check_same(&other, &c);
        }
    }
    for (int i = 0; i < n_samplers; i++)
        sampler_destroy(samplers[i]);
    free(logits);
}

static void test_every_level_chooses_as_the_plain_sampler_does(void **state)
{
    static const int sizes[] = { 1, 2, 5, 31, 127, 128, 129, 300, 1000, 4097, MOST };

    (void)state;
    for (enum shape shape = 0; shape < N_SHAPES; shape++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            random_state = 100 * shape + i;
            check_shape(shape, sizes[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_level_chooses_as_the_plain_sampler_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

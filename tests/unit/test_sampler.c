/* The sampler: published vectors for the generator, exact choices for the filters, frequencies for the draw.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/sampler.h"

enum { N = 8 };

/* Probabilities .4 .3 .1 .1 .05 .03 .015 .005, not in order: ids 2 5 0 7 1 3 4 6. */
static const double probabilities[N] = { .1, .05, .4, .03, .015, .3, .005, .1 };

static void fill_logits(float *logits)
{
    for (int i = 0; i < N; i++)
        logits[i] = (float)log(probabilities[i]) + 3;
}

static const struct sampling plain = { .temperature = 1, .top_p = 1 };

/* The set of ids drawn in many positions, as bits. */
static unsigned drawn_ids(const struct sampling *how, const float *logits)
{
    struct sampler *s = sampler_create(N);
    struct choice c;
    unsigned seen = 0;

    for (uint64_t position = 0; position < 4000; position++) {
        sampler_choose(s, how, logits, position, &c);
        assert_in_range(c.token.id, 0, N - 1);
        seen |= 1u << c.token.id;
    }
    sampler_destroy(s);
    return seen;
}

static void test_philox_gives_the_published_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } vectors[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ~0u, ~0u, ~0u, ~0u }, { ~0u, ~0u }, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };

    (void)state;
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox4x32(vectors[i].counter, vectors[i].key, out);
        assert_memory_equal(out, vectors[i].want, sizeof(out));
    }
}

static void test_greedy_takes_the_highest_and_the_lower_id_on_a_tie(void **state)
{
    const float logits[N] = { 1, 3, -1, 3, 2, NAN, -INFINITY, 0 };
    const struct sampling how = { .temperature = 0, .top_p = 1, .n_logprobs = 20 };
    const int32_t order[6] = { 1, 3, 4, 0, 7, 2 };
    struct sampler *s = sampler_create(N);
    struct choice c;

    (void)state;
    sampler_choose(s, &how, logits, 0, &c);
    assert_int_equal(c.token.id, 1);
    assert_int_equal(c.n_top, 6); /* what is impossible is not listed */
    for (int i = 0; i < 6; i++)
        assert_int_equal(c.top[i].id, order[i]);
    assert_true(c.top[0].logprob == c.token.logprob);
    sampler_destroy(s);
}

static void test_logprobs_are_of_the_whole_distribution_at_temperature_one(void **state)
{
    const struct sampling how = { .temperature = 5, .top_k = 2, .top_p = .5f, .min_p = .1f, .n_logprobs = 3 };
    struct sampler *s = sampler_create(N);
    float logits[N];
    struct choice c;

    (void)state;
    fill_logits(logits);
    for (uint64_t position = 0; position < 100; position++) {
        sampler_choose(s, &how, logits, position, &c);
        assert_float_equal(c.token.logprob, (float)log(probabilities[c.token.id]), 1e-6);
        assert_int_equal(c.n_top, 3);
        assert_int_equal(c.top[0].id, 2);
        assert_int_equal(c.top[1].id, 5);
        assert_int_equal(c.top[2].id, 0);
        assert_float_equal(c.top[2].logprob, (float)log(.1), 1e-6);
    }
    sampler_destroy(s);
}

static void test_choice_depends_on_seed_and_position_only(void **state)
{
    struct sampler *s = sampler_create(N), *other = sampler_create(N);
    struct sampling how = plain;
    struct choice a, b;
    float logits[N];
    int n_other_seed = 0;

    (void)state;
    fill_logits(logits);
    for (uint64_t position = 0; position < 200; position++) {
        how.seed = 42;
        sampler_choose(s, &how, logits, position, &a);
        sampler_choose(other, &how, logits, position, &b);
        assert_int_equal(a.token.id, b.token.id);
        how.seed = 43;
        sampler_choose(other, &how, logits, 199 - position, &b);
        n_other_seed += a.token.id != b.token.id;
    }
    assert_true(n_other_seed > 50);
    sampler_destroy(s);
    sampler_destroy(other);
}

/* Pearson's sum over the expected frequencies must stay below the 99.9 % point of 7 degrees of freedom. */
static void check_frequencies(const struct sampling *how, const double *want)
{
    const int n_draws = 100000;
    struct sampler *s = sampler_create(N);
    float logits[N];
    int counts[N] = { 0 };
    double sum = 0;

    fill_logits(logits);
    for (int i = 0; i < n_draws; i++) {
        struct choice c;
        sampler_choose(s, how, logits, (uint64_t)i, &c);
        counts[c.token.id]++;
    }
    for (int i = 0; i < N; i++) {
        double expected = want[i] * n_draws;
        if (expected > 0)
            sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        else
            assert_int_equal(counts[i], 0);
    }
    assert_true(sum < 24.32);
    sampler_destroy(s);
}

static void test_frequencies_follow_the_probabilities(void **state)
{
    struct sampling how = plain;
    double want[N], total = 0;

    (void)state;
    for (how.seed = 1; how.seed <= 5; how.seed++)
        check_frequencies(&how, probabilities);

    how.temperature = 2;
    for (int i = 0; i < N; i++)
        total += sqrt(probabilities[i]);
    for (int i = 0; i < N; i++)
        want[i] = sqrt(probabilities[i]) / total;
    check_frequencies(&how, want);

    how.top_k = N; /* the same through the sorted path */
    check_frequencies(&how, want);

    how = (struct sampling){ .temperature = 1, .top_k = 3, .top_p = 1, .seed = 9 };
    memset(want, 0, sizeof(want));
    want[2] = .5;
    want[5] = .375;
    want[0] = .125;
    check_frequencies(&how, want);
}

static void check_kept(struct sampling how, unsigned want)
{
    float logits[N];

    fill_logits(logits);
    how.temperature = 2;
    assert_int_equal(drawn_ids(&how, logits), want);
}

#define BIT(id) (1u << (id))

static void test_top_k_keeps_the_most_likely(void **state)
{
    (void)state;
    check_kept((struct sampling){ .top_p = 1, .top_k = 1 }, BIT(2));
    check_kept((struct sampling){ .top_p = 1, .top_k = 3 },
               BIT(2) | BIT(5) | BIT(0)); /* 0 before 7 on a tie */
    check_kept((struct sampling){ .top_p = 1, .top_k = N }, 0xff);
    check_kept((struct sampling){ .top_p = 1, .top_k = 1000000 }, 0xff);
    check_kept((struct sampling){ .top_p = 1, .top_k = 0 }, 0xff);
}

static void test_top_p_keeps_the_smallest_set_that_reaches_it(void **state)
{
    (void)state;
    check_kept((struct sampling){ .top_p = 0 }, BIT(2));
    check_kept((struct sampling){ .top_p = .39f }, BIT(2));
    check_kept((struct sampling){ .top_p = .41f }, BIT(2) | BIT(5));
    check_kept((struct sampling){ .top_p = .71f }, BIT(2) | BIT(5) | BIT(0));
    check_kept((struct sampling){ .top_p = .999f }, 0xff);
    /* Of the three left by top_k the shares are .5, .375, .125. */
    check_kept((struct sampling){ .top_p = .49f, .top_k = 3 }, BIT(2));
    check_kept((struct sampling){ .top_p = .87f, .top_k = 3 }, BIT(2) | BIT(5));
    check_kept((struct sampling){ .top_p = .88f, .top_k = 3 }, BIT(2) | BIT(5) | BIT(0));
}

static void test_min_p_drops_what_is_unlikely_beside_the_most_likely(void **state)
{
    (void)state;
    check_kept((struct sampling){ .top_p = 1, .min_p = .26f }, BIT(2) | BIT(5));
    check_kept((struct sampling){ .top_p = 1, .min_p = .24f }, BIT(2) | BIT(5) | BIT(0) | BIT(7));
    check_kept((struct sampling){ .top_p = 1, .min_p = 1 }, BIT(2));
    check_kept((struct sampling){ .top_p = 1, .min_p = 5 }, BIT(2));
    check_kept((struct sampling){ .top_p = .71f, .min_p = .24f }, BIT(2) | BIT(5) | BIT(0));
}

static void test_extreme_temperatures_stay_sane(void **state)
{
    struct sampling how = plain;
    float logits[N];

    (void)state;
    fill_logits(logits);
    how.temperature = FLT_MIN;
    assert_int_equal(drawn_ids(&how, logits), BIT(2));
    how.temperature = 1e-30f;
    how.top_k = 5;
    assert_int_equal(drawn_ids(&how, logits), BIT(2));
    how.top_k = 0;
    how.temperature = FLT_MAX;
    assert_int_equal(drawn_ids(&how, logits), 0xff);
    how.temperature = INFINITY;
    assert_int_equal(drawn_ids(&how, logits), 0xff);
}

static void test_infinite_and_senseless_logits_are_never_drawn_by_accident(void **state)
{
    const float holes[N] = { NAN, 1, -INFINITY, 1, NAN, -INFINITY, NAN, NAN };
    const float peaks[N] = { 0, INFINITY, 3, NAN, INFINITY, FLT_MAX / 2, -INFINITY, 1 };
    float none[N];
    const float temperatures[] = { 1e-20f, 1, 1e20f, INFINITY };

    (void)state;
    for (int i = 0; i < N; i++)
        none[i] = i % 2 ? NAN : -INFINITY;
    for (int filter = 0; filter < 4; filter++) {
        for (int i = 0; i < 4; i++) {
            struct sampling how = { .temperature = temperatures[i],
                                    .top_k = filter == 1 ? 5 : 0,
                                    .top_p = filter == 2 ? .99f : 1,
                                    .min_p = filter == 3 ? .01f : 0,
                                    .n_logprobs = 4 };
            assert_int_equal(drawn_ids(&how, holes), BIT(1) | BIT(3));
            assert_int_equal(drawn_ids(&how, none), BIT(0));
            if (temperatures[i] <= 1)
                assert_int_equal(drawn_ids(&how, peaks), BIT(1) | BIT(4));
            else
                drawn_ids(&how, peaks);
        }
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x < y) - (x > y);
}

/* A vocabulary of real size: the cheap selection against a full sort. */
static void test_large_vocabulary_agrees_with_a_full_sort(void **state)
{
    enum { LARGE = 150000 };
    const struct sampling how = { .temperature = 1, .top_p = .9f, .seed = 3, .n_logprobs = 20 };
    float *logits = xcalloc(LARGE, sizeof(*logits));
    double *sorted = xcalloc(LARGE, sizeof(*sorted)), total = 0, sum = 0, last = 0;
    struct sampler *s = sampler_create(LARGE);
    struct choice c;

    (void)state;
    for (uint32_t i = 0; i < LARGE; i++) {
        uint32_t counter[4] = { i, 0, 0, 0 }, key[2] = { 1, 2 }, words[4];
        philox4x32(counter, key, words);
        logits[i] = (float)(words[0] % 20000) / 1000; /* many ties */
        sorted[i] = logits[i];
        total += exp(logits[i]);
    }
    qsort(sorted, LARGE, sizeof(*sorted), compare_doubles);
    for (int i = 0; i < LARGE && sum < .9 * total; i++) {
        sum += exp(sorted[i]);
        last = sorted[i];
    }
    for (uint64_t position = 0; position < 50; position++) {
        sampler_choose(s, &how, logits, position, &c);
        assert_true(logits[c.token.id] >= last - 1e-3);
        assert_float_equal(c.token.logprob, (float)(logits[c.token.id] - log(total)), 1e-5);
        for (int i = 0; i < 20; i++) {
            assert_float_equal(c.top[i].logprob, (float)(sorted[i] - log(total)), 1e-5);
            if (i && c.top[i].logprob == c.top[i - 1].logprob)
                assert_true(c.top[i].id > c.top[i - 1].id);
        }
    }
    sampler_destroy(s);
    free(logits);
    free(sorted);
}

/* The choices of top-p over a large and flat vocabulary, where a sample finds the border, against those by
 * the plain way, which a min-p that drops nothing asks for. */
static void check_flat(struct sampler *s, const float *logits, float top_p, float temperature)
{
    struct sampling how = { .temperature = temperature, .top_p = top_p, .seed = 11 }, plainly = how;
    struct choice c, want;

    plainly.min_p = 1e-38f;
    for (uint64_t position = 0; position < 12; position++) {
        assert_true(sampler_choose(s, &how, logits, position, &c));
        assert_true(sampler_choose(s, &plainly, logits, position, &want));
        assert_int_equal(c.token.id, want.token.id);
        assert_memory_equal(&c.token.logprob, &want.token.logprob, sizeof(float));
    }
}

static void test_flat_distributions_lose_nothing_to_the_faster_search(void **state)
{
    enum { LARGE = 100003, BLOCK = 128, KINDS = 6 };
    static const float shares[] = { .001f, .3f, .9f, .95f, .999f };
    float *logits = xcalloc(LARGE, sizeof(*logits));
    struct sampler *s = sampler_create(LARGE);

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint32_t i = 0; i < LARGE; i++) {
            uint32_t counter[4] = { i, (uint32_t)kind, 0, 0 }, key[2] = { 5, 6 }, words[4];
            philox4x32(counter, key, words);
            double bell = (words[0] * 0x1p-32 + words[1] * 0x1p-32 + words[2] * 0x1p-32 - 1.5) * 2;
            logits[i] = (float)(bell * (double[KINDS]){ .1, 1, 2, 1, 0, 1 }[kind]);
            if (kind == 3) /* ties, and holes */
                logits[i] = words[3] % 9 ? rintf(logits[i] * 4) : words[3] % 2 ? NAN : -INFINITY;
            if (kind == 5 && i / BLOCK % 16 == 0) /* what a sample of every 16th block would believe */
                logits[i] += 3;
        }
        for (int i = 0; i < 5; i++) {
            check_flat(s, logits, shares[i], 1);
            check_flat(s, logits, shares[i], 1.7f);
        }
    }
    sampler_destroy(s);
    free(logits);
}

static void test_a_given_token_is_described_with_the_numbers_of_a_choice(void **state)
{
    enum { MANY = 1000 };
    struct sampling how = { .temperature = 2, .top_p = .95f, .seed = 3, .n_logprobs = 7 };
    struct sampler *s = sampler_create(MANY);
    float logits[MANY];

    (void)state;
    for (uint64_t position = 0; position < 300; position++) {
        for (uint32_t i = 0; i < MANY; i++) {
            uint32_t counter[4] = { i, (uint32_t)position, 0, 0 }, key[2] = { 1, 2 }, words[4];
            philox4x32(counter, key, words);
            logits[i] = (float)(words[0] % 20000) / 1000;
        }
        struct choice chosen, given;
        assert_true(sampler_choose(s, &how, logits, position, &chosen));
        assert_true(sampler_describe(s, logits, chosen.token.id, 7, &given));
        assert_int_equal(given.token.id, chosen.token.id);
        assert_memory_equal(&given.token.logprob, &chosen.token.logprob, sizeof(float));
        assert_int_equal(given.n_top, 7);
        for (int i = 0; i < 7; i++) {
            assert_int_equal(given.top[i].id, chosen.top[i].id);
            assert_memory_equal(&given.top[i].logprob, &chosen.top[i].logprob, sizeof(float));
        }
    }
    sampler_destroy(s);
}

static void test_impossible_tokens_are_described_as_such(void **state)
{
    const float logits[N] = { NAN, 1, -INFINITY, 2, 0, 0, 0, INFINITY };
    const float none[N] = { NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN };
    struct sampler *s = sampler_create(N);
    struct choice c;

    (void)state;
    assert_true(sampler_describe(s, logits, 0, 0, &c));
    assert_true(c.token.logprob == -INFINITY && c.n_top == 0);
    assert_true(sampler_describe(s, logits, 2, 20, &c));
    assert_true(c.token.logprob == -INFINITY);
    assert_int_equal(c.n_top, 6);
    assert_true(sampler_describe(s, logits, 7, 0, &c));
    assert_true(c.token.logprob == 0);
    assert_false(sampler_describe(s, none, 3, 5, &c));
    assert_true(c.token.id == 3 && c.token.logprob == -INFINITY && c.n_top == 0);
    sampler_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_gives_the_published_answers),
        cmocka_unit_test(test_greedy_takes_the_highest_and_the_lower_id_on_a_tie),
        cmocka_unit_test(test_logprobs_are_of_the_whole_distribution_at_temperature_one),
        cmocka_unit_test(test_choice_depends_on_seed_and_position_only),
        cmocka_unit_test(test_frequencies_follow_the_probabilities),
        cmocka_unit_test(test_top_k_keeps_the_most_likely),
        cmocka_unit_test(test_top_p_keeps_the_smallest_set_that_reaches_it),
        cmocka_unit_test(test_min_p_drops_what_is_unlikely_beside_the_most_likely),
        cmocka_unit_test(test_extreme_temperatures_stay_sane),
        cmocka_unit_test(test_infinite_and_senseless_logits_are_never_drawn_by_accident),
        cmocka_unit_test(test_large_vocabulary_agrees_with_a_full_sort),
        cmocka_unit_test(test_flat_distributions_lose_nothing_to_the_faster_search),
        cmocka_unit_test(test_a_given_token_is_described_with_the_numbers_of_a_choice),
        cmocka_unit_test(test_impossible_tokens_are_described_as_such),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

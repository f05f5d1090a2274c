/* Pace against simulated machines, whose steps cost what the pace does not know: bandwidth hides the first
 * rows, attention grows with depth, neighbours disturb. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>

#include "worker/pace.h"

enum { MAX_ROWS = 512, TARGET_US = 20000 };

struct machine {
    double stream_us;  /* weights read from memory: a step costs at least that */
    double compute_us; /* of a row */
    double depth_us;   /* of a prompt row, for each thousand of positions before it */
    double decode_us;  /* of a decode row, its own memory */
    double noise;      /* share */
};

static const struct machine slow = { 60000, 2000, 100, 300, 0.05 };
static const struct machine balanced = { 12000, 400, 60, 100, 0.05 };
static const struct machine small = { 400, 12, 3, 5, 0.05 };
static const struct machine tiny_memory = { 100, 3000, 50, 50, 0.05 };

static uint64_t random_state = 1;

static double random_share(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 33) / 0x1p31;
}

static double cost_us(const struct machine *m, int n_decode, int n_prompt, int depth)
{
    double compute = m->compute_us * (n_decode + n_prompt);

    return (compute > m->stream_us ? compute : m->stream_us) + m->decode_us * n_decode +
           m->depth_us * n_prompt * depth / 1000;
}

static double disturb(const struct machine *m, double us)
{
    double noisy = us * (1 + m->noise * (2 * random_share() - 1));

    return random_share() < 0.02 ? 4 * noisy : noisy;
}

static double bound_us(const struct machine *m, int n_decode)
{
    double decode = cost_us(m, n_decode, 0, 0);

    if (n_decode == 0)
        return PACE_ALONE_US;
    return decode + TARGET_US;
}

struct tally {
    int n_steps, n_above, n_low;
    double highest; /* of cost over bound */
};

/* Prompts of such lengths, one after the other, beside n_decode streams. */
static struct tally drive(struct pace *p, const struct machine *m, int n_decode, int n_steps, int length)
{
    struct tally t = { 0 };
    int depth = 0;

    for (int i = 0; i < n_steps; i++) {
        int rows = pace_prompt_rows(p, n_decode, MAX_ROWS);
        bool is_whole = rows <= length - depth;
        rows = is_whole ? rows : length - depth;
        double plain = n_decode ? cost_us(m, n_decode, 0, 0) : 0;
        double us = cost_us(m, n_decode, rows, depth), share = (us - plain) / bound_us(m, n_decode);
        if (rows > PACE_LEAST_BESIDE || n_decode == 0) {
            t.highest = share > t.highest ? share : t.highest;
            t.n_above += share > 1.2 && rows > 1;
        }
        t.n_low += is_whole && rows > PACE_LEAST_BESIDE && rows < MAX_ROWS && share < 0.6;
        t.n_steps++;
        pace_note(p, n_decode, rows, (int64_t)disturb(m, us));
        depth = is_whole ? depth + rows : 0;
    }
    return t;
}

static void check_bound(const char *name, const struct machine *m, int n_decode)
{
    struct pace p;

    pace_init(&p, TARGET_US);
    struct tally begin = drive(&p, m, n_decode, 30, 4000), t = drive(&p, m, n_decode, 1000, 4000);
    printf("%-12s %2d streams: begins at most %.2f of the bound, then %.2f; above in %d, low in %d of %d\n",
           name, n_decode, begin.highest, t.highest, t.n_above, t.n_low, t.n_steps);
    assert_true(begin.highest < 3);
    assert_true(t.highest < 2);
    assert_true(t.n_above <= t.n_steps / 7);
    assert_true(t.n_low <= t.n_steps / 5);
}

static void test_streams_pause_no_longer_than_agreed(void **state)
{
    (void)state;
    for (int n_decode = 0; n_decode <= 16; n_decode = n_decode ? n_decode * 4 : 1) {
        check_bound("slow", &slow, n_decode);
        check_bound("balanced", &balanced, n_decode);
        check_bound("small", &small, n_decode);
        check_bound("compute", &tiny_memory, n_decode);
    }
}

static void test_first_steps_find_the_pace(void **state)
{
    struct pace p;
    const struct machine calm = { 12000, 400, 0, 100, 0 };

    (void)state;
    pace_init(&p, TARGET_US);
    assert_int_equal(pace_prompt_rows(&p, 0, MAX_ROWS), PACE_FIRST_ROWS);
    drive(&p, &calm, 0, 8, 100000);
    assert_in_range(pace_prompt_rows(&p, 0, 2000), 460, 650);
    for (int i = 0; i < 8; i++)
        pace_note(&p, 4, 0, (int64_t)cost_us(&calm, 4, 0, 0));
    assert_in_range(pace_step_us(&p, 4), 11000, 14000);
    drive(&p, &calm, 4, 12, 100000);
    double us = cost_us(&calm, 4, pace_prompt_rows(&p, 4, MAX_ROWS), 0) - cost_us(&calm, 4, 0, 0);
    assert_in_range(us, 24000, 36000);
}

static void test_one_slow_step_is_soon_forgotten(void **state)
{
    struct pace p;

    (void)state;
    pace_init(&p, TARGET_US);
    struct machine calm = balanced;
    calm.noise = calm.depth_us = 0;
    drive(&p, &calm, 4, 100, 100000);
    while (pace_prompt_rows(&p, 4, MAX_ROWS) == 0)
        pace_note(&p, 4, 0, (int64_t)cost_us(&calm, 4, 0, 0));
    int before = pace_prompt_rows(&p, 4, MAX_ROWS);
    pace_note(&p, 4, before, 20 * (int64_t)cost_us(&calm, 4, before, 0));
    assert_true(pace_prompt_rows(&p, 4, MAX_ROWS) > before / 2);
    for (int i = 0; i < 5; i++) {
        int rows = pace_prompt_rows(&p, 4, MAX_ROWS);
        pace_note(&p, 4, rows, (int64_t)cost_us(&calm, 4, rows, 0));
    }
    assert_true(pace_prompt_rows(&p, 4, MAX_ROWS) > before * 4 / 5);
    /* Nor does one of streams alone count for more. */
    double us = pace_step_us(&p, 4);
    pace_note(&p, 4, 0, 20 * (int64_t)us);
    assert_true(pace_step_us(&p, 4) < 1.2 * us);
}

static void test_a_cold_start_is_not_the_rule(void **state)
{
    struct pace p;

    (void)state;
    pace_init(&p, TARGET_US);
    pace_note(&p, 1, 0, 10 * (int64_t)cost_us(&slow, 1, 0, 0));
    struct tally t = drive(&p, &slow, 1, 100, 4000);
    assert_true(t.highest < 1.6);
}

static void test_a_machine_that_slows_down_is_followed(void **state)
{
    struct pace p;
    struct machine m = balanced;

    (void)state;
    pace_init(&p, TARGET_US);
    m.noise = 0;
    drive(&p, &m, 4, 100, 4000);
    m.compute_us *= 4;
    m.stream_us *= 4;
    drive(&p, &m, 4, 15, 4000);
    double us = cost_us(&m, 4, pace_prompt_rows(&p, 4, MAX_ROWS), 0) - cost_us(&m, 4, 0, 0);
    assert_true(us < 1.3 * bound_us(&m, 4));
}

static void test_small_prompts_do_not_make_a_large_one_seem_free(void **state)
{
    struct pace p;

    (void)state;
    pace_init(&p, TARGET_US);
    drive(&p, &balanced, 1, 100, 4000);
    drive(&p, &balanced, 1, 1000, 6);
    double us = cost_us(&balanced, 1, pace_prompt_rows(&p, 1, MAX_ROWS), 0) - cost_us(&balanced, 1, 0, 0);
    assert_true(us < 1.5 * bound_us(&balanced, 1));
}

static void test_a_prompt_always_progresses_and_never_exceeds_what_is_asked(void **state)
{
    struct pace p;

    (void)state;
    pace_init(&p, TARGET_US);
    for (int i = 0; i < 20; i++)
        pace_note(&p, 0, 1, 10 * 1000 * 1000);
    assert_int_equal(pace_prompt_rows(&p, 0, MAX_ROWS), 1);
    for (int i = 0; i < 20; i++)
        pace_note(&p, 1, 4, 50 * 1000 * 1000);
    int n_none = 0;
    for (int i = 0; i < 100; i++) {
        int rows = pace_prompt_rows(&p, 1, MAX_ROWS);
        n_none += rows == 0;
        assert_true(rows == 0 || rows >= PACE_LEAST_BESIDE);
        assert_true(pace_prompt_rows(&p, 1, 3) <= 3);
        assert_int_equal(pace_prompt_rows(&p, 1, 0), 0);
        pace_note(&p, 1, rows, 50 * 1000 * 1000);
    }
    assert_in_range(n_none, 1, 10);
    /* Senseless times. */
    for (int i = 0; i < 1000; i++)
        pace_note(&p, (int)(random_share() * 40), (int)(random_share() * 300),
                  random_share() < 0.5 ? -5 : INT64_MAX / 2);
    assert_in_range(pace_prompt_rows(&p, 3, MAX_ROWS), 0, MAX_ROWS);
    for (int i = 0; i < 300; i++)
        pace_note(&p, i % 5, i % 3 * 20, (int64_t)cost_us(&balanced, i % 5, i % 3 * 20, 0));
    assert_in_range(pace_step_us(&p, 3), 10000, 15000);
}

static void test_a_step_of_more_rows_is_foretold(void **state)
{
    struct pace p;

    (void)state;
    pace_init(&p, TARGET_US);
    for (int i = 0; i < 300; i++) {
        int n = 1 + i % 12;
        pace_note(&p, n, 0, (int64_t)disturb(&balanced, 10000 + 700.0 * n));
    }
    assert_in_range(pace_step_us(&p, 1), 9600, 11900);
    assert_in_range(pace_step_us(&p, 12), 16500, 20500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_pause_no_longer_than_agreed),
        cmocka_unit_test(test_first_steps_find_the_pace),
        cmocka_unit_test(test_one_slow_step_is_soon_forgotten),
        cmocka_unit_test(test_a_cold_start_is_not_the_rule),
        cmocka_unit_test(test_a_machine_that_slows_down_is_followed),
        cmocka_unit_test(test_small_prompts_do_not_make_a_large_one_seem_free),
        cmocka_unit_test(test_a_prompt_always_progresses_and_never_exceeds_what_is_asked),
        cmocka_unit_test(test_a_step_of_more_rows_is_foretold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

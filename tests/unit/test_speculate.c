/* Speculation on simulated machines and texts: it must win where drafts are right and rows are cheap, and
 * cost next to nothing elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>

#include "worker/speculate.h"

static uint64_t random_state = 1;

static double random_share(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 33) / 0x1p31;
}

struct machine {
    const char *name;
    double base_us, row_us;
};

static const struct machine bandwidth_bound = { "bandwidth", 10000, 150 };
static const struct machine between = { "between", 7000, 3000 };
static const struct machine compute_bound = { "compute", 500, 9500 };

static double cost_us(const struct machine *m, int n_rows)
{
    return m->base_us + m->row_us * n_rows;
}

static void learn_machine(struct pace *p, const struct machine *m)
{
    pace_init(p, 20000);
    for (int i = 0; i < 400; i++)
        pace_note(p, 1 + i % 8, 0, (int64_t)cost_us(m, 1 + i % 8));
}

/* Tokens per second of one sequence beside others, over those without speculation. */
static double gain(const struct machine *m, double acceptance, int other_rows, int n_steps)
{
    struct pace p;
    struct speculation s;
    double time_us = 0, tokens = 0;

    learn_machine(&p, m);
    speculation_init(&s);
    for (int i = 0; i < n_steps; i++) {
        int k = speculation_choose(&s, SPECULATE_AUTO, &p, other_rows, 0, 8), n_accepted = 0;
        while (n_accepted < k && random_share() < acceptance)
            n_accepted++;
        speculation_note(&s, k, n_accepted);
        time_us += cost_us(m, other_rows + 1 + k);
        tokens += other_rows + 1 + n_accepted;
        if (k > 0)
            pace_note(&p, other_rows + 1 + k, 0, (int64_t)cost_us(m, other_rows + 1 + k));
    }
    return tokens / time_us * cost_us(m, other_rows + 1) / (other_rows + 1);
}

static void test_nothing_is_lost_whatever_the_text_and_the_machine(void **state)
{
    static const struct machine *const machines[] = { &bandwidth_bound, &between, &compute_bound };
    static const double acceptances[] = { 0, .3, .6, .9 };

    (void)state;
    for (int m = 0; m < 3; m++) {
        printf("%-10s", machines[m]->name);
        for (int others = 0; others <= 7; others += 7) {
            for (int a = 0; a < 4; a++) {
                double g = gain(machines[m], acceptances[a], others, 1000);
                printf("  %d+1 at %.1f: %.3f", others, acceptances[a], g);
                assert_true(g > 0.98);
            }
        }
        printf("\n");
    }
}

static void test_right_drafts_win_where_memory_is_the_limit(void **state)
{
    (void)state;
    assert_true(gain(&bandwidth_bound, .9, 0, 1000) > 4);
    assert_true(gain(&bandwidth_bound, .6, 0, 1000) > 1.9);
    assert_true(gain(&bandwidth_bound, .3, 0, 1000) > 1.2);
    assert_true(gain(&between, .9, 0, 1000) > 1.5);
    assert_true(gain(&bandwidth_bound, .9, 7, 1000) > 1.2);
}

static void test_a_text_that_begins_to_repeat_is_noticed(void **state)
{
    struct pace p;
    struct speculation s;
    int steps = 0;

    (void)state;
    learn_machine(&p, &bandwidth_bound);
    speculation_init(&s);
    for (int i = 0; i < 1000; i++)
        speculation_note(&s, speculation_choose(&s, SPECULATE_AUTO, &p, 0, 0, 8), 0);
    for (int k = 0; k < 8 && steps < 1000; steps++) {
        k = speculation_choose(&s, SPECULATE_AUTO, &p, 0, 0, 8);
        speculation_note(&s, k, k);
    }
    assert_in_range(steps, 5, 100);
}

static void test_modes_and_limits_are_kept(void **state)
{
    struct pace p;
    struct speculation s;

    (void)state;
    pace_init(&p, 20000);
    speculation_init(&s);
    /* Nothing is known of the machine. */
    assert_int_equal(speculation_choose(&s, SPECULATE_AUTO, &p, 0, 0, 8), 0);
    assert_int_equal(speculation_choose(&s, SPECULATE_ALWAYS, &p, 0, 0, 8), SPECULATE_FIXED);
    assert_int_equal(speculation_choose(&s, SPECULATE_ALWAYS, &p, 0, 0, 3), 3);
    assert_int_equal(speculation_choose(&s, SPECULATE_OFF, &p, 0, 0, 8), 0);
    learn_machine(&p, &bandwidth_bound);
    for (int i = 0; i < 100; i++)
        speculation_note(&s, 8, 8);
    assert_int_equal(speculation_choose(&s, SPECULATE_AUTO, &p, 0, 0, 5), 5);
    assert_int_equal(speculation_choose(&s, SPECULATE_AUTO, &p, 0, 0, 100), SPECULATE_MOST);
    assert_int_equal(speculation_choose(&s, SPECULATE_AUTO, &p, 0, 0, 0), 0);
    assert_int_equal(speculation_choose(&s, SPECULATE_OFF, &p, 0, 0, 8), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost_whatever_the_text_and_the_machine),
        cmocka_unit_test(test_right_drafts_win_where_memory_is_the_limit),
        cmocka_unit_test(test_a_text_that_begins_to_repeat_is_noticed),
        cmocka_unit_test(test_modes_and_limits_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The pool of threads: that every share is done once and before pool_run returns, however threads are late,
 * asleep or without a core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/model/pool.h"

enum { N_ITEMS = 100, MOST_THREADS = 8 };

/* A job that adds one to each item, and what its threads saw. Nothing here is atomic: the pool has to order
 * all of it (the thread sanitizer checks). */
struct work {
    int items[N_ITEMS];
    int n_calls, n_threads;     /* of the owner's calls, what the last was told */
    int pause_us[MOST_THREADS]; /* of each thread in the next job */
    int cpu_of[MOST_THREADS];   /* where it ran */
};

static struct pool *create(int n_threads)
{
    struct pool *p;
    struct error err;
    assert_int_equal(pool_create(&p, n_threads, &err), OK);
    return p;
}

static void add_one(void *arg, int thread, int n_threads)
{
    struct work *w = arg;
    int64_t first, last;
    if (thread == 0) {
        w->n_calls++;
        w->n_threads = n_threads;
    }
    if (w->pause_us[thread])
        usleep((useconds_t)w->pause_us[thread]);
    w->cpu_of[thread] = sched_getcpu();
    pool_share(N_ITEMS, 1, thread, n_threads, &first, &last);
    for (int64_t i = first; i < last; i++)
        w->items[i]++;
}

static void assert_items_are(const struct work *w, int value)
{
    for (int i = 0; i < N_ITEMS; i++)
        if (w->items[i] != value)
            fail_msg("item %d was counted %d times in %d jobs", i, w->items[i], value);
}

static void test_every_share_is_done_once_with_any_number_of_threads(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= MOST_THREADS; n_threads++) {
        struct work w = { 0 };
        struct pool *p = create(n_threads);
        int64_t end_ms = clock_ms() + 100;
        int n_jobs = 0;
        for (; clock_ms() < end_ms; n_jobs++) {
            pool_run(p, add_one, &w);
            assert_int_equal(w.items[N_ITEMS - 1], n_jobs + 1);
            assert_true(w.n_threads == n_threads || w.n_threads == 1);
        }
        pool_destroy(p);
        assert_items_are(&w, n_jobs);
        assert_int_equal(w.n_calls, n_jobs);
    }
}

static unsigned next_random(unsigned *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

/* Mostly nothing, often about as long as a thread spins, sometimes much longer. */
static int random_pause_us(unsigned *state)
{
    switch (next_random(state) % 8) {
    case 0:
        return 1 + (int)(next_random(state) % 10);
    case 1:
        return 50 + (int)(next_random(state) % 100);
    case 2:
        return next_random(state) % 4 ? 0 : 2000;
    default:
        return 0;
    }
}

static void test_no_wake_up_is_lost_when_threads_fall_asleep_at_any_moment(void **state)
{
    unsigned seed = 1;
    (void)state;
    for (int n_threads = 2; n_threads <= 4; n_threads++) {
        struct work w = { 0 };
        struct pool *p = create(n_threads);
        int64_t end_ms = clock_ms() + 400;
        int n_jobs = 0;
        for (; clock_ms() < end_ms; n_jobs++) {
            for (int i = 0; i < n_threads; i++)
                w.pause_us[i] = random_pause_us(&seed);
            pool_run(p, add_one, &w);
            int pause_us = random_pause_us(&seed);
            if (pause_us)
                usleep((useconds_t)pause_us);
        }
        pool_destroy(p);
        assert_items_are(&w, n_jobs);
    }
}

static void test_an_owner_who_only_waits_for_the_others_goes_on_alone_and_tries_them_again(void **state)
{
    struct work w = { .pause_us = { 0, 5000 } };
    struct pool *p = create(2);
    int n_jobs = 0, n_alone = 0, n_tries = 0, last_threads = 2;
    (void)state;
    for (int64_t end_ms = clock_ms() + 500; clock_ms() < end_ms; n_jobs++) {
        pool_run(p, add_one, &w);
        n_alone += w.n_threads == 1;
        n_tries += w.n_threads == 2 && last_threads == 1;
        last_threads = w.n_threads;
    }
    pool_destroy(p);
    assert_items_are(&w, n_jobs);
    assert_true(n_alone > 100); /* together there would be no more than 100 in this time */
    assert_true(n_tries > 0);
}

static int64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void test_an_idle_pool_uses_no_cpu(void **state)
{
    struct work w = { 0 };
    struct pool *p = create(4);
    (void)state;
    for (int i = 0; i < 1000; i++)
        pool_run(p, add_one, &w);
    usleep(50000);
    int64_t before_us = cpu_us();
    usleep(500000);
    assert_in_range(cpu_us() - before_us, 0, 2000);
    pool_run(p, add_one, &w);
    pool_destroy(p);
    assert_items_are(&w, 1001);
}

static void test_a_pool_may_end_at_once_or_asleep(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        pool_destroy(create(1 + i % 4));
        struct pool *p = create(3);
        usleep((useconds_t)(i * 10));
        pool_destroy(p);
    }
    pool_destroy(NULL);
}

static void test_threads_run_where_their_maker_may(void **state)
{
    struct work w = { 0 };
    cpu_set_t before, one;
    int last = -1;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &before))
            last = cpu;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    struct pool *p = create(3);
    memset(w.cpu_of, -1, sizeof w.cpu_of);
    pool_run(p, add_one, &w);
    for (int i = 0; i < w.n_threads; i++)
        assert_int_equal(w.cpu_of[i], last);
    pool_destroy(p);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void test_shares_are_whole_grains_next_to_each_other(void **state)
{
    (void)state;
    for (int64_t n = 0; n <= 70; n++)
        for (int n_threads = 1; n_threads <= MOST_THREADS; n_threads++) {
            int64_t expected = 0, first, last;
            for (int thread = 0; thread < n_threads; thread++) {
                pool_share(n, 16, thread, n_threads, &first, &last);
                assert_int_equal(first, expected);
                assert_true(last >= first && (last % 16 == 0 || last == n));
                expected = last;
            }
            assert_int_equal(expected, n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_share_is_done_once_with_any_number_of_threads),
        cmocka_unit_test(test_no_wake_up_is_lost_when_threads_fall_asleep_at_any_moment),
        cmocka_unit_test(test_an_owner_who_only_waits_for_the_others_goes_on_alone_and_tries_them_again),
        cmocka_unit_test(test_an_idle_pool_uses_no_cpu),
        cmocka_unit_test(test_a_pool_may_end_at_once_or_asleep),
        cmocka_unit_test(test_threads_run_where_their_maker_may),
        cmocka_unit_test(test_shares_are_whole_grains_next_to_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

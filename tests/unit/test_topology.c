/* Which cores there are and who gets them, on this machine and on invented ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/topology.h"

/* hwloc invents a machine after such a description. */
static struct topology machine(const char *description)
{
    struct topology t;
    setenv("HWLOC_SYNTHETIC", description, 1);
    topology_init(&t);
    unsetenv("HWLOC_SYNTHETIC");
    return t;
}

static void test_a_core_set_of_the_process_is_respected(void **state)
{
    struct topology t;
    cpu_set_t before, one;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &before))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
        topology_init(&t);
        assert_int_equal(t.n_cores, 1);
        assert_int_equal(t.n_domains, 1);
        assert_int_equal(t.cores[0].cpu, cpu);
        topology_fini(&t);
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    topology_init(&t);
    assert_in_range(t.n_cores, 1, CPU_COUNT(&before));
    topology_fini(&t);
}

static void test_of_two_units_that_share_a_core_one_counts(void **state)
{
    struct topology t = machine("numa:1 l3:1 core:4 pu:2");
    (void)state;
    assert_int_equal(t.n_cores, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(t.cores[i].cpu, 2 * i);
    topology_fini(&t);
}

static void assert_suggests(const char *description, int n_models, int n_workers, int n_threads)
{
    struct topology t = machine(description);
    int workers = 0, threads = 0;
    topology_suggest(&t, n_models, &workers, &threads);
    if (workers != n_workers || threads != n_threads)
        fail_msg("%s, %d models: %d workers of %d threads, not %d of %d", description, n_models, workers,
                 threads, n_workers, n_threads);
    topology_fini(&t);
}

static void test_a_small_machine_gets_one_worker_and_a_large_one_a_worker_per_domain(void **state)
{
    (void)state;
    assert_suggests("numa:1 l3:1 core:2 pu:1", 1, 1, 2);
    assert_suggests("numa:1 l3:2 core:8 pu:2", 1, 1, 16); /* two caches, but small */
    assert_suggests("numa:1 l3:12 core:8 pu:2", 1, 12, 8);
    assert_suggests("numa:1 l3:1 core:56 pu:2", 1, 1, 56);
    assert_suggests("numa:2 l3:1 core:4 pu:1", 1, 2, 4);
    assert_suggests("numa:2 l3:4 core:8 pu:1", 1, 8, 8);
}

static void test_models_divide_the_cores(void **state)
{
    (void)state;
    assert_suggests("numa:1 l3:1 core:8 pu:1", 2, 1, 4);
    assert_suggests("numa:1 l3:1 core:8 pu:1", 3, 1, 2);
    assert_suggests("numa:1 l3:1 core:2 pu:1", 5, 1, 1);
    assert_suggests("numa:4 l3:1 core:4 pu:1", 2, 2, 4);
}

static void test_what_is_given_stays(void **state)
{
    struct topology t = machine("numa:1 l3:1 core:8 pu:1");
    int workers = 2, threads = 0;
    (void)state;
    topology_suggest(&t, 1, &workers, &threads);
    assert_true(workers == 2 && threads == 4);
    workers = 0, threads = 20;
    topology_suggest(&t, 1, &workers, &threads);
    assert_true(workers == 1 && threads == 20);
    topology_fini(&t);
}

static void test_workers_get_cores_of_their_own_and_those_of_one_domain(void **state)
{
    struct topology t = machine("numa:2 l3:1 core:4 pu:2");
    cpu_set_t all, one;
    (void)state;
    assert_int_equal(t.n_domains, 2);
    CPU_ZERO(&all);
    for (int i = 0; i < 4; i++) {
        assert_true(topology_share(&t, i, 4, 2, &one));
        assert_int_equal(CPU_COUNT(&one), 2);
        int n_first = 0;
        for (int c = 0; c < t.n_cores; c++)
            n_first += CPU_ISSET(t.cores[c].cpu, &one) && t.cores[c].domain == 0;
        assert_true(n_first == 0 || n_first == 2);
        CPU_OR(&all, &all, &one);
    }
    assert_int_equal(CPU_COUNT(&all), 8);
    topology_fini(&t);
}

static void test_a_worker_larger_than_a_domain_gets_cores_of_several(void **state)
{
    struct topology t = machine("numa:2 l3:1 core:4 pu:1");
    cpu_set_t one;
    (void)state;
    assert_true(topology_share(&t, 0, 1, 6, &one));
    assert_int_equal(CPU_COUNT(&one), 6);
    topology_fini(&t);
}

static void test_nobody_is_pinned_where_there_are_not_cores_for_all(void **state)
{
    struct topology t = machine("numa:1 l3:1 core:4 pu:2");
    cpu_set_t one;
    (void)state;
    assert_false(topology_share(&t, 0, 3, 2, &one));
    assert_false(topology_share(&t, 0, 1, 5, &one));
    assert_true(topology_share(&t, 1, 2, 2, &one));
    topology_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_core_set_of_the_process_is_respected),
        cmocka_unit_test(test_of_two_units_that_share_a_core_one_counts),
        cmocka_unit_test(test_a_small_machine_gets_one_worker_and_a_large_one_a_worker_per_domain),
        cmocka_unit_test(test_models_divide_the_cores),
        cmocka_unit_test(test_what_is_given_stays),
        cmocka_unit_test(test_workers_get_cores_of_their_own_and_those_of_one_domain),
        cmocka_unit_test(test_a_worker_larger_than_a_domain_gets_cores_of_several),
        cmocka_unit_test(test_nobody_is_pinned_where_there_are_not_cores_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

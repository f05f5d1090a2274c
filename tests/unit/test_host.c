/* The model host with workers that only live and die: who is forked again, and how the host ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "common/signals.h"
#include "worker/host.h"

enum { MAX_LIVES = 16 };

/* Shared with the workers. */
struct record {
    _Atomic int n_begun; /* lives that took a place below */
    _Atomic int n_lives; /* and filled it in */
    _Atomic int64_t born_us[MAX_LIVES];
    _Atomic pid_t pids[MAX_LIVES];
    _Atomic int n_terminated;
    _Atomic pid_t aide;
    _Atomic int aide_priority;
};

static struct record *record;

static int note_life(void)
{
    int life = record->n_begun++;
    record->pids[life] = getpid();
    record->born_us[life] = clock_us();
    record->n_lives++;
    return life;
}

static void wait_for_stop(void)
{
    while (!signals_stop_wanted())
        usleep(1000);
    record->n_terminated++;
}

/* ---- ways to live ---- */

static int live_quietly(int index, const void *context)
{
    (void)index;
    (void)context;
    note_life();
    wait_for_stop();
    return 0;
}

static int crash_three_times(int index, const void *context)
{
    (void)index;
    (void)context;
    if (note_life() < 3)
        raise(SIGKILL);
    wait_for_stop();
    return 0;
}

static int fail_to_begin(int index, const void *context)
{
    (void)context;
    note_life();
    if (index == 1)
        return 1;
    wait_for_stop();
    return 0;
}

static int fail_in_second_life(int index, const void *context)
{
    (void)index;
    (void)context;
    switch (note_life()) {
    case 0:
        raise(SIGKILL);
        return 0;
    case 1:
        return 1;
    }
    wait_for_stop();
    return 0;
}

static int end_well(int index, const void *context)
{
    (void)index;
    (void)context;
    note_life();
    return 0;
}

/* Longer than a test lasts, unless it is told to stop. */
static int aid_until_stop(const void *context)
{
    assert_ptr_equal(context, record);
    record->aide_priority = getpriority(PRIO_PROCESS, 0);
    record->aide = getpid();
    wait_for_stop();
    return 0;
}

static int aid_and_end(const void *context)
{
    (void)context;
    record->aide = getpid();
    return 0;
}

static int ignore_everything(int index, const void *context)
{
    (void)index;
    (void)context;
    note_life();
    while (pause() < 0)
        ;
    return 0;
}

/* ---- the host in a process of its own ---- */

static pid_t start_host_with_aide(int n_workers, int (*run)(int, const void *), int (*aid)(const void *))
{
    *record = (struct record){ 0 };
    pid_t test = getpid(), pid = fork();
    if (pid == 0) {
        process_die_with(test); /* a failed test must not leave a host behind that holds its output open */
        _exit(host_run(&(struct host_options){
            .name = "test", .n_workers = n_workers, .run = run, .aid = aid, .aid_context = record }));
    }
    assert_true(pid > 0);
    return pid;
}

static pid_t start_host(int n_workers, int (*run)(int, const void *))
{
    return start_host_with_aide(n_workers, run, NULL);
}

static void wait_for_aide(void)
{
    for (int i = 0; !record->aide; i++) {
        assert_true(i < 5000);
        usleep(1000);
    }
}

static void wait_for_lives(int n)
{
    for (int i = 0; record->n_lives < n; i++) {
        assert_true(i < 5000);
        usleep(1000);
    }
}

static int end_of(pid_t host)
{
    int wait_status;
    assert_int_equal(waitpid(host, &wait_status, 0), host);
    assert_true(WIFEXITED(wait_status));
    return WEXITSTATUS(wait_status);
}

static bool is_alive(pid_t pid)
{
    return kill(pid, 0) == 0;
}

static void test_sigterm_goes_to_the_workers_and_ends_well(void **state)
{
    (void)state;
    pid_t host = start_host(3, live_quietly);
    wait_for_lives(3);
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
    assert_int_equal(record->n_terminated, 3);
    assert_int_equal(record->n_lives, 3);
}

static void test_a_killed_worker_is_forked_again_at_once(void **state)
{
    (void)state;
    pid_t host = start_host(2, live_quietly);
    wait_for_lives(2);
    int64_t killed_us = clock_us();
    kill(record->pids[1], SIGKILL);
    wait_for_lives(3);
    assert_true(record->born_us[2] - killed_us < 45 * 1000); /* less than the first delay */
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
    assert_int_equal(record->n_terminated, 2);
}

static void test_dying_young_again_and_again_slows_the_next_life(void **state)
{
    (void)state;
    pid_t host = start_host(1, crash_three_times);
    wait_for_lives(4);
    assert_true(record->born_us[2] - record->born_us[1] >= 5 * 1000);
    assert_true(record->born_us[3] - record->born_us[2] >= 10 * 1000);
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
}

static void test_a_worker_that_cannot_begin_ends_the_host_with_status_1(void **state)
{
    (void)state;
    pid_t host = start_host(2, fail_to_begin);
    assert_int_equal(end_of(host), 1);
    assert_int_equal(record->n_lives, 2);
}

static void test_a_worker_that_cannot_begin_again_is_tried_again(void **state)
{
    (void)state;
    pid_t host = start_host(1, fail_in_second_life);
    wait_for_lives(3);
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
}

static void test_workers_that_end_well_end_the_host(void **state)
{
    (void)state;
    pid_t host = start_host(2, end_well);
    assert_int_equal(end_of(host), 0);
    assert_int_equal(record->n_lives, 2);
}

static void test_the_aide_lets_workers_live_and_stops_with_them(void **state)
{
    (void)state;
    pid_t host = start_host_with_aide(2, crash_three_times, aid_until_stop);
    wait_for_aide();
    wait_for_lives(5); /* three that crashed and two that wait */
    assert_int_equal(record->aide_priority, 19);
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
    assert_int_equal(record->n_terminated, 3);
}

static void test_the_end_of_the_aide_concerns_nobody(void **state)
{
    (void)state;
    pid_t host = start_host_with_aide(1, live_quietly, aid_and_end);
    wait_for_aide();
    wait_for_lives(1);
    for (int i = 0; is_alive(record->aide); i++) { /* until it is reaped */
        assert_true(i < 5000);
        usleep(1000);
    }
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
    assert_int_equal(record->n_lives, 1);

    host = start_host_with_aide(1, live_quietly, aid_until_stop);
    wait_for_aide();
    kill(record->aide, SIGKILL);
    wait_for_lives(1);
    while (is_alive(record->aide))
        usleep(1000);
    kill(host, SIGTERM);
    assert_int_equal(end_of(host), 0);
    assert_int_equal(record->n_lives, 1);
}

static void test_workers_die_with_the_host(void **state)
{
    (void)state;
    pid_t host = start_host(1, ignore_everything);
    wait_for_lives(1);
    kill(host, SIGKILL);
    assert_int_equal(waitpid(host, NULL, 0), host);
    for (int i = 0; is_alive(record->pids[0]); i++) {
        int wait_status;
        waitpid(record->pids[0], &wait_status, WNOHANG); /* ours now, should we be its reaper */
        assert_true(i < 5000);
        usleep(1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sigterm_goes_to_the_workers_and_ends_well),
        cmocka_unit_test(test_a_killed_worker_is_forked_again_at_once),
        cmocka_unit_test(test_dying_young_again_and_again_slows_the_next_life),
        cmocka_unit_test(test_a_worker_that_cannot_begin_ends_the_host_with_status_1),
        cmocka_unit_test(test_a_worker_that_cannot_begin_again_is_tried_again),
        cmocka_unit_test(test_workers_that_end_well_end_the_host),
        cmocka_unit_test(test_the_aide_lets_workers_live_and_stops_with_them),
        cmocka_unit_test(test_the_end_of_the_aide_concerns_nobody),
        cmocka_unit_test(test_workers_die_with_the_host),
    };
    record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(record != MAP_FAILED);
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

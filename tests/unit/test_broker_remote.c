/* Workers of other machines at the broker's core, and whom it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/broker_world.h"

static int setup(void **state)
{
    *state = world_create();
    return 0;
}

static int teardown(void **state)
{
    world_destroy(*state);
    return 0;
}

/* ctx 0 is what register_as says, too. */
static void register_from(struct world *w, int from, const char *host, uint32_t index, uint32_t ctx,
                          bool is_remote)
{
    struct peer peer = world_peer(from);
    struct message m = { .kind = MSG_REGISTER,
                         .registration = { .model = slice_of("m"),
                                           .host = slice_of(host),
                                           .index = index,
                                           .pid = 100 + (uint64_t)from,
                                           .slots = 2,
                                           .n_ctx = ctx } };
    peer.is_remote = is_remote;
    w->broker.turn_us = w->now_ms * 1000;
    broker_on_worker(&w->broker, &peer, &m, w->now_ms);
}

static const struct worker *worker_at(struct world *w, int number)
{
    struct peer peer = world_peer(number);
    return worker_find(&w->broker, &peer);
}

static void test_hosts_of_two_machines_serve_one_model_side_by_side(void **state)
{
    struct world *w = *state;
    register_from(w, 1, "here:10", 0, 0, false);
    register_from(w, 2, "there:10", 0, 0, true);
    assert_non_null(worker_at(w, 1));
    assert_non_null(worker_at(w, 2));
    assert_int_equal(count_sent(w, MSG_WELCOME, 2), 1);
}

static void test_a_worker_that_comes_back_takes_its_own_place(void **state)
{
    struct world *w = *state;
    register_from(w, 1, "there:10", 0, 0, true);
    register_from(w, 2, "there:10", 1, 0, true);
    register_from(w, 3, "there:10", 0, 0, true);
    assert_null(worker_at(w, 1));
    assert_non_null(worker_at(w, 2));
    assert_non_null(worker_at(w, 3));
}

/* Its process id would be that of anybody here. */
static void test_the_process_of_a_remote_worker_is_not_watched(void **state)
{
    struct world *w = *state;
    register_from(w, 1, "here:10", 0, 0, false);
    register_from(w, 2, "there:10", 0, 0, true);
    assert_int_equal(worker_at(w, 1)->watch_fd, -101); /* as the world numbers them */
    assert_int_equal(worker_at(w, 2)->watch_fd, -1);
}

static void test_a_stop_of_the_server_leaves_remote_workers_waiting_for_the_next(void **state)
{
    struct world *w = *state;
    register_from(w, 1, "here:10", 0, 0, false);
    register_from(w, 2, "there:10", 0, 0, true);
    broker_stop(&w->broker, 0, w->now_ms);
    assert_int_equal(count_sent(w, MSG_STOP, 1), 1);
    assert_int_equal(count_sent(w, MSG_STOP, 2), 0);
}

static void test_another_model_under_a_served_name_is_refused(void **state)
{
    struct world *w = *state;
    register_from(w, 1, "here:10", 0, 64, false);
    register_from(w, 2, "there:10", 0, 128, true);
    assert_non_null(worker_at(w, 1));
    assert_null(worker_at(w, 2));
    assert_int_equal(count_sent(w, MSG_REFUSED, 2), 1);
    register_from(w, 2, "there:10", 0, 64, true);
    assert_non_null(worker_at(w, 2));
}

/* A newer worker, for example. What it sends later is not about a registration, but it is not known any more.
 */
static void test_who_cannot_be_understood_is_told_why(void **state)
{
    struct world *w = *state;
    struct peer peer = world_peer(1);
    broker_on_bad_worker(&w->broker, &peer, "v: version 2 is not spoken here, version 1 is", w->now_ms);
    assert_int_equal(count_sent(w, MSG_REFUSED, 1), 1);
    register_from(w, 2, "here:10", 0, 0, false);
    struct peer known = world_peer(2);
    broker_on_bad_worker(&w->broker, &known, "nonsense", w->now_ms);
    assert_null(worker_at(w, 2));
    assert_int_equal(count_sent(w, MSG_REFUSED, 2), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_hosts_of_two_machines_serve_one_model_side_by_side),
        TEST(test_a_worker_that_comes_back_takes_its_own_place),
        TEST(test_the_process_of_a_remote_worker_is_not_watched),
        TEST(test_a_stop_of_the_server_leaves_remote_workers_waiting_for_the_next),
        TEST(test_another_model_under_a_served_name_is_refused),
        TEST(test_who_cannot_be_understood_is_told_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

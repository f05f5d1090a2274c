/* The worker's connection to its broker, with a broker played by this test. Time is what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/uplink.h"

enum { WAIT_MS = 5000 };

struct stage {
    void *context, *router;
    char endpoint[256];
    struct decoder *decoder;
    struct buffer out;
    struct wire_message in;
    struct uplink uplink;
    struct msg_register self;
    int64_t now_ms; /* as the uplink knows it */
};

static void open_broker(struct stage *s, const char *endpoint)
{
    struct error err;
    s->router = wire_open(s->context, WIRE_WORKER_SIDE, &err);
    assert_non_null(s->router);
    assert_int_equal(wire_bind(s->router, endpoint, NULL, s->endpoint, &err), OK);
}

static int setup(void **state)
{
    static struct stage s;
    struct error err;

    s = (struct stage){ .context = zmq_ctx_new(), .decoder = decoder_create(), .now_ms = 1000000 };
    open_broker(&s, "tcp://127.0.0.1:*");
    s.self = (struct msg_register){ .model = slice_of("m"), .pid = 1, .slots = 2 };
    assert_int_equal(uplink_init(&s.uplink, s.endpoint, NULL, &s.self, s.now_ms, &err), OK);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct stage *s = *state;
    uplink_fini(&s->uplink);
    zmq_close(s->router);
    zmq_ctx_term(s->context);
    decoder_destroy(s->decoder);
    buffer_fini(&s->out);
    return 0;
}

/* One turn of a loop with nothing to do. */
static enum status turn(struct stage *s, struct message *m)
{
    uplink_update(&s->uplink, s->now_ms);
    enum status status = uplink_receive(&s->uplink, s->now_ms, m);
    if (status != OK)
        usleep(1000);
    return status;
}

/* Turns until the broker has a message of this kind; then in.identity is where it came from. */
static void expect(struct stage *s, enum message_kind kind)
{
    struct message m;
    struct error err;
    int64_t limit_ms = clock_ms() + WAIT_MS;

    while (wire_receive(s->router, &s->in) != OK) {
        assert_true(clock_ms() < limit_ms);
        assert_int_equal(turn(s, &m), E_TIMEOUT);
    }
    assert_int_equal(message_decode(s->decoder, WORKER_TO_BROKER, zmq_msg_data(&s->in.body),
                                    zmq_msg_size(&s->in.body), &m, &err),
                     OK);
    assert_int_equal(m.kind, kind);
    wire_message_close(&s->in);
}

static void tell(struct stage *s, const struct message *m)
{
    message_encode(&s->out, m);
    assert_int_equal(wire_send(s->router, s->in.identity, s->in.identity_len, false, s->out.data, s->out.len),
                     OK);
}

static void tell_epoch(struct stage *s, enum message_kind kind, uint64_t epoch)
{
    tell(s, &(struct message){ .kind = kind, .epoch = { .epoch = epoch } });
}

static void tell_drop(struct stage *s, uint64_t epoch, uint64_t job)
{
    tell(s, &(struct message){ .kind = MSG_DROP, .drop = { .epoch = epoch, .job = job } });
}

static void turn_until(struct stage *s, enum uplink_state wanted)
{
    struct message m;
    int64_t limit_ms = clock_ms() + WAIT_MS;
    while (s->uplink.state != wanted) {
        assert_true(clock_ms() < limit_ms);
        assert_int_equal(turn(s, &m), E_TIMEOUT);
    }
}

static void come_up(struct stage *s, uint64_t epoch)
{
    expect(s, MSG_REGISTER);
    tell(s, &(struct message){ .kind = MSG_WELCOME, .welcome = { .epoch = epoch } });
    turn_until(s, UPLINK_UP);
    assert_int_equal(s->uplink.epoch, epoch);
}

static void expect_drop_of(struct stage *s, uint64_t job)
{
    struct message m;
    int64_t limit_ms = clock_ms() + WAIT_MS;
    while (turn(s, &m) != OK)
        assert_true(clock_ms() < limit_ms);
    assert_int_equal(m.kind, MSG_DROP);
    assert_int_equal(m.drop.job, job);
}

/* ---- what it does ---- */

static void test_is_up_after_the_welcome_and_not_before(void **state)
{
    struct stage *s = *state;
    assert_false(uplink_can_send(&s->uplink));
    expect(s, MSG_REGISTER);
    assert_false(uplink_can_send(&s->uplink));
    tell(s, &(struct message){ .kind = MSG_WELCOME, .welcome = { .epoch = 5 } });
    turn_until(s, UPLINK_UP);
    assert_true(uplink_can_send(&s->uplink));
}

static void test_messages_of_another_epoch_are_ignored(void **state)
{
    struct stage *s = *state;
    come_up(s, 5);
    tell_drop(s, 4, 1);
    tell_epoch(s, MSG_STOP, 4);
    tell_drop(s, 5, 2);
    expect_drop_of(s, 2);
}

static void test_a_beat_of_another_epoch_makes_it_register_anew_at_once(void **state)
{
    struct stage *s = *state;
    come_up(s, 5);
    tell_epoch(s, MSG_BROKER_BEAT, 6);
    come_up(s, 6);
}

static void test_silence_makes_it_register_anew(void **state)
{
    struct stage *s = *state;
    come_up(s, 5);
    s->now_ms += PEER_TIMEOUT_MS - 1;
    tell_epoch(s, MSG_BROKER_BEAT, 5);
    tell_drop(s, 5, 1);
    expect_drop_of(s, 1); /* the beat was heard */
    s->now_ms += PEER_TIMEOUT_MS - 1;
    struct message m;
    assert_int_equal(turn(s, &m), E_TIMEOUT);
    assert_int_equal(s->uplink.state, UPLINK_UP);
    s->now_ms += 1;
    come_up(s, 5);
}

static void test_beats_that_waited_during_a_long_step_count(void **state)
{
    struct stage *s = *state;
    struct message m;
    come_up(s, 5);
    tell_epoch(s, MSG_BROKER_BEAT, 5);
    usleep(100 * 1000);
    s->now_ms += 2 * PEER_TIMEOUT_MS;
    assert_int_equal(turn(s, &m), E_TIMEOUT);
    assert_int_equal(s->uplink.state, UPLINK_UP);
}

static void test_a_broker_that_comes_back_is_found(void **state)
{
    struct stage *s = *state;
    char endpoint[256];
    come_up(s, 5);
    strcpy(endpoint, s->endpoint);
    zmq_close(s->router);
    turn_until(s, UPLINK_CONNECTING); /* noticed without any time passing */
    s->now_ms += 100 * PEER_TIMEOUT_MS;
    for (int i = 0; i < 20; i++)
        assert_int_equal(turn(s, &(struct message){ 0 }), E_TIMEOUT);
    assert_int_equal(s->uplink.state, UPLINK_CONNECTING);
    zmq_ctx_term(s->context); /* the old socket is closed for certain after this */
    s->context = zmq_ctx_new();
    open_broker(s, endpoint);
    come_up(s, 6);
}

static void test_without_a_welcome_it_tries_again_later_and_later(void **state)
{
    struct stage *s = *state;
    int expected_ms[] = { 0, 1000, 2000, 4000, 8000, 16000, 32000, 32000 };
    struct message m;
    for (size_t i = 0; i < sizeof expected_ms / sizeof *expected_ms; i++) {
        expect(s, MSG_REGISTER);
        s->now_ms += PEER_TIMEOUT_MS;
        assert_int_equal(turn(s, &m), E_TIMEOUT);
        assert_int_equal(s->uplink.state, UPLINK_CLOSED);
        assert_int_equal(s->uplink.retry_at_ms - s->now_ms, expected_ms[i]);
        s->now_ms = s->uplink.retry_at_ms;
    }
}

static void test_a_refused_registration_is_tried_again_later(void **state)
{
    struct stage *s = *state;
    for (int expected_ms = 0; expected_ms <= 2000; expected_ms += 1000) {
        expect(s, MSG_REGISTER);
        tell(s, &(struct message){ .kind = MSG_REFUSED,
                                   .refused = { .epoch = 5, .message = slice_of("another model") } });
        turn_until(s, UPLINK_CLOSED);
        assert_int_equal(s->uplink.retry_at_ms - s->now_ms, expected_ms);
        s->now_ms = s->uplink.retry_at_ms;
    }
    come_up(s, 5);
}

static void test_an_unreadable_message_ends_the_connection(void **state)
{
    struct stage *s = *state;
    come_up(s, 5);
    assert_int_equal(wire_send(s->router, s->in.identity, s->in.identity_len, false, "\xc1", 1), OK);
    turn_until(s, UPLINK_CLOSED);
    come_up(s, 5);
}

static void test_a_stop_instead_of_a_welcome_is_taken(void **state)
{
    struct stage *s = *state;
    struct message m;
    int64_t limit_ms = clock_ms() + WAIT_MS;
    expect(s, MSG_REGISTER);
    tell_epoch(s, MSG_STOP, 9);
    while (turn(s, &m) != OK)
        assert_true(clock_ms() < limit_ms);
    assert_int_equal(m.kind, MSG_STOP);
}

static void test_what_finds_no_room_is_sent_later_and_nothing_is_lost(void **state)
{
    struct stage *s = *state;
    struct message m = { .kind = MSG_WORKER_BEAT, .beat = { .epoch = 5 } };
    uint64_t n_sent = 0, n_received = 0;
    come_up(s, 5);
    while (uplink_can_send(&s->uplink)) {
        assert_true(n_sent < 10000000);
        m.beat.steps = n_sent++;
        uplink_send(&s->uplink, &m, s->now_ms);
    }
    while (n_received < n_sent) {
        struct message got;
        struct error err;
        assert_int_equal(turn(s, &got), E_TIMEOUT);
        while (wire_receive(s->router, &s->in) == OK) {
            assert_int_equal(message_decode(s->decoder, WORKER_TO_BROKER, zmq_msg_data(&s->in.body),
                                            zmq_msg_size(&s->in.body), &got, &err),
                             OK);
            assert_int_equal(got.beat.steps, n_received++);
            wire_message_close(&s->in);
        }
    }
    assert_true(uplink_can_send(&s->uplink));
}

static void test_an_endpoint_that_makes_no_sense_is_refused(void **state)
{
    struct stage *s = *state;
    struct uplink other;
    struct error err;
    assert_int_equal(uplink_init(&other, "nonsense", NULL, &s->self, 0, &err), E_INVALID);
    assert_non_null(strstr(err.text, "nonsense"));
    uplink_fini(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_is_up_after_the_welcome_and_not_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages_of_another_epoch_are_ignored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_beat_of_another_epoch_makes_it_register_anew_at_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_silence_makes_it_register_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_beats_that_waited_during_a_long_step_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_broker_that_comes_back_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_welcome_it_tries_again_later_and_later, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_refused_registration_is_tried_again_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_unreadable_message_ends_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_instead_of_a_welcome_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_finds_no_room_is_sent_later_and_nothing_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_endpoint_that_makes_no_sense_is_refused, setup, teardown),
    };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

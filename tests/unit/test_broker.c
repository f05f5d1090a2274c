/* The broker's core, seen from its clients and workers. Clients are peers 1 to 7, workers 8 and up. */
#include "common/log.h"
#include "tests/unit/broker_world.h"

enum { ANN = 1, BOB = 2, FIRST = 8, SECOND = 9 };

static struct world *w;

static int setup(void **state)
{
    (void)state;
    w = world_create();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_destroy(w);
    return 0;
}

static uint64_t start_job(int client, uint64_t id, int worker)
{
    generate(w, client, id);
    uint64_t job = last_sent(w, MSG_ACCEPTED, client)->job;
    assert_int_equal(last_sent(w, MSG_SUBMIT, worker)->job, job);
    return job;
}

static void test_a_request_is_accepted_streams_and_is_done(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 2);
    uint64_t job = start_job(ANN, 5, FIRST);
    assert_int_equal(last_sent(w, MSG_ACCEPTED, ANN)->seed, last_sent(w, MSG_SUBMIT, FIRST)->seed);
    say_tokens(w, FIRST, job, 2, NULL);
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->seq, 0);
    say_tokens(w, FIRST, job, 1, "length");
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->seq, 2);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->id, 5);
    assert_string_equal(done->code, "length");
    assert_int_equal(done->completion_tokens, 3);
    assert_int_equal(done->n_ids, 0);
    assert_int_equal(w->broker.clients.count, 0);
}

static void test_a_whole_answer_has_all_tokens_in_done(void **state)
{
    (void)state;
    struct message m = world_generate(1);
    m.generate.request.stream = false;
    register_as(w, FIRST, "m", 0, 2);
    world_client_says(w, ANN, &m);
    uint64_t job = last_sent(w, MSG_SUBMIT, FIRST)->job;
    struct token_alternative top = { .id = 4, .logprob = -1, .bytes = slice_of("xy") };
    struct token_detail detail = { .id = 97, .bytes = slice_of("a"), .top = { &top, 1 } };
    int32_t id = 97;
    for (int i = 0; i < 40; i++) {
        struct step_item item = {
            .job = job, .ids = { &id, 1 }, .text = slice_of("a"), .logprobs = { &detail, 1 }
        };
        say_items(w, FIRST, &item, 1);
    }
    say_tokens(w, FIRST, job, 3, "stop");
    assert_int_equal(count_sent(w, MSG_TOKENS, ANN), 0);
    assert_int_equal(last_sent(w, MSG_DONE, ANN)->n_ids, 43);
    assert_string_equal(last_sent(w, MSG_DONE, ANN)->text, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}

static void test_a_whole_answer_too_large_for_a_message_ends_with_an_error(void **state)
{
    (void)state;
    struct message m = world_generate(1);
    m.generate.request.stream = false;
    register_as(w, FIRST, "m", 0, 2);
    world_client_says(w, ANN, &m);
    uint64_t job = last_sent(w, MSG_SUBMIT, FIRST)->job;
    char *text = xmalloc(1 << 20);
    memset(text, 'a', 1 << 20);
    for (int i = 0; i < 9; i++) {
        struct step_item item = { .job = job, .text = { text, 1 << 20 } };
        say_items(w, FIRST, &item, 1);
    }
    free(text);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_BAD_REQUEST);
    assert_int_equal(last_sent(w, MSG_DROP, FIRST)->id, job);
}

static void test_a_whole_answer_of_too_many_objects_ends_with_an_error(void **state)
{
    (void)state;
    enum { TOKENS = 512, TOP = 20 };
    struct token_alternative top[TOP];
    struct token_detail details[TOKENS];
    int32_t ids[TOKENS] = { 0 };
    struct message m = world_generate(1);
    m.generate.request.stream = false;
    register_as(w, FIRST, "m", 0, 2);
    world_client_says(w, ANN, &m);
    uint64_t job = last_sent(w, MSG_SUBMIT, FIRST)->job;
    for (int i = 0; i < TOP; i++)
        top[i] = (struct token_alternative){ .bytes = slice_of("a") };
    for (int i = 0; i < TOKENS; i++)
        details[i] = (struct token_detail){ .bytes = slice_of("a"), .top = { top, TOP } };
    for (int i = 0; i < 8; i++) {
        struct step_item item = {
            .job = job, .ids = { ids, TOKENS }, .text = slice_of("a"), .logprobs = { details, TOKENS }
        };
        if (i == 7)
            item.finish_reason = slice_of("stop");
        say_items(w, FIRST, &item, 1);
    }
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_BAD_REQUEST);
}

static void test_a_req_socket_gets_one_message(void **state)
{
    (void)state;
    struct peer req = world_peer(ANN);
    struct message m = world_generate(1); /* with stream, as is the default */
    req.is_req = true;
    register_as(w, FIRST, "m", 0, 2);
    forget_sent(w);
    broker_on_client(&w->broker, &req, &m, w->now_ms);
    uint64_t job = last_sent(w, MSG_SUBMIT, FIRST)->job;
    beat(w, FIRST, 1, 1, 0);
    pass(w, 5000); /* no beats */
    say_tokens(w, FIRST, job, 2, "stop");
    int n = 0;
    for (size_t i = 0; i < w->n_sent; i++)
        n += w->sent[i].to == ANN;
    assert_int_equal(n, 1);
    assert_string_equal(last_sent(w, MSG_DONE, ANN)->text, "aa");
}

static void test_the_queue_takes_its_limit_and_refuses_the_next(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= WORLD_QUEUE; id++) {
        generate(w, ANN, id);
        assert_int_equal(last_sent(w, MSG_ACCEPTED, ANN)->position, id - 1);
    }
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
    generate(w, BOB, 1);
    const struct sent *error = last_sent(w, MSG_ERROR, BOB);
    assert_string_equal(error->code, ERROR_OVERLOADED);
    assert_true(error->is_retryable);
    assert_true(error->retry_ms >= 100);
    assert_int_equal(count_sent(w, MSG_ACCEPTED, BOB), 0);
}

static void test_waiting_requests_go_out_in_order_when_a_worker_comes(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 3; id++)
        generate(w, ANN, id);
    register_as(w, FIRST, "m", 0, 2);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 2);
    say_tokens(w, FIRST, 1, 1, "stop");
    assert_int_equal(last_sent(w, MSG_SUBMIT, FIRST)->job, 3);
}

static void test_the_retry_time_is_the_measured_time_between_ends(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    generate(w, ANN, 1);
    for (uint64_t id = 2; id <= 1 + WORLD_QUEUE; id++)
        generate(w, ANN, id);
    for (uint64_t job = 1; job <= 8; job++) {
        pass(w, 700);
        beat(w, FIRST, job, 1, 0);
        say_tokens(w, FIRST, job, 1, "stop");
        generate(w, ANN, 100 + job);
    }
    generate(w, BOB, 1);
    assert_int_equal(last_sent(w, MSG_ERROR, BOB)->retry_ms, 700);
}

static void test_the_worker_with_the_most_free_share_gets_the_job(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 2);
    register_as(w, SECOND, "m", 1, 4);
    /* free of 2 and of 4: 2/4, 1/4, 1/3, 1/2 (a tie: FIRST has waited longer), 0/2, 0/1 */
    static const int wanted[] = { FIRST, SECOND, SECOND, FIRST, SECOND, SECOND };
    for (uint64_t id = 1; id <= 6; id++) {
        forget_sent(w);
        start_job(ANN, id, wanted[id - 1]);
    }
    forget_sent(w);
    generate(w, ANN, 7);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST) + count_sent(w, MSG_SUBMIT, SECOND), 0);
}

static void test_equal_workers_take_turns(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 2);
    register_as(w, SECOND, "m", 1, 2);
    for (uint64_t id = 1; id <= 6; id++) { /* one at a time */
        generate(w, ANN, id);
        say_tokens(w, FIRST, id, 1, "stop"); /* the item of the one that does not have it is ignored */
        say_tokens(w, SECOND, id, 1, "stop");
    }
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 3);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 3);
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 6);
}

static void test_cancel_in_the_queue_ends_at_once(void **state)
{
    (void)state;
    generate(w, ANN, 1);
    ask(w, ANN, MSG_CANCEL, 1);
    assert_int_equal(last_sent(w, MSG_CANCELLED, ANN)->id, 1);
    register_as(w, FIRST, "m", 0, 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 0);
}

static void test_cancel_while_running_ends_when_the_worker_answers(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = start_job(ANN, 1, FIRST);
    ask(w, ANN, MSG_CANCEL, 1);
    ask(w, ANN, MSG_CANCEL, 1);
    assert_int_equal(count_sent(w, MSG_DROP, FIRST), 1);
    assert_int_equal(count_sent(w, MSG_CANCELLED, ANN), 0);
    say_tokens(w, FIRST, job, 2, NULL);
    say_tokens(w, FIRST, job, 0, "cancelled");
    assert_int_equal(count_sent(w, MSG_CANCELLED, ANN), 1);
    assert_int_equal(last_sent(w, MSG_CANCELLED, ANN)->completion_tokens, 2);
}

static void test_cancel_of_what_has_ended_is_silent(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    say_tokens(w, FIRST, start_job(ANN, 1, FIRST), 1, "stop");
    forget_sent(w);
    ask(w, ANN, MSG_CANCEL, 1);
    assert_int_equal(w->n_sent, 0);
}

static void test_a_job_done_before_its_cancel_arrives_is_done(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = start_job(ANN, 1, FIRST);
    ask(w, ANN, MSG_CANCEL, 1);
    say_tokens(w, FIRST, job, 1, "stop");
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 1);
    assert_int_equal(count_sent(w, MSG_CANCELLED, ANN), 0);
}

static void generate_with_deadline(uint64_t id, uint64_t deadline_ms)
{
    struct message m = world_generate(id);
    m.generate.request.deadline_ms = deadline_ms;
    world_client_says(w, ANN, &m);
}

static void test_a_deadline_ends_a_waiting_request(void **state)
{
    (void)state;
    generate_with_deadline(1, 50);
    pass(w, 49);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
    pass(w, 1);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_DEADLINE_EXCEEDED);
}

static void test_a_deadline_drops_a_running_job_whose_slot_returns_with_the_answer(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    generate_with_deadline(1, 50);
    uint64_t job = last_sent(w, MSG_SUBMIT, FIRST)->job;
    pass(w, 50);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_DEADLINE_EXCEEDED);
    assert_int_equal(last_sent(w, MSG_DROP, FIRST)->id, job);
    generate(w, ANN, 2);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 1);
    forget_sent(w);
    say_tokens(w, FIRST, job, 3, NULL); /* late tokens go nowhere */
    say_tokens(w, FIRST, job, 0, "cancelled");
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 1);
    assert_int_equal(count_sent(w, MSG_TOKENS, ANN) + count_sent(w, MSG_CANCELLED, ANN), 0);
}

/* What Ann's lost worker did goes on at the next one. */
static void assert_moved(void)
{
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
    register_as(w, 10, "m", 2, 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, 10), 1);
}

static void test_a_silent_worker_is_dead_after_the_timeout(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    start_job(ANN, 1, FIRST);
    pass(w, PEER_TIMEOUT_MS - 1);
    assert_int_equal(w->broker.workers.count, 1);
    pass(w, 1);
    assert_int_equal(w->broker.workers.count, 0);
    forget_sent(w);
    beat(w, FIRST, 1, 1, 0); /* it hears nothing and will register anew */
    assert_int_equal(w->n_sent, 0);
    assert_moved();
}

static void test_a_worker_gets_a_beat_after_silence(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    pass(w, BEAT_MS * 3);
    assert_int_equal(count_sent(w, MSG_BROKER_BEAT, FIRST), 3);
}

static void test_a_worker_that_registers_again_replaces_itself(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    start_job(ANN, 1, FIRST);
    register_as(w, SECOND, "m", 0, 1);
    assert_int_equal(w->broker.workers.count, 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 1);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
}

static void test_a_worker_without_the_jobs_it_was_given_is_lost(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    start_job(ANN, 1, FIRST);
    beat(w, FIRST, 0, 0, 0); /* the job may be on its way */
    assert_int_equal(w->broker.workers.count, 1);
    for (int i = 0; i < 7; i++) {
        pass(w, BEAT_MS);
        beat(w, FIRST, 0, 0, 0);
    }
    assert_moved();
}

static void test_a_worker_that_cannot_be_read_is_lost(void **state)
{
    (void)state;
    struct peer first = world_peer(FIRST), stranger = world_peer(SECOND);
    register_as(w, FIRST, "m", 0, 2);
    generate(w, ANN, 1);
    broker_on_bad_worker(&w->broker, &stranger, "no msgpack", w->now_ms);
    assert_int_equal(w->broker.workers.count, 1);
    broker_on_bad_worker(&w->broker, &first, "no msgpack", w->now_ms);
    assert_int_equal(w->broker.workers.count, 0);
    assert_moved();
}

static void test_a_worker_without_progress_is_lost(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    start_job(ANN, 1, FIRST);
    for (int64_t ms = 0; ms <= WORLD_STALL_MS + 2 * BEAT_MS; ms += BEAT_MS) {
        pass(w, BEAT_MS);
        beat(w, FIRST, 7, 1, 0);
    }
    assert_int_equal(w->broker.workers.count, 0);
    assert_moved();
}

static void test_an_item_for_the_job_of_another_worker_is_ignored(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = start_job(ANN, 1, FIRST);
    register_as(w, SECOND, "m", 1, 1);
    forget_sent(w);
    say_tokens(w, SECOND, job, 1, "stop");
    assert_int_equal(w->n_sent, 0);
    say_tokens(w, FIRST, job, 1, "stop");
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 1);
}

static void test_an_unsent_job_waits_for_another_worker(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    w->worker_status[FIRST] = E_UNREACHABLE;
    generate(w, ANN, 1);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
    register_as(w, SECOND, "m", 1, 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 1);
}

static void test_an_error_of_the_worker_reaches_the_client(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    struct step_item item = { .job = start_job(ANN, 1, FIRST),
                              .error_code = slice_of(ERROR_CONTEXT_LENGTH),
                              .error_message = slice_of("too long") };
    say_items(w, FIRST, &item, 1);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_CONTEXT_LENGTH);
    assert_false(last_sent(w, MSG_ERROR, ANN)->is_retryable);
}

static void test_a_slow_reader_loses_its_stream_and_gets_the_rest_in_order(void **state)
{
    (void)state;
    char text[1000];
    memset(text, 'a', sizeof text);
    register_as(w, FIRST, "m", 0, 2);
    uint64_t slow = start_job(ANN, 1, FIRST);
    uint64_t fast = start_job(BOB, 1, FIRST);
    forget_sent(w);
    w->client_status[ANN] = E_OVERLOADED;
    for (int i = 0; i < 2000; i++) {
        int32_t id = 97;
        struct step_item items[] = { { .job = slow, .ids = { &id, 1 }, .text = { text, sizeof text } },
                                     { .job = fast, .ids = { &id, 1 }, .text = slice_of("a") } };
        say_items(w, FIRST, items, 2);
    }
    assert_int_equal(last_sent(w, MSG_DROP, FIRST)->id, slow);
    assert_int_equal(count_sent(w, MSG_TOKENS, BOB), 2000);
    w->client_status[ANN] = OK;
    pass(w, RETRY_MS);
    int n = count_sent(w, MSG_TOKENS, ANN);
    assert_in_range(n, 500, CLIENT_PENDING_BYTES / 1000);
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->seq, n - 1);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_SLOW_READER);
    assert_int_equal(count_sent(w, MSG_ERROR, BOB), 0);
}

static void test_a_client_that_is_behind_gets_no_new_jobs(void **state)
{
    (void)state;
    char text[60000];
    memset(text, 'a', sizeof text);
    register_as(w, FIRST, "m", 0, 2);
    uint64_t job = start_job(ANN, 1, FIRST);
    w->client_status[ANN] = E_OVERLOADED;
    for (int i = 0; i < 12; i++) {
        struct step_item item = { .job = job, .text = { text, sizeof text } };
        say_items(w, FIRST, &item, 1);
    }
    generate(w, ANN, 2);
    w->client_status[ANN] = OK;
    pass(w, RETRY_MS);
    assert_int_equal(count_sent(w, MSG_ACCEPTED, ANN), 1);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_OVERLOADED);
}

static void test_a_client_that_takes_nothing_for_long_is_gone(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = start_job(ANN, 1, FIRST);
    w->client_status[ANN] = E_OVERLOADED;
    say_tokens(w, FIRST, job, 1, NULL);
    for (int64_t ms = 0; ms <= CLIENT_STALL_MS; ms += BEAT_MS) {
        pass(w, BEAT_MS);
        beat(w, FIRST, (uint64_t)ms, 1, 0);
    }
    assert_int_equal(last_sent(w, MSG_DROP, FIRST)->id, job);
    assert_int_equal(w->broker.clients.count, 0);
}

static void test_the_jobs_of_a_client_that_is_gone_are_dropped(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = start_job(ANN, 1, FIRST);
    generate(w, ANN, 2);
    w->client_status[ANN] = E_UNREACHABLE;
    pass(w, BEAT_MS); /* found out by the beat */
    assert_int_equal(last_sent(w, MSG_DROP, FIRST)->id, job);
    assert_int_equal(w->broker.clients.count, 0);
    say_tokens(w, FIRST, job, 0, "cancelled");
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 1);
}

static void test_a_waiting_client_gets_beats_and_an_idle_one_does_not(void **state)
{
    (void)state;
    generate(w, ANN, 1);
    ask(w, BOB, MSG_PING, 1);
    pass(w, 3 * BEAT_MS);
    assert_int_equal(count_sent(w, MSG_CLIENT_BEAT, ANN), 3);
    assert_int_equal(count_sent(w, MSG_CLIENT_BEAT, BOB), 0);
}

static void assert_refused(const struct message *m, const char *code)
{
    world_client_says(w, ANN, m);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, code);
    assert_int_equal(last_sent(w, MSG_ERROR, ANN)->id, m->generate.id);
}

static void test_senseless_requests_are_refused_with_the_reason(void **state)
{
    (void)state;
    int32_t id = 1;
    struct message m = world_generate(3);
    m.generate.epoch = WORLD_EPOCH + 1;
    assert_refused(&m, ERROR_WRONG_EPOCH);
    m = world_generate(4);
    m.generate.request.model = slice_of("x");
    assert_refused(&m, ERROR_UNKNOWN_MODEL);
    m = world_generate(5);
    m.generate.request.tokens = (struct id_array){ &id, 1 };
    assert_refused(&m, ERROR_BAD_REQUEST);
    m.generate.request.prompt.data = NULL;
    m.generate.request.tokens.n = 0;
    assert_refused(&m, ERROR_BAD_REQUEST);
    assert_int_equal(count_sent(w, MSG_ACCEPTED, ANN), 0);
}

static void test_a_second_request_with_a_live_number_is_refused_and_harms_nothing(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 2);
    uint64_t job = start_job(ANN, 1, FIRST);
    struct message m = world_generate(1);
    assert_refused(&m, ERROR_DUPLICATE_ID);
    generate(w, BOB, 1); /* another client may use it */
    assert_int_equal(count_sent(w, MSG_ACCEPTED, BOB), 1);
    say_tokens(w, FIRST, job, 1, "stop");
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 1);
}

static void test_health_follows_loading_ready_and_stopping(void **state)
{
    (void)state;
    ask(w, ANN, MSG_HEALTH, 1);
    assert_string_equal(last_sent(w, MSG_HEALTH_REPLY, ANN)->code, "loading");
    assert_false(broker_is_complete(&w->broker));
    register_as(w, FIRST, "m", 0, 2);
    assert_true(broker_is_complete(&w->broker));
    ask(w, ANN, MSG_HEALTH, 2);
    assert_string_equal(last_sent(w, MSG_HEALTH_REPLY, ANN)->code, "ok");
    start_job(ANN, 3, FIRST);
    broker_stop(&w->broker, 1000, w->now_ms);
    ask(w, ANN, MSG_HEALTH, 4);
    assert_string_equal(last_sent(w, MSG_HEALTH_REPLY, ANN)->code, "stopping");
    ask(w, ANN, MSG_MODELS, 5);
    ask(w, ANN, MSG_STATS, 6);
    assert_int_equal(last_sent(w, MSG_MODELS_REPLY, ANN)->id, 5);
    assert_int_equal(last_sent(w, MSG_STATS_REPLY, ANN)->id, 6);
}

static void test_a_stop_ends_the_queue_and_lets_running_jobs_finish(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = start_job(ANN, 1, FIRST);
    generate(w, BOB, 1);
    broker_stop(&w->broker, 5000, w->now_ms);
    assert_string_equal(last_sent(w, MSG_ERROR, BOB)->code, ERROR_SHUTTING_DOWN);
    generate(w, BOB, 2);
    assert_int_equal(count_sent(w, MSG_ERROR, BOB), 2);
    assert_false(broker_is_stopped(&w->broker, w->now_ms));
    assert_int_equal(count_sent(w, MSG_STOP, FIRST), 0);
    say_tokens(w, FIRST, job, 1, "stop");
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 1);
    assert_int_equal(count_sent(w, MSG_STOP, FIRST), 1);
    assert_true(broker_is_stopped(&w->broker, w->now_ms));
}

static void test_the_end_of_the_grace_ends_what_still_runs(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    start_job(ANN, 1, FIRST);
    broker_stop(&w->broker, 2000, w->now_ms);
    pass(w, 1999);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
    pass(w, 1);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_SHUTTING_DOWN);
    assert_true(broker_is_stopped(&w->broker, w->now_ms));
}

static void test_a_second_stop_ends_the_grace(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    start_job(ANN, 1, FIRST);
    broker_stop(&w->broker, 2000, w->now_ms);
    broker_stop(&w->broker, 0, w->now_ms);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_SHUTTING_DOWN);
}

static void test_a_stop_does_not_wait_for_a_client_that_does_not_read(void **state)
{
    (void)state;
    generate(w, ANN, 1);
    w->client_status[ANN] = E_OVERLOADED;
    broker_stop(&w->broker, 0, w->now_ms);
    assert_false(broker_is_stopped(&w->broker, w->now_ms));
    assert_true(broker_is_stopped(&w->broker, w->now_ms + STOP_FLUSH_MS));
}

static void test_a_model_that_a_worker_brought_goes_with_it(void **state)
{
    (void)state;
    struct message m = world_generate(1);
    m.generate.request.model = slice_of("extra");
    register_as(w, FIRST, "extra", 0, 1);
    world_client_says(w, ANN, &m);
    m.generate.id = 2;
    world_client_says(w, ANN, &m);
    world_worker_says(w, FIRST, &(struct message){ .kind = MSG_BYE, .epoch = { .epoch = WORLD_EPOCH } });
    pass(w, MODEL_WAIT_MS - 1);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0); /* it may come back */
    pass(w, 1);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 2);
    m.generate.id = 3;
    assert_refused(&m, ERROR_UNKNOWN_MODEL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_request_is_accepted_streams_and_is_done),
        TEST(test_a_whole_answer_has_all_tokens_in_done),
        TEST(test_a_whole_answer_too_large_for_a_message_ends_with_an_error),
        TEST(test_a_whole_answer_of_too_many_objects_ends_with_an_error),
        TEST(test_a_req_socket_gets_one_message),
        TEST(test_the_queue_takes_its_limit_and_refuses_the_next),
        TEST(test_waiting_requests_go_out_in_order_when_a_worker_comes),
        TEST(test_the_retry_time_is_the_measured_time_between_ends),
        TEST(test_the_worker_with_the_most_free_share_gets_the_job),
        TEST(test_equal_workers_take_turns),
        TEST(test_cancel_in_the_queue_ends_at_once),
        TEST(test_cancel_while_running_ends_when_the_worker_answers),
        TEST(test_cancel_of_what_has_ended_is_silent),
        TEST(test_a_job_done_before_its_cancel_arrives_is_done),
        TEST(test_a_deadline_ends_a_waiting_request),
        TEST(test_a_deadline_drops_a_running_job_whose_slot_returns_with_the_answer),
        TEST(test_a_silent_worker_is_dead_after_the_timeout),
        TEST(test_a_worker_gets_a_beat_after_silence),
        TEST(test_a_worker_that_registers_again_replaces_itself),
        TEST(test_a_worker_without_the_jobs_it_was_given_is_lost),
        TEST(test_a_worker_that_cannot_be_read_is_lost),
        TEST(test_a_worker_without_progress_is_lost),
        TEST(test_an_item_for_the_job_of_another_worker_is_ignored),
        TEST(test_an_unsent_job_waits_for_another_worker),
        TEST(test_an_error_of_the_worker_reaches_the_client),
        TEST(test_a_slow_reader_loses_its_stream_and_gets_the_rest_in_order),
        TEST(test_a_client_that_is_behind_gets_no_new_jobs),
        TEST(test_a_client_that_takes_nothing_for_long_is_gone),
        TEST(test_the_jobs_of_a_client_that_is_gone_are_dropped),
        TEST(test_a_waiting_client_gets_beats_and_an_idle_one_does_not),
        TEST(test_senseless_requests_are_refused_with_the_reason),
        TEST(test_a_second_request_with_a_live_number_is_refused_and_harms_nothing),
        TEST(test_health_follows_loading_ready_and_stopping),
        TEST(test_a_stop_ends_the_queue_and_lets_running_jobs_finish),
        TEST(test_the_end_of_the_grace_ends_what_still_runs),
        TEST(test_a_second_stop_ends_the_grace),
        TEST(test_a_stop_does_not_wait_for_a_client_that_does_not_read),
        TEST(test_a_model_that_a_worker_brought_goes_with_it),
    };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

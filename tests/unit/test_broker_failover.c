/* The broker's core when workers are lost while they work: another one goes on, the client sees nothing, and
 * a request that is why they die is found out. Clients are peers 1 and 2, workers 8 and up. */
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

static void die(int worker)
{
    struct peer peer = world_peer(worker);
    struct worker *known = worker_find(&w->broker, &peer);
    assert_non_null(known);
    broker_on_worker_exit(&w->broker, known, w->now_ms);
}

/* Asks for it and says which job it became. */
static uint64_t begin(int client, struct message m)
{
    world_client_says(w, client, &m);
    return last_sent(w, MSG_ACCEPTED, client)->job;
}

static void say(int from, uint64_t job, uint32_t choice, const char *text, const char *reason,
                double logprob_sum)
{
    int32_t ids[16] = { 0 };
    uint32_t n = (uint32_t)strlen(text);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = text[i];
    struct step_item item = { .job = job,
                              .choice = choice,
                              .prompt_tokens = 3,
                              .cached_tokens = (uint64_t)from, /* the first one's counts */
                              .ids = { ids, n },
                              .text = slice_of(text),
                              .logprob_sum = logprob_sum };
    if (reason)
        item.finish_reason = slice_of(reason);
    say_items(w, from, &item, 1);
}

static void test_a_stream_goes_on_at_another_worker(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, world_generate(1));
    say(FIRST, job, 0, "abc", NULL, 0);
    die(FIRST);
    register_as(w, SECOND, "m", 1, 1);
    const struct sent *submit = last_sent(w, MSG_SUBMIT, SECOND);
    assert_int_equal(submit->job, job);
    assert_int_equal(submit->seed, last_sent(w, MSG_ACCEPTED, ANN)->seed);
    assert_int_equal(submit->n_resumed, 1);
    assert_int_equal(submit->resumed[0].n_ids, 3);
    assert_int_equal(submit->resumed[0].ids[2], 'c');
    assert_int_equal(submit->resumed[0].text_bytes, 3);
    say(FIRST, job, 0, "xx", "stop", 0); /* from the grave */
    say(SECOND, job, 0, "de", "stop", 0);
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->seq, 3);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->completion_tokens, 5);
    assert_int_equal(done->cached_tokens, FIRST);
    assert_int_equal(count_sent(w, MSG_ACCEPTED, ANN) + count_sent(w, MSG_TOKENS, ANN), 3);
    assert_int_equal(w->broker.counts.moved, 1);
    assert_int_equal(w->broker.jobs.held_bytes, 0);
}

static void test_a_request_that_was_not_begun_is_sent_as_it_was(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    register_as(w, SECOND, "m", 1, 1);
    begin(ANN, world_generate(1));
    die(FIRST);
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->n_resumed, 0);
}

static void test_a_stream_survives_many_workers(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, world_generate(1));
    for (uint32_t i = 1; i <= 20; i++) {
        say(FIRST, job, 0, "a", NULL, 0);
        die(FIRST);
        register_as(w, FIRST, "m", 0, 1);
        assert_int_equal(last_sent(w, MSG_SUBMIT, FIRST)->resumed[0].n_ids, i);
    }
    say(FIRST, job, 0, "b", "length", 0);
    assert_int_equal(last_sent(w, MSG_DONE, ANN)->completion_tokens, 21);
}

static void test_each_choice_goes_on_from_where_it_was(void **state)
{
    (void)state;
    struct message m = world_generate(1);
    m.generate.request.n = 3;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, m);
    say(FIRST, job, 0, "ab", NULL, -2);
    say(FIRST, job, 1, "x", "stop", -1.5);
    die(FIRST);
    register_as(w, SECOND, "m", 0, 1);
    const struct sent *submit = last_sent(w, MSG_SUBMIT, SECOND);
    assert_int_equal(submit->n_resumed, 3);
    assert_int_equal(submit->resumed[0].n_ids, 2);
    assert_true(submit->resumed[0].logprob_sum == -2 && !submit->resumed[0].has_ended);
    assert_true(submit->resumed[1].has_ended);
    assert_int_equal(submit->resumed[2].n_ids, 0);
    say(SECOND, job, 2, "y", "length", -3);
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 0);
    say(SECOND, job, 0, "c", "stop", -4);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->n_choices, 3);
    assert_int_equal(done->choice_tokens[0], 3);
    assert_int_equal(done->choice_tokens[1], 1);
}

static void test_a_whole_answer_has_what_both_workers_made(void **state)
{
    (void)state;
    struct message m = world_generate(1);
    m.generate.request.stream = false;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, m);
    say(FIRST, job, 0, "abc", NULL, 0);
    die(FIRST);
    register_as(w, SECOND, "m", 0, 1);
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->resumed[0].n_ids, 3);
    say(SECOND, job, 0, "de", "stop", 0);
    assert_string_equal(last_sent(w, MSG_DONE, ANN)->text, "abcde");
    assert_int_equal(last_sent(w, MSG_DONE, ANN)->n_ids, 5);
}

static void test_details_of_a_prompt_are_not_asked_for_twice(void **state)
{
    (void)state;
    const struct token_detail details[] = { { 1, 0, slice_of("a"), { 0 } }, { 2, -1, slice_of("b"), { 0 } } };
    struct message m = world_generate(1);
    m.generate.request.has_prompt_logprobs = true;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, m);
    struct step_item item = { .job = job, .prompt_tokens = 4, .prompt_logprobs = { details, 2 } };
    say_items(w, FIRST, &item, 1);
    die(FIRST);
    register_as(w, SECOND, "m", 0, 1);
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->prompt_told, 2);
}

static void test_what_lost_its_worker_goes_before_what_waits(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 2);
    uint64_t one = begin(ANN, world_generate(1)), two = begin(ANN, world_generate(2));
    begin(BOB, world_generate(1));
    say(FIRST, two, 0, "a", NULL, 0);
    say(FIRST, one, 0, "a", NULL, 0);
    die(FIRST);
    forget_sent(w);
    register_as(w, SECOND, "m", 0, 2);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 2);
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->job, two);
    assert_int_equal(w->broker.counts.moved, 2);
}

static void test_a_cancel_that_its_worker_did_not_live_to_answer_is_answered(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, world_generate(1));
    say(FIRST, job, 0, "ab", NULL, 0);
    ask(w, ANN, MSG_CANCEL, 1);
    die(FIRST);
    assert_int_equal(last_sent(w, MSG_CANCELLED, ANN)->completion_tokens, 2);
    register_as(w, SECOND, "m", 0, 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 0);
}

static void test_what_waits_for_its_next_worker_can_be_cancelled(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    say(FIRST, begin(ANN, world_generate(1)), 0, "ab", NULL, 0);
    die(FIRST);
    ask(w, ANN, MSG_CANCEL, 1);
    assert_int_equal(last_sent(w, MSG_CANCELLED, ANN)->completion_tokens, 2);
    assert_int_equal(w->broker.jobs.held_bytes, 0);
}

static void test_a_stop_lets_what_lost_its_worker_finish(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, world_generate(1));
    say(FIRST, job, 0, "ab", NULL, 0);
    die(FIRST);
    broker_stop(&w->broker, 1000, w->now_ms);
    register_as(w, SECOND, "m", 0, 1);
    say(SECOND, job, 0, "c", "stop", 0);
    assert_int_equal(last_sent(w, MSG_DONE, ANN)->completion_tokens, 3);
}

static void test_an_answer_too_long_to_be_sent_ends_with_its_worker(void **state)
{
    enum { N = 65536 };
    static int32_t ids[N];
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    uint64_t job = begin(ANN, world_generate(1));
    struct step_item item = { .job = job, .ids = { ids, N } };
    for (int i = 0; i <= MAX_RESUME_BYTES / (N * 4); i++)
        say_items(w, FIRST, &item, 1);
    die(FIRST);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_WORKER_LOST);
    assert_int_equal(w->broker.jobs.held_bytes, 0);
}

static void test_the_memory_for_what_could_be_moved_is_bounded(void **state)
{
    static char prompt[4 << 20];
    (void)state;
    memset(prompt, 'a', sizeof prompt);
    register_as(w, FIRST, "m", 0, 200);
    struct message m = world_generate(1);
    m.generate.request.prompt = (struct slice){ prompt, sizeof prompt };
    for (; !count_sent(w, MSG_ERROR, ANN); m.generate.id++)
        world_client_says(w, ANN, &m);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_OVERLOADED);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), MAX_HELD_BYTES / sizeof prompt);
}

/* ---- who is to blame ---- */

static void test_a_request_that_kills_two_workers_alone_is_refused(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 4);
    begin(ANN, world_generate(1));
    die(FIRST);
    register_as(w, FIRST, "m", 0, 4);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 2);
    die(FIRST);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_POISON);
    assert_false(last_sent(w, MSG_ERROR, ANN)->is_retryable);
    register_as(w, FIRST, "m", 0, 4);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 2);
}

static void test_company_of_a_killer_is_not_blamed(void **state)
{
    (void)state;
    uint64_t killer = 0;
    register_as(w, FIRST, "m", 0, 6);
    for (uint64_t id = 1; id <= 5; id++) {
        uint64_t job = begin(ANN, world_generate(id));
        killer = id == 3 ? job : killer;
    }
    int deaths = 0;
    for (; !count_sent(w, MSG_ERROR, ANN); deaths++) { /* whoever has the killer gives nothing more */
        assert_in_range(deaths, 0, 4);
        forget_sent(w);
        die(FIRST);
        register_as(w, FIRST, "m", 0, 6);
        for (bool is_dead = false; !is_dead && !count_sent(w, MSG_ERROR, ANN);) {
            uint64_t job = last_sent(w, MSG_SUBMIT, FIRST)->job;
            is_dead = job == killer;
            if (!is_dead)
                say(FIRST, job, 0, "a", NULL, 0); /* lets the next suspect come */
        }
    }
    assert_int_equal(last_sent(w, MSG_ERROR, ANN)->id, 3);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_POISON);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 1);
    assert_int_equal(deaths, 4);
    assert_int_equal(w->broker.jobs.n_live, 4);
}

static void test_a_suspect_has_no_company_until_it_makes_progress(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 4);
    uint64_t suspect = begin(ANN, world_generate(1)), known = begin(ANN, world_generate(2));
    say(FIRST, known, 0, "a", NULL, 0);
    die(FIRST);
    begin(BOB, world_generate(1));
    forget_sent(w);
    register_as(w, FIRST, "m", 0, 4);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 1);
    assert_int_equal(last_sent(w, MSG_SUBMIT, FIRST)->job, suspect);
    say(FIRST, suspect, 0, "a", NULL, 0);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 3);
}

static void test_suspects_are_divided_among_workers(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 4);
    begin(ANN, world_generate(1));
    begin(ANN, world_generate(2));
    die(FIRST);
    forget_sent(w);
    register_as(w, FIRST, "m", 0, 4);
    register_as(w, SECOND, "m", 1, 4);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 1);
}

static void test_a_worker_that_says_bye_accuses_nobody(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    begin(ANN, world_generate(1));
    for (int i = 0; i < 5; i++) {
        world_worker_says(w, FIRST, &(struct message){ .kind = MSG_BYE, .epoch = { .epoch = WORLD_EPOCH } });
        register_as(w, FIRST, "m", 0, 1);
    }
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 6);
    assert_int_equal(count_sent(w, MSG_ERROR, ANN), 0);
}

static void test_a_worker_that_gives_up_a_request_by_itself_is_lost(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    say(FIRST, begin(ANN, world_generate(1)), 0, "", "cancelled", 0);
    assert_int_equal(w->broker.workers.count, 0);
    register_as(w, SECOND, "m", 1, 1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, SECOND), 1);
}

/* ---- who is stuck ---- */

static void test_a_stuck_worker_of_ours_is_killed_after_the_configured_time(void **state)
{
    (void)state;
    w->are_workers_ours = true;
    register_as(w, FIRST, "m", 0, 1);
    begin(ANN, world_generate(1));
    pass(w, WORLD_STALL_MS - 1); /* a step may take long */
    assert_int_equal(w->broker.workers.count, 1);
    assert_int_equal(w->killed, 0);
    pass(w, 1);
    assert_int_equal(w->broker.workers.count, 0);
    assert_int_equal(w->killed, 100 + FIRST);
}

static void test_a_silent_worker_of_ours_without_work_is_killed_sooner(void **state)
{
    (void)state;
    w->are_workers_ours = true;
    register_as(w, FIRST, "m", 0, 1);
    pass(w, PEER_TIMEOUT_MS);
    assert_int_equal(w->killed, 100 + FIRST);
}

static void test_a_worker_of_others_is_never_killed(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    begin(ANN, world_generate(1));
    pass(w, PEER_TIMEOUT_MS);
    assert_int_equal(w->broker.workers.count, 0);
    assert_int_equal(w->killed, 0);
}

static void test_a_worker_that_is_quiet_with_its_work_gets_the_next_job_last(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 8);
    register_as(w, SECOND, "m", 1, 2);
    begin(ANN, world_generate(1)); /* to the first */
    uint64_t job = begin(ANN, world_generate(2));
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->job, job);
    pass(w, WORKER_QUIET_MS + 1);
    say(SECOND, job, 0, "a", NULL, 0);
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->job, job);
    uint64_t next = begin(ANN, world_generate(3));
    assert_int_equal(last_sent(w, MSG_SUBMIT, SECOND)->job, next);
    next = begin(ANN, world_generate(4)); /* the second is full */
    assert_int_equal(last_sent(w, MSG_SUBMIT, FIRST)->job, next);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_stream_goes_on_at_another_worker),
        TEST(test_a_request_that_was_not_begun_is_sent_as_it_was),
        TEST(test_a_stream_survives_many_workers),
        TEST(test_each_choice_goes_on_from_where_it_was),
        TEST(test_a_whole_answer_has_what_both_workers_made),
        TEST(test_details_of_a_prompt_are_not_asked_for_twice),
        TEST(test_what_lost_its_worker_goes_before_what_waits),
        TEST(test_a_cancel_that_its_worker_did_not_live_to_answer_is_answered),
        TEST(test_what_waits_for_its_next_worker_can_be_cancelled),
        TEST(test_a_stop_lets_what_lost_its_worker_finish),
        TEST(test_an_answer_too_long_to_be_sent_ends_with_its_worker),
        TEST(test_the_memory_for_what_could_be_moved_is_bounded),
        TEST(test_a_request_that_kills_two_workers_alone_is_refused),
        TEST(test_company_of_a_killer_is_not_blamed),
        TEST(test_a_suspect_has_no_company_until_it_makes_progress),
        TEST(test_suspects_are_divided_among_workers),
        TEST(test_a_worker_that_says_bye_accuses_nobody),
        TEST(test_a_worker_that_gives_up_a_request_by_itself_is_lost),
        TEST(test_a_stuck_worker_of_ours_is_killed_after_the_configured_time),
        TEST(test_a_silent_worker_of_ours_without_work_is_killed_sooner),
        TEST(test_a_worker_of_others_is_never_killed),
        TEST(test_a_worker_that_is_quiet_with_its_work_gets_the_next_job_last),
    };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

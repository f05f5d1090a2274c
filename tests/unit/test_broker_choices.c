/* The broker's core with several answers to one prompt, the best of them, details of the prompt, embeddings.
 */
#include "common/log.h"
#include "tests/unit/broker_world.h"

enum { ANN = 1, BOB = 2, FIRST = 8 };

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

static uint64_t start_choices(bool is_stream, uint32_t n, uint32_t best_of)
{
    struct message m = world_generate(1);
    m.generate.request.stream = is_stream;
    m.generate.request.n = n;
    m.generate.request.best_of = best_of;
    register_as(w, FIRST, "m", 0, 1);
    world_client_says(w, ANN, &m);
    return last_sent(w, MSG_SUBMIT, FIRST)->job;
}

static void say_choice(uint64_t job, uint32_t choice, const char *text, const char *reason,
                       double logprob_sum)
{
    static const int32_t ids[16] = { 97 };
    struct step_item item = { .job = job,
                              .choice = choice,
                              .prompt_tokens = 3,
                              .ids = { ids, (uint32_t)strlen(text) },
                              .text = slice_of(text),
                              .logprob_sum = logprob_sum };
    if (reason)
        item.finish_reason = slice_of(reason);
    say_items(w, FIRST, &item, 1);
}

static void test_choices_stream_each_with_its_own_count_and_end(void **state)
{
    (void)state;
    uint64_t job = start_choices(true, 2, 0);
    assert_int_equal(last_sent(w, MSG_SUBMIT, FIRST)->n, 2);
    say_choice(job, 0, "ab", NULL, 0);
    say_choice(job, 1, "x", NULL, 0);
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->seq, 0);
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->choice, 1);
    say_choice(job, 0, "", "stop", -1);
    assert_true(last_sent(w, MSG_TOKENS, ANN)->is_end);
    assert_int_equal(last_sent(w, MSG_TOKENS, ANN)->seq, 2);
    assert_int_equal(count_sent(w, MSG_DONE, ANN), 0);
    say_choice(job, 1, "y", "length", -2);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_string_equal(done->code, "stop"); /* of choice 0 */
    assert_int_equal(done->n_choices, 2);
    assert_int_equal(done->completion_tokens, 4);
    assert_int_equal(done->choice_tokens[1], 2);
    assert_string_equal(done->choice_text[1], "");
    generate(w, ANN, 2); /* the slot is free */
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 2);
}

static void test_choices_that_do_not_stream_come_in_done(void **state)
{
    (void)state;
    uint64_t job = start_choices(false, 3, 0);
    say_choice(job, 2, "c", "stop", -9);
    say_choice(job, 0, "a", NULL, 0);
    say_choice(job, 1, "b", "stop", -1);
    say_choice(job, 0, "aa", "stop", -3);
    assert_int_equal(count_sent(w, MSG_TOKENS, ANN), 0);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->n_choices, 3);
    assert_false(done->has_text);
    assert_string_equal(done->choice_text[0], "aaa");
    assert_string_equal(done->choice_text[1], "b");
    assert_string_equal(done->choice_text[2], "c");
}

static void test_the_best_candidates_are_told_by_mean_log_probability(void **state)
{
    (void)state;
    uint64_t job = start_choices(false, 2, 4);
    say_choice(job, 0, "aaaa", "stop", -2.4); /* -0.6 per token */
    say_choice(job, 1, "", "stop", 0);        /* nothing to judge */
    say_choice(job, 2, "cc", "length", -1.2); /* -0.6 as well, and later */
    say_choice(job, 3, "dddd", "length", -2); /* -0.5 */
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->n_choices, 2);
    assert_string_equal(done->choice_text[0], "dddd");
    assert_string_equal(done->choice_text[1], "aaaa");
    assert_int_equal(done->completion_tokens, 10);
    assert_string_equal(done->code, "length"); /* of the best */
}

static void test_the_best_of_several_alone_looks_like_any_answer(void **state)
{
    (void)state;
    uint64_t job = start_choices(false, 1, 2);
    say_choice(job, 0, "aa", "length", -4);
    say_choice(job, 1, "b", "stop", -1);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->n_choices, 0);
    assert_string_equal(done->text, "b");
    assert_string_equal(done->code, "stop");
}

static void test_a_cancel_ends_all_choices_at_once(void **state)
{
    (void)state;
    uint64_t job = start_choices(true, 3, 0);
    say_choice(job, 0, "a", "stop", -1);
    ask(w, ANN, MSG_CANCEL, 1);
    say_choice(job, 0, "", "cancelled", 0);
    assert_int_equal(last_sent(w, MSG_CANCELLED, ANN)->completion_tokens, 1);
    generate(w, ANN, 2);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 2);
}

static void test_the_slot_of_an_abandoned_job_returns_with_its_last_choice(void **state)
{
    (void)state;
    uint64_t job = start_choices(true, 2, 0);
    w->client_status[ANN] = E_UNREACHABLE;
    pass(w, BEAT_MS);
    w->client_status[ANN] = OK;
    generate(w, BOB, 1);
    say_choice(job, 1, "a", "stop", -1);
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 1);
    say_choice(job, 0, "a", "stop", -1); /* it ended before the drop came */
    assert_int_equal(count_sent(w, MSG_SUBMIT, FIRST), 2);
}

static void test_a_worker_that_makes_impossible_choices_is_lost(void **state)
{
    static const struct {
        uint32_t choice;
        const char *reason;
    } faults[] = { { 2, NULL }, { UINT32_MAX, "cancelled" }, { 0, NULL }, { 0, "stop" }, { 1, "why not" } };
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        world_destroy(w);
        w = world_create();
        uint64_t job = start_choices(true, 2, 0);
        say_choice(job, 0, "a", "stop", -1);
        assert_int_equal(w->broker.workers.count, 1);
        say_choice(job, faults[i].choice, "b", faults[i].reason, 0);
        assert_int_equal(w->broker.workers.count, 0);
    }
}

static void test_all_choices_together_must_fit_into_one_message(void **state)
{
    char text[100000];
    (void)state;
    memset(text, 'a', sizeof text);
    uint64_t job = start_choices(false, 16, 0);
    for (uint32_t i = 0; i < 16 * 6; i++) {
        struct step_item item = { .job = job, .choice = i % 16, .text = { text, sizeof text } };
        say_items(w, FIRST, &item, 1);
    }
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_BAD_REQUEST);
    assert_int_equal(last_sent(w, MSG_DROP, FIRST)->id, job);
}

static void test_details_of_the_prompt_come_first_in_a_stream_and_all_at_once_without(void **state)
{
    (void)state;
    const struct token_detail details[] = { { 1, 0, slice_of("a"), { 0 } }, { 2, -1, slice_of("b"), { 0 } } };
    for (int is_stream = 0; is_stream < 2; is_stream++) {
        forget_sent(w);
        uint64_t job = start_choices(is_stream, 1, 0);
        struct step_item item = { .job = job,
                                  .prompt_tokens = 4,
                                  .cached_tokens = 64,
                                  .cache_miss = slice_of("new"),
                                  .prompt_logprobs = { details, 2 } };
        say_items(w, FIRST, &item, 1);
        say_items(w, FIRST, &item, 1);
        assert_int_equal(count_sent(w, MSG_TOKENS, ANN), is_stream ? 2 : 0);
        say_choice(job, 0, "c", "stop", -1);
        assert_int_equal(last_sent(w, MSG_DONE, ANN)->n_prompt_logprobs, is_stream ? 0 : 4);
        assert_int_equal(last_sent(w, MSG_DONE, ANN)->cached_tokens, 64);
    }
}

static void embed(uint64_t id, struct slice pooling)
{
    struct message m = {
        .kind = MSG_EMBED,
        .generate = { .id = id,
                      .request = { .model = slice_of("m"), .prompt = slice_of("Once"), .pooling = pooling } }
    };
    world_client_says(w, ANN, &m);
}

static void test_an_embedding_comes_in_done(void **state)
{
    (void)state;
    register_as(w, FIRST, "m", 0, 1);
    embed(1, (struct slice){ 0 });
    assert_int_equal(count_sent(w, MSG_ACCEPTED, ANN), 1);
    assert_string_equal(last_sent(w, MSG_SUBMIT, FIRST)->text, "mean");
    struct step_item item = { .job = last_sent(w, MSG_SUBMIT, FIRST)->job,
                              .prompt_tokens = 3,
                              .finish_reason = slice_of("stop"),
                              .embedding = { "12345678", 8 } };
    say_items(w, FIRST, &item, 1);
    const struct sent *done = last_sent(w, MSG_DONE, ANN);
    assert_int_equal(done->embedding_bytes, 8);
    assert_false(done->has_text);
    embed(2, slice_of("last"));
    assert_string_equal(last_sent(w, MSG_SUBMIT, FIRST)->text, "last");
    embed(3, slice_of("first"));
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, ERROR_BAD_REQUEST);
}

static void assert_refused(const struct message *m, const char *code)
{
    world_client_says(w, ANN, m);
    assert_string_equal(last_sent(w, MSG_ERROR, ANN)->code, code);
    assert_int_equal(last_sent(w, MSG_ERROR, ANN)->id, m->generate.id);
}

static void test_candidates_must_be_enough_and_cannot_stream(void **state)
{
    (void)state;
    struct message m = world_generate(3);
    m.generate.request.best_of = 2;
    assert_refused(&m, ERROR_BAD_REQUEST);
    m.generate.request.stream = false;
    m.generate.request.n = 3;
    assert_refused(&m, ERROR_BAD_REQUEST);
    m.generate.request.best_of = 3;
    world_client_says(w, ANN, &m);
    assert_int_equal(count_sent(w, MSG_ACCEPTED, ANN), 1);
}

static void test_a_session_is_named_by_letters_and_digits(void **state)
{
    static const char *const bad[] = { "", "a b", "../a", "\xc3\xa9", "a." };
    (void)state;
    struct message m = world_generate(3);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        m.generate.request.session = slice_of(bad[i]);
        assert_refused(&m, ERROR_BAD_REQUEST);
    }
    m.generate.request.session = slice_of("Talk_1-a");
    world_client_says(w, ANN, &m);
    assert_int_equal(count_sent(w, MSG_ACCEPTED, ANN), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_choices_stream_each_with_its_own_count_and_end),
        TEST(test_choices_that_do_not_stream_come_in_done),
        TEST(test_the_best_candidates_are_told_by_mean_log_probability),
        TEST(test_the_best_of_several_alone_looks_like_any_answer),
        TEST(test_a_cancel_ends_all_choices_at_once),
        TEST(test_the_slot_of_an_abandoned_job_returns_with_its_last_choice),
        TEST(test_a_worker_that_makes_impossible_choices_is_lost),
        TEST(test_all_choices_together_must_fit_into_one_message),
        TEST(test_details_of_the_prompt_come_first_in_a_stream_and_all_at_once_without),
        TEST(test_an_embedding_comes_in_done),
        TEST(test_candidates_must_be_enough_and_cannot_stream),
        TEST(test_a_session_is_named_by_letters_and_digits),
    };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

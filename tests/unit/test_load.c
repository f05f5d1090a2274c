/* The parts of `woolly-bench load` that need no server: the stream's parser, what answers mean, prompts,
 * counting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load_answer.h"
#include "bench/load_meter.h"
#include "bench/load_prompt.h"
#include "bench/sse.h"
#include "common/buffer.h"

/* ---- server-sent events ---- */

static void write_down(void *context, const char *data, size_t len)
{
    assert_int_equal(data[len], 0);
    buffer_printf(context, "[%.*s]", (int)len, data);
}

/* The events of a stream that comes in pieces of this size, each in brackets. */
static void check_stream(const char *stream, size_t piece, const char *expected)
{
    struct sse s = { 0 };
    struct buffer seen = { 0 };
    for (size_t at = 0, len = strlen(stream); at < len; at += piece)
        assert_int_equal(sse_feed(&s, stream + at, len - at < piece ? len - at : piece, write_down, &seen),
                         OK);
    buffer_append(&seen, "", 1);
    assert_string_equal(seen.data, expected);
    buffer_fini(&seen);
    sse_fini(&s);
}

static void test_events_are_the_same_however_the_stream_is_cut(void **state)
{
    (void)state;
    static const struct {
        const char *stream, *events;
    } cases[] = {
        { "data: a\n\ndata:b\n\n", "[a][b]" },
        { "data: a\r\n\r\ndata: b\r\rdata: c\n\n", "[a][b][c]" },
        { "data: a\r\ndata: b\r\n\r\n", "[a\nb]" },
        { "data: a\ndata:  b\ndata\n\n", "[a\n b\n]" },
        { ": only a comment\n\nevent: x\nid: 1\ndata: a\nretry: 5\n\n", "[a]" },
        { "\xEF\xBB\xBF"
          "data: a\n\n",
          "[a]" },
        { "database: a\ndat: b\ndata: c\n\n\n\n", "[c]" },
        { "data: a\n\ndata: never ended\n", "[a]" },
        { "data:\n\n", "[]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece <= 64; piece = piece < 8 ? piece + 1 : piece * 8)
            check_stream(cases[i].stream, piece, cases[i].events);
}

static void test_endless_line_and_endless_event_are_refused(void **state)
{
    (void)state;
    char text[4096];
    struct buffer seen = { 0 };
    for (int many_lines = 0; many_lines <= 1; many_lines++) {
        struct sse s = { 0 };
        enum status status = OK;
        memset(text, 'x', sizeof text);
        if (many_lines) {
            memcpy(text, "data:", 5);
            text[sizeof text - 1] = '\n';
        }
        int n = 0;
        for (; status == OK && n < 1000; n++)
            status = sse_feed(&s, text, sizeof text, write_down, &seen);
        assert_int_equal(status, E_LIMIT);
        assert_in_range(n, SSE_MAX_EVENT / sizeof text, SSE_MAX_EVENT / sizeof text + 2);
        sse_fini(&s);
    }
    assert_int_equal(seen.len, 0);
}

static void test_restarted_stream_knows_nothing_of_the_one_before(void **state)
{
    (void)state;
    struct sse s = { 0 };
    struct buffer seen = { 0 };
    assert_int_equal(sse_feed(&s, "data: a\ndata: b\r", 16, write_down, &seen), OK);
    sse_restart(&s);
    assert_int_equal(sse_feed(&s, "\ndata: c\n\n", 10, write_down, &seen), OK);
    assert_int_equal(seen.len, 3);
    assert_memory_equal(seen.data, "[c]", 3);
    buffer_fini(&seen);
    sse_fini(&s);
}

/* ---- answers ---- */

static struct answer_event read_event(enum load_api api, const char *text)
{
    struct answer_event e;
    assert_true(answer_read(api, text, strlen(text), &e));
    return e;
}

static void test_events_of_llama_server_count_ids_or_texts(void **state)
{
    (void)state;
    struct answer_event e = read_event(LOAD_COMPLETION, "{\"content\":\"ab\",\"stop\":false}");
    assert_true(e.tokens == 1 && !e.total && !e.is_end && !e.is_error);
    e = read_event(LOAD_COMPLETION, "{\"content\":\"ab\",\"tokens\":[1,2,3],\"tokens_predicted\":3}");
    assert_true(e.tokens == 3 && !e.total && !e.is_end);
    e = read_event(LOAD_COMPLETION, "{\"content\":\"\",\"stop\":true,\"tokens\":[],\"tokens_predicted\":9}");
    assert_true(!e.tokens && e.total == 9 && e.is_end);
}

static void test_events_of_openai_count_texts_and_end_with_a_reason(void **state)
{
    (void)state;
    struct answer_event e =
        read_event(LOAD_OPENAI, "{\"choices\":[{\"text\":\"ab\",\"finish_reason\":null}]}");
    assert_true(e.tokens == 1 && !e.total && !e.is_end);
    e = read_event(LOAD_OPENAI, "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}");
    assert_true(!e.tokens && e.is_end);
    e = read_event(LOAD_OPENAI, "{\"choices\":[],\"usage\":{\"completion_tokens\":7}}");
    assert_true(!e.tokens && e.total == 7);
    assert_true(read_event(LOAD_OPENAI, "[DONE]").is_end);
}

static void test_errors_are_found_in_events_and_refusals(void **state)
{
    (void)state;
    static const char object[] = "{\"error\":{\"message\":\"full\"}}", text[] = "{\"error\":\"full\"}";
    char why[16];
    struct answer_event e = read_event(LOAD_OPENAI, object);
    assert_true(e.is_error);
    assert_string_equal(e.why, "full");
    assert_string_equal(read_event(LOAD_COMPLETION, text).why, "full");
    assert_true(read_event(LOAD_COMPLETION, "{\"error\":7}").is_error);
    answer_refusal(object, sizeof object - 1, why, sizeof why);
    assert_string_equal(why, "full");
    answer_refusal("<html> a long page", 18, why, sizeof why);
    assert_string_equal(why, "<html> a long p");
    answer_refusal("", 0, why, sizeof why);
    assert_string_equal(why, "");
}

static void test_what_is_no_event_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "{", "[]", "7", "{}", "{\"content\":7}", "{\"choices\":7}", "[DONE", "{\"content\":\"a\"} more"
    };
    struct answer_event e;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int api = LOAD_COMPLETION; api <= LOAD_OPENAI; api++)
            assert_false(answer_read((enum load_api)api, texts[i], strlen(texts[i]), &e));
    e = read_event(LOAD_COMPLETION, "{\"content\":\"\",\"stop\":true,\"tokens_predicted\":-5}");
    assert_int_equal(e.total, 0);
}

/* ---- prompts ---- */

static void test_prompts_share_their_beginning_and_nothing_else(void **state)
{
    (void)state;
    enum { SHARED = 8, OWN = 8, N = 4 };
    struct prompts a = { .seed = 1, .n_shared = SHARED, .n_own = OWN, .n_vocab = 32000 }, again = a,
                   other = a;
    int32_t made[N][SHARED + OWN];
    other.seed = 2;
    for (int i = 0; i < N; i++) {
        prompts_next(&a);
        prompts_next(&again);
        prompts_next(&other);
        memcpy(made[i], a.ids, sizeof made[i]);
        assert_memory_equal(a.ids, again.ids, sizeof made[i]);
        assert_memory_not_equal(a.ids, other.ids, SHARED * sizeof(int32_t));
        assert_memory_equal(made[i], made[0], SHARED * sizeof(int32_t));
        for (int j = 0; j < i; j++)
            for (int k = SHARED; k < SHARED + OWN; k++)
                assert_int_not_equal(made[i][k], made[j][k]);
        for (int k = 0; k < SHARED + OWN; k++)
            assert_in_range(made[i][k], 4000, 27999);
    }
    prompts_fini(&a);
    prompts_fini(&again);
    prompts_fini(&other);
}

static void test_prompt_of_words_has_a_word_for_each_token(void **state)
{
    (void)state;
    struct prompts p = { .seed = 1, .n_shared = 2, .n_own = 3 };
    for (int round = 0; round < 3; round++) {
        int spaces = 0;
        prompts_next(&p);
        for (const char *c = p.text.data; *c; c++)
            spaces += *c == ' ';
        assert_int_equal(spaces, 4);
    }
    prompts_fini(&p);
}

static void test_smallest_vocabularies_are_not_left(void **state)
{
    (void)state;
    for (int n_vocab = 1; n_vocab < 10; n_vocab++) {
        struct prompts p = { .n_own = 50, .n_vocab = n_vocab };
        prompts_next(&p);
        for (int i = 0; i < 50; i++)
            assert_in_range(p.ids[i], 0, n_vocab - 1);
        prompts_fini(&p);
    }
}

/* ---- counting ---- */

static void test_tail_is_of_sorted_samples(void **state)
{
    (void)state;
    struct samples s = { 0 };
    assert_int_equal(samples_tail(&s).n, 0);
    for (int i = 100; i >= 0; i--)
        samples_add(&s, i);
    struct tail t = samples_tail(&s);
    assert_int_equal(t.n, 101);
    assert_true(t.p50 == 50 && t.p95 == 95 && t.p99 == 99 && t.max == 100);
    samples_fini(&s);
}

static struct meter *new_meter(int n_users)
{
    struct meter *m = malloc(sizeof *m);
    assert_non_null(m);
    meter_start(m, n_users, 1000000);
    return m;
}

static void free_meter(struct meter *m)
{
    load_result_fini(&m->result);
    free(m);
}

static void test_tokens_count_while_all_users_are_busy(void **state)
{
    (void)state;
    struct meter *m = new_meter(2);
    const struct load_result *r = &m->result;
    meter_begin(m, 0, 1000000);
    meter_begin(m, 1, 1000000);
    meter_tokens(m, 0, 1, 1010000);
    meter_tokens(m, 1, 2, 1500000);
    meter_tokens(m, 0, 1, 2000000);
    meter_done(m, 0, 2, 2000000);
    meter_close_window(m, 2000000);
    meter_tokens(m, 1, 5, 3000000);
    meter_close_window(m, 3000000);
    meter_done(m, 1, 7, 3000000);
    assert_true(r->window_s == 1 && r->window_tokens == 4 && r->total_s == 2);
    assert_true(load_tok_s(r) == 4 && load_requests_s(r) == 1);
    assert_int_equal(r->ttft.n, 2);
    assert_true(r->ttft.values[0] == 10 && r->ttft.values[1] == 500);
    assert_int_equal(r->gap.n, 1);
    assert_true(r->gap.values[0] == 990);
    free_meter(m);
}

static void test_server_that_sends_several_tokens_as_one_is_believed_their_number(void **state)
{
    (void)state;
    struct meter *m = new_meter(1);
    meter_begin(m, 0, 1000000);
    for (int i = 0; i < 4; i++)
        meter_tokens(m, 0, 1, 1100000);
    meter_close_window(m, 1200000);
    for (int i = 0; i < 4; i++)
        meter_tokens(m, 0, 1, 1300000);
    meter_done(m, 0, 16, 1300000);
    assert_true(m->result.window_tokens == 8);
    free_meter(m);
}

static void test_errors_and_requests_without_end_are_counted_apart(void **state)
{
    (void)state;
    struct meter *m = new_meter(3);
    for (int i = 0; i < 3; i++)
        meter_begin(m, i, 1000000);
    meter_tokens(m, 0, 1, 1100000);
    meter_error(m, 0, "line\nbroke \x1b[0m", 1200000);
    meter_never_ended(m, 1, 1300000);
    meter_done(m, 2, 0, 1400000);
    meter_close_window(m, 1400000);
    assert_true(m->result.errors == 1 && m->result.never_ended == 1 && m->result.done == 1);
    assert_true(m->result.window_tokens == 1);
    assert_string_equal(m->result.last_error, "line?broke ?[0m");
    free_meter(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_are_the_same_however_the_stream_is_cut),
        cmocka_unit_test(test_endless_line_and_endless_event_are_refused),
        cmocka_unit_test(test_restarted_stream_knows_nothing_of_the_one_before),
        cmocka_unit_test(test_events_of_llama_server_count_ids_or_texts),
        cmocka_unit_test(test_events_of_openai_count_texts_and_end_with_a_reason),
        cmocka_unit_test(test_errors_are_found_in_events_and_refusals),
        cmocka_unit_test(test_what_is_no_event_is_refused),
        cmocka_unit_test(test_prompts_share_their_beginning_and_nothing_else),
        cmocka_unit_test(test_prompt_of_words_has_a_word_for_each_token),
        cmocka_unit_test(test_smallest_vocabularies_are_not_left),
        cmocka_unit_test(test_tail_is_of_sorted_samples),
        cmocka_unit_test(test_tokens_count_while_all_users_are_busy),
        cmocka_unit_test(test_server_that_sends_several_tokens_as_one_is_believed_their_number),
        cmocka_unit_test(test_errors_and_requests_without_end_are_counted_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

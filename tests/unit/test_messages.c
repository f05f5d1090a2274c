/* The codec: every message survives a round trip, and no bytes from outside break it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "proto/messages.h"

struct codec {
    struct decoder *decoder;
    struct buffer bytes;
    struct error err;
};

static int set_up(void **state)
{
    struct codec *c = calloc(1, sizeof *c);
    c->decoder = decoder_create();
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    struct codec *c = *state;
    decoder_destroy(c->decoder);
    buffer_fini(&c->bytes);
    free(c);
    return 0;
}

static enum status pass(struct codec *c, const struct message *in, enum message_link link,
                        struct message *out)
{
    c->err.text[0] = 0;
    message_encode(&c->bytes, in);
    return message_decode(c->decoder, link, c->bytes.data, c->bytes.len, out, &c->err);
}

static enum status decode_bytes(struct codec *c, const char *bytes, size_t len, struct message *out)
{
    return message_decode(c->decoder, CLIENT_TO_BROKER, bytes, len, out, &c->err);
}

#define DECODE(c, literal, out) decode_bytes(c, literal, sizeof literal - 1, out)

static void test_generate_keeps_every_field(void **state)
{
    struct codec *c = *state;
    const struct slice stops[] = { slice_of("\n\n"), slice_of("END") };
    const int32_t ids[] = { 1, 2, INT32_MAX };
    struct message in = { .kind = MSG_GENERATE,
                          .generate = { .id = 5,
                                        .epoch = 77,
                                        .request = { .model = slice_of("m"),
                                                     .tokens = { ids, 3 },
                                                     .max_tokens = 9,
                                                     .has_max_tokens = true,
                                                     .n = 4,
                                                     .best_of = 7,
                                                     .has_prompt_logprobs = true,
                                                     .prompt_logprobs = 2,
                                                     .cache_salt = slice_of("tenant"),
                                                     .session = slice_of("talk-1"),
                                                     .pooling = slice_of("mean"),
                                                     .normalize = true,
                                                     .temperature = 0.5f,
                                                     .top_k = 40,
                                                     .top_p = 0.9f,
                                                     .min_p = 0.05f,
                                                     .has_seed = true,
                                                     .seed = UINT64_MAX,
                                                     .stop = { stops, 2 },
                                                     .has_logprobs = true,
                                                     .ignore_end = true,
                                                     .stream = false,
                                                     .deadline_ms = 1000 } } };
    struct message out;
    assert_int_equal(pass(c, &in, CLIENT_TO_BROKER, &out), OK);
    const struct generate *r = &out.generate.request;
    assert_int_equal(out.kind, MSG_GENERATE);
    assert_int_equal(out.generate.id, 5);
    assert_int_equal(out.generate.epoch, 77);
    assert_true(slice_is(r->model, "m"));
    assert_null(r->prompt.data);
    assert_int_equal(r->tokens.n, 3);
    assert_memory_equal(r->tokens.ids, ids, sizeof ids);
    assert_true(r->has_max_tokens && r->max_tokens == 9);
    assert_true(r->n == 4 && r->best_of == 7);
    assert_true(r->has_prompt_logprobs && r->prompt_logprobs == 2);
    assert_true(slice_is(r->cache_salt, "tenant") && slice_is(r->session, "talk-1"));
    assert_true(!r->pooling.data && !r->normalize); /* not for clients to say here */
    assert_true(r->temperature == 0.5f && r->top_p == 0.9f && r->min_p == 0.05f);
    assert_int_equal(r->top_k, 40);
    assert_true(r->has_seed && r->seed == UINT64_MAX);
    assert_int_equal(r->stop.n, 2);
    assert_true(slice_is(r->stop.items[0], "\n\n") && slice_is(r->stop.items[1], "END"));
    assert_true(r->has_logprobs && r->logprobs == 0);
    assert_true(r->ignore_end && !r->stream);
    assert_int_equal(r->deadline_ms, 1000);
}

static void test_absent_fields_take_their_defaults(void **state)
{
    struct codec *c = *state;
    struct message out;
    /* {v:1, type:"generate", id:1, request:{model:"m", prompt:""}} */
    assert_int_equal(DECODE(c,
                            "\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m"
                            "\xa6prompt\xa0",
                            &out),
                     OK);
    const struct generate *r = &out.generate.request;
    assert_non_null(r->prompt.data);
    assert_int_equal(r->prompt.len, 0);
    assert_true(r->max_tokens == 128 && !r->has_max_tokens);
    assert_true(r->n == 1 && r->best_of == 0 && !r->cache_salt.data);
    assert_false(r->has_prompt_logprobs);
    assert_true(r->temperature == 0 && r->top_p == 1 && r->min_p == 0 && r->stream);
    assert_false(r->has_seed || r->has_logprobs || r->ignore_end);
}

static void test_an_embedding_is_asked_for_with_its_defaults(void **state)
{
    struct codec *c = *state;
    struct message out;
    /* {v:1, type:"embed", id:1, request:{model:"m", prompt:""}} */
    assert_int_equal(DECODE(c,
                            "\x84\xa1v\x01\xa4type\xa5"
                            "embed\xa2id\x01\xa7request\x82\xa5model\xa1m\xa6prompt\xa0",
                            &out),
                     OK);
    assert_int_equal(out.kind, MSG_EMBED);
    assert_true(out.generate.request.normalize);
    assert_null(out.generate.request.pooling.data);

    struct message in = { .kind = MSG_EMBED,
                          .generate = { .id = 2,
                                        .request = { .model = slice_of("m"),
                                                     .prompt = slice_of("p"),
                                                     .pooling = slice_of("last") } } };
    assert_int_equal(pass(c, &in, CLIENT_TO_BROKER, &out), OK);
    assert_false(out.generate.request.normalize);
    assert_true(slice_is(out.generate.request.pooling, "last"));
}

static void test_a_worker_is_told_of_pooling_and_a_plain_request_looks_as_ever(void **state)
{
    struct codec *c = *state;
    struct message in = { .kind = MSG_SUBMIT,
                          .submit = { .epoch = 1,
                                      .job = 2,
                                      .request = { .model = slice_of("m"),
                                                   .prompt = slice_of("p"),
                                                   .n = 1,
                                                   .top_p = 1,
                                                   .stream = true } } };
    struct message out;
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), OK);
    static const char *const absent[] = { "max_tokens", "best_of",    "prompt_logprobs",
                                          "pooling",    "cache_salt", "normalize",
                                          "session",    "resume",     "prompt_told" };
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        assert_null(memmem(c->bytes.data, c->bytes.len, absent[i], strlen(absent[i])));

    in.submit.request.pooling = slice_of("last");
    in.submit.request.normalize = true;
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), OK);
    assert_true(slice_is(out.submit.request.pooling, "last") && out.submit.request.normalize);
    in.kind = MSG_OPEN;
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), OK);
    assert_int_equal(out.kind, MSG_OPEN);
    assert_int_equal(out.submit.job, 2);
}

static void test_a_worker_is_told_how_far_another_one_came(void **state)
{
    struct codec *c = *state;
    const struct resumed_choice choices[] = {
        { .ids = { "\1\0\0\0\2\0\0\0", 8 }, .text_bytes = 3, .logprob_sum = -2.5 },
        { .finish_reason = slice_of("stop") }
    };
    struct message in = { .kind = MSG_SUBMIT,
                          .submit = { .epoch = 1,
                                      .job = 2,
                                      .request = { .model = slice_of("m"),
                                                   .prompt = slice_of("p"),
                                                   .n = 2,
                                                   .top_p = 1,
                                                   .resume = { choices, 2 },
                                                   .prompt_told = 7 } } };
    struct message out;
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), OK);
    const struct resumed_choice *got = out.submit.request.resume.items;
    assert_int_equal(out.submit.request.resume.n, 2);
    assert_int_equal(out.submit.request.prompt_told, 7);
    assert_int_equal(got[0].ids.len, 8);
    assert_memory_equal(got[0].ids.data, choices[0].ids.data, 8);
    assert_true(got[0].text_bytes == 3 && got[0].logprob_sum == -2.5 && !got[0].finish_reason.data);
    assert_true(slice_is(got[1].finish_reason, "stop") && !got[1].ids.data);

    /* A client cannot say such a thing. */
    in = (struct message){ .kind = MSG_GENERATE, .generate = { .id = 1, .request = in.submit.request } };
    assert_int_equal(pass(c, &in, CLIENT_TO_BROKER, &out), OK);
    assert_int_equal(out.generate.request.resume.n, 0);
}

static void test_choices_and_their_logprobs_pass(void **state)
{
    struct codec *c = *state;
    const int32_t ids[] = { 7, 8 };
    const struct token_alternative top[] = { { 3, -0.5f, slice_of("a") } };
    const struct token_detail details[] = { { 7, -0.5f, slice_of("a"), { top, 1 } },
                                            { 8, -1, slice_of("b"), { top, 1 } } };
    const struct choice_row rows[] = { { .index = 0, .finish_reason = slice_of("stop") },
                                       { .index = 1,
                                         .finish_reason = slice_of("length"),
                                         .ids = { ids, 2 },
                                         .text = slice_of("ab"),
                                         .logprobs = { details, 2 },
                                         .completion_tokens = 2,
                                         .logprob_sum = -1.5 } };
    struct message in = { .kind = MSG_DONE,
                          .done = { .finish_reason = slice_of("stop"),
                                    .choices = { rows, 2 },
                                    .prompt_logprobs = { details, 2 },
                                    .embedding = { "\0\0\200?", 4 },
                                    .cached_tokens = 64,
                                    .cache_miss = slice_of("evicted") } };
    struct message out;
    assert_int_equal(pass(c, &in, BROKER_TO_CLIENT, &out), OK);
    const struct choice_row *got = out.done.choices.items;
    assert_int_equal(out.done.choices.n, 2);
    assert_true(got[1].index == 1 && got[1].logprob_sum == -1.5 && got[1].completion_tokens == 2);
    assert_int_equal(((const struct token_detail *)got[1].logprobs.items)[1].top.n, 1);
    assert_null(got[0].text.data);
    assert_int_equal(out.done.prompt_logprobs.n, 2);
    assert_int_equal(out.done.embedding.len, 4);
    assert_true(out.done.cached_tokens == 64 && slice_is(out.done.cache_miss, "evicted"));
}

static void test_an_operation_on_a_sequence_and_its_result_pass(void **state)
{
    struct codec *c = *state;
    const struct slice strings[] = { { "\xff\x00", 2 }, slice_of("yes") };
    struct message in = { .kind = MSG_ADVANCE,
                          .advance = { .epoch = 1,
                                       .job = 2,
                                       .op = 3,
                                       .has_keep = true,
                                       .keep = 0,
                                       .bytes = { "\xe2\x82", 2 },
                                       .has_logprobs = true,
                                       .generate = 5,
                                       .has_score = true,
                                       .score = { .top = MAX_SCORED_TOKENS, .strings = { strings, 2 } } } };
    struct message out;
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), OK);
    const struct msg_advance *a = &out.advance;
    assert_true(a->op == 3 && a->has_keep && a->keep == 0 && a->generate == 5 && a->has_logprobs);
    assert_int_equal(a->bytes.len, 2);
    assert_int_equal(a->score.strings.n, 2);
    assert_memory_equal(a->score.strings.items[0].data, "\xff\x00", 2);
    in.advance.has_score = in.advance.has_keep = false;
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), OK);
    assert_false(out.advance.has_score || out.advance.has_keep);

    const float exact[] = { -9999, -0.25f }, prefix[] = { -3, 0 };
    const struct token_alternative top[] = { { 9, -0.1f, slice_of("x") } };
    in = (struct message){ .kind = MSG_ADVANCED,
                           .advanced = { .epoch = 1,
                                         .job = 2,
                                         .op = 3,
                                         .n_tokens = 12,
                                         .is_end = true,
                                         .has_score = true,
                                         .score = { { top, 1 }, { exact, 2 }, { prefix, 2 } } } };
    assert_int_equal(pass(c, &in, WORKER_TO_BROKER, &out), OK);
    assert_true(out.advanced.n_tokens == 12 && out.advanced.is_end && out.advanced.has_score);
    assert_int_equal(out.advanced.score.exact.n, 2);
    assert_memory_equal(out.advanced.score.exact.values, exact, sizeof exact);
    assert_memory_equal(out.advanced.score.prefix.values, prefix, sizeof prefix);
    assert_int_equal(out.advanced.score.top.n, 1);
}

static void test_scores_must_be_finite_numbers_and_strings_not_empty(void **state)
{
    struct codec *c = *state;
    const float exact[] = { 0.5f };
    struct message out,
        in = { .kind = MSG_ADVANCED,
               .advanced = { .job = 1, .has_score = true, .score = { .exact = { exact, 1 } } } };
    message_encode(&c->bytes, &in);
    char *number = memmem(c->bytes.data, c->bytes.len, "\xca\x3f\x00\x00\x00", 5);
    assert_non_null(number);
    memcpy(number + 1, "\x7f\x80\x00\x00", 4); /* infinity */
    assert_int_equal(message_decode(c->decoder, WORKER_TO_BROKER, c->bytes.data, c->bytes.len, &out, &c->err),
                     E_FORMAT);
    assert_non_null(strstr(c->err.text, "exact"));

    const struct slice empty[] = { { "", 0 } };
    in = (struct message){ .kind = MSG_ADVANCE,
                           .advance = { .job = 1, .has_score = true, .score = { .strings = { empty, 1 } } } };
    assert_int_equal(pass(c, &in, BROKER_TO_WORKER, &out), E_INVALID);
    assert_non_null(strstr(c->err.text, "strings"));
}

static void test_step_carries_nested_log_probabilities(void **state)
{
    struct codec *c = *state;
    const struct token_alternative top[] = { { 3, -0.5f, slice_of("a") }, { 4, -1.5f, { "\xff\x00", 2 } } };
    const struct token_detail details[] = { { 3, -0.5f, slice_of("a"), { top, 2 } } };
    const int32_t ids[] = { 3 };
    const struct step_item items[] = {
        { .job = 1,
          .ids = { ids, 1 },
          .text = slice_of("a"),
          .logprobs = { details, 1 },
          .prompt_tokens = 5 },
        { .job = 2, .error_code = slice_of("bad_request"), .error_message = slice_of("why") },
    };
    struct message in = { .kind = MSG_STEP, .step = { .epoch = 9, .items = { items, 2 } } }, out;
    assert_int_equal(pass(c, &in, WORKER_TO_BROKER, &out), OK);
    assert_int_equal(out.step.items.n, 2);
    const struct step_item *got = out.step.items.items;
    assert_int_equal(got[0].ids.ids[0], 3);
    const struct token_detail *detail = got[0].logprobs.items;
    const struct token_alternative *second = (const struct token_alternative *)detail->top.items + 1;
    assert_int_equal(detail->top.n, 2);
    assert_true(second->logprob == -1.5f);
    assert_int_equal(second->bytes.len, 2);
    assert_memory_equal(second->bytes.data, "\xff\x00", 2);
    assert_null(got[0].finish_reason.data);
    assert_true(slice_is(got[1].error_code, "bad_request"));
}

static void test_every_kind_is_read_only_on_its_own_link(void **state)
{
    struct codec *c = *state;
    static const enum message_link links[MSG_KINDS] = {
        [MSG_ACCEPTED] = BROKER_TO_CLIENT,    [MSG_TOKENS] = BROKER_TO_CLIENT,
        [MSG_DONE] = BROKER_TO_CLIENT,        [MSG_CANCELLED] = BROKER_TO_CLIENT,
        [MSG_ERROR] = BROKER_TO_CLIENT,       [MSG_MODELS_REPLY] = BROKER_TO_CLIENT,
        [MSG_STATS_REPLY] = BROKER_TO_CLIENT, [MSG_HEALTH_REPLY] = BROKER_TO_CLIENT,
        [MSG_PONG] = BROKER_TO_CLIENT,        [MSG_CLIENT_BEAT] = BROKER_TO_CLIENT,
        [MSG_REGISTER] = WORKER_TO_BROKER,    [MSG_STEP] = WORKER_TO_BROKER,
        [MSG_WORKER_BEAT] = WORKER_TO_BROKER, [MSG_BYE] = WORKER_TO_BROKER,
        [MSG_WELCOME] = BROKER_TO_WORKER,     [MSG_REFUSED] = BROKER_TO_WORKER,
        [MSG_SUBMIT] = BROKER_TO_WORKER,      [MSG_DROP] = BROKER_TO_WORKER,
        [MSG_BROKER_BEAT] = BROKER_TO_WORKER, [MSG_STOP] = BROKER_TO_WORKER,
        [MSG_ADVANCED] = WORKER_TO_BROKER,    [MSG_OPEN] = BROKER_TO_WORKER,
        [MSG_ADVANCE] = BROKER_TO_WORKER,
    };
    for (int kind = 0; kind < MSG_KINDS; kind++) {
        /* Zeroed required texts encode as empty, numbers as 0: enough to find the type. */
        struct message in = { .kind = (enum message_kind)kind }, out = { 0 };
        for (int link = CLIENT_TO_BROKER; link <= BROKER_TO_WORKER; link++) {
            c->err.text[0] = 0;
            enum status s = pass(c, &in, (enum message_link)link, &out);
            bool is_known = s == OK || s == E_LIMIT; /* a 0 below the field's minimum */
            if ((enum message_link)link == links[kind]) {
                assert_true(is_known);
                assert_int_equal(out.kind, kind);
            } else {
                assert_true(!is_known || out.kind != (enum message_kind)kind);
            }
        }
    }
}

static void test_bad_fields_are_named(void **state)
{
    struct codec *c = *state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *named;
    } cases[] = {
#define CASE(literal, named) { literal, sizeof literal - 1, named }
        CASE("", "message"),
        CASE("\xc1", "message"),
        CASE("\x93\x01\x02", "message"),
        CASE("\x90", "map"),
        CASE("\x80\x80", "after its end"),
        CASE("\x80", "v:"),
        CASE("\x81\xa1v\x02", "version 2"),
        CASE("\x81\xa1v\x01", "type"),
        CASE("\x82\xa1v\x01\xa4type\xa5no-op", "type"),
        CASE("\x82\xa1v\x01\xa4type\xa4ping", "id: missing"),
        CASE("\x83\xa1v\x01\xa4type\xa4ping\xa2id\x00", "id"),
        CASE("\x83\xa1v\x01\xa4type\xa4ping\xa2id\xff", "id"),
        CASE("\x83\xa1v\x01\xa4type\xa8generate\xa2id\x01", "request: missing"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x80", "model: missing"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x81\xa5model\xa1\xff", "model"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa5top_p\x02",
             "top_p"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa5top_"
             "p\xca\x7f\xc0\x00\x00",
             "top_p"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa4stop\x91\xa0",
             "stop"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa6tokens\x91\xff",
             "tokens"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa1n\x00", "n:"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa1n\x11", "n:"),
        CASE("\x84\xa1v\x01\xa4type\xa8generate\xa2id\x01\xa7request\x82\xa5model\xa1m\xa7"
             "best_of\x11",
             "best_of"),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message out;
        assert_int_not_equal(decode_bytes(c, cases[i].bytes, cases[i].len, &out), OK);
        if (!strstr(c->err.text, cases[i].named))
            fail_msg("case %zu: \"%s\" does not name \"%s\"", i, c->err.text, cases[i].named);
    }
}

static void test_huge_announced_sizes_cost_nothing(void **state)
{
    struct codec *c = *state;
    struct message out;
    assert_int_equal(DECODE(c, "\xdd\xff\xff\xff\xff", &out), E_FORMAT);
    assert_int_equal(DECODE(c, "\xdf\xff\xff\xff\xff\x01", &out), E_FORMAT);
    assert_int_equal(DECODE(c, "\xdb\xff\xff\xff\xff", &out), E_FORMAT);
    assert_int_equal(DECODE(c, "\xc9\xff\xff\xff\xff\x01", &out), E_FORMAT);
}

static void test_depth_and_object_count_are_bounded(void **state)
{
    struct codec *c = *state;
    struct message out;
    char deep[100];
    memset(deep, 0x91, sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_int_equal(decode_bytes(c, deep, sizeof deep, &out), E_LIMIT);
    /* Exactly 8 arrays around a nil are well formed, though no message; 9 are too many. */
    assert_int_equal(DECODE(c, "\x91\x91\x91\x91\x91\x91\x91\x91\xc0", &out), E_FORMAT);
    assert_int_equal(DECODE(c, "\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0", &out), E_LIMIT);

    size_t n = 2000000;
    char *wide = calloc(1, n + 5);
    memcpy(wide, "\xdd\x00\x1e\x84\x80", 5);
    assert_int_equal(decode_bytes(c, wide, n + 5, &out), E_LIMIT);
    free(wide);
}

static void test_the_id_is_known_even_when_the_rest_is_wrong(void **state)
{
    struct codec *c = *state;
    struct message out;
    assert_int_not_equal(DECODE(c, "\x83\xa1v\x01\xa4type\xa8generate\xa2id\x2a", &out), OK);
    assert_int_equal(decoder_id(c->decoder), 42);
    assert_int_not_equal(DECODE(c, "\x90", &out), OK);
    assert_int_equal(decoder_id(c->decoder), 0);
}

static void test_truncated_messages_never_pass(void **state)
{
    struct codec *c = *state;
    struct message in = { .kind = MSG_GENERATE,
                          .generate = { .id = 1,
                                        .request = { .model = slice_of("m"), .prompt = slice_of("p") } } };
    in.generate.request.n = 1;
    struct message out;
    message_encode(&c->bytes, &in);
    for (size_t len = 0; len < c->bytes.len; len++) {
        char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a read past the end */
        memcpy(exact, c->bytes.data, len);
        assert_int_not_equal(decode_bytes(c, exact, len, &out), OK);
        free(exact);
    }
    assert_int_equal(decode_bytes(c, c->bytes.data, c->bytes.len, &out), OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_generate_keeps_every_field),
        TEST(test_absent_fields_take_their_defaults),
        TEST(test_an_embedding_is_asked_for_with_its_defaults),
        TEST(test_a_worker_is_told_of_pooling_and_a_plain_request_looks_as_ever),
        TEST(test_a_worker_is_told_how_far_another_one_came),
        TEST(test_choices_and_their_logprobs_pass),
        TEST(test_an_operation_on_a_sequence_and_its_result_pass),
        TEST(test_scores_must_be_finite_numbers_and_strings_not_empty),
        TEST(test_step_carries_nested_log_probabilities),
        TEST(test_every_kind_is_read_only_on_its_own_link),
        TEST(test_bad_fields_are_named),
        TEST(test_huge_announced_sizes_cost_nothing),
        TEST(test_depth_and_object_count_are_bounded),
        TEST(test_the_id_is_known_even_when_the_rest_is_wrong),
        TEST(test_truncated_messages_never_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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
    assert_int_equal(r->max_tokens, 9);
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
    assert_int_equal(r->max_tokens, 128);
    assert_true(r->temperature == 0 && r->top_p == 1 && r->min_p == 0 && r->stream);
    assert_false(r->has_seed || r->has_logprobs || r->ignore_end);
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
        [MSG_WELCOME] = BROKER_TO_WORKER,     [MSG_SUBMIT] = BROKER_TO_WORKER,
        [MSG_DROP] = BROKER_TO_WORKER,        [MSG_BROKER_BEAT] = BROKER_TO_WORKER,
        [MSG_STOP] = BROKER_TO_WORKER,
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
    in.generate.request.max_tokens = 1;
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

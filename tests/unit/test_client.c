/* libwoolly against a broker made of a thread with a ROUTER socket and a script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/messages.h"
#include "proto/wire.h"
#include "proto/woolly.h"

enum { EPOCH = 77, MAX_PROMPTS = 512 };

struct fake {
    pthread_t thread;
    char endpoint[256];
    atomic_bool is_bound, is_stopping;

    /* of the thread alone */
    void *socket;
    struct wire_message from;
    struct decoder *decoder;
    struct buffer out;
    uint64_t epoch;
    /* of both: counted by the thread, read by the test after an end or with a wait */
    atomic_int cancels, generates;
};

/* ---- what the broker says ---- */

/* Waits for a client that reads slowly; to one that is gone it speaks in vain. */
static void say_bytes(struct fake *f, const void *bytes, size_t len)
{
    while (wire_send(f->socket, f->from.identity, f->from.identity_len, false, bytes, len) == E_OVERLOADED &&
           !f->is_stopping)
        usleep(1000);
}

static void say(struct fake *f, struct message m)
{
    message_encode(&f->out, &m);
    say_bytes(f, f->out.data, f->out.len);
}

static void say_accepted(struct fake *f, uint64_t id)
{
    say(f, (struct message){ .kind = MSG_ACCEPTED,
                             .accepted = { .id = id, .epoch = f->epoch, .job = 1000 + id, .seed = 5 } });
}

static void say_token(struct fake *f, uint64_t id, uint64_t seq, const char *text)
{
    int32_t token = (int32_t)(10 * id + seq);
    say(f, (struct message){
               .kind = MSG_TOKENS,
               .tokens = {
                   .id = id, .epoch = f->epoch, .seq = seq, .ids = { &token, 1 }, .text = slice_of(text) } });
}

static void say_done(struct fake *f, uint64_t id, uint64_t n_tokens)
{
    say(f, (struct message){ .kind = MSG_DONE,
                             .done = { .id = id,
                                       .epoch = f->epoch,
                                       .finish_reason = slice_of("length"),
                                       .prompt_tokens = 4,
                                       .completion_tokens = n_tokens,
                                       .seed = 5,
                                       .timing = { 1, 2, 3, 4 } } });
}

static void say_error(struct fake *f, uint64_t id, const char *code, uint64_t retry_ms)
{
    say(f, (struct message){ .kind = MSG_ERROR,
                             .error = { .id = id,
                                        .epoch = f->epoch,
                                        .code = slice_of(code),
                                        .message = slice_of("because"),
                                        .is_retryable = retry_ms > 0,
                                        .retry_ms = retry_ms } });
}

static void say_garbage(struct fake *f, uint64_t id)
{
    static const char *const pieces[] = { "", "\xc1", "\x81\xa1v\x01", "\xdd\xff\xff\xff\xff",
                                          "no msgpack at all" };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        say_bytes(f, pieces[i], strlen(pieces[i]));
    say_accepted(f, id);
    say_token(f, id + 12345, 0, "for nobody");
    say_done(f, id + 12345, 1);
    /* A frame too many. */
    zmq_send(f->socket, f->from.identity, f->from.identity_len, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(f->socket, "a", 1, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(f->socket, "b", 1, ZMQ_DONTWAIT);
    /* A type from the future, about a living request. */
    struct buffer future = { 0 };
    message_encode(&future, &(struct message){
                                .kind = MSG_DONE,
                                .done = { .id = id, .epoch = f->epoch, .finish_reason = slice_of("x") } });
    char *type = memmem(future.data, future.len, "done", 4);
    memcpy(type, "gone", 4);
    say_bytes(f, future.data, future.len);
    buffer_fini(&future);
}

/* A `tokens` message whose seq is text. */
static void say_broken_tokens(struct fake *f, uint64_t id)
{
    message_encode(&f->out,
                   &(struct message){ .kind = MSG_TOKENS, .tokens = { .id = id, .text = slice_of("x") } });
    char *key = memmem(f->out.data, f->out.len, "\xa3seq\x00", 5);
    assert_non_null(key);
    key[4] = (char)0xa0;
    say_bytes(f, f->out.data, f->out.len);
}

/* Two choices that take turns, and end with the rows that a whole answer would have. */
static void say_choices(struct fake *f, uint64_t id)
{
    const int32_t ids[] = { 7, 8 };
    const struct choice_row rows[] = { { 0, slice_of("stop"), { ids, 2 }, slice_of("ab"), { 0 }, 2, -0.5 },
                                       { 1, slice_of("length"), { ids, 1 }, slice_of("x"), { 0 }, 1, -2 } };
    struct message m = { .kind = MSG_TOKENS,
                         .tokens = {
                             .id = id, .epoch = f->epoch, .ids = { ids, 1 }, .text = slice_of("a") } };
    say(f, m);
    m.tokens.choice = 1;
    m.tokens.finish_reason = slice_of("length");
    say(f, m);
    m.tokens = (struct msg_tokens){ .id = id, .epoch = f->epoch, .seq = 1, .ids = { ids, 1 } };
    say(f, m);
    say(f, (struct message){ .kind = MSG_DONE,
                             .done = { .id = id,
                                       .epoch = f->epoch,
                                       .finish_reason = slice_of("stop"),
                                       .choices = { rows, 2 },
                                       .cached_tokens = 64,
                                       .cache_miss = slice_of("short") } });
}

static void say_embedding(struct fake *f, uint64_t id, const struct generate *asked)
{
    say(f, (struct message){ .kind = MSG_DONE,
                             .done = { .id = id,
                                       .epoch = f->epoch,
                                       .finish_reason = slice_of("stop"),
                                       /* 1.0 and -2.0, unless another one was asked for */
                                       .embedding = { asked->normalize && slice_is(asked->pooling, "mean")
                                                          ? "\0\0\x80\x3f\0\0\0\xc0"
                                                          : "\0\0\0\0\0\0\0\0",
                                                      8 } } });
}

/* What the model's name asks for. */
static void play(struct fake *f, const struct msg_generate *g)
{
    f->generates++;
    if (slice_is(g->request.model, "silent"))
        return;
    if (slice_is(g->request.model, "refused")) {
        say_error(f, g->id, ERROR_OVERLOADED, 250);
        return;
    }
    say_accepted(f, g->id);
    if (slice_is(g->request.model, "endless"))
        return;
    if (slice_is(g->request.model, "garbage"))
        say_garbage(f, g->id);
    if (slice_is(g->request.model, "choices")) {
        say_choices(f, g->id);
        return;
    }
    if (slice_is(g->request.model, "broken")) {
        say_token(f, g->id, 0, "a");
        say_broken_tokens(f, g->id);
        say_done(f, g->id, 2);
        return;
    }
    for (uint32_t i = 0; i < g->request.max_tokens; i++)
        if (i != 1 || !slice_is(g->request.model, "gap"))
            say_token(f, g->id, i, i ? " again" : "once");
    say_done(f, g->id, g->request.max_tokens);
    say_done(f, g->id, g->request.max_tokens); /* an end too many */
    say_error(f, g->id, ERROR_INTERNAL, 0);
}

static void answer(struct fake *f, const struct message *m)
{
    struct model_row row = { .name = slice_of("tiny"), .state = slice_of("ready"), .slots = 3 };
    struct worker_row worker = { .model = slice_of("tiny"), .pid = 42, .tok_s = 1.5 };
    struct msg_empty head = { m->request.id, f->epoch };

    switch (m->kind) {
    case MSG_PING:
        say(f, (struct message){ .kind = MSG_PONG, .empty = head });
        break;
    case MSG_GENERATE:
        if (m->generate.epoch && m->generate.epoch != f->epoch)
            say_error(f, m->generate.id, ERROR_WRONG_EPOCH, 0);
        else
            play(f, &m->generate);
        break;
    case MSG_EMBED:
        say_accepted(f, m->generate.id);
        say_embedding(f, m->generate.id, &m->generate.request);
        break;
    case MSG_CANCEL:
        f->cancels++;
        say(f, (struct message){ .kind = MSG_CANCELLED,
                                 .cancelled = { m->request.id, f->epoch, .completion_tokens = 9 } });
        break;
    case MSG_MODELS:
        say(f, (struct message){ .kind = MSG_MODELS_REPLY, .models = { head.id, head.epoch, { &row, 1 } } });
        break;
    case MSG_STATS:
        say(f, (struct message){ .kind = MSG_STATS_REPLY,
                                 .stats = { .id = head.id,
                                            .epoch = head.epoch,
                                            .version = slice_of("1"),
                                            .accepted = 8,
                                            .workers = { &worker, 1 } } });
        break;
    case MSG_HEALTH:
        say_error(f, head.id, ERROR_SHUTTING_DOWN, 0);
        break;
    default:
        break;
    }
}

static void *fake_main(void *arg)
{
    struct fake *f = arg;
    struct error err;
    char wanted[sizeof f->endpoint];
    void *context = zmq_ctx_new();

    f->decoder = decoder_create();
    f->socket = wire_open(context, WIRE_CLIENT_SIDE, &err);
    snprintf(wanted, sizeof wanted, "%s", f->endpoint);
    assert_int_equal(wire_bind(f->socket, wanted, NULL, f->endpoint, &err), OK);
    f->is_bound = true;
    while (!f->is_stopping) {
        struct message m;
        zmq_pollitem_t item = { .socket = f->socket, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, 10);
        while (wire_receive(f->socket, &f->from) == OK) {
            if (message_decode(f->decoder, CLIENT_TO_BROKER, zmq_msg_data(&f->from.body),
                               zmq_msg_size(&f->from.body), &m, &err) == OK)
                answer(f, &m);
            wire_message_close(&f->from);
        }
    }
    decoder_destroy(f->decoder);
    buffer_fini(&f->out);
    zmq_close(f->socket);
    zmq_ctx_term(context);
    return NULL;
}

static void fake_start(struct fake *f, const char *endpoint, uint64_t epoch)
{
    memset(f, 0, sizeof *f);
    f->epoch = epoch;
    snprintf(f->endpoint, sizeof f->endpoint, "%s", endpoint);
    assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
    while (!f->is_bound)
        usleep(1000);
}

static void fake_stop(struct fake *f)
{
    f->is_stopping = true;
    pthread_join(f->thread, NULL);
}

/* ---- what the tests see ---- */

struct seen {
    char text[256];
    int accepted, tokens, ends;
    struct woolly_event end;
    char code[64], message[200];
};

static struct woolly *connect_to(const struct fake *f)
{
    struct woolly *w;
    struct woolly_error err;
    if (woolly_connect(&w, f->endpoint, &err) != WOOLLY_OK)
        fail_msg("%s", err.text);
    return w;
}

static uint64_t submit(struct woolly *w, const char *model, uint32_t max_tokens, struct seen *seen)
{
    struct woolly_request r;
    struct woolly_error err;
    uint64_t id = 0;
    memset(seen, 0, sizeof *seen);
    woolly_request_init(&r, model, "Once");
    r.max_tokens = max_tokens;
    r.user = seen;
    if (woolly_submit(w, &r, &id, &err) != WOOLLY_OK)
        fail_msg("%s", err.text);
    assert_true(id > 0);
    return id;
}

static void note(const struct woolly_event *e)
{
    struct seen *s = e->user;
    assert_int_equal(s->ends, 0); /* nothing follows an end */
    switch (e->kind) {
    case WOOLLY_ACCEPTED:
        s->accepted++;
        break;
    case WOOLLY_TOKENS:
        s->tokens += (int)e->n_ids;
        strncat(s->text, e->text, sizeof s->text - strlen(s->text) - 1);
        assert_int_equal(strlen(e->text), e->text_len);
        break;
    case WOOLLY_DONE:
    case WOOLLY_ERROR:
    case WOOLLY_CANCELLED:
        s->ends++;
        s->end = *e;
        snprintf(s->code, sizeof s->code, "%s", e->code);
        snprintf(s->message, sizeof s->message, "%s", e->message);
    }
}

/* Until nothing is live, and then a little longer: a second end would be noticed. */
static void finish(struct woolly *w)
{
    struct woolly_event e;
    enum woolly_status s;
    while ((s = woolly_next(w, 10000, &e)) == WOOLLY_OK)
        note(&e);
    assert_int_equal(s, WOOLLY_IDLE);
    usleep(50000);
    assert_int_equal(woolly_next(w, 0, &e), WOOLLY_IDLE);
    assert_int_equal(woolly_live(w), 0);
}

static int start(void **state)
{
    static struct fake f;
    fake_start(&f, "tcp://127.0.0.1:*", EPOCH);
    *state = &f;
    return 0;
}

static int stop(void **state)
{
    fake_stop(*state);
    return 0;
}

static void test_streamed_text_comes_in_order_and_ends_once(void **state)
{
    struct woolly *w = connect_to(*state);
    struct seen seen;
    uint64_t id = submit(w, "tiny", 3, &seen);
    assert_int_equal(woolly_live(w), 1);
    finish(w);
    assert_string_equal(seen.text, "once again again");
    assert_int_equal(seen.accepted, 1);
    assert_int_equal(seen.tokens, 3);
    assert_int_equal(seen.ends, 1);
    assert_int_equal(seen.end.kind, WOOLLY_DONE);
    assert_int_equal(seen.end.request, id);
    assert_int_equal(seen.end.completion_tokens, 3);
    assert_true(seen.end.timing.tok_s == 4);
    woolly_close(w);
}

static void test_many_requests_share_a_connection(void **state)
{
    static struct seen seen[MAX_PROMPTS];
    struct woolly *w = connect_to(*state);
    for (int i = 0; i < MAX_PROMPTS; i++)
        submit(w, i % 7 ? "tiny" : "refused", (uint32_t)(i % 2 + 1), &seen[i]);
    finish(w);
    for (int i = 0; i < MAX_PROMPTS; i++) {
        assert_int_equal(seen[i].ends, 1);
        assert_int_equal(seen[i].end.kind, i % 7 ? WOOLLY_DONE : WOOLLY_ERROR);
        assert_int_equal(seen[i].tokens, i % 7 ? i % 2 + 1 : 0);
    }
    woolly_close(w);
}

static void await(struct woolly *w, enum woolly_event_kind kind, struct woolly_event *e)
{
    do
        assert_int_equal(woolly_next(w, 5000, e), WOOLLY_OK);
    while (e->kind == WOOLLY_ACCEPTED && kind != WOOLLY_ACCEPTED);
    assert_int_equal(e->kind, kind);
}

static void test_choices_are_told_apart(void **state)
{
    struct woolly *w = connect_to(*state);
    struct woolly_event e;
    struct seen seen;
    submit(w, "choices", 0, &seen);
    await(w, WOOLLY_TOKENS, &e);
    assert_int_equal(e.choice, 0);
    assert_string_equal(e.finish_reason, "");
    await(w, WOOLLY_TOKENS, &e);
    assert_int_equal(e.choice, 1);
    assert_string_equal(e.finish_reason, "length");
    await(w, WOOLLY_TOKENS, &e); /* each choice counts its own tokens */
    await(w, WOOLLY_DONE, &e);
    assert_int_equal(e.n_choices, 2);
    assert_string_equal(e.choices[0].text, "ab");
    assert_string_equal(e.choices[1].finish_reason, "length");
    assert_int_equal(e.choices[0].n_ids, 2);
    assert_true(e.choices[1].logprob_sum == -2 && e.choices[1].index == 1);
    assert_int_equal(e.cached_tokens, 64);
    assert_string_equal(e.cache_miss, "short");
    woolly_close(w);
}

static void test_an_embedding_is_an_array_of_numbers(void **state)
{
    struct woolly *w = connect_to(*state);
    struct woolly_embed_request r;
    struct woolly_error err;
    struct woolly_event e;
    uint64_t id;
    woolly_embed_request_init(&r, "tiny", "Once");
    assert_int_equal(woolly_embed(w, &r, &id, &err), WOOLLY_OK);
    await(w, WOOLLY_DONE, &e);
    assert_int_equal(e.request, id);
    assert_int_equal(e.n_embedding, 2);
    assert_true(e.embedding[0] == 1 && e.embedding[1] == -2);
    r.normalize = false;
    assert_int_equal(woolly_embed(w, &r, &id, &err), WOOLLY_OK);
    await(w, WOOLLY_DONE, &e);
    assert_true(e.embedding[0] == 0);
    r.pooling = "first";
    assert_int_equal(woolly_embed(w, &r, &id, &err), WOOLLY_INVALID);
    woolly_close(w);
}

static void test_cancel_ends_a_request_as_cancelled(void **state)
{
    struct woolly *w = connect_to(*state);
    struct woolly_event e;
    struct seen seen;
    uint64_t id = submit(w, "endless", 1, &seen);
    assert_int_equal(woolly_next(w, 5000, &e), WOOLLY_OK);
    assert_int_equal(e.kind, WOOLLY_ACCEPTED);
    assert_int_equal(e.job, 1000 + id);
    assert_int_equal(woolly_next(w, 50, &e), WOOLLY_TIMEOUT);
    assert_int_equal(woolly_cancel(w, id, NULL), WOOLLY_OK);
    finish(w);
    assert_int_equal(seen.end.kind, WOOLLY_CANCELLED);
    assert_int_equal(seen.end.completion_tokens, 9);
    assert_int_equal(woolly_cancel(w, id, NULL), WOOLLY_INVALID);
    woolly_close(w);
}

static void test_close_cancels_what_is_live(void **state)
{
    struct fake *f = *state;
    struct woolly *w = connect_to(f);
    struct seen seen[3];
    for (int i = 0; i < 3; i++)
        submit(w, "endless", 1, &seen[i]);
    int before = f->cancels;
    woolly_close(w);
    for (int64_t end = clock_ms() + 5000; f->cancels < before + 3 && clock_ms() < end;)
        usleep(1000);
    assert_int_equal(f->cancels, before + 3);
}

static void test_refusal_carries_code_and_retry_time(void **state)
{
    struct woolly *w = connect_to(*state);
    struct seen seen;
    submit(w, "refused", 1, &seen);
    finish(w);
    assert_int_equal(seen.end.kind, WOOLLY_ERROR);
    assert_string_equal(seen.code, "overloaded");
    assert_string_equal(seen.message, "because");
    assert_true(seen.end.is_retryable);
    assert_int_equal(seen.end.retry_ms, 250);
    woolly_close(w);
}

static void test_garbage_about_nobody_is_ignored(void **state)
{
    struct woolly *w = connect_to(*state);
    struct seen seen;
    submit(w, "garbage", 2, &seen);
    finish(w);
    assert_int_equal(seen.accepted, 1);
    assert_int_equal(seen.end.kind, WOOLLY_DONE);
    assert_string_equal(seen.text, "once again");
    woolly_close(w);
}

static void test_broken_message_about_a_request_ends_it(void **state)
{
    struct fake *f = *state;
    struct woolly *w = connect_to(f);
    struct seen seen;
    int before = f->cancels;
    submit(w, "broken", 2, &seen);
    finish(w);
    assert_int_equal(seen.end.kind, WOOLLY_ERROR);
    assert_string_equal(seen.code, "bad_message");
    assert_non_null(strstr(seen.message, "seq"));
    assert_int_equal(f->cancels, before + 1);
    woolly_close(w);
}

static void test_missing_token_ends_the_request_instead_of_a_wrong_text(void **state)
{
    struct woolly *w = connect_to(*state);
    struct seen seen;
    submit(w, "gap", 4, &seen);
    finish(w);
    assert_int_equal(seen.end.kind, WOOLLY_ERROR);
    assert_string_equal(seen.text, "once");
    woolly_close(w);
}

static void test_silent_server_ends_all_requests_as_unreachable(void **state)
{
    struct woolly *w = connect_to(*state);
    struct seen seen[3], after;
    int64_t start_ms = clock_ms();
    for (int i = 0; i < 3; i++)
        submit(w, "silent", 1, &seen[i]);
    finish(w);
    int64_t span_ms = clock_ms() - start_ms;
    assert_in_range(span_ms, PEER_TIMEOUT_MS, PEER_TIMEOUT_MS + 3000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(seen[i].ends, 1);
        assert_string_equal(seen[i].code, "unreachable");
        assert_true(seen[i].end.is_retryable);
    }
    submit(w, "tiny", 1, &after); /* the connection is none the worse */
    finish(w);
    assert_int_equal(after.end.kind, WOOLLY_DONE);
    woolly_close(w);
}

static void test_dead_server_is_noticed_at_once_and_its_successor_found(void **state)
{
    (void)state;
    struct fake f;
    struct seen seen, after;
    struct woolly_request r;
    struct woolly_error err;
    uint64_t id;
    fake_start(&f, "tcp://127.0.0.1:*", 1);
    char endpoint[sizeof f.endpoint];
    snprintf(endpoint, sizeof endpoint, "%s", f.endpoint);
    struct woolly *w = connect_to(&f);
    submit(w, "endless", 1, &seen);
    while (!f.generates)
        usleep(1000);
    int64_t start_ms = clock_ms();
    fake_stop(&f);
    finish(w);
    assert_true(clock_ms() - start_ms < 3000);
    assert_int_equal(seen.accepted, 1); /* what had come before comes first */
    assert_string_equal(seen.code, "unreachable");

    woolly_request_init(&r, "tiny", "x");
    assert_int_equal(woolly_submit(w, &r, &id, &err), WOOLLY_UNREACHABLE);
    fake_start(&f, endpoint, 2);
    while (woolly_submit(w, &r, &id, &err) == WOOLLY_UNREACHABLE)
        usleep(10000);
    woolly_close(w);

    w = connect_to(&f);
    submit(w, "tiny", 1, &after);
    finish(w);
    assert_int_equal(after.end.kind, WOOLLY_DONE);
    woolly_close(w);
    fake_stop(&f);
}

static void test_nobody_there_is_told_within_the_time(void **state)
{
    (void)state;
    struct woolly *w;
    struct woolly_error err;
    assert_int_equal(woolly_connect(&w, "ipc:///tmp/woolly-there-is-no-such-socket", &err),
                     WOOLLY_UNREACHABLE);
    assert_null(w);
    assert_non_null(strstr(err.text, "no-such-socket"));
    assert_int_equal(woolly_connect(&w, "nonsense", &err), WOOLLY_INVALID);
    assert_int_equal(woolly_connect_with_keys(&w, "tcp://127.0.0.1:9", "/none", NULL, &err), WOOLLY_INVALID);
    assert_non_null(strstr(err.text, "--server-key"));
    assert_int_equal(
        woolly_connect_with_keys(&w, "ipc:///tmp/woolly-there-is-no-such-socket", "/none", NULL, &err),
        WOOLLY_UNREACHABLE); /* keys are for networks */
}

static void test_questions_are_answered_while_events_wait(void **state)
{
    struct woolly *w = connect_to(*state);
    struct woolly_models models;
    struct woolly_stats stats;
    struct woolly_health health;
    struct woolly_error err;
    struct seen seen;
    submit(w, "tiny", 3, &seen);
    assert_int_equal(woolly_get_models(w, 5000, &models, &err), WOOLLY_OK);
    assert_int_equal(models.n, 1);
    assert_string_equal(models.models[0].name, "tiny");
    assert_string_equal(models.models[0].path, "");
    assert_int_equal(models.models[0].slots, 3);
    assert_int_equal(woolly_get_stats(w, 5000, &stats, &err), WOOLLY_OK);
    assert_int_equal(stats.accepted, 8);
    assert_int_equal(stats.workers[0].pid, 42);
    assert_int_equal(woolly_get_health(w, 5000, &health, &err), WOOLLY_REFUSED);
    assert_string_equal(err.text, "shutting_down: because");
    finish(w);
    assert_string_equal(seen.text, "once again again");
    assert_int_equal(seen.ends, 1);
    woolly_close(w);
}

static void test_descriptor_is_readable_exactly_while_there_is_something(void **state)
{
    struct woolly *w = connect_to(*state);
    struct woolly_event e;
    struct seen seen;
    struct pollfd p = { .fd = woolly_fd(w), .events = POLLIN };
    assert_true(p.fd >= 0);
    for (int round = 0; round < 50; round++) {
        submit(w, "tiny", 4, &seen);
        usleep(round * 100);
        while (woolly_live(w)) {
            assert_int_equal(poll(&p, 1, 5000), 1);
            if (woolly_next(w, 0, &e) == WOOLLY_OK)
                note(&e);
        }
        assert_int_equal(seen.end.kind, WOOLLY_DONE);
    }
    submit(w, "endless", 4, &seen);
    assert_int_equal(woolly_next(w, 5000, &e), WOOLLY_OK);
    while (woolly_next(w, 100, &e) == WOOLLY_OK)
        ;
    assert_int_equal(poll(&p, 1, 50), 0);
    woolly_close(w);
}

static void test_requests_that_break_a_limit_are_not_sent(void **state)
{
    struct woolly *w = connect_to(*state);
    struct woolly_request r;
    struct woolly_error err;
    uint64_t id;
    const int32_t token = 1;
    const char *const stops[] = { "a", "" };

    woolly_request_init(&r, "tiny", NULL);
    assert_int_equal(woolly_submit(w, &r, &id, &err), WOOLLY_INVALID);
    r.prompt = "\xff";
    assert_int_equal(woolly_submit(w, &r, &id, &err), WOOLLY_INVALID);
    r.prompt = "both";
    r.tokens = &token;
    r.n_tokens = 1;
    assert_int_equal(woolly_submit(w, &r, &id, &err), WOOLLY_INVALID);
    r.n_tokens = 0;
    r.stop = stops;
    r.n_stop = 2;
    assert_int_equal(woolly_submit(w, &r, &id, &err), WOOLLY_INVALID);
    assert_non_null(strstr(err.text, "stop"));
    r.n_stop = 1;
    r.model = "";
    assert_int_equal(woolly_submit(w, &r, &id, NULL), WOOLLY_INVALID);
    assert_int_equal(woolly_live(w), 0);
    woolly_close(w);
    woolly_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streamed_text_comes_in_order_and_ends_once),
        cmocka_unit_test(test_many_requests_share_a_connection),
        cmocka_unit_test(test_choices_are_told_apart),
        cmocka_unit_test(test_an_embedding_is_an_array_of_numbers),
        cmocka_unit_test(test_cancel_ends_a_request_as_cancelled),
        cmocka_unit_test(test_close_cancels_what_is_live),
        cmocka_unit_test(test_refusal_carries_code_and_retry_time),
        cmocka_unit_test(test_garbage_about_nobody_is_ignored),
        cmocka_unit_test(test_broken_message_about_a_request_ends_it),
        cmocka_unit_test(test_missing_token_ends_the_request_instead_of_a_wrong_text),
        cmocka_unit_test(test_silent_server_ends_all_requests_as_unreachable),
        cmocka_unit_test(test_dead_server_is_noticed_at_once_and_its_successor_found),
        cmocka_unit_test(test_nobody_there_is_told_within_the_time),
        cmocka_unit_test(test_questions_are_answered_while_events_wait),
        cmocka_unit_test(test_descriptor_is_readable_exactly_while_there_is_something),
        cmocka_unit_test(test_requests_that_break_a_limit_are_not_sent),
    };
    return cmocka_run_group_tests(tests, start, stop);
}

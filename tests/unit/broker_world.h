/* The world around a broker core in tests: peers are small numbers, time is a variable, and everything the
 * core sends is decoded and kept. */
#ifndef WOOLLY_TESTS_BROKER_WORLD_H
#define WOOLLY_TESTS_BROKER_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <bsd/string.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "common/xalloc.h"

enum { WORLD_PEERS = 16, WORLD_QUEUE = 4, WORLD_STALL_MS = 20000, WORLD_EPOCH = 77, WORLD_SUPERVISOR = 4711 };

/* What a worker is told of a choice that another one began. */
struct sent_resume {
    int32_t ids[32];
    uint32_t n_ids;
    uint64_t text_bytes;
    double logprob_sum;
    bool has_ended;
};

struct sent {
    enum message_link link;
    int to;
    enum message_kind kind;
    uint64_t id;  /* the client's number; for workers the job */
    uint64_t job; /* of accepted and submit */
    uint64_t seed, seq, completion_tokens, retry_ms;
    uint64_t cached_tokens;
    uint32_t n_ids, position;
    uint32_t choice;     /* of tokens */
    uint32_t n, best_of; /* of submit */
    uint32_t n_choices;  /* of done; texts and ids of the first ones follow */
    char choice_text[4][16];
    uint64_t choice_tokens[4];
    uint32_t n_prompt_logprobs;
    size_t embedding_bytes;
    bool has_text, is_end; /* of tokens: with a finish reason */
    char code[32];         /* of errors; of done the finish reason; of health the status */
    char text[64];
    bool is_retryable;
    int32_t ids[4];                  /* of tokens, the first ones */
    struct sent_resume resumed[4];   /* of submit */
    uint32_t n_resumed, prompt_told; /* the same */
};

struct world {
    struct broker broker;
    struct decoder *decoder;
    int64_t now_ms;
    struct sent *sent;
    size_t n_sent, cap;
    bool are_workers_ours;
    int killed;                                                         /* the last process that was */
    enum status client_status[WORLD_PEERS], worker_status[WORLD_PEERS]; /* what sending to them gives */
};

static inline void world_copy(char *out, size_t size, struct slice s)
{
    size_t n = s.len < size - 1 ? s.len : size - 1;
    memcpy(out, s.data ? s.data : "", n);
    out[n] = 0;
}

static inline void world_note_choices(struct sent *s, struct struct_array choices)
{
    const struct choice_row *rows = choices.items;
    s->n_choices = choices.n;
    for (uint32_t i = 0; i < choices.n && i < 4; i++) {
        assert_int_equal(rows[i].index, i);
        world_copy(s->choice_text[i], sizeof s->choice_text[i], rows[i].text);
        s->choice_tokens[i] = rows[i].completion_tokens;
    }
}

static inline void world_note_resume(struct sent *s, const struct generate *request)
{
    const struct resumed_choice *choices = request->resume.items;
    s->prompt_told = request->prompt_told;
    s->n_resumed = request->resume.n;
    for (uint32_t i = 0; i < request->resume.n && i < 4; i++) {
        struct sent_resume *r = &s->resumed[i];
        r->n_ids = (uint32_t)(choices[i].ids.len / sizeof *r->ids);
        assert_true(choices[i].ids.len <= sizeof r->ids);
        if (r->n_ids)
            memcpy(r->ids, choices[i].ids.data, choices[i].ids.len);
        r->text_bytes = choices[i].text_bytes;
        r->logprob_sum = choices[i].logprob_sum;
        r->has_ended = choices[i].finish_reason.data != NULL;
    }
}

static inline void world_note(struct sent *s, const struct message *m)
{
    s->kind = m->kind;
    switch (m->kind) {
    case MSG_ACCEPTED:
        s->job = m->accepted.job;
        s->seed = m->accepted.seed;
        s->position = m->accepted.queue_position;
        break;
    case MSG_TOKENS:
        s->seq = m->tokens.seq;
        s->n_ids = m->tokens.ids.n;
        s->choice = m->tokens.choice;
        s->is_end = m->tokens.finish_reason.data != NULL;
        s->n_prompt_logprobs = m->tokens.prompt_logprobs.n;
        for (uint32_t i = 0; i < s->n_ids && i < 4; i++)
            s->ids[i] = m->tokens.ids.ids[i];
        world_copy(s->text, sizeof s->text, m->tokens.text);
        break;
    case MSG_DONE:
        world_copy(s->code, sizeof s->code, m->done.finish_reason);
        world_copy(s->text, sizeof s->text, m->done.text);
        s->n_ids = m->done.ids.n;
        s->completion_tokens = m->done.completion_tokens;
        s->cached_tokens = m->done.cached_tokens;
        s->has_text = m->done.text.data != NULL;
        s->n_prompt_logprobs = m->done.prompt_logprobs.n;
        s->embedding_bytes = m->done.embedding.len;
        world_note_choices(s, m->done.choices);
        break;
    case MSG_CANCELLED:
        s->completion_tokens = m->cancelled.completion_tokens;
        break;
    case MSG_ERROR:
        world_copy(s->code, sizeof s->code, m->error.code);
        s->is_retryable = m->error.is_retryable;
        s->retry_ms = m->error.retry_ms;
        break;
    case MSG_HEALTH_REPLY:
        world_copy(s->code, sizeof s->code, m->health.status);
        break;
    case MSG_SUBMIT:
        s->id = s->job = m->submit.job;
        s->seed = m->submit.request.seed;
        s->n = m->submit.request.n;
        s->best_of = m->submit.request.best_of;
        world_copy(s->text, sizeof s->text, m->submit.request.pooling);
        world_note_resume(s, &m->submit.request);
        break;
    case MSG_DROP:
        s->id = m->drop.job;
        break;
    default:
        break;
    }
}

static inline enum status world_send(void *context, enum message_link link, const struct peer *to,
                                     const void *bytes, size_t len)
{
    struct world *w = context;
    struct message m;
    struct error err;
    int peer = to->identity[0];
    enum status s = link == BROKER_TO_CLIENT ? w->client_status[peer] : w->worker_status[peer];
    if (s != OK)
        return s;
    if (message_decode(w->decoder, link, bytes, len, &m, &err) != OK)
        fail_msg("the broker sent a bad message: %s", err.text);
    if (w->n_sent == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 64;
        w->sent = xrealloc(w->sent, w->cap * sizeof *w->sent);
    }
    struct sent *record = &w->sent[w->n_sent++];
    *record = (struct sent){ .link = link, .to = peer };
    if (link == BROKER_TO_CLIENT)
        record->id = m.empty.id;
    world_note(record, &m);
    return OK;
}

/* The descriptor of a process of ours is its number, negative, so that nobody closes it. */
static inline int world_watch(void *context, pid_t pid, bool *is_ours)
{
    const struct world *w = context;
    *is_ours = w->are_workers_ours;
    return -(int)pid;
}

static inline void world_kill(void *context, int watch_fd)
{
    struct world *w = context;
    w->killed = -watch_fd;
}

/* One model "m" with one wanted worker. */
static inline struct world *world_create(void)
{
    struct world *w = xcalloc(1, sizeof *w);
    struct port port = { .context = w, .send = world_send, .watch = world_watch, .kill = world_kill };
    w->decoder = decoder_create();
    w->now_ms = 1000;
    broker_init(&w->broker, &port, WORLD_EPOCH, WORLD_SUPERVISOR, WORLD_QUEUE, WORLD_STALL_MS, w->now_ms);
    assert_non_null(model_add(&w->broker, slice_of("m"), "/m.gguf", 1));
    return w;
}

static inline void world_destroy(struct world *w)
{
    broker_fini(&w->broker);
    decoder_destroy(w->decoder);
    free(w->sent);
    free(w);
}

static inline struct peer world_peer(int number)
{
    return (struct peer){ .identity = { (unsigned char)number }, .identity_len = 1 };
}

/* ---- what peers do ---- */

static inline void world_client_says(struct world *w, int from, const struct message *m)
{
    struct peer peer = world_peer(from);
    w->broker.turn_us = w->now_ms * 1000;
    broker_on_client(&w->broker, &peer, m, w->now_ms);
}

static inline void world_worker_says(struct world *w, int from, const struct message *m)
{
    struct peer peer = world_peer(from);
    w->broker.turn_us = w->now_ms * 1000;
    broker_on_worker(&w->broker, &peer, m, w->now_ms);
}

static inline struct message world_generate(uint64_t id)
{
    return (struct message){ .kind = MSG_GENERATE,
                             .generate = { .id = id,
                                           .request = { .model = slice_of("m"),
                                                        .prompt = slice_of("Once"),
                                                        .max_tokens = 100,
                                                        .has_max_tokens = true,
                                                        .n = 1,
                                                        .top_p = 1,
                                                        .stream = true } } };
}

static inline void generate(struct world *w, int from, uint64_t id)
{
    struct message m = world_generate(id);
    world_client_says(w, from, &m);
}

static inline void ask(struct world *w, int from, enum message_kind kind, uint64_t id)
{
    world_client_says(w, from, &(struct message){ .kind = kind, .request = { .id = id } });
}

static inline void register_as(struct world *w, int from, const char *model, uint32_t index, uint32_t slots)
{
    world_worker_says(w, from,
                      &(struct message){ .kind = MSG_REGISTER,
                                         .registration = { .model = slice_of(model),
                                                           .path = slice_of("/m.gguf"),
                                                           .index = index,
                                                           .pid = 100 + (uint64_t)from,
                                                           .slots = slots } });
}

static inline void say_items(struct world *w, int from, const struct step_item *items, uint32_t n)
{
    world_worker_says(
        w, from,
        &(struct message){ .kind = MSG_STEP, .step = { .epoch = WORLD_EPOCH, .items = { items, n } } });
}

/* Tokens for a job, "a" each; with a reason its last ones. */
static inline void say_tokens(struct world *w, int from, uint64_t job, uint32_t n, const char *finish_reason)
{
    static const int32_t ids[] = { 97, 97, 97, 97 };
    assert_in_range(n, 0, 4);
    struct step_item item = { .job = job, .prompt_tokens = 3, .ids = { ids, n }, .text = { "aaaa", n } };
    if (finish_reason)
        item.finish_reason = slice_of(finish_reason);
    say_items(w, from, &item, 1);
}

static inline void beat(struct world *w, int from, uint64_t steps, uint32_t running, uint64_t tokens)
{
    world_worker_says(
        w, from,
        &(struct message){
            .kind = MSG_WORKER_BEAT,
            .beat = { .epoch = WORLD_EPOCH, .steps = steps, .running = running, .tokens = tokens } });
}

/* Time passes, with the upkeep that the core asked for. */
static inline void pass(struct world *w, int64_t span_ms)
{
    int64_t end_ms = w->now_ms + span_ms;
    while (w->broker.wake_ms <= end_ms) {
        if (w->broker.wake_ms > w->now_ms)
            w->now_ms = w->broker.wake_ms;
        w->broker.turn_us = w->now_ms * 1000;
        broker_upkeep(&w->broker, w->now_ms);
        assert_true(w->broker.wake_ms > w->now_ms); /* or the loop would spin */
    }
    w->now_ms = end_ms;
}

/* ---- what it sent ---- */

static inline void forget_sent(struct world *w)
{
    w->n_sent = 0;
}

static inline int count_sent(const struct world *w, enum message_kind kind, int to)
{
    int n = 0;
    for (size_t i = 0; i < w->n_sent; i++)
        n += w->sent[i].kind == kind && w->sent[i].to == to;
    return n;
}

/* The last message of that kind to that peer; the test fails when there is none. */
static inline const struct sent *last_sent(const struct world *w, enum message_kind kind, int to)
{
    for (size_t i = w->n_sent; i-- > 0;)
        if (w->sent[i].kind == kind && w->sent[i].to == to)
            return &w->sent[i];
    fail_msg("no %s was sent to %d", message_kind_name(kind), to);
    abort();
}

#endif

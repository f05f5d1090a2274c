/* Messages from clients. Each gets an answer, except a cancel of a request that is not live: that one has its
 * ending already, and a second one would break the promise. */
#include <assert.h>
#include <bsd/stdlib.h>

#include "broker/broker.h"
#include "broker/ending.h"
#include "common/clock.h"
#include "common/log.h"

/* 53 bits, so that every language can say the number. */
static uint64_t draw_seed(void)
{
    uint64_t seed;
    arc4random_buf(&seed, sizeof seed);
    return seed & MAX_WIRE_NUMBER;
}

static void refuse(struct broker *b, const struct peer *to, uint64_t id, const char *code, const char *why,
                   uint64_t retry_ms, int64_t now_ms)
{
    struct message m = { .kind = MSG_ERROR,
                         .error = { .id = id,
                                    .epoch = b->epoch,
                                    .code = slice_of(code),
                                    .message = slice_of(why),
                                    .is_retryable = error_is_retryable(slice_of(code)),
                                    .retry_ms = retry_ms } };
    b->counts.refused++;
    log_debug("refused", "id=%llu code=%s", (unsigned long long)id, code);
    peer_send(b, to, &m, now_ms);
}

void broker_on_bad_client(struct broker *b, const struct peer *from, uint64_t id, const char *why,
                          int64_t now_ms)
{
    refuse(b, from, id, ERROR_BAD_MESSAGE, why, 0, now_ms);
    broker_settle(b, now_ms);
}

/* NULL if the request can be taken, else the code, with the reason and when to try again. */
static const char *find_fault(const struct broker *b, const struct client *client,
                              const struct msg_generate *g, bool is_stream, const struct model *model,
                              char *why, size_t size, uint64_t *retry_ms)
{
    const struct generate *r = &g->request;
    *retry_ms = 0;
    if (b->is_stopping) {
        snprintf(why, size, "the server stops");
        return ERROR_SHUTTING_DOWN;
    }
    if (client && client_job(client, g->id)) {
        snprintf(why, size, "id: another request with this number is not done yet");
        return ERROR_DUPLICATE_ID;
    }
    if (!model) {
        snprintf(why, size, "model: there is no \"%.*s\" here", (int)r->model.len, r->model.data);
        return ERROR_UNKNOWN_MODEL;
    }
    if ((r->prompt.data != NULL) == (r->tokens.n > 0)) {
        snprintf(why, size, "request: give either prompt or tokens");
        return ERROR_BAD_REQUEST;
    }
    if (r->best_of && r->best_of < r->n) {
        snprintf(why, size, "best_of: %u candidates are fewer than n, %u", r->best_of, r->n);
        return ERROR_BAD_REQUEST;
    }
    if (r->best_of && is_stream) {
        snprintf(why, size, "best_of: which candidates are best is known at the end, so it cannot stream");
        return ERROR_BAD_REQUEST;
    }
    if (r->pooling.data && !slice_is(r->pooling, "mean") && !slice_is(r->pooling, "last")) {
        snprintf(why, size, "pooling: neither mean nor last");
        return ERROR_BAD_REQUEST;
    }
    if (r->session.data && !session_name_is_valid(r->session)) {
        snprintf(why, size, "session: a name is 1 to %d letters, digits, '_' or '-'", MAX_SESSION_NAME);
        return ERROR_BAD_REQUEST;
    }
    *retry_ms = model_retry_ms(model);
    if (model->queue.count >= b->queue_limit) {
        snprintf(why, size, "%zu requests wait for this model already", model->queue.count);
        return ERROR_OVERLOADED;
    }
    if (b->jobs.held_bytes >= MAX_HELD_BYTES) {
        snprintf(why, size, "the requests that are not done yet take all the memory set aside for them");
        return ERROR_OVERLOADED;
    }
    if (client && client->jobs.count >= CLIENT_LIVE_JOBS) {
        snprintf(why, size, "this client has %zu requests that are not done yet", client->jobs.count);
        return ERROR_OVERLOADED;
    }
    if (client && client_pending_bytes(client) > CLIENT_BEHIND_BYTES) {
        snprintf(why, size, "this client does not take the messages that it has");
        return ERROR_OVERLOADED;
    }
    return NULL;
}

static void write_submit(struct broker *b, struct job *job, const struct generate *request)
{
    struct message m = { .kind = MSG_SUBMIT,
                         .submit = { .epoch = b->epoch, .job = job->number, .request = *request } };
    m.submit.request.has_seed = true;
    m.submit.request.seed = job->seed;
    message_encode(&job->submit, &m);
}

/* Requests that will be handed out before a new one: none if a worker has room now. */
static uint32_t place_in_queue(const struct model *model)
{
    if (list_is_empty(&model->queue)) {
        list_each(w, &model->workers, struct worker, of_model)
        {
            if (worker_has_room(w))
                return 0;
        }
    }
    return (uint32_t)model->queue.count;
}

static void accept_job(struct broker *b, struct client *client, struct model *model,
                       const struct msg_generate *g, bool is_stream, int64_t now_ms)
{
    struct job *job = job_create(&b->jobs);
    job->client = client;
    job->client_id = g->id;
    job->model = model;
    answer_begin(&job->answer, &g->request, !is_stream);
    job->seed = g->request.has_seed ? g->request.seed : draw_seed();
    job->accepted_us = b->turn_us;
    if (g->request.deadline_ms) {
        job->deadline_ms = deadline_after(now_ms, (int64_t)g->request.deadline_ms);
        broker_wake_at(b, job->deadline_ms);
    }
    write_submit(b, job, &g->request);

    uint32_t position = place_in_queue(model);
    job_move(&b->jobs, job, JOB_QUEUED);
    b->counts.accepted++;
    log_debug("job_accepted", "req=%llu model=%s position=%u max_tokens=%u", (unsigned long long)job->number,
              model->name, position, g->request.max_tokens);
    if (client->peer.is_req)
        return;
    client_send(b, client,
                &(struct message){ .kind = MSG_ACCEPTED,
                                   .accepted = { .id = g->id,
                                                 .epoch = b->epoch,
                                                 .job = job->number,
                                                 .seed = job->seed,
                                                 .queue_position = position } },
                MUST_FIT, now_ms);
}

static void on_generate(struct broker *b, const struct peer *from, const struct msg_generate *g,
                        int64_t now_ms)
{
    struct client *client = client_find(b, from);
    struct model *model = model_find(b, g->request.model);
    bool is_stream = g->request.stream && !from->is_req;
    char why[MAX_MODEL_NAME + 100];
    uint64_t retry_ms;
    const char *code = find_fault(b, client, g, is_stream, model, why, sizeof why, &retry_ms);
    if (code) {
        refuse(b, from, g->id, code, why, retry_ms, now_ms);
        return;
    }
    if (!client)
        client = client_add(b, from, now_ms);
    accept_job(b, client, model, g, is_stream, now_ms);
}

/* The worker makes one as if it were to answer, but stops before the first token. */
static void on_embed(struct broker *b, const struct peer *from, const struct msg_generate *embed,
                     int64_t now_ms)
{
    const struct generate *r = &embed->request;
    struct msg_generate g = { .id = embed->id,
                              .epoch = embed->epoch,
                              .request = { .model = r->model,
                                           .prompt = r->prompt,
                                           .tokens = r->tokens,
                                           .n = 1,
                                           .top_p = 1,
                                           .cache_salt = r->cache_salt,
                                           .pooling = r->pooling.data ? r->pooling : slice_of("mean"),
                                           .normalize = r->normalize,
                                           .deadline_ms = r->deadline_ms } };
    on_generate(b, from, &g, now_ms);
}

static void on_cancel(struct broker *b, const struct peer *from, const struct msg_request *r, int64_t now_ms)
{
    struct client *client = client_find(b, from);
    struct job *job = client ? client_job(client, r->id) : NULL;
    if (!job) {
        if (from->is_req) /* which waits for a reply to everything */
            refuse(b, from, r->id, ERROR_BAD_REQUEST, "id: this connection has no live request", 0, now_ms);
        return;
    }
    if (job->state == JOB_QUEUED) {
        job_end_cancelled(b, job, now_ms);
    } else if (job->state == JOB_RUNNING) {
        job_move(&b->jobs, job, JOB_CANCELLING);
        worker_send(b, job->worker,
                    &(struct message){ .kind = MSG_DROP, .drop = { .epoch = b->epoch, .job = job->number } },
                    now_ms);
    }
}

/* Every message of a client begins with id and epoch. */
static_assert(offsetof(struct msg_generate, id) == offsetof(struct msg_request, id) &&
                  offsetof(struct msg_generate, epoch) == offsetof(struct msg_request, epoch),
              "id and epoch are read as those of msg_request");

void broker_on_client(struct broker *b, const struct peer *from, const struct message *m, int64_t now_ms)
{
    uint64_t id = m->request.id;
    if (m->request.epoch && m->request.epoch != b->epoch)
        refuse(b, from, id, ERROR_WRONG_EPOCH, "epoch: the server was started again since", 0, now_ms);
    else if (m->kind == MSG_GENERATE)
        on_generate(b, from, &m->generate, now_ms);
    else if (m->kind == MSG_EMBED)
        on_embed(b, from, &m->generate, now_ms);
    else if (m->kind == MSG_CANCEL)
        on_cancel(b, from, &m->request, now_ms);
    else if (m->kind == MSG_PING)
        peer_send(b, from, &(struct message){ .kind = MSG_PONG, .empty = { .id = id, .epoch = b->epoch } },
                  now_ms);
    else
        broker_report(b, from, m, now_ms);
    broker_settle(b, now_ms);
}

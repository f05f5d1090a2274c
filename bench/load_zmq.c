/* Load on a Woolly server: all users share one connection of libwoolly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/load_target.h"
#include "common/clock.h"
#include "common/xalloc.h"
#include "proto/woolly.h"

struct zmq_target {
    struct load_target target;
    const struct load_request *request;
    struct woolly *connection;
    uint64_t running[LOAD_MAX_USERS]; /* the request of each user, or 0 */
    int users[LOAD_MAX_USERS];        /* whose addresses name users in events */
    char why[300];
};

static enum status submit(struct load_target *target, int user, const struct prompts *prompt,
                          struct error *err)
{
    struct zmq_target *t = (struct zmq_target *)target;
    struct woolly_request r;
    struct woolly_error why;
    woolly_request_init(&r, t->request->model, NULL);
    r.tokens = prompt->ids;
    r.n_tokens = (size_t)(prompt->n_shared + prompt->n_own);
    r.max_tokens = (uint32_t)t->request->tokens;
    r.ignore_end = true;
    r.user = &t->users[user];
    if (woolly_submit(t->connection, &r, &t->running[user], &why) == WOOLLY_OK)
        return OK;
    return error_set(err, why.status == WOOLLY_UNREACHABLE ? E_UNREACHABLE : E_IO, "%s", why.text);
}

static void cancel(struct load_target *target, int user)
{
    struct zmq_target *t = (struct zmq_target *)target;
    if (woolly_cancel(t->connection, t->running[user], NULL) != WOOLLY_OK) {
        /* It ended just now, or the server is gone: either way nobody waits for it any more. */
    }
    t->running[user] = 0;
}

/* False when it tells nothing of a request that a user waits for. */
static bool take(struct zmq_target *t, const struct woolly_event *in, struct load_event *e)
{
    int user = *(const int *)in->user;
    *e = (struct load_event){ .user = user, .at_us = clock_us() };
    if (in->request != t->running[user] || in->kind == WOOLLY_ACCEPTED)
        return false;
    switch (in->kind) {
    case WOOLLY_TOKENS:
        e->kind = LOAD_TOKENS;
        e->tokens = (int)in->n_ids;
        return in->n_ids;
    case WOOLLY_DONE:
        e->kind = LOAD_DONE;
        e->tokens = (int)in->completion_tokens;
        break;
    case WOOLLY_ERROR:
        snprintf(t->why, sizeof t->why, "%s: %s", in->code, in->message);
        e->kind = LOAD_ERROR;
        e->why = t->why;
        break;
    default:
        e->kind = LOAD_ERROR;
        e->why = "cancelled";
    }
    t->running[user] = 0;
    return true;
}

static bool next(struct load_target *target, int timeout_ms, struct load_event *e)
{
    struct zmq_target *t = (struct zmq_target *)target;
    struct woolly_event in;
    enum woolly_status s;
    while ((s = woolly_next(t->connection, timeout_ms, &in)) == WOOLLY_OK)
        if (take(t, &in, e))
            return true;
    if (s == WOOLLY_IDLE && timeout_ms > 0) {
        struct timespec pause = { .tv_nsec = timeout_ms * 1000000L };
        nanosleep(&pause, NULL);
    }
    return false;
}

static void close_target(struct load_target *target)
{
    struct zmq_target *t = (struct zmq_target *)target;
    woolly_close(t->connection);
    free(t);
}

static enum status find_model(struct zmq_target *t, struct error *err)
{
    enum { ANSWER_MS = 5000 };
    struct woolly_models models;
    struct woolly_error why;
    if (woolly_get_models(t->connection, ANSWER_MS, &models, &why) != WOOLLY_OK)
        return error_set(err, why.status == WOOLLY_UNREACHABLE ? E_UNREACHABLE : E_IO, "%s", why.text);
    for (size_t i = 0; i < models.n; i++)
        if (!strcmp(models.models[i].name, t->request->model))
            t->target.n_vocab = (int)models.models[i].n_vocab;
    if (!t->target.n_vocab)
        return error_set(err, E_NOTFOUND, "the server has no model %s, or has it not loaded yet",
                         t->request->model);
    return OK;
}

enum status load_open_zmq(struct load_target **out, const struct load_request *q, struct error *err)
{
    static const struct load_target_calls calls = { submit, cancel, next, close_target };
    struct woolly_error why;
    struct zmq_target *t = xcalloc(1, sizeof *t);
    enum status s = OK;

    *out = NULL;
    t->target.calls = &calls;
    t->request = q;
    snprintf(t->target.where, sizeof t->target.where, "%s", q->zmq ? q->zmq : "this user's server");
    for (int i = 0; i < LOAD_MAX_USERS; i++)
        t->users[i] = i;
    if (woolly_connect(&t->connection, q->zmq, &why) != WOOLLY_OK)
        s = error_set(err, why.status == WOOLLY_UNREACHABLE ? E_UNREACHABLE : E_IO, "%s", why.text);
    if (s == OK)
        s = find_model(t, err);
    if (s == OK)
        *out = &t->target;
    else
        close_target(&t->target);
    return s;
}

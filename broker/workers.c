#include "broker/workers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/failover.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/xalloc.h"

bool peer_equal(const struct peer *a, const struct peer *b)
{
    return a->identity_len == b->identity_len && !memcmp(a->identity, b->identity, a->identity_len);
}

static bool is_successor(const struct worker *w, const struct model *model, const struct msg_register *facts)
{
    return w->model == model && w->index == facts->index && strlen(w->host) == facts->host.len &&
           (!facts->host.len || !memcmp(w->host, facts->host.data, facts->host.len));
}

static void mark_predecessors(struct broker *b, const struct model *model, const struct peer *peer,
                              const struct msg_register *facts)
{
    list_each(w, &b->workers, struct worker, of_broker)
    {
        if (peer_equal(&w->peer, peer) || is_successor(w, model, facts))
            worker_mark_lost(b, w, "registered again");
    }
}

struct worker *worker_add(struct broker *b, const struct peer *peer, const struct msg_register *facts,
                          int64_t now_ms)
{
    struct model *model = model_find(b, facts->model);
    if (!model && !(model = model_add(b, facts->model, "", 0)))
        return NULL;
    mark_predecessors(b, model, peer, facts);
    model_take_facts(model, facts);

    struct worker *w = xcalloc(1, sizeof *w);
    w->peer = *peer;
    w->model = model;
    if (facts->host.len)
        memcpy(w->host, facts->host.data, facts->host.len);
    w->index = facts->index;
    w->pid = (pid_t)facts->pid;
    w->watch_fd = peer->is_remote ? -1 : b->port.watch(b->port.context, w->pid, &w->is_ours);
    w->slots = facts->slots;
    w->kv_pages = facts->kv_pages;
    w->heard_ms = w->told_ms = w->beat_ms = w->stepped_ms = now_ms;
    list_append(&b->workers, &w->of_broker);
    list_append(&model->workers, &w->of_model);
    log_info("worker_registered", "worker=%s.%u host=%s pid=%d slots=%u ctx=%u isa=%.*s", model->name,
             w->index, *w->host ? w->host : "-", (int)w->pid, w->slots, facts->n_ctx, (int)facts->isa.len,
             facts->isa.data ? facts->isa.data : "");
    worker_send(b, w, &(struct message){ .kind = MSG_WELCOME, .welcome = { .epoch = b->epoch } }, now_ms);
    broker_wake_at(b, now_ms + BEAT_MS);
    return w;
}

void worker_refuse(struct broker *b, const struct peer *peer, const char *why)
{
    log_warn("worker_refused", "why=\"%s\"", why);
    message_encode(&b->out, &(struct message){ .kind = MSG_REFUSED,
                                               .refused = { .epoch = b->epoch, .message = slice_of(why) } });
    if (b->port.send(b->port.context, BROKER_TO_WORKER, peer, b->out.data, b->out.len) != OK) {
        /* It has gone: then it need not be told. */
    }
}

struct worker *worker_find(const struct broker *b, const struct peer *peer)
{
    list_each(w, &b->workers, struct worker, of_broker)
    {
        if (peer_equal(&w->peer, peer) && !w->lost_why)
            return w;
    }
    return NULL;
}

void worker_mark_lost(struct broker *b, struct worker *w, const char *why)
{
    if (w->lost_why)
        return;
    w->lost_why = why;
    list_append(&b->lost_workers, &w->of_lost);
}

void worker_mark_stuck(struct broker *b, struct worker *w, const char *why)
{
    if (!w->lost_why && w->is_ours)
        b->port.kill(b->port.context, w->watch_fd);
    worker_mark_lost(b, w, why);
}

void worker_take_apart(struct broker *b, struct worker *w, int64_t now_ms)
{
    log_event(b->is_stopping ? LOG_INFO : LOG_WARN, "worker_gone", "worker=%s.%u pid=%d jobs=%zu why=\"%s\"",
              w->model->name, w->index, (int)w->pid, w->jobs.count, w->lost_why);
    list_remove(&w->of_lost);
    list_remove(&w->of_broker);
    list_remove(&w->of_model);
    failover_begin(b, w, now_ms);
    model_note_loss(b, w->model, now_ms);
    if (w->watch_fd >= 0)
        close(w->watch_fd);
    free(w);
}

bool worker_has_room(const struct worker *w)
{
    return !w->lost_why && w->jobs.count < w->slots;
}

bool worker_is_quiet(const struct worker *w, int64_t now_ms)
{
    return now_ms - w->heard_ms > (list_is_empty(&w->jobs) ? 2 * BEAT_MS : WORKER_QUIET_MS);
}

bool worker_send_bytes(struct broker *b, struct worker *w, const struct buffer *bytes, int64_t now_ms)
{
    if (w->lost_why)
        return false;
    enum status s = b->port.send(b->port.context, BROKER_TO_WORKER, &w->peer, bytes->data, bytes->len);
    if (s != OK) {
        /* Its queue holds more messages than it has slots for: if that is full, it stopped reading. */
        if (s == E_OVERLOADED)
            worker_mark_stuck(b, w, "it reads no messages");
        else
            worker_mark_lost(b, w, "it is disconnected");
        return false;
    }
    w->told_ms = now_ms;
    return true;
}

bool worker_send(struct broker *b, struct worker *w, const struct message *m, int64_t now_ms)
{
    message_encode(&b->out, m);
    return worker_send_bytes(b, w, &b->out, now_ms);
}

/* The worker says that it has no work, in order with its step messages. A job that was sent to it long
 * enough ago is then not on its way any more: the connection lost it in between. */
static bool has_forgotten_jobs(const struct worker *w, int64_t now_ms)
{
    list_each(job, &w->jobs, struct job, place)
    {
        if (now_ms - job->sent_ms > PEER_TIMEOUT_MS)
            return true;
    }
    return false;
}

void worker_take_beat(struct broker *b, struct worker *w, const struct msg_worker_beat *beat, int64_t now_ms)
{
    int64_t span_ms = now_ms - w->beat_ms;
    if (span_ms > 0) {
        uint64_t more = beat->tokens > w->beat_tokens ? beat->tokens - w->beat_tokens : 0;
        w->tok_s = 1000.0 * (double)more / (double)span_ms;
        w->beat_ms = now_ms;
        w->beat_tokens = beat->tokens;
    }
    if (beat->steps != w->beat_steps || beat->running == 0)
        w->stepped_ms = now_ms;
    w->beat_steps = beat->steps;
    w->kv_used = beat->kv_used;
    w->kv_cached = beat->kv_cached;
    w->preempted = beat->preempted;
    w->cached_tokens = beat->cached_tokens;
    if (now_ms - w->stepped_ms > b->stall_ms)
        worker_mark_stuck(b, w, "it makes no progress");
    else if (beat->running == 0 && has_forgotten_jobs(w, now_ms))
        worker_mark_lost(b, w, "it does not know its jobs");
}

static int64_t silence_limit_ms(const struct broker *b, const struct worker *w)
{
    return w->is_ours && !list_is_empty(&w->jobs) ? b->stall_ms : PEER_TIMEOUT_MS;
}

void worker_upkeep(struct broker *b, struct worker *w, int64_t now_ms)
{
    if (w->lost_why)
        return;
    int64_t end_ms = w->heard_ms + silence_limit_ms(b, w);
    if (deadline_passed(now_ms, end_ms)) {
        worker_mark_stuck(b, w, "it is silent");
        return;
    }
    if (now_ms - w->told_ms >= BEAT_MS &&
        !worker_send(b, w, &(struct message){ .kind = MSG_BROKER_BEAT, .epoch = { .epoch = b->epoch } },
                     now_ms))
        return;
    broker_wake_at(b, w->told_ms + BEAT_MS);
    broker_wake_at(b, end_ms);
}

#include "broker/clients.h"

#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/ending.h"
#include "common/log.h"
#include "common/xalloc.h"

static uint64_t hash_of(const struct peer *peer)
{
    return table_hash_bytes(peer->identity, peer->identity_len);
}

struct client *client_find(const struct broker *b, const struct peer *peer)
{
    struct table_node *n = table_find(&b->clients_by_peer, hash_of(peer));
    while (n && !peer_equal(&table_entry(n, struct client, by_peer)->peer, peer))
        n = table_next(n);
    return table_entry(n, struct client, by_peer);
}

struct client *client_add(struct broker *b, const struct peer *peer, int64_t now_ms)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->peer = *peer;
    c->sent_ms = now_ms;
    table_put(&b->clients_by_peer, &c->by_peer, hash_of(peer));
    list_append(&b->clients, &c->of_broker);
    broker_wake_at(b, now_ms + BEAT_MS);
    return c;
}

void client_destroy(struct broker *b, struct client *c)
{
    list_remove(&c->of_unsettled);
    list_remove(&c->of_broker);
    table_remove(&b->clients_by_peer, &c->by_peer);
    buffer_fini(&c->pending);
    free(c);
}

struct job *client_job(const struct client *c, uint64_t client_id)
{
    list_each(job, &c->jobs, struct job, of_client)
    {
        if (job->client_id == client_id)
            return job;
    }
    return NULL;
}

size_t client_pending_bytes(const struct client *c)
{
    return c->pending.len - c->pending_at;
}

static void mark_unsettled(struct broker *b, struct client *c)
{
    if (!c->of_unsettled.list)
        list_append(&b->unsettled_clients, &c->of_unsettled);
}

static void mark_gone(struct broker *b, struct client *c)
{
    c->is_gone = true;
    buffer_clear(&c->pending);
    c->pending_at = 0;
    mark_unsettled(b, c);
}

/* True when the client's queue took it, or never will. */
static bool try_send(struct broker *b, struct client *c, const void *bytes, size_t len, int64_t now_ms)
{
    enum status s = b->port.send(b->port.context, BROKER_TO_CLIENT, &c->peer, bytes, len);
    if (s == E_OVERLOADED)
        return false;
    if (s == OK)
        c->sent_ms = now_ms;
    else
        mark_gone(b, c);
    return true;
}

static void keep(struct broker *b, struct client *c, const struct buffer *message, int64_t now_ms)
{
    uint32_t len = (uint32_t)message->len;
    buffer_append(&c->pending, &len, sizeof len);
    buffer_append(&c->pending, message->data, message->len);
    broker_wake_at(b, now_ms + RETRY_MS);
}

bool client_send(struct broker *b, struct client *c, const struct message *m, enum urgency urgency,
                 int64_t now_ms)
{
    if (c->is_gone)
        return true;
    message_encode(&b->out, m);
    size_t waiting = client_pending_bytes(c);
    if (!waiting && try_send(b, c, b->out.data, b->out.len, now_ms))
        return true;
    /* An answer of any legal size is kept if nothing else waits: it could never be delivered otherwise. */
    if (urgency == MAY_BE_REFUSED && waiting && waiting + b->out.len > CLIENT_PENDING_BYTES)
        return false;
    keep(b, c, &b->out, now_ms);
    return true;
}

void peer_send(struct broker *b, const struct peer *to, const struct message *m, int64_t now_ms)
{
    struct client *c = client_find(b, to);
    if (c) {
        client_send(b, c, m, MAY_BE_REFUSED, now_ms);
        return;
    }
    message_encode(&b->out, m);
    enum status s = b->port.send(b->port.context, BROKER_TO_CLIENT, to, b->out.data, b->out.len);
    if (s != OK)
        log_debug("reply_dropped", "type=%s why=%s", message_kind_name(m->kind), status_name(s));
}

void client_note_ending(struct broker *b, struct client *c)
{
    if (list_is_empty(&c->jobs) && !client_pending_bytes(c))
        mark_unsettled(b, c);
}

static void flush(struct broker *b, struct client *c, int64_t now_ms)
{
    uint32_t len;
    while (client_pending_bytes(c)) {
        const char *at = c->pending.data + c->pending_at;
        memcpy(&len, at, sizeof len);
        if (!try_send(b, c, at + sizeof len, len, now_ms))
            break;
        if (!c->is_gone)
            c->pending_at += sizeof len + len;
    }
    buffer_consume(&c->pending, c->pending_at);
    c->pending_at = 0;
    if (!c->pending.len) {
        buffer_fini(&c->pending); /* rare and up to a megabyte: not worth keeping */
        client_note_ending(b, c);
    }
}

void client_upkeep(struct broker *b, struct client *c, int64_t now_ms)
{
    if (c->is_gone)
        return;
    if (client_pending_bytes(c))
        flush(b, c, now_ms);
    if (client_pending_bytes(c)) {
        if (now_ms - c->sent_ms >= CLIENT_STALL_MS)
            mark_gone(b, c);
        broker_wake_at(b, now_ms + RETRY_MS);
        return;
    }
    /* A REQ socket takes one message per request, so it can have no beats. */
    if (c->peer.is_req || c->is_gone)
        return;
    if (now_ms - c->sent_ms >= BEAT_MS && !list_is_empty(&c->jobs))
        client_send(b, c, &(struct message){ .kind = MSG_CLIENT_BEAT, .empty = { .epoch = b->epoch } },
                    MAY_BE_REFUSED, now_ms);
    broker_wake_at(b, (c->sent_ms > now_ms - BEAT_MS ? c->sent_ms : now_ms) + BEAT_MS);
}

void client_settle(struct broker *b, struct client *c, int64_t now_ms)
{
    list_remove(&c->of_unsettled);
    if (c->is_gone) {
        if (!list_is_empty(&c->jobs))
            log_info("client_gone", "jobs=%zu", c->jobs.count);
        list_each(job, &c->jobs, struct job, of_client) job_end_unheard(b, job, now_ms);
    }
    if (list_is_empty(&c->jobs) && !client_pending_bytes(c))
        client_destroy(b, c);
}

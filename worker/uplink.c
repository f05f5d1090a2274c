#include "worker/uplink.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

enum { FIRST_BACKOFF_MS = 1000, LAST_BACKOFF_MS = 32 * 1000, BYE_LINGER_MS = 200 };

enum {
    HANDSHAKE_FAILURES = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                         ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
    WATCHED_EVENTS = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | HANDSHAKE_FAILURES
};

static void close_sockets(struct uplink *u)
{
    if (u->socket)
        zmq_socket_monitor(u->socket, NULL, 0);
    if (u->monitor)
        zmq_close(u->monitor);
    if (u->socket)
        zmq_close(u->socket);
    u->socket = u->monitor = NULL;
}

static enum status open_monitor(struct uplink *u, struct error *err)
{
    char name[40];
    int linger_ms = 0;
    snprintf(name, sizeof name, "inproc://uplink-%u", u->n_sockets);
    if (zmq_socket_monitor(u->socket, name, WATCHED_EVENTS) != 0 ||
        !(u->monitor = zmq_socket(u->context, ZMQ_PAIR)) ||
        zmq_setsockopt(u->monitor, ZMQ_LINGER, &linger_ms, sizeof linger_ms) != 0 ||
        zmq_connect(u->monitor, name) != 0)
        return error_set(err, E_IO, "cannot watch a ZeroMQ socket: %s", zmq_strerror(errno));
    return OK;
}

static enum status open_sockets(struct uplink *u, struct error *err)
{
    enum status s = E_IO;
    u->n_sockets++;
    if (!(u->socket = wire_open(u->context, WIRE_PEER, err)))
        return err->status;
    if ((s = open_monitor(u, err)) != OK || (s = wire_connect(u->socket, u->endpoint, u->keys, err)) != OK)
        goto fail;
    u->state = UPLINK_CONNECTING;
    u->is_refused = false;
    return OK;

fail:
    close_sockets(u);
    return s;
}

enum status uplink_init(struct uplink *u, const char *endpoint, const struct peer_keys *keys,
                        const struct msg_register *self, int64_t now_ms, struct error *err)
{
    *u = (struct uplink){ .endpoint = endpoint, .keys = keys, .self = self, .heard_ms = now_ms };
    u->decoder = decoder_create();
    if (!(u->context = zmq_ctx_new()))
        return error_errno(err, "cannot make a ZeroMQ context");
    return open_sockets(u, err);
}

static void forget_incoming(struct uplink *u)
{
    if (u->has_incoming)
        wire_message_close(&u->incoming);
    u->has_incoming = false;
}

void uplink_fini(struct uplink *u)
{
    int linger_ms = BYE_LINGER_MS;
    forget_incoming(u);
    if (u->socket)
        zmq_setsockopt(u->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    close_sockets(u);
    if (u->context)
        zmq_ctx_term(u->context);
    decoder_destroy(u->decoder);
    buffer_fini(&u->outgoing);
}

void uplink_leave(struct uplink *u, const char *why, int64_t now_ms)
{
    log_warn("broker_lost", "endpoint=\"%s\" epoch=%llu retry_ms=%d why=\"%s\"", u->endpoint,
             (unsigned long long)u->epoch, u->backoff_ms, why);
    close_sockets(u);
    u->state = UPLINK_CLOSED;
    u->is_blocked = false;
    u->retry_at_ms = deadline_after(now_ms, u->backoff_ms);
    u->backoff_ms = u->backoff_ms ? u->backoff_ms * 2 : FIRST_BACKOFF_MS;
    if (u->backoff_ms > LAST_BACKOFF_MS)
        u->backoff_ms = LAST_BACKOFF_MS;
}

static void reopen(struct uplink *u, int64_t now_ms)
{
    struct error err;
    if (open_sockets(u, &err) != OK)
        uplink_leave(u, err.text, now_ms);
}

/* ---- sending ---- */

static void send_outgoing(struct uplink *u, int64_t now_ms)
{
    enum status s = wire_send(u->socket, NULL, 0, false, u->outgoing.data, u->outgoing.len);
    u->is_blocked = s == E_OVERLOADED;
    if (s != OK && s != E_OVERLOADED)
        uplink_leave(u, "cannot send", now_ms);
}

static void send_message(struct uplink *u, const struct message *m, int64_t now_ms)
{
    message_encode(&u->outgoing, m);
    send_outgoing(u, now_ms);
}

bool uplink_can_send(const struct uplink *u)
{
    return u->state == UPLINK_UP && !u->is_blocked;
}

void uplink_send(struct uplink *u, const struct message *m, int64_t now_ms)
{
    assert(uplink_can_send(u));
    send_message(u, m, now_ms);
}

/* ---- the connection ---- */

static void on_connected(struct uplink *u, int64_t now_ms)
{
    struct message m = { .kind = MSG_REGISTER, .registration = *u->self };
    u->state = UPLINK_REGISTERING;
    u->heard_ms = now_ms;
    send_message(u, &m, now_ms);
}

/* An event of the monitor is two frames; its number is the first two bytes. False when there is none. */
static bool next_event(struct uplink *u, uint16_t *number)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    bool ok = zmq_msg_recv(&frame, u->monitor, ZMQ_DONTWAIT) >= (int)sizeof *number;
    if (ok)
        memcpy(number, zmq_msg_data(&frame), sizeof *number);
    while (ok && zmq_msg_more(&frame) && zmq_msg_recv(&frame, u->monitor, ZMQ_DONTWAIT) >= 0)
        ;
    zmq_msg_close(&frame);
    return ok;
}

/* ZeroMQ goes on trying by itself. */
static void on_refused(struct uplink *u)
{
    if (!u->is_refused)
        log_error("broker_refuses", "endpoint=\"%s\" why=\"%s\"", u->endpoint,
                  u->keys ? "it does not know our key, or has another one than --server-key says"
                          : "it wants a key (--key, --server-key), or is no broker");
    u->is_refused = true;
}

static void follow_connection(struct uplink *u, int64_t now_ms)
{
    uint16_t number;
    while (u->monitor && next_event(u, &number)) {
        if (number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED && u->state == UPLINK_CONNECTING)
            on_connected(u, now_ms);
        else if (number & HANDSHAKE_FAILURES && u->state == UPLINK_CONNECTING)
            on_refused(u);
        else if (number == ZMQ_EVENT_DISCONNECTED && u->state != UPLINK_CONNECTING)
            uplink_leave(u, "the connection broke", now_ms); /* what was unread went with it */
    }
}

void uplink_update(struct uplink *u, int64_t now_ms)
{
    if (u->state == UPLINK_CLOSED && deadline_passed(now_ms, u->retry_at_ms))
        reopen(u, now_ms);
    follow_connection(u, now_ms);
    if (u->is_blocked)
        send_outgoing(u, now_ms);
}

static bool is_silent(const struct uplink *u, int64_t now_ms)
{
    return (u->state == UPLINK_REGISTERING || u->state == UPLINK_UP) &&
           deadline_passed(now_ms, deadline_after(u->heard_ms, PEER_TIMEOUT_MS));
}

/* ---- receiving ---- */

static uint64_t epoch_of(const struct message *m)
{
    switch (m->kind) {
    case MSG_WELCOME:
        return m->welcome.epoch;
    case MSG_REFUSED:
        return m->refused.epoch;
    case MSG_SUBMIT:
    case MSG_OPEN:
        return m->submit.epoch;
    case MSG_ADVANCE:
        return m->advance.epoch;
    case MSG_DROP:
        return m->drop.epoch;
    default:
        return m->epoch.epoch;
    }
}

static void on_welcome(struct uplink *u, uint64_t epoch)
{
    u->state = UPLINK_UP;
    u->epoch = epoch;
    log_info("registered", "endpoint=\"%s\" epoch=%llu", u->endpoint, (unsigned long long)epoch);
}

static void on_refusal(struct uplink *u, struct slice message, int64_t now_ms)
{
    log_error("registration_refused", "endpoint=\"%s\" why=\"%.*s\"", u->endpoint, (int)message.len,
              message.data ? message.data : "");
    uplink_leave(u, "it refuses us", now_ms);
}

/* True when the message is for the caller; the others are dealt with here. */
static bool is_for_caller(struct uplink *u, const struct message *m, int64_t now_ms)
{
    if (u->state == UPLINK_REGISTERING) {
        if (m->kind == MSG_WELCOME)
            on_welcome(u, m->welcome.epoch);
        if (m->kind == MSG_REFUSED)
            on_refusal(u, m->refused.message, now_ms);
        u->heard_ms = now_ms;
        return m->kind == MSG_STOP;
    }
    if (epoch_of(m) != u->epoch) {
        if (m->kind == MSG_BROKER_BEAT)
            uplink_leave(u, "another broker answers", now_ms);
        return false;
    }
    u->heard_ms = now_ms;
    if (m->kind == MSG_BROKER_BEAT)
        u->backoff_ms = 0; /* not at the welcome: what goes wrong right after it must not go round fast */
    return m->kind != MSG_BROKER_BEAT && m->kind != MSG_WELCOME && m->kind != MSG_REFUSED;
}

static enum status receive_one(struct uplink *u, struct message *m, int64_t now_ms)
{
    struct error err;
    forget_incoming(u);
    enum status s = wire_receive(u->socket, &u->incoming);
    if (s == E_TIMEOUT)
        return s;
    u->has_incoming = s == OK;
    if (s == OK)
        s = message_decode(u->decoder, BROKER_TO_WORKER, zmq_msg_data(&u->incoming.body),
                           zmq_msg_size(&u->incoming.body), m, &err);
    else
        error_set(&err, s, "cannot receive (%s)", status_name(s));
    if (s != OK) /* it may have been a job that nobody would ever hear of again */
        uplink_leave(u, err.text, now_ms);
    return s;
}

enum status uplink_receive(struct uplink *u, int64_t now_ms, struct message *m)
{
    while (u->state == UPLINK_REGISTERING || u->state == UPLINK_UP) {
        enum status s = receive_one(u, m, now_ms);
        if (s != OK)
            break;
        if (is_for_caller(u, m, now_ms))
            return OK;
    }
    /* Only now: after a long step its beats may have been waiting here. */
    if (is_silent(u, now_ms))
        uplink_leave(u, "the broker is silent", now_ms);
    return E_TIMEOUT;
}

void uplink_wait(struct uplink *u, int fd, int64_t now_ms, int64_t deadline_ms)
{
    zmq_pollitem_t items[3] = { { .fd = fd, .events = ZMQ_POLLIN } };
    int n = 1;

    if (u->state == UPLINK_CLOSED) {
        deadline_ms = deadline_earlier(deadline_ms, u->retry_at_ms);
    } else {
        short out = u->is_blocked ? ZMQ_POLLOUT : 0;
        items[n++] = (zmq_pollitem_t){ .socket = u->socket, .events = (short)(ZMQ_POLLIN | out) };
        items[n++] = (zmq_pollitem_t){ .socket = u->monitor, .events = ZMQ_POLLIN };
        if (u->state != UPLINK_CONNECTING)
            deadline_ms = deadline_earlier(deadline_ms, deadline_after(u->heard_ms, PEER_TIMEOUT_MS));
    }
    zmq_poll(items, n, deadline_poll_ms(now_ms, deadline_ms));
}

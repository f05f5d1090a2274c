#include "proto/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"

static const char monitor_address[] = "inproc://monitor"; /* names are per context, and so per channel */

static bool open_monitor(struct channel *c)
{
    int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                 ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                 ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED;
    int none = 0;
    return zmq_socket_monitor(c->socket, monitor_address, events) == 0 &&
           (c->monitor = zmq_socket(c->context, ZMQ_PAIR)) != NULL &&
           zmq_setsockopt(c->monitor, ZMQ_LINGER, &none, sizeof none) == 0 &&
           zmq_connect(c->monitor, monitor_address) == 0;
}

static void note_event(struct channel *c, int event)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        c->is_connected = true;
        c->refusal = NULL;
        break;
    case ZMQ_EVENT_DISCONNECTED:
        c->was_lost |= c->is_connected;
        c->is_connected = false;
        break;
    case ZMQ_EVENT_CONNECT_RETRIED:
        if (!c->refusal) /* what went wrong, not that it is tried again */
            c->refusal = "nobody listens there";
        break;
    default:
        c->refusal =
            "it does not accept our key, or we have none where it wants one (--key, --server-key), or it is "
            "no Woolly server";
    }
}

/* A monitor message is an event number (16 bits) with a value, then the address in a second frame. */
static void read_monitor(struct channel *c)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, c->monitor, ZMQ_DONTWAIT) >= 0) {
        uint16_t event;
        if (zmq_msg_size(&frame) >= sizeof event) {
            memcpy(&event, zmq_msg_data(&frame), sizeof event);
            note_event(c, event);
        }
        while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, c->monitor, ZMQ_DONTWAIT) >= 0)
            ;
    }
    zmq_msg_close(&frame);
}

static enum status connect_socket(struct channel *c, const char *endpoint, const char *key_file,
                                  const char *server_key, struct error *err)
{
    struct peer_keys keys;
    bool is_given = false;
    enum status s = OK;
    if (wire_is_tcp(endpoint))
        s = keys_find(key_file, server_key, &keys, &is_given, err);
    if (s == OK)
        s = wire_connect(c->socket, endpoint, is_given ? &keys : NULL, err);
    explicit_bzero(&keys, sizeof keys);
    return s;
}

enum status channel_open(struct channel *c, const char *endpoint, const char *key_file,
                         const char *server_key, int64_t deadline_ms, struct error *err)
{
    enum status s = E_IO;

    *c = (struct channel){ 0 };
    if (!(c->context = zmq_ctx_new())) {
        error_errno(err, "cannot start ZeroMQ");
        goto fail;
    }
    if (!(c->socket = wire_open(c->context, WIRE_PEER, err)))
        goto fail;
    if (!open_monitor(c)) {
        error_errno(err, "cannot watch a ZeroMQ socket");
        goto fail;
    }
    if ((s = connect_socket(c, endpoint, key_file, server_key, err)) != OK)
        goto fail;
    while (!c->is_connected) {
        if (c->refusal || deadline_passed(clock_ms(), deadline_ms)) {
            s = error_set(err, E_UNREACHABLE, "no server at %s: %s", endpoint,
                          c->refusal ? c->refusal : "no connection in time");
            goto fail;
        }
        channel_wait(c, deadline_ms);
        read_monitor(c);
    }
    return OK;

fail:
    channel_close(c, 0);
    return s;
}

void channel_close(struct channel *c, int linger_ms)
{
    if (c->poll_fd > 0)
        close(c->poll_fd);
    if (c->timer_fd > 0)
        close(c->timer_fd);
    if (c->monitor) {
        /* ZeroMQ's thread sends events with a blocking send: make room first, and keep the receiver until
         * there is no sender. */
        read_monitor(c);
        zmq_socket_monitor(c->socket, NULL, 0);
        zmq_close(c->monitor);
    }
    if (c->socket) {
        zmq_setsockopt(c->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(c->socket);
    }
    if (c->context) {
        while (zmq_ctx_term(c->context) != 0 && errno == EINTR)
            ;
    }
    *c = (struct channel){ 0 };
}

enum status channel_send(struct channel *c, const struct buffer *message)
{
    /* The news of a break can be quicker than the end of ZeroMQ's queue, which would swallow the message. */
    read_monitor(c);
    if (!c->is_connected)
        return E_UNREACHABLE;
    return wire_send(c->socket, NULL, 0, false, message->data, message->len);
}

enum status channel_receive(struct channel *c, struct wire_message *m)
{
    enum status s = wire_receive(c->socket, m);
    if (s != E_TIMEOUT)
        return s;
    if (!channel_is_broken(c))
        return E_TIMEOUT;
    if ((s = wire_receive(c->socket, m)) != E_TIMEOUT)
        return s;
    c->was_lost = false;
    return E_UNREACHABLE;
}

bool channel_is_broken(struct channel *c)
{
    read_monitor(c);
    return c->was_lost;
}

bool channel_wait(struct channel *c, int64_t deadline_ms)
{
    zmq_pollitem_t items[] = { { .socket = c->socket, .events = ZMQ_POLLIN },
                               { .socket = c->monitor, .events = ZMQ_POLLIN } };
    return zmq_poll(items, 2, deadline_poll_ms(clock_ms(), deadline_ms)) >= 0 || errno != EINTR;
}

static int socket_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof fd;
    zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
    return fd;
}

int channel_fd(struct channel *c)
{
    if (c->poll_fd > 0)
        return c->poll_fd;
    c->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int parts[] = { socket_fd(c->socket), socket_fd(c->monitor), c->timer_fd };
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = { .events = EPOLLIN };
        if (c->poll_fd < 0 || parts[i] < 0 || epoll_ctl(c->poll_fd, EPOLL_CTL_ADD, parts[i], &event) != 0) {
            if (c->poll_fd >= 0)
                close(c->poll_fd);
            if (c->timer_fd >= 0)
                close(c->timer_fd);
            c->poll_fd = c->timer_fd = 0;
            return -1;
        }
    }
    return c->poll_fd;
}

static bool can_receive(void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size);
    return events & ZMQ_POLLIN;
}

void channel_set_alarm(struct channel *c, int64_t now_ms, int64_t alarm_ms)
{
    if (c->timer_fd <= 0)
        return;
    if (can_receive(c->socket) || can_receive(c->monitor) || c->was_lost)
        alarm_ms = now_ms;
    struct itimerspec when = { 0 };
    if (alarm_ms != DEADLINE_NONE) {
        int64_t span_ms = alarm_ms > now_ms ? alarm_ms - now_ms : 0;
        when.it_value.tv_sec = span_ms / 1000;
        when.it_value.tv_nsec = span_ms % 1000 * 1000000 + 1; /* 0 would switch the timer off */
    }
    timerfd_settime(c->timer_fd, 0, &when, NULL);
}

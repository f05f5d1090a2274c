/* A client's end of the line: a DEALER socket that also knows whether somebody is at the other end. ZeroMQ
 * itself reconnects in silence, but answers to what was sent before a break never come; its socket monitor
 * tells of the break, and of a refused connection, at once instead of after a timeout.
 *
 * Used by one thread. Zero-initialised it may be closed. */
#ifndef WOOLLY_PROTO_CHANNEL_H
#define WOOLLY_PROTO_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buffer.h"
#include "common/status.h"
#include "proto/wire.h"

struct channel {
    void *context, *socket, *monitor;
    bool is_connected;
    const char *refusal; /* why the latest attempt to connect failed */
    bool was_lost;       /* a break that channel_receive has not told yet */
    int poll_fd;         /* an epoll instance over all the others; 0 until somebody wants it */
    int timer_fd;
};

/* Connects and waits until the peer has shaken hands: E_UNREACHABLE when it refuses or the time is over. With
 * TCP the connection is encrypted if there are keys; NULL for either means as keys_find says. */
MUST_CHECK enum status channel_open(struct channel *c, const char *endpoint, const char *key_file,
                                    const char *server_key, int64_t deadline_ms, struct error *err);

/* Messages sent shortly before may take up to linger_ms to leave. */
void channel_close(struct channel *c, int linger_ms);

/* Without waiting. E_UNREACHABLE: nobody is there now; E_OVERLOADED: the queue is full. */
MUST_CHECK enum status channel_send(struct channel *c, const struct buffer *message);

/* Without waiting, as wire_receive, and E_UNREACHABLE once after each break, when everything that came before
 * it has been received. */
MUST_CHECK enum status channel_receive(struct channel *c, struct wire_message *m);

/* True when the line broke and channel_receive has not said so yet. */
bool channel_is_broken(struct channel *c);

/* Waits until there may be something to receive. False when a signal handler ran. */
bool channel_wait(struct channel *c, int64_t deadline_ms);

/* A descriptor that is readable while there may be something to receive or the alarm has gone off; -1 on
 * failure. */
int channel_fd(struct channel *c);

/* To be called after the channel was used, so that the descriptor tells the truth: ZeroMQ's own descriptors
 * only signal changes. Goes off at once if there is something to receive. */
void channel_set_alarm(struct channel *c, int64_t now_ms, int64_t alarm_ms);

#endif

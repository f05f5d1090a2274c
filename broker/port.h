/* The outside world as the broker's core sees it: a peer is an address, sending is one call. The loop puts
 * ZeroMQ behind it, a test puts itself there. */
#ifndef WOOLLY_BROKER_PORT_H
#define WOOLLY_BROKER_PORT_H

#include <sys/types.h>

#include "proto/messages.h"
#include "proto/wire.h"

struct peer {
    unsigned char identity[WIRE_MAX_IDENTITY];
    unsigned char identity_len;
    bool is_remote; /* a worker that is connected by TCP: its pid may be one of another machine */
    bool is_req;    /* a REQ socket: wants the delimiter back, and exactly one reply */
};

struct port {
    void *context;

    /* Never waits. E_OVERLOADED: the peer's queue is full. E_UNREACHABLE: no such peer (any more). `link` is
     * BROKER_TO_CLIENT or BROKER_TO_WORKER. */
    enum status (*send)(void *context, enum message_link link, const struct peer *to, const void *bytes,
                        size_t len);

    /* A descriptor that polls readable when that process ends, or -1; the core closes it. is_ours: it was
     * forked by a host of this server. */
    int (*watch)(void *context, pid_t pid, bool *is_ours);

    /* Ends the process that a descriptor of watch stands for. */
    void (*kill)(void *context, int watch_fd);
};

bool peer_equal(const struct peer *a, const struct peer *b);

#endif

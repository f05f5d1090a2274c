/* A worker's connection to its broker: finds it, registers, keeps the beat, notices when it is gone and goes
 * back to finding it. The states:
 *
 *     CLOSED       no socket until retry_at_ms
 *     CONNECTING   the socket is open and nobody answers yet; ZeroMQ keeps trying
 *     REGISTERING  connected; the broker has PEER_TIMEOUT_MS to welcome us
 *     UP           welcomed: messages carry the broker's epoch
 *
 * A broker that does not take us, because of our key or of what we registered as, may be replaced by one that
 * does: the refusal is logged, and we try again.
 *
 * A broker counts as gone when the connection breaks, when nothing comes for PEER_TIMEOUT_MS, and when a beat
 * carries another epoch, which is how a new broker tells us that it does not know us. Then the socket is
 * closed and opened again, the first time at once, then after 1 s, 2 s, ... 32 s until the broker's
 * next beat (the "Paranoid Pirate" of the ZeroMQ guide). Whoever uses this drops all work whenever it is not
 * UP. */
#ifndef WOOLLY_WORKER_UPLINK_H
#define WOOLLY_WORKER_UPLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buffer.h"
#include "common/status.h"
#include "proto/messages.h"
#include "proto/wire.h"

enum uplink_state { UPLINK_CLOSED, UPLINK_CONNECTING, UPLINK_REGISTERING, UPLINK_UP };

struct uplink {
    const char *endpoint;
    const struct peer_keys *keys;
    const struct msg_register *self;
    enum uplink_state state;
    uint64_t epoch; /* of the broker while UP */

    void *context, *socket, *monitor;
    unsigned n_sockets; /* opened so far */
    int64_t heard_ms;   /* last sign of life from the broker, or when we registered */
    int64_t retry_at_ms;
    int backoff_ms;
    bool is_refused; /* since the socket was opened: said once */

    struct decoder *decoder;
    struct wire_message incoming; /* what the last received message points into */
    bool has_incoming;
    struct buffer outgoing;
    bool is_blocked; /* outgoing waits for room in the broker's queue */
};

/* After the last fork. `endpoint`, `keys` (NULL: no encryption) and `self` are kept. Fails when the endpoint
 * makes no sense. */
MUST_CHECK enum status uplink_init(struct uplink *u, const char *endpoint, const struct peer_keys *keys,
                                   const struct msg_register *self, int64_t now_ms, struct error *err);
void uplink_fini(struct uplink *u);

/* Once per turn of the loop: follows the connection, sends what was blocked. */
void uplink_update(struct uplink *u, int64_t now_ms);

/* The next submit, open, advance, drop or stop, valid until the next call; E_TIMEOUT when there is none. */
MUST_CHECK enum status uplink_receive(struct uplink *u, int64_t now_ms, struct message *m);

/* True when a message can be sent: UP and not blocked. One that finds the broker's queue full is kept and
 * goes out as soon as there is room. */
bool uplink_can_send(const struct uplink *u);
void uplink_send(struct uplink *u, const struct message *m, int64_t now_ms);

/* Waits until something happens here, or on fd, or at the deadline. */
void uplink_wait(struct uplink *u, int fd, int64_t now_ms, int64_t deadline_ms);

/* The broker broke a rule: leave it and register anew. */
void uplink_leave(struct uplink *u, const char *why, int64_t now_ms);

#endif

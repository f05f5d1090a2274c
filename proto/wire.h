/* ZeroMQ sockets as all of Woolly uses them: bounded queues, bounded messages, no lingering, no blocking
 * sends, encryption and ZMTP heartbeats between machines, and one way to take a message apart. Open contexts
 * and sockets only after the last fork. */
#ifndef WOOLLY_PROTO_WIRE_H
#define WOOLLY_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <zmq.h>

#include "common/status.h"
#include "proto/keys.h"

enum wire_role {
    WIRE_CLIENT_SIDE, /* ROUTER that clients connect to: identities are the broker's own */
    WIRE_WORKER_SIDE, /* ROUTER that workers connect to */
    WIRE_PEER,        /* DEALER of a client or worker */
};

enum { WIRE_MAX_IDENTITY = 255 };

/* NULL with an error text on failure. */
void *wire_open(void *context, enum wire_role role, struct error *err);

bool wire_is_tcp(const char *endpoint);

/* Who can reach a socket: programs of this machine, or those of any that has a way to it. */
enum wire_reach { REACH_MACHINE, REACH_NETWORK };

/* Whether wire_bind may be given the endpoint: ipc://PATH, tcp://HOST:PORT, and only with REACH_NETWORK a
 * HOST that is not loopback. */
MUST_CHECK enum status wire_check_listen(const char *endpoint, enum wire_reach reach, struct error *err);

/* Who may connect to what is bound. On TCP a key means CURVE: there must be a ZAP handler in the context
 * *before*, or ZeroMQ lets everybody in. Local sockets have the permissions of their folder instead. */
struct wire_guard {
    const struct key_pair *key; /* of the server; NULL: everybody may, in plain text */
    const char *domain;         /* what the ZAP handler is told */
};

/* Binds; the error names the endpoint and the way out. Without a guard only ipc:// and loopback TCP are
 * allowed. *bound (may be NULL, else room for 256 bytes) gets the endpoint really bound, for
 * "tcp://127.0.0.1:*". A socket may be bound more than once, each time with a guard of its own: the local
 * ones first. */
MUST_CHECK enum status wire_bind(void *socket, const char *endpoint, const struct wire_guard *guard,
                                 char *bound, struct error *err);
/* Removes the file of an ipc:// endpoint where nobody listens any more; ZeroMQ leaves it behind. */
void wire_remove_socket(const char *endpoint);

/* `keys` (may be NULL) count on TCP only. */
MUST_CHECK enum status wire_connect(void *socket, const char *endpoint, const struct peer_keys *keys,
                                    struct error *err);

/* One message in: body is its last frame; identity and delimiter only from a ROUTER. Close it after use. */
struct wire_message {
    unsigned char identity[WIRE_MAX_IDENTITY];
    size_t identity_len;
    bool has_delimiter; /* a REQ peer: answer with the empty frame too */
    zmq_msg_t body;
};

/* Without waiting. Returns E_TIMEOUT when there is nothing, E_FORMAT for a message of the wrong shape
 * (already consumed; identity is filled if there was one), E_IO otherwise. */
MUST_CHECK enum status wire_receive(void *socket, struct wire_message *m);
void wire_message_close(struct wire_message *m);

/* Whether the sender of a received message is connected by TCP, and so may be on another machine. */
bool wire_came_by_tcp(struct wire_message *m);

/* Without waiting. identity_len 0 for a DEALER. E_OVERLOADED: the peer's queue is full. E_UNREACHABLE: no
 * such peer (any more). */
MUST_CHECK enum status wire_send(void *socket, const void *identity, size_t identity_len, bool with_delimiter,
                                 const void *body, size_t len);

/* Where programs find each other when nobody says: the folder for sockets of this user (created with mode
 * 0700), "$WOOLLY_RUNTIME_DIR", else "$XDG_RUNTIME_DIR/woolly", else "/tmp/woolly-UID". */
MUST_CHECK enum status wire_runtime_folder(char *out, size_t size, struct error *err);

/* The endpoint of the running server: `flag` if not NULL, else $WOOLLY_ENDPOINT, else what the server of this
 * user wrote into RUNTIME/endpoint. E_NOTFOUND when there is none. */
MUST_CHECK enum status wire_find_endpoint(const char *flag, char *out, size_t size, struct error *err);

#endif

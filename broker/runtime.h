/* The files through which the processes of one server, and clients with it, find each other.
 *
 *     RUNTIME/lock          held by the server that is published; has its pid
 *     RUNTIME/endpoint      where clients of this user connect
 *     RUNTIME/boot-XXXXXX/  of one server, mode 0700: lock (held as long as it lives), clients.sock,
 *                           workers.sock
 *
 * Locks are flock: the kernel lets go of them however a server dies, so what is not locked is left over and
 * the next server removes it. */
#ifndef WOOLLY_BROKER_RUNTIME_H
#define WOOLLY_BROKER_RUNTIME_H

#include <stdbool.h>

#include "common/status.h"

enum { ENDPOINT_BYTES = 256 };

struct runtime {
    char folder[200];
    char boot[240];
    int lock_fd, boot_lock_fd;
    char clients[ENDPOINT_BYTES], workers[ENDPOINT_BYTES]; /* endpoints to bind */
};

/* `zmq` is the client endpoint, or NULL for one in the boot folder, which takes RUNTIME/lock. */
MUST_CHECK enum status runtime_open(struct runtime *r, const char *zmq, struct error *err);

/* Writes RUNTIME/endpoint at once as a whole. */
MUST_CHECK enum status runtime_publish(const struct runtime *r, const char *endpoint, struct error *err);

/* Removes what open and publish made, and the socket of `clients` wherever it lies. Takes a half-opened one.
 */
void runtime_close(struct runtime *r);

#endif

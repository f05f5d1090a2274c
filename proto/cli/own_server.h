/* A server for one run: woolly-broker as a child, with a runtime folder of its own under $TMPDIR that goes
 * away with it. It dies with us, whatever ends us. Needs signals_init before. */
#ifndef WOOLLY_CLI_OWN_SERVER_H
#define WOOLLY_CLI_OWN_SERVER_H

#include <sys/types.h>

#include "common/status.h"
#include "proto/woolly.h"

struct own_server {
    pid_t pid; /* 0 when there is none */
    char folder[200];
    char endpoint[256];
};

/* Starts it on the model file, which it then knows as `model` (room for 129 bytes), waits until it is ready
 * and connects. E_CANCELLED when a stop was wanted meanwhile. */
MUST_CHECK enum status own_server_start(struct own_server *o, const char *path, char *model,
                                        struct woolly **w, struct error *err);

/* Stops it, waits, and removes the folder. */
void own_server_stop(struct own_server *o);

#endif

/* The broker process: ZeroMQ sockets, signals and the ends of worker processes in one poll loop around the
 * core. */
#ifndef WOOLLY_BROKER_LOOP_H
#define WOOLLY_BROKER_LOOP_H

#include <sys/types.h>

#include "broker/config.h"
#include "broker/runtime.h"

/* What the broker process tells the supervisor through a pipe, whole in one write each: first where clients
 * can connect, then that all workers are there. */
struct loop_note {
    bool is_complete;
    char endpoint[ENDPOINT_BYTES];
};

/* Binds and serves until SIGTERM; returns the exit status. On failure one line has been printed. `clients` is
 * the endpoint to bind. */
int loop_run(const struct config *config, const char *clients, const char *workers, pid_t supervisor,
             int note_fd);

#endif

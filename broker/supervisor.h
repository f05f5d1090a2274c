/* The first process of a server: it starts the broker process and one model host per model, starts again what
 * dies, and stops them in order. It opens no ZeroMQ socket, starts no thread and sees no request, so that
 * nothing which can break them can break it. */
#ifndef WOOLLY_BROKER_SUPERVISOR_H
#define WOOLLY_BROKER_SUPERVISOR_H

#include "broker/config.h"

/* Serves until SIGTERM or SIGINT; returns the exit status. On failure one line has been printed. */
int supervisor_run(const struct config *config);

#endif

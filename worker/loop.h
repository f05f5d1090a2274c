/* The life of a worker process: one engine, one scheduler, one connection to the broker, one thread that
 * turns the loop (the engine has more). Everything here is made after the fork. */
#ifndef WOOLLY_WORKER_LOOP_H
#define WOOLLY_WORKER_LOOP_H

#include "common/topology.h"
#include "worker/model/engine.h"
#include "worker/token/tokenizer.h"

/* Made by the model host before it forks, read-only for its workers. */
struct worker_setup {
    const char *name; /* of the model, for clients */
    const char *path;
    const char *endpoint; /* of the broker */
    const struct model *model;
    const struct tokenizer *tokenizer;
    struct engine_options engine;
    int n_workers;
    const struct topology *cores; /* to be shared among them, or NULL: the kernel chooses */
};

/* Serves until SIGTERM or until the broker says stop: then returns 0. Returns 1, after one line on standard
 * error, when it cannot begin. `setup` is a struct worker_setup. */
int worker_run(int index, const void *setup);

#endif

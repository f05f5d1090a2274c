/* The life of a worker process: one engine, one scheduler, one connection to the broker, one thread that
 * turns the loop (the engine has more). Everything here is made after the fork. */
#ifndef WOOLLY_WORKER_LOOP_H
#define WOOLLY_WORKER_LOOP_H

#include "common/topology.h"
#include "proto/keys.h"
#include "worker/model/engine.h"
#include "worker/speculate.h"
#include "worker/token/byte_order.h"
#include "worker/token/tokenizer.h"

/* Made by the model host before it forks, read-only for its workers. */
struct worker_setup {
    const char *name; /* of the model, for clients */
    const char *path;
    const char *endpoint;         /* of the broker */
    const struct peer_keys *keys; /* for it; NULL: no encryption */
    const struct model *model;
    const struct model *draft; /* a small model of the same vocabulary that guesses ahead, or NULL */
    const struct tokenizer *tokenizer;
    const struct byte_order *byte_order; /* of the tokenizer */
    const char *sessions;                /* a folder for saved sessions, or NULL */
    struct engine_options engine;
    int kv_memory_mb;  /* for the pages of each worker's cache; 0: chosen here */
    int itl_target_ms; /* what prompts may add to the gap between tokens of a stream, above doubling it */
    enum speculate_mode speculate;
    int n_workers;
    const struct topology *cores; /* to be shared among them, or NULL: the kernel chooses */
};

/* Serves until SIGTERM or until the broker says stop: then returns 0. Returns 1, after one line on standard
 * error, when it cannot begin. `setup` is a struct worker_setup. */
int worker_run(int index, const void *setup);

#endif

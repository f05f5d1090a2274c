/* What `woolly serve` was asked to do: the options, checked. */
#ifndef WOOLLY_BROKER_CONFIG_H
#define WOOLLY_BROKER_CONFIG_H

#include "broker/models.h"
#include "common/log.h"

struct config_model {
    char name[MAX_MODEL_NAME + 1];
    const char *path;  /* this and draft point into argv */
    const char *draft; /* path of a small model that guesses ahead; NULL: none */
};

struct config {
    struct config_model models[MAX_MODELS];
    int n_models;
    const char *drafts[MAX_MODELS]; /* NAME=PATH, as given */
    int n_drafts;
    uint32_t workers; /* per model */
    uint32_t threads; /* per worker */
    bool is_pinned;   /* each worker has cores of its own */
    uint32_t n_ctx;   /* 0: the worker decides */
    uint32_t slots;   /* per worker */
    const char *kv;
    const char *pack_cache; /* a folder; NULL: none */
    const char *sessions;   /* the same */
    uint32_t kv_memory_mb;  /* per worker; 0: the worker decides */
    uint32_t itl_target_ms;
    const char *speculate;
    uint32_t queue;  /* per model */
    const char *zmq; /* NULL: a socket in the runtime folder, published there */
    uint32_t grace_ms;
    enum log_level log_level;
    bool wants_help, wants_version;
};

/* Fills *config from the command line. On failure the error is one line for the user; exit with EXIT_USAGE.
 */
MUST_CHECK enum status config_parse(struct config *config, int argc, char **argv, struct error *err);

/* That every model file, and every draft's, can be read. */
MUST_CHECK enum status config_check_files(const struct config *config, struct error *err);

extern const char config_help[];

#endif

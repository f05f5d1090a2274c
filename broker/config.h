/* What `woolly serve` was asked to do, checked: by options, else by the environment, else by a file. */
#ifndef WOOLLY_BROKER_CONFIG_H
#define WOOLLY_BROKER_CONFIG_H

#include "broker/access.h"
#include "broker/models.h"
#include "common/log.h"
#include "proto/keys.h"

struct config_model {
    char name[MAX_MODEL_NAME + 1];
    const char *path;
    const char *draft; /* path of a small model that guesses ahead; NULL: none */
};

struct config {
    int argc;
    char **argv;
    const char *path; /* of the file; NULL: none */
    char **texts;     /* what it and others say, kept */
    size_t n_texts;
    bool has_file_models; /* and none from the command line yet */
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
    uint32_t queue;          /* per model */
    const char *zmq;         /* NULL: a socket in the runtime folder, published there */
    const char *zmq_workers; /* for other machines; NULL: none */
    const char *key, *allow; /* files; both or none */
    bool is_insecure;
    uint32_t grace_ms;
    uint32_t stall_ms;
    enum log_level log_level;
    bool wants_help, wants_version, wants_check;
};

/* Fills *config; argv is kept. On failure the error is one line for the user; exit with EXIT_USAGE. */
MUST_CHECK enum status config_parse(struct config *config, int argc, char **argv, struct error *err);

/* After config_parse, whatever it returned. */
void config_fini(struct config *config);

/* The server's key and whom it knows; leaves both empty when there are none. The list is the caller's. */
MUST_CHECK enum status config_read_keys(const struct config *config, struct key_pair *key,
                                        struct access_list *list, struct error *err);

/* That every model file, every draft's, and the keys can be read. */
MUST_CHECK enum status config_check_files(const struct config *config, struct error *err);

extern const char config_help[];

#endif

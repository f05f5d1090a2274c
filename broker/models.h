/* The models that can be asked for: those the server was started with, for as long as it runs, and those that
 * a worker brought along, for as long as they have one. Each has its queue and its workers. */
#ifndef WOOLLY_BROKER_MODELS_H
#define WOOLLY_BROKER_MODELS_H

#include "common/list.h"
#include "proto/messages.h"

struct broker;

/* A worker that lost its connection tries again after 1, 2, 4, ... seconds. */
enum { MAX_MODELS = 256, MODEL_WAIT_MS = 60 * 1000 };

struct model {
    struct link of_broker;
    char name[MAX_MODEL_NAME + 1];
    uint32_t wanted_workers; /* from the command line; 0 if a worker brought the model along */
    struct list queue;       /* struct job: what lost its worker, then first come, first served */
    struct list workers;

    /* What its last worker said about it. */
    char *path;
    char architecture[64 + 1];
    uint64_t parameters, weight_bytes;
    uint32_t n_ctx, n_vocab;

    int64_t deserted_ms; /* when its last worker was lost, if nobody wanted one; 0: it has one */

    double gap_ms; /* between the ends of jobs while others waited, smoothed; 0 before the first */
    int64_t last_end_ms;
};

/* NULL when there are too many. */
struct model *model_add(struct broker *b, struct slice name, const char *path, uint32_t wanted_workers);
struct model *model_find(const struct broker *b, struct slice name);
void model_destroy(struct model *model);

/* A worker of it is gone, and a model that came with a worker may go with it: at once if nobody waits for it,
 * else when no worker has come back for MODEL_WAIT_MS. */
void model_note_loss(struct broker *b, struct model *model, int64_t now_ms);
void model_upkeep(struct broker *b, struct model *model, int64_t now_ms);

/* Whether a worker with these facts serves what the model's other workers do; true if it has none. */
bool model_is_same(const struct model *model, const struct msg_register *facts);

void model_take_facts(struct model *model, const struct msg_register *facts);

/* A job of this model left its worker. */
void model_note_end(struct model *model, int64_t now_ms);

/* When to try again after a refusal: the measured time until a place in the queue gets free. */
uint64_t model_retry_ms(const struct model *model);

uint32_t model_slots(const struct model *model);
uint32_t model_running(const struct model *model);

#endif

/* The broker's core: clients, jobs, models and workers, without sockets and without a clock. Decoded messages
 * and the time come in by calls, encoded messages go out by the port. One thread.
 *
 * Inside a call nothing that a loop may stand on is freed: clients and workers that are gone are only marked,
 * and each call from outside ends with broker_settle, which takes them apart and hands out work. */
#ifndef WOOLLY_BROKER_BROKER_H
#define WOOLLY_BROKER_BROKER_H

#include "broker/clients.h"
#include "broker/job.h"
#include "broker/models.h"
#include "broker/port.h"
#include "broker/workers.h"

enum {
    MAX_HELD_BYTES = 256 << 20, /* of all live requests, and the ids of their answers so far */
    MAX_ANSWER_BYTES = 8 << 20, /* of one that is collected: it must fit into one message */
    STOP_FLUSH_MS = 1000,
};

struct counts {
    uint64_t accepted, done, failed, cancelled, refused, moved, tokens;
};

struct broker {
    struct port port;
    uint64_t epoch;
    pid_t supervisor;
    uint32_t queue_limit; /* per model */
    int64_t stall_ms;     /* a worker that has work and makes no step for so long is stuck */
    int64_t started_ms;
    int64_t turn_us; /* begin of the caller's turn, set by it: for timings, which need it finer than now_ms */

    struct list models, workers, lost_workers;
    struct list clients, unsettled_clients;
    struct table clients_by_peer;
    struct jobs jobs;
    struct counts counts;
    uint64_t n_dispatched;

    bool is_stopping;
    bool are_workers_told; /* to stop */
    int64_t grace_end_ms;
    int64_t flush_end_ms; /* when to stop waiting for clients to take their last messages */

    int64_t wake_ms;         /* when upkeep has something to do */
    struct buffer out;       /* the message being sent */
    struct buffer rows;      /* of a report */
    struct decoder *decoder; /* of messages of our own */
};

/* `epoch` and every number that clients see stay below 2^53, for languages without 64-bit integers. */
void broker_init(struct broker *b, const struct port *port, uint64_t epoch, pid_t supervisor,
                 uint32_t queue_limit, int64_t stall_ms, int64_t now_ms);
void broker_fini(struct broker *b);

/* ---- what happens ---- */

void broker_on_client(struct broker *b, const struct peer *from, const struct message *m, int64_t now_ms);

/* A message that could not be read: id is 0 if it could not be read that far. */
void broker_on_bad_client(struct broker *b, const struct peer *from, uint64_t id, const char *why,
                          int64_t now_ms);
void broker_on_worker(struct broker *b, const struct peer *from, const struct message *m, int64_t now_ms);

/* A message that could not be read: what it said is missing, so a worker that is known is then lost. */
void broker_on_bad_worker(struct broker *b, const struct peer *from, const char *why, int64_t now_ms);
void broker_on_worker_exit(struct broker *b, struct worker *w, int64_t now_ms);

/* Deadlines, beats, silence, pending output. To be called when b->wake_ms has come. */
void broker_upkeep(struct broker *b, int64_t now_ms);

/* No new jobs, none from the queue; what runs may go on for grace_ms. Again with less shortens it. */
void broker_stop(struct broker *b, int64_t grace_ms, int64_t now_ms);

/* Stopping is over: no job lives, and every client has all its messages or had STOP_FLUSH_MS to take them. */
bool broker_is_stopped(const struct broker *b, int64_t now_ms);

/* Every model of the command line has all its workers. */
bool broker_is_complete(const struct broker *b);

/* ---- between the files of the core ---- */

void broker_settle(struct broker *b, int64_t now_ms);
void broker_wake_at(struct broker *b, int64_t when_ms);

/* Hands waiting jobs to workers with room (dispatch.c). */
void broker_dispatch(struct broker *b, struct model *model, int64_t now_ms);

/* Models, stats, health (reports.c). */
void broker_report(struct broker *b, const struct peer *to, const struct message *request, int64_t now_ms);

#endif

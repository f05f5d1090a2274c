/* The workers that have registered. A worker is gone when its process ended, when it was silent for
 * PEER_TIMEOUT_MS, when it said bye, when it registered anew, when it lost or sits on its jobs, or when its
 * queue takes no more. It is marked at once and taken apart in broker_settle, so that no list changes under a
 * loop. What it worked on goes to another one (failover.h).
 *
 * The end of a process that the supervisor's hosts forked is noticed at once, so silence of one that has work
 * says nothing but that a step takes long, until broker.stall_ms have passed. One that is stuck is killed,
 * and its host forks it again. */
#ifndef WOOLLY_BROKER_WORKERS_H
#define WOOLLY_BROKER_WORKERS_H

#include "broker/port.h"
#include "common/list.h"

struct broker;
struct job;
struct model;

/* Of one with work nothing was heard for this long: others are asked first. Steps mostly take less. */
enum { WORKER_QUIET_MS = 250 };

struct worker {
    struct link of_broker, of_model;
    struct link of_lost; /* on broker.lost_workers, with `lost_why` */
    const char *lost_why;
    bool said_bye;

    struct peer peer;
    struct model *model;
    char host[MAX_HOST_BYTES + 1];
    uint32_t index; /* in its host */
    pid_t pid;
    int watch_fd; /* readable when the process ended; -1 if it cannot be watched */
    bool is_ours; /* a host of our supervisor forked it */
    uint32_t slots;
    struct list jobs;       /* running, cancelling, abandoned: each takes one slot */
    uint64_t last_dispatch; /* broker.n_dispatched at its last job, to take turns */

    int64_t heard_ms, told_ms;
    int64_t beat_ms, stepped_ms; /* last beat; last rise of steps, or last idle beat */
    uint64_t beat_steps, beat_tokens;
    uint64_t done, tokens, prompt_tokens;
    uint64_t kv_pages; /* this and the next line as it said itself, see struct worker_row */
    uint64_t kv_used, kv_cached, preempted, cached_tokens;
    double tok_s;
};

/* Registers a worker, in place of the one with the same address or the same model, host and index, and
 * welcomes it. NULL when there are too many models. */
struct worker *worker_add(struct broker *b, const struct peer *peer, const struct msg_register *facts,
                          int64_t now_ms);

/* Tells a worker that it is not taken, and the log. */
void worker_refuse(struct broker *b, const struct peer *peer, const char *why);

struct worker *worker_find(const struct broker *b, const struct peer *peer);

void worker_mark_lost(struct broker *b, struct worker *w, const char *why);

/* Marks one whose process may go on without ever doing anything again; if it is ours it is killed. */
void worker_mark_stuck(struct broker *b, struct worker *w, const char *why);

/* Gives the jobs of a marked worker away and frees it. */
void worker_take_apart(struct broker *b, struct worker *w, int64_t now_ms);

bool worker_has_room(const struct worker *w);

/* It may be stuck, or in a long step. */
bool worker_is_quiet(const struct worker *w, int64_t now_ms);

/* False when it could not be sent: the worker is then marked lost. */
bool worker_send(struct broker *b, struct worker *w, const struct message *m, int64_t now_ms);
bool worker_send_bytes(struct broker *b, struct worker *w, const struct buffer *bytes, int64_t now_ms);

void worker_take_beat(struct broker *b, struct worker *w, const struct msg_worker_beat *beat, int64_t now_ms);

/* Silence, beats. */
void worker_upkeep(struct broker *b, struct worker *w, int64_t now_ms);

#endif

/* A job is one accepted request, generate or embed. It is in exactly one state, the state says which list it
 * is on, and job_move is the only function that changes either.
 *
 *     FREE -> QUEUED <-> RUNNING -> CANCELLING --.
 *              |           | `-----------.       |
 *              |           |             v       v
 *              `-----------+--> FREE <-- ABANDONED
 *
 * From RUNNING back to QUEUED goes a job whose worker is lost: it stands in front of those that were never
 * handed out, and another worker goes on with it (failover.h).
 *
 * A client gets exactly one of done, error, cancelled: when its job leaves the live states QUEUED, RUNNING
 * and CANCELLING, which only the functions of ending.h do. A worker's slot is free again when the job leaves
 * its list, so the credit of a worker is always slots minus jobs on its list, and no counter can drift. */
#ifndef WOOLLY_BROKER_JOB_H
#define WOOLLY_BROKER_JOB_H

#include "broker/answer.h"
#include "broker/table.h"
#include "common/list.h"

struct client;
struct model;
struct worker;

enum job_state {
    JOB_FREE,       /* the pool's list */
    JOB_QUEUED,     /* its model's queue, and its client's live jobs */
    JOB_RUNNING,    /* its worker's jobs, and its client's live jobs */
    JOB_CANCELLING, /* as RUNNING; the worker was told to drop it, its last item decides how it ends */
    JOB_ABANDONED, /* its worker's jobs: the client has its ending or is gone, the worker was told to drop it,
                      and its slot is taken until the worker says that it did */
};

struct job {
    enum job_state state;
    struct link place;
    struct link of_client;
    struct table_node by_number;
    uint64_t number; /* unique as long as the broker runs */

    struct client *client; /* NULL when not live */
    uint64_t client_id;    /* the client's own number for it */
    struct model *model;
    struct worker *worker; /* NULL while queued */

    uint64_t seed;
    struct buffer submit; /* the message for a worker that begins it */
    struct answer answer;
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    const char *cache_miss; /* static; NULL for none */

    uint64_t decode_us; /* as the worker measured it, of the choice that took longest */

    uint32_t n_moves;  /* from one worker to another */
    bool has_progress; /* its present worker gave something of it */
    bool is_suspect;   /* its last worker died without, or with nothing else to work on */
    int blame;         /* for deaths since it last made progress (failover.h) */

    int64_t accepted_us, dispatched_us, first_token_us; /* 0: has not happened */
    int64_t sent_ms;                                    /* to its present worker */
    int64_t lost_us;     /* when its worker was lost; 0 once the next one gave something */
    int64_t deadline_ms; /* or DEADLINE_NONE */
};

/* All jobs: those in use by number, the others in a pool that keeps their buffers. */
struct jobs {
    struct list free;
    struct table by_number;
    uint64_t last_number;
    size_t n_live;     /* queued, running, cancelling */
    size_t held_bytes; /* of these: messages for workers, and ids so far */
};

void jobs_fini(struct jobs *all); /* every job must be free */

/* A job with a new number, in state JOB_FREE but off the pool's list; it goes on with job_move. */
struct job *job_create(struct jobs *all);
struct job *job_find(const struct jobs *all, uint64_t number);

/* Before JOB_QUEUED model and client are set, before JOB_RUNNING worker is. */
void job_move(struct jobs *all, struct job *job, enum job_state next);

/* answer_add, with the memory counted. */
bool job_add(struct jobs *all, struct job *job, const struct step_item *item);

bool job_is_live(const struct job *job);

#endif

/* Continuous batching: many jobs share every step of one engine. A step computes one row for each sequence
 * that is generating, rows for guesses at what comes next where those are worth it, and as much of the oldest
 * prompts as the running streams are willing to wait for.
 *
 * A sequence begins when there is a slot for it and pages for its prompt and some tokens more; pages of a
 * prompt that another sequence has computed, or is computing now, are shared. When pages run out the youngest
 * sequence gives its own up and computes them again later: its stream pauses, nothing else.
 *
 * Knows nothing of sockets: jobs come in by scheduler_add, and each ends in exactly one item with an error
 * code or the finish reason "cancelled", or when all of its choices have had a finish reason. What a job
 * produces depends on its request alone, never on what else runs. One thread calls all of it. Memory is taken
 * at creation and when a job comes. */
#ifndef WOOLLY_WORKER_SCHEDULER_H
#define WOOLLY_WORKER_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "proto/messages.h"
#include "worker/drafter.h"
#include "worker/model/engine.h"
#include "worker/sessions.h"
#include "worker/speculate.h"
#include "worker/token/byte_order.h"
#include "worker/token/tokenizer.h"

/* Most prompt rows in one step. Beyond this a larger chunk is not faster, only coarser. */
enum { SCHEDULER_PREFILL_ROWS = 256 };

struct scheduler;

struct scheduler_options {
    int64_t itl_target_us; /* what prompts may add to the gap between tokens of a stream, above doubling it */
    enum speculate_mode speculate;
    struct drafter *drafter;             /* NULL: guesses come from the text itself */
    const struct byte_order *byte_order; /* of the tokenizer: what operations score strings with */
    struct sessions *sessions;           /* with the last SESSIONS_SLOTS of the engine's slots; NULL: none */
};

/* Takes as many jobs at once as the engine has slots (without those of the sessions), and computes as many
 * sequences at once. The engine, with max_rows of scheduler_rows, the tokenizer and what the options point to
 * belong to the caller and outlive the scheduler. n_vocab is the length of the engine's logits. */
struct scheduler *scheduler_create(struct engine *e, const struct tokenizer *t, int n_vocab,
                                   const struct scheduler_options *options);
void scheduler_destroy(struct scheduler *s);

/* The rows an engine with so many slots needs. */
int scheduler_rows(int n_slots);

/* Takes a job; everything needed of the request is copied. A request the model cannot serve is taken too: its
 * one item, from the next step, carries the error. False only when there are as many jobs as slots. */
MUST_CHECK bool scheduler_add(struct scheduler *s, uint64_t job, const struct generate *request);

/* Takes a job that does nothing by itself once its prompt is computed: operations do. Ends by a cancel. */
MUST_CHECK bool scheduler_open(struct scheduler *s, uint64_t job, const struct generate *request);

/* Begins an operation on an opened job; one at a time. For an unknown job nothing happens. */
void scheduler_advance(struct scheduler *s, const struct msg_advance *m);

/* The answer to an operation that ended, or NULL; until the next call of any function here. To be asked after
 * every step until there are no more. */
const struct msg_advanced *scheduler_next_advanced(struct scheduler *s);

/* The job ends as "cancelled" at the next step. An unknown job is one that has just ended: nothing happens.
 */
void scheduler_cancel(struct scheduler *s, uint64_t job);

/* Forgets all jobs; no items come of it. */
void scheduler_clear(struct scheduler *s);

/* True while a step would do anything. */
bool scheduler_has_work(const struct scheduler *s);

/* Runs one step. Returns struct step_item's, at most one per choice of a job, that stay valid until the next
 * step, add or clear: the slot of a job that has ended is free at once.
 *
 * An end token is neither in ids nor in the text, unless the request ignores ends. The token that completes a
 * stop string is in ids; its text is cut before the stop string. */
struct struct_array scheduler_step(struct scheduler *s);

struct scheduler_counts {
    uint64_t steps;
    uint64_t tokens;        /* handed out in items */
    uint64_t prompt_tokens; /* computed, the first time */
    uint64_t cached_tokens; /* of prompts, found in the cache */
    uint64_t recomputed;    /* computed once more, after a preemption or at another worker */
    uint64_t preempted;
    uint64_t drafted, accepted; /* guesses that were checked; that came true */
    int taken;                  /* jobs */
};

struct scheduler_counts scheduler_counts(const struct scheduler *s);

#endif

/* Continuous batching: many jobs share every step of one engine. A step computes one row for each job that is
 * generating and a chunk of the oldest prompts that are not in the cache yet, so that neither a new prompt
 * waits for running streams to end nor a long prompt stops them.
 *
 * Knows nothing of sockets: jobs come in by scheduler_add, and each ends in exactly one item with a finish
 * reason or an error code. What a job produces depends on its request alone, never on what else runs. One
 * thread calls all of it. Memory is taken at creation and, for a job's text, with its first token. */
#ifndef WOOLLY_WORKER_SCHEDULER_H
#define WOOLLY_WORKER_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "proto/messages.h"
#include "worker/model/engine.h"
#include "worker/token/tokenizer.h"

/* Most prompt rows in one step. Beyond this a larger chunk is not faster, only coarser; the engine needs
 * room for these and one row per slot. A guess until measured. */
enum { SCHEDULER_PREFILL_ROWS = 256 };

struct scheduler;

/* Takes as many jobs at once as the engine has slots. The engine, with max_rows > n_slots, and the tokenizer
 * belong to the caller and outlive the scheduler. n_vocab is the length of the engine's logits. */
struct scheduler *scheduler_create(struct engine *e, const struct tokenizer *t, int n_vocab);
void scheduler_destroy(struct scheduler *s);

/* Takes a job; everything needed of the request is copied. A request the model cannot serve is taken too: its
 * one item, from the next step, carries the error. False only when every slot is taken. */
MUST_CHECK bool scheduler_add(struct scheduler *s, uint64_t job, const struct generate *request);

/* The job ends as "cancelled" at the next step. An unknown job is one that has just ended: nothing happens.
 */
void scheduler_cancel(struct scheduler *s, uint64_t job);

/* Forgets all jobs; no items come of it. */
void scheduler_clear(struct scheduler *s);

/* True while a step would do anything. */
bool scheduler_has_work(const struct scheduler *s);

/* Runs one step. Returns struct step_item's, at most one per job, that stay valid until the next
 * step, add or clear: the slot of a job that has ended is free at once.
 *
 * An end token is neither in ids nor in the text, unless the request ignores ends. The token that completes a
 * stop string is in ids; its text is cut before the stop string. */
struct struct_array scheduler_step(struct scheduler *s);

struct scheduler_counts {
    uint64_t steps;
    uint64_t tokens;        /* handed out in items */
    uint64_t prompt_tokens; /* computed */
    int taken;              /* slots that new jobs cannot have */
};

struct scheduler_counts scheduler_counts(const struct scheduler *s);

#endif

/* One step, in order: cancelled and faulty jobs end; sequences are admitted while there is room, and every
 * running one gets a page for its next row (admission.c); rows are collected (rows.c), the engine computes
 * them, and output.c makes tokens of what it gives. */
#include "worker/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "worker/scheduler_state.h"

/* How long a step that has nothing to compute waits for pages that are being written to disk. */
enum { PAGES_WAIT_MS = 10 };

/* ---- its life ---- */

static size_t find_longest_piece(const struct tokenizer *t)
{
    size_t longest = 4; /* a character without a token of its own */
    for (int id = 0; id < tokenizer_n_vocab(t); id++) {
        size_t len;
        tokenizer_piece(t, id, &len);
        longest = len > longest ? len : longest;
    }
    return longest;
}

int scheduler_rows(int n_slots)
{
    return n_slots * (1 + SPECULATE_MOST) + SCHEDULER_PREFILL_ROWS;
}

struct scheduler *scheduler_create(struct engine *e, const struct tokenizer *t, int n_vocab,
                                   const struct scheduler_options *options)
{
    const struct engine_options *o = engine_options(e);
    int n_slots = o->n_slots - (options->sessions ? SESSIONS_SLOTS : 0);
    assert(n_slots > 0 && o->max_rows >= scheduler_rows(n_slots));

    struct scheduler *s = xcalloc(1, sizeof *s);
    s->engine = e;
    s->cache = engine_cache(e);
    s->tokenizer = t;
    s->sampler = sampler_create(n_vocab);
    s->score = score_create(options->byte_order);
    s->options = *options;
    pace_init(&s->pace, options->itl_target_us);
    s->n_slots = n_slots;
    s->n_ctx = o->n_ctx;
    s->n_vocab = n_vocab;
    s->n_embd = engine_n_embd(e);
    s->limits = (struct job_limits){ .tokenizer = t,
                                     .n_ctx = s->n_ctx,
                                     .n_vocab = n_vocab,
                                     .n_embd = s->n_embd,
                                     .longest_piece = find_longest_piece(t),
                                     .scratch = &s->encoded };
    s->max_items = 3 * s->n_slots; /* endings of jobs, turns, forks */
    s->rows = xcalloc((size_t)o->max_rows, sizeof *s->rows);
    s->turns = xcalloc((size_t)s->n_slots, sizeof *s->turns);
    s->draft_requests = xcalloc((size_t)s->n_slots, sizeof *s->draft_requests);
    s->items = xcalloc((size_t)s->max_items, sizeof *s->items);
    s->outputs = xcalloc((size_t)s->max_items, sizeof *s->outputs);
    s->prompt_details = xcalloc(SCHEDULER_PREFILL_ROWS + s->n_slots, sizeof *s->prompt_details);
    s->prompt_top = xcalloc(SCHEDULER_PREFILL_ROWS + s->n_slots, sizeof *s->prompt_top);
    s->free_slots = xcalloc((size_t)s->n_slots, sizeof *s->free_slots);
    for (int i = s->n_slots; i-- > 0;)
        s->free_slots[s->n_free_slots++] = i;
    return s;
}

void scheduler_end_job(struct scheduler *s, struct job *job)
{
    for (int i = 0; i < job->n_sequences; i++)
        scheduler_release(s, &job->sequences[i], SEQUENCE_FINISHED);
    list_remove(&job->link);
    list_append(&s->ended, &job->link);
}

static void forget_ended(struct scheduler *s)
{
    list_each(job, &s->ended, struct job, link) job_destroy(job);
    s->n_items = 0;
}

void scheduler_clear(struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link) scheduler_end_job(s, job);
    forget_ended(s);
}

void scheduler_destroy(struct scheduler *s)
{
    if (!s)
        return;
    scheduler_clear(s);
    token_list_fini(&s->encoded);
    score_destroy(s->score);
    sampler_destroy(s->sampler);
    free(s->free_slots);
    free(s->prompt_top);
    free(s->prompt_details);
    free(s->outputs);
    free(s->items);
    free(s->draft_requests);
    free(s->turns);
    free(s->rows);
    free(s);
}

/* ---- jobs come and go ---- */

static struct job *find_job(const struct scheduler *s, uint64_t number)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (job->number == number)
            return job;
    }
    return NULL;
}

bool scheduler_add(struct scheduler *s, uint64_t number, const struct generate *request)
{
    forget_ended(s);
    if (s->jobs.count == (size_t)s->n_slots)
        return false;
    struct job *job = job_create(number, request, &s->limits);
    job->age = s->n_arrived++;
    list_append(&s->jobs, &job->link);
    for (int i = 0; i < job->n_sequences; i++)
        scheduler_move(s, &job->sequences[i], job->sequences[i].state);
    return true;
}

bool scheduler_open(struct scheduler *s, uint64_t number, const struct generate *request)
{
    struct generate whole = *request;
    whole.max_tokens = (uint32_t)s->n_ctx;
    whole.has_max_tokens = false;
    whole.n = whole.best_of = 1;
    if (!scheduler_add(s, number, &whole))
        return false;
    find_job(s, number)->operation = operation_create();
    return true;
}

void scheduler_advance(struct scheduler *s, const struct msg_advance *m)
{
    struct job *job = find_job(s, m->job);
    if (job && job->operation && !job->error_code && !job->is_cancelled)
        operation_begin(s, &job->sequences[0], m);
}

const struct msg_advanced *scheduler_next_advanced(struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (job->operation && operation_is_done(job->operation))
            return operation_take(job->operation);
    }
    return NULL;
}

void scheduler_cancel(struct scheduler *s, uint64_t number)
{
    struct job *job = find_job(s, number);
    if (job)
        job->is_cancelled = true;
}

static void end_idle(struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (!job->is_cancelled && !job->error_code)
            continue;
        output_ending(s, job);
        scheduler_end_job(s, job);
    }
}

bool scheduler_has_work(const struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (job->is_cancelled || job->error_code || (job->operation && operation_is_done(job->operation)))
            return true;
    }
    return !list_is_empty(&s->lists[SEQUENCE_WAITING]) || !list_is_empty(&s->lists[SEQUENCE_PREEMPTED]) ||
           !list_is_empty(&s->lists[SEQUENCE_PREFILLING]) || !list_is_empty(&s->lists[SEQUENCE_RUNNING]);
}

struct scheduler_counts scheduler_counts(const struct scheduler *s)
{
    struct scheduler_counts counts = s->counts;
    counts.taken = (int)s->jobs.count;
    return counts;
}

/* Nobody has room: pages come back when sessions are written. */
static void wait_for_pages(struct scheduler *s)
{
    bool has_waiting =
        !list_is_empty(&s->lists[SEQUENCE_WAITING]) || !list_is_empty(&s->lists[SEQUENCE_PREEMPTED]);
    if (s->options.sessions && has_waiting)
        sessions_collect(s->options.sessions, PAGES_WAIT_MS);
}

static void compute(struct scheduler *s)
{
    scheduler_make_room(s);
    int n_decode = scheduler_collect(s);
    if (s->n_rows == 0) {
        wait_for_pages(s);
        return;
    }

    int64_t begin_us = clock_us();
    engine_step(s->engine, s->rows, s->n_rows);
    s->computed_us = clock_us();
    pace_note(&s->pace, n_decode, s->n_rows - n_decode, s->computed_us - begin_us);
    s->counts.steps++;
}

struct struct_array scheduler_step(struct scheduler *s)
{
    forget_ended(s);
    end_idle(s);
    if (s->options.sessions)
        sessions_collect(s->options.sessions, 0);
    scheduler_admit(s);
    compute(s);
    for (int i = 0; i < s->n_turns; i++)
        if (!s->turns[i].sequence->job->error_code)
            output_turn(s, &s->turns[i]);
    return (struct struct_array){ s->items, (uint32_t)s->n_items };
}

#include "broker/job.h"

#include <assert.h>
#include <stdlib.h>

#include "broker/clients.h"
#include "broker/models.h"
#include "broker/workers.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/xalloc.h"

/* What a free job may keep for the next request; a long prompt is given back. */
enum { KEEP_BYTES = 64 << 10 };

static void free_job(struct job *job)
{
    buffer_fini(&job->submit);
    answer_fini(&job->answer);
    free(job);
}

void jobs_fini(struct jobs *all)
{
    assert(all->by_number.count == 0);
    list_each(job, &all->free, struct job, place)
    {
        list_remove(&job->place);
        free_job(job);
    }
    table_fini(&all->by_number);
}

struct job *job_create(struct jobs *all)
{
    struct job *job = list_entry(all->free.first, struct job, place);
    if (job)
        list_remove(&job->place);
    else
        job = xcalloc(1, sizeof *job);
    *job = (struct job){ .submit = job->submit,
                         .answer = job->answer,
                         .number = ++all->last_number,
                         .deadline_ms = DEADLINE_NONE };
    table_put(&all->by_number, &job->by_number, table_hash_number(job->number));
    return job;
}

struct job *job_find(const struct jobs *all, uint64_t number)
{
    struct table_node *n = table_find(&all->by_number, table_hash_number(number));
    while (n && table_entry(n, struct job, by_number)->number != number)
        n = table_next(n);
    return table_entry(n, struct job, by_number);
}

static bool is_live_state(enum job_state state)
{
    return state == JOB_QUEUED || state == JOB_RUNNING || state == JOB_CANCELLING;
}

bool job_is_live(const struct job *job)
{
    return is_live_state(job->state);
}

static bool is_allowed(enum job_state from, enum job_state to)
{
    static const unsigned next[] = {
        [JOB_FREE] = 1u << JOB_QUEUED,
        [JOB_QUEUED] = 1u << JOB_RUNNING | 1u << JOB_FREE,
        [JOB_RUNNING] = 1u << JOB_QUEUED | 1u << JOB_CANCELLING | 1u << JOB_ABANDONED | 1u << JOB_FREE,
        [JOB_CANCELLING] = 1u << JOB_ABANDONED | 1u << JOB_FREE,
        [JOB_ABANDONED] = 1u << JOB_FREE,
    };
    return next[from] & 1u << to;
}

static struct list *list_of(struct jobs *all, struct job *job, enum job_state state)
{
    switch (state) {
    case JOB_FREE:
        return &all->free;
    case JOB_QUEUED:
        return &job->model->queue;
    case JOB_RUNNING:
    case JOB_CANCELLING:
    case JOB_ABANDONED:
        return &job->worker->jobs;
    }
    abort();
}

static void clear_submit(struct job *job)
{
    if (job->submit.cap > KEEP_BYTES)
        buffer_fini(&job->submit);
    buffer_clear(&job->submit);
}

/* Suspects first: each needs a worker that it may be lonely at. Then, oldest first, what has begun already.
 */
static bool goes_before(const struct job *job, const struct job *other)
{
    if (!other->n_moves || job->is_suspect != other->is_suspect)
        return !other->n_moves || job->is_suspect;
    return job->number < other->number;
}

static void put(struct list *to, struct job *job, enum job_state state)
{
    if (state == JOB_QUEUED && job->n_moves) {
        list_each(other, to, struct job, place)
        {
            if (goes_before(job, other)) {
                list_insert_before(&other->place, &job->place);
                return;
            }
        }
    }
    list_append(to, &job->place);
}

static size_t held_bytes(const struct job *job)
{
    return job->submit.len + job->answer.ids_bytes;
}

bool job_add(struct jobs *all, struct job *job, const struct step_item *item)
{
    size_t before = held_bytes(job);
    bool is_last = answer_add(&job->answer, item);
    if (job_is_live(job))
        all->held_bytes += held_bytes(job) - before;
    return is_last;
}

void job_move(struct jobs *all, struct job *job, enum job_state next)
{
    bool was_live = job_is_live(job), is_live = is_live_state(next);
    struct list *to = list_of(all, job, next);

    if (!is_allowed(job->state, next)) { /* in every build: going on could break the promise of one ending */
        log_error("job_state_broken", "req=%llu from=%d to=%d", (unsigned long long)job->number, job->state,
                  next);
        abort();
    }
    if (job->place.list != to) {
        list_remove(&job->place);
        put(to, job, next);
    }
    if (!was_live && is_live) {
        list_append(&job->client->jobs, &job->of_client);
        all->n_live++;
        all->held_bytes += held_bytes(job);
    } else if (was_live && !is_live) {
        list_remove(&job->of_client);
        job->client = NULL;
        all->n_live--;
        all->held_bytes -= held_bytes(job);
        clear_submit(job);
    }
    if (next == JOB_QUEUED)
        job->worker = NULL;
    if (next == JOB_ABANDONED)
        answer_abandon(&job->answer);
    if (next == JOB_FREE) {
        table_remove(&all->by_number, &job->by_number);
        answer_clear(&job->answer);
    }
    job->state = next;
}

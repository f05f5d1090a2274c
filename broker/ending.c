#include "broker/ending.h"

#include <assert.h>

#include "broker/broker.h"
#include "common/log.h"

bool error_is_retryable(struct slice code)
{
    static const char *const retryable[] = { ERROR_OVERLOADED,  ERROR_SHUTTING_DOWN, ERROR_DEADLINE_EXCEEDED,
                                             ERROR_WORKER_LOST, ERROR_SLOW_READER,   ERROR_INTERNAL };
    for (size_t i = 0; i < sizeof retryable / sizeof *retryable; i++)
        if (slice_is(code, retryable[i]))
            return true;
    return false;
}

static double ms_between(int64_t begin_us, int64_t end_us)
{
    return (double)(end_us - begin_us) / 1000.0;
}

static void log_ending(const struct job *job, struct slice reason, int64_t end_us)
{
    char worker[24] = "-";
    if (job->worker)
        snprintf(worker, sizeof worker, "%u", job->worker->index);
    log_info("job_done", "req=%llu model=%s worker=%s tokens=%llu ms=%.1f reason=%.*s",
             (unsigned long long)job->number, job->model->name, worker,
             (unsigned long long)job->completion_tokens, ms_between(job->accepted_us, end_us),
             (int)reason.len, reason.data);
}

static void leave(struct broker *b, struct job *job, enum job_slot slot, struct slice reason, int64_t now_ms)
{
    struct client *client = job->client;
    struct worker *worker = job->worker;

    assert(job_is_live(job));
    log_ending(job, reason, b->turn_us);
    if (worker && slot == SLOT_HELD) {
        bool is_told = job->state == JOB_CANCELLING;
        job_move(&b->jobs, job, JOB_ABANDONED);
        if (!is_told)
            worker_send(
                b, worker,
                &(struct message){ .kind = MSG_DROP, .drop = { .epoch = b->epoch, .job = job->number } },
                now_ms);
    } else {
        if (worker)
            model_note_end(job->model, now_ms);
        job_move(&b->jobs, job, JOB_FREE);
    }
    client_note_ending(b, client);
}

static struct timing timing_of(const struct job *job, int64_t end_us)
{
    struct timing t = { .queue_ms = ms_between(job->accepted_us, job->dispatched_us),
                        .total_ms = ms_between(job->accepted_us, end_us) };
    if (job->first_token_us)
        t.ttft_ms = ms_between(job->accepted_us, job->first_token_us);
    /* How long several workers took in all only the clock here can tell. */
    int64_t decode_us = job->n_moves ? end_us - job->first_token_us : (int64_t)job->decode_us;
    if (job->first_token_us && decode_us > 0)
        t.tok_s = 1e6 * (double)answer_decoded(&job->answer) / (double)decode_us;
    return t;
}

void job_end_done(struct broker *b, struct job *job, struct slice embedding, int64_t now_ms)
{
    struct message m = { .kind = MSG_DONE,
                         .done = { .id = job->client_id,
                                   .epoch = b->epoch,
                                   .embedding = embedding,
                                   .prompt_tokens = job->prompt_tokens,
                                   .completion_tokens = job->completion_tokens,
                                   .cached_tokens = job->cached_tokens,
                                   .seed = job->seed,
                                   .timing = timing_of(job, b->turn_us) } };
    if (job->cache_miss)
        m.done.cache_miss = slice_of(job->cache_miss);
    answer_fill(&job->answer, &m.done);
    if (!client_send(b, job->client, &m, job->answer.is_kept ? MAY_BE_REFUSED : MUST_FIT, now_ms)) {
        job_end_error(b, job, SLOT_FREED, slice_of(ERROR_SLOW_READER),
                      slice_of("the answer found no room: the client does not take its messages"), now_ms);
        return;
    }
    b->counts.done++;
    job->worker->done++;
    leave(b, job, SLOT_FREED, m.done.finish_reason, now_ms);
}

void job_end_cancelled(struct broker *b, struct job *job, int64_t now_ms)
{
    struct message m = { .kind = MSG_CANCELLED,
                         .cancelled = { .id = job->client_id,
                                        .epoch = b->epoch,
                                        .prompt_tokens = job->prompt_tokens,
                                        .completion_tokens = job->completion_tokens } };
    client_send(b, job->client, &m, MUST_FIT, now_ms);
    b->counts.cancelled++;
    leave(b, job, SLOT_FREED, slice_of("cancelled"), now_ms);
}

void job_end_error(struct broker *b, struct job *job, enum job_slot slot, struct slice code,
                   struct slice message, int64_t now_ms)
{
    struct message m = { .kind = MSG_ERROR,
                         .error = { .id = job->client_id,
                                    .epoch = b->epoch,
                                    .code = code,
                                    .message = message,
                                    .is_retryable = error_is_retryable(code) } };
    client_send(b, job->client, &m, MUST_FIT, now_ms);
    b->counts.failed++;
    leave(b, job, slot, code, now_ms);
}

void job_end_unheard(struct broker *b, struct job *job, int64_t now_ms)
{
    b->counts.cancelled++;
    leave(b, job, SLOT_HELD, slice_of("client_gone"), now_ms);
}

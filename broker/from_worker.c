/* Messages from workers.
 *
 * Whose they are: a worker is known from its register message on, which the broker answers with a welcome,
 * until one side takes the other for dead. What an unknown worker sends, or one that has outlived another
 * broker (its epoch says so), changes nothing and gets no answer: after PEER_TIMEOUT_MS of that silence it
 * registers anew. A worker that registers has no jobs.
 *
 * Credit: a worker has as many slots as it registered. submit takes one; an item with finish_reason or
 * error_code for a job on its list gives it back, whatever became of the client in between; so does the
 * worker's end. Items for jobs that are not on its list (it was lost and came back meanwhile) are late: they
 * are ignored, and since the slots in use are the jobs on the list, they give nothing back that was not
 * taken. */
#include "broker/broker.h"
#include "broker/ending.h"
#include "common/log.h"

/* False if the client takes no more. */
static bool deliver(struct broker *b, struct job *job, const struct step_item *item, uint64_t seq,
                    int64_t now_ms)
{
    if (!item->ids.n && !item->text.len)
        return true;
    if (!job->is_stream) {
        collected_add(&job->answer, item);
        return true;
    }
    struct message m = { .kind = MSG_TOKENS,
                         .tokens = { .id = job->client_id,
                                     .epoch = b->epoch,
                                     .seq = seq,
                                     .ids = item->ids,
                                     .text = item->text,
                                     .logprobs = item->logprobs } };
    return client_send(b, job->client, &m, MAY_BE_REFUSED, now_ms);
}

static void note_tokens(struct broker *b, struct worker *w, struct job *job, const struct step_item *item)
{
    if (item->prompt_tokens && !job->prompt_tokens) {
        job->prompt_tokens = item->prompt_tokens;
        w->prompt_tokens += item->prompt_tokens;
    }
    job->decode_us = item->decode_us;
    if (!item->ids.n)
        return;
    if (!job->first_token_us)
        job->first_token_us = b->turn_us;
    job->completion_tokens += item->ids.n;
    w->tokens += item->ids.n;
    b->counts.tokens += item->ids.n;
}

static void end_by_worker(struct broker *b, struct job *job, const struct step_item *item, int64_t now_ms)
{
    if (item->error_code.data)
        job_end_error(b, job, SLOT_FREED, item->error_code,
                      item->error_message.data ? item->error_message : slice_of("the worker failed"), now_ms);
    else if (!slice_is(item->finish_reason, "cancelled"))
        job_end_done(b, job, item->finish_reason, now_ms);
    else if (job->state == JOB_CANCELLING)
        job_end_cancelled(b, job, now_ms);
    else
        job_end_error(b, job, SLOT_FREED, slice_of(ERROR_WORKER_LOST),
                      slice_of("the worker stops before this request is done"), now_ms);
}

static void on_item(struct broker *b, struct worker *w, const struct step_item *item, int64_t now_ms)
{
    struct job *job = job_find(&b->jobs, item->job);
    bool is_last = item->finish_reason.data || item->error_code.data;
    if (!job || job->worker != w)
        return;
    if (!job_is_live(job)) {
        if (is_last) {
            model_note_end(job->model, now_ms);
            job_move(&b->jobs, job, JOB_FREE);
        }
        return;
    }

    uint64_t seq = job->completion_tokens;
    note_tokens(b, w, job, item);
    if (!deliver(b, job, item, seq, now_ms))
        job_end_error(b, job, is_last ? SLOT_FREED : SLOT_HELD, slice_of(ERROR_SLOW_READER),
                      slice_of("the client does not take its tokens as fast as they come"), now_ms);
    else if (collected_size(&job->answer) > MAX_ANSWER_BYTES ||
             collected_objects(&job->answer) > MAX_MESSAGE_OBJECTS)
        job_end_error(b, job, is_last ? SLOT_FREED : SLOT_HELD, slice_of(ERROR_BAD_REQUEST),
                      slice_of("the answer is larger than one message may be: ask for a stream"), now_ms);
    else if (is_last)
        end_by_worker(b, job, item, now_ms);
}

static void on_step(struct broker *b, struct worker *w, const struct msg_step *step, int64_t now_ms)
{
    const struct step_item *items = step->items.items;
    for (uint32_t i = 0; i < step->items.n; i++)
        on_item(b, w, &items[i], now_ms);
}

static void on_register(struct broker *b, const struct peer *from, const struct msg_register *facts,
                        int64_t now_ms)
{
    if (b->is_stopping) /* its host will be told to stop, too */
        return;
    if (facts->model.len == 0 || !worker_add(b, from, facts, now_ms))
        log_warn("worker_refused", "pid=%llu why=\"no room for another model\"",
                 (unsigned long long)facts->pid);
}

static uint64_t epoch_of(const struct message *m)
{
    return m->kind == MSG_STEP ? m->step.epoch : m->kind == MSG_WORKER_BEAT ? m->beat.epoch : m->epoch.epoch;
}

static void on_known(struct broker *b, struct worker *w, const struct message *m, int64_t now_ms)
{
    w->heard_ms = now_ms;
    if (m->kind == MSG_STEP)
        on_step(b, w, &m->step, now_ms);
    else if (m->kind == MSG_WORKER_BEAT)
        worker_take_beat(b, w, &m->beat, now_ms);
    else if (m->kind == MSG_BYE)
        worker_mark_lost(b, w, "it said bye");
}

void broker_on_worker(struct broker *b, const struct peer *from, const struct message *m, int64_t now_ms)
{
    struct worker *w = worker_find(b, from);
    if (m->kind == MSG_REGISTER)
        on_register(b, from, &m->registration, now_ms);
    else if (w && epoch_of(m) == b->epoch)
        on_known(b, w, m, now_ms);
    broker_settle(b, now_ms);
}

void broker_on_bad_worker(struct broker *b, const struct peer *from, const char *why, int64_t now_ms)
{
    struct worker *w = worker_find(b, from);
    log_warn("bad_worker_message", "why=\"%s\"", why);
    if (w)
        worker_mark_lost(b, w, "it sent a message that cannot be read");
    broker_settle(b, now_ms);
}

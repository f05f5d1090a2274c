/* Messages from workers.
 *
 * Whose they are: a worker is known from its register message on, which the broker answers with a welcome,
 * until one side takes the other for dead. What an unknown worker sends, or one that has outlived another
 * broker (its epoch says so), changes nothing and gets no answer: after PEER_TIMEOUT_MS of that silence it
 * registers anew. A worker that registers has no jobs.
 *
 * Credit: a worker has as many slots as it registered. submit takes one; the item that ends a job on its list
 * (answer_add says which) gives it back, whatever became of the client in between; so does the
 * worker's end. Items for jobs that are not on its list (it was lost and came back meanwhile) are late: they
 * are ignored, and since the slots in use are the jobs on the list, they give nothing back that was not
 * taken. */
#include "broker/broker.h"
#include "broker/ending.h"
#include "common/log.h"

/* is_end: of this choice, of several. False if the client takes no more. */
static bool deliver(struct broker *b, struct job *job, const struct step_item *item, bool is_end,
                    int64_t now_ms)
{
    const struct candidate *c = &job->answer.candidates[item->choice];
    bool has_news = item->ids.n || item->text.len || item->prompt_logprobs.n || is_end;
    if (job->answer.is_kept || !has_news)
        return true;
    struct message m = { .kind = MSG_TOKENS,
                         .tokens = { .id = job->client_id,
                                     .epoch = b->epoch,
                                     .choice = item->choice,
                                     .seq = c->n_tokens - item->ids.n,
                                     .ids = item->ids,
                                     .text = item->text,
                                     .logprobs = item->logprobs,
                                     .prompt_logprobs = item->prompt_logprobs } };
    if (is_end)
        m.tokens.finish_reason = slice_of(c->finish_reason);
    return client_send(b, job->client, &m, MAY_BE_REFUSED, now_ms);
}

/* The worker's word as a text that stays. */
static const char *cache_miss_of(struct slice why)
{
    static const char *const known[] = { "new", "evicted", "short", "not_used" };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (slice_is(why, known[i]))
            return known[i];
    return NULL;
}

static void note_tokens(struct broker *b, struct worker *w, struct job *job, const struct step_item *item)
{
    if (item->prompt_tokens && !job->prompt_tokens) {
        job->prompt_tokens = item->prompt_tokens;
        job->cached_tokens = item->cached_tokens;
        job->cache_miss = cache_miss_of(item->cache_miss);
        w->prompt_tokens += item->prompt_tokens;
    }
    if (item->decode_us > job->decode_us)
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
        job_end_done(b, job, item->embedding, now_ms);
    else
        job_end_cancelled(b, job, now_ms);
}

static const char answer_too_large[] = "the answer is larger than one message may be: ask for a stream";
static const char reader_too_slow[] = "the client does not take its tokens as fast as they come";

static void tell_client(struct broker *b, struct job *job, const struct step_item *item, bool is_end,
                        bool is_last, int64_t now_ms)
{
    enum job_slot slot = is_last ? SLOT_FREED : SLOT_HELD;
    if (!deliver(b, job, item, is_end, now_ms))
        job_end_error(b, job, slot, slice_of(ERROR_SLOW_READER), slice_of(reader_too_slow), now_ms);
    else if (job->answer.is_kept && (answer_size(&job->answer) > MAX_ANSWER_BYTES ||
                                     answer_objects(&job->answer) > MAX_MESSAGE_OBJECTS))
        job_end_error(b, job, slot, slice_of(ERROR_BAD_REQUEST), slice_of(answer_too_large), now_ms);
    else if (is_last)
        end_by_worker(b, job, item, now_ms);
}

/* It goes on, so it is not what killed its last worker. */
static void note_progress(struct broker *b, struct job *job)
{
    if (job->lost_us)
        log_info("job_resumed", "req=%llu model=%s worker=%u tokens=%llu ms=%.1f",
                 (unsigned long long)job->number, job->model->name, job->worker->index,
                 (unsigned long long)job->completion_tokens, (double)(b->turn_us - job->lost_us) / 1000.0);
    job->lost_us = 0;
    job->has_progress = true;
    job->is_suspect = false;
    job->blame = 0;
}

static const char *find_fault(const struct job *job, const struct step_item *item)
{
    if (job->state == JOB_RUNNING && slice_is(item->finish_reason, "cancelled"))
        return "it gave up a request that nobody cancelled";
    return answer_find_fault(&job->answer, item);
}

static void on_item(struct broker *b, struct worker *w, const struct step_item *item, int64_t now_ms)
{
    struct job *job = job_find(&b->jobs, item->job);
    if (!job || job->worker != w)
        return;
    const char *fault = find_fault(job, item);
    if (fault) {
        worker_mark_lost(b, w, fault);
        return;
    }
    const struct candidate *c = &job->answer.candidates[item->choice];
    bool had_ended = c->finish_reason != NULL;
    bool is_last = job_add(&b->jobs, job, item);
    if (item->ids.n || item->prompt_logprobs.n || item->finish_reason.data || is_last)
        note_progress(b, job);
    if (job_is_live(job)) {
        bool is_end = job->answer.n_choices > 1 && c->finish_reason && !had_ended;
        note_tokens(b, w, job, item);
        tell_client(b, job, item, is_end, is_last, now_ms);
    } else if (is_last) {
        model_note_end(job->model, now_ms);
        job_move(&b->jobs, job, JOB_FREE);
    }
}

static void on_step(struct broker *b, struct worker *w, const struct msg_step *step, int64_t now_ms)
{
    const struct step_item *items = step->items.items;
    for (uint32_t i = 0; i < step->items.n && !w->lost_why; i++)
        on_item(b, w, &items[i], now_ms);
}

static void on_register(struct broker *b, const struct peer *from, const struct msg_register *facts,
                        int64_t now_ms)
{
    if (b->is_stopping && !b->jobs.n_live) /* its host will be told to stop, too */
        return;
    const struct model *model = model_find(b, facts->model);
    if (facts->model.len == 0)
        worker_refuse(b, from, "its model has no name");
    else if (model && !model_is_same(model, facts))
        worker_refuse(b, from, "another model, or another context length (--ctx), is served under this name");
    else if (!worker_add(b, from, facts, now_ms))
        worker_refuse(b, from, "no room for another model");
}

static uint64_t epoch_of(const struct message *m)
{
    switch (m->kind) {
    case MSG_STEP:
        return m->step.epoch;
    case MSG_ADVANCED:
        return m->advanced.epoch;
    case MSG_WORKER_BEAT:
        return m->beat.epoch;
    default:
        return m->epoch.epoch;
    }
}

static void on_bye(struct broker *b, struct worker *w)
{
    w->said_bye = true;
    worker_mark_lost(b, w, "it said bye");
}

static void on_known(struct broker *b, struct worker *w, const struct message *m, int64_t now_ms)
{
    w->heard_ms = now_ms;
    if (m->kind == MSG_STEP)
        on_step(b, w, &m->step, now_ms);
    else if (m->kind == MSG_WORKER_BEAT)
        worker_take_beat(b, w, &m->beat, now_ms);
    else if (m->kind == MSG_BYE)
        on_bye(b, w);
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
    if (w) {
        log_warn("bad_worker_message", "why=\"%s\"", why);
        worker_mark_lost(b, w, "it sent a message that cannot be read");
    } else {
        worker_refuse(b, from, why); /* another version of the protocol, perhaps */
    }
    broker_settle(b, now_ms);
}

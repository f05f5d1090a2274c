/* Which worker gets the next job: the one with the largest share of its slots free; among equals the one that
 * has waited longest for a job, so that equals take turns. One of which nothing was heard for a while comes
 * last: it may be stuck. */
#include "broker/failover.h"

static bool is_better(const struct worker *a, const struct worker *b, int64_t now_ms)
{
    bool is_a_quiet = worker_is_quiet(a, now_ms), is_b_quiet = worker_is_quiet(b, now_ms);
    /* free_a / slots_a against free_b / slots_b, without rounding */
    uint64_t a_share = (uint64_t)(a->slots - a->jobs.count) * b->slots;
    uint64_t b_share = (uint64_t)(b->slots - b->jobs.count) * a->slots;
    if (is_a_quiet != is_b_quiet)
        return is_b_quiet;
    return a_share != b_share ? a_share > b_share : a->last_dispatch < b->last_dispatch;
}

static struct worker *choose_worker(const struct model *model, int64_t now_ms)
{
    struct worker *best = NULL;
    list_each(w, &model->workers, struct worker, of_model)
    {
        if (worker_has_room(w) && !failover_has_suspect(w) && (!best || is_better(w, best, now_ms)))
            best = w;
    }
    return best;
}

static bool hand_out(struct broker *b, struct job *job, struct worker *w, int64_t now_ms)
{
    const struct buffer *submit = job->n_moves ? failover_write_submit(b, job) : &job->submit;
    if (!worker_send_bytes(b, w, submit, now_ms))
        return false;
    w->last_dispatch = ++b->n_dispatched;
    job->worker = w;
    job->sent_ms = now_ms;
    if (!job->dispatched_us)
        job->dispatched_us = b->turn_us;
    job_move(&b->jobs, job, JOB_RUNNING);
    return true;
}

void broker_dispatch(struct broker *b, struct model *model, int64_t now_ms)
{
    while (!list_is_empty(&model->queue)) {
        struct job *job = list_entry(model->queue.first, struct job, place);
        struct worker *w = choose_worker(model, now_ms);
        if (!w)
            return;
        /* A worker that does not take it is lost, and the job waits on for another one. */
        hand_out(b, job, w, now_ms);
    }
}

/* Which worker gets the next job: the one with the largest share of its slots free; among equals the one that
 * has waited longest for a job, so that equals take turns. */
#include "broker/broker.h"

static bool is_better(const struct worker *a, const struct worker *b)
{
    /* free_a / slots_a against free_b / slots_b, without rounding */
    uint64_t a_share = (uint64_t)(a->slots - a->jobs.count) * b->slots;
    uint64_t b_share = (uint64_t)(b->slots - b->jobs.count) * a->slots;
    return a_share != b_share ? a_share > b_share : a->last_dispatch < b->last_dispatch;
}

static struct worker *choose_worker(const struct model *model)
{
    struct worker *best = NULL;
    list_each(w, &model->workers, struct worker, of_model)
    {
        if (worker_has_room(w) && (!best || is_better(w, best)))
            best = w;
    }
    return best;
}

void broker_dispatch(struct broker *b, struct model *model, int64_t now_ms)
{
    while (!list_is_empty(&model->queue)) {
        struct job *job = list_entry(model->queue.first, struct job, place);
        struct worker *w = choose_worker(model);
        if (!w)
            return;
        /* A worker that does not take it is lost, and the job waits on for another one. */
        if (!worker_send_bytes(b, w, &job->submit, now_ms))
            continue;
        w->last_dispatch = ++b->n_dispatched;
        job->worker = w;
        job->dispatched_us = b->turn_us;
        job_move(&b->jobs, job, JOB_RUNNING);
    }
}

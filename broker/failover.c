#include "broker/failover.h"

#include <stdlib.h>

#include "broker/ending.h"
#include "common/log.h"

/* In the company of others only half as much is proven. */
enum { BLAME_AMONG_OTHERS = 1, BLAME_ALONE = 2, MOST_BLAME = 4 };

static void judge(struct job *job, const struct worker *w)
{
    bool was_alone = w->jobs.count == 1;
    if (w->said_bye) /* it was told to end */
        return;
    if (was_alone)
        job->blame += BLAME_ALONE;
    else if (job->is_suspect)
        job->blame += BLAME_AMONG_OTHERS;
    job->is_suspect = was_alone || !job->has_progress;
}

static void give_away(struct broker *b, struct job *job, const struct worker *w, int64_t now_ms)
{
    char why[200];
    if (job->blame >= MOST_BLAME) {
        snprintf(why, sizeof why, "workers died of this request again and again: %s", w->lost_why);
        job_end_error(b, job, SLOT_FREED, slice_of(ERROR_POISON), slice_of(why), now_ms);
    } else if (!job->answer.is_resumable) {
        snprintf(why, sizeof why,
                 "the worker of this request is lost, and the answer too long to go on with: %s",
                 w->lost_why);
        job_end_error(b, job, SLOT_FREED, slice_of(ERROR_WORKER_LOST), slice_of(why), now_ms);
    } else {
        job->n_moves++;
        job->has_progress = false;
        job->lost_us = job->lost_us ? job->lost_us : b->turn_us;
        b->counts.moved++;
        job_move(&b->jobs, job, JOB_QUEUED);
    }
}

void failover_begin(struct broker *b, struct worker *w, int64_t now_ms)
{
    list_each(judged, &w->jobs, struct job, place) judge(judged, w);
    list_each(job, &w->jobs, struct job, place)
    {
        if (job->state == JOB_RUNNING)
            give_away(b, job, w, now_ms);
        else if (job->state == JOB_CANCELLING)
            job_end_cancelled(b, job, now_ms);
        else
            job_move(&b->jobs, job, JOB_FREE);
    }
}

const struct buffer *failover_write_submit(struct broker *b, struct job *job)
{
    struct message m;
    struct error err;
    if (message_decode(b->decoder, BROKER_TO_WORKER, job->submit.data, job->submit.len, &m, &err) != OK) {
        log_error("submit_broken", "req=%llu why=\"%s\"", (unsigned long long)job->number, err.text);
        abort(); /* it is as we wrote it */
    }
    answer_fill_resume(&job->answer, &m.submit.request);
    message_encode(&b->out, &m);
    return &b->out;
}

bool failover_has_suspect(const struct worker *w)
{
    list_each(job, &w->jobs, struct job, place)
    {
        if (job->is_suspect)
            return true;
    }
    return false;
}

#include "broker/broker.h"

#include "broker/ending.h"
#include "common/clock.h"
#include "common/log.h"

void broker_init(struct broker *b, const struct port *port, uint64_t epoch, pid_t supervisor,
                 uint32_t queue_limit, int64_t stall_ms, int64_t now_ms)
{
    *b = (struct broker){ .port = *port,
                          .epoch = epoch,
                          .supervisor = supervisor,
                          .queue_limit = queue_limit,
                          .stall_ms = stall_ms,
                          .decoder = decoder_create(),
                          .started_ms = now_ms,
                          .wake_ms = DEADLINE_NONE };
}

void broker_fini(struct broker *b)
{
    list_each(client, &b->clients, struct client, of_broker)
    {
        client->is_gone = true;
        list_each(job, &client->jobs, struct job, of_client) job_end_unheard(b, job, b->started_ms);
        client_destroy(b, client);
    }
    list_each(worker, &b->workers, struct worker, of_broker)
    {
        worker_mark_lost(b, worker, "the broker ends");
        worker_take_apart(b, worker, b->started_ms);
    }
    list_each(model, &b->models, struct model, of_broker) model_destroy(model);
    jobs_fini(&b->jobs);
    table_fini(&b->clients_by_peer);
    buffer_fini(&b->out);
    buffer_fini(&b->rows);
    decoder_destroy(b->decoder);
}

void broker_wake_at(struct broker *b, int64_t when_ms)
{
    b->wake_ms = deadline_earlier(b->wake_ms, when_ms);
}

/* Without live jobs there is nothing left that a worker could finish. */
static void tell_workers_to_stop(struct broker *b, int64_t now_ms)
{
    if (!b->is_stopping || b->are_workers_told || b->jobs.n_live)
        return;
    b->are_workers_told = true;
    b->flush_end_ms = now_ms + STOP_FLUSH_MS;
    list_each(w, &b->workers, struct worker, of_broker)
    {
        if (!w->peer.is_remote) /* those of other machines wait for the next server */
            worker_send(b, w, &(struct message){ .kind = MSG_STOP, .epoch = { .epoch = b->epoch } }, now_ms);
    }
}

void broker_settle(struct broker *b, int64_t now_ms)
{
    do {
        while (!list_is_empty(&b->lost_workers))
            worker_take_apart(b, list_entry(b->lost_workers.first, struct worker, of_lost), now_ms);
        while (!list_is_empty(&b->unsettled_clients))
            client_settle(b, list_entry(b->unsettled_clients.first, struct client, of_unsettled), now_ms);
        list_each(model, &b->models, struct model, of_broker) broker_dispatch(b, model, now_ms);
        tell_workers_to_stop(b, now_ms);
    } while (!list_is_empty(&b->lost_workers) || !list_is_empty(&b->unsettled_clients));
}

static void end_if_late(struct broker *b, struct job *job, int64_t now_ms)
{
    if (!job_is_live(job))
        return;
    if (deadline_passed(now_ms, job->deadline_ms))
        job_end_error(b, job, SLOT_HELD, slice_of(ERROR_DEADLINE_EXCEEDED),
                      slice_of("the request did not end within its deadline_ms"), now_ms);
    else
        broker_wake_at(b, job->deadline_ms);
}

static void check_deadlines(struct broker *b, int64_t now_ms)
{
    list_each(model, &b->models, struct model, of_broker)
    {
        list_each(queued, &model->queue, struct job, place) end_if_late(b, queued, now_ms);
    }
    list_each(worker, &b->workers, struct worker, of_broker)
    {
        /* An abandoned job stays on this list, so the loop stands firm. */
        list_each(running, &worker->jobs, struct job, place) end_if_late(b, running, now_ms);
    }
}

static void end_grace(struct broker *b, int64_t now_ms)
{
    if (!b->is_stopping || !b->jobs.n_live)
        return;
    if (!deadline_passed(now_ms, b->grace_end_ms)) {
        broker_wake_at(b, b->grace_end_ms);
        return;
    }
    list_each(client, &b->clients, struct client, of_broker)
    {
        list_each(job, &client->jobs, struct job, of_client)
            job_end_error(b, job, SLOT_HELD, slice_of(ERROR_SHUTTING_DOWN),
                          slice_of("the server stops before this request is done"), now_ms);
    }
}

void broker_upkeep(struct broker *b, int64_t now_ms)
{
    b->wake_ms = DEADLINE_NONE;
    check_deadlines(b, now_ms);
    list_each(worker, &b->workers, struct worker, of_broker) worker_upkeep(b, worker, now_ms);
    list_each(client, &b->clients, struct client, of_broker) client_upkeep(b, client, now_ms);
    list_each(model, &b->models, struct model, of_broker) model_upkeep(b, model, now_ms);
    end_grace(b, now_ms);
    broker_settle(b, now_ms);
}

void broker_on_worker_exit(struct broker *b, struct worker *w, int64_t now_ms)
{
    worker_mark_lost(b, w, "its process ended");
    broker_settle(b, now_ms);
}

void broker_stop(struct broker *b, int64_t grace_ms, int64_t now_ms)
{
    int64_t end_ms = now_ms + grace_ms;
    if (!b->is_stopping) {
        log_info("stopping", "running=%zu grace_ms=%lld", b->jobs.n_live, (long long)grace_ms);
        b->is_stopping = true;
        b->grace_end_ms = end_ms;
        list_each(model, &b->models, struct model, of_broker)
        {
            list_each(job, &model->queue, struct job, place)
            {
                if (!job->n_moves) /* else it runs, and only changes its worker */
                    job_end_error(b, job, SLOT_FREED, slice_of(ERROR_SHUTTING_DOWN),
                                  slice_of("the server stops"), now_ms);
            }
        }
    }
    b->grace_end_ms = deadline_earlier(b->grace_end_ms, end_ms);
    end_grace(b, now_ms);
    broker_settle(b, now_ms);
}

bool broker_is_stopped(const struct broker *b, int64_t now_ms)
{
    return b->are_workers_told && (list_is_empty(&b->clients) || deadline_passed(now_ms, b->flush_end_ms));
}

bool broker_is_complete(const struct broker *b)
{
    list_each(model, &b->models, struct model, of_broker)
    {
        if (model->workers.count < model->wanted_workers)
            return false;
    }
    return true;
}

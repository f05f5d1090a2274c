/* What the broker says about itself: models, stats, health. */
#include <stdio.h>
#include <unistd.h>

#include "broker/broker.h"

/* Rows are built in a buffer that is kept: struct struct_array points into it until the next report. */
static void *add_row(struct broker *b, size_t size)
{
    void *row = buffer_reserve(&b->rows, size);
    b->rows.len += size;
    return row;
}

static struct struct_array all_rows(const struct broker *b, size_t size)
{
    return (struct struct_array){ b->rows.data, (uint32_t)(b->rows.len / size) };
}

static void report_models(struct broker *b, struct message *m)
{
    list_each(model, &b->models, struct model, of_broker)
    {
        *(struct model_row *)add_row(b, sizeof(struct model_row)) = (struct model_row){
            .name = slice_of(model->name),
            .path = slice_of(model->path),
            .architecture = slice_of(model->architecture),
            .state = slice_of(list_is_empty(&model->workers) ? "loading" : "ready"),
            .parameters = model->parameters,
            .weight_bytes = model->weight_bytes,
            .n_ctx = model->n_ctx,
            .n_vocab = model->n_vocab,
            .workers = (uint32_t)model->workers.count,
            .slots = model_slots(model),
            .running = model_running(model),
            .queued = (uint32_t)model->queue.count,
        };
    }
    m->kind = MSG_MODELS_REPLY;
    m->models.models = all_rows(b, sizeof(struct model_row));
}

static uint64_t resident_bytes(void)
{
    unsigned long long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_worker_row(struct broker *b, const struct worker *w, int64_t now_ms)
{
    *(struct worker_row *)add_row(b, sizeof(struct worker_row)) = (struct worker_row){
        .model = slice_of(w->model->name),
        .index = w->index,
        .pid = (uint64_t)w->pid,
        .slots = w->slots,
        .running = (uint32_t)w->jobs.count,
        .done = w->done,
        .tokens = w->tokens,
        .prompt_tokens = w->prompt_tokens,
        .tok_s = w->tok_s,
        .beat_age_ms = (double)(now_ms - w->heard_ms),
        .kv_pages = w->kv_pages,
        .kv_used = w->kv_used,
        .kv_cached = w->kv_cached,
        .preempted = w->preempted,
        .cached_tokens = w->cached_tokens,
    };
}

static void report_stats(struct broker *b, struct message *m, int64_t now_ms)
{
    uint64_t queued = 0, running = 0;
    list_each(model, &b->models, struct model, of_broker) queued += model->queue.count;
    list_each(w, &b->workers, struct worker, of_broker)
    {
        running += w->jobs.count;
        add_worker_row(b, w, now_ms);
    }
    m->kind = MSG_STATS_REPLY;
    m->stats.version = slice_of(WOOLLY_VERSION);
    m->stats.uptime_s = (double)(now_ms - b->started_ms) / 1000.0;
    m->stats.clients = b->clients.count;
    m->stats.queued = queued;
    m->stats.running = running;
    m->stats.accepted = b->counts.accepted;
    m->stats.done = b->counts.done;
    m->stats.failed = b->counts.failed;
    m->stats.cancelled = b->counts.cancelled;
    m->stats.refused = b->counts.refused;
    m->stats.moved = b->counts.moved;
    m->stats.tokens = b->counts.tokens;
    m->stats.rss_bytes = resident_bytes();
    m->stats.workers = all_rows(b, sizeof(struct worker_row));
}

static bool can_every_model_answer(const struct broker *b)
{
    list_each(model, &b->models, struct model, of_broker)
    {
        if (list_is_empty(&model->workers))
            return false;
    }
    return true;
}

static void report_health(struct broker *b, struct message *m)
{
    bool is_ready = !b->is_stopping && can_every_model_answer(b);
    m->kind = MSG_HEALTH_REPLY;
    m->health.is_ready = is_ready;
    m->health.status = slice_of(b->is_stopping ? "stopping" : is_ready ? "ok" : "loading");
    m->health.pid = (uint64_t)b->supervisor;
    m->health.version = slice_of(WOOLLY_VERSION);
}

void broker_report(struct broker *b, const struct peer *to, const struct message *request, int64_t now_ms)
{
    /* Every reply begins with these two. */
    struct message m = { .empty = { .id = request->request.id, .epoch = b->epoch } };

    buffer_clear(&b->rows);
    if (request->kind == MSG_MODELS)
        report_models(b, &m);
    else if (request->kind == MSG_STATS)
        report_stats(b, &m, now_ms);
    else
        report_health(b, &m);
    peer_send(b, to, &m, now_ms);
}

#include <stdio.h>
#include <stdlib.h>

#include "proto/cli/cli.h"
#include "proto/cli/json.h"
#include "proto/cli/table.h"
#include "proto/cli/terminal.h"

static json_t *worker_json(const struct woolly_worker *worker)
{
    json_t *row = json_object();
    json_put_text(row, "model", worker->model);
    json_put_count(row, "index", worker->index);
    json_put_count(row, "pid", worker->pid);
    json_put_count(row, "slots", worker->slots);
    json_put_count(row, "running", worker->running);
    json_put_count(row, "done", worker->done);
    json_put_count(row, "tokens", worker->tokens);
    json_put_count(row, "prompt_tokens", worker->prompt_tokens);
    json_put_number(row, "tok_s", worker->tok_s);
    json_put_number(row, "beat_age_ms", worker->beat_age_ms);
    json_put_count(row, "kv_pages", worker->kv_pages);
    json_put_count(row, "kv_used", worker->kv_used);
    json_put_count(row, "kv_cached", worker->kv_cached);
    json_put_count(row, "preempted", worker->preempted);
    json_put_count(row, "cached_tokens", worker->cached_tokens);
    return row;
}

static void print_json(const struct woolly_stats *s)
{
    json_t *object = json_object(), *rows = json_array();
    json_put_text(object, "version", s->version);
    json_put_number(object, "uptime_s", s->uptime_s);
    json_put_count(object, "clients", s->clients);
    json_put_count(object, "queued", s->queued);
    json_put_count(object, "running", s->running);
    json_put_count(object, "accepted", s->accepted);
    json_put_count(object, "done", s->done);
    json_put_count(object, "failed", s->failed);
    json_put_count(object, "cancelled", s->cancelled);
    json_put_count(object, "refused", s->refused);
    json_put_count(object, "moved", s->moved);
    json_put_count(object, "tokens", s->tokens);
    json_put_count(object, "rss_bytes", s->rss_bytes);
    for (size_t i = 0; i < s->n_workers; i++)
        json_array_append_new(rows, worker_json(&s->workers[i]));
    json_object_set_new(object, "workers", rows);
    json_print(object);
}

static void print_text(const struct woolly_stats *s)
{
    static const struct column columns[] = {
        { "WORKER", false }, { "PID", true },    { "RUNNING", true },       { "SLOTS", true },
        { "DONE", true },    { "TOKENS", true }, { "PROMPT TOKENS", true }, { "CACHED", true },
        { "KV USED", true }, { "TOK/S", true },  { "HEARD", true },
    };
    char version[64];
    terminal_clean(s->version, version, sizeof version);
    printf("version %s, up %.0f s, %.1f MiB, %llu clients\n", version, s->uptime_s,
           (double)s->rss_bytes / (1 << 20), (unsigned long long)s->clients);
    printf("requests: %llu running, %llu queued; %llu accepted, %llu done, %llu failed, %llu cancelled, "
           "%llu refused; %llu moved from lost workers\n",
           (unsigned long long)s->running, (unsigned long long)s->queued, (unsigned long long)s->accepted,
           (unsigned long long)s->done, (unsigned long long)s->failed, (unsigned long long)s->cancelled,
           (unsigned long long)s->refused, (unsigned long long)s->moved);
    printf("tokens: %llu\n\n", (unsigned long long)s->tokens);

    struct table t;
    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < s->n_workers; i++) {
        const struct woolly_worker *row = &s->workers[i];
        table_add(&t, "%s.%u", row->model, row->index);
        table_add(&t, "%llu", (unsigned long long)row->pid);
        table_add(&t, "%u", row->running);
        table_add(&t, "%u", row->slots);
        table_add(&t, "%llu", (unsigned long long)row->done);
        table_add(&t, "%llu", (unsigned long long)row->tokens);
        table_add(&t, "%llu", (unsigned long long)row->prompt_tokens);
        table_add(&t, "%llu", (unsigned long long)row->cached_tokens);
        table_add(&t, "%.0f%%", row->kv_pages ? 100.0 * (double)row->kv_used / (double)row->kv_pages : 0);
        table_add(&t, "%.1f", row->tok_s);
        table_add(&t, "%.0f ms ago", row->beat_age_ms);
    }
    table_print(&t);
}

int command_stats(int argc, char **argv)
{
    struct common_options o;
    struct woolly *w;
    struct woolly_stats stats;
    struct woolly_error err;

    common_options_parse(&o, argc, argv);
    int status = connect_to_server(&w, o.endpoint);
    if (status)
        return status;
    if (woolly_get_stats(w, ANSWER_MS, &stats, &err) != WOOLLY_OK)
        status = report_failure(&err);
    else if (o.wants_json)
        print_json(&stats);
    else
        print_text(&stats);
    woolly_close(w);
    return status;
}

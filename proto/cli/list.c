#include <stdio.h>
#include <stdlib.h>

#include "proto/cli/cli.h"
#include "proto/cli/json.h"
#include "proto/cli/table.h"

static void print_json(const struct woolly_models *m)
{
    json_t *rows = json_array(), *object = json_object();
    for (size_t i = 0; i < m->n; i++) {
        const struct woolly_model *model = &m->models[i];
        json_t *row = json_object();
        json_put_text(row, "name", model->name);
        json_put_text(row, "path", model->path);
        json_put_text(row, "architecture", model->architecture);
        json_put_text(row, "state", model->state);
        json_put_count(row, "parameters", model->parameters);
        json_put_count(row, "weight_bytes", model->weight_bytes);
        json_put_count(row, "n_ctx", model->n_ctx);
        json_put_count(row, "n_vocab", model->n_vocab);
        json_put_count(row, "workers", model->workers);
        json_put_count(row, "slots", model->slots);
        json_put_count(row, "running", model->running);
        json_put_count(row, "queued", model->queued);
        json_array_append_new(rows, row);
    }
    json_object_set_new(object, "models", rows);
    json_print(object);
}

/* 1100048384 as "1.1B"; "-" for a model that has not told yet. */
static void add_count(struct table *t, uint64_t n)
{
    static const struct {
        double unit;
        const char *letter;
    } units[] = { { 1e9, "B" }, { 1e6, "M" }, { 1e3, "K" } };

    if (!n) {
        table_add(t, "-");
        return;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if ((double)n >= units[i].unit) {
            table_add(t, "%.3g%s", (double)n / units[i].unit, units[i].letter);
            return;
        }
    }
    table_add(t, "%llu", (unsigned long long)n);
}

static void print_table(const struct woolly_models *m)
{
    static const struct column columns[] = {
        { "NAME", false },      { "STATE", false },  { "ARCHITECTURE", false },
        { "PARAMETERS", true }, { "CONTEXT", true }, { "WORKERS", true },
        { "SLOTS", true },      { "RUNNING", true }, { "QUEUED", true },
    };
    struct table t;
    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < m->n; i++) {
        const struct woolly_model *row = &m->models[i];
        table_add(&t, "%s", row->name);
        table_add(&t, "%s", row->state);
        table_add(&t, "%s", *row->architecture ? row->architecture : "-");
        add_count(&t, row->parameters);
        table_add(&t, "%u", row->n_ctx);
        table_add(&t, "%u", row->workers);
        table_add(&t, "%u", row->slots);
        table_add(&t, "%u", row->running);
        table_add(&t, "%u", row->queued);
    }
    table_print(&t);
}

int command_list(int argc, char **argv)
{
    struct common_options o;
    struct woolly *w;
    struct woolly_models models;
    struct woolly_error err;

    common_options_parse(&o, argc, argv);
    int status = connect_to_server(&w, o.endpoint);
    if (status)
        return status;
    if (woolly_get_models(w, ANSWER_MS, &models, &err) != WOOLLY_OK)
        status = report_failure(&err);
    else if (o.wants_json)
        print_json(&models);
    else
        print_table(&models);
    woolly_close(w);
    return status;
}

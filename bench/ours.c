#include "bench/ours.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/child.h"

static void add_rates(struct samples *to, const json_t *seconds, double tokens)
{
    size_t i;
    json_t *s;
    json_array_foreach((json_t *)seconds, i, s) if (json_number_value(s) > 0)
        samples_add(to, tokens / json_number_value(s));
}

static void copy_text(char *to, size_t size, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    snprintf(to, size, "%s", text ? text : "");
}

/* Line 0 tells of the model, line i of trial i - 1, the one behind of the cores. */
static void take_line(size_t line, const json_t *object, struct trial *trials, size_t n,
                      struct subject *subject)
{
    if (line == n + 1) {
        subject->cpu_s += json_number_value(json_object_get(object, "cpu_s"));
        subject->wanted_s += json_number_value(json_object_get(object, "wanted_s"));
        return;
    }
    if (!line) {
        copy_text(subject->architecture, sizeof subject->architecture, object, "architecture");
        subject->parameters = json_integer_value(json_object_get(object, "parameters"));
        subject->weight_bytes = json_integer_value(json_object_get(object, "weight_bytes"));
        return;
    }
    struct trial *t = &trials[line - 1];
    copy_text(subject->isa, sizeof subject->isa, object, "isa");
    copy_text(subject->kv, sizeof subject->kv, object, "kv");
    add_rates(&t->prefill_rate[OURS], json_object_get(object, "prefill_s"), (double)t->prompt * t->sequences);
    add_rates(&t->decode_rate[OURS], json_object_get(object, "decode_s"), (double)t->decode * t->sequences);
}

static enum status take_lines(char *text, struct trial *trials, size_t n, struct subject *subject,
                              struct error *err)
{
    size_t line = 0;
    char *rest = text;
    for (char *words; (words = strsep(&rest, "\n")) && *words; line++) {
        json_t *object = json_loads(words, 0, NULL);
        if (!object || line > n + 1) {
            json_decref(object);
            break;
        }
        take_line(line, object, trials, n, subject);
        json_decref(object);
    }
    return line == n + 2 ? OK : error_set(err, E_FORMAT, "woolly-bench-engine printed what was not expected");
}

int ours_measure(const struct engine_request *q, struct trial *trials, size_t n, int reps,
                 struct subject *subject)
{
    struct command c = { 0 };
    struct buffer output = { 0 };
    struct error err;
    int status = EXIT_FAILURE;

    enum status s = child_add_own(&c, "woolly-bench-engine", &err);
    if (s == OK) {
        command_add(&c, "--model");
        command_add(&c, "%s", q->model);
        command_add(&c, "--kv");
        command_add(&c, "%s", q->kv);
        command_add(&c, "--reps");
        command_add(&c, "%d", reps);
        for (size_t i = 0; i < n; i++)
            command_add(&c, "%d:%d:%d:%d:%d", trials[i].threads, trials[i].depth, trials[i].sequences,
                        trials[i].prompt, trials[i].decode);
        s = child_run(&c, &output, NULL, &status, &err);
    }
    if (s == OK && status == EXIT_SUCCESS)
        s = take_lines(output.data, trials, n, subject, &err);
    if (s != OK) {
        fprintf(stderr, "woolly-bench engine: %s\n", err.text);
        status = EXIT_FAILURE;
    }
    command_fini(&c);
    buffer_fini(&output);
    return status;
}

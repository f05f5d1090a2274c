#include "bench/peer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/child.h"

enum status peer_find_depth(const char *program, enum peer_depth *depth, struct error *err)
{
    struct command c = { 0 };
    struct buffer output = { 0 }, complaints = { 0 };
    int status;
    command_add(&c, "%s", program);
    command_add(&c, "--help");
    enum status s = child_run(&c, &output, &complaints, &status, err);
    if (s == OK) {
        *depth = strstr(output.data, "--n-depth")     ? PEER_DEPTH_OPTION
                 : strstr(output.data, "-gp <pp,tg>") ? PEER_GP_OPTION
                                                      : PEER_NO_DEPTH;
        if (*depth == PEER_NO_DEPTH)
            s = error_set(err, E_UNSUPPORTED, "%s has no option for a depth", program);
    }
    command_fini(&c);
    buffer_fini(&output);
    buffer_fini(&complaints);
    return s;
}

static void add_option(struct command *c, const char *option, const char *value)
{
    command_add(c, "%s", option);
    command_add(c, "%s", value);
}

static void add_number(struct command *c, const char *option, int value)
{
    command_add(c, "%s", option);
    command_add(c, "%d", value);
}

/* llama-bench does every prompt and every decode on its own. */
static void ask_llama_bench(struct command *c, const struct engine_request *q, enum peer_depth depth,
                            const struct trial *t)
{
    bool uses_gp = t->depth && depth == PEER_GP_OPTION;
    char *prompt = numbers_print(&q->prompt), *decode = numbers_print(&q->decode);
    add_option(c, "-fa", "1");
    add_option(c, "-p", uses_gp ? "0" : prompt);
    add_option(c, "-n", uses_gp ? "0" : decode);
    for (int i = 0; uses_gp && i < q->decode.n; i++) {
        command_add(c, "-gp");
        command_add(c, "%d,%d", t->depth, q->decode.values[i]);
    }
    if (t->depth && depth == PEER_DEPTH_OPTION)
        add_number(c, "-d", t->depth);
    add_option(c, "-r", "1");
    add_option(c, "-o", "json");
    free(prompt);
    free(decode);
}

/* llama-batched-bench does every combination in a cache that must hold the largest. */
static void ask_llama_batched_bench(struct command *c, const struct engine_request *q)
{
    char *prompt = numbers_print(&q->prompt), *decode = numbers_print(&q->decode),
         *batch = numbers_print(&q->batch);
    int cache = numbers_largest(&q->batch) * (numbers_largest(&q->prompt) + numbers_largest(&q->decode));
    add_number(c, "-c", (cache + 255) / 256 * 256);
    add_option(c, "-npp", prompt);
    add_option(c, "-ntg", decode);
    add_option(c, "-npl", batch);
    free(prompt);
    free(decode);
    free(batch);
}

/* With -gp decoding at a depth shows as a prompt of that depth with decoding behind it. */
static void take_figure(const json_t *figure, struct trial *trials, size_t n)
{
    json_int_t prompt = json_integer_value(json_object_get(figure, "n_prompt"));
    json_int_t decode = json_integer_value(json_object_get(figure, "n_gen"));
    json_int_t depth = json_integer_value(json_object_get(figure, "n_depth"));
    double rate = json_number_value(json_object_get(figure, "avg_ts"));
    if (decode && prompt) {
        depth = prompt;
        prompt = 0;
    }
    for (size_t i = 0; i < n && rate > 0; i++)
        if (trials[i].depth == depth && trials[i].prompt == prompt && trials[i].decode == decode)
            samples_add(decode ? &trials[i].decode_rate[PEER] : &trials[i].prefill_rate[PEER], rate);
}

void peer_take_json(const char *text, struct trial *trials, size_t n)
{
    /* Programs built with other back ends say something first. */
    const char *begin = *text == '[' ? text : strstr(text, "\n[");
    json_t *figures = begin ? json_loads(begin, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    json_t *figure;
    size_t i;
    json_array_foreach(figures, i, figure) take_figure(figure, trials, n);
    json_decref(figures);
}

void peer_take_table(const char *text, struct trial *trials, size_t n)
{
    int prompt, decode, batch;
    double prefill_rate, decode_rate;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "|%d |%d |%d |%*d |%*f |%lf |%*f |%lf |", &prompt, &decode, &batch, &prefill_rate,
                   &decode_rate) != 5)
            continue;
        for (size_t i = 0; i < n; i++)
            if (trials[i].prompt == prompt && trials[i].decode == decode && trials[i].sequences == batch) {
                samples_add(&trials[i].prefill_rate[PEER], prefill_rate);
                samples_add(&trials[i].decode_rate[PEER], decode_rate);
            }
    }
}

static size_t samples_of(const struct trial *t)
{
    return t->prefill_rate[PEER].n + t->decode_rate[PEER].n;
}

enum status peer_measure(const struct engine_request *q, enum peer_depth depth, struct trial *trials,
                         size_t n, struct error *err)
{
    struct command c = { 0 };
    struct buffer output = { 0 }, complaints = { 0 };
    size_t before = 0, after = 0;
    int status;

    add_option(&c, q->peer, "-m");
    command_add(&c, "%s", q->model);
    add_number(&c, "-t", trials[0].threads);
    if (strcmp(q->kv, "f16") != 0) {
        add_option(&c, "-ctk", q->kv);
        add_option(&c, "-ctv", q->kv);
    }
    if (q->batch.n)
        ask_llama_batched_bench(&c, q);
    else
        ask_llama_bench(&c, q, depth, &trials[0]);
    command_add_words(&c, q->peer_args ? q->peer_args : "");
    enum status s = child_run(&c, &output, &complaints, &status, err);
    for (size_t i = 0; i < n; i++)
        before += samples_of(&trials[i]);
    if (s == OK && q->batch.n) {
        peer_take_table(output.data, trials, n);
        peer_take_table(complaints.data, trials, n); /* where some print it */
    } else if (s == OK) {
        peer_take_json(output.data, trials, n);
    }
    for (size_t i = 0; i < n; i++)
        after += samples_of(&trials[i]);
    if (s == OK && after == before)
        s = error_set(err, E_FORMAT, "%s printed no figure for what was asked", q->peer);
    command_fini(&c);
    buffer_fini(&output);
    buffer_fini(&complaints);
    return s;
}

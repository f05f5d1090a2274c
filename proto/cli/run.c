/* woolly run: one completion, from the running server or from one started for it. */
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/progress.h"
#include "common/signals.h"
#include "common/status.h"
#include "proto/cli/cli.h"
#include "proto/cli/json.h"
#include "proto/cli/own_server.h"
#include "proto/cli/terminal.h"

enum { MAX_STOP_TEXTS = 16, MAX_INPUT_BYTES = 8 << 20 };

struct run {
    /* from the command line */
    const char *endpoint;
    bool wants_json;
    struct woolly_request request;
    const char *stop[MAX_STOP_TEXTS];
    struct buffer input; /* the prompt, if it came from standard input */

    struct own_server own;
    char own_model[129];
    struct woolly *server;

    uint64_t id; /* of the request */
    bool is_cancelling;
    bool has_text;
    char last; /* byte of the text */
    json_t *tokens, *logprobs;
    struct buffer text; /* for JSON */
    int status;
};

/* ---- the command line ---- */

enum {
    OPT_CHOICES = 256,
    OPT_TEMPERATURE,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_SEED,
    OPT_STOP,
    OPT_LOGPROBS,
    OPT_DEADLINE,
    OPT_JSON,
    OPT_ENDPOINT,
    OPT_KEY,
    OPT_SERVER_KEY
};

static const struct option options[] = { { "n", required_argument, NULL, OPT_CHOICES },
                                         { "temperature", required_argument, NULL, OPT_TEMPERATURE },
                                         { "top-k", required_argument, NULL, OPT_TOP_K },
                                         { "top-p", required_argument, NULL, OPT_TOP_P },
                                         { "min-p", required_argument, NULL, OPT_MIN_P },
                                         { "seed", required_argument, NULL, OPT_SEED },
                                         { "stop", required_argument, NULL, OPT_STOP },
                                         { "logprobs", required_argument, NULL, OPT_LOGPROBS },
                                         { "deadline", required_argument, NULL, OPT_DEADLINE },
                                         { "json", no_argument, NULL, OPT_JSON },
                                         { "endpoint", required_argument, NULL, OPT_ENDPOINT },
                                         { "key", required_argument, NULL, OPT_KEY },
                                         { "server-key", required_argument, NULL, OPT_SERVER_KEY },
                                         { 0 } };

static void take_option(struct run *r, int option)
{
    struct woolly_request *q = &r->request;
    switch (option) {
    case 'n':
        q->max_tokens = (uint32_t)option_integer("-n", optarg, 1, 1 << 20);
        break;
    case OPT_CHOICES:
        q->n = (uint32_t)option_integer("--n", optarg, 1, 16);
        q->whole = q->n > 1; /* several streams make no readable text */
        break;
    case OPT_TEMPERATURE:
        q->temperature = option_float("--temperature", optarg, 0, 100);
        break;
    case OPT_TOP_K:
        q->top_k = (uint32_t)option_integer("--top-k", optarg, 0, INT_MAX);
        break;
    case OPT_TOP_P:
        q->top_p = option_float("--top-p", optarg, 0, 1);
        break;
    case OPT_MIN_P:
        q->min_p = option_float("--min-p", optarg, 0, 1);
        break;
    case OPT_SEED:
        q->seed = option_integer("--seed", optarg, 0, UINT64_MAX);
        q->has_seed = true;
        break;
    case OPT_STOP:
        if (q->n_stop == MAX_STOP_TEXTS)
            usage_error("--stop: more than %d texts", MAX_STOP_TEXTS);
        r->stop[q->n_stop++] = optarg;
        break;
    case OPT_LOGPROBS:
        q->logprobs = (uint32_t)option_integer("--logprobs", optarg, 0, 20);
        q->has_logprobs = true;
        break;
    case OPT_DEADLINE:
        q->deadline_ms = option_integer("--deadline", optarg, 1, 7 * 24 * 3600 * 1000);
        break;
    case OPT_JSON:
        r->wants_json = true;
        break;
    case OPT_ENDPOINT:
        r->endpoint = optarg;
        break;
    case OPT_KEY:
        option_key(optarg);
        break;
    case OPT_SERVER_KEY:
        option_server_key(optarg);
        break;
    default:
        exit(EXIT_USAGE); /* getopt has said why */
    }
}

/* Longer than any argument of a program may be. */
static const char *read_prompt(struct buffer *input)
{
    size_t n;
    do {
        n = fread(buffer_reserve(input, 1 << 16), 1, 1 << 16, stdin);
        input->len += n;
    } while (n && input->len <= MAX_INPUT_BYTES);
    if (ferror(stdin))
        usage_error("the prompt cannot be read from standard input");
    if (memchr(input->data, 0, input->len))
        usage_error("the prompt on standard input has a NUL byte, so it is no text");
    buffer_append(input, "", 1);
    return input->data;
}

static void parse(struct run *r, int argc, char **argv)
{
    int c;
    woolly_request_init(&r->request, NULL, NULL);
    r->request.stop = r->stop;
    while ((c = getopt_long(argc, argv, "n:", options, NULL)) != -1)
        take_option(r, c);
    if (argc - optind != 2)
        usage_error("%s needs a model and a prompt, in quotes", argv[0]);
    if (r->request.has_logprobs && !r->wants_json)
        usage_error("--logprobs needs --json");
    r->request.model = argv[optind];
    r->request.prompt = argv[optind + 1];
    if (!strcmp(r->request.prompt, "-"))
        r->request.prompt = read_prompt(&r->input);
}

/* ---- the server ---- */

static bool is_path(const char *model)
{
    size_t len = strlen(model);
    return strchr(model, '/') || (len > 5 && !strcmp(model + len - 5, ".gguf"));
}

/* The name under which the running server has this file, into own_model; false when it has not. */
static bool find_by_path(struct run *r, const char *path)
{
    struct woolly_models m;
    char wanted[PATH_MAX], has[PATH_MAX];

    if (!realpath(path, wanted) || woolly_get_models(r->server, ANSWER_MS, &m, NULL) != WOOLLY_OK)
        return false;
    for (size_t i = 0; i < m.n; i++) {
        if (realpath(m.models[i].path, has) && !strcmp(wanted, has)) {
            snprintf(r->own_model, sizeof r->own_model, "%s", m.models[i].name);
            r->request.model = r->own_model;
            return true;
        }
    }
    return false;
}

static int start_own(struct run *r, const char *path)
{
    struct error err;
    if (access(path, R_OK) != 0) {
        fprintf(stderr, "woolly: cannot read the model file %s\n", path);
        return EXIT_FAILURE;
    }
    if (own_server_start(&r->own, path, r->own_model, &r->server, &err) != OK) {
        char text[sizeof err.text];
        terminal_clean(err.text, text, sizeof text);
        fprintf(stderr, "woolly: %s\n", text);
        return EXIT_FAILURE;
    }
    r->request.model = r->own_model;
    return EXIT_SUCCESS;
}

/* Connects to the server that shall answer. */
static int find_server(struct run *r)
{
    struct woolly_error err;
    const char *model = r->request.model;
    enum woolly_status s = woolly_connect(&r->server, r->endpoint, &err);

    if (s == WOOLLY_OK && (!is_path(model) || find_by_path(r, model) || r->endpoint))
        return EXIT_SUCCESS;
    woolly_close(r->server);
    r->server = NULL;
    /* Who names an endpoint wants that server and no other. */
    if ((s == WOOLLY_OK || s == WOOLLY_UNREACHABLE) && is_path(model) && !r->endpoint)
        return start_own(r, model);
    return report_failure(&err);
}

/* ---- the events ---- */

static void cancel(struct run *r)
{
    r->is_cancelling = true;
    if (woolly_cancel(r->server, r->id, NULL) != WOOLLY_OK) {
        /* It has just ended: its last event comes next. */
    }
}

static json_t *bytes_json(const char *bytes, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer((unsigned char)bytes[i]));
    return array;
}

static json_t *token_json(int32_t id, float logprob, const char *bytes, size_t n_bytes)
{
    json_t *object = json_object();
    json_put_count(object, "id", (uint64_t)id);
    json_put_number(object, "logprob", (double)logprob);
    json_object_set_new(object, "bytes", bytes_json(bytes, n_bytes));
    return object;
}

static void add_ids(json_t *array, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(ids[i]));
}

static void add_logprobs(json_t *array, const struct woolly_token *tokens, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct woolly_token *t = &tokens[i];
        json_t *token = token_json(t->id, t->logprob, t->bytes, t->n_bytes), *top = json_array();
        for (uint32_t j = 0; j < t->n_top; j++)
            json_array_append_new(
                top, token_json(t->top[j].id, t->top[j].logprob, t->top[j].bytes, t->top[j].n_bytes));
        json_object_set_new(token, "top", top);
        json_array_append_new(array, token);
    }
}

static void keep_for_json(struct run *r, const struct woolly_event *e)
{
    buffer_append(&r->text, e->text, e->text_len);
    add_ids(r->tokens, e->ids, e->n_ids);
    add_logprobs(r->logprobs, e->logprobs, e->n_logprobs);
}

static void take_tokens(struct run *r, const struct woolly_event *e)
{
    progress_end();
    if (r->wants_json) {
        keep_for_json(r, e);
    } else if (e->text_len && !r->is_cancelling) {
        r->has_text = true;
        r->last = e->text[e->text_len - 1];
        if (!terminal_write(stdout, e->text, e->text_len)) {
            r->status = EXIT_FAILURE; /* whoever reads has had enough */
            cancel(r);
        }
    }
}

/* Whatever comes next begins on a line of its own. */
static void end_line(const struct run *r)
{
    progress_end();
    if (r->has_text && r->last != '\n' && isatty(STDOUT_FILENO))
        puts("");
}

static json_t *choice_json(const struct run *r, const struct woolly_choice *c)
{
    json_t *object = json_object(), *tokens = json_array(), *logprobs = json_array();
    add_ids(tokens, c->ids, c->n_ids);
    add_logprobs(logprobs, c->logprobs, c->n_logprobs);
    json_put_count(object, "index", c->index);
    json_object_set_new(object, "text", json_stringn(c->text, c->text_len));
    json_object_set_new(object, "tokens", tokens);
    json_put_text(object, "finish_reason", c->finish_reason);
    json_put_count(object, "completion_tokens", c->completion_tokens);
    json_put_number(object, "logprob_sum", c->logprob_sum);
    if (r->request.has_logprobs)
        json_object_set(object, "logprobs", logprobs);
    json_decref(logprobs);
    return object;
}

static void put_answers(const struct run *r, const struct woolly_event *e, json_t *object)
{
    json_t *choices = json_array();
    for (uint32_t i = 0; i < e->n_choices; i++)
        json_array_append_new(choices, choice_json(r, &e->choices[i]));
    if (e->n_choices) {
        json_object_set(object, "choices", choices);
    } else {
        json_object_set_new(object, "text", json_stringn(r->text.len ? r->text.data : "", r->text.len));
        json_object_set(object, "tokens", r->tokens);
        if (r->request.has_logprobs)
            json_object_set(object, "logprobs", r->logprobs);
    }
    json_decref(choices);
}

static void print_json(struct run *r, const struct woolly_event *e)
{
    json_t *object = json_object();
    json_put_text(object, "model", r->request.model);
    put_answers(r, e, object);
    json_put_text(object, "finish_reason", e->finish_reason);
    json_put_count(object, "prompt_tokens", e->prompt_tokens);
    json_put_count(object, "cached_tokens", e->cached_tokens);
    json_put_count(object, "completion_tokens", e->completion_tokens);
    json_put_number(object, "ttft_ms", e->timing.ttft_ms);
    json_put_number(object, "total_ms", e->timing.total_ms);
    json_put_number(object, "tok_s", e->timing.tok_s);
    json_print_with_count(object, "seed", e->seed);
}

/* One after the other, with a line between them that says which one follows. */
static void print_choices(struct run *r, const struct woolly_event *e)
{
    for (uint32_t i = 0; i < e->n_choices; i++) {
        const struct woolly_choice *c = &e->choices[i];
        printf("%s--- %u ---\n", i ? "\n" : "", i + 1);
        if (!terminal_write(stdout, c->text, c->text_len))
            r->status = EXIT_FAILURE;
    }
    puts("");
}

static void take_done(struct run *r, const struct woolly_event *e)
{
    end_line(r);
    if (e->n_choices && !r->wants_json)
        print_choices(r, e);
    if (r->wants_json)
        print_json(r, e);
    else if (isatty(STDERR_FILENO))
        fprintf(stderr, "[%llu tokens, %.1f tok/s, first after %.0f ms, %s]\n",
                (unsigned long long)e->completion_tokens, e->timing.tok_s, e->timing.ttft_ms,
                !strcmp(e->finish_reason, "length") ? "limit reached" : "finished");
}

static void take_error(struct run *r, const struct woolly_event *e)
{
    char code[64], message[1100];
    end_line(r);
    terminal_clean(e->code, code, sizeof code);
    terminal_clean(e->message, message, sizeof message);
    fprintf(stderr, "woolly: %s: %s", code, message);
    if (e->retry_ms)
        fprintf(stderr, " (try again in %.1f s)", (double)e->retry_ms / 1000);
    fputc('\n', stderr);
    r->status = !strcmp(code, "unreachable") ? EXIT_UNREACHABLE : EXIT_FAILURE;
}

static void take_event(struct run *r, const struct woolly_event *e)
{
    char what[64];
    switch (e->kind) {
    case WOOLLY_ACCEPTED:
        snprintf(what, sizeof what, "waiting, %u before this one", e->queue_position);
        if (e->queue_position)
            progress_update(what, 0, 0);
        break;
    case WOOLLY_TOKENS:
        take_tokens(r, e);
        break;
    case WOOLLY_DONE:
        take_done(r, e);
        break;
    case WOOLLY_ERROR:
        take_error(r, e);
        break;
    case WOOLLY_CANCELLED:
        end_line(r);
        if (r->status == EXIT_SUCCESS)
            fputs("woolly: cancelled\n", stderr);
        r->status = EXIT_FAILURE;
        break;
    }
}

/* Waits for an event or a signal. The first Ctrl-C cancels the request; false at the second, which does not
 * wait for the server any more. */
static bool wait_for_more(struct run *r)
{
    struct pollfd fds[] = { { .fd = woolly_fd(r->server), .events = POLLIN },
                            { .fd = signals_fd(), .events = POLLIN } };
    if (poll(fds, 2, 1000) < 0 || !(fds[1].revents & POLLIN))
        return true;
    signals_drain();
    bool is_hung_up = signals_take_reload(); /* SIGHUP: the terminal is gone */
    if (signals_stop_count() > 1)
        return false;
    if ((signals_stop_wanted() || is_hung_up) && !r->is_cancelling)
        cancel(r);
    return true;
}

static void complete(struct run *r)
{
    struct woolly_error err;
    struct woolly_event e;

    if (woolly_submit(r->server, &r->request, &r->id, &err) != WOOLLY_OK) {
        r->status = report_failure(&err);
        return;
    }
    while (woolly_live(r->server)) {
        if (woolly_next(r->server, 0, &e) == WOOLLY_OK) {
            take_event(r, &e);
        } else if (!wait_for_more(r)) {
            r->status = EXIT_FAILURE;
            break;
        }
    }
}

int command_run(int argc, char **argv)
{
    struct run r = { 0 };
    parse(&r, argc, argv);
    signals_init();
    r.tokens = json_array();
    r.logprobs = json_array();
    if ((r.status = find_server(&r)) == EXIT_SUCCESS)
        complete(&r);
    woolly_close(r.server);
    own_server_stop(&r.own);
    json_decref(r.tokens);
    json_decref(r.logprobs);
    buffer_fini(&r.text);
    buffer_fini(&r.input);
    return r.status;
}

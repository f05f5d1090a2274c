/* `woolly-bench load`: what a server does for many users at once. */
#include "bench/load.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/load_run.h"
#include "bench/report.h"

static const char help[] =
    "usage: woolly-bench load --model M --users N[,N...] [OPTION ...]\n"
    "\n"
    "Users who ask a server, read the answer as it is streamed, and ask again at once: tokens and\n"
    "requests per second, the time to the first token (TTFT) and the gaps between tokens. Each request\n"
    "has a prompt of random tokens of its own, and the server takes the most likely token, past any end\n"
    "of text.\n"
    "\n"
    "  --zmq ENDPOINT       a Woolly server (default: the one that this user has running)\n"
    "  --url URL            a server that speaks HTTP, such as http://127.0.0.1:8080\n"
    "  --api API            of the URL: completion, as llama-server has it (default), or openai, where\n"
    "                       prompts are random words, a word for a token\n"
    "  --model M            the model's name there\n"
    "  --users N,...        a run for each, of one request to warm up and then so many users; at most\n"
    "                       1024\n"
    "  --prompt-tokens N    of each prompt (default 64)\n"
    "  --shared-prefix N    tokens more, the same in all prompts, in front (default 0). Without them\n"
    "                       llama-server is told not to look for prompts in its cache\n"
    "  --tokens N           of each answer (default 64)\n"
    "  --requests R         of a run (default: 4 for each user)\n"
    "  --seconds S          instead: how long users ask\n"
    "  --timeout S          a request without a sign for so long has never ended (default 60)\n"
    "  --seed S             of the prompts (default 1). Asked twice for the same, a server with a cache\n"
    "                       of prompts knows them\n"
    "  --json               print one JSON object\n"
    "\n"
    "Tokens per second count while every user has a request: from the first to where there is none left\n"
    "to begin. Gaps are those within that time. A user whose request failed pauses for 0.1 s. Client\n"
    "CPU is what this program takes of one core.\n";

/* NULL, or what the option wanted instead. */
static const char *take_option(struct load_request *q, int option, const char *value)
{
    enum { LONGEST = 1 << 18 };
    switch (option) {
    case 'z':
        q->zmq = value;
        return NULL;
    case 'u':
        q->url = value;
        return strlen(value) < 400 ? NULL : "--url is too long";
    case 'm':
        q->model = value;
        return NULL;
    case 'a':
        q->api = !strcmp(value, "openai") ? LOAD_OPENAI : LOAD_COMPLETION;
        return q->api == LOAD_OPENAI || !strcmp(value, "completion") ? NULL : "--api is completion or openai";
    case 'n':
        return numbers_parse(value, 1, LOAD_MAX_USERS, &q->users) ? NULL
                                                                  : "--users wants numbers from 1 to 1024";
    case 'p':
        return number_parse(value, 1, LONGEST, &q->prompt_tokens)
                   ? NULL
                   : "--prompt-tokens wants a number from 1 to 262144";
    case 'P':
        return number_parse(value, 0, LONGEST, &q->shared_prefix)
                   ? NULL
                   : "--shared-prefix wants a number from 0 to 262144";
    case 't':
        return number_parse(value, 1, LONGEST, &q->tokens) ? NULL
                                                           : "--tokens wants a number from 1 to 262144";
    case 'r':
        return number_parse(value, 1, 1000000, &q->requests) ? NULL
                                                             : "--requests wants a number from 1 to 1000000";
    case 's':
        return number_parse(value, 1, 86400, &q->seconds) ? NULL : "--seconds wants a number from 1 to 86400";
    case 'T':
        return number_parse(value, 1, 86400, &q->timeout_s) ? NULL
                                                            : "--timeout wants a number from 1 to 86400";
    default: /* 'S' */
        return number_parse(value, 0, INT_MAX, &q->seed) ? NULL
                                                         : "--seed wants a number from 0 to 2147483647";
    }
}

/* What options say only together. 0 or EXIT_USAGE. */
static int check(const struct load_request *q, bool has_api, const char *command)
{
    if (!q->model)
        return command_misused(command, "--model is needed");
    if (!q->users.n)
        return command_misused(command, "--users is needed");
    if (q->url && q->zmq)
        return command_misused(command, "--url and --zmq are two servers");
    if (has_api && !q->url)
        return command_misused(command, "--api says how a --url is spoken to");
    if (q->requests && q->seconds)
        return command_misused(command, "a run ends by --requests or by --seconds");
    if (q->requests && q->requests < numbers_largest(&q->users))
        return command_misused(command,
                               "--requests are fewer than --users: somebody would have nothing to do");
    return 0;
}

/* 0, -1 when help was printed, or EXIT_USAGE. */
static int parse(int argc, char **argv, struct load_request *q)
{
    static const struct option options[] = {
        { "zmq", required_argument, NULL, 'z' },
        { "url", required_argument, NULL, 'u' },
        { "api", required_argument, NULL, 'a' },
        { "model", required_argument, NULL, 'm' },
        { "users", required_argument, NULL, 'n' },
        { "prompt-tokens", required_argument, NULL, 'p' },
        { "shared-prefix", required_argument, NULL, 'P' },
        { "tokens", required_argument, NULL, 't' },
        { "requests", required_argument, NULL, 'r' },
        { "seconds", required_argument, NULL, 's' },
        { "timeout", required_argument, NULL, 'T' },
        { "seed", required_argument, NULL, 'S' },
        { "json", no_argument, NULL, 'j' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    const char *wants;
    bool has_api = false;
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (option == '?')
            return command_misused(argv[0], "option %s is unknown or lacks its value", argv[optind - 1]);
        has_api = has_api || option == 'a';
        if (option == 'j')
            q->as_json = true;
        else if ((wants = take_option(q, option, optarg)))
            return command_misused(argv[0], "%s, not \"%s\"", wants, optarg);
    }
    if (optind < argc)
        return command_misused(argv[0], "\"%s\" is too much", argv[optind]);
    return check(q, has_api, argv[0]);
}

static int explain(const struct error *err)
{
    fprintf(stderr, "woolly-bench load: %s\n", err->text);
    switch (err->status) {
    case E_UNREACHABLE:
        return EXIT_UNREACHABLE;
    case E_UNSUPPORTED:
        return EXIT_NOT_MEASURABLE;
    default:
        return EXIT_FAILURE;
    }
}

static int run_all(struct load_target *t, const struct load_request *q)
{
    struct load_result runs[NUMBERS_MAX] = { 0 };
    struct prompts prompts = { .seed = (uint64_t)q->seed,
                               .n_shared = q->shared_prefix,
                               .n_own = q->prompt_tokens,
                               .n_vocab = t->n_vocab };
    struct error err;
    enum status s = OK;
    size_t n = 0;

    while (n < (size_t)q->users.n && s == OK) {
        s = load_run(t, q, q->users.values[n], &prompts, &runs[n], &err);
        n++;
    }
    if (s == OK)
        load_report(q, t->where, runs, n);
    int status = s == OK ? report_done() : explain(&err);
    for (size_t i = 0; i < n; i++)
        load_result_fini(&runs[i]);
    prompts_fini(&prompts);
    return status;
}

int command_load(int argc, char **argv)
{
    struct load_request q = { .prompt_tokens = 64, .tokens = 64, .timeout_s = 60, .seed = 1 };
    struct load_target *t;
    struct error err;

    int status = parse(argc, argv, &q);
    if (status)
        return status < 0 ? report_done() : status;
    if ((q.url ? load_open_http : load_open_zmq)(&t, &q, &err) != OK)
        return explain(&err);
    status = run_all(t, &q);
    t->calls->close(t);
    return status;
}

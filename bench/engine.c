/* woolly-bench engine: what tokens cost, in the sense of llama-bench and llama-batched-bench, and next to
 * them. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/ours.h"
#include "bench/peer.h"
#include "bench/report.h"
#include "common/progress.h"
#include "common/topology.h"
#include "common/xalloc.h"

static const char help[] =
    "Usage: woolly-bench engine --model FILE [options]\n"
    "\n"
    "Measures tokens per second of prefill (a prompt, from an empty cache) and decode\n"
    "(one token per step), as llama-bench means them. Numbers may be lists with commas\n"
    "between; every combination is measured.\n"
    "\n"
    "  -p N,...          tokens of the prompt (default 512); 0: no prefill\n"
    "  -n N,...          tokens to decode (default 64); 0: no decode\n"
    "  -t N,...          threads (default: all cores)\n"
    "  -d N,...          positions already in the cache, untimed (default 0)\n"
    "  -b N,...          sequences at once, as llama-batched-bench: each has a prompt of its\n"
    "                    own, and decodes behind it; rates are of all together\n"
    "  -r N              repetitions (default 5), after one to warm up\n"
    "  --kv TYPE         numbers in the cache: f16 (default), bf16, f32, q8 or q4\n"
    "  --json            print one JSON object: prefill_tok_s and decode_tok_s (medians of the\n"
    "                    first combination), reps, threads, isa, and all in results\n"
    "\n"
    "Next to a peer, in turn, each run a process of its own:\n"
    "\n"
    "  --peer PATH            a llama-bench\n"
    "  --peer-batched PATH    a llama-batched-bench, with -b\n"
    "  --peer-args \"...\"      more options for it\n"
    "  --rounds N             runs of each (default 3), instead of -r\n";

enum { LARGEST = 1 << 24 };

struct options {
    struct engine_request request;
    const char *peer_batched;
    int rounds;
    bool has_reps;
};

/* Takes one option; NULL when its value is fine, else what the option wants. */
static const char *take_option(struct options *o, int option, const char *value)
{
    struct engine_request *q = &o->request;
    switch (option) {
    case 'p':
        return numbers_parse(value, 0, LARGEST, &q->prompt) ? NULL : "-p wants numbers from 0 up";
    case 'n':
        return numbers_parse(value, 0, LARGEST, &q->decode) ? NULL : "-n wants numbers from 0 up";
    case 't':
        return numbers_parse(value, 1, 1024, &q->threads) ? NULL : "-t wants numbers from 1 to 1024";
    case 'd':
        return numbers_parse(value, 0, LARGEST, &q->depth) ? NULL : "-d wants numbers from 0 up";
    case 'b':
        return numbers_parse(value, 1, 4096, &q->batch) ? NULL : "-b wants numbers from 1 to 4096";
    case 'r':
        o->has_reps = true;
        return number_parse(value, 1, 1000, &q->reps) ? NULL : "-r wants a number from 1 to 1000";
    case 'R':
        return number_parse(value, 1, 1000, &o->rounds) ? NULL : "--rounds wants a number from 1 to 1000";
    case 'm':
        q->model = value;
        return NULL;
    case 'k':
        q->kv = value;
        return NULL;
    case 'P':
        q->peer = value;
        return NULL;
    case 'B':
        o->peer_batched = value;
        return NULL;
    default: /* 'A' */
        q->peer_args = value;
        return NULL;
    }
}

/* What options say only together. 0 or EXIT_USAGE. */
static int check(struct options *o, const char *command)
{
    struct engine_request *q = &o->request;
    if (!q->model)
        return command_misused(command, "--model is needed");
    if (q->peer && o->peer_batched)
        return command_misused(command, "--peer and --peer-batched are two comparisons");
    if (q->peer && q->batch.n)
        return command_misused(command, "with -b the peer is --peer-batched");
    if (o->peer_batched && !q->batch.n)
        return command_misused(command, "--peer-batched wants -b");
    if (o->peer_batched && numbers_largest(&q->depth))
        return command_misused(command, "-d is nothing --peer-batched knows of: a longer -p is its depth");
    if (o->peer_batched)
        q->peer = o->peer_batched;
    if (!q->peer && (q->peer_args || o->rounds))
        return command_misused(command, "--peer-args and --rounds want a peer");
    if (q->peer && o->has_reps)
        return command_misused(command, "with a peer there are --rounds instead of -r");
    if (q->peer)
        q->reps = o->rounds ? o->rounds : 3;
    return 0;
}

/* 0, -1 when help was printed, or EXIT_USAGE. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },
        { "kv", required_argument, NULL, 'k' },
        { "peer", required_argument, NULL, 'P' },
        { "peer-batched", required_argument, NULL, 'B' },
        { "peer-args", required_argument, NULL, 'A' },
        { "rounds", required_argument, NULL, 'R' },
        { "json", no_argument, NULL, 'j' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    const char *wants;
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "hp:n:t:d:b:r:", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (option == '?')
            return command_misused(argv[0], "option %s is unknown or lacks its value", argv[optind - 1]);
        if (option == 'j')
            o->request.as_json = true;
        else if ((wants = take_option(o, option, optarg)))
            return command_misused(argv[0], "%s, not \"%.80s\"", wants, optarg);
    }
    if (optind != argc)
        return command_misused(argv[0], "it takes options only, not \"%.80s\"", argv[optind]);
    return check(o, argv[0]);
}

/* The trials, those of the same threads and depth together. */
struct plan {
    struct trial *trials;
    size_t n;
    size_t group; /* trials of each threads and depth */
};

static void plan_add(struct plan *p, struct trial t)
{
    if (!t.prompt && !t.decode)
        return;
    p->trials = xrealloc(p->trials, (p->n + 1) * sizeof *p->trials);
    p->trials[p->n++] = t;
}

static void plan_group(struct plan *p, const struct engine_request *q, int threads, int depth)
{
    const struct numbers *prompt = &q->prompt, *decode = &q->decode;
    for (int b = 0; b < q->batch.n; b++)
        for (int i = 0; i < prompt->n; i++)
            for (int k = 0; k < decode->n; k++)
                plan_add(p, (struct trial){ .threads = threads,
                                            .depth = depth,
                                            .sequences = q->batch.values[b],
                                            .prompt = prompt->values[i],
                                            .decode = decode->values[k] });
    for (int i = 0; i < prompt->n && !q->batch.n; i++)
        plan_add(p, (struct trial){
                        .threads = threads, .depth = depth, .sequences = 1, .prompt = prompt->values[i] });
    for (int k = 0; k < decode->n && !q->batch.n; k++)
        plan_add(p, (struct trial){
                        .threads = threads, .depth = depth, .sequences = 1, .decode = decode->values[k] });
}

static struct plan make_plan(const struct engine_request *q)
{
    struct plan p = { 0 };
    for (int t = 0; t < q->threads.n; t++)
        for (int d = 0; d < q->depth.n; d++)
            plan_group(&p, q, q->threads.values[t], q->depth.values[d]);
    p.group = p.n / (size_t)(q->threads.n * q->depth.n);
    return p;
}

static void plan_fini(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        for (int side = 0; side < SIDES; side++) {
            samples_fini(&p->trials[i].prefill_rate[side]);
            samples_fini(&p->trials[i].decode_rate[side]);
        }
    free(p->trials);
}

static int peer_fails(const struct error *err)
{
    fprintf(stderr, "woolly-bench engine: the peer cannot be measured: %s\n", err->text);
    return EXIT_NOT_MEASURABLE;
}

static int measure_peer(const struct engine_request *q, enum peer_depth depth, struct trial *trials, size_t n)
{
    struct error err;
    progress_update("measuring the peer", 0, 0);
    enum status s = peer_measure(q, depth, trials, n, &err);
    progress_end();
    return s == OK ? EXIT_SUCCESS : peer_fails(&err);
}

/* Each round runs both, the one that was second in the last round first: so a machine that becomes slower or
 * faster does it to both. */
static int compare(const struct engine_request *q, struct plan *p, struct subject *subject)
{
    enum peer_depth depth = PEER_NO_DEPTH;
    struct error err;
    if (numbers_largest(&q->depth) && peer_find_depth(q->peer, &depth, &err) != OK)
        return peer_fails(&err);
    for (size_t g = 0; g < p->n; g += p->group)
        for (int round = 0; round < q->reps; round++)
            for (int turn = 0; turn < SIDES; turn++) {
                int status = (round + turn) % 2 == 0 ? ours_measure(q, p->trials + g, p->group, 1, subject)
                                                     : measure_peer(q, depth, p->trials + g, p->group);
                if (status != EXIT_SUCCESS)
                    return status;
            }
    return EXIT_SUCCESS;
}

int command_engine(int argc, char **argv)
{
    struct topology topology;
    topology_init(&topology);
    struct options o = { .request = {
                             .kv = "f16",
                             .threads = { 1, { topology.n_cores } },
                             .depth = { 1, { 0 } },
                             .prompt = { 1, { 512 } },
                             .decode = { 1, { 64 } },
                             .reps = 5,
                         } };
    struct subject subject = { 0 };
    topology_fini(&topology);
    int status = parse(argc, argv, &o);
    if (status)
        return status < 0 ? report_done() : status;

    struct plan p = make_plan(&o.request);
    if (!p.n)
        status = command_misused(argv[0], "with -p 0 and -n 0 there is nothing to measure");
    else if (o.request.peer)
        status = compare(&o.request, &p, &subject);
    else
        status = ours_measure(&o.request, p.trials, p.n, o.request.reps, &subject);
    if (status == EXIT_SUCCESS) {
        report_engine(&o.request, &subject, p.trials, p.n);
        status = report_done();
    }
    plan_fini(&p);
    return status;
}

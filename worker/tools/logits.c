/* woolly-gguf logits: what the model says after given tokens, as raw little-endian float32. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/tools/commands.h"
#include "worker/tools/run.h"

static const char help[] =
    "Usage: woolly-gguf logits FILE --tokens IDS --out OUT [--all] [--threads N] [--kv TYPE]\n"
    "\n"
    "Runs the tokens through the model and writes its logits to OUT: little-endian\n"
    "float32, one number per token of the vocabulary.\n"
    "\n"
    "  --tokens IDS      token ids with commas between them, as 1,403,407\n"
    "  --out OUT         file to write\n"
    "  --all             write every position, one after another, not just the last\n" RUN_HELP;

struct request {
    const char *path, *ids, *out;
    bool all;
    struct token_list tokens;
};

static int parse_ids(const char *command, struct request *q)
{
    const char *at = q->ids;
    for (;;) {
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || errno || id < 0 || id > INT32_MAX || (*end && *end != ','))
            return command_misused(command, "--tokens wants ids with commas between them, not \"%.80s\"", at);
        token_list_push(&q->tokens, (int32_t)id);
        if (!*end)
            return 0;
        at = end + 1;
    }
}

static int parse(int argc, char **argv, struct request *q, struct run *run)
{
    static const struct option options[] = {
        { "threads", required_argument, NULL, 't' },
        { "kv", required_argument, NULL, 'k' },
        { "pack-cache", required_argument, NULL, 'C' },
        { "tokens", required_argument, NULL, 'T' },
        { "out", required_argument, NULL, 'o' },
        { "all", no_argument, NULL, 'a' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    int option, problem;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        switch (option) {
        case 'h':
            fputs(help, stdout);
            return -1;
        case 'T':
            q->ids = optarg;
            break;
        case 'o':
            q->out = optarg;
            break;
        case 'a':
            q->all = true;
            break;
        case '?':
            return command_misused(argv[0], "option %s is unknown or lacks its value", argv[optind - 1]);
        default:
            if ((problem = run_take_option(run, argv[0], option, optarg)))
                return problem;
        }
    if (argc - optind != 1)
        return command_misused(argv[0], "it takes one model file");
    if (!q->ids || !q->out)
        return command_misused(argv[0], "--%s is needed", q->ids ? "out" : "tokens");
    q->path = argv[optind];
    return parse_ids(argv[0], q);
}

static enum status write_logits(struct run *run, const struct request *q, FILE *out, struct error *err)
{
    size_t n_vocab = (size_t)model_facts(run->model)->n_vocab, n = q->tokens.n;
    int max_rows = engine_options(run->engine)->max_rows;
    struct row rows[RUN_MAX_ROWS];
    for (size_t start = 0; start < n; start += (size_t)max_rows) {
        int count = n - start < (size_t)max_rows ? (int)(n - start) : max_rows, wanted = 0;
        for (int i = 0; i < count; i++) {
            size_t pos = start + (size_t)i;
            rows[i] = (struct row){ .token = q->tokens.ids[pos],
                                    .pos = (int32_t)pos,
                                    .want_logits = q->all || pos == n - 1 };
            wanted += rows[i].want_logits;
        }
        engine_step(run->engine, rows, count);
        for (int i = 0; i < wanted; i++)
            if (fwrite(engine_logits(run->engine, i), sizeof(float), n_vocab, out) != n_vocab)
                return error_errno(err, "cannot write %s", q->out);
    }
    return OK;
}

static enum status execute(struct run *run, const struct request *q, struct error *err)
{
    enum status s;
    if ((s = run_open_model(run, q->path, false, err)) != OK ||
        (s = run_check_ids(run, q->tokens.ids, q->tokens.n, err)) != OK ||
        (s = run_start(run, (int)q->tokens.n, err)) != OK)
        return s;
    struct stat model, old;
    if (stat(q->path, &model) == 0 && stat(q->out, &old) == 0 && model.st_dev == old.st_dev &&
        model.st_ino == old.st_ino)
        return error_set(err, E_INVALID, "--out %s is the model itself", q->out);
    FILE *out = fopen(q->out, "wb");
    if (!out)
        return error_errno(err, "cannot create %s", q->out);
    s = write_logits(run, q, out, err);
    if (fclose(out) && s == OK)
        s = error_errno(err, "cannot write %s", q->out);
    return s;
}

int command_logits(int argc, char **argv)
{
    struct request q = { 0 };
    struct run run;
    struct error err;
    run_init(&run);
    int problem = parse(argc, argv, &q, &run);
    if (problem == -1)
        problem = command_done();
    else if (!problem && execute(&run, &q, &err) != OK)
        problem = command_failed(&err);
    token_list_fini(&q.tokens);
    run_fini(&run);
    return problem;
}

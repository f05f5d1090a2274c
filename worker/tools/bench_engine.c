/* woolly-bench engine: the measuring half of `woolly-bench engine`. It runs tests on one model and prints the
 * seconds each repetition took.
 *
 * A test is five numbers, T:D:B:P:N. With T threads, the cache of each of B sequences is filled with D
 * positions, untimed. A repetition then gives every sequence P more tokens (prefill, up to ROWS rows per
 * step, logits for the last of each) and lets every sequence make N tokens (decode, one step for all of them
 * per token). What comes after the D positions is overwritten by the next repetition. Tokens are random and
 * the same in every run: which token it is costs nothing, and none is sampled. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "common/progress.h"
#include "common/xalloc.h"
#include "worker/model/engine.h"
#include "worker/tools/bench_run.h"

static const char help[] =
    "Usage: woolly-bench-engine --model FILE [--reps R] [--kv TYPE] T:D:B:P:N ...\n"
    "\n"
    "The measuring half of `woolly-bench engine`, which see. Each test is its threads,\n"
    "depth, sequences, prompt tokens and decoded tokens. Prints one JSON object per\n"
    "line: one about the model, then one for each test with the seconds taken,\n"
    "and one about the share of the cores that was to be had.\n";

/* As many rows of a prompt per step as the peers' default (their "ubatch"). */
enum { ROWS = 512 };

struct test {
    int n_threads, depth, n_sequences, prompt, decode;
};

struct bench {
    const char *path;
    int reps;
    enum kv_type kv_type;
    struct model *model;
    struct engine *engine;
    struct row *rows;
    int max_rows;
    struct bench_share share;
};

static int32_t token_at(const struct bench *b, int sequence, int pos)
{
    uint64_t z = (uint64_t)sequence << 32 | (uint32_t)pos;
    z = (z + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 32) * 0xd6e8feb86659fd93;
    return (int32_t)((z ^ z >> 32) % (uint64_t)model_facts(b->model)->n_vocab);
}

/* Positions from..from+count-1 of every sequence. */
static void feed(struct bench *b, const struct test *t, int from, int count)
{
    int n = 0;
    for (int s = 0; s < t->n_sequences; s++)
        for (int pos = from; pos < from + count; pos++) {
            b->rows[n++] = (struct row){
                .token = token_at(b, s, pos), .slot = s, .pos = pos, .want_logits = pos == from + count - 1
            };
            if (n == b->max_rows) {
                engine_step(b->engine, b->rows, n);
                n = 0;
            }
        }
    if (n)
        engine_step(b->engine, b->rows, n);
}

static void decode(struct bench *b, const struct test *t, int from, int count)
{
    for (int pos = from; pos < from + count; pos++) {
        for (int s = 0; s < t->n_sequences; s++)
            b->rows[s] =
                (struct row){ .token = token_at(b, s, pos), .slot = s, .pos = pos, .want_logits = true };
        engine_step(b->engine, b->rows, t->n_sequences);
    }
}

/* The caches are as deep as a repetition finds them; the first pass over the weights, the scratch memory and
 * the caches is behind us. */
static void warm_up(struct bench *b, const struct test *t)
{
    feed(b, t, 0, t->depth);
    feed(b, t, t->depth, t->prompt);
    if (t->decode)
        decode(b, t, t->depth + t->prompt, t->prompt ? 1 : t->decode);
}

static json_t *measure(struct bench *b, const struct test *t)
{
    json_t *prefill_s = json_array(), *decode_s = json_array();
    bench_share_begin(&b->share);
    for (int r = 0; r < b->reps; r++) {
        progress_update("measuring", (uint64_t)r, (uint64_t)b->reps);
        double begin = bench_seconds();
        feed(b, t, t->depth, t->prompt);
        double middle = bench_seconds();
        decode(b, t, t->depth + t->prompt, t->decode);
        double end = bench_seconds();
        if (t->prompt)
            json_array_append_new(prefill_s, json_real(middle - begin));
        if (t->decode)
            json_array_append_new(decode_s, json_real(end - middle));
    }
    bench_share_end(&b->share, t->n_threads);
    progress_end();
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:o, s:o}", "threads", t->n_threads, "depth",
                     t->depth, "sequences", t->n_sequences, "prompt", t->prompt, "decode", t->decode, "isa",
                     engine_isa(b->engine), "kv", kv_type_name(b->kv_type), "prefill_s", prefill_s,
                     "decode_s", decode_s);
}

/* An engine of its own for each test: it has exactly the threads and slots that are measured. */
static enum status run_test(struct bench *b, const struct test *t, struct error *err)
{
    b->max_rows = t->n_sequences > ROWS ? t->n_sequences : ROWS;
    struct engine_options o = {
        .n_threads = t->n_threads,
        .n_slots = t->n_sequences,
        .n_ctx = t->depth + t->prompt + t->decode,
        .max_rows = b->max_rows,
        .kv_type = b->kv_type,
    };
    enum status s = engine_create(&b->engine, b->model, &o, err);
    if (s != OK)
        return s;
    b->rows = xrealloc(b->rows, (size_t)b->max_rows * sizeof *b->rows);
    warm_up(b, t);
    bench_print(measure(b, t));
    engine_destroy(b->engine);
    b->engine = NULL;
    return OK;
}

static void print_model(const struct bench *b)
{
    const struct model_facts *f = model_facts(b->model);
    bench_print(json_pack("{s:s, s:I, s:I}", "architecture", f->architecture, "parameters",
                          (json_int_t)f->n_params, "weight_bytes", (json_int_t)f->weight_bytes));
}

static bool parse_test(const char *text, struct test *t)
{
    const int most = 1 << 24; /* sums and products of a few stay in an int */
    char rest;
    return sscanf(text, "%d:%d:%d:%d:%d%c", &t->n_threads, &t->depth, &t->n_sequences, &t->prompt, &t->decode,
                  &rest) == 5 &&
           t->n_threads >= 1 && t->n_threads <= 1024 && t->depth >= 0 && t->depth <= most &&
           t->n_sequences >= 1 && t->n_sequences <= 4096 && t->prompt >= 0 && t->prompt <= most &&
           t->decode >= 0 && t->decode <= most && (t->prompt || t->decode);
}

static int misused(const char *what, const char *value)
{
    fprintf(stderr, "woolly-bench engine: %s, not \"%.80s\" (see --help)\n", what, value);
    return EXIT_USAGE;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct bench *b)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },
        { "reps", required_argument, NULL, 'r' },
        { "kv", required_argument, NULL, 'k' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'm':
            b->path = optarg;
            break;
        case 'r':
            b->reps = atoi(optarg);
            if (b->reps < 1 || b->reps > BENCH_MAX_REPS)
                return misused("--reps wants 1 to 1000", optarg);
            break;
        case 'k':
            if (!kv_type_parse(optarg, &b->kv_type))
                return misused("--kv wants f16, bf16, f32, q8 or q4", optarg);
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_SUCCESS;
        default:
            return misused("it wants options it knows, with their values", argv[optind - 1]);
        }
    }
    if (!b->path || optind == argc)
        return misused("it wants --model and a test", "less");
    return -1;
}

int main(int argc, char **argv)
{
    struct bench b = { .reps = 5, .kv_type = KV_F16 };
    struct test t;
    struct error err;
    int status = parse(argc, argv, &b);
    if (status >= 0)
        return status;
    for (int i = optind; i < argc; i++)
        if (!parse_test(argv[i], &t))
            return misused("a test is threads:depth:sequences:prompt:decode", argv[i]);

    status = EXIT_SUCCESS;
    if (model_open(&b.model, b.path, &err) != OK) {
        fprintf(stderr, "woolly-bench engine: %s\n", err.text);
        return EXIT_FAILURE;
    }
    print_model(&b);
    for (int i = optind; i < argc && status == EXIT_SUCCESS; i++)
        if (parse_test(argv[i], &t) && run_test(&b, &t, &err) != OK) {
            fprintf(stderr, "woolly-bench engine: cannot measure %s: %s\n", argv[i], err.text);
            status = EXIT_NOT_MEASURABLE;
        }
    if (status == EXIT_SUCCESS)
        bench_print(json_pack("{s:f, s:f}", "cpu_s", b.share.cpu_s, "wanted_s", b.share.wanted_s));
    free(b.rows);
    model_close(b.model);
    return status;
}

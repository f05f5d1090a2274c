/* woolly-worker: serves one model from this machine for a broker. Reads the options, loads the model once,
 * and becomes the host of its workers. */
#include <bsd/stdlib.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "common/topology.h"
#include "common/utf8.h"
#include "proto/messages.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/scheduler.h"

enum { DEFAULT_SLOTS = 8, MAX_SLOTS = 1024, MAX_WORKERS = 256, MAX_THREADS = 1024, MAX_CTX = 1 << 20 };
enum { DEFAULT_CTX = 4096 };

struct options {
    char name[MAX_MODEL_NAME + 1];
    const char *path, *broker;
    int n_workers, n_threads, n_ctx, n_slots; /* 0: not given */
    bool is_pinned;
    enum kv_type kv_type;
    const char *pack_cache; /* NULL: none */
    enum log_level log_level;
};

static const char usage_text[] =
    "usage: woolly-worker --model [NAME=]PATH --broker ENDPOINT [options]\n"
    "\n"
    "Serves a GGUF model to the broker at ENDPOINT (tcp://HOST:PORT or ipc://PATH).\n"
    "\n"
    "  --model [NAME=]PATH  the file, and what clients call it (default: the file's name)\n"
    "  --broker ENDPOINT    where the broker takes workers\n"
    "  --workers N          processes, all on one copy of the weights (default: one,\n"
    "                       or one for each NUMA node or L3 cache of a large machine)\n"
    "  --threads N          threads of each worker (default: cores / workers)\n"
    "  --pin on|off         give each worker cores of its own if there are enough (default on)\n"
    "  --ctx N              tokens per request, prompt and answer (default: what the model was\n"
    "                       trained for, at most 4096)\n"
    "  --slots N            requests a worker runs at once (default 8)\n"
    "  --kv TYPE            numbers in the cache: f16, bf16, q8, q4 or f32 (default f16)\n"
    "  --pack-cache DIR     keep the weights there as the products read them: the next start maps\n"
    "                       that file, which is as large as the model's, instead of making it\n"
    "  --log-level LEVEL    debug, info, warn or error (default info)\n"
    "  -h, --help           this text\n"
    "  --version            the version\n";

static _Noreturn void usage_error(const char *what, const char *value, const char *why)
{
    fprintf(stderr, "woolly-worker: %s \"%s\": %s (see --help)\n", what, value, why);
    exit(EXIT_USAGE);
}

static int number(const char *what, const char *text, int min, int max)
{
    const char *why;
    char bounds[64];
    long long n = strtonum(text, min, max, &why);
    if (why) {
        snprintf(bounds, sizeof bounds, "must be a number from %d to %d", min, max);
        usage_error(what, text, bounds);
    }
    return (int)n;
}

static bool is_name(const char *name)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return false;
    return *name && utf8_is_valid(name, strlen(name));
}

/* "NAME=PATH", or a path whose file name without .gguf is the name. A '=' after a '/' belongs to the path. */
static void take_model(struct options *o, const char *text)
{
    const char *equals = strchr(text, '='), *slash = strchr(text, '/');
    const char *begin = text;
    size_t len;

    if (equals && (!slash || equals < slash)) {
        o->path = equals + 1;
        len = (size_t)(equals - text);
    } else {
        o->path = text;
        slash = strrchr(text, '/');
        begin = slash ? slash + 1 : text;
        len = strlen(begin);
        if (len > 5 && !strcmp(begin + len - 5, ".gguf"))
            len -= 5;
    }
    if (!*o->path)
        usage_error("--model", text, "no path");
    if (len >= sizeof o->name)
        usage_error("--model", text, "the name is longer than 128 bytes");
    memcpy(o->name, begin, len);
    o->name[len] = 0;
    if (!is_name(o->name))
        usage_error("--model", text, "a name is made of UTF-8 text without spaces");
}

static void take_kv_type(struct options *o, const char *text)
{
    if (!kv_type_parse(text, &o->kv_type))
        usage_error("--kv", text, "must be f16, bf16, q8, q4 or f32");
}

static void parse(struct options *o, int argc, char **argv)
{
    enum { MODEL = 1, BROKER, WORKERS, THREADS, PIN, CTX, SLOTS, KV, PACK_CACHE, LEVEL, VERSION };
    static const struct option known[] = { { "model", required_argument, NULL, MODEL },
                                           { "broker", required_argument, NULL, BROKER },
                                           { "workers", required_argument, NULL, WORKERS },
                                           { "threads", required_argument, NULL, THREADS },
                                           { "pin", required_argument, NULL, PIN },
                                           { "ctx", required_argument, NULL, CTX },
                                           { "slots", required_argument, NULL, SLOTS },
                                           { "kv", required_argument, NULL, KV },
                                           { "pack-cache", required_argument, NULL, PACK_CACHE },
                                           { "log-level", required_argument, NULL, LEVEL },
                                           { "help", no_argument, NULL, 'h' },
                                           { "version", no_argument, NULL, VERSION },
                                           { 0 } };
    *o = (struct options){
        .is_pinned = true, .n_slots = DEFAULT_SLOTS, .kv_type = KV_F16, .log_level = LOG_INFO
    };

    for (int option; (option = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        switch (option) {
        case MODEL:
            take_model(o, optarg);
            break;
        case BROKER:
            o->broker = optarg;
            break;
        case WORKERS:
            o->n_workers = number("--workers", optarg, 1, MAX_WORKERS);
            break;
        case THREADS:
            o->n_threads = number("--threads", optarg, 1, MAX_THREADS);
            break;
        case PIN:
            if (strcmp(optarg, "on") && strcmp(optarg, "off"))
                usage_error("--pin", optarg, "must be on or off");
            o->is_pinned = !strcmp(optarg, "on");
            break;
        case CTX:
            o->n_ctx = number("--ctx", optarg, 0, MAX_CTX);
            break;
        case SLOTS:
            o->n_slots = number("--slots", optarg, 1, MAX_SLOTS);
            break;
        case KV:
            take_kv_type(o, optarg);
            break;
        case PACK_CACHE:
            if (!*optarg)
                usage_error("--pack-cache", optarg, "must be a folder");
            o->pack_cache = optarg;
            break;
        case LEVEL:
            if (log_level_parse(optarg, &o->log_level) != OK)
                usage_error("--log-level", optarg, "must be debug, info, warn or error");
            break;
        case 'h':
            fputs(usage_text, stdout);
            exit(EXIT_SUCCESS);
        case VERSION:
            puts("woolly-worker " WOOLLY_VERSION);
            exit(EXIT_SUCCESS);
        default:
            exit(EXIT_USAGE); /* getopt has said why */
        }
    }
    if (optind < argc)
        usage_error("argument", argv[optind], "not expected");
    if (!o->path || !o->broker) {
        fprintf(stderr, "woolly-worker: %s is missing (see --help)\n", o->path ? "--broker" : "--model");
        exit(EXIT_USAGE);
    }
}

static struct engine_options choose_engine(const struct options *o, const struct model_facts *facts)
{
    int n_ctx = o->n_ctx;
    if (!n_ctx)
        n_ctx = facts->n_ctx_train > 0 && facts->n_ctx_train < DEFAULT_CTX ? facts->n_ctx_train : DEFAULT_CTX;
    if (facts->n_ctx_train > 0 && n_ctx > facts->n_ctx_train)
        log_warn("context_stretched", "model=%s ctx=%d trained=%d", o->name, n_ctx, facts->n_ctx_train);
    return (struct engine_options){ .n_threads = o->n_threads,
                                    .n_slots = o->n_slots,
                                    .n_ctx = n_ctx,
                                    .max_rows = o->n_slots + SCHEDULER_PREFILL_ROWS,
                                    .kv_type = o->kv_type };
}

/* Steps of a load, as the log has them. */
struct loading {
    const char *name; /* of the model */
    int64_t began_us; /* the step */
};

static void log_step(void *context, const char *step, uint64_t done, uint64_t total)
{
    struct loading *l = context;
    if (done == 0) {
        l->began_us = clock_us();
        log_info("load_began", "model=%s step=\"%s\" bytes=%llu", l->name, step, (unsigned long long)total);
    } else if (done == total) {
        log_info("load_ended", "model=%s step=\"%s\" bytes=%llu s=%.2f", l->name, step,
                 (unsigned long long)total, (double)(clock_us() - l->began_us) / 1e6);
    }
}

int main(int argc, char **argv, char **envp)
{
    struct options o;
    struct model *model = NULL;
    struct tokenizer *tokenizer = NULL;
    struct topology topology;
    struct error err;
    char path[PATH_MAX];

    process_init(argc, argv, envp);
    parse(&o, argc, argv);
    log_init("host", o.log_level);
    process_title("host %s", o.name);

    topology_init(&topology);
    topology_suggest(&topology, 1, &o.n_workers, &o.n_threads);
    int64_t begin_us = clock_us();
    struct model_options how = { o.pack_cache, log_step, &(struct loading){ .name = o.name } };
    if (model_open_with(&model, o.path, &how, &err) != OK ||
        tokenizer_create(&tokenizer, model_gguf(model), &err) != OK) {
        fprintf(stderr, "woolly-worker: %s\n", err.text);
        model_close(model);
        topology_fini(&topology);
        return EXIT_FAILURE;
    }
    const struct model_facts *facts = model_facts(model);
    log_info("model_loaded", "model=%s path=\"%s\" architecture=%s parameters=%llu bytes=%llu ms=%.1f",
             o.name, o.path, facts->architecture, (unsigned long long)facts->n_params,
             (unsigned long long)facts->weight_bytes, (double)(clock_us() - begin_us) / 1000);

    struct worker_setup setup = { .name = o.name,
                                  .path = realpath(o.path, path) ? path : o.path,
                                  .endpoint = o.broker,
                                  .model = model,
                                  .tokenizer = tokenizer,
                                  .engine = choose_engine(&o, facts),
                                  .n_workers = o.n_workers,
                                  .cores = o.is_pinned ? &topology : NULL };
    int status = host_run(&(struct host_options){
        .name = o.name, .n_workers = o.n_workers, .run = worker_run, .context = &setup });
    tokenizer_destroy(tokenizer);
    model_close(model);
    topology_fini(&topology);
    return status;
}

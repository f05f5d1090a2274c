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
#include "common/signals.h"
#include "common/topology.h"
#include "common/utf8.h"
#include "proto/messages.h"
#include "proto/wire.h"
#include "worker/host.h"
#include "worker/kernels/kernels.h"
#include "worker/loop.h"
#include "worker/scheduler.h"

enum { DEFAULT_SLOTS = 24, MAX_SLOTS = 1024, MAX_WORKERS = 256, MAX_THREADS = 1024, MAX_CTX = 1 << 20 };
enum { DEFAULT_CTX = 4096, DEFAULT_ITL_MS = 5, MAX_KV_MB = 1 << 24 };

struct options {
    char name[MAX_MODEL_NAME + 1];
    const char *path, *broker;
    const char *key, *server_key;             /* NULL: from the environment, or none */
    int n_workers, n_threads, n_ctx, n_slots; /* 0: not given */
    bool is_pinned;
    enum kv_type kv_type;
    const char *pack_cache; /* NULL: none */
    const char *sessions;   /* the same */
    int kv_memory_mb, itl_target_ms;
    enum speculate_mode speculate;
    const char *draft; /* a path; NULL: none */
    enum log_level log_level;
};

static const char usage_text[] =
    "usage: woolly-worker --model [NAME=]PATH --broker ENDPOINT [options]\n"
    "\n"
    "Serves a GGUF model to the broker at ENDPOINT (tcp://HOST:PORT or ipc://PATH).\n"
    "\n"
    "  --model [NAME=]PATH  the file, and what clients call it (default: the file's name)\n"
    "  --broker ENDPOINT    where the broker takes workers\n"
    "  --key FILE           the key of this host, made by `woolly keygen`, and the broker's public key,\n"
    "  --server-key KEY     for a broker on another machine (default $WOOLLY_KEY, $WOOLLY_SERVER_KEY)\n"
    "  --workers N          processes, all on one copy of the weights (default: one,\n"
    "                       or one for each NUMA node or L3 cache of a large machine)\n"
    "  --threads N          threads of each worker (default: cores / workers)\n"
    "  --pin on|off         give each worker cores of its own if there are enough (default on)\n"
    "  --ctx N              tokens per request, prompt and answer (default: what the model was\n"
    "                       trained for, at most 4096)\n"
    "  --slots N            requests a worker runs at once (default 24)\n"
    "  --kv TYPE            numbers in the cache: f16, bf16, q8, q4 or f32 (default f16)\n"
    "  --pack-cache DIR     keep the weights there as the products read them: the next start maps\n"
    "                       that file, which is as large as the model's, instead of making it\n"
    "  --sessions DIR       keep there what was computed of texts whose requests name a session, so\n"
    "                       that they go on quickly after a restart\n"
    "  --kv-memory MB       memory for the cache of each worker, which its requests share (default 0:\n"
    "                       an eighth of the machine's, for all workers together)\n"
    "  --itl-target MS      the prompts of others may double the time between two tokens of a running\n"
    "                       stream, and add this much (default 5)\n"
    "  --speculate MODE     guess tokens ahead and check them together: auto, when it is faster,\n"
    "                       off or always (default auto)\n"
    "  --draft PATH         a small model of the same vocabulary that does the guessing\n"
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

static void take_speculate(struct options *o, const char *text)
{
    static const char *const modes[] = {
        [SPECULATE_AUTO] = "auto", [SPECULATE_OFF] = "off", [SPECULATE_ALWAYS] = "always"
    };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (!strcmp(text, modes[i])) {
            o->speculate = (enum speculate_mode)i;
            return;
        }
    }
    usage_error("--speculate", text, "must be auto, off or always");
}

enum {
    MODEL = 1,
    BROKER,
    KEY,
    SERVER_KEY,
    WORKERS,
    THREADS,
    PIN,
    CTX,
    SLOTS,
    KV,
    KV_MEMORY,
    ITL_TARGET,
    SPECULATE,
    DRAFT,
    PACK_CACHE,
    SESSIONS,
    LEVEL,
    VERSION
};

static const struct option known[] = { { "model", required_argument, NULL, MODEL },
                                       { "broker", required_argument, NULL, BROKER },
                                       { "key", required_argument, NULL, KEY },
                                       { "server-key", required_argument, NULL, SERVER_KEY },
                                       { "workers", required_argument, NULL, WORKERS },
                                       { "threads", required_argument, NULL, THREADS },
                                       { "pin", required_argument, NULL, PIN },
                                       { "ctx", required_argument, NULL, CTX },
                                       { "slots", required_argument, NULL, SLOTS },
                                       { "kv", required_argument, NULL, KV },
                                       { "kv-memory", required_argument, NULL, KV_MEMORY },
                                       { "itl-target", required_argument, NULL, ITL_TARGET },
                                       { "speculate", required_argument, NULL, SPECULATE },
                                       { "draft", required_argument, NULL, DRAFT },
                                       { "pack-cache", required_argument, NULL, PACK_CACHE },
                                       { "sessions", required_argument, NULL, SESSIONS },
                                       { "log-level", required_argument, NULL, LEVEL },
                                       { "help", no_argument, NULL, 'h' },
                                       { "version", no_argument, NULL, VERSION },
                                       { 0 } };

static void take_option(struct options *o, int option, const char *value)
{
    switch (option) {
    case MODEL:
        take_model(o, value);
        break;
    case BROKER:
        o->broker = value;
        break;
    case KEY:
        o->key = value;
        break;
    case SERVER_KEY:
        o->server_key = value;
        break;
    case WORKERS:
        o->n_workers = number("--workers", value, 1, MAX_WORKERS);
        break;
    case THREADS:
        o->n_threads = number("--threads", value, 1, MAX_THREADS);
        break;
    case PIN:
        if (strcmp(value, "on") && strcmp(value, "off"))
            usage_error("--pin", value, "must be on or off");
        o->is_pinned = !strcmp(value, "on");
        break;
    case CTX:
        o->n_ctx = number("--ctx", value, 0, MAX_CTX);
        break;
    case SLOTS:
        o->n_slots = number("--slots", value, 1, MAX_SLOTS);
        break;
    case KV:
        take_kv_type(o, value);
        break;
    case KV_MEMORY:
        o->kv_memory_mb = number("--kv-memory", value, 0, MAX_KV_MB);
        break;
    case ITL_TARGET:
        o->itl_target_ms = number("--itl-target", value, 1, 10000);
        break;
    case SPECULATE:
        take_speculate(o, value);
        break;
    case DRAFT:
        if (!*value)
            usage_error("--draft", value, "must be the path of a model");
        o->draft = value;
        break;
    case PACK_CACHE:
        if (!*value)
            usage_error("--pack-cache", value, "must be a folder");
        o->pack_cache = value;
        break;
    case SESSIONS:
        if (!*value)
            usage_error("--sessions", value, "must be a folder");
        o->sessions = value;
        break;
    case LEVEL:
        if (log_level_parse(value, &o->log_level) != OK)
            usage_error("--log-level", value, "must be debug, info, warn or error");
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

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){ .is_pinned = true,
                           .n_slots = DEFAULT_SLOTS,
                           .kv_type = KV_F16,
                           .itl_target_ms = DEFAULT_ITL_MS,
                           .log_level = LOG_INFO };
    for (int option; (option = getopt_long(argc, argv, "h", known, NULL)) != -1;)
        take_option(o, option, optarg);
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
                                    .max_rows = scheduler_rows(o->n_slots),
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

struct keeping {
    const char *name;
    const struct model *model, *draft; /* the latter may be NULL */
    const struct model_options *how;
};

static bool has_to_keep(const struct keeping *k)
{
    return model_wants_cache(k->model) || (k->draft && model_wants_cache(k->draft));
}

/* The aide: weights that this start has packed the next one need not pack. */
static int keep_packed(const void *context)
{
    const struct keeping *k = context;
    log_rename("writer");
    process_title("writer %s", k->name);
    model_write_cache(k->model, k->how, signals_stop_wanted);
    if (k->draft)
        model_write_cache(k->draft, k->how, signals_stop_wanted);
    return EXIT_SUCCESS;
}

/* Before the weights are read, which takes long. */
static void check_isa(void)
{
    enum isa isa;
    char problem[120];
    if (!isa_choose(&isa, problem, sizeof problem)) {
        fprintf(stderr, "woolly-worker: %s\n", problem);
        exit(EXIT_USAGE);
    }
}

static bool is_same_piece(const struct tokenizer *a, const struct tokenizer *b, int32_t id)
{
    size_t a_len, b_len;
    const char *a_bytes = tokenizer_piece(a, id, &a_len), *b_bytes = tokenizer_piece(b, id, &b_len);
    return a_len == b_len && (!a_len || !memcmp(a_bytes, b_bytes, a_len)) &&
           tokenizer_is_end(a, id) == tokenizer_is_end(b, id);
}

/* What it guesses are ids, so they must mean the same to both models. */
static enum status check_draft(const struct model *draft, const char *path, const struct tokenizer *tokenizer,
                               struct error *err)
{
    struct tokenizer *own;
    enum status s = tokenizer_create(&own, model_gguf(draft), err);
    if (s != OK)
        return s;
    int n = tokenizer_n_vocab(tokenizer);
    if (tokenizer_n_vocab(own) != n)
        s = error_set(err, E_INVALID, "--draft: %s has %d tokens, the model has %d", path,
                      tokenizer_n_vocab(own), n);
    for (int32_t id = 0; id < n && s == OK; id++)
        if (!is_same_piece(own, tokenizer, id))
            s = error_set(err, E_INVALID, "--draft: token %d of %s is not the model's", id, path);
    tokenizer_destroy(own);
    return s;
}

static enum status open_draft(struct model **draft, const char *path, const struct model_options *how,
                              const struct tokenizer *tokenizer, struct error *err)
{
    if (!path)
        return OK;
    enum status s = model_open_with(draft, path, how, err);
    return s == OK ? check_draft(*draft, path, tokenizer, err) : s;
}

/* Now, so that a bad key ends the program and not worker after worker. NULL: none. */
static const struct peer_keys *find_keys(const struct options *o)
{
    static struct peer_keys keys;
    struct error err;
    bool is_given;
    if (!wire_is_tcp(o->broker))
        return NULL;
    if (keys_find(o->key, o->server_key, &keys, &is_given, &err) != OK) {
        fprintf(stderr, "woolly-worker: %s\n", err.text);
        exit(EXIT_USAGE);
    }
    return is_given ? &keys : NULL;
}

int main(int argc, char **argv, char **envp)
{
    struct options o;
    struct model *model = NULL, *draft = NULL;
    struct tokenizer *tokenizer = NULL;
    struct topology topology;
    struct error err;
    char path[PATH_MAX];

    process_init(argc, argv, envp);
    process_harden();
    parse(&o, argc, argv);
    const struct peer_keys *keys = find_keys(&o);
    log_init("host", o.log_level);
    process_title("host %s", o.name);
    check_isa();

    topology_init(&topology);
    topology_suggest(&topology, 1, &o.n_workers, &o.n_threads);
    int64_t begin_us = clock_us();
    struct model_options how = { o.pack_cache, log_step, &(struct loading){ .name = o.name } };
    if (model_open_with(&model, o.path, &how, &err) != OK ||
        tokenizer_create(&tokenizer, model_gguf(model), &err) != OK ||
        open_draft(&draft, o.draft, &how, tokenizer, &err) != OK) {
        fprintf(stderr, "woolly-worker: %s\n", err.text);
        tokenizer_destroy(tokenizer);
        model_close(draft);
        model_close(model);
        topology_fini(&topology);
        return EXIT_FAILURE;
    }
    const struct model_facts *facts = model_facts(model);
    log_info("model_loaded", "model=%s path=\"%s\" architecture=%s parameters=%llu bytes=%llu ms=%.1f",
             o.name, o.path, facts->architecture, (unsigned long long)facts->n_params,
             (unsigned long long)facts->weight_bytes, (double)(clock_us() - begin_us) / 1000);

    struct byte_order *byte_order = byte_order_create(tokenizer);
    struct worker_setup setup = { .name = o.name,
                                  .path = realpath(o.path, path) ? path : o.path,
                                  .endpoint = o.broker,
                                  .keys = keys,
                                  .model = model,
                                  .draft = draft,
                                  .tokenizer = tokenizer,
                                  .byte_order = byte_order,
                                  .sessions = o.sessions,
                                  .engine = choose_engine(&o, facts),
                                  .kv_memory_mb = o.kv_memory_mb,
                                  .itl_target_ms = o.itl_target_ms,
                                  .speculate = o.speculate,
                                  .n_workers = o.n_workers,
                                  .cores = o.is_pinned ? &topology : NULL };
    struct keeping keeping = { o.name, model, draft, &how };
    int status = host_run(&(struct host_options){ .name = o.name,
                                                  .n_workers = o.n_workers,
                                                  .run = worker_run,
                                                  .context = &setup,
                                                  .aid = has_to_keep(&keeping) ? keep_packed : NULL,
                                                  .aid_context = &keeping });
    byte_order_destroy(byte_order);
    tokenizer_destroy(tokenizer);
    model_close(draft);
    model_close(model);
    topology_fini(&topology);
    return status;
}

#include "broker/config.h"

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/topology.h"
#include "common/utf8.h"
#include "proto/wire.h"

const char config_help[] =
    "Usage: woolly serve [OPTIONS] [NAME=]PATH...\n"
    "\n"
    "Serves GGUF models to clients of this machine, in the foreground, until SIGTERM or Ctrl-C.\n"
    "A model without a NAME is called like its file, without .gguf.\n"
    "\n"
    "Options:\n"
    "  --model [NAME=]PATH    the same as a bare [NAME=]PATH; give several for several models\n"
    "  --workers N            worker processes per model (default: one, or one for each NUMA node or\n"
    "                         L3 cache of a large machine, divided among the models)\n"
    "  --threads N            threads per worker (default: the cores divided among all workers)\n"
    "  --pin on|off           give each worker cores of its own where there are enough (default on)\n"
    "  --slots N              requests a worker runs at once (default 8)\n"
    "  --ctx N                tokens per request, prompt and answer (default 0: what the model was\n"
    "                         trained for, at most 4096)\n"
    "  --kv TYPE              numbers in the KV cache: f16, bf16, q8, q4 or f32 (default f16)\n"
    "  --pack-cache DIR       keep weights there as the products read them: the next start maps those\n"
    "                         files, each as large as its model's, instead of making them\n"
    "  --sessions DIR         keep there what was computed of texts whose requests name a session, so\n"
    "                         that they go on quickly after a restart\n"
    "  --kv-memory MB         memory for the KV cache of each worker, which its requests share\n"
    "                         (default 0: chosen by what the machine has free)\n"
    "  --itl-target MS        the prompts of others may double the time between two tokens of a running\n"
    "                         stream, and add this much (default 5)\n"
    "  --speculate MODE       guess tokens ahead and check them together: auto (when it is faster), off\n"
    "                         or always (default auto)\n"
    "  --draft NAME=PATH      a small model of the same vocabulary that does the guessing for model NAME\n"
    "  --queue N              requests that may wait per model; more are refused (default 256)\n"
    "  --zmq ENDPOINT         where clients connect: ipc://PATH or tcp://127.0.0.1:PORT (PORT may be *)\n"
    "                         (default: a socket in the runtime folder, where the command line finds it)\n"
    "  --grace MS             time for running requests to end at a stop (default 5000); a second\n"
    "                         SIGTERM or Ctrl-C ends them at once\n"
    "  --log-level LEVEL      debug, info, warn or error (default info)\n"
    "  -h, --help             this text\n"
    "  --version              the version\n"
    "\n"
    "When all models can answer, one line on standard output says so:\n"
    "  woolly: ready at ENDPOINT with MODEL (N workers), ...\n"
    "The log goes to standard error.\n"
    "\n"
    "Environment:\n"
    "  WOOLLY_RUNTIME_DIR     the runtime folder (default $XDG_RUNTIME_DIR/woolly or /tmp/woolly-UID)\n"
    "\n"
    "Exit status: 0 stopped as asked, 1 failed (for example a model that cannot be loaded), 2 usage.\n";

enum {
    OPT_MODEL = 1,
    OPT_WORKERS,
    OPT_THREADS,
    OPT_PIN,
    OPT_SLOTS,
    OPT_CTX,
    OPT_KV,
    OPT_PACK_CACHE,
    OPT_SESSIONS,
    OPT_KV_MEMORY,
    OPT_ITL_TARGET,
    OPT_SPECULATE,
    OPT_DRAFT,
    OPT_QUEUE,
    OPT_ZMQ,
    OPT_GRACE,
    OPT_LOG,
    OPT_VERSION
};

static const struct option options[] = {
    { "model", required_argument, NULL, OPT_MODEL },
    { "workers", required_argument, NULL, OPT_WORKERS },
    { "threads", required_argument, NULL, OPT_THREADS },
    { "pin", required_argument, NULL, OPT_PIN },
    { "slots", required_argument, NULL, OPT_SLOTS },
    { "ctx", required_argument, NULL, OPT_CTX },
    { "kv", required_argument, NULL, OPT_KV },
    { "kv-memory", required_argument, NULL, OPT_KV_MEMORY },
    { "itl-target", required_argument, NULL, OPT_ITL_TARGET },
    { "speculate", required_argument, NULL, OPT_SPECULATE },
    { "draft", required_argument, NULL, OPT_DRAFT },
    { "queue", required_argument, NULL, OPT_QUEUE },
    { "zmq", required_argument, NULL, OPT_ZMQ },
    { "grace", required_argument, NULL, OPT_GRACE },
    { "pack-cache", required_argument, NULL, OPT_PACK_CACHE },
    { "sessions", required_argument, NULL, OPT_SESSIONS },
    { "log-level", required_argument, NULL, OPT_LOG },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, OPT_VERSION },
    { NULL, 0, NULL, 0 },
};

static enum status take_number(uint32_t *out, const char *option, const char *text, long long min,
                               long long max, struct error *err)
{
    const char *why = NULL;
    long long n = strtonum(text, min, max, &why);
    if (why)
        return error_set(err, E_INVALID, "--%s: \"%s\" is %s (%lld to %lld)", option, text, why, min, max);
    *out = (uint32_t)n;
    return OK;
}

static bool is_good_name(const char *name)
{
    if (!*name || !utf8_is_valid(name, strlen(name)))
        return false;
    for (; *name; name++)
        if ((unsigned char)*name <= ' ' || *name == 0x7f)
            return false;
    return true;
}

/* NAME=PATH, or PATH alone; a '=' behind a '/' belongs to the path. */
static enum status split_model(struct config_model *m, const char *text, struct error *err)
{
    size_t len = strcspn(text, "=/");
    m->path = text;
    if (text[len] == '=') {
        m->path = text + len + 1;
    } else {
        const char *slash = strrchr(text, '/');
        text = slash ? slash + 1 : text;
        len = strlen(text);
        if (len > 5 && !strcmp(text + len - 5, ".gguf"))
            len -= 5;
    }
    if (len > MAX_MODEL_NAME)
        return error_set(err, E_LIMIT, "the name of model %s is longer than %d bytes", m->path,
                         MAX_MODEL_NAME);
    memcpy(m->name, text, len);
    m->name[len] = 0;
    if (!*m->path)
        return error_set(err, E_INVALID, "model \"%s\" has no path (NAME=PATH)", m->name);
    if (!is_good_name(m->name))
        return error_set(err, E_INVALID,
                         "\"%s\" cannot be the name of a model: give one without spaces (NAME=PATH)",
                         m->name);
    return OK;
}

static enum status add_model(struct config *c, const char *text, struct error *err)
{
    if (c->n_models == MAX_MODELS)
        return error_set(err, E_LIMIT, "more than %d models", MAX_MODELS);
    struct config_model *m = &c->models[c->n_models];
    enum status s = split_model(m, text, err);
    if (s != OK)
        return s;
    for (int i = 0; i < c->n_models; i++)
        if (!strcmp(c->models[i].name, m->name))
            return error_set(err, E_INVALID, "two models are called %s: give them names (NAME=PATH)",
                             m->name);
    c->n_models++;
    return OK;
}

/* NAME=PATH; the model may be named later on the command line, so it is looked for at the end. */
static enum status add_draft(struct config *c, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1])
        return error_set(err, E_INVALID, "--draft: \"%s\" is not NAME=PATH", text);
    if (c->n_drafts == MAX_MODELS)
        return error_set(err, E_LIMIT, "--draft: more than %d", MAX_MODELS);
    c->drafts[c->n_drafts++] = text;
    return OK;
}

static enum status give_draft(struct config *c, const char *text, struct error *err)
{
    size_t len = strcspn(text, "=");
    for (int i = 0; i < c->n_models; i++) {
        struct config_model *m = &c->models[i];
        if (strlen(m->name) == len && !memcmp(m->name, text, len)) {
            m->draft = text + len + 1;
            return OK;
        }
    }
    return error_set(err, E_INVALID, "--draft: there is no model \"%.*s\"", (int)len, text);
}

/* As woolly-worker knows them. */
static const char *const kv_types[] = { "f16", "bf16", "q8", "q4", "f32" };

static enum status take_option(struct config *c, int option, const char *value, struct error *err)
{
    switch (option) {
    case OPT_MODEL:
        return add_model(c, value, err);
    case OPT_WORKERS:
        return take_number(&c->workers, "workers", value, 1, 256, err);
    case OPT_THREADS:
        return take_number(&c->threads, "threads", value, 1, 1024, err);
    case OPT_PIN:
        c->is_pinned = strcmp(value, "off") != 0;
        if (strcmp(value, "on") && strcmp(value, "off"))
            return error_set(err, E_INVALID, "--pin: \"%s\" is neither on nor off", value);
        return OK;
    case OPT_SLOTS: /* submit and drop for each must fit into a ZeroMQ queue of 1000 */
        return take_number(&c->slots, "slots", value, 1, 256, err);
    case OPT_CTX:
        return take_number(&c->n_ctx, "ctx", value, 0, 1 << 24, err);
    case OPT_QUEUE:
        return take_number(&c->queue, "queue", value, 1, 1 << 20, err);
    case OPT_GRACE:
        return take_number(&c->grace_ms, "grace", value, 0, 24 * 3600 * 1000, err);
    case OPT_KV:
        c->kv = value;
        for (size_t i = 0; i < sizeof kv_types / sizeof *kv_types; i++)
            if (!strcmp(value, kv_types[i]))
                return OK;
        return error_set(err, E_INVALID, "--kv: \"%s\" is none of f16, bf16, q8, q4, f32", value);
    case OPT_KV_MEMORY:
        return take_number(&c->kv_memory_mb, "kv-memory", value, 0, 1 << 24, err);
    case OPT_ITL_TARGET:
        return take_number(&c->itl_target_ms, "itl-target", value, 1, 10000, err);
    case OPT_SPECULATE:
        c->speculate = value;
        if (strcmp(value, "auto") && strcmp(value, "off") && strcmp(value, "always"))
            return error_set(err, E_INVALID, "--speculate: \"%s\" is none of auto, off, always", value);
        return OK;
    case OPT_DRAFT:
        return add_draft(c, value, err);
    case OPT_PACK_CACHE:
        c->pack_cache = value;
        return *value ? OK : error_set(err, E_INVALID, "--pack-cache: no folder");
    case OPT_SESSIONS:
        c->sessions = value;
        return *value ? OK : error_set(err, E_INVALID, "--sessions: no folder");
    case OPT_ZMQ:
        c->zmq = value;
        return wire_check_local(value, err);
    case OPT_LOG:
        if (log_level_parse(value, &c->log_level) != OK)
            return error_set(err, E_INVALID, "--log-level: \"%s\" is none of debug, info, warn, error",
                             value);
        return OK;
    case 'h':
        c->wants_help = true;
        return OK;
    case OPT_VERSION:
        c->wants_version = true;
        return OK;
    }
    return error_set(err, E_INVALID, "unknown option");
}

static void share_cores(struct config *c)
{
    struct topology t;
    int workers = (int)c->workers, threads = (int)c->threads;

    topology_init(&t);
    topology_suggest(&t, c->n_models, &workers, &threads);
    topology_fini(&t);
    c->workers = (uint32_t)workers;
    c->threads = (uint32_t)threads;
}

enum status config_parse(struct config *c, int argc, char **argv, struct error *err)
{
    *c = (struct config){ .is_pinned = true,
                          .slots = 8,
                          .kv = "f16",
                          .itl_target_ms = 5,
                          .speculate = "auto",
                          .queue = 256,
                          .grace_ms = 5000,
                          .log_level = LOG_INFO };
    enum status s;
    int option;

    opterr = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (option == ':')
            return error_set(err, E_INVALID, "%s needs a value", argv[optind - 1]);
        if (option == '?')
            return error_set(err, E_INVALID, "there is no option %s", argv[optind - 1]);
        if ((s = take_option(c, option, optarg, err)) != OK || c->wants_help || c->wants_version)
            return s;
    }
    for (; optind < argc; optind++)
        if ((s = add_model(c, argv[optind], err)) != OK)
            return s;
    if (!c->n_models)
        return error_set(err, E_INVALID, "give at least one model: woolly serve PATH.gguf");
    for (int i = 0; i < c->n_drafts; i++)
        if ((s = give_draft(c, c->drafts[i], err)) != OK)
            return s;
    share_cores(c);
    return OK;
}

static enum status check_file(const char *what, const char *name, const char *path, struct error *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || access(path, R_OK) != 0)
        return error_errno(err, "cannot read %s %s: %s", what, name, path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, E_INVALID, "cannot read %s %s: %s is not a file", what, name, path);
    return OK;
}

enum status config_check_files(const struct config *c, struct error *err)
{
    for (int i = 0; i < c->n_models; i++) {
        const struct config_model *m = &c->models[i];
        enum status s = check_file("model", m->name, m->path, err);
        if (s == OK && m->draft)
            s = check_file("the draft model of", m->name, m->draft, err);
        if (s != OK)
            return s;
    }
    return OK;
}

#include "broker/config.h"

#include <assert.h>
#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <ctype.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/access.h"
#include "broker/config_file.h"
#include "common/topology.h"
#include "common/utf8.h"
#include "common/xalloc.h"
#include "proto/wire.h"

const char config_help[] =
    "Usage: woolly serve [OPTIONS] [NAME=]PATH...\n"
    "\n"
    "Serves GGUF models to clients of this machine (and of others, see --key), in the foreground, until\n"
    "SIGTERM or Ctrl-C.\n"
    "A model without a NAME is called like its file, without .gguf.\n"
    "\n"
    "Options:\n"
    "  --config FILE          settings from a file like deploy/woolly.yaml; the environment counts more,\n"
    "                         and options most\n"
    "  --check                only say whether the settings are good and the files can be read\n"
    "  --model [NAME=]PATH    the same as a bare [NAME=]PATH; give several for several models\n"
    "  --workers N            worker processes per model (default: one, or one for each NUMA node or\n"
    "                         L3 cache of a large machine, divided among the models)\n"
    "  --threads N            threads per worker (default: the cores divided among all workers)\n"
    "  --pin on|off           give each worker cores of its own where there are enough (default on)\n"
    "  --slots N              requests a worker runs at once (default 24)\n"
    "  --ctx N                tokens per request, prompt and answer (default 0: what the model was\n"
    "                         trained for, at most 4096)\n"
    "  --kv TYPE              numbers in the KV cache: f16, bf16, q8, q4 or f32 (default f16)\n"
    "  --pack-cache DIR       keep weights there as the products read them: the next start maps those\n"
    "                         files, each as large as its model's, instead of making them\n"
    "  --sessions DIR         keep there what was computed of texts whose requests name a session, so\n"
    "                         that they go on quickly after a restart\n"
    "  --kv-memory MB         memory for the KV cache of each worker, which its requests share\n"
    "                         (default 0: an eighth of the machine's, for all workers of a model)\n"
    "  --itl-target MS        the prompts of others may double the time between two tokens of a running\n"
    "                         stream, and add this much (default 5)\n"
    "  --speculate MODE       guess tokens ahead and check them together: auto (when it is faster), off\n"
    "                         or always (default auto)\n"
    "  --draft NAME=PATH      a small model of the same vocabulary that does the guessing for model NAME\n"
    "  --queue N              requests that may wait per model; more are refused (default 256)\n"
    "  --zmq ENDPOINT         where clients connect: ipc://PATH or tcp://ADDRESS:PORT (PORT may be *)\n"
    "                         (default: a socket in the runtime folder, where the command line finds it)\n"
    "  --zmq-workers ENDPOINT where model hosts of other machines connect: tcp://ADDRESS:PORT\n"
    "                         (default: nowhere)\n"
    "  --key FILE             the server's key (woolly keygen makes one): TCP connections are encrypted\n"
    "  --allow FILE           the keys whose connections are taken; a line is client NAME KEY or\n"
    "                         worker NAME KEY. Beyond loopback these two are needed\n"
    "  --insecure             do without, on a network where everybody may do and read everything\n"
    "  --grace MS             time for running requests to end at a stop (default 5000); a second\n"
    "                         SIGTERM or Ctrl-C ends them at once\n"
    "  --stall MS             a worker that has work and makes no step for so long is killed, and others\n"
    "                         go on with its requests (default 60000)\n"
    "  --log-level LEVEL      debug, info, warn or error (default info)\n"
    "  -h, --help             this text\n"
    "  --version              the version\n"
    "\n"
    "When all models can answer, one line on standard output says so:\n"
    "  woolly: ready at ENDPOINT with MODEL (N workers), ...\n"
    "The log goes to standard error. SIGHUP reads log level and keys again, for new connections.\n"
    "\n"
    "Environment:\n"
    "  WOOLLY_SERVE_X         option --x, for example WOOLLY_SERVE_THREADS=4\n"
    "  WOOLLY_RUNTIME_DIR     the runtime folder (default $XDG_RUNTIME_DIR/woolly or /tmp/woolly-UID)\n"
    "\n"
    "Exit status: 0 stopped as asked, 1 failed (for example a model that cannot be loaded), 2 usage.\n";

enum option_id {
    OPT_MODEL = 1,
    OPT_DRAFT,
    OPT_CONFIG,
    OPT_CHECK,
    OPT_VERSION,
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
    OPT_QUEUE,
    OPT_ZMQ,
    OPT_ZMQ_WORKERS,
    OPT_KEY,
    OPT_ALLOW,
    OPT_INSECURE,
    OPT_GRACE,
    OPT_STALL,
    OPT_LOG
};

/* One name for one thing: --kv-memory, WOOLLY_SERVE_KV_MEMORY, and kv-memory in its section of the file. */
static const struct setting {
    const char *name;
    enum option_id id;
    const char *section; /* of the file; NULL: not there, nor in the environment */
    bool is_switch;      /* "on" or "off"; as an option without a value it is on */
} settings[] = {
    { "model", OPT_MODEL, NULL, false },
    { "draft", OPT_DRAFT, NULL, false },
    { "config", OPT_CONFIG, NULL, false },
    { "check", OPT_CHECK, NULL, true },
    { "help", 'h', NULL, true },
    { "version", OPT_VERSION, NULL, true },
    { "zmq", OPT_ZMQ, "server", false },
    { "zmq-workers", OPT_ZMQ_WORKERS, "server", false },
    { "grace", OPT_GRACE, "server", false },
    { "stall", OPT_STALL, "server", false },
    { "log-level", OPT_LOG, "server", false },
    { "key", OPT_KEY, "keys", false },
    { "allow", OPT_ALLOW, "keys", false },
    { "insecure", OPT_INSECURE, "keys", true },
    { "queue", OPT_QUEUE, "limits", false },
    { "workers", OPT_WORKERS, "engine", false },
    { "threads", OPT_THREADS, "engine", false },
    { "pin", OPT_PIN, "engine", false },
    { "slots", OPT_SLOTS, "engine", false },
    { "ctx", OPT_CTX, "engine", false },
    { "kv", OPT_KV, "engine", false },
    { "kv-memory", OPT_KV_MEMORY, "engine", false },
    { "itl-target", OPT_ITL_TARGET, "engine", false },
    { "speculate", OPT_SPECULATE, "engine", false },
    { "pack-cache", OPT_PACK_CACHE, "engine", false },
    { "sessions", OPT_SESSIONS, "engine", false },
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

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

/* A text that outlives where it came from. */
static const char *keep(struct config *c, const char *text)
{
    c->texts = xrealloc(c->texts, (c->n_texts + 1) * sizeof *c->texts);
    return c->texts[c->n_texts++] = xstrdup(text);
}

static enum status add_model(struct config *c, const char *text, struct error *err)
{
    if (c->has_file_models) { /* the command line's take the place of the file's */
        c->n_models = 0;
        c->has_file_models = false;
    }
    if (c->n_models == MAX_MODELS)
        return error_set(err, E_LIMIT, "more than %d models", MAX_MODELS);
    c->models[c->n_models] = (struct config_model){ 0 };
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
static const char *const modes[] = { "auto", "off", "always" };

static enum status take_switch(bool *out, const char *option, const char *value, struct error *err)
{
    static const char *const on[] = { "on", "true", "yes" }, *const off[] = { "off", "false", "no" };
    for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
        *out = !strcmp(value, on[i]);
        if (*out || !strcmp(value, off[i]))
            return OK;
    }
    return error_set(err, E_INVALID, "--%s: \"%s\" is neither on nor off", option, value);
}

static enum status take_text(struct config *c, const char **out, const char *option, const char *value,
                             struct error *err)
{
    if (!*value)
        return error_set(err, E_INVALID, "--%s: a path would be right, not nothing", option);
    *out = keep(c, value);
    return OK;
}

/* Whether it may be open to the network is looked at when all is known. */
static enum status take_endpoint(struct config *c, const char **out, const char *option, const char *value,
                                 struct error *err)
{
    struct error why;
    enum status s = wire_check_listen(value, REACH_NETWORK, &why);
    if (s != OK)
        return error_set(err, s, "--%s: %s", option, why.text);
    *out = keep(c, value);
    return OK;
}

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
        return take_switch(&c->is_pinned, "pin", value, err);
    case OPT_SLOTS: /* submit and drop for each must fit into a ZeroMQ queue of 1000 */
        return take_number(&c->slots, "slots", value, 1, 256, err);
    case OPT_CTX:
        return take_number(&c->n_ctx, "ctx", value, 0, 1 << 24, err);
    case OPT_QUEUE:
        return take_number(&c->queue, "queue", value, 1, 1 << 20, err);
    case OPT_GRACE:
        return take_number(&c->grace_ms, "grace", value, 0, 24 * 3600 * 1000, err);
    case OPT_STALL: /* a beat comes every second */
        return take_number(&c->stall_ms, "stall", value, 2 * BEAT_MS, 24 * 3600 * 1000, err);
    case OPT_KV:
        for (size_t i = 0; i < sizeof kv_types / sizeof *kv_types; i++) {
            c->kv = kv_types[i];
            if (!strcmp(value, kv_types[i]))
                return OK;
        }
        return error_set(err, E_INVALID, "--kv: \"%s\" is none of f16, bf16, q8, q4, f32", value);
    case OPT_KV_MEMORY:
        return take_number(&c->kv_memory_mb, "kv-memory", value, 0, 1 << 24, err);
    case OPT_ITL_TARGET:
        return take_number(&c->itl_target_ms, "itl-target", value, 1, 10000, err);
    case OPT_SPECULATE:
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
            c->speculate = modes[i];
            if (!strcmp(value, modes[i]))
                return OK;
        }
        return error_set(err, E_INVALID, "--speculate: \"%s\" is none of auto, off, always", value);
    case OPT_DRAFT:
        return add_draft(c, value, err);
    case OPT_PACK_CACHE:
        return take_text(c, &c->pack_cache, "pack-cache", value, err);
    case OPT_SESSIONS:
        return take_text(c, &c->sessions, "sessions", value, err);
    case OPT_ZMQ:
        return take_endpoint(c, &c->zmq, "zmq", value, err);
    case OPT_ZMQ_WORKERS:
        if (!wire_is_tcp(value))
            return error_set(err, E_INVALID, "--zmq-workers: \"%s\" is not tcp://ADDRESS:PORT", value);
        return take_endpoint(c, &c->zmq_workers, "zmq-workers", value, err);
    case OPT_KEY:
        return take_text(c, &c->key, "key", value, err);
    case OPT_ALLOW:
        return take_text(c, &c->allow, "allow", value, err);
    case OPT_INSECURE:
        return take_switch(&c->is_insecure, "insecure", value, err);
    case OPT_CONFIG: /* read before */
        return OK;
    case OPT_CHECK:
        c->wants_check = true;
        return OK;
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

/* ---- the file ---- */

static enum status take_model_key(struct config *c, const char *key, const char *value, struct error *err)
{
    struct config_model *m = &c->models[c->n_models];
    if (c->n_models == MAX_MODELS)
        return error_set(err, E_LIMIT, "more than %d models", MAX_MODELS);
    if (!key && !m->path)
        return error_set(err, E_INVALID, "this model has no path");
    if (!key) {
        char *text = *m->name ? xasprintf("%s=%s", m->name, m->path) : xstrdup(m->path);
        const char *kept = keep(c, text), *draft = m->draft;
        free(text);
        enum status s = add_model(c, kept, err);
        if (s == OK)
            c->models[c->n_models - 1].draft = draft;
        if (c->n_models < MAX_MODELS)
            c->models[c->n_models] = (struct config_model){ 0 };
        return s;
    }
    if (!strcmp(key, "path"))
        return take_text(c, &m->path, "path", value, err);
    if (!strcmp(key, "draft"))
        return take_text(c, &m->draft, "draft", value, err);
    if (strcmp(key, "name"))
        return error_set(err, E_INVALID, "there is no \"%s\": path, name and draft would be right", key);
    if (!is_good_name(value) || strcspn(value, "=/") != strlen(value) ||
        strlcpy(m->name, value, sizeof m->name) >= sizeof m->name)
        return error_set(err, E_INVALID, "name: \"%.100s\" cannot be the name of a model", value);
    return OK;
}

static enum status explain_unknown(const char *section, const char *key, struct error *err)
{
    char known[200] = "";
    for (int i = 0; i < N_SETTINGS; i++) {
        if (settings[i].section && !strcmp(settings[i].section, section)) {
            strlcat(known, *known ? ", " : "", sizeof known);
            strlcat(known, settings[i].name, sizeof known);
        }
    }
    if (!*known)
        return error_set(err, E_INVALID,
                         "there is no such section: models, server, keys, limits and engine would be right");
    if (!*key)
        return OK;
    return error_set(err, E_INVALID, "there is no \"%.100s\" here: known are %s", key, known);
}

static enum status take_from_file(void *context, const char *section, const char *key, const char *value,
                                  struct error *err)
{
    if (!strcmp(section, "models"))
        return key && !*key ? OK : take_model_key(context, key, value, err);
    for (int i = 0; i < N_SETTINGS; i++)
        if (settings[i].section && !strcmp(settings[i].section, section) && !strcmp(settings[i].name, key))
            return take_option(context, (int)settings[i].id, value, err);
    return explain_unknown(section, key, err);
}

static enum status read_file(struct config *c, struct error *err)
{
    const struct config_sink sink = { c, take_from_file };
    enum status s = config_file_read(c->path, &sink, err);
    c->has_file_models = c->n_models > 0;
    return s;
}

/* ---- environment and command line ---- */

/* "kv-memory" is WOOLLY_SERVE_KV_MEMORY. */
static const char *from_environment(const char *name, char *variable, size_t size)
{
    strlcpy(variable, "WOOLLY_SERVE_", size);
    strlcat(variable, name, size);
    for (char *at = variable; *at; at++)
        *at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
    return getenv(variable);
}

static enum status read_environment(struct config *c, struct error *err)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        char variable[64];
        struct error why;
        const char *value =
            settings[i].section ? from_environment(settings[i].name, variable, sizeof variable) : NULL;
        enum status s = value ? take_option(c, (int)settings[i].id, value, &why) : OK;
        if (s != OK)
            return error_set(err, s, "%s: %s", variable, why.text);
    }
    return OK;
}

static void list_options(struct option *out)
{
    for (int i = 0; i < N_SETTINGS; i++)
        out[i] = (struct option){ settings[i].name, settings[i].is_switch ? no_argument : required_argument,
                                  NULL, (int)settings[i].id };
    out[N_SETTINGS] = (struct option){ 0 };
}

/* What must be known before the rest: --config, --help, --version. */
static void look_ahead(struct config *c, const struct option *options)
{
    char variable[64];
    c->path = from_environment("config", variable, sizeof variable);
    optind = 1;
    for (int option; (option = getopt_long(c->argc, c->argv, ":h", options, NULL)) != -1;) {
        if (option == OPT_CONFIG)
            c->path = optarg;
        c->wants_help |= option == 'h';
        c->wants_version |= option == OPT_VERSION;
    }
}

static enum status read_arguments(struct config *c, const struct option *options, struct error *err)
{
    enum status s;
    int option;

    optind = 1;
    while ((option = getopt_long(c->argc, c->argv, ":h", options, NULL)) != -1) {
        if (option == ':')
            return error_set(err, E_INVALID, "%s needs a value", c->argv[optind - 1]);
        if (option == '?')
            return error_set(err, E_INVALID, "there is no option %s", c->argv[optind - 1]);
        if ((s = take_option(c, option, optarg ? optarg : "on", err)) != OK)
            return s;
    }
    for (; optind < c->argc; optind++)
        if ((s = add_model(c, c->argv[optind], err)) != OK)
            return s;
    for (int i = 0; i < c->n_drafts; i++)
        if ((s = give_draft(c, c->drafts[i], err)) != OK)
            return s;
    return OK;
}

static enum status check_reach(const struct config *c, struct error *err)
{
    const char *endpoints[] = { c->zmq, c->zmq_workers };
    if (!c->key != !c->allow)
        return error_set(err, E_INVALID,
                         "--key and --allow belong together: the server's key, and whose it takes");
    if (c->key && c->is_insecure)
        return error_set(err, E_INVALID, "--insecure and --key contradict each other");
    for (int i = 0; i < 2; i++) {
        enum wire_reach reach = c->key || c->is_insecure ? REACH_NETWORK : REACH_MACHINE;
        enum status s = endpoints[i] ? wire_check_listen(endpoints[i], reach, err) : OK;
        if (s != OK)
            return s;
    }
    return OK;
}

enum status config_parse(struct config *c, int argc, char **argv, struct error *err)
{
    struct option options[N_SETTINGS + 1];
    enum status s;

    *c = (struct config){ .argc = argc,
                          .argv = argv,
                          .is_pinned = true,
                          .slots = 24,
                          .kv = "f16",
                          .itl_target_ms = 5,
                          .speculate = "auto",
                          .queue = 256,
                          .grace_ms = 5000,
                          .stall_ms = 60000,
                          .log_level = LOG_INFO };
    opterr = 0;
    list_options(options);
    look_ahead(c, options);
    if (c->wants_help || c->wants_version)
        return OK;
    if ((c->path && (s = read_file(c, err)) != OK) || (s = read_environment(c, err)) != OK ||
        (s = read_arguments(c, options, err)) != OK || (s = check_reach(c, err)) != OK)
        return s;
    if (!c->n_models)
        return error_set(err, E_INVALID, "give at least one model: woolly serve PATH.gguf");
    share_cores(c);
    return OK;
}

void config_fini(struct config *c)
{
    for (size_t i = 0; i < c->n_texts; i++)
        free(c->texts[i]);
    free(c->texts);
    c->texts = NULL;
    c->n_texts = 0;
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

enum status config_read_keys(const struct config *c, struct key_pair *key, struct access_list *list,
                             struct error *err)
{
    *list = (struct access_list){ 0 };
    if (!c->key)
        return OK;
    enum status s = keys_read(c->key, key, err);
    return s == OK ? access_read(list, c->allow, err) : s;
}

enum status config_check_files(const struct config *c, struct error *err)
{
    struct key_pair key;
    struct access_list list;
    for (int i = 0; i < c->n_models; i++) {
        const struct config_model *m = &c->models[i];
        enum status s = check_file("model", m->name, m->path, err);
        if (s == OK && m->draft)
            s = check_file("the draft model of", m->name, m->draft, err);
        if (s != OK)
            return s;
    }
    enum status s = config_read_keys(c, &key, &list, err);
    explicit_bzero(&key, sizeof key);
    access_free(&list);
    return s;
}

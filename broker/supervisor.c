#include "broker/supervisor.h"

#include <assert.h>
#include <bsd/string.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/children.h"
#include "broker/loop.h"
#include "common/clock.h"
#include "common/process.h"
#include "common/signals.h"
#include "common/topology.h"
#include "common/xalloc.h"

enum {
    BROKER_STOP_MS = 3000, /* beyond the grace: last messages, closing sockets */
    HOSTS_STOP_MS = 5000,  /* to end workers and give memory back */
};

enum phase { SERVING, STOPPING_BROKER, STOPPING_HOSTS };

struct supervisor {
    const struct config *config;
    struct runtime runtime;
    char folder[512]; /* of our programs */
    struct child broker, hosts[MAX_MODELS];
    int notes[2]; /* pipe from the broker process */
    bool is_announced;
    enum phase phase;
    int64_t limit_ms; /* of the phase */
    int stops_seen;
    int exit_status;
};

/* ---- what the children run ---- */

static void run_broker(void *context, int which)
{
    struct supervisor *s = context;
    (void)which;
    exit(loop_run(s->config, s->runtime.clients, s->runtime.workers, getppid(), s->notes[1]));
}

/* To the cores of its workers, if each has some of its own; they are divided in the host. */
static bool confine_host(const struct config *c, int which)
{
    struct topology t;
    cpu_set_t all, one;
    int n = (int)c->workers;
    bool is_enough = c->is_pinned;

    CPU_ZERO(&all);
    topology_init(&t);
    for (int i = 0; i < n && is_enough; i++) {
        is_enough = topology_share(&t, which * n + i, c->n_models * n, (int)c->threads, &one);
        if (is_enough)
            CPU_OR(&all, &all, &one);
    }
    topology_fini(&t);
    return is_enough && sched_setaffinity(0, sizeof all, &all) == 0;
}

struct arguments {
    char *list[40];
    int n;
};

/* Takes over `value`. */
static void add_option(struct arguments *a, const char *option, char *value)
{
    assert(a->n + 3 <= (int)(sizeof a->list / sizeof *a->list));
    a->list[a->n++] = xstrdup(option);
    a->list[a->n++] = value;
}

static void run_host(void *context, int which)
{
    const struct supervisor *s = context;
    const struct config *c = s->config;
    const struct config_model *m = &c->models[which];
    struct arguments a = { .list = { xstrdup("woolly-worker") }, .n = 1 };

    add_option(&a, "--model", xasprintf("%s=%s", m->name, m->path));
    add_option(&a, "--broker", xstrdup(s->runtime.workers));
    add_option(&a, "--workers", xasprintf("%u", c->workers));
    add_option(&a, "--threads", xasprintf("%u", c->threads));
    add_option(&a, "--pin", xstrdup(confine_host(c, which) ? "on" : "off"));
    add_option(&a, "--ctx", xasprintf("%u", c->n_ctx));
    add_option(&a, "--slots", xasprintf("%u", c->slots));
    add_option(&a, "--kv", xstrdup(c->kv));
    add_option(&a, "--kv-memory", xasprintf("%u", c->kv_memory_mb));
    add_option(&a, "--itl-target", xasprintf("%u", c->itl_target_ms));
    add_option(&a, "--speculate", xstrdup(c->speculate));
    add_option(&a, "--log-level", xstrdup(log_level_name(c->log_level)));
    if (c->pack_cache)
        add_option(&a, "--pack-cache", xstrdup(c->pack_cache));
    if (c->sessions)
        add_option(&a, "--sessions", xstrdup(c->sessions));
    if (m->draft)
        add_option(&a, "--draft", xstrdup(m->draft));
    char *program = xasprintf("%s/woolly-worker", s->folder);
    execv(program, a.list);
    warn("cannot run %s", program);
    _exit(EXIT_FAILURE);
}

static void name_children(struct supervisor *s)
{
    s->broker = (struct child){ .what = "broker", .run = run_broker, .context = s };
    for (int i = 0; i < s->config->n_models; i++) {
        s->hosts[i] = (struct child){ .run = run_host, .context = s, .which = i };
        snprintf(s->hosts[i].what, sizeof s->hosts[i].what, "host of %s", s->config->models[i].name);
    }
}

/* ---- stopping ---- */

static bool is_a_host_running(const struct supervisor *s)
{
    for (int i = 0; i < s->config->n_models; i++)
        if (s->hosts[i].pid)
            return true;
    return false;
}

static void signal_hosts(struct supervisor *s, int signal)
{
    for (int i = 0; i < s->config->n_models; i++)
        child_signal(&s->hosts[i], signal);
}

static void stop_hosts(struct supervisor *s, int64_t now_ms)
{
    s->phase = STOPPING_HOSTS;
    s->limit_ms = now_ms + HOSTS_STOP_MS;
    signal_hosts(s, SIGTERM);
}

/* The broker first: it lets running requests end, for which it needs the workers. */
static void begin_stop(struct supervisor *s, int exit_status, int64_t now_ms)
{
    if (s->phase != SERVING)
        return;
    s->exit_status = exit_status;
    s->phase = STOPPING_BROKER;
    s->limit_ms = now_ms + s->config->grace_ms + BROKER_STOP_MS;
    child_signal(&s->broker, SIGTERM);
}

static void hurry(struct supervisor *s, int64_t now_ms)
{
    if (s->phase == STOPPING_BROKER) {
        s->limit_ms = deadline_earlier(s->limit_ms, now_ms + BROKER_STOP_MS);
        child_signal(&s->broker, SIGTERM); /* its second one: its grace is over */
    } else {
        s->limit_ms = now_ms;
    }
}

static void enforce_limit(struct supervisor *s, int64_t now_ms)
{
    if (s->phase == SERVING || !deadline_passed(now_ms, s->limit_ms))
        return;
    log_warn("stop_forced", "phase=%s", s->phase == STOPPING_BROKER ? "broker" : "hosts");
    s->limit_ms = DEADLINE_NONE;
    if (s->phase == STOPPING_BROKER)
        child_signal(&s->broker, SIGKILL);
    else
        signal_hosts(s, SIGKILL);
}

/* ---- events ---- */

static struct child *child_with(struct supervisor *s, pid_t pid)
{
    if (s->broker.pid == pid)
        return &s->broker;
    for (int i = 0; i < s->config->n_models; i++)
        if (s->hosts[i].pid == pid)
            return &s->hosts[i];
    return NULL;
}

static void note_end(struct supervisor *s, struct child *c, int how, int64_t now_ms)
{
    char text[64];
    process_describe_end(how, text, sizeof text);
    child_note_end(c, now_ms);
    if (s->phase != SERVING) {
        log_debug("child_ended", "what=\"%s\" how=\"%s\"", c->what, text);
        return;
    }
    log_warn("child_ended", "what=\"%s\" how=\"%s\"", c->what, text);
    /* It said why in one line, and would say it again: an unreadable model, an endpoint in use. */
    if (WIFEXITED(how) && (WEXITSTATUS(how) == EXIT_FAILURE || WEXITSTATUS(how) == EXIT_USAGE))
        begin_stop(s, EXIT_FAILURE, now_ms);
}

static void reap(struct supervisor *s, int64_t now_ms)
{
    int how;
    pid_t pid;
    while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
        struct child *c = child_with(s, pid);
        if (c)
            note_end(s, c, how, now_ms);
    }
}

static void note_stops(struct supervisor *s, int64_t now_ms)
{
    int stops = signals_stop_count();
    if (stops == s->stops_seen)
        return;
    bool is_first = s->stops_seen == 0 && s->phase == SERVING;
    s->stops_seen = stops;
    if (is_first)
        begin_stop(s, EXIT_SUCCESS, now_ms);
    if (!is_first || stops > 1)
        hurry(s, now_ms);
}

/* The broker reads the settings again by itself: only what is good reaches it. */
static void reload(struct supervisor *s)
{
    static struct config fresh; /* too large for a stack */
    struct key_pair key;
    struct access_list list;
    struct error err;
    enum status status = config_parse(&fresh, s->config->argc, s->config->argv, &err);
    if (status == OK)
        status = config_read_keys(&fresh, &key, &list, &err);
    if (status != OK) {
        log_error("reload_failed", "why=\"%s\"", err.text);
    } else {
        log_init("supervisor", fresh.log_level);
        child_signal(&s->broker, SIGHUP);
        access_free(&list);
    }
    explicit_bzero(&key, sizeof key);
    config_fini(&fresh);
}

static void announce(struct supervisor *s)
{
    printf("woolly: ready at %s with ", s->runtime.clients);
    for (int i = 0; i < s->config->n_models; i++)
        printf("%s%s (%u worker%s)", i ? ", " : "", s->config->models[i].name, s->config->workers,
               s->config->workers == 1 ? "" : "s");
    printf("\n");
    fflush(stdout);
    s->is_announced = true;
}

static void take_notes(struct supervisor *s, int64_t now_ms)
{
    struct loop_note note;
    struct error err;
    while (read(s->notes[0], &note, sizeof note) == (ssize_t)sizeof note) {
        /* With "tcp://127.0.0.1:*" the port is known only now; a restarted broker gets the same one. */
        strlcpy(s->runtime.clients, note.endpoint, sizeof s->runtime.clients);
        if (!s->config->zmq && runtime_publish(&s->runtime, note.endpoint, &err) != OK) {
            warnx("%s", err.text);
            begin_stop(s, EXIT_FAILURE, now_ms);
        }
        if (note.is_complete && !s->is_announced && s->phase == SERVING)
            announce(s);
    }
}

static void start_due(struct supervisor *s, struct child *c, int keep_fd, int64_t now_ms)
{
    if (s->phase == SERVING && !c->pid && deadline_passed(now_ms, c->start_at_ms))
        child_start(c, keep_fd, now_ms);
}

static void start_due_children(struct supervisor *s, int64_t now_ms)
{
    start_due(s, &s->broker, s->notes[1], now_ms);
    for (int i = 0; i < s->config->n_models; i++)
        start_due(s, &s->hosts[i], -1, now_ms);
}

static int64_t next_event(const struct supervisor *s)
{
    if (s->phase != SERVING)
        return s->limit_ms;
    int64_t next = s->broker.start_at_ms;
    for (int i = 0; i < s->config->n_models; i++)
        next = deadline_earlier(next, s->hosts[i].start_at_ms);
    return next;
}

static bool is_over(const struct supervisor *s)
{
    return s->phase == STOPPING_HOSTS && !is_a_host_running(s);
}

static void watch(struct supervisor *s)
{
    int64_t now_ms = clock_ms();
    while (!is_over(s)) {
        start_due_children(s, now_ms);
        struct pollfd fds[] = { { .fd = signals_fd(), .events = POLLIN },
                                { .fd = s->notes[0], .events = POLLIN } };
        poll(fds, 2, deadline_poll_ms(now_ms, next_event(s)));
        now_ms = clock_ms();
        if (fds[0].revents)
            signals_drain();
        take_notes(s, now_ms);
        if (signals_take_child())
            reap(s, now_ms);
        note_stops(s, now_ms);
        if (signals_take_reload())
            reload(s);
        if (s->phase == STOPPING_BROKER && !s->broker.pid)
            stop_hosts(s, now_ms);
        enforce_limit(s, now_ms);
    }
}

int supervisor_run(const struct config *config)
{
    static struct supervisor s; /* too large for a stack, and there is one */
    struct error err;

    s.config = config;
    signals_init();
    process_title("supervisor");
    if (process_folder(s.folder, sizeof s.folder) != OK) {
        warn("cannot find our own folder");
        return EXIT_FAILURE;
    }
    if (pipe2(s.notes, O_CLOEXEC | O_NONBLOCK) != 0) {
        warn("cannot make a pipe");
        return EXIT_FAILURE;
    }
    if (runtime_open(&s.runtime, config->zmq, &err) != OK) {
        warnx("%s", err.text);
        return EXIT_FAILURE;
    }
    name_children(&s);
    watch(&s);
    runtime_close(&s.runtime);
    log_info("ended", "status=%d", s.exit_status);
    return s.exit_status;
}

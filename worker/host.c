#include "worker/host.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "common/signals.h"
#include "common/xalloc.h"

/* In place of a worker's index. */
enum { AIDE = -1 };

/* A worker that lived shorter than YOUNG_MS died young: the delay before its next life doubles from
 * FIRST_DELAY_MS to LAST_DELAY_MS. STOP_LIMIT_MS is the time between SIGTERM and SIGKILL: a worker finishes
 * the step it is in. */
enum { YOUNG_MS = 5000, FIRST_DELAY_MS = 5, LAST_DELAY_MS = 5000, STOP_LIMIT_MS = 5000 };

enum life {
    LIFE_DEAD,  /* to be forked at fork_at_ms */
    LIFE_ALIVE, /* pid */
    LIFE_OVER,  /* was told to stop and did */
};

struct child {
    enum life life;
    pid_t pid;
    int n_lives;
    int64_t born_ms, fork_at_ms;
    int delay_ms; /* before the next life, should this one end young */
};

struct host {
    const struct host_options *options;
    struct child *children; /* [n_workers] */
    bool has_failed;        /* a worker cannot begin */
    pid_t aide;             /* 0: not alive */
};

static int count(const struct host *h, enum life life)
{
    int n = 0;
    for (int i = 0; i < h->options->n_workers; i++)
        n += h->children[i].life == life;
    return n;
}

/* ---- birth ---- */

static int live(const struct host *h, int index)
{
    const struct host_options *o = h->options;
    if (index != AIDE)
        return o->run(index, o->context);
    setpriority(PRIO_PROCESS, 0, 19); /* of a process with one thread */
    return o->aid(o->aid_context);
}

/* Signals are blocked around the fork: one that came to the child while it still had our handlers would be
 * lost there and would wake us instead. */
static pid_t fork_child(const struct host *h, int index)
{
    pid_t parent = getpid();
    sigset_t all, before;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        process_die_with(parent);
        signals_init();
        sigprocmask(SIG_SETMASK, &before, NULL);
        exit(live(h, index));
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static void postpone(struct child *c, int64_t now_ms)
{
    c->fork_at_ms = now_ms + c->delay_ms;
    c->delay_ms = c->delay_ms ? c->delay_ms * 2 : FIRST_DELAY_MS;
    if (c->delay_ms > LAST_DELAY_MS)
        c->delay_ms = LAST_DELAY_MS;
}

static void give_birth(struct host *h, int index)
{
    struct child *c = &h->children[index];
    pid_t pid = fork_child(h, index);
    int64_t now_ms = clock_ms();
    if (pid < 0) {
        postpone(c, now_ms);
        log_error("fork_failed", "worker=%s.%d retry_ms=%lld", h->options->name, index,
                  (long long)(c->fork_at_ms - now_ms));
        return;
    }
    c->life = LIFE_ALIVE;
    c->pid = pid;
    c->born_ms = now_ms;
    c->n_lives++;
}

static void call_aide(struct host *h)
{
    pid_t pid = fork_child(h, AIDE);
    if (pid < 0)
        log_error("fork_failed", "aide=%s", h->options->name);
    else
        h->aide = pid;
}

/* ---- death ---- */

static void on_death(struct host *h, int index, int wait_status, int64_t seen_us)
{
    struct child *c = &h->children[index];
    int64_t now_ms = seen_us / 1000, lived_ms = now_ms - c->born_ms;
    pid_t dead_pid = c->pid;
    char how[64];

    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == EXIT_SUCCESS) {
        c->life = LIFE_OVER;
        log_info("worker_ended", "worker=%s.%d pid=%d", h->options->name, index, (int)dead_pid);
        return;
    }
    c->life = LIFE_DEAD;
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == EXIT_FAILURE && c->n_lives == 1) {
        h->has_failed = true;
        return;
    }
    if (lived_ms >= YOUNG_MS)
        c->delay_ms = 0;
    postpone(c, now_ms);
    if (c->fork_at_ms <= now_ms)
        give_birth(h, index);
    int64_t took_us = clock_us() - seen_us;
    /* Only now, because a log line takes longer than a fork is worth waiting for. */
    log_warn("worker_died", "worker=%s.%d pid=%d lived_ms=%lld how=\"%s\"", h->options->name, index,
             (int)dead_pid, (long long)lived_ms, process_describe_end(wait_status, how, sizeof how));
    if (c->life == LIFE_ALIVE)
        log_info("worker_forked", "worker=%s.%d pid=%d us=%lld", h->options->name, index, (int)c->pid,
                 (long long)took_us);
}

static void on_end_of_aide(struct host *h, int wait_status)
{
    char how[64];
    h->aide = 0;
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != EXIT_SUCCESS)
        log_warn("aide_died", "model=%s how=\"%s\"", h->options->name,
                 process_describe_end(wait_status, how, sizeof how));
}

static void reap(struct host *h, void (*then)(struct host *, int, int, int64_t))
{
    int64_t seen_us = clock_us();
    int wait_status;
    pid_t pid;

    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        if (pid == h->aide)
            on_end_of_aide(h, wait_status);
        for (int i = 0; i < h->options->n_workers; i++)
            if (h->children[i].life == LIFE_ALIVE && h->children[i].pid == pid) {
                then(h, i, wait_status, seen_us);
                break;
            }
    }
}

/* ---- the end of all ---- */

static void on_last_death(struct host *h, int index, int wait_status, int64_t seen_us)
{
    (void)wait_status;
    (void)seen_us;
    h->children[index].life = LIFE_OVER;
}

static void signal_all(const struct host *h, int number)
{
    for (int i = 0; i < h->options->n_workers; i++)
        if (h->children[i].life == LIFE_ALIVE)
            kill(h->children[i].pid, number);
    if (h->aide)
        kill(h->aide, number);
}

static void wait_for_signal(int64_t now_ms, int64_t deadline_ms)
{
    struct pollfd p = { .fd = signals_fd(), .events = POLLIN };
    poll(&p, 1, deadline_poll_ms(now_ms, deadline_ms));
    signals_drain();
}

static void stop_all(struct host *h)
{
    int64_t now_ms = clock_ms(), deadline_ms = now_ms + STOP_LIMIT_MS;

    signal_all(h, SIGTERM);
    for (;; now_ms = clock_ms()) {
        reap(h, on_last_death);
        if (count(h, LIFE_ALIVE) == 0 && !h->aide)
            return;
        if (deadline_passed(now_ms, deadline_ms)) {
            log_warn("worker_killed", "model=%s workers=%d aides=%d why=\"no end within %d ms of SIGTERM\"",
                     h->options->name, count(h, LIFE_ALIVE), h->aide != 0, STOP_LIMIT_MS);
            signal_all(h, SIGKILL);
            deadline_ms = DEADLINE_NONE;
        }
        wait_for_signal(now_ms, deadline_ms);
    }
}

/* ---- the loop ---- */

/* Forks who is due; returns when the next one is. */
static int64_t fork_due(struct host *h, int64_t now_ms)
{
    int64_t next_ms = DEADLINE_NONE;
    for (int i = 0; i < h->options->n_workers; i++) {
        struct child *c = &h->children[i];
        if (c->life == LIFE_DEAD && deadline_passed(now_ms, c->fork_at_ms)) {
            give_birth(h, i);
            if (c->life == LIFE_ALIVE)
                log_info("worker_forked", "worker=%s.%d pid=%d life=%d", h->options->name, i, (int)c->pid,
                         c->n_lives);
        }
        if (c->life == LIFE_DEAD)
            next_ms = deadline_earlier(next_ms, c->fork_at_ms);
    }
    return next_ms;
}

int host_run(const struct host_options *options)
{
    struct host h = { .options = options };
    bool was_called = false;
    h.children = xcalloc((size_t)options->n_workers, sizeof *h.children);

    signals_init();
    while (!signals_stop_wanted() && !h.has_failed && count(&h, LIFE_OVER) < options->n_workers) {
        int64_t now_ms = clock_ms();
        int64_t next_ms = fork_due(&h, now_ms);
        if (options->aid && !was_called)
            call_aide(&h);
        was_called = true;
        wait_for_signal(now_ms, next_ms);
        if (signals_take_child())
            reap(&h, on_death);
    }
    stop_all(&h);
    free(h.children);
    return h.has_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#include "worker/host.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "common/signals.h"
#include "common/xalloc.h"

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
};

static int count(const struct host *h, enum life life)
{
    int n = 0;
    for (int i = 0; i < h->options->n_workers; i++)
        n += h->children[i].life == life;
    return n;
}

/* ---- birth ---- */

static void live(const struct host *h, int index, pid_t parent, const sigset_t *unblocked)
{
    process_die_with(parent);
    signals_init();
    sigprocmask(SIG_SETMASK, unblocked, NULL);
    exit(h->options->run(index, h->options->context));
}

static void postpone(struct child *c, int64_t now_ms)
{
    c->fork_at_ms = now_ms + c->delay_ms;
    c->delay_ms = c->delay_ms ? c->delay_ms * 2 : FIRST_DELAY_MS;
    if (c->delay_ms > LAST_DELAY_MS)
        c->delay_ms = LAST_DELAY_MS;
}

/* Signals are blocked around the fork: one that came to the child while it still had our handlers would be
 * lost there and would wake us instead. */
static void give_birth(struct host *h, int index)
{
    struct child *c = &h->children[index];
    pid_t parent = getpid();
    sigset_t all, before;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        live(h, index, parent, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);

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

static void reap(struct host *h, void (*then)(struct host *, int, int, int64_t))
{
    int64_t seen_us = clock_us();
    int wait_status;
    pid_t pid;

    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0)
        for (int i = 0; i < h->options->n_workers; i++)
            if (h->children[i].life == LIFE_ALIVE && h->children[i].pid == pid) {
                then(h, i, wait_status, seen_us);
                break;
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
        if (count(h, LIFE_ALIVE) == 0)
            return;
        if (deadline_passed(now_ms, deadline_ms)) {
            log_warn("worker_killed", "model=%s workers=%d why=\"no end within %d ms of SIGTERM\"",
                     h->options->name, count(h, LIFE_ALIVE), STOP_LIMIT_MS);
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
    h.children = xcalloc((size_t)options->n_workers, sizeof *h.children);

    signals_init();
    while (!signals_stop_wanted() && !h.has_failed && count(&h, LIFE_OVER) < options->n_workers) {
        int64_t now_ms = clock_ms();
        int64_t next_ms = fork_due(&h, now_ms);
        wait_for_signal(now_ms, next_ms);
        if (signals_take_child())
            reap(&h, on_death);
    }
    stop_all(&h);
    free(h.children);
    return h.has_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

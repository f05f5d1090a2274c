#include "broker/children.h"

#include <bsd/unistd.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"

enum { DELAY_FIRST_MS = 100, DELAY_MAX_MS = 10 * 1000, STEADY_MS = 10 * 1000 };

static void close_others(int keep_fd)
{
    if (keep_fd < 0) {
        closefrom(STDERR_FILENO + 1);
        return;
    }
    for (int fd = STDERR_FILENO + 1; fd < keep_fd; fd++)
        close(fd);
    closefrom(keep_fd + 1);
}

static void become(struct child *c, int keep_fd, pid_t parent, const sigset_t *unblocked)
{
    static const int handled[] = { SIGTERM, SIGINT, SIGCHLD, SIGHUP, SIGPIPE };

    process_die_with(parent);
    setpgid(0, 0); /* Ctrl-C goes to the supervisor only, which stops the others in order */
    close_others(keep_fd);
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
        signal(handled[i], SIG_DFL);
    sigprocmask(SIG_SETMASK, unblocked, NULL);
    c->run(c->context, c->which);
    _exit(EXIT_FAILURE);
}

void child_start(struct child *c, int keep_fd, int64_t now_ms)
{
    sigset_t all, before;
    pid_t parent = getpid();

    /* No signal may find the parent's handlers in the child. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        become(c, keep_fd, parent, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);

    c->started_ms = now_ms;
    c->start_at_ms = DEADLINE_NONE;
    c->pid = pid > 0 ? pid : 0;
    if (pid < 0) {
        log_error("fork_failed", "what=\"%s\"", c->what);
        child_note_end(c, now_ms);
    }
}

void child_note_end(struct child *c, int64_t now_ms)
{
    if (now_ms - c->started_ms >= STEADY_MS)
        c->delay_ms = 0;
    c->pid = 0;
    c->start_at_ms = now_ms + c->delay_ms;
    c->delay_ms = c->delay_ms ? c->delay_ms * 2 : DELAY_FIRST_MS;
    if (c->delay_ms > DELAY_MAX_MS)
        c->delay_ms = DELAY_MAX_MS;
}

void child_signal(const struct child *c, int signal)
{
    if (c->pid)
        kill(c->pid, signal);
}

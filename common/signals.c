#include "common/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static volatile sig_atomic_t stop_wanted, child_changed, reload_wanted;
static int wake_fd = -1;

static void handle(int number)
{
    int saved = errno;
    uint64_t one = 1;
    if (number == SIGCHLD)
        child_changed = 1;
    else if (number == SIGHUP)
        reload_wanted = 1;
    else
        stop_wanted++;
    if (write(wake_fd, &one, sizeof one) < 0) {
        /* The counter is full: the fd is readable already. */
    }
    errno = saved;
}

void signals_init(void)
{
    struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };

    if (wake_fd >= 0)
        close(wake_fd);
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    stop_wanted = child_changed = reload_wanted = 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGCHLD, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

int signals_fd(void)
{
    return wake_fd;
}

void signals_drain(void)
{
    uint64_t count;
    if (read(wake_fd, &count, sizeof count) < 0) {
        /* Nothing to drain. */
    }
}

bool signals_stop_wanted(void)
{
    return stop_wanted > 0;
}

int signals_stop_count(void)
{
    return stop_wanted;
}

bool signals_take_child(void)
{
    if (!child_changed) /* cleared only when the caller acts on it: a signal in between is never lost */
        return false;
    child_changed = 0;
    return true;
}

bool signals_take_reload(void)
{
    if (!reload_wanted)
        return false;
    reload_wanted = 0;
    return true;
}

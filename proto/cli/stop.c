/* woolly stop: the server tells the process id of its supervisor; a signal there stops it, and the end of
 * that process is the end of all. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/process.h"
#include "common/progress.h"
#include "proto/cli/cli.h"

enum { STOP_MS = 60000 }; /* a server finishes what runs, within a bound of its own */

/* The pid comes from outside: whatever it names, only a server of ours is stopped. */
static bool is_server(uint64_t pid)
{
    char path[40], name[32] = "";
    snprintf(path, sizeof path, "/proc/%llu/comm", (unsigned long long)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool is_read = fgets(name, sizeof name, f) != NULL;
    fclose(f);
    return is_read && !strcmp(name, "woolly-broker\n");
}

static bool wait_until_gone(int process)
{
    int64_t start_ms = clock_ms(), now_ms;
    struct pollfd p = { .fd = process, .events = POLLIN };
    int ready = 0;

    while (!ready && (now_ms = clock_ms()) - start_ms < STOP_MS) {
        char what[64];
        snprintf(what, sizeof what, "stopping, %d s", (int)((now_ms - start_ms) / 1000));
        progress_update(what, 0, 0);
        if ((ready = poll(&p, 1, 100)) < 0)
            ready = 0;
    }
    progress_end();
    return ready > 0;
}

static int stop_process(uint64_t pid)
{
    /* The descriptor comes before the check: it goes on meaning the process that was checked. */
    int process = pid > 1 && pid <= INT32_MAX ? process_watch((pid_t)pid) : -1, status = EXIT_FAILURE;
    if (process < 0 || !is_server(pid))
        fprintf(stderr, "woolly: process %llu of this machine is not the server (is it on another one?)\n",
                (unsigned long long)pid);
    else if (pidfd_send_signal(process, SIGTERM, NULL, 0) != 0)
        fprintf(stderr, "woolly: cannot stop process %llu: %s\n", (unsigned long long)pid, strerror(errno));
    else if (!wait_until_gone(process))
        fprintf(stderr, "woolly: process %llu is still there after %d s (kill -9 %llu ends it)\n",
                (unsigned long long)pid, STOP_MS / 1000, (unsigned long long)pid);
    else
        status = EXIT_SUCCESS;
    if (process >= 0)
        close(process);
    return status;
}

int command_stop(int argc, char **argv)
{
    struct common_options o;
    struct woolly *w;
    struct woolly_health health;
    struct woolly_error err;

    common_options_parse(&o, argc, argv);
    if (o.wants_json)
        usage_error("%s has nothing to print as JSON", argv[0]);
    int status = connect_to_server(&w, o.endpoint);
    if (status)
        return status;
    if (woolly_get_health(w, ANSWER_MS, &health, &err) != WOOLLY_OK) {
        status = report_failure(&err);
        woolly_close(w);
        return status;
    }
    uint64_t pid = health.pid;
    woolly_close(w);
    return stop_process(pid);
}

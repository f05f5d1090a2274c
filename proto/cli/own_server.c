#include "proto/cli/own_server.h"

#include <bsd/string.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/process.h"
#include "common/progress.h"
#include "common/signals.h"
#include "common/xalloc.h"

enum {
    MAX_NAME = 128,
    LOOK_MS = 50,      /* between looks at a server that is starting */
    SILENT_MS = 15000, /* a server that starts answers questions long before its models are loaded */
    STOP_MS = 15000,
};

static void remove_folder(const char *folder);

/* "/models/tiny llama.gguf" is served as "tiny_llama". */
static void name_model(const char *path, char *name)
{
    const char *base = strrchr(path, '/');
    strlcpy(name, base ? base + 1 : path, MAX_NAME + 1);
    char *end = name + strlen(name);
    if (end - name > 5 && !strcmp(end - 5, ".gguf"))
        end[-5] = 0;
    for (char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            *c = '_';
    if (!*name)
        strlcpy(name, "model", MAX_NAME + 1);
}

static enum status make_folder(struct own_server *o, struct error *err)
{
    const char *base = getenv("TMPDIR");
    if (!base || !*base)
        base = "/tmp";
    /* A socket's path has 107 bytes at most. */
    if (strlen(base) > 70)
        base = "/tmp";
    snprintf(o->folder, sizeof o->folder, "%s/woolly-run-XXXXXX", base);
    if (!mkdtemp(o->folder)) {
        o->folder[0] = 0;
        return error_errno(err, "cannot make a folder in %s", base);
    }
    snprintf(o->endpoint, sizeof o->endpoint, "ipc://%s/s", o->folder);
    return OK;
}

static void become_server(const struct own_server *o, const char *program, char *model_option, pid_t parent)
{
    char log[220], woolly[] = "woolly-broker", model[] = "--model", zmq[] = "--zmq";
    char *argv[] = { woolly, model, model_option, zmq, (char *)o->endpoint, NULL };

    process_die_with(parent);
    setpgid(0, 0); /* Ctrl-C is for us: it cancels the request, for which the server must still be there */
    signal(SIGPIPE, SIG_DFL);
    snprintf(log, sizeof log, "%s/log", o->folder);
    int in = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
        dup2(out, STDERR_FILENO) < 0 || setenv("WOOLLY_RUNTIME_DIR", o->folder, 1) != 0)
        _exit(EXIT_FAILURE);
    unsetenv("WOOLLY_ENDPOINT");
    unsetenv(
        "WOOLLY_SERVE_CONFIG"); /* the settings of the server that is always there, its ports among them */
    unsetenv("WOOLLY_SERVE_ZMQ_WORKERS");
    execv(program, argv);
    fprintf(stderr, "cannot run %s: %s\n", program, strerror(errno));
    _exit(EXIT_FAILURE);
}

static enum status start_process(struct own_server *o, const char *path, const char *model, struct error *err)
{
    char program[4000];
    pid_t parent = getpid();

    if (process_folder(program, sizeof program - 20) != OK)
        return error_set(err, E_IO, "cannot find out where this program stands");
    strlcat(program, "/woolly-broker", sizeof program);
    char *model_option = xasprintf("%s=%s", model, path);
    fflush(NULL);
    o->pid = fork();
    if (o->pid == 0)
        become_server(o, program, model_option, parent);
    free(model_option);
    if (o->pid < 0) {
        o->pid = 0;
        return error_errno(err, "cannot start a server");
    }
    return OK;
}

/* What a program of ours says as it gives up, "woolly-worker: ...", is the reason; else the last line of the
 * log has to do. */
static enum status explain_end(const struct own_server *o, int wait_status, struct error *err)
{
    char path[220], line[400] = "", last[400] = "", end[64];
    bool is_reason = false;

    snprintf(path, sizeof path, "%s/log", o->folder);
    FILE *f = fopen(path, "re");
    while (f && !is_reason && fgets(line, sizeof line, f)) {
        is_reason = !strncmp(line, "woolly-", 7);
        strlcpy(last, line, sizeof last);
    }
    if (f)
        fclose(f);
    last[strcspn(last, "\n")] = 0;
    if (is_reason)
        return error_set(err, E_IO, "the server did not start: %s", last);
    return error_set(err, E_IO, "the server did not start: %s%s%s",
                     process_describe_end(wait_status, end, sizeof end), *last ? ": " : "", last);
}

static bool has_ended(struct own_server *o, int *wait_status)
{
    if (waitpid(o->pid, wait_status, WNOHANG) != o->pid)
        return false;
    o->pid = 0;
    return true;
}

/* Connects as soon as there is something to connect to; true when the server says that it is ready. */
static bool look(const struct own_server *o, struct woolly **w, int64_t *answered_ms)
{
    struct woolly_health health;
    struct stat st;
    const char *socket = o->endpoint + strlen("ipc://");

    if (!*w && (stat(socket, &st) != 0 || woolly_connect(w, o->endpoint, NULL) != WOOLLY_OK))
        return false;
    if (woolly_get_health(*w, SILENT_MS / 3, &health, NULL) != WOOLLY_OK)
        return false;
    *answered_ms = clock_ms();
    return health.is_ready;
}

static enum status wait_until_ready(struct own_server *o, const char *model, struct woolly **w,
                                    struct error *err)
{
    int64_t start_ms = clock_ms(), answered_ms = start_ms;

    while (!look(o, w, &answered_ms)) {
        int wait_status;
        if (signals_stop_wanted() || signals_take_reload()) /* SIGHUP: the terminal is gone */
            return error_set(err, E_CANCELLED, "cancelled");
        if (has_ended(o, &wait_status))
            return explain_end(o, wait_status, err);
        if (clock_ms() - answered_ms > SILENT_MS)
            return error_set(err, E_UNREACHABLE, "the server that was started does not answer");
        char what[200];
        snprintf(what, sizeof what, "loading %s, %d s", model, (int)((clock_ms() - start_ms) / 1000));
        progress_update(what, 0, 0);
        struct pollfd p = { .fd = signals_fd(), .events = POLLIN };
        poll(&p, 1, LOOK_MS);
        signals_drain();
    }
    return OK;
}

enum status own_server_start(struct own_server *o, const char *path, char *model, struct woolly **w,
                             struct error *err)
{
    *o = (struct own_server){ 0 };
    *w = NULL;
    name_model(path, model);
    enum status s = make_folder(o, err);
    if (s == OK)
        s = start_process(o, path, model, err);
    if (s == OK)
        s = wait_until_ready(o, model, w, err);
    progress_end();
    if (s != OK) {
        woolly_close(*w);
        *w = NULL;
        own_server_stop(o);
    }
    return s;
}

static void wait_for_end(struct own_server *o)
{
    struct pollfd p = { .fd = process_watch(o->pid), .events = POLLIN };
    int64_t deadline_ms = deadline_after(clock_ms(), STOP_MS);

    if (kill(o->pid, SIGTERM) == 0 && p.fd >= 0)
        while (poll(&p, 1, deadline_poll_ms(clock_ms(), deadline_ms)) < 0 && errno == EINTR)
            ;
    /* Does nothing to a process that has ended: it is not reaped yet. */
    if (p.fd < 0 || !(p.revents & POLLIN))
        kill(o->pid, SIGKILL);
    while (waitpid(o->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (p.fd >= 0)
        close(p.fd);
    o->pid = 0;
}

void own_server_stop(struct own_server *o)
{
    if (o->pid > 0)
        wait_for_end(o);
    if (o->folder[0])
        remove_folder(o->folder);
    o->folder[0] = 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    remove(path);
    return 0;
}

static void remove_folder(const char *folder)
{
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

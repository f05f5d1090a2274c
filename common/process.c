#include "common/process.h"

#include <bsd/unistd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void process_init(int argc, char **argv, char **envp)
{
    setproctitle_init(argc, argv, envp);
}

void process_harden(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = 0; /* who must see one can raise it again from outside (prlimit) */
        setrlimit(RLIMIT_CORE, &limit);
    }
    umask(077);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void process_title(const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    setproctitle("-woolly: %s", text); /* the leading '-' drops the program's own name */
}

void process_die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
}

int process_watch(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

void process_kill_watched(int watch_fd)
{
    syscall(SYS_pidfd_send_signal, watch_fd, SIGKILL, NULL, 0);
}

/* 0 if there is no such process. The name in the file is in brackets and may itself have any bytes. */
static pid_t parent_of(pid_t pid)
{
    char path[40], text[512];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *behind_name = strrchr(text, ')');
    if (!behind_name || sscanf(behind_name, ") %*c %d", &parent) != 1)
        return 0;
    return parent;
}

bool process_is_near_descendant(pid_t pid, pid_t ancestor)
{
    pid_t parent = parent_of(pid);
    return parent > 0 && (parent == ancestor || parent_of(parent) == ancestor);
}

void process_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

enum status process_folder(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size);
    if (n < 0)
        return E_IO;
    if ((size_t)n >= size)
        return E_LIMIT;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (!slash)
        return E_IO;
    *slash = 0;
    return OK;
}

const char *process_describe_end(int wait_status, char *out, size_t size)
{
    if (WIFSIGNALED(wait_status))
        snprintf(out, size, "killed by signal %d (%s)", WTERMSIG(wait_status),
                 strsignal(WTERMSIG(wait_status)));
    else
        snprintf(out, size, "exit status %d", WEXITSTATUS(wait_status));
    return out;
}

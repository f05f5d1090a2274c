/* What a process of ours does about itself: its title in ps, its death with its parent, its children. */
#ifndef WOOLLY_COMMON_PROCESS_H
#define WOOLLY_COMMON_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/status.h"

/* First thing in main: keeps what setproctitle needs. */
void process_init(int argc, char **argv, char **envp);

/* For a server's processes, which hold keys and what users wrote: no core files, no file of ours for others,
 * no privileges gained by running a program. Inherited by children. */
void process_harden(void);

/* The line ps shows; the format begins after "woolly: ". */
void process_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ask the kernel for SIGKILL when `parent` dies, and stop at once if it is already gone.
 * Call in the child right after fork, with the pid the parent had before it. */
void process_die_with(pid_t parent);

/* A descriptor that polls readable when process `pid` of this machine ends; -1 if there is none to be had. */
int process_watch(pid_t pid);

/* SIGKILL for the process that such a descriptor stands for. */
void process_kill_watched(int watch_fd);

/* Whether `pid` is a child of `ancestor`, or a child of a child. */
bool process_is_near_descendant(pid_t pid, pid_t ancestor);

/* As many open files as this process may have without asking anybody. */
void process_raise_file_limit(void);

/* The folder of the running program, without a slash at the end. */
MUST_CHECK enum status process_folder(char *out, size_t size);

/* "killed by signal 9 (Killed)" or "exit status 1", for logs. `out` holds at least 64 bytes. */
const char *process_describe_end(int wait_status, char *out, size_t size);

#endif

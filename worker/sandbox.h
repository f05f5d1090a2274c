/* What a worker may ask of the kernel once it serves: little. A request from outside that finds a fault in it
 * then finds a process that cannot start programs, cannot look into others, and reaches no file and no
 * network that its work does not need. */
#ifndef WOOLLY_WORKER_SANDBOX_H
#define WOOLLY_WORKER_SANDBOX_H

#include <stdbool.h>

struct sandbox {
    bool has_network; /* the broker is on another machine: name look-ups and TCP, not only local sockets */
    bool has_files;   /* reads and writes files of its own (sessions) */
};

/* For all threads of the process, which must have been started, and for good. Logs one line: that it is so,
 * or why it is not (a kernel without seccomp, a sanitizer's build): the worker then goes on without. */
void sandbox_enter(const struct sandbox *needs);

#endif

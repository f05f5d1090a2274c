/* The supervisor's children: how one is started, when it is started again. A child is the broker process or a
 * model host; which one only its start function knows. */
#ifndef WOOLLY_BROKER_CHILDREN_H
#define WOOLLY_BROKER_CHILDREN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct child {
    char what[160]; /* for the log: "broker", "host of NAME" */

    /* Becomes the child: runs in the new process and does not return. */
    void (*run)(void *context, int which);
    void *context;
    int which;

    pid_t pid; /* 0 while it does not run */
    int64_t started_ms;
    int64_t start_at_ms; /* when it does not run: DEADLINE_NONE for never */
    int64_t delay_ms;    /* before the next start, if this one dies quickly */
};

/* Forks. The child is in a process group of its own, dies with this process, has no descriptors but standard
 * input, output and error and `keep_fd` (-1 for none), and default signals. */
void child_start(struct child *c, int keep_fd, int64_t now_ms);

/* It ended: at once again the first time, then after 100 ms, doubled up to 10 s while it keeps dying within
 * 10 s of its start. */
void child_note_end(struct child *c, int64_t now_ms);

void child_signal(const struct child *c, int signal);

#endif

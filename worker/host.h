/* The model host: forks workers, watches them, and forks the ones that die again. What they share is in
 * memory before host_run is called; the host itself does nothing that could fail the way its children fail.
 * It has one thread and no sockets, so that a fork of it is always clean. What takes time and nobody waits
 * for is for a child of its own, the aide. */
#ifndef WOOLLY_WORKER_HOST_H
#define WOOLLY_WORKER_HOST_H

struct host_options {
    const char *name; /* of the model, for the log */
    int n_workers;
    int (*run)(int index,
               const void *context); /* in the child, its signals set up; returns its exit status */
    const void *context;
    int (*aid)(const void *context); /* the same, once, after the workers were forked; NULL for none */
    const void *aid_context;
};

/* Returns the exit status of the program: 0 after SIGTERM or when every worker ended with status 0, which it
 * does only when told to stop; 1 when a worker ended with status 1 in its first life: it cannot begin, and
 * the next one could not either. A worker that dies in any other way is forked again, at once the first time,
 * with growing delays when it keeps dying young. The aide runs with the least priority, when the cores have
 * nothing else to do, is told to stop with the workers, and how it ends is only logged. */
int host_run(const struct host_options *options);

#endif

/* The cores this process may use, which a core set (taskset, cgroup) may have made fewer than the machine
 * has, and how to share them among workers. A core is one of its processing units: of two that share a core
 * the second adds little to arithmetic. A library of its own, because only programs that compute, or start
 * those, need hwloc. */
#ifndef WOOLLY_COMMON_TOPOLOGY_H
#define WOOLLY_COMMON_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>

struct core {
    int cpu;    /* the kernel's number of its first processing unit that we may use */
    int domain; /* 0.. in order: of a NUMA node, or of a cache where a node has many */
};

struct topology {
    struct core *cores; /* [n_cores], domain by domain; at least one */
    int n_cores, n_domains;
};

/* Never fails: where hwloc knows nothing, every processing unit we may use is a core, all in one domain. */
void topology_init(struct topology *t);
void topology_fini(struct topology *t);

/* How many processes of how many threads suit the machine, for n_models models: one worker for each domain
 * if there are as many as models, else one for each model; all cores between them. What is not 0 is given. */
void topology_suggest(const struct topology *t, int n_models, int *n_workers, int *n_threads);

/* The cores of worker `index` of `n_workers` with n_threads each: its own, of one domain where possible.
 * False if there are not enough for that; then nobody should be pinned. */
bool topology_share(const struct topology *t, int index, int n_workers, int n_threads, cpu_set_t *out);

#endif

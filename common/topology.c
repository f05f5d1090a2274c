#include "common/topology.h"

#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/xalloc.h"

/* Up to so many cores of a NUMA node are one domain even if they have several caches between them, so that a
 * single request has them all; beyond, barriers between them cost more than they bring. A guess. */
enum { MOST_CORES_ACROSS_CACHES = 16 };

/* Memory of another kind is a NUMA node too, with the same cores once more. */
static void add_core(struct topology *t, int cpu, int domain)
{
    for (int i = 0; i < t->n_cores; i++)
        if (t->cores[i].cpu == cpu)
            return;
    t->cores = xrealloc(t->cores, (size_t)(t->n_cores + 1) * sizeof *t->cores);
    t->cores[t->n_cores++] = (struct core){ cpu, domain };
}

static hwloc_obj_t next_inside(hwloc_topology_t h, hwloc_const_cpuset_t set, hwloc_obj_type_t type,
                               hwloc_obj_t last)
{
    return hwloc_get_next_obj_inside_cpuset_by_type(h, set, type, last);
}

static void add_domain(struct topology *t, hwloc_topology_t h, hwloc_const_cpuset_t set)
{
    int n_before = t->n_cores;
    for (hwloc_obj_t core = NULL; (core = next_inside(h, set, HWLOC_OBJ_CORE, core));)
        add_core(t, hwloc_bitmap_first(core->cpuset), t->n_domains);
    t->n_domains += t->n_cores > n_before;
}

static void add_node(struct topology *t, hwloc_topology_t h, hwloc_const_cpuset_t set)
{
    int n_cores = hwloc_get_nbobjs_inside_cpuset_by_type(h, set, HWLOC_OBJ_CORE);
    if (n_cores <= MOST_CORES_ACROSS_CACHES ||
        hwloc_get_nbobjs_inside_cpuset_by_type(h, set, HWLOC_OBJ_L3CACHE) < 2) {
        add_domain(t, h, set);
        return;
    }
    for (hwloc_obj_t cache = NULL; (cache = next_inside(h, set, HWLOC_OBJ_L3CACHE, cache));)
        add_domain(t, h, cache->cpuset);
}

static void restrict_to_ours(hwloc_topology_t h)
{
    cpu_set_t ours;
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set && hwloc_topology_is_thissystem(h) && sched_getaffinity(0, sizeof ours, &ours) == 0 &&
        hwloc_cpuset_from_glibc_sched_affinity(h, set, &ours, sizeof ours) == 0)
        hwloc_topology_restrict(h, set, 0);
    hwloc_bitmap_free(set);
}

static void read_hwloc(struct topology *t)
{
    hwloc_topology_t h;
    if (hwloc_topology_init(&h) != 0)
        return;
    if (hwloc_topology_load(h) == 0) {
        restrict_to_ours(h);
        for (hwloc_obj_t node = NULL; (node = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, node));)
            add_node(t, h, node->cpuset);
    }
    hwloc_topology_destroy(h);
}

void topology_init(struct topology *t)
{
    cpu_set_t ours;
    *t = (struct topology){ 0 };
    read_hwloc(t);
    if (!t->n_cores && sched_getaffinity(0, sizeof ours, &ours) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &ours))
                add_core(t, cpu, 0);
    if (!t->n_cores)
        add_core(t, 0, 0);
    if (!t->n_domains)
        t->n_domains = 1;
}

void topology_fini(struct topology *t)
{
    free(t->cores);
    *t = (struct topology){ 0 };
}

void topology_suggest(const struct topology *t, int n_models, int *n_workers, int *n_threads)
{
    if (!*n_workers)
        *n_workers = t->n_domains > n_models ? t->n_domains / n_models : 1;
    if (!*n_threads)
        *n_threads = t->n_cores / (n_models * *n_workers);
    if (!*n_threads)
        *n_threads = 1;
}

/* ---- sharing ---- */

static int count_free(const struct topology *t, const bool *is_taken, int domain)
{
    int n = 0;
    for (int i = 0; i < t->n_cores; i++)
        n += t->cores[i].domain == domain && !is_taken[i];
    return n;
}

static int freest_domain(const struct topology *t, const bool *is_taken)
{
    int best = 0;
    for (int d = 1; d < t->n_domains; d++)
        if (count_free(t, is_taken, d) > count_free(t, is_taken, best))
            best = d;
    return best;
}

/* From the domain with the most free cores; what that lacks, from the next. */
static void take_cores(const struct topology *t, bool *is_taken, int n_threads, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (int left = n_threads; left > 0;) {
        int domain = freest_domain(t, is_taken);
        for (int i = 0; i < t->n_cores && left > 0; i++)
            if (t->cores[i].domain == domain && !is_taken[i]) {
                is_taken[i] = true;
                CPU_SET(t->cores[i].cpu, out);
                left--;
            }
    }
}

bool topology_share(const struct topology *t, int index, int n_workers, int n_threads, cpu_set_t *out)
{
    if ((long)n_workers * n_threads > t->n_cores)
        return false;
    bool *is_taken = xcalloc((size_t)t->n_cores, sizeof *is_taken);
    for (int i = 0; i <= index; i++)
        take_cores(t, is_taken, n_threads, out);
    free(is_taken);
    return true;
}

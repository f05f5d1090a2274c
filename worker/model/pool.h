/* The threads of an engine. One thread, the owner, hands a job to all of them and takes part itself; a job
 * ends when every thread has done its share. Threads that wait spin for a moment, because the next job or the
 * end of this one usually comes within microseconds, and then sleep: an idle pool uses no CPU.
 *
 * When the cores are wanted by others (workers, programs) so that the owner loses more time waiting for the
 * rest than their help is worth, it does jobs alone and tries the others again a little later. */
#ifndef WOOLLY_MODEL_POOL_H
#define WOOLLY_MODEL_POOL_H

#include <stdint.h>

#include "common/status.h"

struct pool;

/* thread is 0..n_threads-1; 0 is the owner. n_threads is the pool's or 1, and may differ from job to job: no
 * result may depend on it. */
typedef void pool_job(void *arg, int thread, int n_threads);

/* Starts n_threads - 1 threads; with 1 none. They may run where the caller may. Call after the last fork. */
MUST_CHECK enum status pool_create(struct pool **out, int n_threads, struct error *err);
void pool_destroy(struct pool *p);

void pool_run(struct pool *p, pool_job *job, void *arg);

/* The share of a thread when n things are cut into nearly equal runs of multiples of `grain`: *first to
 * *last - 1. */
void pool_share(int64_t n, int64_t grain, int thread, int n_threads, int64_t *first, int64_t *last);

#endif

/* The threads of an engine. One thread, the owner, hands a job to all of them and takes part itself; a job
 * ends when every thread has done its share. Workers spin for a moment between jobs, because the next one
 * usually comes within microseconds, and then sleep. */
#ifndef WOOLLY_MODEL_POOL_H
#define WOOLLY_MODEL_POOL_H

#include <stdint.h>

#include "common/status.h"

struct pool;

/* thread is 0..n_threads-1; 0 is the owner. */
typedef void pool_job(void *arg, int thread, int n_threads);

/* Starts n_threads - 1 threads; with 1 none. Call after the last fork. */
MUST_CHECK enum status pool_create(struct pool **out, int n_threads, struct error *err);
void pool_destroy(struct pool *p);

void pool_run(struct pool *p, pool_job *job, void *arg);

/* The share of a thread when n things are cut into nearly equal runs of multiples of `grain`: *first to
 * *last - 1. */
void pool_share(int64_t n, int64_t grain, int thread, int n_threads, int64_t *first, int64_t *last);

#endif

/* A job is announced by raising `generation`. A worker that spun in vain counts itself in `n_asleep` under
 * the lock, looks at the generation once more, and waits; the owner raises the generation first and then
 * looks at n_asleep, so one of the two always sees the other (both accesses are sequentially consistent). The
 * end of a job is the same with the roles changed: `n_running` and `owner_asleep`. */
#include "worker/model/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

/* About 20 microseconds: longer than the gap between two jobs of a step, short for a neighbour who wants the
 * core. A guess. */
enum { SPINS = 2000 };

struct worker {
    struct pool *pool;
    int index;
    pthread_t thread;
};

struct pool {
    int n_threads;
    int n_started;
    struct worker *workers; /* [n_threads], the first unused: it is the owner */

    pool_job *job; /* written by the owner between jobs */
    void *arg;
    bool is_closing;

    atomic_uint generation;
    atomic_int n_running;
    atomic_int n_asleep;
    atomic_int owner_asleep;

    pthread_mutex_t lock;
    pthread_cond_t job_came;
    pthread_cond_t job_ended;
};

static void spin(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_for_job(struct pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->generation) != seen)
            return;
        spin();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_asleep, 1);
    while (atomic_load(&p->generation) == seen)
        pthread_cond_wait(&p->job_came, &p->lock);
    atomic_fetch_sub(&p->n_asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void end_share(struct pool *p)
{
    if (atomic_fetch_sub(&p->n_running, 1) == 1 && atomic_load(&p->owner_asleep)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->job_ended);
        pthread_mutex_unlock(&p->lock);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        wait_for_job(p, seen);
        if (p->is_closing)
            return NULL;
        p->job(p->arg, w->index, p->n_threads);
        end_share(p);
    }
}

static void announce(struct pool *p)
{
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->n_asleep)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->job_came);
        pthread_mutex_unlock(&p->lock);
    }
}

static void wait_for_end(struct pool *p)
{
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load(&p->n_running))
            return;
        spin();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->owner_asleep, 1);
    while (atomic_load(&p->n_running))
        pthread_cond_wait(&p->job_ended, &p->lock);
    atomic_store(&p->owner_asleep, 0);
    pthread_mutex_unlock(&p->lock);
}

void pool_run(struct pool *p, pool_job *job, void *arg)
{
    if (p->n_threads > 1) {
        p->job = job;
        p->arg = arg;
        atomic_store(&p->n_running, p->n_threads - 1);
        announce(p);
    }
    job(arg, 0, p->n_threads);
    if (p->n_threads > 1)
        wait_for_end(p);
}

enum status pool_create(struct pool **out, int n_threads, struct error *err)
{
    struct pool *p = xcalloc(1, sizeof *p);
    *out = NULL;
    p->n_threads = n_threads;
    p->workers = xcalloc((size_t)n_threads, sizeof *p->workers);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->job_came, NULL);
    pthread_cond_init(&p->job_ended, NULL);
    for (int i = 1; i < n_threads; i++) {
        p->workers[i] = (struct worker){ .pool = p, .index = i };
        int code = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (code) {
            pool_destroy(p);
            return error_set(err, E_NOMEM, "cannot start thread %d of %d: %s", i + 1, n_threads,
                             strerror(code));
        }
        p->n_started++;
    }
    *out = p;
    return OK;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    p->is_closing = true;
    announce(p);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->job_ended);
    pthread_cond_destroy(&p->job_came);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

void pool_share(int64_t n, int64_t grain, int thread, int n_threads, int64_t *first, int64_t *last)
{
    int64_t grains = (n + grain - 1) / grain;
    *first = grains * thread / n_threads * grain;
    *last = grains * (thread + 1) / n_threads * grain;
    if (*first > n)
        *first = n;
    if (*last > n)
        *last = n;
}

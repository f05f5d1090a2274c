/* Two counts make a job: the owner raises `begun` by one for all, each of the others raises `ended` by one
 * for the owner. Who waits for a count spins on it first, then counts itself in n_asleep, looks at the value
 * once more, and sleeps; who completes it raises the value first and then looks at n_asleep, so one of the
 * two always sees the other (all these accesses are sequentially consistent).
 *
 * How long to spin depends on the wait before. Was it short, this one will be too, and spinning saves the
 * wake-up, some 50 microseconds in a virtual machine. Was it longer than any spinning, then the cores are
 * shared or the engine is idle, and spinning takes time from others. */
#include "worker/model/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/xalloc.h"

enum { CACHE_LINE = 64 };

/* LONG_SPIN_NS outlasts the sampling of a token between two steps, SHORT_SPIN_NS a fair barrier. */
enum { LONG_SPIN_NS = 100000, SHORT_SPIN_NS = 2000, SPINS_PER_LOOK_AT_THE_CLOCK = 32 };

/* With k threads a job takes the owner its share and a wait, alone k shares. What it waits longer than k - 1
 * shares is lost, what it waits less is won; when more than PATIENCE_NS (some time slices) are lost it goes
 * alone for a while, which doubles each time until being together has lasted as long. Measured with 2 threads
 * on 2 cores, tokens per second without and with this: four pools at once 290 and 570, one pool among
 * compilers 62 and 100 to 117. With half the patience a busy neighbour of low priority cost a tenth. */
enum { PATIENCE_NS = 20000000, SHORTEST_ALONE_NS = 40000000, LONGEST_ALONE_NS = 320000000 };

struct count {
    atomic_uint value; /* only goes up, and around */
    atomic_int n_asleep;
};

struct worker {
    struct pool *pool;
    int index;
    pthread_t thread;
};

/* One cache line for each direction, another for what only the owner reads. */
struct pool {
    _Alignas(CACHE_LINE) struct count begun; /* jobs; with them what a job is, written between two of them */
    pool_job *job;
    void *arg;
    int n_threads;
    bool is_closing;

    _Alignas(CACHE_LINE) struct count ended; /* shares of the others, of all jobs */

    _Alignas(CACHE_LINE) unsigned n_jobs;
    int64_t lost_ns;
    int64_t alone_until_ns; /* 0: together */
    int64_t together_since_ns, weighed_ns;
    int64_t alone_ns; /* how long the next time */
    int64_t spin_ns;
    int n_started;
    struct worker *workers; /* [n_threads], the first unused: it is the owner */
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- counts ---- */

static void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* "yield" does nothing on most cores */
#endif
}

static void futex(atomic_uint *word, int operation, unsigned value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Returns the new value. The caller wakes those who wait for it. */
static unsigned count_raise(struct count *c)
{
    return atomic_fetch_add(&c->value, 1) + 1;
}

static void count_wake(struct count *c)
{
    if (atomic_load(&c->n_asleep))
        futex(&c->value, FUTEX_WAKE, INT32_MAX);
}

static bool spin(const struct count *c, unsigned target)
{
    for (int i = 0; i < SPINS_PER_LOOK_AT_THE_CLOCK; i++) {
        if (atomic_load_explicit(&c->value, memory_order_acquire) == target)
            return true;
        pause_core();
    }
    return false;
}

static void count_sleep(struct count *c, unsigned target)
{
    unsigned value;
    atomic_fetch_add(&c->n_asleep, 1);
    while ((value = atomic_load(&c->value)) != target)
        futex(&c->value, FUTEX_WAIT, value);
    atomic_fetch_sub(&c->n_asleep, 1);
}

/* Waits until the value is `target`; returns how long, 0 where that was too short to look at the clock.
 * *spin_ns is what the thread remembers of its last wait. */
static int64_t count_wait(struct count *c, unsigned target, int64_t *spin_ns)
{
    if (spin(c, target))
        return 0;
    int64_t begin_ns = now_ns(), waited_ns = 0;
    while (!spin(c, target)) {
        waited_ns = now_ns() - begin_ns;
        if (waited_ns >= *spin_ns)
            count_sleep(c, target);
        else
            sched_yield(); /* the thread waited for may want this very core */
    }
    waited_ns = now_ns() - begin_ns;
    *spin_ns = waited_ns < LONG_SPIN_NS ? LONG_SPIN_NS : SHORT_SPIN_NS;
    return waited_ns;
}

/* ---- the others ---- */

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    int64_t spin_ns = LONG_SPIN_NS;
    for (unsigned n_jobs = 1;; n_jobs++) {
        count_wait(&p->begun, n_jobs, &spin_ns);
        if (p->is_closing)
            return NULL;
        p->job(p->arg, w->index, p->n_threads);
        if (count_raise(&p->ended) == n_jobs * (unsigned)(p->n_threads - 1))
            count_wake(&p->ended);
    }
}

/* ---- the owner ---- */

static void begin_together(struct pool *p, int64_t at_ns)
{
    p->alone_until_ns = 0;
    p->together_since_ns = p->weighed_ns = at_ns;
    p->lost_ns = 0;
}

/* Is called after a wait of waited_ns: the owner worked since the one before. */
static void weigh(struct pool *p, int64_t waited_ns)
{
    int64_t at_ns = now_ns(), worked_ns = at_ns - waited_ns - p->weighed_ns;
    p->weighed_ns = at_ns;
    p->lost_ns += waited_ns - (p->n_threads - 1) * worked_ns;
    if (p->lost_ns < 0)
        p->lost_ns = 0;
    if (at_ns - p->together_since_ns > p->alone_ns)
        p->alone_ns = SHORTEST_ALONE_NS;
    if (p->lost_ns <= PATIENCE_NS)
        return;
    p->alone_until_ns = at_ns + p->alone_ns;
    p->alone_ns = p->alone_ns < LONGEST_ALONE_NS ? p->alone_ns * 2 : LONGEST_ALONE_NS;
}

static void run_together(struct pool *p, pool_job *job, void *arg)
{
    p->job = job;
    p->arg = arg;
    p->n_jobs++;
    count_raise(&p->begun);
    count_wake(&p->begun);
    job(arg, 0, p->n_threads);
    int64_t waited_ns = count_wait(&p->ended, p->n_jobs * (unsigned)(p->n_threads - 1), &p->spin_ns);
    if (waited_ns)
        weigh(p, waited_ns);
}

void pool_run(struct pool *p, pool_job *job, void *arg)
{
    int64_t at_ns = p->alone_until_ns ? now_ns() : 0;
    if (p->alone_until_ns && at_ns >= p->alone_until_ns)
        begin_together(p, at_ns);
    if (p->n_threads == 1 || p->alone_until_ns)
        job(arg, 0, 1);
    else
        run_together(p, job, arg);
}

/* The products keep sums of some 100 KB on the stack; how large the stack is by itself is up to the shell. */
enum { STACK_BYTES = 1 << 20 };

enum status pool_create(struct pool **out, int n_threads, struct error *err)
{
    pthread_attr_t attributes;
    struct pool *p = aligned_alloc(CACHE_LINE, sizeof *p);
    *out = NULL;
    if (!p)
        return error_set(err, E_NOMEM, "no memory for a pool of threads");
    *p = (struct pool){ .n_threads = n_threads, .alone_ns = SHORTEST_ALONE_NS, .spin_ns = LONG_SPIN_NS };
    p->workers = xcalloc((size_t)n_threads, sizeof *p->workers);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (int i = 1; i < n_threads; i++) {
        p->workers[i] = (struct worker){ .pool = p, .index = i };
        int code = pthread_create(&p->workers[i].thread, &attributes, worker_main, &p->workers[i]);
        if (code) {
            pthread_attr_destroy(&attributes);
            pool_destroy(p);
            return error_set(err, E_NOMEM, "cannot start thread %d of %d: %s", i + 1, n_threads,
                             strerror(code));
        }
        p->n_started++;
    }
    pthread_attr_destroy(&attributes);
    *out = p;
    return OK;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    p->is_closing = true;
    count_raise(&p->begun);
    count_wake(&p->begun);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
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

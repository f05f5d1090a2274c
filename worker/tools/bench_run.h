/* What the measuring programs share. They print one JSON object per line on standard output, raw times and no
 * statistics: woolly-bench starts them, reads the lines and reports. */
#ifndef WOOLLY_TOOLS_BENCH_RUN_H
#define WOOLLY_TOOLS_BENCH_RUN_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { BENCH_MAX_REPS = 1000 };

static inline double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* How much of the cores a program got that wanted `threads` of them, over all that it measured: 1 on a
 * machine that does nothing else. */
struct bench_share {
    double cpu_s, wanted_s;
    double cpu_at_begin, wall_at_begin;
};

static inline double bench_cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void bench_share_begin(struct bench_share *s)
{
    s->cpu_at_begin = bench_cpu_seconds();
    s->wall_at_begin = bench_seconds();
}

static inline void bench_share_end(struct bench_share *s, int threads)
{
    s->cpu_s += bench_cpu_seconds() - s->cpu_at_begin;
    s->wanted_s += (bench_seconds() - s->wall_at_begin) * threads;
}

/* From -1 to 1, the same in every run: a linear congruential generator. */
static inline float bench_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) / 0x1p31f;
}

/* Prints a line at once, so that its reader sees how far the work is, and frees the object. */
static inline void bench_print(json_t *line)
{
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

#endif

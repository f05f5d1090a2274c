/* Samples of one quantity and what they say: the median and how far the samples lie apart. */
#ifndef WOOLLY_BENCH_STATS_H
#define WOOLLY_BENCH_STATS_H

#include <stddef.h>

/* Zero-initialised it is empty. */
struct samples {
    double *values; /* [n], in the order taken */
    size_t n;
};

void samples_add(struct samples *s, double value);
void samples_fini(struct samples *s);

/* All 0 without samples. Quartiles lie on the straight line between their two neighbours. */
struct summary {
    size_t n;
    double median, q1, q3, min, max;
};

struct summary samples_summary(const struct samples *s);

/* How long the slowest of many took: the values that 50, 95 and 99 in 100 samples do not exceed, on straight
 * lines too. */
struct tail {
    size_t n;
    double p50, p95, p99, max;
};

struct tail samples_tail(const struct samples *s);

/* Each sample divided by the one taken beside it, as many as both have. The caller frees it. */
struct samples samples_ratio(const struct samples *a, const struct samples *b);

#endif

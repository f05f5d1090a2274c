/* How results are shown: tables for people, JSON for programs. */
#ifndef WOOLLY_BENCH_REPORT_H
#define WOOLLY_BENCH_REPORT_H

#include <jansson.h>

#include "bench/stats.h"
#include "bench/trial.h"

/* {"median", "q1", "q3", "min", "max", "samples"}, all divided by `unit`; null without samples. */
json_t *report_summary(const struct samples *s, double unit);

/* The median divided by `unit`, or null. */
json_t *report_median(const struct samples *s, double unit);

/* Prints the object on standard output and frees it. */
void report_json(json_t *object);

/* Exit status of a command that printed its answer: whether all of it reached standard output. */
int report_done(void);

/* One number in as many digits as it deserves, in a static buffer good for four calls; "-" for no samples. */
const char *report_number(double value, size_t n_samples);

/* cpu_s / wanted_s, or null when nothing was wanted. */
json_t *report_share(double cpu_s, double wanted_s);

/* A line under a table when other programs had so much of the cores that the figures are too low. */
void report_busy(double cpu_s, double wanted_s);

/* The answer of `woolly-bench engine`. */
void report_engine(const struct engine_request *q, const struct subject *subject, const struct trial *trials,
                   size_t n);

#endif

/* Our side of a measurement: woolly-bench-engine in a process of its own. */
#ifndef WOOLLY_BENCH_OURS_H
#define WOOLLY_BENCH_OURS_H

#include "bench/trial.h"
#include "common/status.h"

/* Runs the trials, adds reps samples to each, and fills in *subject. Returns the exit status: when it is not
 * EXIT_SUCCESS, one line has been said about why. */
int ours_measure(const struct engine_request *q, struct trial *trials, size_t n, int reps,
                 struct subject *subject);

#endif

/* One run of a load. */
#ifndef WOOLLY_BENCH_LOAD_RUN_H
#define WOOLLY_BENCH_LOAD_RUN_H

#include "bench/load_target.h"

/* Answers one request that is not counted, and then runs the load of n_users. What went wrong with single
 * requests stands in the result; not OK when there is nothing to measure. The caller ends the result. */
MUST_CHECK enum status load_run(struct load_target *t, const struct load_request *q, int n_users,
                                struct prompts *prompts, struct load_result *out, struct error *err);

#endif

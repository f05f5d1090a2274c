/* What `woolly-bench load` measures: users who each have one request running at any time, and what they see.
 */
#ifndef WOOLLY_BENCH_LOAD_H
#define WOOLLY_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/stats.h"
#include "common/numbers.h"

enum { LOAD_MAX_USERS = 1024 }; /* as many live requests as a broker takes from one client */

enum load_api { LOAD_COMPLETION, LOAD_OPENAI };

struct load_request {
    const char *model;
    const char *url, *zmq; /* of a URL and a ZeroMQ endpoint at most one; neither: this user's own server */
    enum load_api api;     /* of a URL */
    struct numbers users;  /* a run for each */
    int prompt_tokens, shared_prefix, tokens;
    int requests; /* of a run; 0: by time, or four for each user */
    int seconds;  /* 0: by requests */
    int timeout_s;
    int seed;
    bool as_json;
};

/* One run. Throughput is taken over the window: the time in which every user has a request, from the first
 * request until there is none left to begin. */
struct load_result {
    int users;
    int done, errors, never_ended;
    double window_s, window_tokens;
    double total_s;       /* from the first request to the last end */
    struct samples ttft;  /* ms from asking to the first tokens, of each request that had any */
    struct samples gap;   /* ms between tokens events of a stream that came in the window */
    double client_cpu_s;  /* of this process, within total_s */
    char last_error[300]; /* "" when there was none; fit for a terminal */
};

static inline double load_tok_s(const struct load_result *r)
{
    return r->window_s > 0 ? r->window_tokens / r->window_s : 0;
}

static inline double load_requests_s(const struct load_result *r)
{
    return r->total_s > 0 ? r->done / r->total_s : 0;
}

void load_result_fini(struct load_result *r);

/* Prints all runs. `where` is the endpoint or URL. */
void load_report(const struct load_request *q, const char *where, const struct load_result *runs, size_t n);

#endif

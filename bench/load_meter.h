/* Counts what the users of one run see. Time is a parameter, in microseconds. A user is busy from meter_begin
 * to meter_done or meter_failed. */
#ifndef WOOLLY_BENCH_LOAD_METER_H
#define WOOLLY_BENCH_LOAD_METER_H

#include "bench/load.h"

struct meter_user {
    bool is_busy;
    int64_t begin_us, last_us; /* of the request; of its latest tokens, or when it began */
    int tokens, window_tokens; /* counted as they came; of these within the window */
};

struct meter {
    struct load_result result;
    struct meter_user users[LOAD_MAX_USERS];
    int64_t begin_us, end_us; /* first request, last end so far */
    bool is_open;             /* the window */
};

/* Begins a run, and its window. */
void meter_start(struct meter *m, int n_users, int64_t now_us);

void meter_begin(struct meter *m, int user, int64_t now_us);
void meter_tokens(struct meter *m, int user, int n, int64_t now_us);

/* `total` is how many tokens the server says the answer has: a server may hold tokens back and send several
 * as one event. 0 when it does not say. */
void meter_done(struct meter *m, int user, int total, int64_t now_us);

void meter_error(struct meter *m, int user, const char *why, int64_t now_us);
void meter_never_ended(struct meter *m, int user, int64_t now_us);

/* Some user has nothing to do from now on. Later calls change nothing. */
void meter_close_window(struct meter *m, int64_t now_us);

#endif

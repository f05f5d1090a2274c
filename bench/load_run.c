#include "bench/load_run.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "bench/load_meter.h"
#include "common/clock.h"
#include "common/xalloc.h"

enum {
    LOOK_US = 100000,        /* how often the loop looks for requests that never end */
    AFTER_ERROR_US = 100000, /* a refused user does not ask again at once: a guess at what clients do */
    REQUESTS_PER_USER = 4,
};

struct run {
    struct load_target *target;
    const struct load_request *request;
    struct prompts *prompts;
    int n_users, n_busy;
    int n_left;                       /* requests still to begin */
    int64_t stop_us;                  /* when none begins any more */
    int64_t ready_us[LOAD_MAX_USERS]; /* when an idle user may ask again */
    struct meter meter;
};

static double cpu_s(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void fail_user(struct run *r, int user, const char *why, int64_t now_us)
{
    meter_error(&r->meter, user, why, now_us);
    r->ready_us[user] = now_us + AFTER_ERROR_US;
    r->n_busy--;
}

static void begin_request(struct run *r, int user, int64_t now_us)
{
    struct error why;
    r->n_left--;
    r->n_busy++;
    prompts_next(r->prompts);
    meter_begin(&r->meter, user, now_us);
    if (r->target->calls->submit(r->target, user, r->prompts, &why) != OK)
        fail_user(r, user, why.text, now_us);
}

/* Every user who may has a request afterwards. Where there are none left, the window is over as soon as a
 * user would want one. */
static void begin_requests(struct run *r, int64_t now_us)
{
    for (int i = 0; i < r->n_users; i++) {
        if (r->meter.users[i].is_busy)
            continue;
        if (!r->n_left || now_us >= r->stop_us)
            meter_close_window(&r->meter, now_us);
        else if (now_us >= r->ready_us[i])
            begin_request(r, i, now_us);
    }
}

static void give_up_silent(struct run *r, int64_t now_us)
{
    for (int i = 0; i < r->n_users; i++) {
        const struct meter_user *u = &r->meter.users[i];
        if (!u->is_busy || now_us - u->last_us < r->request->timeout_s * INT64_C(1000000))
            continue;
        r->target->calls->cancel(r->target, i);
        meter_never_ended(&r->meter, i, now_us);
        r->n_busy--;
    }
}

static void take_event(struct run *r, const struct load_event *e)
{
    switch (e->kind) {
    case LOAD_TOKENS:
        meter_tokens(&r->meter, e->user, e->tokens, e->at_us);
        break;
    case LOAD_DONE:
        meter_done(&r->meter, e->user, e->tokens, e->at_us);
        r->n_busy--;
        break;
    case LOAD_ERROR:
        fail_user(r, e->user, e->why, e->at_us);
    }
}

/* Until all requests have begun and ended. */
static void loop(struct run *r)
{
    int64_t look_us = 0;
    for (;;) {
        struct load_event e;
        int64_t now_us = clock_us();
        if (now_us >= r->stop_us)
            meter_close_window(&r->meter, now_us);
        if (r->n_busy < r->n_users)
            begin_requests(r, now_us);
        if (!r->n_busy && !r->meter.is_open)
            return;
        if (now_us >= look_us) {
            give_up_silent(r, now_us);
            look_us = now_us + LOOK_US;
        }
        if (r->target->calls->next(r->target, LOOK_US / 1000, &e))
            take_event(r, &e);
    }
}

static void run_users(struct run *r, int n_users, int n_requests, int64_t span_us)
{
    int64_t now_us = clock_us();
    double cpu_before_s = cpu_s();
    r->n_users = n_users;
    r->n_left = n_requests;
    r->stop_us = span_us ? now_us + span_us : INT64_MAX;
    meter_start(&r->meter, n_users, now_us);
    loop(r);
    r->meter.result.client_cpu_s = cpu_s() - cpu_before_s;
}

/* The first answer may come with costs that later ones do not have; and who cannot give one is not measured.
 */
static enum status warm_up(struct run *r, struct error *err)
{
    run_users(r, 1, 1, 0);
    struct load_result *x = &r->meter.result;
    bool is_done = x->done && x->window_tokens > 0;
    if (x->errors)
        error_set(err, E_UNSUPPORTED, "the first request failed: %s", x->last_error);
    else if (!is_done)
        error_set(err, E_UNSUPPORTED, "the first request %s", x->done ? "gave no tokens" : "never ended");
    load_result_fini(x);
    return is_done ? OK : E_UNSUPPORTED;
}

enum status load_run(struct load_target *t, const struct load_request *q, int n_users,
                     struct prompts *prompts, struct load_result *out, struct error *err)
{
    struct run *r = xcalloc(1, sizeof *r);
    int n_requests = q->requests ? q->requests : q->seconds ? INT32_MAX : REQUESTS_PER_USER * n_users;
    r->target = t;
    r->request = q;
    r->prompts = prompts;
    *out = (struct load_result){ 0 };
    enum status s = warm_up(r, err);
    if (s == OK) {
        for (int i = 0; i < n_users; i++)
            r->ready_us[i] = 0;
        run_users(r, n_users, n_requests, q->seconds * INT64_C(1000000));
        *out = r->meter.result;
        if (!out->done)
            s = error_set(err, E_UNSUPPORTED, "no request of %d users was answered%s%s", n_users,
                          *out->last_error ? "; the last error: " : "", out->last_error);
    }
    free(r);
    return s;
}

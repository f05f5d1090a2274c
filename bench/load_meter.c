#include "bench/load_meter.h"

#include <assert.h>
#include <stdio.h>

void load_result_fini(struct load_result *r)
{
    samples_fini(&r->ttft);
    samples_fini(&r->gap);
}

void meter_start(struct meter *m, int n_users, int64_t now_us)
{
    *m = (struct meter){ .result.users = n_users, .begin_us = now_us, .end_us = now_us, .is_open = true };
}

void meter_begin(struct meter *m, int user, int64_t now_us)
{
    assert(!m->users[user].is_busy);
    m->users[user] = (struct meter_user){ .is_busy = true, .begin_us = now_us, .last_us = now_us };
}

void meter_tokens(struct meter *m, int user, int n, int64_t now_us)
{
    struct meter_user *u = &m->users[user];
    double ms = (double)(now_us - u->last_us) / 1e3;
    if (!u->tokens)
        samples_add(&m->result.ttft, ms);
    else if (m->is_open)
        samples_add(&m->result.gap, ms);
    u->last_us = now_us;
    u->tokens += n;
    if (m->is_open)
        u->window_tokens += n;
}

static void end(struct meter *m, struct meter_user *u, double tokens_per_counted, int64_t now_us)
{
    assert(u->is_busy);
    u->is_busy = false;
    m->end_us = now_us;
    m->result.total_s = (double)(now_us - m->begin_us) / 1e6;
    m->result.window_tokens += u->window_tokens * tokens_per_counted;
}

void meter_done(struct meter *m, int user, int total, int64_t now_us)
{
    struct meter_user *u = &m->users[user];
    end(m, u, total && u->tokens ? (double)total / u->tokens : 1, now_us);
    m->result.done++;
}

void meter_error(struct meter *m, int user, const char *why, int64_t now_us)
{
    end(m, &m->users[user], 1, now_us);
    m->result.errors++;
    snprintf(m->result.last_error, sizeof m->result.last_error, "%s", why);
    for (char *c = m->result.last_error; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?';
}

void meter_never_ended(struct meter *m, int user, int64_t now_us)
{
    end(m, &m->users[user], 1, now_us);
    m->result.never_ended++;
}

void meter_close_window(struct meter *m, int64_t now_us)
{
    if (m->is_open)
        m->result.window_s = (double)(now_us - m->begin_us) / 1e6;
    m->is_open = false;
}

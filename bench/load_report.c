#include <stdio.h>

#include "bench/load.h"
#include "bench/report.h"

/* Some bytes of a command line are no UTF-8. */
static json_t *text_json(const char *text)
{
    json_t *string = json_string(text);
    return string ? string : json_null();
}

static json_t *tail_json(const struct samples *s)
{
    struct tail t = samples_tail(s);
    if (!t.n)
        return json_null();
    return json_pack("{s:I, s:f, s:f, s:f, s:f}", "samples", (json_int_t)t.n, "p50", t.p50, "p95", t.p95,
                     "p99", t.p99, "max", t.max);
}

static json_t *client_cpu_json(const struct load_result *r)
{
    return r->total_s > 0 ? json_real(r->client_cpu_s / r->total_s) : json_null();
}

static json_t *run_json(const struct load_result *r)
{
    json_t *object =
        json_pack("{s:i, s:f, s:f, s:o, s:o, s:i, s:i, s:i, s:f, s:f, s:f, s:o}", "users", r->users, "tok_s",
                  load_tok_s(r), "requests_s", load_requests_s(r), "ttft_ms", tail_json(&r->ttft), "gap_ms",
                  tail_json(&r->gap), "requests", r->done, "errors", r->errors, "never_ended", r->never_ended,
                  "window_tokens", r->window_tokens, "window_s", r->window_s, "total_s", r->total_s,
                  "client_cpu", client_cpu_json(r));
    if (*r->last_error)
        json_object_set_new(object, "last_error", text_json(r->last_error));
    return object;
}

static void print_json(const struct load_request *q, const char *where, const struct load_result *runs,
                       size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, run_json(&runs[i]));
    report_json(json_pack("{s:o, s:o, s:s, s:i, s:i, s:i, s:i, s:o}", "server", text_json(where), "model",
                          text_json(q->model), "api",
                          !q->url                 ? "woolly"
                          : q->api == LOAD_OPENAI ? "openai"
                                                  : "completion",
                          "prompt_tokens", q->prompt_tokens, "shared_prefix", q->shared_prefix, "tokens",
                          q->tokens, "seed", q->seed, "runs", all));
}

static void print_tail(const struct samples *s)
{
    struct tail t = samples_tail(s);
    printf("  %6s %6s %6s %6s", report_number(t.p50, t.n), report_number(t.p95, t.n),
           report_number(t.p99, t.n), report_number(t.max, t.n));
}

static void print_run(const struct load_result *r)
{
    printf("%5d %8s %7s", r->users, report_number(load_tok_s(r), r->window_s > 0),
           report_number(load_requests_s(r), r->total_s > 0));
    print_tail(&r->ttft);
    print_tail(&r->gap);
    printf("  %8d %6d %6d  %4.1f %%\n", r->done, r->errors, r->never_ended,
           r->total_s > 0 ? 100 * r->client_cpu_s / r->total_s : 0);
}

static void print_table(const struct load_request *q, const char *where, const struct load_result *runs,
                        size_t n)
{
    printf("%s at %s: prompts of %d", q->model, where, q->prompt_tokens);
    if (q->shared_prefix)
        printf(" tokens behind %d that all share", q->shared_prefix);
    printf("%s, answers of %d; times in ms\n\n", q->shared_prefix ? "" : " tokens", q->tokens);
    printf("%23s%-27s  %-27s\n", "", "  time to first token", "  gap between tokens");
    printf(
        "users    tok/s   req/s     p50    p95    p99    max     p50    p95    p99    max  requests errors "
        "no end  client CPU\n");
    for (size_t i = 0; i < n; i++)
        print_run(&runs[i]);
    for (size_t i = 0; i < n; i++)
        if (*runs[i].last_error)
            printf("\nThe last error with %d users: %s\n", runs[i].users, runs[i].last_error);
}

void load_report(const struct load_request *q, const char *where, const struct load_result *runs, size_t n)
{
    (q->as_json ? print_json : print_table)(q, where, runs, n);
}

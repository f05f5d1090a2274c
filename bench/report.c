#include "bench/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/status.h"

json_t *report_median(const struct samples *s, double unit)
{
    return s->n ? json_real(samples_summary(s).median / unit) : json_null();
}

json_t *report_summary(const struct samples *s, double unit)
{
    if (!s->n)
        return json_null();
    struct summary x = samples_summary(s);
    json_t *all = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(all, json_real(s->values[i] / unit));
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:o}", "median", x.median / unit, "q1", x.q1 / unit, "q3",
                     x.q3 / unit, "min", x.min / unit, "max", x.max / unit, "samples", all);
}

void report_json(json_t *object)
{
    json_dumpf(object, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
}

int report_done(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return EXIT_SUCCESS;
    fprintf(stderr, "woolly-bench: cannot write to standard output: %s\n", strerror(errno));
    return EXIT_FAILURE;
}

const char *report_number(double value, size_t n_samples)
{
    static char texts[4][32];
    static int next;
    char *text = texts[next++ % 4];
    if (!n_samples)
        return "-";
    snprintf(text, sizeof *texts, value < 10 ? "%.2f" : value < 1000 ? "%.1f" : "%.0f", value);
    return text;
}

json_t *report_share(double cpu_s, double wanted_s)
{
    return wanted_s > 0 ? json_real(cpu_s / wanted_s) : json_null();
}

/* Threads wait for each other and wake up: a few percent are lost on an idle machine too. */
void report_busy(double cpu_s, double wanted_s)
{
    if (cpu_s < 0.9 * wanted_s)
        printf(
            "\nThe machine was busy: the threads had %.0f %% of their cores, so these figures are too low.\n",
            100 * cpu_s / wanted_s);
}

/* The two halves of a trial, in the order of a run: what is measured behind so many positions. */
struct half {
    const char *test;
    int depth, tokens;
    const struct samples *rate; /* [SIDES] */
};

static int halves_of(const struct trial *t, struct half *halves)
{
    int n = 0;
    if (t->prompt)
        halves[n++] = (struct half){ "prefill", t->depth, t->prompt, t->prefill_rate };
    if (t->decode)
        halves[n++] = (struct half){ "decode", t->depth + t->prompt, t->decode, t->decode_rate };
    return n;
}

static json_t *half_json(const struct engine_request *q, const struct trial *t, const struct half *h)
{
    json_t *object = report_summary(&h->rate[OURS], 1);
    if (!json_is_object(object)) {
        json_decref(object);
        object = json_object();
    }
    json_object_set_new(object, "test", json_string(h->test));
    json_object_set_new(object, "threads", json_integer(t->threads));
    json_object_set_new(object, "batch", json_integer(t->sequences));
    json_object_set_new(object, "depth", json_integer(h->depth));
    json_object_set_new(object, "tokens", json_integer(h->tokens));
    json_object_set_new(object, "tok_s", report_median(&h->rate[OURS], 1));
    if (q->peer) {
        struct samples ratio = samples_ratio(&h->rate[OURS], &h->rate[PEER]);
        struct summary ours = samples_summary(&h->rate[OURS]), peer = samples_summary(&h->rate[PEER]);
        json_object_set_new(object, "peer", report_summary(&h->rate[PEER], 1));
        json_object_set_new(object, "ratio",
                            ours.n && peer.n ? json_real(ours.median / peer.median) : json_null());
        json_object_set_new(object, "ratio_by_round", report_summary(&ratio, 1));
        samples_fini(&ratio);
    }
    return object;
}

/* The first half of its name that was measured, or NULL. */
static const struct samples *first_rate(const struct trial *trials, size_t n, const char *test)
{
    struct half halves[2];
    for (size_t i = 0; i < n; i++)
        for (int h = 0, count = halves_of(&trials[i], halves); h < count; h++)
            if (!strcmp(halves[h].test, test))
                return halves[h].rate;
    return NULL;
}

static json_t *first_median(const struct trial *trials, size_t n, const char *test, enum side side)
{
    const struct samples *rate = first_rate(trials, n, test);
    return rate ? report_median(&rate[side], 1) : json_null();
}

static void print_json(const struct engine_request *q, const struct subject *subject,
                       const struct trial *trials, size_t n)
{
    struct half halves[2];
    json_t *results = json_array(), *model = json_string(q->model);
    for (size_t i = 0; i < n; i++)
        for (int h = 0, count = halves_of(&trials[i], halves); h < count; h++)
            json_array_append_new(results, half_json(q, &trials[i], &halves[h]));
    json_t *object = json_pack("{s:o, s:s, s:I, s:I, s:s, s:s, s:i, s:i, s:o, s:o}", "model",
                               model ? model : json_null() /* a name that is not UTF-8 */, "architecture",
                               subject->architecture, "parameters", (json_int_t)subject->parameters,
                               "weight_bytes", (json_int_t)subject->weight_bytes, "isa", subject->isa, "kv",
                               subject->kv, "threads", trials[0].threads, "reps", q->reps, "prefill_tok_s",
                               first_median(trials, n, "prefill", OURS), "decode_tok_s",
                               first_median(trials, n, "decode", OURS));
    if (q->peer) {
        json_t *peer = json_string(q->peer);
        json_object_set_new(object, "peer", peer ? peer : json_null());
        json_object_set_new(object, "peer_prefill_tok_s", first_median(trials, n, "prefill", PEER));
        json_object_set_new(object, "peer_decode_tok_s", first_median(trials, n, "decode", PEER));
    }
    json_object_set_new(object, "cpu_share", report_share(subject->cpu_s, subject->wanted_s));
    json_object_set_new(object, "results", results);
    report_json(object);
}

static void print_rate(const struct samples *rate)
{
    struct summary s = samples_summary(rate);
    printf("  %8s  %8s - %-8s", report_number(s.median, s.n), report_number(s.min, s.n),
           report_number(s.max, s.n));
}

static void print_half(const struct engine_request *q, const struct trial *t, const struct half *h)
{
    printf("%-8s %7d %6d %6d %6d", h->test, t->threads, t->sequences, h->depth, h->tokens);
    print_rate(&h->rate[OURS]);
    if (q->peer) {
        struct samples by_round = samples_ratio(&h->rate[OURS], &h->rate[PEER]);
        struct summary ours = samples_summary(&h->rate[OURS]), peer = samples_summary(&h->rate[PEER]),
                       ratio = samples_summary(&by_round);
        print_rate(&h->rate[PEER]);
        printf("  %6s  %6s - %s", report_number(peer.n ? ours.median / peer.median : 0, ratio.n),
               report_number(ratio.min, ratio.n), report_number(ratio.max, ratio.n));
        samples_fini(&by_round);
    }
    putchar('\n');
}

static void print_table(const struct engine_request *q, const struct subject *subject,
                        const struct trial *trials, size_t n)
{
    struct half halves[2];
    printf("%s: %s, %s million parameters, %s MB; %s, cache %s; %d %s\n\n", q->model, subject->architecture,
           report_number((double)subject->parameters / 1e6, 1),
           report_number((double)subject->weight_bytes / 1e6, 1), subject->isa, subject->kv, q->reps,
           q->peer ? "rounds" : "repetitions");
    printf("test     threads  batch  depth tokens  %8s  %-19s", "tok/s", "least - most");
    if (q->peer)
        printf("  %8s  %-19s  %6s  %s", "peer", "least - most", "ratio", "by round");
    putchar('\n');
    for (size_t i = 0; i < n; i++)
        for (int h = 0, count = halves_of(&trials[i], halves); h < count; h++)
            print_half(q, &trials[i], &halves[h]);
    report_busy(subject->cpu_s, subject->wanted_s);
}

void report_engine(const struct engine_request *q, const struct subject *subject, const struct trial *trials,
                   size_t n)
{
    (q->as_json ? print_json : print_table)(q, subject, trials, n);
}

#include "bench/stats.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

void samples_add(struct samples *s, double value)
{
    if ((s->n & (s->n - 1)) == 0) /* full: room is a power of two */
        s->values = xrealloc(s->values, (s->n ? 2 * s->n : 1) * sizeof *s->values);
    s->values[s->n++] = value;
}

void samples_fini(struct samples *s)
{
    free(s->values);
    *s = (struct samples){ 0 };
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value below which this share of the sorted samples lies. */
static double quantile(const double *sorted, size_t n, double share)
{
    double place = share * (double)(n - 1);
    size_t below = (size_t)place;
    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]);
}

/* A copy that the caller frees. */
static double *sort(const struct samples *s)
{
    double *sorted = xmalloc(s->n * sizeof *sorted);
    memcpy(sorted, s->values, s->n * sizeof *sorted);
    qsort(sorted, s->n, sizeof *sorted, by_value);
    return sorted;
}

struct summary samples_summary(const struct samples *s)
{
    if (!s->n)
        return (struct summary){ 0 };
    double *sorted = sort(s);
    struct summary result = {
        .n = s->n,
        .median = quantile(sorted, s->n, 0.5),
        .q1 = quantile(sorted, s->n, 0.25),
        .q3 = quantile(sorted, s->n, 0.75),
        .min = sorted[0],
        .max = sorted[s->n - 1],
    };
    free(sorted);
    return result;
}

struct tail samples_tail(const struct samples *s)
{
    if (!s->n)
        return (struct tail){ 0 };
    double *sorted = sort(s);
    struct tail result = {
        .n = s->n,
        .p50 = quantile(sorted, s->n, 0.5),
        .p95 = quantile(sorted, s->n, 0.95),
        .p99 = quantile(sorted, s->n, 0.99),
        .max = sorted[s->n - 1],
    };
    free(sorted);
    return result;
}

struct samples samples_ratio(const struct samples *a, const struct samples *b)
{
    struct samples ratio = { 0 };
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (b->values[i] > 0)
            samples_add(&ratio, a->values[i] / b->values[i]);
    return ratio;
}

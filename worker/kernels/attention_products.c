/* Scores and weighted values of a cache of floats as matrix products, for the levels that have one: which
 * queries go together, over which positions, and when a block is widened first. */
#include <string.h>

#include "worker/kernels/attention_tile.h"

/* Queries first..first+n-1 of a tile. */
struct strip {
    int first, n;
};

static struct strip strip_at(const struct float_level *level, const struct tile *t, int first)
{
    return (struct strip){ first, t->n - first < level->queries ? t->n - first : level->queries };
}

/* More queries than go together would each time widen the same numbers again. It changes no bit. */
static bool is_worth_widening(const struct float_level *level, const struct tile *t)
{
    return t->layout->type != KV_F32 && t->n > level->queries;
}

static int group_after(int pos)
{
    return (pos + KV_GROUP - 1) / KV_GROUP;
}

void scores_by_products(const struct float_level *level, struct tile *t, const char *block)
{
    const struct kv_layout *l = t->layout;
    enum kv_type type = l->type;
    const char *keys = block + l->k;
    ptrdiff_t ahead = t->ahead;
    size_t dim = (size_t)l->head_dim, group = dim * KV_GROUP, size = type == KV_F32 ? 4 : 2;
    if (is_worth_widening(level, t)) {
        int from = t->from[0] / KV_GROUP, to = group_after(t->to[t->n - 1]);
        if (from < to)
            level->widen[type](t->wide + (size_t)from * group, keys + (size_t)from * group * size,
                               (size_t)(to - from) * group, ahead);
        keys = (const char *)t->wide;
        size = sizeof(float);
        type = KV_F32;
        ahead = 0;
    }
    for (int q = 0; q < t->n; q += level->queries) {
        struct strip s = strip_at(level, t, q);
        int from = t->from[q] / KV_GROUP, to = group_after(t->to[q + s.n - 1]);
        struct product p = { .out = t->score + q * KV_BLOCK + from * KV_GROUP,
                             .out_stride = KV_BLOCK,
                             .a = t->q + (size_t)q * dim,
                             .a_stride = dim,
                             .b = keys + (size_t)from * group * size,
                             .k_stride = KV_GROUP,
                             .v_stride = group,
                             .n_v = to - from,
                             .last = (int)dim,
                             .ahead = ahead };
        if (from >= to)
            continue;
        for (int i = 0; i < s.n; i++)
            memset(p.out + i * KV_BLOCK, 0, (size_t)(to - from) * KV_GROUP * sizeof(float));
        level->multiply[type](s.n, &p);
    }
}

/* The product for query i of the strip alone, over positions first..last-1. */
static void multiply_one(void (*multiply)(int n, const struct product *p), const struct product *strip, int i,
                         int first, int last)
{
    struct product p = *strip;
    p.out += (size_t)i * p.out_stride;
    p.a += (size_t)i * p.a_stride;
    p.first = first;
    p.last = last;
    if (first < last)
        multiply(1, &p);
}

/* Positions that all queries of the strip see go through the product together; what only some see, before or
 * after, goes query by query: a value that a query must not see may be infinite, and 0 times that is NaN. */
static void add_values_of_strip(void (*multiply)(int n, const struct product *p), const struct tile *t,
                                struct strip s, struct product *p)
{
    const int *from = t->from + s.first, *to = t->to + s.first;
    int common = from[s.n - 1], end = to[0] > common ? to[0] : common;
    for (int i = 0; i < s.n && from[0] < common; i++)
        multiply_one(multiply, p, i, from[i], to[i] < common ? to[i] : common);
    p->first = common;
    p->last = end;
    if (common < end)
        multiply(s.n, p);
    for (int i = 0; i < s.n && end < to[s.n - 1]; i++)
        multiply_one(multiply, p, i, from[i] > end ? from[i] : end, to[i]);
}

void add_values_by_products(const struct float_level *level, struct tile *t, const char *block)
{
    const struct kv_layout *l = t->layout;
    enum kv_type type = l->type;
    const char *values = block + l->v;
    ptrdiff_t ahead = t->ahead;
    size_t width = (size_t)l->width;
    if (is_worth_widening(level, t)) {
        size_t from = (size_t)t->from[0], to = (size_t)t->to[t->n - 1];
        if (from < to)
            level->widen[type](t->wide + from * width, values + from * width * sizeof(uint16_t),
                               (to - from) * width, ahead);
        values = (const char *)t->wide;
        type = KV_F32;
        ahead = 0;
    }
    for (int q = 0; q < t->n; q += level->queries) {
        struct product p = { .out = t->record + (size_t)q * record_floats(l),
                             .out_stride = record_floats(l),
                             .a = t->score + q * KV_BLOCK,
                             .a_stride = KV_BLOCK,
                             .b = values,
                             .k_stride = width,
                             .v_stride = 16,
                             .n_v = l->width / 16,
                             .ahead = ahead };
        add_values_of_strip(level->multiply[type], t, strip_at(level, t, q), &p);
    }
}

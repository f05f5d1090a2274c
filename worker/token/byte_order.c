#include "worker/token/byte_order.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

struct byte_order {
    const struct tokenizer *tokenizer;
    int n;
    int32_t *ids; /* [n] */
};

struct entry {
    const char *bytes;
    size_t len;
    int32_t id;
};

static int compare_lengths(size_t a, size_t b)
{
    return (a > b) - (a < b);
}

static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    int c = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);

    if (c == 0)
        c = compare_lengths(a->len, b->len);
    return c ? c : (a->id > b->id) - (a->id < b->id);
}

struct byte_order *byte_order_create(const struct tokenizer *t)
{
    struct byte_order *o = xcalloc(1, sizeof *o);
    size_t n_vocab = (size_t)tokenizer_n_vocab(t);
    struct entry *entries = xcalloc(n_vocab, sizeof *entries);

    o->tokenizer = t;
    for (int32_t id = 0; id < (int32_t)n_vocab; id++) {
        struct entry e = { .id = id };
        e.bytes = tokenizer_piece(t, id, &e.len);
        if (e.len > 0)
            entries[o->n++] = e;
    }
    qsort(entries, (size_t)o->n, sizeof *entries, compare_entries);
    o->ids = xcalloc(n_vocab, sizeof *o->ids);
    for (int i = 0; i < o->n; i++)
        o->ids[i] = entries[i].id;
    free(entries);
    return o;
}

void byte_order_destroy(struct byte_order *o)
{
    if (!o)
        return;
    free(o->ids);
    free(o);
}

int byte_order_count(const struct byte_order *o)
{
    return o->n;
}

const int32_t *byte_order_ids(const struct byte_order *o)
{
    return o->ids;
}

struct sought {
    const char *bytes;
    size_t len;
    bool is_prefix; /* what begins with it is as good as it */
};

static int compare_sought(const struct byte_order *o, int i, const struct sought *s)
{
    size_t len;
    const char *piece = tokenizer_piece(o->tokenizer, o->ids[i], &len);
    size_t common = len < s->len ? len : s->len;
    int c = common ? memcmp(piece, s->bytes, common) : 0;

    if (c == 0 && !(s->is_prefix && len >= s->len))
        c = compare_lengths(len, s->len);
    return c;
}

/* The first place whose comparison is above `bound`. */
static int find_above(const struct byte_order *o, const struct sought *s, int bound)
{
    int low = 0, high = o->n;

    while (low < high) {
        int middle = low + (high - low) / 2, c = compare_sought(o, middle, s);
        if ((c > 0) - (c < 0) > bound)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct byte_range byte_order_prefix(const struct byte_order *o, const char *bytes, size_t len)
{
    struct sought s = { bytes, len, true };

    return (struct byte_range){ find_above(o, &s, -1), find_above(o, &s, 0) };
}

struct byte_range byte_order_equal(const struct byte_order *o, const char *bytes, size_t len)
{
    struct sought s = { bytes, len, false };

    return (struct byte_range){ find_above(o, &s, -1), find_above(o, &s, 0) };
}

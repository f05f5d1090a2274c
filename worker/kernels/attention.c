/* Goes over chunks and blocks with a tile of queries; the levels compute. */
#include "worker/kernels/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/kernels.h"

/* Queries that are few leave the vector units waiting for memory: then the next block is fetched while this
 * one is computed with. */
enum { PREFETCH_QUERIES = 8 };

/* Hands out parts of the scratch, each on a cache line of its own. Without a base it only counts. */
struct parts {
    char *base;
    size_t used;
};

static void *take(struct parts *p, size_t bytes)
{
    void *part = p->base ? p->base + p->used : NULL;
    p->used += (bytes + 63) / 64 * 64;
    return part;
}

static size_t lay_out(struct tile *t, const struct kv_layout *l, char *scratch)
{
    struct parts p = { .base = scratch };
    size_t n = ATTENTION_QUERIES, widest = (size_t)(l->width > l->depth ? l->width : l->depth);
    t->layout = l;
    t->q = take(&p, n * (size_t)l->head_dim * sizeof(float));
    t->words = take(&p, n * (size_t)l->depth * sizeof(int16_t));
    t->q_scale = take(&p, n * sizeof(float));
    t->q_sum = take(&p, n * (size_t)l->n_parts * sizeof(int32_t));
    t->score = take(&p, n * KV_BLOCK * sizeof(float));
    t->record = take(&p, n * record_floats(l) * sizeof(float));
    t->merged = take(&p, n * record_floats(l) * sizeof(float));
    t->wide = take(&p, KV_BLOCK * widest * sizeof(float));
    return p.used;
}

size_t attention_scratch_bytes(const struct kv_layout *l)
{
    struct tile t;
    return lay_out(&t, l, NULL);
}

size_t attention_partial_floats(const struct kv_layout *l, int n_queries)
{
    return (size_t)n_queries * record_floats(l);
}

static bool is_integer(const struct kv_layout *l)
{
    return l->type == KV_Q8 || l->type == KV_Q4;
}

/* The first position that a row sees. */
static int first_seen(const struct attention *a, int row)
{
    int pos = a->pos + row;
    return pos >= a->window ? pos - a->window + 1 : 0;
}

int attention_first_chunk(const struct attention *a)
{
    return first_seen(a, 0) / ATTENTION_CHUNK;
}

int attention_last_chunk(const struct attention *a)
{
    return (a->pos + a->n_rows - 1) / ATTENTION_CHUNK + 1;
}

static void begin(struct tile *t, const struct kernels *k, const struct attention *a)
{
    const float log2_e = 1.44269504088896341f;
    int dim = a->layout->head_dim, per_row = a->n_heads * dim;
    float scale = a->scale * log2_e;

    lay_out(t, a->layout, a->scratch);
    t->n = a->n_rows * a->n_heads;
    assert(t->n <= ATTENTION_QUERIES);
    t->soft_cap = a->soft_cap * log2_e;
    for (int r = 0; r < a->n_rows; r++) {
        const float *from = a->q + (size_t)r * a->stride;
        float *to = t->q + (size_t)r * (size_t)per_row;
        for (int i = 0; i < per_row; i++)
            to[i] = from[i] * scale;
    }
    if (is_integer(a->layout))
        k->attention.quantise(t);
}

static int clamp(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

/* Says whether anyone sees anything. */
static bool look_at(struct tile *t, const struct attention *a, int block)
{
    int start = block * KV_BLOCK;
    bool is_seen = false;
    for (int r = 0; r < a->n_rows; r++) {
        int from = clamp(first_seen(a, r) - start, 0, KV_BLOCK);
        int to = clamp(a->pos + r + 1 - start, 0, KV_BLOCK);
        is_seen = is_seen || from < to;
        for (int h = 0; h < a->n_heads; h++) {
            t->from[r * a->n_heads + h] = from;
            t->to[r * a->n_heads + h] = to;
        }
    }
    return is_seen;
}

static const char *block_at(const struct attention *a, int block)
{
    return a->memory + (size_t)a->table[block] * a->page_bytes;
}

static void clear_records(const struct kv_layout *l, float *records, int n)
{
    memset(records, 0, (size_t)n * record_floats(l) * sizeof *records);
    for (int i = 0; i < n; i++)
        *record_reference(l, records + (size_t)i * record_floats(l)) = -INFINITY;
}

static void compute_chunk(struct tile *t, const struct kernels *k, const struct attention *a, int chunk)
{
    const struct kv_layout *l = a->layout;
    int last_pos = a->pos + a->n_rows - 1, first = chunk * (ATTENTION_CHUNK / KV_BLOCK);
    for (int block = first; block < first + ATTENTION_CHUNK / KV_BLOCK; block++) {
        if (!look_at(t, a, block))
            continue;
        const char *here = block_at(a, block);
        bool has_next = t->n <= PREFETCH_QUERIES && (block + 1) * KV_BLOCK <= last_pos;
        t->ahead = has_next ? block_at(a, block + 1) - here : 0;
        k->attention.scores[l->type](t, here);
        k->attention.weigh(t);
        k->attention.add_values[l->type](t, here);
    }
}

/* A query that sees nothing of a chunk has nothing to merge: alone it would not have come here. */
static bool row_sees_chunk(const struct attention *a, int row, int chunk)
{
    return a->pos + row >= chunk * ATTENTION_CHUNK && first_seen(a, row) < (chunk + 1) * ATTENTION_CHUNK;
}

static void merge_row(const struct kernels *k, const struct attention *a, int row, int chunk, float *merged,
                      const float *records)
{
    size_t stride = record_floats(a->layout), first = (size_t)(row * a->n_heads);
    if (row_sees_chunk(a, row, chunk))
        for (size_t i = 0; i < (size_t)a->n_heads; i++)
            k->attention.merge(a->layout, merged + i * stride, records + (first + i) * stride);
}

static void finish_row(const struct kernels *k, const struct attention *a, int row, const float *merged)
{
    for (int h = 0; h < a->n_heads; h++)
        k->attention.finish(a->layout, a->out + (size_t)row * a->stride + h * a->layout->head_dim,
                            merged + (size_t)h * record_floats(a->layout));
}

void attention_compute(const struct kernels *k, const struct attention *a)
{
    struct tile t;
    size_t row_floats;
    begin(&t, k, a);
    row_floats = (size_t)a->n_heads * record_floats(a->layout);
    clear_records(a->layout, t.merged, t.n);
    for (int chunk = attention_first_chunk(a); chunk < attention_last_chunk(a); chunk++) {
        clear_records(a->layout, t.record, t.n);
        compute_chunk(&t, k, a, chunk);
        for (int r = 0; r < a->n_rows; r++)
            merge_row(k, a, r, chunk, t.merged + (size_t)r * row_floats, t.record);
    }
    for (int r = 0; r < a->n_rows; r++)
        finish_row(k, a, r, t.merged + (size_t)r * row_floats);
}

void attention_compute_chunks(const struct kernels *k, const struct attention *a, int first_chunk,
                              int last_chunk, float *partials)
{
    struct tile t;
    begin(&t, k, a);
    for (int chunk = first_chunk; chunk < last_chunk; chunk++) {
        t.record = partials + (size_t)chunk * attention_partial_floats(a->layout, t.n);
        clear_records(a->layout, t.record, t.n);
        compute_chunk(&t, k, a, chunk);
    }
}

void attention_merge(const struct kernels *k, const struct attention *a, int first_row, int last_row,
                     const float *partials, float *merged)
{
    size_t chunk_floats = attention_partial_floats(a->layout, a->n_rows * a->n_heads);
    for (int r = first_row; r < last_row; r++) {
        float *row = merged + (size_t)(r * a->n_heads) * record_floats(a->layout);
        clear_records(a->layout, row, a->n_heads);
        for (int chunk = attention_first_chunk(a); chunk < attention_last_chunk(a); chunk++)
            merge_row(k, a, r, chunk, row, partials + (size_t)chunk * chunk_floats);
        finish_row(k, a, r, row);
    }
}

/* How the work of attention is cut and dealt out. A unit is a tile: consecutive rows of one sequence and the
 * query heads that share one KV head. Units stand one behind the other on a line, each as long as what it
 * costs; the line is cut into equal parts, one per thread. A unit that crosses a cut is shared between
 * threads by its chunks of positions, and put together by whoever goes on with its rows. No bit depends on
 * where the cuts are: attention.h says why. */
#include "worker/model/stages.h"

/* A tile of fewer queries costs as much: the cache has to be read. A guess. */
enum { FEWEST_QUERIES = 8 };

struct unit {
    int run, run_end; /* rows of the step that are one sequence at rising positions */
    int first_row, n_rows;
    int first_head, n_heads; /* query heads */
    int first_chunk, last_chunk;
    int64_t begin, end; /* on the line */
};

static int min(int a, int b)
{
    return a < b ? a : b;
}

static int run_end(const struct engine *e, int first)
{
    int r = first + 1;
    while (r < e->n_rows && e->rows[r].slot == e->rows[r - 1].slot &&
           e->rows[r].pos == e->rows[r - 1].pos + 1)
        r++;
    return r;
}

static struct attention task_of(const struct engine *e, const struct unit *u)
{
    const struct model_facts *f = &e->model->facts;
    int kv_head = u->first_head / (f->n_heads / f->n_kv_heads), slot = e->rows[u->first_row].slot;
    return (struct attention){
        .layout = &e->cache.layout,
        .memory = kv_cache_blocks(&e->cache, e->layer_index, kv_head),
        .page_bytes = e->cache.page_bytes,
        .table = kv_cache_table(&e->cache, slot),
        .n_rows = u->n_rows,
        .n_heads = u->n_heads,
        .pos = e->rows[u->first_row].pos,
        .window = e->layer->window,
        .scale = f->attention_scale,
        .soft_cap = f->attention_cap,
        .q = row_of(&e->q, u->first_row) + u->first_head * f->head_dim,
        .out = row_of(&e->attended, u->first_row) + u->first_head * f->head_dim,
        .stride = e->q.stride,
    };
}

/* Where on the line a chunk of the unit begins. */
static int64_t chunk_begin(const struct engine *e, const struct unit *u, int chunk)
{
    int pos = e->rows[u->first_row].pos, seen = min(pos + 1, e->layer->window);
    int64_t blocks = (int64_t)chunk * (ATTENTION_CHUNK / KV_BLOCK) - (pos + 1 - seen) / KV_BLOCK;
    int queries = u->n_rows * u->n_heads;
    return u->begin + (blocks > 0 ? blocks : 0) * (queries > FEWEST_QUERIES ? queries : FEWEST_QUERIES);
}

static int64_t unit_end(const struct engine *e, const struct unit *u)
{
    int last_pos = e->rows[u->first_row + u->n_rows - 1].pos;
    int past = u->last_chunk * (ATTENTION_CHUNK / KV_BLOCK) - (last_pos / KV_BLOCK + 1);
    int queries = u->n_rows * u->n_heads;
    return chunk_begin(e, u, u->last_chunk) - past * (queries > FEWEST_QUERIES ? queries : FEWEST_QUERIES);
}

/* Before the first unit. */
static struct unit no_unit(const struct engine *e)
{
    return (struct unit){ .first_head = e->model->facts.n_heads };
}

/* Goes on to the next unit: rows of a run, then its heads, then the next run. False behind the last. */
static bool next_unit(const struct engine *e, struct unit *u)
{
    const struct model_facts *f = &e->model->facts;
    int group = f->n_heads / f->n_kv_heads;
    u->first_row += u->n_rows;
    if (u->first_row == u->run_end) {
        u->first_head += u->n_heads;
        if (u->first_head == f->n_heads) {
            if (u->run_end == e->n_rows)
                return false;
            u->run = u->run_end;
            u->run_end = run_end(e, u->run);
            u->first_head = 0;
        }
        u->first_row = u->run;
        u->n_heads = min(group - u->first_head % group, ATTENTION_QUERIES);
    }
    u->n_rows = min(u->run_end - u->first_row, ATTENTION_QUERIES / u->n_heads);
    struct attention a = task_of(e, u);
    u->first_chunk = attention_first_chunk(&a);
    u->last_chunk = attention_last_chunk(&a);
    u->begin = u->end;
    u->end = unit_end(e, u);
    return true;
}

static int64_t line_length(const struct engine *e)
{
    struct unit u = no_unit(e);
    while (next_unit(e, &u))
        continue;
    return u.end;
}

/* Where the part of a thread begins. */
static int64_t cut_at(int64_t length, int thread, int n_threads)
{
    return length * thread / n_threads;
}

/* The first chunk of the unit that begins at `at` or behind. */
static int chunk_from(const struct engine *e, const struct unit *u, int64_t at)
{
    int chunk = u->first_chunk;
    while (chunk < u->last_chunk && chunk_begin(e, u, chunk) < at)
        chunk++;
    return chunk;
}

/* The room for the parts of a unit that is cut; every cut has one, and a unit uses that of its first. NULL if
 * the unit is whole. */
static float *room_of(const struct engine *e, const struct unit *u, int64_t length, int n_threads)
{
    int cut = (int)(u->begin * n_threads / length);
    while (cut < n_threads && cut_at(length, cut, n_threads) <= u->begin)
        cut++;
    if (cut == n_threads || chunk_from(e, u, cut_at(length, cut, n_threads)) == u->last_chunk)
        return NULL;
    return e->cut_rooms + (size_t)(cut - 1) * e->cut_room_floats;
}

void attend(void *arg, int thread, int n_threads)
{
    struct engine *e = arg;
    int64_t length = line_length(e);
    int64_t from = cut_at(length, thread, n_threads), to = cut_at(length, thread + 1, n_threads);
    if (thread == 0)
        e->attend_threads = n_threads;
    for (struct unit u = no_unit(e); next_unit(e, &u);) {
        int first = chunk_from(e, &u, from), last = chunk_from(e, &u, to);
        if (first == last)
            continue;
        struct attention a = task_of(e, &u);
        a.scratch = e->attention_scratch + (size_t)thread * e->attention_scratch_bytes;
        if (first == u.first_chunk && last == u.last_chunk)
            attention_compute(&e->kernels, &a);
        else
            attention_compute_chunks(&e->kernels, &a, first, last, room_of(e, &u, length, n_threads));
    }
}

void merge_cut_units(struct engine *e, int first_row, int last_row)
{
    int n_threads = e->attend_threads;
    if (n_threads == 1)
        return;
    int64_t length = line_length(e);
    for (struct unit u = no_unit(e); next_unit(e, &u);) {
        int first = first_row > u.first_row ? first_row - u.first_row : 0;
        int last = min(last_row - u.first_row, u.n_rows);
        float *room = first < last ? room_of(e, &u, length, n_threads) : NULL;
        if (!room)
            continue;
        struct attention a = task_of(e, &u);
        size_t part = attention_partial_floats(a.layout, a.n_rows * a.n_heads);
        attention_merge(&e->kernels, &a, first, last, room, room + part * (size_t)e->max_chunks);
    }
}

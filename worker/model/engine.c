/* The engine's life: check what is asked for, take all memory, start the threads. forward.c does the rest. */
#include "worker/model/engine.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/xalloc.h"
#include "worker/model/engine_state.h"

/* Bounds on options: far above any use, low enough that sizes computed from them fit 64 bits. */
enum {
    MAX_THREADS = 1024,
    MAX_SLOTS = 1 << 16,
    MAX_CONTEXT = 1 << 28,
    MAX_ROWS = 1 << 16,
    MAX_PAGES = 1 << 28
};

static enum status check_options(const struct engine_options *o, struct error *err)
{
    const struct {
        const char *what;
        int value, most;
    } limits[] = {
        { "threads", o->n_threads, MAX_THREADS },
        { "slots", o->n_slots, MAX_SLOTS },
        { "positions per slot", o->n_ctx, MAX_CONTEXT },
        { "rows per step", o->max_rows, MAX_ROWS },
        { "pages", o->n_pages ? o->n_pages : 1, MAX_PAGES },
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].most)
            return error_set(err, E_LIMIT, "%d %s are asked for; the engine takes 1 to %d", limits[i].value,
                             limits[i].what, limits[i].most);
    return OK;
}

/* Rows this far apart would all compete for the same few lines of a cache, when a product writes one group of
 * outputs of every row. */
enum { CACHE_SETS_FLOATS = 512 };

/* Hands out parts of the scratch map, each on a cache line of its own. Without a base it only counts. */
struct carver {
    char *base;
    uint64_t used;
};

static void *carve(struct carver *c, int rows, size_t row_bytes)
{
    void *part = c->base ? c->base + c->used : NULL;
    c->used += ((uint64_t)rows * row_bytes + 63) / 64 * 64;
    return part;
}

static struct row_buffer carve_rows(struct carver *c, int rows, int width)
{
    size_t stride = ((size_t)width + PACK_BLOCK - 1) / PACK_BLOCK * PACK_BLOCK;
    if (stride % CACHE_SETS_FLOATS == 0)
        stride += PACK_BLOCK;
    return (struct row_buffer){ .data = carve(c, rows, stride * sizeof(float)), .stride = stride };
}

static size_t wider(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Returns the width of the widest input of their products. */
static size_t lay_out_experts(struct expert_state *x, struct carver *c, int rows, const struct model_facts *f)
{
    const struct expert_facts *n = &f->experts;
    int pairs = rows * n->n_used;

    x->router = carve_rows(c, rows, n->n);
    x->shared_gate = carve_rows(c, rows, 1);
    x->chosen = carve(c, pairs, sizeof *x->chosen);
    x->share = carve(c, pairs, sizeof *x->share);
    x->pair = carve(c, pairs, sizeof *x->pair);
    x->pair_row = carve(c, pairs, sizeof *x->pair_row);
    x->busy = carve(c, n->n, sizeof *x->busy);
    x->first_pair = carve(c, n->n + 1, sizeof *x->first_pair);
    x->in = carve_rows(c, pairs, f->n_embd);
    x->gate = carve_rows(c, pairs, n->n_ff);
    x->out = carve_rows(c, pairs, f->n_embd);
    return wider(x->in.stride, x->gate.stride);
}

static void lay_out_attention(struct engine *e, struct carver *c)
{
    const struct kv_layout *l = &e->cache.layout;
    int n_threads = e->options.n_threads;
    e->attention_scratch_bytes = (attention_scratch_bytes(l) + 63) / 64 * 64;
    e->max_chunks = (e->options.n_ctx - 1) / ATTENTION_CHUNK + 1;
    e->cut_room_floats = ((size_t)e->max_chunks + 1) * attention_partial_floats(l, ATTENTION_QUERIES);
    e->attention_scratch = carve(c, n_threads, e->attention_scratch_bytes);
    /* Each thread but the first may begin amid a unit of its own, and any of them may see all positions. Only
     * what a step cuts is ever touched. */
    e->cut_rooms = carve(c, n_threads - 1, e->cut_room_floats * sizeof *e->cut_rooms);
}

static uint64_t attention_room(const struct engine *e)
{
    uint64_t threads = (uint64_t)e->options.n_threads;
    return threads * e->attention_scratch_bytes + (threads - 1) * e->cut_room_floats * sizeof *e->cut_rooms;
}

static uint64_t lay_out(struct engine *e, char *base)
{
    const struct model_facts *f = &e->model->facts;
    struct carver c = { .base = base };
    int rows = e->options.max_rows, n_q = f->n_heads * f->head_dim, n_kv = f->n_kv_heads * f->head_dim;
    int n_ff = f->experts.n ? f->experts.n_ff_shared : f->n_ff;

    e->x = carve_rows(&c, rows, f->n_embd);
    e->h = carve_rows(&c, rows, f->n_embd);
    e->q = carve_rows(&c, rows, n_q);
    e->k = carve_rows(&c, rows, n_kv);
    e->v = carve_rows(&c, rows, n_kv);
    e->attended = carve_rows(&c, rows, n_q);
    e->gate = carve_rows(&c, rows, n_ff);
    e->delta = carve_rows(&c, rows, f->n_embd);
    e->cosines = carve_rows(&c, rows, f->rope.n_rot / 2);
    e->sines = carve_rows(&c, rows, f->rope.n_rot / 2);

    lay_out_attention(e, &c);
    size_t narrow = (size_t)rows * 2 * NARROW_INPUT / PACK_K;
    size_t blocks = wider(narrow, (size_t)rows * 2 * (e->x.stride / PACK_K + 1));
    blocks = wider(blocks, (size_t)rows * (wider(e->q.stride, e->gate.stride) / PACK_K + 1));
    if (f->experts.n) {
        size_t widest = lay_out_experts(&e->experts, &c, rows, f),
               pairs = (size_t)rows * (size_t)f->experts.n_used;
        blocks = wider(blocks, pairs * wider(2 * NARROW_INPUT / PACK_K, widest / PACK_K + 1));
    }
    e->blocks = carve(&c, 1, blocks * sizeof *e->blocks);
    e->logits = carve(&c, rows, (size_t)f->n_vocab * sizeof *e->logits);
    e->logit_rows = carve(&c, rows, sizeof *e->logit_rows);
    e->hidden = carve_rows(&c, rows, f->n_embd);
    e->hidden_rows = carve(&c, rows, sizeof *e->hidden_rows);
    return c.used;
}

static enum status refuse_scratch(const struct engine *e, uint64_t bytes, uint64_t memory, struct error *err)
{
    unsigned long long mb = bytes >> 20, memory_mb = memory >> 20;
    if (attention_room(e) > bytes / 2)
        return error_set(
            err, E_LIMIT,
            "%d threads that share the attention of %d positions per slot take %llu MB of scratch "
            "memory, but this machine has %llu MB",
            e->options.n_threads, e->options.n_ctx, mb, memory_mb);
    return error_set(err, E_LIMIT,
                     "%d rows per step take %llu MB of scratch memory, but this machine has %llu MB",
                     e->options.max_rows, mb, memory_mb);
}

/* Pages come when touched: rows and logits a program never uses cost nothing. */
static enum status map_scratch(struct engine *e, struct error *err)
{
    uint64_t bytes = lay_out(e, NULL);
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (bytes > memory)
        return refuse_scratch(e, bytes, memory, err);
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return error_set(err, E_NOMEM, "cannot map %llu MB of scratch memory for %d rows per step",
                         (unsigned long long)(bytes >> 20), e->options.max_rows);
    e->scratch = map;
    e->scratch_bytes = bytes;
    lay_out(e, e->scratch);
    return OK;
}

/* Where YaRN's ramp between scaled and unscaled frequencies has an end: the pair that turns `turns` times
 * within the context the model was first trained for. */
static double yarn_pair(const struct rope_facts *r, double turns)
{
    return r->n_rot * log(r->original_context / (turns * 2 * M_PI)) / (2 * log(r->base));
}

/* Frequencies as trained count for pairs that turn often, frequencies divided by the factor for those that
 * turn seldom, a mixture in between (Peng et al., 2023). */
static double yarn_frequency(const struct rope_facts *r, int pair, double trained)
{
    double low = fmax(floor(yarn_pair(r, r->yarn_beta_fast)), 0);
    double high = fmin(ceil(yarn_pair(r, r->yarn_beta_slow)), r->n_rot - 1);
    double ramp = fmin(fmax((pair - low) / fmax(high - low, 0.001), 0), 1);
    double mix = (1 - ramp) * r->yarn_extrapolation;
    return trained * mix + trained / r->factor * (1 - mix);
}

static void set_frequencies(struct engine *e)
{
    const struct model *m = e->model;
    const struct rope_facts *r = &m->facts.rope;
    bool is_long = m->rope_factors_long && e->options.n_ctx > r->original_context;
    const float *factors = is_long ? m->rope_factors_long : m->rope_factors;
    e->frequencies = xcalloc((size_t)r->n_rot / 2 + 1, sizeof *e->frequencies);
    for (int i = 0; i < r->n_rot / 2; i++) {
        double trained = pow(r->base, -2.0 * i / r->n_rot);
        if (factors)
            trained /= (double)factors[i];
        e->frequencies[i] = r->scaling == ROPE_YARN ? yarn_frequency(r, i, trained) : trained / r->factor;
    }
}

enum status engine_create(struct engine **out, const struct model *m, const struct engine_options *o,
                          struct error *err)
{
    const struct model_facts *f = &m->facts;
    const struct kv_shape cache = { .type = o->kv_type,
                                    .head_dim = f->head_dim,
                                    .n_layers = f->n_layers,
                                    .n_kv_heads = f->n_kv_heads,
                                    .n_slots = o->n_slots,
                                    .n_ctx = o->n_ctx,
                                    .n_pages = o->n_pages };
    struct engine *e;
    enum isa isa;
    char problem[120];
    enum status s;

    *out = NULL;
    if ((s = check_options(o, err)) != OK)
        return s;
    if (f->n_positions && o->n_ctx > f->n_positions)
        return error_set(err, E_LIMIT, "%d positions per slot are asked for; the model has learned %d",
                         o->n_ctx, f->n_positions);
    if (!isa_choose(&isa, problem, sizeof problem))
        return error_set(err, E_INVALID, "%s", problem);
    e = xcalloc(1, sizeof *e);
    e->model = m;
    e->options = *o;
    kernels_init(&e->kernels, isa);
    if ((s = kv_cache_init(&e->cache, &cache, err)) != OK || (s = map_scratch(e, err)) != OK ||
        (s = pool_create(&e->pool, o->n_threads, err)) != OK) {
        engine_destroy(e);
        return s;
    }
    e->options.n_pages = e->cache.shape.n_pages;
    set_frequencies(e);
    *out = e;
    return OK;
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    pool_destroy(e->pool);
    if (e->scratch)
        munmap(e->scratch, e->scratch_bytes);
    kv_cache_fini(&e->cache);
    free(e->frequencies);
    free(e);
}

void engine_step(struct engine *e, const struct row *rows, int n)
{
    assert(n >= 1 && n <= e->options.max_rows);
    e->rows = rows;
    e->n_rows = n;
    e->n_logits = 0;
    e->n_hidden = 0;
    for (int i = 0; i < n; i++) {
        assert(rows[i].token >= 0 && rows[i].token < e->model->facts.n_vocab);
        assert(rows[i].slot >= 0 && rows[i].slot < e->options.n_slots);
        assert(rows[i].pos >= 0 && rows[i].pos < e->options.n_ctx);
        bool is_writable = kv_cache_reserve(&e->cache, rows[i].slot, rows[i].pos, rows[i].pos + 1);
        assert(is_writable);
        (void)is_writable;
        if (rows[i].want_logits)
            e->logit_rows[e->n_logits++] = i;
        if (rows[i].want_hidden)
            e->hidden_rows[e->n_hidden++] = i;
    }
    forward(e);
    e->rows = NULL;
}

const float *engine_logits(const struct engine *e, int i)
{
    assert(i >= 0 && i < e->n_logits);
    return e->logits + (size_t)i * (size_t)e->model->facts.n_vocab;
}

const float *engine_hidden(const struct engine *e, int i)
{
    assert(i >= 0 && i < e->n_hidden);
    return e->hidden.data + (size_t)i * e->hidden.stride;
}

const struct engine_options *engine_options(const struct engine *e)
{
    return &e->options;
}

int engine_n_embd(const struct engine *e)
{
    return e->model->facts.n_embd;
}

struct kv_cache *engine_cache(struct engine *e)
{
    return &e->cache;
}

uint64_t engine_kv_bytes(const struct engine *e)
{
    return e->cache.bytes;
}

/* n_ctx may have decided which frequencies are used. */
uint64_t engine_fingerprint(const struct engine *e)
{
    size_t bytes = (size_t)e->model->facts.rope.n_rot / 2 * sizeof *e->frequencies;
    return checksum_add(model_fingerprint(e->model), checksum_bytes(e->frequencies, bytes));
}

const char *engine_isa(const struct engine *e)
{
    return isa_name(e->kernels.isa);
}

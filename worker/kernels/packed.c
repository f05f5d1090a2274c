/* Packed products: weights are walked once, front to back; each super-block meets all rows of activations,
 * cut into near-equal tiles, before the next one is touched. */
#include <assert.h>
#include <string.h>

#include "worker/kernels/packed_level.h"

/* Rows whose totals are kept at a time: 64 KB of stack. */
enum { MAX_CHUNK = 512 };

/* From this many rows on it pays to multiply the scales with every level beforehand. */
enum { LEVELLED_FROM = 48 };

/* How far ahead of the super-block at hand memory is asked for. Little bursts all the way keep memory busy
 * while a tile computes: with one row of Q4_K and one thread on Zen 5, two a block give 37 GB/s, one for two
 * blocks 30, none 24; a plain read 40. */
enum { PREFETCH_AHEAD = 8192 };

/* Up to this many rows tiles unpack quants by themselves; with more it pays to expand them once for all. */
enum { UNPACKED_UP_TO = 12 };

static enum tile_kind tile_kind(enum scale_kind kind)
{
    switch (kind) {
    case SCALES_HALF_MIN:
        return PER_32_FLOATS;
    case SCALES_SIX_MIN:
        return PER_32_PAIRS;
    case SCALES_SIX_16:
    case SCALES_BYTE_16:
        return PER_16;
    case SCALES_NIBBLE_MIN:
        return PER_16_PAIRS;
    default:
        return PER_32;
    }
}

/* n rows in as few tiles as can be, as equal as can be: the first `n_larger` have one row more. */
struct tile_walk {
    int n_tiles, rows, n_larger;
};

static struct tile_walk walk_tiles(int n, int max)
{
    int n_tiles = (n + max - 1) / max;
    return (struct tile_walk){ n_tiles, n / n_tiles, n % n_tiles };
}

static int tile_rows(const struct tile_walk *w, int tile)
{
    return w->rows + (tile < w->n_larger);
}

/* How one product with quantised weights goes about it: the same for all its groups. */
struct plan {
    const struct packed_level *level;
    const struct pack_format *format;
    struct tile_walk walk; /* over the rows of activations */
    bool is_levelled, is_expanded;
    packed_tile *const *tiles; /* [rows - 1] */
};

static struct plan make_plan(const struct packed_level *level, const struct pack_format *f, int n)
{
    enum tile_kind kind = tile_kind(f->scales);
    struct plan p = { .level = level, .format = f, .walk = walk_tiles(n, level->max_tile) };
    assert(kind == PER_32 || kind == PER_16 || f->offset == 0);
    p.is_levelled = n >= LEVELLED_FROM;
    p.is_expanded = f->lines != LINES_8 && (n > UNPACKED_UP_TO || !level->tiles[f->lines][kind][0]);
    p.tiles =
        p.is_levelled ? level->levelled_tiles[kind] : level->tiles[p.is_expanded ? LINES_8 : f->lines][kind];
    return p;
}

/* What super-blocks of one length have in common: all of a row but perhaps the last. */
struct block_plan {
    int blocks, n_prefetch;
    size_t bytes, scales_bytes;
};

static struct block_plan plan_blocks(const struct plan *p, int blocks)
{
    size_t bytes = super_block_size(p->format, blocks);
    return (struct block_plan){ blocks, (int)(bytes / LINE) / (2 * blocks * p->walk.n_tiles) + 1, bytes,
                                scales_size(p->format->scales, blocks) };
}

static void multiply_super_block(const struct plan *p, const struct block_plan *b, struct expanded *e,
                                 const uint8_t *weights, const struct activation_block *rows,
                                 float (*totals)[PACK_ROWS])
{
    struct tile_facts facts = {
        .lines = weights + b->scales_bytes,
        .kind = p->format->lines,
        .table = p->format->table,
        .blocks = b->blocks,
        .offset = p->format->offset,
        .n_prefetch = b->n_prefetch,
        .prefetch = weights + PREFETCH_AHEAD,
    };
    p->level->expand_scales(e, p->format->scales, b->blocks, weights);
    if (p->is_expanded) {
        p->level->expand_lines(e, p->format, b->blocks, facts.lines);
        facts.lines = e->buffer[0];
    }
    if (p->is_levelled)
        p->level->expand_levels(e, has_scales_per_16(p->format->scales) ? 2 * b->blocks : b->blocks);
    for (int t = 0, row = 0; t < p->walk.n_tiles; row += tile_rows(&p->walk, t++)) {
        p->tiles[tile_rows(&p->walk, t) - 1](totals + row, e, &facts, rows + row);
        facts.prefetch += 2 * b->n_prefetch * b->blocks * LINE;
        if (facts.prefetch >= weights + b->bytes + PREFETCH_AHEAD)
            facts.n_prefetch = 0;
    }
}

/* The rows of activations from r on times one group of weights. */
static void multiply_group(const struct plan *p, const uint8_t *group, const struct activations *a, int r,
                           float (*totals)[PACK_ROWS])
{
    struct expanded e;
    int whole = a->n / PACK_K, rest = blocks_in(a->n, whole);
    struct block_plan b = plan_blocks(p, PACK_BLOCKS);
    const struct activation_block *rows = a->blocks + r;
    for (int s = 0; s < whole; s++, group += b.bytes, rows += a->block_stride)
        multiply_super_block(p, &b, &e, group, rows, totals);
    if (rest) {
        b = plan_blocks(p, rest);
        multiply_super_block(p, &b, &e, group, rows, totals);
    }
}

static void multiply_float_group(const struct packed_level *level, enum weight_type type, const char *group,
                                 const struct activations *a, int r, int n, float (*totals)[PACK_ROWS])
{
    size_t element = type == WEIGHT_F32 ? 4 : 2;
    packed_float_tile *const *tiles = type == WEIGHT_F32   ? level->f32_tiles
                                      : type == WEIGHT_F16 ? level->f16_tiles
                                                           : level->bf16_tiles;
    for (int k = 0; k < a->n; k += PACK_K) {
        int part = a->n - k < PACK_K ? a->n - k : PACK_K;
        const float *x = a->x + (size_t)r * a->stride + k;
        struct tile_walk walk = walk_tiles(n, level->max_tile);
        for (int t = 0, row = 0; t < walk.n_tiles; row += tile_rows(&walk, t++))
            tiles[tile_rows(&walk, t) - 1](totals + row, group, part, x + (size_t)row * a->stride, a->stride);
        group += (size_t)part * PACK_ROWS * element;
    }
}

static void add_planes(float (*totals)[PACK_ROWS], int n)
{
    for (int row = 0; row < n; row++)
        for (int i = 0; i < PACK_ROWS; i++)
            totals[row][i] = totals[2 * row][i] + totals[2 * row + 1][i];
}

void packed_multiply_to(packed_sink *sink, void *arg, const struct packed_level *level, enum weight_type type,
                        const void *packed, int first, int last, const struct activations *a)
{
    const struct pack_format *f = pack_format(type);
    size_t group_bytes = packed_group_size(type, a->n);
    int planes = f->lines == LINES_FLOAT ? 1 : a->planes, chunk = MAX_CHUNK / planes;
    float totals[MAX_CHUNK][PACK_ROWS] __attribute__((aligned(64)));

    for (int r = 0; r < a->n_rows; r += chunk) {
        int n = a->n_rows - r < chunk ? a->n_rows - r : chunk;
        struct plan plan = make_plan(level, f, n * planes);
        for (int i = first; i < last; i += PACK_ROWS) {
            const uint8_t *group = (const uint8_t *)packed + (size_t)(i / PACK_ROWS) * group_bytes;
            memset(totals, 0, (size_t)(n * planes) * sizeof *totals);
            if (f->lines == LINES_FLOAT)
                multiply_float_group(level, type, (const char *)group, a, r, n, totals);
            else
                multiply_group(&plan, group, a, r * planes, totals);
            if (planes == 2)
                add_planes(totals, n);
            sink(arg, totals, r, n, i, last - i < PACK_ROWS ? last - i : PACK_ROWS);
        }
    }
}

struct store {
    float *out;
    size_t stride;
};

static void store(void *arg, float (*values)[PACK_ROWS], int first_row, int n_rows, int i, int width)
{
    const struct store *to = arg;
    float *out = to->out + (size_t)first_row * to->stride + i;
    for (int r = 0; r < n_rows; r++, out += to->stride)
        if (width == PACK_ROWS)
            memcpy(out, values[r], sizeof values[r]);
        else
            memcpy(out, values[r], (size_t)width * sizeof *out);
}

void packed_multiply(const struct packed_level *level, enum weight_type type, float *out, size_t out_stride,
                     const void *packed, int first, int last, const struct activations *a)
{
    struct store to = { out, out_stride };
    packed_multiply_to(store, &to, level, type, packed, first, last, a);
}

void packed_quantise(const struct packed_level *level, struct activation_block *out, size_t stride,
                     int planes, const float *x, int n)
{
    level->quantise(out, stride, planes, x, n);
}

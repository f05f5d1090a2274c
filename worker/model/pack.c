/* The weights of a model as the products want them: every matrix packed into one map, which then becomes
 * read-only and is shared by all processes forked afterwards. The file's pages are given back as they are
 * used up, so the weights are in memory once. With a cache (pack_cache.h) the map is that of a file. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/xalloc.h"
#include "worker/kernels/packed.h"
#include "worker/model/pack_cache.h"
#include "worker/model/pool.h"
#include "worker/model/read_ahead.h"
#include "worker/model/reader.h"

enum { HUGE_PAGE = 2 << 20, MATRIX_ALIGN = 64 };

typedef void matrix_fn(struct matrix *m, void *arg);

static void each_of_ffn(struct ffn *f, matrix_fn *run, void *arg)
{
    run(&f->gate, arg);
    run(&f->up, arg);
    run(&f->down, arg);
}

/* In the order the forward pass reads them. */
static void each_matrix(struct model *m, matrix_fn *run, void *arg)
{
    for (int i = 0; i < m->facts.n_layers; i++) {
        struct layer *l = &m->layers[i];
        run(&l->q, arg);
        run(&l->k, arg);
        run(&l->v, arg);
        run(&l->attention_out, arg);
        each_of_ffn(&l->ffn, run, arg);
        run(&l->router, arg);
        for (int x = 0; l->experts && x < m->facts.experts.n; x++)
            each_of_ffn(&l->experts[x], run, arg);
        each_of_ffn(&l->shared, run, arg);
        run(&l->shared_gate, arg);
    }
    run(&m->output, arg);
}

/* Those that there are, in that order. */
struct matrices {
    struct matrix **all;
    size_t n, room;
};

static void take(struct matrix *m, void *arg)
{
    struct matrices *list = arg;
    if (!m->data)
        return;
    if (list->n == list->room) {
        list->room = list->room ? 2 * list->room : 256;
        list->all = xrealloc(list->all, list->room * sizeof *list->all);
    }
    list->all[list->n++] = m;
}

static uint64_t padded_size(const struct matrix *m)
{
    uint64_t bytes = packed_size(m->type, m->n_out, m->n_in);
    return (bytes + MATRIX_ALIGN - 1) / MATRIX_ALIGN * MATRIX_ALIGN;
}

static uint64_t total_size(const struct matrices *list)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < list->n; i++)
        bytes += padded_size(list->all[i]);
    return bytes;
}

/* A checksum of what is packed and in which order: type, shape and place in the source of every matrix. */
static uint64_t sum_shapes(const struct matrices *list, const struct gguf *g)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < list->n; i++) {
        const struct matrix *m = list->all[i];
        sum = checksum_add(sum, m->type);
        sum = checksum_add(sum, (uint64_t)m->n_in << 32 | (uint32_t)m->n_out);
        for (int part = 0; part < gguf_n_parts(g); part++) {
            struct gguf_origin o = gguf_origin(g, part);
            uintptr_t at = (uintptr_t)m->data - (uintptr_t)o.bytes;
            if (at < o.file_bytes)
                sum = checksum_add(checksum_add(sum, (uint64_t)part), at);
        }
    }
    return sum;
}

/* Packing, the matrix the pool is at. */
struct packing {
    const struct matrix *matrix;
    char *packed;
    uint64_t place; /* a number for the matrix */
    bool is_summed;
    uint64_t checksum; /* of everything packed so far, as it lies in the source */
};

/* Whole pages of the file between two places of it will not be read again soon. */
static void give_back(const char *from, const char *to)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)from + page - 1) / page * page, last = (uintptr_t)to / page * page;
    if (first < last)
        madvise((void *)first, last - first, MADV_DONTNEED);
}

/* Where the file has the matrix. */
static struct file_part source_of(const struct matrix *m, const struct gguf *g)
{
    struct file_part source = { .fd = -1,
                                .bytes = weight_row_bytes(m->type, (uint64_t)m->n_in) * (uint64_t)m->n_out };
    for (int part = 0; part < gguf_n_parts(g); part++) {
        struct gguf_origin o = gguf_origin(g, part);
        uintptr_t at = (uintptr_t)m->data - (uintptr_t)o.bytes;
        if (at < o.file_bytes) {
            source.fd = o.fd;
            source.offset = at;
        }
    }
    return source;
}

static void pack_share(void *arg, int thread, int n_threads)
{
    struct packing *p = arg;
    const struct matrix *m = p->matrix;
    uint64_t row_bytes = weight_row_bytes(m->type, (uint64_t)m->n_in), checksum = 0;
    const char *rows = m->data;
    int64_t first, last;
    pool_share(m->n_out, PACK_ROWS, thread, n_threads, &first, &last);
    for (int64_t row = first, end; row < last; row = end) {
        end = row + PACK_ROWS < last ? row + PACK_ROWS : last;
        pack_rows(p->packed, m->type, rows, m->n_in, (int)row, (int)end);
        /* While these rows are in the processor's cache. */
        if (p->is_summed)
            checksum += checksum_piece(p->place + (uint64_t)row, rows + (uint64_t)row * row_bytes,
                                       (size_t)(end - row) * row_bytes);
    }
    __atomic_fetch_add(&p->checksum, checksum, __ATOMIC_RELAXED);
    if (first < last)
        give_back(rows + (uint64_t)first * row_bytes, rows + (uint64_t)last * row_bytes);
}

static enum status map_memory(struct packed_map *out, uint64_t bytes, const char *path, struct error *err)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    bytes += HUGE_PAGE; /* so that the weights can begin at a border of huge pages */
    if (bytes > memory)
        return error_set(err, E_LIMIT, "%s: the weights take %llu MB, but this machine has %llu MB", path,
                         (unsigned long long)(bytes >> 20), (unsigned long long)(memory >> 20));
    out->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (out->map == MAP_FAILED) {
        out->map = NULL;
        return error_set(err, E_NOMEM, "%s: cannot map %llu MB for the weights", path,
                         (unsigned long long)(bytes >> 20));
    }
    out->map_bytes = bytes;
    return OK;
}

static void pack_all(struct packing *p, const struct matrices *list, const struct gguf *g, struct pool *pool,
                     const struct model_options *options)
{
    uint64_t done = 0, total = total_size(list);
    char *packed = p->packed;
    struct file_part *parts = xcalloc(list->n, sizeof *parts);
    for (size_t i = 0; i < list->n; i++)
        parts[i] = source_of(list->all[i], g);
    struct read_ahead *ahead = total > HUGE_PAGE ? read_ahead_begin(parts, list->n) : NULL;
    model_progress_report(options, "packing weights", 0, total);
    for (size_t i = 0; i < list->n; i++) {
        p->matrix = list->all[i];
        p->packed = packed + done;
        p->place = (uint64_t)i << 32;
        pool_run(pool, pack_share, p);
        read_ahead_used(ahead, i + 1);
        done += padded_size(p->matrix);
        model_progress_report(options, "packing weights", done, total);
    }
    read_ahead_end(ahead);
    free(parts);
}

static void place_all(const struct matrices *list, const char *packed)
{
    for (size_t i = 0; i < list->n; i++) {
        list->all[i]->packed = packed;
        packed += padded_size(list->all[i]);
    }
}

/* Packs the weights into memory; they begin at *first. */
static enum status pack_into_memory(struct reader *r, const struct matrices *list, struct pool *pool,
                                    struct pack_cache *cache, const char **first)
{
    struct packed_map *out = &r->m->packed;
    struct packing p = { .is_summed = cache != NULL };
    uint64_t bytes = total_size(list);
    enum status s = map_memory(out, bytes, r->path, r->err);
    if (s != OK)
        return s;
    *first = p.packed = (char *)(((uintptr_t)out->map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(p.packed, bytes, MADV_HUGEPAGE);
    pack_all(&p, list, r->m->gguf, pool, r->options);
    mprotect(out->map, out->map_bytes, PROT_READ);
    if (cache)
        pack_cache_take(cache, *first, p.checksum);
    return OK;
}

static enum status load_packed(struct reader *r, const struct matrices *list, struct pool *pool)
{
    struct pack_cache *cache = NULL;
    const char *first = NULL;
    enum status s = OK;
    bool is_mapped = false;

    if (r->options->cache_folder) {
        cache = pack_cache_create(r, sum_shapes(list, r->m->gguf), total_size(list));
        is_mapped = pack_cache_map(cache, pool, r->options, &r->m->packed, &first);
    }
    if (!is_mapped)
        s = pack_into_memory(r, list, pool, cache, &first);
    if (s == OK)
        place_all(list, first);
    if (s == OK && !is_mapped)
        r->m->unwritten = cache;
    else
        pack_cache_destroy(cache);
    return s;
}

enum status pack_weights(struct reader *r)
{
    struct matrices list = { 0 };
    struct pool *pool;

    each_matrix(r->m, take, &list);
    int n_threads = total_size(&list) > HUGE_PAGE ? (int)sysconf(_SC_NPROCESSORS_ONLN) : 1;
    enum status s = pool_create(&pool, n_threads, r->err);
    if (s == OK) {
        s = load_packed(r, &list, pool);
        pool_destroy(pool);
    }
    free(list.all);
    return s;
}

void free_packed(struct packed_map *p)
{
    if (p->map)
        munmap(p->map, p->map_bytes);
}

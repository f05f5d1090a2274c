/* The weights of a model as the products want them: every matrix packed into one map, which then becomes
 * read-only and is shared by all processes forked afterwards. The file's pages are given back as they are
 * used up, so the weights are in memory once. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/kernels/packed.h"
#include "worker/model/pool.h"
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

static uint64_t padded_size(const struct matrix *m)
{
    uint64_t bytes = m->data ? packed_size(m->type, m->n_out, m->n_in) : 0;
    return (bytes + MATRIX_ALIGN - 1) / MATRIX_ALIGN * MATRIX_ALIGN;
}

static void add_size(struct matrix *m, void *arg)
{
    *(uint64_t *)arg += padded_size(m);
}

/* The matrix the pool is at. */
struct packing {
    struct pool *pool;
    char *next;
    struct matrix *matrix;
};

/* Whole pages of the file between two places of it will not be read again soon. */
static void give_back(const char *from, const char *to)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)from + page - 1) / page * page, last = (uintptr_t)to / page * page;
    if (first < last)
        madvise((void *)first, last - first, MADV_DONTNEED);
}

static void pack_share(void *arg, int thread, int n_threads)
{
    struct packing *p = arg;
    const struct matrix *m = p->matrix;
    uint64_t row_bytes = weight_row_bytes(m->type, (uint64_t)m->n_in);
    int64_t first, last;
    pool_share(m->n_out, PACK_ROWS, thread, n_threads, &first, &last);
    if (first >= last)
        return;
    pack_rows(p->next, m->type, m->data, m->n_in, (int)first, (int)last);
    give_back((const char *)m->data + (uint64_t)first * row_bytes,
              (const char *)m->data + (uint64_t)last * row_bytes);
}

static void pack_one(struct matrix *m, void *arg)
{
    struct packing *p = arg;
    if (!m->data)
        return;
    p->matrix = m;
    pool_run(p->pool, pack_share, p);
    m->packed = p->next;
    p->next += padded_size(m);
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

enum status pack_weights(struct reader *r)
{
    struct model *m = r->m;
    struct packing p = { 0 };
    uint64_t bytes = 0;
    enum status s;

    each_matrix(m, add_size, &bytes);
    if ((s = map_memory(&m->packed, bytes, r->path, r->err)) != OK ||
        (s = pool_create(&p.pool, bytes > HUGE_PAGE ? (int)sysconf(_SC_NPROCESSORS_ONLN) : 1, r->err)) != OK)
        return s;
    p.next = (char *)(((uintptr_t)m->packed.map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(p.next, bytes, MADV_HUGEPAGE);
    each_matrix(m, pack_one, &p);
    pool_destroy(p.pool);
    mprotect(m->packed.map, m->packed.map_bytes, PROT_READ);
    return OK;
}

void free_packed(struct packed_map *p)
{
    if (p->map)
        munmap(p->map, p->map_bytes);
}

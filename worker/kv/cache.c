#include "worker/kv/cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/keyed_hash.h"
#include "common/xalloc.h"
#include "worker/kv/page.h"

/* Page numbers are int32_t, and the index has twice as many buckets. */
enum { MOST_PAGES = 1 << 29 };

/* --- life --- */

/* *c has its shape. Sizes are computed in 128 bits, so that no product of the shape's numbers is too large.
 */
static enum status check_sizes(struct kv_cache *c, struct error *err)
{
    const struct kv_shape *s = &c->shape;
    unsigned __int128 page_bytes =
        (unsigned __int128)c->layout.bytes * (unsigned)s->n_layers * (unsigned)s->n_kv_heads;
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t full = (uint64_t)s->n_slots * (uint64_t)c->pages_per_slot;
    uint64_t n_pages = s->n_pages ? (uint64_t)s->n_pages : full;
    unsigned __int128 tables = (unsigned __int128)full * sizeof *c->table + (unsigned __int128)n_pages * 512;

    if (n_pages < (uint64_t)c->pages_per_slot)
        return error_set(err, E_LIMIT,
                         "the KV cache of %d pages holds %llu positions, but one sequence may have %d; use "
                         "at least %d pages or a shorter context",
                         s->n_pages, (unsigned long long)s->n_pages * KV_BLOCK, s->n_ctx, c->pages_per_slot);
    if (page_bytes * n_pages + tables > memory || n_pages > MOST_PAGES) {
        unsigned __int128 mb = (page_bytes * n_pages + tables) >> 20;
        return error_set(
            err, E_LIMIT,
            "the KV cache of %llu pages for %d sequences of up to %d positions takes %llu MB, but "
            "this machine has %llu MB of memory; use fewer pages, fewer sequences or a shorter "
            "context",
            (unsigned long long)n_pages, s->n_slots, s->n_ctx,
            mb > UINT64_MAX ? (unsigned long long)UINT64_MAX : (unsigned long long)mb,
            (unsigned long long)(memory >> 20));
    }
    c->shape.n_pages = (int)n_pages;
    c->page_bytes = (size_t)page_bytes;
    c->bytes = (uint64_t)page_bytes * n_pages;
    return OK;
}

/* calloc and not xcalloc: there may be millions of pages, whose entries cost nothing before they are used. */
static enum status make_tables(struct kv_cache *c, struct error *err)
{
    size_t n_pages = (size_t)c->shape.n_pages, n_slots = (size_t)c->shape.n_slots;
    c->n_buckets = 1;
    while (c->n_buckets < 2 * n_pages)
        c->n_buckets *= 2;
    c->table = calloc(n_slots * (size_t)c->pages_per_slot, sizeof *c->table);
    c->slot_pages = calloc(n_slots, sizeof *c->slot_pages);
    c->pages = calloc(n_pages, sizeof *c->pages);
    c->free_pages = calloc(n_pages, sizeof *c->free_pages);
    c->buckets = calloc(c->n_buckets, sizeof *c->buckets);
    c->ghosts = calloc(c->n_buckets, sizeof *c->ghosts);
    if (!c->table || !c->slot_pages || !c->pages || !c->free_pages || !c->buckets || !c->ghosts)
        return error_set(err, E_NOMEM, "there is no memory for the tables of a KV cache of %d pages",
                         c->shape.n_pages);
    for (int i = 0; i < c->shape.n_pages; i++)
        c->free_pages[i] = c->shape.n_pages - 1 - i;
    memset(c->buckets, 0xff, c->n_buckets * sizeof *c->buckets);
    c->hash_point = keyed_hash_point();
    c->first_cached = c->last_cached = -1;
    c->counts.total = c->counts.free = c->shape.n_pages;
    return OK;
}

enum status kv_cache_init(struct kv_cache *c, const struct kv_shape *shape, struct error *err)
{
    enum status s;

    *c = (struct kv_cache){ .layout = kv_layout(shape->type, shape->head_dim), .shape = *shape };
    c->pages_per_slot = shape->n_ctx / KV_BLOCK + (shape->n_ctx % KV_BLOCK > 0);
    if ((s = check_sizes(c, err)) != OK || (s = make_tables(c, err)) != OK)
        goto fail;
    void *map =
        mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        s = error_set(err, E_NOMEM, "cannot map %llu MB for the KV cache of %d pages",
                      (unsigned long long)(c->bytes >> 20), c->shape.n_pages);
        goto fail;
    }
    madvise(map, c->bytes, MADV_HUGEPAGE); /* a wish: without, it is only slower */
    c->memory = map;
    return OK;

fail:
    kv_cache_fini(c);
    return s;
}

void kv_cache_fini(struct kv_cache *c)
{
    if (c->memory)
        munmap(c->memory, c->bytes);
    free(c->table);
    free(c->slot_pages);
    free(c->pages);
    free(c->free_pages);
    free(c->buckets);
    free(c->ghosts);
    *c = (struct kv_cache){ 0 };
}

/* --- slots --- */

static int pages_for(int n_positions)
{
    return n_positions / KV_BLOCK + (n_positions % KV_BLOCK > 0);
}

static int32_t *slot_table(const struct kv_cache *c, int slot)
{
    assert(slot >= 0 && slot < c->shape.n_slots);
    return c->table + (size_t)slot * (size_t)c->pages_per_slot;
}

int kv_cache_available(const struct kv_cache *c)
{
    return c->counts.free + c->counts.cached;
}

static bool is_writable(const struct kv_cache *c, int32_t page)
{
    return c->pages[page].refs == 1 && !c->pages[page].is_published;
}

static int32_t copy_page(struct kv_cache *c, int32_t page)
{
    int32_t copy = kv_page_take(c);
    memcpy(c->memory + (size_t)copy * c->page_bytes, c->memory + (size_t)page * c->page_bytes, c->page_bytes);
    c->counts.n_copied++;
    return copy;
}

bool kv_cache_reserve(struct kv_cache *c, int slot, int begin, int end)
{
    int32_t *table = slot_table(c, slot), *n = &c->slot_pages[slot];
    int first = begin / KV_BLOCK, last = (end - 1) / KV_BLOCK, n_needed = 0;

    assert(begin >= 0 && begin < end && end <= c->shape.n_ctx && *n >= pages_for(begin));
    for (int i = first; i <= last; i++)
        n_needed += i >= *n || !is_writable(c, table[i]);
    if (n_needed > kv_cache_available(c))
        return false;
    for (int i = last < *n ? last : *n - 1; i >= first; i--) {
        int32_t page = table[i];
        if (is_writable(c, page))
            continue;
        table[i] = copy_page(c, page);
        kv_page_drop(c, page);
    }
    while (*n <= last)
        table[(*n)++] = kv_page_take(c);
    return true;
}

/* Deepest first, as the order of eviction wants it. */
void kv_cache_truncate(struct kv_cache *c, int slot, int n_positions)
{
    const int32_t *table = slot_table(c, slot);
    assert(n_positions >= 0);
    while (c->slot_pages[slot] > pages_for(n_positions))
        kv_page_drop(c, table[--c->slot_pages[slot]]);
}

void kv_cache_share(struct kv_cache *c, int from, int to, int n_positions)
{
    const int32_t *source = slot_table(c, from);
    int32_t *table = slot_table(c, to);
    int n = pages_for(n_positions);

    assert(c->slot_pages[to] == 0 && n_positions >= 0 && n <= c->slot_pages[from]);
    for (int i = 0; i < n; i++) {
        kv_page_hold(c, source[i]);
        table[i] = source[i];
    }
    c->slot_pages[to] = n;
}

int kv_cache_slot_pages(const struct kv_cache *c, int slot)
{
    assert(slot >= 0 && slot < c->shape.n_slots);
    return c->slot_pages[slot];
}

struct kv_counts kv_cache_counts(const struct kv_cache *c)
{
    return c->counts;
}

char *kv_cache_blocks(const struct kv_cache *c, int layer, int kv_head)
{
    size_t index = (size_t)layer * (size_t)c->shape.n_kv_heads + (size_t)kv_head;
    return c->memory + index * c->layout.bytes;
}

const int32_t *kv_cache_table(const struct kv_cache *c, int slot)
{
    return slot_table(c, slot);
}

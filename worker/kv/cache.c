#include "worker/kv/cache.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/xalloc.h"

static void list_pages(struct kv_cache *c)
{
    size_t n = (size_t)c->n_slots * (size_t)c->pages_per_slot;
    c->table = xcalloc(n, sizeof *c->table);
    c->free_pages = xcalloc(n, sizeof *c->free_pages);
    memset(c->table, 0xff, n * sizeof *c->table);
    for (size_t i = 0; i < n; i++)
        c->free_pages[c->n_free++] = (int32_t)(n - 1 - i);
}

enum status kv_cache_init(struct kv_cache *c, enum kv_type type, int n_layers, int n_slots, int n_kv_heads,
                          int n_ctx, int head_dim, struct error *err)
{
    struct kv_layout layout = kv_layout(type, head_dim);
    int pages_per_slot = n_ctx / KV_BLOCK + (n_ctx % KV_BLOCK > 0);
    const int counts[] = { n_layers, n_kv_heads, n_slots, pages_per_slot };
    uint64_t bytes = layout.bytes, page_bytes = 0, memory;
    bool fits = true;

    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        fits = fits && !__builtin_mul_overflow(bytes, (uint64_t)counts[i], &bytes);
        page_bytes = i == 1 ? bytes : page_bytes;
    }
    memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (!fits)
        return error_set(err, E_LIMIT,
                         "the KV cache for %d slots of %d positions is beyond any memory; use fewer slots or "
                         "a shorter context",
                         n_slots, n_ctx);
    if (bytes > memory)
        return error_set(err, E_LIMIT,
                         "the KV cache for %d slots of %d positions takes %llu MB, but this machine has "
                         "%llu MB of memory; use fewer slots or a shorter context",
                         n_slots, n_ctx, (unsigned long long)(bytes >> 20),
                         (unsigned long long)(memory >> 20));
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return error_set(err, E_NOMEM, "cannot map %llu MB for the KV cache of %d slots of %d positions",
                         (unsigned long long)(bytes >> 20), n_slots, n_ctx);
    madvise(map, bytes, MADV_HUGEPAGE); /* a wish: without, it is only slower */
    *c = (struct kv_cache){
        .layout = layout,
        .n_layers = n_layers,
        .n_slots = n_slots,
        .n_kv_heads = n_kv_heads,
        .pages_per_slot = pages_per_slot,
        .page_bytes = page_bytes,
        .bytes = bytes,
        .memory = map,
    };
    list_pages(c);
    return OK;
}

void kv_cache_fini(struct kv_cache *c)
{
    if (c->memory)
        munmap(c->memory, c->bytes);
    free(c->table);
    free(c->free_pages);
    memset(c, 0, sizeof *c);
}

static int32_t *slot_table(const struct kv_cache *c, int slot)
{
    return c->table + (size_t)slot * (size_t)c->pages_per_slot;
}

static void clear_slot(struct kv_cache *c, int slot)
{
    int32_t *table = slot_table(c, slot);
    for (int i = 0; i < c->pages_per_slot && table[i] >= 0; i++) {
        c->free_pages[c->n_free++] = table[i];
        table[i] = -1;
    }
}

void kv_cache_place(struct kv_cache *c, int slot, int pos)
{
    int32_t *table = slot_table(c, slot);
    int page = pos / KV_BLOCK;
    if (pos == 0)
        clear_slot(c, slot);
    assert(page == 0 || table[page - 1] >= 0);
    if (table[page] < 0)
        table[page] = c->free_pages[--c->n_free];
}

char *kv_cache_blocks(const struct kv_cache *c, int layer, int kv_head)
{
    size_t index = (size_t)layer * (size_t)c->n_kv_heads + (size_t)kv_head;
    return c->memory + index * c->layout.bytes;
}

const int32_t *kv_cache_table(const struct kv_cache *c, int slot)
{
    return slot_table(c, slot);
}

#include "worker/kv/cache.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t element_bytes(enum kv_type type)
{
    return type == KV_F16 ? 2 : 4;
}

enum status kv_cache_init(struct kv_cache *c, enum kv_type type, int n_layers, int n_slots, int n_kv_heads,
                          int n_ctx, int head_dim, struct error *err)
{
    const int counts[] = { n_layers, n_slots, n_kv_heads, n_ctx, head_dim };
    uint64_t bytes = 2 * element_bytes(type), memory;
    bool fits = true;

    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        fits = fits && !__builtin_mul_overflow(bytes, (uint64_t)counts[i], &bytes);
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
    *c = (struct kv_cache){
        .type = type,
        .n_layers = n_layers,
        .n_slots = n_slots,
        .n_kv_heads = n_kv_heads,
        .n_ctx = n_ctx,
        .head_dim = head_dim,
        .bytes = bytes,
        .memory = map,
    };
    return OK;
}

void kv_cache_fini(struct kv_cache *c)
{
    if (c->memory)
        munmap(c->memory, c->bytes);
    memset(c, 0, sizeof *c);
}

/* part: 0 for keys, 1 for values */
static void *head(const struct kv_cache *c, int layer, int slot, int part, int kv_head)
{
    uint64_t index = (uint64_t)layer * (uint64_t)c->n_slots + (uint64_t)slot;
    index = (index * 2 + (uint64_t)part) * (uint64_t)c->n_kv_heads + (uint64_t)kv_head;
    return c->memory + index * (uint64_t)c->n_ctx * (uint64_t)c->head_dim * element_bytes(c->type);
}

void *kv_cache_keys(const struct kv_cache *c, int layer, int slot, int kv_head)
{
    return head(c, layer, slot, 0, kv_head);
}

void *kv_cache_values(const struct kv_cache *c, int layer, int slot, int kv_head)
{
    return head(c, layer, slot, 1, kv_head);
}

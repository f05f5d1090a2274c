/* The KV cache of one process: the keys and values of every slot, layer and position, as f16 or f32.
 *
 *     [layer][slot][k, v][kv head][position][head_dim]
 *
 * so that attention reads one head's keys, then its values, as two straight streams. The memory is mapped at
 * creation and costs nothing before it is touched. Owned by the engine; writers of different (layer, slot,
 * position, head) need no lock. */
#ifndef WOOLLY_KV_CACHE_H
#define WOOLLY_KV_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum kv_type { KV_F16, KV_F32 };

struct kv_cache {
    enum kv_type type;
    int n_layers, n_slots, n_kv_heads, n_ctx, head_dim;
    uint64_t bytes; /* when full */
    char *memory;
};

/* All counts are at least 1. E_LIMIT when the cache is larger than the machine's memory. On failure *c is
 * empty. */
MUST_CHECK enum status kv_cache_init(struct kv_cache *c, enum kv_type type, int n_layers, int n_slots,
                                     int n_kv_heads, int n_ctx, int head_dim, struct error *err);
void kv_cache_fini(struct kv_cache *c);

/* The first position of a head: keys and values of consecutive positions are head_dim elements apart. */
void *kv_cache_keys(const struct kv_cache *c, int layer, int slot, int kv_head);
void *kv_cache_values(const struct kv_cache *c, int layer, int slot, int kv_head);

#endif

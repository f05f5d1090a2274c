/* The KV cache of one process, in pages. A page is what one sequence has in KV_BLOCK consecutive positions,
 * in all layers and KV heads:
 *
 *     [layer][KV head] blocks, whose inside is the business of worker/kernels/attention.h
 *
 * so that a page can belong to any slot and the blocks of a layer lie together. A slot has a table of its
 * pages; pages are handed out as positions come and go back when the slot begins a new sequence. The last one
 * given back is handed out first: its memory is there already.
 *
 * The memory is mapped at creation and costs nothing before it is touched. Owned by the engine, whose thread
 * hands pages out; writers of different (layer, slot, position, head) need no lock. */
#ifndef WOOLLY_KV_CACHE_H
#define WOOLLY_KV_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/kernels/attention.h"

struct kv_cache {
    struct kv_layout layout; /* of a block */
    int n_layers, n_slots, n_kv_heads;
    int pages_per_slot;
    size_t page_bytes;
    uint64_t bytes; /* when full */
    char *memory;
    int32_t *table;      /* [n_slots][pages_per_slot] pages; -1 where the slot has none */
    int32_t *free_pages; /* [n_free], the last is next */
    int n_free;
};

/* All counts are at least 1. E_LIMIT when the cache is larger than the machine's memory. On failure *c is
 * empty. */
MUST_CHECK enum status kv_cache_init(struct kv_cache *c, enum kv_type type, int n_layers, int n_slots,
                                     int n_kv_heads, int n_ctx, int head_dim, struct error *err);
void kv_cache_fini(struct kv_cache *c);

/* Makes room for a position of a slot, whose positions before have room. Position 0 begins a new sequence. */
void kv_cache_place(struct kv_cache *c, int slot, int pos);

/* Block i of the slot is at kv_cache_blocks + table[i] * page_bytes. */
char *kv_cache_blocks(const struct kv_cache *c, int layer, int kv_head);
const int32_t *kv_cache_table(const struct kv_cache *c, int slot);

#endif

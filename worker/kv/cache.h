/* The KV cache of one process, in pages. A page is what a sequence has in KV_BLOCK consecutive positions, in
 * all layers and KV heads:
 *
 *     [layer][KV head] blocks, whose inside is the business of worker/kernels/attention.h
 *
 * so that a page can belong to any sequence and the blocks of a layer lie together. A slot is one sequence: a
 * row of the table of pages. There may be more slots than pages for all of them at full length, and a page
 * may be in several slots, when sequences begin alike: then nobody writes to it, and who must gets a copy.
 * Pages that are complete can be published (prefix.h); they stay when their slots let go of them, until
 * memory is wanted.
 *
 * A slot is filled in order: reserve, compute, reserve. Where a position is computed anew, what is behind it
 * in the slot has lost its meaning and is computed anew as well, or cut off.
 *
 * The memory is mapped at creation and costs nothing before it is touched; the page given back last is handed
 * out first. Nothing is allocated later. Owned by the engine, whose thread calls everything here; writers of
 * different (layer, slot, position, head) need no lock. */
#ifndef WOOLLY_KV_CACHE_H
#define WOOLLY_KV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/kernels/attention.h"

struct kv_shape {
    enum kv_type type;
    int head_dim, n_layers, n_kv_heads;
    int n_slots, n_ctx; /* sequences, and the most positions of one */
    int n_pages;        /* 0: as many as all slots take at full length */
};

struct kv_counts {
    int total, free, cached, used; /* pages: cached are published and in no slot */
    int published;                 /* pages, cached or used */
    uint64_t n_adopted, n_evicted, n_copied;
};

struct kv_page;

struct kv_cache {
    struct kv_layout layout; /* of a block */
    struct kv_shape shape;
    int pages_per_slot; /* at full length */
    size_t page_bytes;
    uint64_t bytes; /* of all pages */
    char *memory;

    int32_t *table;        /* [n_slots][pages_per_slot], of which slot_pages are filled */
    int32_t *slot_pages;   /* [n_slots] */
    struct kv_page *pages; /* [n_pages] */
    int32_t *free_pages;   /* [n_free], the last is next */
    int32_t first_cached;  /* published pages in no slot, by the time they were given back; -1: none */
    int32_t last_cached;
    int32_t *buckets;    /* [n_buckets] first published page of each, or -1 */
    uint64_t *ghosts;    /* [n_buckets] hashes of pages that were evicted; 0: none */
    uint32_t n_buckets;  /* a power of two */
    uint64_t hash_point; /* drawn at random: nobody can choose tokens that fall into one bucket */
    struct kv_counts counts;
};

/* All counts but n_pages are at least 1. E_LIMIT when there are too few pages for one sequence of n_ctx
 * positions, or more than fit this machine's memory. On failure *c is empty. */
MUST_CHECK enum status kv_cache_init(struct kv_cache *c, const struct kv_shape *shape, struct error *err);
void kv_cache_fini(struct kv_cache *c);

/* Pages that a reserve could get: free ones, and cached ones. */
int kv_cache_available(const struct kv_cache *c);

/* Makes positions begin..end-1 of the slot writable (begin < end <= n_ctx); there are pages for those before.
 * Adds the pages that are missing, and replaces those that are published or in other slots too by copies.
 * False, and nothing changed, when fewer pages are available than it adds and copies. */
bool kv_cache_reserve(struct kv_cache *c, int slot, int begin, int end);

/* Gives back the pages behind those that hold positions 0..n_positions-1; 0 empties the slot. */
void kv_cache_truncate(struct kv_cache *c, int slot, int n_positions);

/* The slot `to`, which is empty, gets the pages with the first n_positions of `from` as well. */
void kv_cache_share(struct kv_cache *c, int from, int to, int n_positions);

int kv_cache_slot_pages(const struct kv_cache *c, int slot);
struct kv_counts kv_cache_counts(const struct kv_cache *c);

/* Block i of the slot is at kv_cache_blocks + table[i] * page_bytes. */
char *kv_cache_blocks(const struct kv_cache *c, int layer, int kv_head);
const int32_t *kv_cache_table(const struct kv_cache *c, int slot);

#endif

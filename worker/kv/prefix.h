/* The index of published pages: which page holds the keys and values of 64 tokens that follow upon certain
 * others. A request whose text begins like an earlier one finds its pages here instead of computing them.
 *
 * Keys and values of a position depend on all tokens before it, so a page is found by the published page
 * before it (its parent), its own tokens, and at the beginning by a salt, which keeps those apart who must
 * not notice each other. All of it is compared; hashes only find candidates. That makes a hit exact, because
 * a published page is never written and outlives its children: a page in use keeps its parent in use, and of
 * pages in no slot the one that was given back first is evicted first. */
#ifndef WOOLLY_KV_PREFIX_H
#define WOOLLY_KV_PREFIX_H

#include "worker/kv/cache.h"

enum { KV_SALT_BYTES = 64 };

struct kv_salt {
    uint8_t n; /* at most KV_SALT_BYTES */
    char bytes[KV_SALT_BYTES];
};

enum kv_miss {
    KV_MISS_NONE,    /* it is there */
    KV_MISS_NEW,     /* it never was, or so long ago that nobody remembers */
    KV_MISS_EVICTED, /* it had to make room */
};

/* Publishes a page of the slot, all of whose positions are computed from these tokens. Where an equal page is
 * published already the slot takes that one and gives its own back. False, and nothing changed, when the page
 * before it is not published. Publishing again does nothing. */
bool kv_cache_publish(struct kv_cache *c, int slot, int page_index, const int32_t tokens[KV_BLOCK],
                      struct kv_salt salt);

/* Appends the published page with these tokens to the slot, which has page_index pages, all published. False,
 * and nothing changed, when there is none. */
bool kv_cache_adopt(struct kv_cache *c, int slot, int page_index, const int32_t tokens[KV_BLOCK],
                    struct kv_salt salt);

/* Why kv_cache_adopt finds nothing, or KV_MISS_NONE where it would. */
enum kv_miss kv_cache_miss(const struct kv_cache *c, int slot, int page_index, const int32_t tokens[KV_BLOCK],
                           struct kv_salt salt);

/* How many pages at the slot's beginning are published. */
int kv_cache_slot_published(const struct kv_cache *c, int slot);

#endif

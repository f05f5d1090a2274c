/* Inside of the kv folder: a page's life. It is
 *
 *   - free: on the stack of free pages
 *   - used: referred to by slots, and by published pages in use that follow upon it
 *   - cached: published and not referred to; on a list, the one given back first is evicted first.
 *
 * As a page in use refers to its parent, nothing in use follows upon a cached page, and all that follows
 * upon it was cached before it: eviction in the list's order takes children before their parents. */
#ifndef WOOLLY_KV_PAGE_H
#define WOOLLY_KV_PAGE_H

#include "worker/kv/prefix.h"

struct kv_page {
    int32_t refs;
    int32_t next, previous; /* on the list of cached pages; -1 at its ends */

    bool is_published; /* the rest is for published pages */
    int32_t parent;    /* -1 for the first page of a text */
    int32_t next_in_bucket;
    uint64_t hash; /* of all tokens from the beginning, and the salt */
    struct kv_salt salt;
    int32_t tokens[KV_BLOCK];
};

/* A page with one reference, for whoever asked; there must be one available. */
int32_t kv_page_take(struct kv_cache *c);
void kv_page_hold(struct kv_cache *c, int32_t page);
void kv_page_drop(struct kv_cache *c, int32_t page);

/* Takes a cached page out of the index (prefix.c). */
void kv_page_unpublish(struct kv_cache *c, int32_t page);

/* For tests: stops the program unless counts, lists, references and the index agree with the slots. */
void kv_cache_check(const struct kv_cache *c);

#endif

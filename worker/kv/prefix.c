#include "worker/kv/prefix.h"

#include <assert.h>
#include <string.h>

#include "common/keyed_hash.h"
#include "worker/kv/page.h"

/* What a page is looked for by. */
struct key {
    int32_t parent;
    const int32_t *tokens;
    const struct kv_salt *salt; /* compared where there is no parent */
    uint64_t hash;
};

static uint64_t hash_after(const struct kv_cache *c, uint64_t before, const int32_t *tokens)
{
    char bytes[sizeof before + KV_BLOCK * sizeof *tokens];
    memcpy(bytes, &before, sizeof before);
    memcpy(bytes + sizeof before, tokens, KV_BLOCK * sizeof *tokens);
    uint64_t hash = keyed_hash(c->hash_point, bytes, sizeof bytes);
    return hash ? hash : 1; /* 0 is no ghost */
}

/* The slot's page of that index follows upon a published page, or is the first. */
static struct key key_of(const struct kv_cache *c, int slot, int page_index, const int32_t *tokens,
                         const struct kv_salt *salt)
{
    int32_t parent = page_index > 0 ? kv_cache_table(c, slot)[page_index - 1] : -1;
    uint64_t before = parent < 0 ? keyed_hash(c->hash_point, salt->bytes, salt->n) : c->pages[parent].hash;
    return (struct key){ parent, tokens, salt, hash_after(c, before, tokens) };
}

static bool has_key(const struct kv_page *p, const struct key *k)
{
    return p->hash == k->hash && p->parent == k->parent &&
           (k->parent >= 0 ||
            (p->salt.n == k->salt->n && memcmp(p->salt.bytes, k->salt->bytes, p->salt.n) == 0)) &&
           memcmp(p->tokens, k->tokens, sizeof p->tokens) == 0;
}

static int32_t *bucket_of(const struct kv_cache *c, uint64_t hash)
{
    return &c->buckets[hash & (c->n_buckets - 1)];
}

static uint64_t *ghost_of(const struct kv_cache *c, uint64_t hash)
{
    return &c->ghosts[hash & (c->n_buckets - 1)];
}

static int32_t find(const struct kv_cache *c, const struct key *k)
{
    int32_t page = *bucket_of(c, k->hash);
    while (page >= 0 && !has_key(&c->pages[page], k))
        page = c->pages[page].next_in_bucket;
    return page;
}

static void enter(struct kv_cache *c, int32_t page, const struct key *k)
{
    struct kv_page *p = &c->pages[page];
    int32_t *bucket = bucket_of(c, k->hash);
    p->is_published = true;
    p->parent = k->parent;
    p->hash = k->hash;
    p->salt = *k->salt;
    memcpy(p->tokens, k->tokens, sizeof p->tokens);
    p->next_in_bucket = *bucket;
    *bucket = page;
    c->counts.published++;
    kv_page_hold(c, p->parent); /* as the page is in use */
}

void kv_page_unpublish(struct kv_cache *c, int32_t page)
{
    struct kv_page *p = &c->pages[page];
    int32_t *link = bucket_of(c, p->hash);
    while (*link != page)
        link = &c->pages[*link].next_in_bucket;
    *link = p->next_in_bucket;
    *ghost_of(c, p->hash) = p->hash;
    p->is_published = false;
    c->counts.published--;
}

bool kv_cache_publish(struct kv_cache *c, int slot, int page_index, const int32_t tokens[KV_BLOCK],
                      struct kv_salt salt)
{
    int32_t *table = c->table + (size_t)slot * (size_t)c->pages_per_slot;
    assert(salt.n <= KV_SALT_BYTES && page_index >= 0 && page_index < kv_cache_slot_pages(c, slot));
    if (page_index > 0 && !c->pages[table[page_index - 1]].is_published)
        return false;

    struct key k = key_of(c, slot, page_index, tokens, &salt);
    int32_t page = table[page_index], equal = find(c, &k);
    if (c->pages[page].is_published) {
        assert(equal == page); /* it was to be reserved before other tokens were computed into it */
        return true;
    }
    if (equal < 0) {
        enter(c, page, &k);
        return true;
    }
    kv_page_hold(c, equal);
    table[page_index] = equal;
    kv_page_drop(c, page);
    return true;
}

bool kv_cache_adopt(struct kv_cache *c, int slot, int page_index, const int32_t tokens[KV_BLOCK],
                    struct kv_salt salt)
{
    int32_t *table = c->table + (size_t)slot * (size_t)c->pages_per_slot;
    assert(salt.n <= KV_SALT_BYTES && page_index == kv_cache_slot_pages(c, slot));
    assert(page_index < c->pages_per_slot);
    assert(page_index == 0 || c->pages[table[page_index - 1]].is_published);

    struct key k = key_of(c, slot, page_index, tokens, &salt);
    int32_t page = find(c, &k);
    if (page < 0)
        return false;
    kv_page_hold(c, page);
    table[c->slot_pages[slot]++] = page;
    c->counts.n_adopted++;
    return true;
}

enum kv_miss kv_cache_miss(const struct kv_cache *c, int slot, int page_index, const int32_t tokens[KV_BLOCK],
                           struct kv_salt salt)
{
    assert(salt.n <= KV_SALT_BYTES && page_index == kv_cache_slot_pages(c, slot));
    assert(page_index == 0 || c->pages[kv_cache_table(c, slot)[page_index - 1]].is_published);

    struct key k = key_of(c, slot, page_index, tokens, &salt);
    if (find(c, &k) >= 0)
        return KV_MISS_NONE;
    return *ghost_of(c, k.hash) == k.hash ? KV_MISS_EVICTED : KV_MISS_NEW;
}

int kv_cache_slot_published(const struct kv_cache *c, int slot)
{
    const int32_t *table = kv_cache_table(c, slot);
    int n = 0;
    while (n < kv_cache_slot_pages(c, slot) && c->pages[table[n]].is_published)
        n++;
    return n;
}

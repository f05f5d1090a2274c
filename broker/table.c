#include "broker/table.h"

#include <assert.h>
#include <stdlib.h>

#include "common/xalloc.h"

enum { FIRST_BUCKETS = 64 };

void table_fini(struct table *t)
{
    free(t->buckets);
    *t = (struct table){ 0 };
}

static struct table_node **bucket_of(const struct table *t, uint64_t hash)
{
    return &t->buckets[hash & (t->n_buckets - 1)];
}

static void grow(struct table *t)
{
    struct table bigger = { .n_buckets = t->n_buckets ? t->n_buckets * 2 : FIRST_BUCKETS, .count = t->count };
    bigger.buckets = xcalloc(bigger.n_buckets, sizeof *bigger.buckets);
    for (size_t i = 0; i < t->n_buckets; i++) {
        for (struct table_node *n = t->buckets[i], *next; n; n = next) {
            next = n->next;
            n->next = *bucket_of(&bigger, n->hash);
            *bucket_of(&bigger, n->hash) = n;
        }
    }
    free(t->buckets);
    *t = bigger;
}

void table_put(struct table *t, struct table_node *n, uint64_t hash)
{
    if (t->count >= t->n_buckets)
        grow(t);
    n->hash = hash;
    n->next = *bucket_of(t, hash);
    *bucket_of(t, hash) = n;
    t->count++;
}

void table_remove(struct table *t, struct table_node *n)
{
    struct table_node **at = bucket_of(t, n->hash);
    while (*at != n) {
        assert(*at);
        at = &(*at)->next;
    }
    *at = n->next;
    t->count--;
}

static struct table_node *first_with(struct table_node *n, uint64_t hash)
{
    while (n && n->hash != hash)
        n = n->next;
    return n;
}

struct table_node *table_find(const struct table *t, uint64_t hash)
{
    return t->n_buckets ? first_with(*bucket_of(t, hash), hash) : NULL;
}

struct table_node *table_next(const struct table_node *n)
{
    return first_with(n->next, n->hash);
}

uint64_t table_hash_number(uint64_t number)
{
    number *= UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / golden ratio: neighbours spread */
    return number ^ number >> 32;
}

uint64_t table_hash_bytes(const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

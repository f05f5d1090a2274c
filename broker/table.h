/* A hash table whose links sit inside its elements, so that putting and removing never allocates; only growth
 * does. The caller hashes and compares: table_find gives the first element with that hash, table_next the
 * others. Zero-initialised it is empty and valid; table_fini frees the buckets, not the elements. */
#ifndef WOOLLY_BROKER_TABLE_H
#define WOOLLY_BROKER_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_node {
    struct table_node *next;
    uint64_t hash;
};

struct table {
    struct table_node **buckets;
    size_t n_buckets, count;
};

void table_fini(struct table *t);
void table_put(struct table *t, struct table_node *n, uint64_t hash);
void table_remove(struct table *t, struct table_node *n);
struct table_node *table_find(const struct table *t, uint64_t hash);
struct table_node *table_next(const struct table_node *n);

uint64_t table_hash_number(uint64_t number);
uint64_t table_hash_bytes(const void *bytes, size_t len);

/* The struct that holds `node` as its member `name`, or NULL for a NULL node. */
#define table_entry(node, type, name)                                                                        \
    ((node) ? (type *)(void *)((char *)(node)-offsetof(type, name)) : (type *)NULL)

#endif

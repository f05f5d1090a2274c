/* From a name to its place in an array of items. */
#ifndef WOOLLY_MODEL_GGUF_INDEX_H
#define WOOLLY_MODEL_GGUF_INDEX_H

#include <stdint.h>

#include "common/status.h"
#include "worker/model/gguf.h"

struct gguf_index {
    uint64_t point;  /* the key of keyed_hash */
    uint64_t mask;   /* slots - 1, a power of two less one */
    uint32_t *slots; /* place + 1, or 0 for a free slot */
    const char *items;
    size_t stride;
};

/* Indexes `count` structs of `stride` bytes, each beginning with its name; they must stay where they are.
 * E_INVALID if a name appears twice: *twice is then the place of the second one. E_NOMEM. */
MUST_CHECK enum status gguf_index_build(struct gguf_index *x, const void *items, uint64_t count,
                                        size_t stride, uint64_t *twice);
void gguf_index_fini(struct gguf_index *x);

/* The item, or NULL. */
const void *gguf_index_find(const struct gguf_index *x, struct gguf_string name);

#endif

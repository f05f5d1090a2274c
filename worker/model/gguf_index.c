#include "worker/model/gguf_index.h"

#include <stdlib.h>
#include <string.h>

#include "common/keyed_hash.h"

static struct gguf_string name_of(const struct gguf_index *x, uint64_t place)
{
    return *(const struct gguf_string *)(const void *)(x->items + place * x->stride);
}

static bool is_same(struct gguf_string a, struct gguf_string b)
{
    return a.len == b.len && !memcmp(a.text, b.text, a.len);
}

/* The slot that holds the name, or the free one where it belongs. */
static uint32_t *slot_of(const struct gguf_index *x, struct gguf_string name)
{
    uint64_t i = keyed_hash(x->point, name.text, name.len) & x->mask;
    while (x->slots[i] && !is_same(name_of(x, x->slots[i] - 1), name))
        i = (i + 1) & x->mask;
    return &x->slots[i];
}

enum status gguf_index_build(struct gguf_index *x, const void *items, uint64_t count, size_t stride,
                             uint64_t *twice)
{
    uint64_t n_slots = 16;
    while (n_slots < 2 * count)
        n_slots *= 2;
    *x = (struct gguf_index){
        .point = keyed_hash_point(), .mask = n_slots - 1, .items = items, .stride = stride
    };
    x->slots = calloc(n_slots, sizeof *x->slots);
    if (!x->slots)
        return E_NOMEM;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t *slot = slot_of(x, name_of(x, i));
        if (*slot) {
            *twice = i;
            return E_INVALID;
        }
        *slot = (uint32_t)i + 1;
    }
    return OK;
}

void gguf_index_fini(struct gguf_index *x)
{
    free(x->slots);
    *x = (struct gguf_index){ 0 };
}

const void *gguf_index_find(const struct gguf_index *x, struct gguf_string name)
{
    uint32_t place = *slot_of(x, name);
    return place ? x->items + (uint64_t)(place - 1) * x->stride : NULL;
}

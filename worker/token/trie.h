/* The pieces of a vocabulary by their bytes: a walk goes down one byte at a time and says which piece ends
 * there. For the families that look for all pieces at a place, or for the longest. Read-only after
 * trie_init. */
#ifndef WOOLLY_TOKEN_TRIE_H
#define WOOLLY_TOKEN_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/token/vocab.h"

/* What the pieces of a trie may weigh together. The largest vocabulary seen has 2 MB. */
enum { TRIE_MAX_BYTES = 16 << 20 };

struct trie_node {
    uint32_t first;    /* index of the first child; the children lie together, in the order of their bytes */
    int32_t id;        /* of the piece that ends here, or -1 */
    uint16_t children; /* how many, at most 256 */
    uint8_t byte;      /* that leads here */
};

struct trie {
    struct trie_node *nodes; /* [0] is the root, which has no byte */
    size_t n;
};

/* Takes in the tokens of v of these kinds; of those that are spelled alike the last one counts. On failure *t
 * is empty and err names the key. */
MUST_CHECK enum status trie_init(struct trie *t, const struct vocab *v, const struct gguf *g, unsigned kinds,
                                 struct error *err);
void trie_fini(struct trie *t);

/* Goes down from *node, 0 at the beginning; false, and *node as it was, where nothing leads on. */
static inline bool trie_step(const struct trie *t, uint32_t *node, uint8_t byte)
{
    uint32_t low = t->nodes[*node].first, end = low + t->nodes[*node].children, high = end;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (t->nodes[middle].byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == end || t->nodes[low].byte != byte)
        return false;
    *node = low;
    return true;
}

#endif

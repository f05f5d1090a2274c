/* Built level by level from the sorted pieces: all that begin with the bytes of a node are neighbours. */
#include "worker/token/trie.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

struct entry {
    const struct gguf_string *text;
    int32_t id;
};

/* The entries that a node stands for, [low, high), and how many bytes lead to it. */
struct span {
    uint32_t low, high, depth;
};

struct builder {
    struct trie *trie;
    struct span *spans; /* [trie->n] */
    size_t cap;
    const struct entry *entries; /* sorted */
};

static int compare_entries(const void *left, const void *right)
{
    const struct entry *l = left, *r = right;
    uint64_t shorter = l->text->len < r->text->len ? l->text->len : r->text->len;
    int order = memcmp(l->text->text, r->text->text, shorter);

    if (!order)
        order = (l->text->len > r->text->len) - (l->text->len < r->text->len);
    return order ? order : (l->id > r->id) - (l->id < r->id);
}

static void add_node(struct builder *b, uint8_t byte, struct span span)
{
    if (b->trie->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 1024;
        b->trie->nodes = xrealloc(b->trie->nodes, b->cap * sizeof(*b->trie->nodes));
        b->spans = xrealloc(b->spans, b->cap * sizeof(*b->spans));
    }
    b->trie->nodes[b->trie->n] = (struct trie_node){ .id = -1, .byte = byte };
    b->spans[b->trie->n++] = span;
}

static uint8_t byte_at(const struct entry *e, uint32_t depth)
{
    return (uint8_t)e->text->text[depth];
}

static void add_children(struct builder *b, size_t node)
{
    struct span s = b->spans[node];
    size_t first = b->trie->n;

    for (; s.low < s.high && b->entries[s.low].text->len == s.depth; s.low++)
        b->trie->nodes[node].id = b->entries[s.low].id;
    for (uint32_t next; s.low < s.high; s.low = next) {
        uint8_t byte = byte_at(&b->entries[s.low], s.depth);
        for (next = s.low + 1; next < s.high && byte_at(&b->entries[next], s.depth) == byte;)
            next++;
        add_node(b, byte, (struct span){ s.low, next, s.depth + 1 });
    }
    b->trie->nodes[node].first = (uint32_t)first;
    b->trie->nodes[node].children = (uint16_t)(b->trie->n - first);
}

enum status trie_init(struct trie *t, const struct vocab *v, const struct gguf *g, unsigned kinds,
                      struct error *err)
{
    struct entry *entries = xcalloc((size_t)v->n, sizeof(*entries));
    uint32_t n = 0;
    uint64_t bytes = 0;

    *t = (struct trie){ 0 };
    for (int i = 0; i < v->n; i++) {
        if (!(TOKEN_SET(v->kinds[i]) & kinds) || !v->texts[i].len)
            continue;
        entries[n++] = (struct entry){ &v->texts[i], i };
        bytes += v->texts[i].len;
    }
    if (bytes > TRIE_MAX_BYTES) {
        free(entries);
        return error_set(err, E_LIMIT, "%s: the texts of tokenizer.ggml.tokens have %llu bytes, more than %d",
                         gguf_path(g), (unsigned long long)bytes, TRIE_MAX_BYTES);
    }
    qsort(entries, n, sizeof(*entries), compare_entries);

    struct builder b = { .trie = t, .entries = entries };
    add_node(&b, 0, (struct span){ 0, n, 0 });
    for (size_t node = 0; node < t->n; node++)
        add_children(&b, node);
    free(b.spans);
    free(entries);
    return OK;
}

void trie_fini(struct trie *t)
{
    free(t->nodes);
    *t = (struct trie){ 0 };
}

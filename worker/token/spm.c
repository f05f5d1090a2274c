/* Every character starts as a symbol of its own. Of all neighbours whose joint spelling is a token, the pair
 * with the highest score is merged, the leftmost where scores are equal, until no pair is a token.
 *
 * Symbols form a doubly linked list inside an array; a merge grows the left one and empties the right one.
 * Possible merges wait in a binary heap. An entry goes stale when either side has changed since; it is known
 * by the joint length, which can only have grown, or by an emptied side, and is skipped when it comes up.
 * Each merge adds at most two entries, so heap and time stay within O(n) and O(n log n). */
#include "worker/token/spm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

/* What plain text may become. Control tokens are left out, as in SentencePiece itself: text must never spell
 * its way into one by merging. */
#define MERGE_KINDS (TOKEN_SET(TOKEN_NORMAL) | TOKEN_SET(TOKEN_USER_DEFINED))

struct symbol {
    uint32_t start, len; /* in the text; len 0 after it was merged into its left neighbour */
    int32_t prev, next;  /* index of the neighbour, -1 at the ends */
};

struct merge {
    float score;
    int32_t left, right;
    uint32_t len; /* of both sides when this entry was made */
};

struct spm {
    const struct vocab *vocab;
    const char *text;
    struct symbol *symbols;
    struct merge *heap; /* [0] is the best */
    size_t n_heap, heap_cap;
};

static bool is_better(const struct merge *a, const struct merge *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(struct spm *m, struct merge e)
{
    if (m->n_heap == m->heap_cap) {
        m->heap_cap *= 2;
        m->heap = xrealloc(m->heap, m->heap_cap * sizeof(*m->heap));
    }
    size_t i = m->n_heap++;
    while (i > 0 && is_better(&e, &m->heap[(i - 1) / 2])) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = e;
}

static struct merge heap_pop(struct spm *m)
{
    struct merge best = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && is_better(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!is_better(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return best;
}

/* Queues the merge of two neighbours if it makes a token. */
static void consider(struct spm *m, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return;
    const struct symbol *l = &m->symbols[left], *r = &m->symbols[right];
    uint32_t len = l->len + r->len;
    if (len > VOCAB_MAX_TOKEN_BYTES)
        return;
    int32_t id = vocab_find(m->vocab, m->text + l->start, len, MERGE_KINDS);
    if (id >= 0)
        heap_push(m, (struct merge){ m->vocab->scores[id], left, right, len });
}

/* How many bytes a character has by its first byte alone. Right for valid UTF-8; in invalid text a stray lead
 * byte takes its followers with it, which decides how the reference tokenizers cut such text. */
static uint32_t char_bytes(unsigned char lead)
{
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static size_t split_characters(struct spm *m, size_t len)
{
    size_t n = 0;

    for (size_t at = 0; at < len; n++) {
        uint32_t bytes = char_bytes((unsigned char)m->text[at]);
        if (bytes > len - at)
            bytes = (uint32_t)(len - at);
        m->symbols[n] = (struct symbol){ (uint32_t)at, bytes, (int32_t)n - 1, (int32_t)n + 1 };
        at += bytes;
    }
    m->symbols[n - 1].next = -1;
    return n;
}

static void merge_all(struct spm *m)
{
    while (m->n_heap) {
        struct merge e = heap_pop(m);
        struct symbol *l = &m->symbols[e.left], *r = &m->symbols[e.right];
        if (!l->len || !r->len || l->len + r->len != e.len)
            continue;
        l->len = e.len;
        r->len = 0;
        l->next = r->next;
        if (r->next >= 0)
            m->symbols[r->next].prev = e.left;
        consider(m, l->prev, e.left);
        consider(m, e.left, l->next);
    }
}

/* A symbol that is no token becomes its bytes, or one unknown token where the vocabulary lacks one of them.
 */
static void put_symbol(const struct spm *m, const struct symbol *s, struct token_list *out)
{
    const char *text = m->text + s->start;
    int32_t id = vocab_find(m->vocab, text, s->len, MERGE_KINDS);

    if (id >= 0) {
        token_list_push(out, id);
        return;
    }
    for (uint32_t i = 0; i < s->len; i++) {
        if (m->vocab->byte_ids[(unsigned char)text[i]] < 0) {
            token_list_push(out, m->vocab->unknown);
            return;
        }
    }
    for (uint32_t i = 0; i < s->len; i++)
        token_list_push(out, m->vocab->byte_ids[(unsigned char)text[i]]);
}

void spm_encode(const struct vocab *v, const char *text, size_t len, struct token_list *out)
{
    assert(len <= INT32_MAX);
    if (!len)
        return;
    struct spm m = { .vocab = v, .text = text, .heap_cap = 64 };
    m.symbols = xcalloc(len, sizeof(*m.symbols));
    m.heap = xcalloc(m.heap_cap, sizeof(*m.heap));

    size_t n = split_characters(&m, len);
    for (size_t i = 1; i < n; i++)
        consider(&m, (int32_t)i - 1, (int32_t)i);
    merge_all(&m);
    for (int32_t i = 0; i >= 0; i = m.symbols[i].next)
        put_symbol(&m, &m.symbols[i], out);
    free(m.symbols);
    free(m.heap);
}

/* A short stretch is merged by looking at all neighbours again after each merge, a long one with a heap: same
 * result, the lowest rank first and the leftmost of equals.
 *
 * In the heap an entry is rank and place. It goes stale when either neighbour at that place has changed; then
 * the pair that is there now has another rank, as no two pairs share one, and the entry is skipped. Each
 * merge adds at most two entries, so heap and time stay within O(n) and O(n log n).
 *
 * Text repeats its words. One call of bpe_encode remembers where it last met a stretch and which ids it
 * became, and copies those. The memory is of fixed size and changes nothing but the time. */
#include "worker/token/bpe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/keyed_hash.h"
#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/token/byte_letters.h"

static const char KEY_MERGES[] = "tokenizer.ggml.merges";
static const char KEY_RULE[] = "tokenizer.ggml.pre";

/* What plain text may become: never a control token, whatever the list says. */
#define PLAIN_KINDS (TOKEN_SET(TOKEN_NORMAL) | TOKEN_SET(TOKEN_USER_DEFINED) | TOKEN_SET(TOKEN_UNUSED))

enum {
    MAX_MERGES = 1 << 23, /* twice the most tokens */
    SHORT_BYTES = 64,     /* a guess: nearly all words, and quadratic time does not matter yet */
    MEMO_SLOTS = 4096,    /* measured, MB/s of English: 26 with half as many, 32, 37 with twice */
    MEMO_MIN_TEXT = 1024, /* a shorter text repeats too little */
    NO_RANK = INT32_MAX,
};

static uint64_t hash_pair(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t both = (uint64_t)left << 24 | (uint64_t)right, h = hash_multiply_add(both, b->hash_point, 0);

    return h ^ h >> 32;
}

_Static_assert(VOCAB_MAX_TOKENS <= 1 << 24, "hash_pair has 24 bits for an id");

/* The slot that holds this pair, or the empty one where the search ended. */
static struct bpe_pair *find_slot(const struct bpe *b, int32_t left, int32_t right)
{
    for (size_t i = hash_pair(b, left, right) & (b->n_pairs - 1);; i = (i + 1) & (b->n_pairs - 1)) {
        struct bpe_pair *p = &b->pairs[i];
        if (p->left < 0 || (p->left == left && p->right == right))
            return p;
    }
}

/* NULL when these never merge. */
static const struct bpe_pair *find_pair(const struct bpe *b, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return NULL;
    const struct bpe_pair *p = find_slot(b, left, right);
    return p->left < 0 ? NULL : p;
}

/* "Ġ t": two tokens with a space between. The first of several equal merges counts. */
static void add_merge(struct bpe *b, const struct gguf_string *merge, int32_t rank)
{
    const struct vocab *v = b->vocab;
    const char *space = merge->len > 1 ? memchr(merge->text + 1, ' ', merge->len - 1) : NULL;
    char joint_text[VOCAB_MAX_TOKEN_BYTES];

    if (!space || merge->len - 1 > sizeof(joint_text))
        return;
    size_t left_len = (size_t)(space - merge->text), right_len = merge->len - 1 - left_len;
    memcpy(joint_text, merge->text, left_len);
    memcpy(joint_text + left_len, space + 1, right_len);
    int32_t left = vocab_find(v, merge->text, left_len, PLAIN_KINDS);
    int32_t right = vocab_find(v, space + 1, right_len, PLAIN_KINDS);
    int32_t joint = vocab_find(v, joint_text, left_len + right_len, PLAIN_KINDS);
    if (left < 0 || right < 0 || joint < 0)
        return;
    struct bpe_pair *slot = find_slot(b, left, right);
    if (slot->left < 0)
        *slot = (struct bpe_pair){ left, right, rank, joint };
}

static enum status read_merges(struct bpe *b, const struct gguf *g, struct error *err)
{
    const struct gguf_value *a = gguf_find(g, KEY_MERGES);

    if (!a)
        return error_set(err, E_FORMAT, "%s: the key %s is missing", gguf_path(g), KEY_MERGES);
    if (a->kind != GGUF_ARRAY || a->element != GGUF_STRING)
        return error_set(err, E_FORMAT, "%s: %s is not an array of strings", gguf_path(g), KEY_MERGES);
    if (a->count > MAX_MERGES)
        return error_set(err, E_LIMIT, "%s: %s has %llu elements, more than %d", gguf_path(g), KEY_MERGES,
                         (unsigned long long)a->count, MAX_MERGES);
    b->hash_point = keyed_hash_point();
    b->n_pairs = 16;
    while (b->n_pairs < a->count + a->count / 2)
        b->n_pairs *= 2;
    b->pairs = xmalloc(b->n_pairs * sizeof(*b->pairs));
    memset(b->pairs, -1, b->n_pairs * sizeof(*b->pairs));
    for (uint64_t i = 0; i < a->count; i++)
        add_merge(b, &a->strings[i], (int32_t)i);
    return OK;
}

static enum status read_rule(struct bpe *b, const struct gguf *g, struct error *err)
{
    struct gguf_string name = { "default", 7 };
    enum status s = gguf_get_string(g, KEY_RULE, &name, err);
    char shown[80];

    if (s != OK && s != E_NOTFOUND)
        return s;
    b->rule = pretoken_find(name);
    if (!b->rule)
        return error_set(err, E_UNSUPPORTED, "%s: %s is \"%s\", a rule for cutting text that is not known",
                         gguf_path(g), KEY_RULE, gguf_printable(name, shown, sizeof(shown)));
    return OK;
}

enum status bpe_init(struct bpe *b, const struct vocab *v, const struct gguf *g, struct error *err)
{
    enum status s;

    *b = (struct bpe){ .vocab = v };
    if ((s = read_rule(b, g, err)) != OK || (s = read_merges(b, g, err)) != OK) {
        bpe_fini(b);
        return s;
    }
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, letter[4];
        size_t len = byte_letters_put(&byte, 1, letter);
        b->byte_ids[i] = vocab_find(v, letter, len, PLAIN_KINDS);
    }
    return OK;
}

void bpe_fini(struct bpe *b)
{
    free(b->pairs);
    *b = (struct bpe){ 0 };
}

/* The token that is spelled like these bytes, or -1. */
static int32_t find_whole(const struct bpe *b, const char *text, size_t len)
{
    char letters[2 * VOCAB_MAX_TOKEN_BYTES];

    if (len > VOCAB_MAX_TOKEN_BYTES)
        return -1;
    size_t n = byte_letters_put(text, len, letters);
    return vocab_find(b->vocab, letters, n, PLAIN_KINDS);
}

static void merge_short(const struct bpe *b, const char *text, size_t len, struct token_list *out)
{
    struct {
        int32_t id, rank, joint; /* rank and joint: of this symbol and the next one */
    } symbols[SHORT_BYTES];
    size_t n = len, changed = 0, last_changed = len - 1;

    for (size_t i = 0; i < n; i++)
        symbols[i].id = b->byte_ids[(unsigned char)text[i]];
    for (;;) {
        for (size_t i = changed; i <= last_changed && i < n; i++) {
            const struct bpe_pair *p = i + 1 < n ? find_pair(b, symbols[i].id, symbols[i + 1].id) : NULL;
            symbols[i].rank = p ? p->rank : NO_RANK;
            symbols[i].joint = p ? p->joint : -1;
        }
        size_t best = 0;
        for (size_t i = 1; i < n; i++) {
            if (symbols[i].rank < symbols[best].rank)
                best = i;
        }
        if (symbols[best].rank == NO_RANK)
            break;
        symbols[best].id = symbols[best].joint;
        n--;
        memmove(&symbols[best + 1], &symbols[best + 2], (n - best - 1) * sizeof(*symbols));
        changed = best ? best - 1 : 0;
        last_changed = best;
    }
    for (size_t i = 0; i < n; i++) {
        if (symbols[i].id >= 0)
            token_list_push(out, symbols[i].id);
    }
}

/* rank and joint are those of this symbol and the next one. */
struct symbol {
    int32_t id, rank, joint;
    int32_t prev, next; /* index of the neighbour, -1 at the ends */
};

struct long_merge {
    const struct bpe *bpe;
    struct symbol *symbols;
    uint64_t
        *heap; /* rank << 32 | index of the left symbol; [0] is the lowest, [4i + 1 .. 4i + 4] below [i] */
    size_t n_heap, heap_cap;
};

/* Four children share a cache line or two: half the misses of a binary heap. */
enum { HEAP_CHILDREN = 4 };

static void heap_push(struct long_merge *m, uint64_t e)
{
    if (m->n_heap == m->heap_cap) {
        m->heap_cap = m->heap_cap ? m->heap_cap * 2 : 256;
        m->heap = xrealloc(m->heap, m->heap_cap * sizeof(*m->heap));
    }
    size_t i = m->n_heap++;
    for (size_t parent; i > 0 && e < m->heap[parent = (i - 1) / HEAP_CHILDREN]; i = parent)
        m->heap[i] = m->heap[parent];
    m->heap[i] = e;
}

static uint64_t heap_pop(struct long_merge *m)
{
    uint64_t lowest = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;

    for (size_t child; (child = HEAP_CHILDREN * i + 1) < m->n_heap; i = child) {
        size_t stop = child + HEAP_CHILDREN < m->n_heap ? child + HEAP_CHILDREN : m->n_heap;
        for (size_t c = child + 1; c < stop; c++)
            child = m->heap[c] < m->heap[child] ? c : child;
        if (last <= m->heap[child])
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return lowest;
}

/* Looks up what this symbol and the next one make, and queues it. */
static void consider(struct long_merge *m, int32_t left)
{
    if (left < 0)
        return;
    struct symbol *l = &m->symbols[left];
    const struct bpe_pair *p = l->next < 0 ? NULL : find_pair(m->bpe, l->id, m->symbols[l->next].id);
    l->rank = p ? p->rank : NO_RANK;
    if (p) {
        l->joint = p->joint;
        heap_push(m, (uint64_t)p->rank << 32 | (uint32_t)left);
    }
}

static void merge_all(struct long_merge *m)
{
    while (m->n_heap) {
        uint64_t e = heap_pop(m);
        int32_t left = (int32_t)(uint32_t)e;
        struct symbol *l = &m->symbols[left];
        if ((uint64_t)l->rank != e >> 32)
            continue;
        struct symbol *r = &m->symbols[l->next];
        l->id = l->joint;
        l->next = r->next;
        r->rank = NO_RANK;
        if (r->next >= 0)
            m->symbols[r->next].prev = left;
        consider(m, l->prev);
        consider(m, left);
    }
}

static void merge_long(const struct bpe *b, const char *text, size_t len, struct token_list *out)
{
    struct long_merge m = { .bpe = b, .symbols = xmalloc(len * sizeof(*m.symbols)) };

    for (size_t i = 0; i < len; i++) {
        int32_t id = b->byte_ids[(unsigned char)text[i]], at = (int32_t)i;
        m.symbols[i] = (struct symbol){ id, NO_RANK, -1, at - 1, i + 1 < len ? at + 1 : -1 };
    }
    for (size_t i = 0; i < len; i++)
        consider(&m, (int32_t)i);
    merge_all(&m);
    for (int32_t i = 0; i >= 0; i = m.symbols[i].next) {
        if (m.symbols[i].id >= 0)
            token_list_push(out, m.symbols[i].id);
    }
    free(m.symbols);
    free(m.heap);
}

static void encode_stretch(const struct bpe *b, const char *text, size_t len, struct token_list *out)
{
    int32_t whole = b->rule->keeps_whole_words ? find_whole(b, text, len) : -1;

    if (whole >= 0)
        token_list_push(out, whole);
    else if (len <= SHORT_BYTES)
        merge_short(b, text, len, out);
    else
        merge_long(b, text, len, out);
}

/* Where a stretch stood and what it became; len 0: nothing yet. */
struct memo {
    size_t start, first_id;
    uint32_t len, n_ids;
};

static struct memo *memo_slot(struct memo *memos, const char *text, size_t len)
{
    uint64_t h = len;

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x9e3779b97f4a7c15u;
    return &memos[h >> 32 & (MEMO_SLOTS - 1)];
}

static void encode_valid(const struct bpe *b, const char *text, size_t len, struct token_list *out)
{
    struct memo *memos = len >= MEMO_MIN_TEXT ? xcalloc(MEMO_SLOTS, sizeof(*memos)) : NULL;
    struct pretoken_cut cut;

    pretoken_begin(&cut, b->rule, text, len);
    for (size_t start, end; pretoken_next(&cut, &start, &end);) {
        size_t n = end - start, first_id = out->n;
        struct memo *m = memos && n <= SHORT_BYTES ? memo_slot(memos, text + start, n) : NULL;
        if (m && m->len == n && !memcmp(text + m->start, text + start, n)) {
            for (uint32_t i = 0; i < m->n_ids; i++)
                token_list_push(out, out->ids[m->first_id + i]);
            continue;
        }
        encode_stretch(b, text + start, n, out);
        if (m)
            *m = (struct memo){ start, first_id, (uint32_t)n, (uint32_t)(out->n - first_id) };
    }
    free(memos);
}

void bpe_encode(const struct bpe *b, const char *text, size_t len, struct token_list *out)
{
    static const char replacement[] = "\xef\xbf\xbd";
    struct buffer repaired = { 0 };

    assert(len <= TOKENIZER_MAX_BYTES);
    if (utf8_is_valid(text, len)) {
        encode_valid(b, text, len, out);
        return;
    }
    for (size_t at = 0; at < len;) {
        int taken = utf8_next(text + at, len - at, NULL);
        if (taken > 0)
            buffer_append(&repaired, text + at, (size_t)taken);
        else
            buffer_append(&repaired, replacement, 3);
        at += taken > 0 ? (size_t)taken : 1;
    }
    encode_valid(b, repaired.data, repaired.len, out);
    buffer_fini(&repaired);
}

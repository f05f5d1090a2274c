#include "worker/token/special.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define ALWAYS_KINDS  TOKEN_SET(TOKEN_USER_DEFINED)
#define CONTROL_KINDS (TOKEN_SET(TOKEN_CONTROL) | TOKEN_SET(TOKEN_UNKNOWN))

enum { START_ALWAYS = 1, START_CONTROL = 2 };

/* Notes the first two bytes of a token, or every second byte where it has one byte only. */
static void mark_start(struct special *s, const struct special_token *t)
{
    uint8_t bits =
        (t->kinds & ALWAYS_KINDS ? START_ALWAYS : 0) | (t->kinds & CONTROL_KINDS ? START_CONTROL : 0);
    size_t first = (size_t)(unsigned char)t->text->text[0] << 8;

    for (size_t second = 0; second < 256; second++) {
        if (t->text->len == 1 || second == (unsigned char)t->text->text[1])
            s->starts[first | second] |= bits;
    }
}

static int compare_tokens(const void *left, const void *right)
{
    const struct gguf_string *l = ((const struct special_token *)left)->text;
    const struct gguf_string *r = ((const struct special_token *)right)->text;
    int order = memcmp(l->text, r->text, l->len < r->len ? l->len : r->len);

    return order ? order : (l->len > r->len) - (l->len < r->len);
}

static bool begins_with(const struct gguf_string *text, const struct gguf_string *prefix)
{
    return prefix->len <= text->len && !memcmp(text->text, prefix->text, prefix->len);
}

/* Makes one of equal spellings, which are neighbours, and links every token to the one it begins with: that
 * is the token before it, or one that this begins with. */
static void link_tokens(struct special *s)
{
    int n = 0;

    for (int i = 0; i < s->n_tokens; i++) {
        struct special_token t = s->tokens[i];
        if (n && !compare_tokens(&s->tokens[n - 1], &t)) {
            s->tokens[n - 1].kinds |= t.kinds;
            continue;
        }
        t.prefix = n - 1;
        while (t.prefix >= 0 && !begins_with(t.text, s->tokens[t.prefix].text))
            t.prefix = s->tokens[t.prefix].prefix;
        s->tokens[n++] = t;
    }
    s->n_tokens = n;
}

static bool is_special(const struct vocab *v, int id)
{
    return (TOKEN_SET(v->kinds[id]) & (ALWAYS_KINDS | CONTROL_KINDS)) && v->texts[id].len;
}

void special_init(struct special *s, const struct vocab *v, bool eats_space_after)
{
    size_t n = 0;

    for (int i = 0; i < v->n; i++)
        n += is_special(v, i);
    *s = (struct special){ .eats_space_after = eats_space_after };
    s->starts = xcalloc(1 << 16, 1);
    s->tokens = xcalloc(n + 1, sizeof(*s->tokens));
    for (int i = 0; i < v->n; i++) {
        if (is_special(v, i))
            s->tokens[s->n_tokens++] = (struct special_token){ &v->texts[i], TOKEN_SET(v->kinds[i]), -1 };
    }
    qsort(s->tokens, (size_t)s->n_tokens, sizeof(*s->tokens), compare_tokens);
    link_tokens(s);
    for (int i = 0; i < s->n_tokens; i++)
        mark_start(s, &s->tokens[i]);
}

void special_fini(struct special *s)
{
    free(s->tokens);
    free(s->starts);
    *s = (struct special){ 0 };
}

static void push(struct fragment_list *l, size_t start, size_t len, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->items = xrealloc(l->items, l->cap * sizeof(*l->items));
    }
    l->items[l->n++] = (struct fragment){ start, len, id };
}

void fragment_list_fini(struct fragment_list *l)
{
    free(l->items);
    *l = (struct fragment_list){ 0 };
}

/* White space of the C locale, whatever locale the program runs in. */
static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Of Phi-3's special tokens three leave the white space behind them alone. */
static bool leaves_space_after(const struct vocab *v, int32_t id)
{
    return gguf_string_is(v->texts[id], "<s>") || gguf_string_is(v->texts[id], "<unk>") ||
           gguf_string_is(v->texts[id], "<|endoftext|>");
}

/* The last token, in their order, that is not behind this text: all that the text begins with are this one,
 * the one it begins with, and so on. -1: there is none. */
static int last_not_behind(const struct special *s, const char *text, size_t len)
{
    int low = 0, high = s->n_tokens;

    while (low < high) {
        int middle = low + (high - low) / 2;
        const struct gguf_string *t = s->tokens[middle].text;
        int order = memcmp(t->text, text, t->len < len ? t->len : len);
        if (order < 0 || (order == 0 && t->len <= len))
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

/* How many bytes a text has in common with a token, from the beginning. */
static size_t common_bytes(const struct gguf_string *token, const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && n < token->len && token->text[n] == text[n])
        n++;
    return n;
}

/* A token that fits at a place of the text. */
struct match {
    uint32_t at, len;
    int token;
};

/* One cut. The heap holds at most one match for a place, the longest that may still fit there. */
struct cut {
    const struct special *special;
    const struct vocab *vocab;
    unsigned kinds;
    const char *text;
    size_t len;
    uint8_t *covered;   /* [len], FREE or what is there */
    struct match *heap; /* [0] is the longest, of these the leftmost */
    size_t n_heap, heap_cap;
};

enum { FREE, COVERED, EATEN };

static bool is_before(const struct match *a, const struct match *b)
{
    return a->len > b->len || (a->len == b->len && a->at < b->at);
}

static void heap_push(struct cut *c, struct match e)
{
    if (c->n_heap == c->heap_cap) {
        c->heap_cap = c->heap_cap ? c->heap_cap * 2 : 64;
        c->heap = xrealloc(c->heap, c->heap_cap * sizeof(*c->heap));
    }
    size_t i = c->n_heap++;
    for (; i > 0 && is_before(&e, &c->heap[(i - 1) / 2]); i = (i - 1) / 2)
        c->heap[i] = c->heap[(i - 1) / 2];
    c->heap[i] = e;
}

static struct match heap_pop(struct cut *c)
{
    struct match best = c->heap[0], last = c->heap[--c->n_heap];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < c->n_heap; i = child) {
        if (child + 1 < c->n_heap && is_before(&c->heap[child + 1], &c->heap[child]))
            child++;
        if (!is_before(&c->heap[child], &last))
            break;
        c->heap[i] = c->heap[child];
    }
    c->heap[i] = last;
    return best;
}

/* Queues the longest match at a place that has at most `max` bytes: `token` or one it begins with. The text
 * there agrees with the token for so long. */
static void consider(struct cut *c, int token, size_t at, size_t max)
{
    const struct special_token *tokens = c->special->tokens;

    while (token >= 0 && (tokens[token].text->len > max || !(tokens[token].kinds & c->kinds)))
        token = tokens[token].prefix;
    if (token >= 0)
        heap_push(c, (struct match){ (uint32_t)at, (uint32_t)tokens[token].text->len, token });
}

static void find_matches(struct cut *c)
{
    const struct special *s = c->special;
    const unsigned char *p = (const unsigned char *)c->text;
    uint8_t bits = START_ALWAYS | (c->kinds & CONTROL_KINDS ? START_CONTROL : 0);

    for (size_t i = 0; i < c->len; i++) {
        if (!(s->starts[(size_t)p[i] << 8 | (i + 1 < c->len ? p[i + 1] : 0)] & bits))
            continue;
        int token = last_not_behind(s, c->text + i, c->len - i);
        if (token >= 0)
            consider(c, token, i, common_bytes(s->tokens[token].text, c->text + i, c->len - i));
    }
}

/* How many bytes are free from the match's place on; its first byte is, its last one is not. What covers it
 * is at least as long as the match, hence covers all from some place to the match's end. */
static size_t room_at(const struct cut *c, const struct match *e)
{
    size_t low = 1, high = e->len - 1;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c->covered[e->at + middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void take(struct cut *c, const struct match *e, struct fragment_list *out)
{
    int32_t id = vocab_find(c->vocab, c->text + e->at, e->len, c->kinds);
    size_t rest = (size_t)e->at + e->len;

    push(out, e->at, e->len, id);
    memset(c->covered + e->at, COVERED, e->len);
    bool eats = c->special->eats_space_after && !leaves_space_after(c->vocab, id);
    for (; eats && rest < c->len && c->covered[rest] == FREE && is_space(c->text[rest]); rest++)
        c->covered[rest] = EATEN;
}

/* Takes matches, the longest first. One that is partly covered waits again, shorter; as what covers it is
 * longer than the free part, the free part halves each time. */
static void take_matches(struct cut *c, struct fragment_list *out)
{
    while (c->n_heap) {
        struct match e = heap_pop(c);
        if (c->covered[e.at])
            continue;
        if (c->covered[e.at + e.len - 1])
            consider(c, e.token, e.at, room_at(c, &e));
        else
            take(c, &e, out);
    }
}

static int compare_starts(const void *left, const void *right)
{
    size_t l = ((const struct fragment *)left)->start, r = ((const struct fragment *)right)->start;

    return (l > r) - (l < r);
}

/* The tokens in their order, and between them the text that is left. */
static void fill_gaps(const struct cut *c, const struct fragment_list *taken, struct fragment_list *out)
{
    size_t at = 0;

    out->n = 0;
    for (size_t i = 0; i < taken->n; i++) {
        const struct fragment *f = &taken->items[i];
        if (f->start > at)
            push(out, at, f->start - at, -1);
        push(out, f->start, f->len, f->id);
        for (at = f->start + f->len; at < c->len && c->covered[at] == EATEN;)
            at++;
    }
    if (at < c->len)
        push(out, at, c->len - at, -1);
}

void special_cut(const struct special *s, const struct vocab *v, const char *text, size_t len,
                 bool with_control, struct fragment_list *out)
{
    unsigned kinds = ALWAYS_KINDS | (with_control ? CONTROL_KINDS : 0);
    struct cut c = { .special = s, .vocab = v, .kinds = kinds, .text = text, .len = len };
    struct fragment_list taken = { 0 };

    assert(len <= UINT32_MAX);
    find_matches(&c);
    if (c.n_heap) {
        c.covered = xcalloc(len, 1);
        take_matches(&c, &taken);
        qsort(taken.items, taken.n, sizeof(*taken.items), compare_starts);
    }
    fill_gaps(&c, &taken, out);
    free(c.covered);
    free(c.heap);
    fragment_list_fini(&taken);
}

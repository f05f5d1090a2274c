#include "worker/token/special.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define ALWAYS_KINDS  TOKEN_SET(TOKEN_USER_DEFINED)
#define CONTROL_KINDS (TOKEN_SET(TOKEN_CONTROL) | TOKEN_SET(TOKEN_UNKNOWN))

enum { START_ALWAYS = 1, START_CONTROL = 2 };

/* Notes the first two bytes of a token, or every second byte where it has one byte only. */
static void mark_start(struct special *s, const struct gguf_string *t, bool is_control)
{
    uint8_t bit = is_control ? START_CONTROL : START_ALWAYS;
    size_t first = (size_t)(unsigned char)t->text[0] << 8;

    for (size_t second = 0; second < 256; second++) {
        if (t->len == 1 || second == (unsigned char)t->text[1])
            s->starts[first | second] |= bit;
    }
}

/* The entries of lengths that exist, found through by_len, become the sorted array. */
void special_init(struct special *s, const struct vocab *v, bool eats_space_after)
{
    struct special_length **by_len = xcalloc(VOCAB_MAX_TOKEN_BYTES + 1, sizeof(struct special_length *));

    *s = (struct special){ .eats_space_after = eats_space_after };
    s->starts = xcalloc(1 << 16, 1);
    for (int i = 0; i < v->n; i++) {
        const struct gguf_string *t = &v->texts[i];
        unsigned kind = TOKEN_SET(v->kinds[i]);
        if (!(kind & (ALWAYS_KINDS | CONTROL_KINDS)) || !t->len)
            continue;
        if (!by_len[t->len]) {
            by_len[t->len] = xcalloc(1, sizeof(**by_len));
            s->n_lengths++;
        }
        struct special_length *l = by_len[t->len];
        l->len = (uint32_t)t->len;
        l->kinds |= kind;
        mark_start(s, t, !(kind & ALWAYS_KINDS));
        l->first[(unsigned char)t->text[0]] = true;
        l->last[(unsigned char)t->text[t->len - 1]] = true;
    }
    s->lengths = xcalloc((size_t)s->n_lengths, sizeof(*s->lengths));
    for (int len = VOCAB_MAX_TOKEN_BYTES, n = 0; len > 0; len--) {
        if (by_len[len])
            s->lengths[n++] = *by_len[len];
        free(by_len[len]);
    }
    free(by_len);
}

void special_fini(struct special *s)
{
    free(s->lengths);
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

/* The places of a text where a special token may begin; the last entry is the end of the text. */
struct places {
    size_t *at;
    size_t n, cap;
};

static void add_place(struct places *p, size_t at)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 64;
        p->at = xrealloc(p->at, p->cap * sizeof(*p->at));
    }
    p->at[p->n++] = at;
}

static void find_places(const struct special *s, unsigned kinds, const char *text, size_t len,
                        struct places *out)
{
    uint8_t bits = START_ALWAYS | (kinds & CONTROL_KINDS ? START_CONTROL : 0);
    const unsigned char *p = (const unsigned char *)text;

    for (size_t i = 0; i < len; i++) {
        if (s->starts[(size_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0)] & bits)
            add_place(out, i);
    }
    add_place(out, len);
}

/* Of Phi-3's special tokens three leave the white space behind them alone. */
static bool leaves_space_after(const struct vocab *v, int32_t id)
{
    return gguf_string_is(v->texts[id], "<s>") || gguf_string_is(v->texts[id], "<unk>") ||
           gguf_string_is(v->texts[id], "<|endoftext|>");
}

/* Cuts one stretch of text at the tokens of one length. *place is the next one that may matter. */
static void cut_text(const struct special *s, const struct special_length *l, const struct vocab *v,
                     unsigned kinds, const char *text, const struct fragment *f, const size_t **place,
                     struct fragment_list *out)
{
    size_t end = f->start + f->len, rest = f->start;

    for (; **place + l->len <= end; (*place)++) {
        size_t at = **place;
        if (at < rest || !l->first[(unsigned char)text[at]] || !l->last[(unsigned char)text[at + l->len - 1]])
            continue;
        int32_t id = vocab_find(v, text + at, l->len, kinds);
        if (id < 0)
            continue;
        if (at > rest)
            push(out, rest, at - rest, -1);
        push(out, at, l->len, id);
        rest = at + l->len;
        bool eats = s->eats_space_after && !leaves_space_after(v, id);
        while (eats && rest < end && is_space(text[rest]))
            rest++;
    }
    if (rest < end)
        push(out, rest, end - rest, -1);
}

/* One pass over the fragments for the tokens of one length. */
static void cut_all(const struct special *s, const struct special_length *l, const struct vocab *v,
                    unsigned kinds, const char *text, const struct places *places,
                    const struct fragment_list *in, struct fragment_list *out)
{
    const size_t *place = places->at;

    out->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        const struct fragment *f = &in->items[i];
        if (f->id < 0)
            cut_text(s, l, v, kinds, text, f, &place, out);
        else
            push(out, f->start, f->len, f->id);
    }
}

void special_cut(const struct special *s, const struct vocab *v, const char *text, size_t len,
                 bool with_control, struct fragment_list *out)
{
    unsigned kinds = ALWAYS_KINDS | (with_control ? CONTROL_KINDS : 0);
    struct fragment_list next = { 0 };
    struct places places = { 0 };

    out->n = 0;
    if (len)
        push(out, 0, len, -1);
    find_places(s, kinds, text, len, &places);
    for (int i = 0; i < s->n_lengths && places.n > 1; i++) {
        if (!(s->lengths[i].kinds & kinds))
            continue;
        cut_all(s, &s->lengths[i], v, kinds, text, &places, out, &next);
        struct fragment_list swap = *out;
        *out = next;
        next = swap;
    }
    free(places.at);
    fragment_list_fini(&next);
}

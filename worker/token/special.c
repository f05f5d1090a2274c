#include "worker/token/special.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

#define ALWAYS_KINDS  TOKEN_SET(TOKEN_USER_DEFINED)
#define CONTROL_KINDS (TOKEN_SET(TOKEN_CONTROL) | TOKEN_SET(TOKEN_UNKNOWN))

/* The entries of lengths that exist, found through by_len, become the sorted array. */
void special_init(struct special *s, const struct vocab *v, bool eats_space_after)
{
    struct special_length **by_len = xcalloc(VOCAB_MAX_TOKEN_BYTES + 1, sizeof(struct special_length *));

    *s = (struct special){ .eats_space_after = eats_space_after };
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

/* Cuts one stretch of text at the tokens of one length. */
static void cut_text(const struct special *s, const struct special_length *l, const struct vocab *v,
                     unsigned kinds, const char *text, const struct fragment *f, struct fragment_list *out)
{
    size_t end = f->start + f->len, rest = f->start;

    for (size_t at = f->start; at + l->len <= end;) {
        bool may_match = l->first[(unsigned char)text[at]] && l->last[(unsigned char)text[at + l->len - 1]];
        int32_t id = may_match ? vocab_find(v, text + at, l->len, kinds) : -1;
        if (id < 0) {
            at++;
            continue;
        }
        if (at > rest)
            push(out, rest, at - rest, -1);
        push(out, at, l->len, id);
        at += l->len;
        while (s->eats_space_after && at < end && is_space(text[at]))
            at++;
        rest = at;
    }
    if (rest < end)
        push(out, rest, end - rest, -1);
}

void special_cut(const struct special *s, const struct vocab *v, const char *text, size_t len,
                 bool with_control, struct fragment_list *out)
{
    unsigned kinds = ALWAYS_KINDS | (with_control ? CONTROL_KINDS : 0);
    struct fragment_list next = { 0 };

    out->n = 0;
    if (len)
        push(out, 0, len, -1);
    for (int i = 0; i < s->n_lengths; i++) {
        const struct special_length *l = &s->lengths[i];
        if (!(l->kinds & kinds))
            continue;
        next.n = 0;
        for (size_t f = 0; f < out->n; f++) {
            if (out->items[f].id < 0)
                cut_text(s, l, v, kinds, text, &out->items[f], &next);
            else
                push(&next, out->items[f].start, out->items[f].len, out->items[f].id);
        }
        struct fragment_list swap = *out;
        *out = next;
        next = swap;
    }
    fragment_list_fini(&next);
}

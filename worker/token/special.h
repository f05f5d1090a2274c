/* Cuts text at the tokens that are matched whole, before anything is merged: user-defined tokens always,
 * control and unknown tokens where the caller asks for it.
 *
 * Longer tokens are looked for first, over the whole text, and what they cover is out of reach of shorter
 * ones; among tokens of one length the leftmost match counts. Read-only after special_init. */
#ifndef WOOLLY_TOKEN_SPECIAL_H
#define WOOLLY_TOKEN_SPECIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/token/vocab.h"

/* All the special tokens of one length, with what rules out most places of a text at a glance. */
struct special_length {
    uint32_t len;
    unsigned kinds; /* TOKEN_SET of those present */
    bool first[256], last[256];
};

struct special {
    struct special_length *lengths; /* longest first */
    int n_lengths;
    uint8_t *starts;       /* [first byte << 8 | second]: whether such a token begins so */
    bool eats_space_after; /* white space behind a special token is dropped */
};

/* A stretch of text, or one token. */
struct fragment {
    size_t start, len;
    int32_t id; /* -1: text */
};

struct fragment_list {
    struct fragment *items;
    size_t n, cap;
};

void special_init(struct special *s, const struct vocab *v, bool eats_space_after);
void special_fini(struct special *s);

/* Fills *out, which the caller frees with fragment_list_fini. Time O(len * number of lengths). */
void special_cut(const struct special *s, const struct vocab *v, const char *text, size_t len,
                 bool with_control, struct fragment_list *out);
void fragment_list_fini(struct fragment_list *l);

#endif

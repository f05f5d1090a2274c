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

struct special_token {
    const struct gguf_string *text;
    unsigned kinds; /* TOKEN_SET of those spelled so */
    int prefix;     /* index of the longest other token that this one begins with, or -1 */
};

struct special {
    struct special_token *tokens; /* each spelling once, in the order of their bytes */
    int n_tokens;
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

/* Keeps pointers to the texts of v, which must outlive *s. */
void special_init(struct special *s, const struct vocab *v, bool eats_space_after);
void special_fini(struct special *s);

/* Fills *out, which the caller frees with fragment_list_fini. Time O(len log len), times what a hostile file
 * may make of it: as many steps for each byte of text as its longest token has bytes. */
void special_cut(const struct special *s, const struct vocab *v, const char *text, size_t len,
                 bool with_control, struct fragment_list *out);
void fragment_list_fini(struct fragment_list *l);

#endif

/* The vocabulary sorted by the bytes of its tokens: all tokens that begin with a string, or that equal it,
 * lie side by side. Tokens without bytes, such as control tokens, are not in it. Created once, read-only
 * then; any thread, any forked child. */
#ifndef WOOLLY_TOKEN_BYTE_ORDER_H
#define WOOLLY_TOKEN_BYTE_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "worker/token/tokenizer.h"

struct byte_order;

struct byte_range {
    int first, end; /* empty where they are equal */
};

/* The tokenizer must outlive it. */
struct byte_order *byte_order_create(const struct tokenizer *t);
void byte_order_destroy(struct byte_order *o);

int byte_order_count(const struct byte_order *o);

/* [byte_order_count] in the order of the bytes; equal ones by id. */
const int32_t *byte_order_ids(const struct byte_order *o);

/* The tokens whose bytes begin with these; all, where len is 0. */
struct byte_range byte_order_prefix(const struct byte_order *o, const char *bytes, size_t len);

/* The tokens whose bytes are these. */
struct byte_range byte_order_equal(const struct byte_order *o, const char *bytes, size_t len);

#endif

/* Tokens kept until they can be told at once: ids, text, details. Growth keeps its memory for the next use of
 * the same struct. Zero-initialised it is empty and valid. */
#ifndef WOOLLY_BROKER_COLLECTED_H
#define WOOLLY_BROKER_COLLECTED_H

#include "proto/messages.h"

struct collected {
    struct buffer ids;          /* int32_t */
    struct buffer text;         /* UTF-8 */
    struct buffer bytes;        /* of all tokens and alternatives, one after the other */
    struct buffer alternatives; /* struct token_alternative; bytes.data is NULL until collected_fill */
    struct buffer details;      /* struct token_detail; so are its pointers */
};

void collected_fini(struct collected *c);
void collected_clear(struct collected *c);

/* What it takes, about as many bytes as it will be in a message. */
size_t collected_size(const struct collected *c);

/* How many msgpack objects it will be in a message: with many alternatives that bound comes first. */
size_t collected_objects(const struct collected *c);

/* details: struct token_detail. */
void collected_add(struct collected *c, struct id_array ids, struct slice text, struct struct_array details);

/* What was added, in c, valid until c changes. Call it once, at the end. */
void collected_fill(struct collected *c, struct id_array *ids, struct slice *text,
                    struct struct_array *details);

#endif

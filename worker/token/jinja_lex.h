/* Cuts the text of a template into tokens: Jinja2's rules for white space under trim_blocks and
 * lstrip_blocks are applied here, comments and raw blocks are gone afterwards. */
#ifndef WOOLLY_TOKEN_JINJA_LEX_H
#define WOOLLY_TOKEN_JINJA_LEX_H

#include "worker/token/jinja_value.h"

enum jinja_token_kind {
    JINJA_TOKEN_TEXT,        /* to be printed as it is */
    JINJA_TOKEN_PRINT_BEGIN, /* {{ */
    JINJA_TOKEN_PRINT_END,
    JINJA_TOKEN_BLOCK_BEGIN, /* {% */
    JINJA_TOKEN_BLOCK_END,
    JINJA_TOKEN_NAME,
    JINJA_TOKEN_LITERAL, /* a string or a number */
    JINJA_TOKEN_OPERATOR,
    JINJA_TOKEN_END,
};

/* Of two characters: "//" is JINJA_OP('/', '/'), "+" is '+'. */
#define JINJA_OP(a, b) ((a) | (b) << 8)

struct jinja_token {
    uint8_t kind;
    uint16_t op;
    struct jinja_place at;
    struct jinja_value value; /* of text, names and literals */
};

/* The tokens of text, the last one JINJA_TOKEN_END, all in the arena of r. Fails by jinja_fail. */
const struct jinja_token *jinja_lex(struct jinja_run *r, const char *text, size_t len);

/* "'+'", "name 'x'", ...: for errors; out holds 80 bytes. */
const char *jinja_token_describe(const struct jinja_token *t, char *out);

#endif

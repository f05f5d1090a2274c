/* UTF-8, as in RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef WOOLLY_COMMON_UTF8_H
#define WOOLLY_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one code point from text[0..len). Returns the bytes it takes (1 to 4), 0 when the text ends inside a
 * sequence that could still become valid, or -1 when text[0] starts no valid sequence. *code may be NULL. */
int utf8_next(const char *text, size_t len, uint32_t *code);

/* Writes `code` to out (room for 4 bytes); returns the bytes written. */
int utf8_put(uint32_t code, char *out);

bool utf8_is_valid(const char *text, size_t len);

#endif

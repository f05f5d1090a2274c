/* Byte-level vocabularies write every byte as a letter: a byte that is a visible character of Latin-1 as that
 * character, the others as U+0100 and on. So "Ġ" is a space and "Ċ" a newline. */
#ifndef WOOLLY_TOKEN_BYTE_LETTERS_H
#define WOOLLY_TOKEN_BYTE_LETTERS_H

#include <stddef.h>

/* Writes the letters of len bytes to out, which has room for 2 * len; returns how many bytes they take. */
size_t byte_letters_put(const char *bytes, size_t len, char *out);

/* Writes the bytes that the letters stand for to out, which has room for len; what is no such letter stays
 * as it is. Returns how many. */
size_t byte_letters_read(const char *letters, size_t len, char *out);

#endif

/* A growable run of bytes. Zero-initialised it is empty and valid; the owner calls buffer_fini.
 * Growth keeps the memory for the next use: buffer_clear forgets the bytes, not the room, so that a buffer
 * reused per message stops allocating after the first few. */
#ifndef WOOLLY_COMMON_BUFFER_H
#define WOOLLY_COMMON_BUFFER_H

#include <stddef.h>

struct buffer {
    char *data;
    size_t len;
    size_t cap;
};

void buffer_fini(struct buffer *b);
void buffer_clear(struct buffer *b);

/* Room for `more` bytes after len; returns where they go. Does not change len. */
char *buffer_reserve(struct buffer *b, size_t more);
void buffer_append(struct buffer *b, const void *bytes, size_t len);
void buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Removes the first n bytes. */
void buffer_consume(struct buffer *b, size_t n);

#endif

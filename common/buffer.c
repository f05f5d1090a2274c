#include "common/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

void buffer_fini(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){ 0 };
}

void buffer_clear(struct buffer *b)
{
    b->len = 0;
}

char *buffer_reserve(struct buffer *b, size_t more)
{
    assert(more <= (size_t)-1 / 4 && b->len <= (size_t)-1 / 4);
    if (b->cap - b->len < more) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap - b->len < more)
            cap *= 2;
        b->data = xrealloc(b->data, cap);
        b->cap = cap;
    }
    return b->data + b->len;
}

void buffer_append(struct buffer *b, const void *bytes, size_t len)
{
    if (len) {
        memcpy(buffer_reserve(b, len), bytes, len);
        b->len += len;
    }
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(n >= 0);
    vsnprintf(buffer_reserve(b, (size_t)n + 1), (size_t)n + 1, format, again);
    va_end(again);
    b->len += (size_t)n;
}

void buffer_consume(struct buffer *b, size_t n)
{
    assert(n <= b->len);
    if (n) {
        memmove(b->data, b->data + n, b->len - n);
        b->len -= n;
    }
}

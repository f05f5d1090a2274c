#include "common/xalloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p, size_t bytes)
{
    if (!p && bytes) {
        fprintf(stderr, "woolly: out of memory for %zu bytes\n", bytes);
        abort();
    }
    return p;
}

void *xmalloc(size_t bytes)
{
    return checked(malloc(bytes), bytes);
}

void *xcalloc(size_t count, size_t bytes)
{
    return checked(calloc(count, bytes), count && bytes);
}

void *xrealloc(void *old, size_t bytes)
{
    return checked(realloc(old, bytes), bytes);
}

char *xstrdup(const char *text)
{
    return checked(strdup(text), 1);
}

char *xstrndup(const char *text, size_t bytes)
{
    return checked(strndup(text, bytes), 1);
}

char *xasprintf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    return checked(n < 0 ? NULL : text, 1);
}

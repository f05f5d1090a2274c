/* Allocation of small control memory: stops the program with one line when there is none.
 * Big memory (weights, caches, scratch) is taken with malloc or mmap by its owner and reported as E_NOMEM. */
#ifndef WOOLLY_COMMON_XALLOC_H
#define WOOLLY_COMMON_XALLOC_H

#include <stddef.h>

void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes);
void *xrealloc(void *old, size_t bytes);
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t bytes);
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif

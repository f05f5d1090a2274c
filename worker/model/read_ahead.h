/* Reads parts of files before they are used, by a thread of its own, so that they are in the page cache. One
 * stream of plain reads is what disks and the kernel are fastest with, several times faster than the page
 * faults of threads that jump about in a map. */
#ifndef WOOLLY_MODEL_READ_AHEAD_H
#define WOOLLY_MODEL_READ_AHEAD_H

#include <stddef.h>
#include <stdint.h>

struct file_part {
    int fd; /* -1: there is nothing to read */
    uint64_t offset, bytes;
};

struct read_ahead;

/* Begins to read n parts, in order, which must outlive it. NULL where there can be no thread: then the parts
 * are read when they are used. */
struct read_ahead *read_ahead_begin(const struct file_part *parts, size_t n);

/* The first n_used parts are used up: it may go on. NULL is fine, here and below. */
void read_ahead_used(struct read_ahead *r, size_t n_used);

void read_ahead_end(struct read_ahead *r);

#endif

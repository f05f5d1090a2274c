#include "worker/model/read_ahead.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/xalloc.h"

/* What it is ahead at most, so that memory holds little of the file at a time, and what it reads at once. */
enum { MOST_AHEAD = 256 << 20, PIECE = 1 << 20 };

struct read_ahead {
    const struct file_part *parts;
    size_t n;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t used; /* bytes */
    size_t n_used; /* parts */
    bool is_ending;
    char *room; /* [PIECE] what is read goes here, for nothing but the page cache's sake */
};

/* False at the end. */
static bool wait_for_room(struct read_ahead *r, uint64_t read)
{
    pthread_mutex_lock(&r->lock);
    while (!r->is_ending && read > r->used + MOST_AHEAD)
        pthread_cond_wait(&r->changed, &r->lock);
    bool goes_on = !r->is_ending;
    pthread_mutex_unlock(&r->lock);
    return goes_on;
}

static void *read_all(void *arg)
{
    struct read_ahead *r = arg;
    uint64_t read = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct file_part *p = &r->parts[i];
        for (uint64_t at = 0; at < p->bytes; at += PIECE) {
            uint64_t bytes = p->bytes - at < PIECE ? p->bytes - at : PIECE;
            if (!wait_for_room(r, read + bytes))
                return NULL;
            /* What cannot be read here will be noticed where it is used. */
            if (p->fd < 0 || pread(p->fd, r->room, bytes, (off_t)(p->offset + at)) < 0)
                return NULL;
            read += bytes;
        }
    }
    return NULL;
}

struct read_ahead *read_ahead_begin(const struct file_part *parts, size_t n)
{
    struct read_ahead *r = xcalloc(1, sizeof *r);
    *r = (struct read_ahead){ .parts = parts, .n = n, .room = xmalloc(PIECE) };
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    if (pthread_create(&r->thread, NULL, read_all, r) == 0)
        return r;
    free(r->room);
    free(r);
    return NULL;
}

void read_ahead_used(struct read_ahead *r, size_t n_used)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    for (; r->n_used < n_used; r->n_used++)
        r->used += r->parts[r->n_used].bytes;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void read_ahead_end(struct read_ahead *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->is_ending = true;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->room);
    free(r);
}

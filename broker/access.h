/* Whose connections are taken on TCP: a file with one line for each key,
 *
 *     client NAME KEY
 *     worker NAME KEY
 *
 * and "#" at the beginning of comments. A key opens the side it is listed for: who may ask may not answer.
 * NAME is for the log. Next to it the handler that ZeroMQ asks about every key that wants in (ZAP, ZeroMQ RFC
 * 27), part of the broker's loop. */
#ifndef WOOLLY_BROKER_ACCESS_H
#define WOOLLY_BROKER_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { MAX_KEY_NAME = 64 };

/* As the sides are called in the file, and in ZAP requests. */
extern const char access_client[], access_worker[];

struct access_list {
    struct access_row *rows;
    size_t n;
};

MUST_CHECK enum status access_read(struct access_list *list, const char *path, struct error *err);
void access_free(struct access_list *list);

/* The name of a key on a side; NULL when it is not listed. */
const char *access_find(const struct access_list *list, const char *side, const char *key);

struct gatekeeper {
    void *socket; /* readable when there is something to answer */
    struct access_list list;
    int64_t refused_ms; /* when a refusal was logged last, and how many were not since */
    unsigned n_unlogged;
};

/* Before the first wire_bind with a key in that context. Takes over the list. */
MUST_CHECK enum status gatekeeper_open(struct gatekeeper *g, void *context, struct access_list list,
                                       struct error *err);

/* Answers everything that is there. */
void gatekeeper_answer(struct gatekeeper *g, int64_t now_ms);

/* The file changed: counts for the next connections; those that are there stay. */
void gatekeeper_replace(struct gatekeeper *g, struct access_list list);

/* After the sockets it guards. Zero-initialised it may be closed. */
void gatekeeper_close(struct gatekeeper *g);

#endif

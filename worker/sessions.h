/* Saved sessions of a worker: what it has computed of a conversation is kept in a file (worker/kv/saved.h),
 * so that the conversation goes on quickly after a restart, in another worker, or when its pages had to make
 * room.
 *
 *     FOLDER/<model>-<hash of model, salt and name>.kv
 *
 * Reading happens at once, in the caller. Writing is for a thread of its own, of the least priority: a slot
 * that nobody else uses holds the pages until they are written, and pages in use that are published are never
 * changed, so the thread reads them without a lock. What cannot be written or read is lost and logged;
 * nothing depends on it. One thread calls everything here, that of the cache. */
#ifndef WOOLLY_WORKER_SESSIONS_H
#define WOOLLY_WORKER_SESSIONS_H

#include "common/status.h"
#include "proto/schema.h"
#include "worker/kv/prefix.h"

/* Slots of the cache that belong to the sessions: one to read into, the others hold what is to be written.
 * With as many waiting already, another one is not written. */
enum { SESSIONS_SLOTS = 1 + 8 };

struct sessions;

/* Its slots are first_slot and those behind it. The folder is made if need be. `fingerprint` is the engine's;
 * `model` is a name for people. */
MUST_CHECK enum status sessions_create(struct sessions **out, struct kv_cache *c, int first_slot,
                                       uint64_t fingerprint, const char *folder, const char *model,
                                       struct error *err);

/* Waits until everything is written. NULL is fine. */
void sessions_destroy(struct sessions *s);

/* Publishes the pages that the session's file holds, if there is one. Takes as long as the disk does. */
void sessions_read(struct sessions *s, struct slice name, const struct kv_salt *salt);

/* Has the published pages at the slot's beginning written. The slot may go on at once. */
void sessions_write(struct sessions *s, int slot, struct slice name, const struct kv_salt *salt);

/* Gives back pages that are written by now. If there are none, but some are on their way, waits for them: at
 * most max_wait_ms. */
void sessions_collect(struct sessions *s, int max_wait_ms);

#endif

/* Published pages in a file, so that the work on a long prompt outlives the process. The file holds a slot's
 * pages from its beginning, with their tokens and the salt, and says for which model and layout they are.
 *
 * A file appears by a rename once it is whole and on disk. Reading believes nothing: sizes and facts are
 * compared before a page is read, each page with its tokens has a checksum, and it is published only if that
 * is right. That finds damage, not malice: who can write to the file can change the model's answers to
 * prompts with its salt. */
#ifndef WOOLLY_KV_SAVED_H
#define WOOLLY_KV_SAVED_H

#include "worker/kv/prefix.h"

/* Writes the published pages at the slot's beginning; none is E_INVALID. `model` tells the model and what
 * else keys and values depend on from others. Takes as long as the disk does. */
MUST_CHECK enum status kv_saved_write(const struct kv_cache *c, int slot, uint64_t model, const char *path,
                                      struct error *err);

/* Publishes the pages of the file. `spare_slot` is empty before and after. As many of them as there is room
 * for, from the beginning; *n_tokens says how many tokens they hold, also when a later page is damaged.
 * E_FORMAT for a file that is damaged or none of ours, E_UNSUPPORTED for one of another model or kind of
 * cache. */
MUST_CHECK enum status kv_saved_read(struct kv_cache *c, int spare_slot, uint64_t model, const char *path,
                                     int *n_tokens, struct error *err);

#endif

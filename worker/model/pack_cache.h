/* Inside of the model folder: packed weights kept in a file, so that the next start maps instead of packing.
 *
 * A file belongs to a model file in one state. It records
 *   - the layout's version. Packed weights are the same for every instruction set.
 *   - the identity of the source: a checksum of sizes and headers (metadata and tensor directory) of all its
 *     parts, and of type, shape and place of every packed matrix
 *   - when its parts were last changed
 *   - a checksum of the source's weights, taken while they were packed
 *   - the packed bytes' number and their checksum.
 * To read all of the source again would take what the file is to save. So a start compares identity and
 * times; like every tool that goes by times it trusts that who changes a file changes its time. Where only
 * the time differs, as after a copy, the weights are packed again; if their checksum is the same, the file
 * just gets the new time. What is mapped is read once and its checksum compared, by all cores: some 0.2 s for
 * 4 GB in memory, and those are pages the first token reads anyway.
 *
 * What is wrong with a file costs a line in the log, and the file is written anew. Processes may share a
 * folder: a file appears by a rename once it is whole and on disk, and only one process at a time writes it.
 * As with a model file, a file that is cut off while it is mapped ends the process. */
#ifndef WOOLLY_MODEL_PACK_CACHE_H
#define WOOLLY_MODEL_PACK_CACHE_H

#include "worker/model/pool.h"
#include "worker/model/reader.h"

struct pack_cache;

/* `shapes` is a checksum of the matrices, `bytes` their packed size. The folder is the reader's option. */
struct pack_cache *pack_cache_create(const struct reader *r, uint64_t shapes, uint64_t bytes);
void pack_cache_destroy(struct pack_cache *c);

/* Maps the file where it holds this source's packed weights; they begin at *first, 64-byte aligned. Options
 * are for progress, here and below. */
bool pack_cache_map(struct pack_cache *c, struct pool *pool, const struct model_options *options,
                    struct packed_map *out, const char **first);

/* What is to be written: it stays where it is as long as the cache. */
void pack_cache_take(struct pack_cache *c, const char *packed, uint64_t source_checksum);

/* Writes the file with one thread. It does not take away memory or disk from others for long: never are more
 * than two parts of the file on the way to the disk. Between two parts it asks whether it is told to stop. */
void pack_cache_write(const struct pack_cache *c, const struct model_options *options,
                      bool (*is_told_to_stop)(void));

#endif

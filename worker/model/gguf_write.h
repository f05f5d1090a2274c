/* Writes a GGUF v3 file so that there is never half of one under its name: everything goes to a temporary
 * file in the same folder, which takes the name once it is complete and on the disk. One thread.
 *
 * Order of calls: create; all keys; all tensors; the data of each tensor in that order, in pieces of any
 * size; then commit. destroy at any point removes what was not committed. */
#ifndef WOOLLY_MODEL_GGUF_WRITE_H
#define WOOLLY_MODEL_GGUF_WRITE_H

#include "worker/model/gguf.h"

struct gguf_writer;

/* Refuses a path that is there and no regular file. alignment: of the data, a power of two from 8 up. On
 * failure *out is NULL. */
MUST_CHECK enum status gguf_writer_create(struct gguf_writer **out, const char *path, uint32_t alignment,
                                          struct error *err);
void gguf_writer_destroy(struct gguf_writer *w);

void gguf_writer_put(struct gguf_writer *w, struct gguf_string key, const struct gguf_value *value);
void gguf_writer_put_u32(struct gguf_writer *w, const char *key, uint32_t value);

/* dims[0] is a multiple of the type's block. */
void gguf_writer_add_tensor(struct gguf_writer *w, struct gguf_string name, enum weight_type type, int n_dims,
                            const uint64_t *dims);

/* The next bytes of the tensors' data. E_IO when they cannot be written. */
MUST_CHECK enum status gguf_writer_data(struct gguf_writer *w, const void *bytes, uint64_t len,
                                        struct error *err);

/* All data must have been given. Afterwards the file is there under its name, in place of what was. */
MUST_CHECK enum status gguf_writer_commit(struct gguf_writer *w, struct error *err);

#endif

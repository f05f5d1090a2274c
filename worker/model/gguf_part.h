/* One GGUF file: mapped, read and checked. What the reader in gguf.c joins to a model; nothing else includes
 * this. */
#ifndef WOOLLY_MODEL_GGUF_PART_H
#define WOOLLY_MODEL_GGUF_PART_H

#include "worker/model/gguf.h"
#include "worker/model/gguf_index.h"

struct gguf_part {
    char *shown; /* the path as error texts show it */
    const char *bytes;
    uint64_t len;
    uint64_t header_len; /* where tensors' data may begin */
    int64_t modified_ns; /* of a file */
    bool is_mapped;      /* from fd; gguf_part_close ends both */
    int fd;
    uint32_t version;

    struct gguf_entry *entries;
    uint64_t n_entries;
    struct gguf_tensor *tensors;
    uint64_t n_tensors;
    struct gguf_index keys;
};

/* Maps and reads the file. On failure *p is closed. */
MUST_CHECK enum status gguf_part_open(struct gguf_part *p, const char *path, struct error *err);
MUST_CHECK enum status gguf_part_open_memory(struct gguf_part *p, const void *bytes, size_t len,
                                             struct error *err);
void gguf_part_close(struct gguf_part *p);

/* Reads header, metadata and tensor directory of p->bytes into the rest of *p. On failure the caller closes
 * it. */
MUST_CHECK enum status gguf_part_read(struct gguf_part *p, struct error *err);

const struct gguf_value *gguf_part_find(const struct gguf_part *p, const char *key);
MUST_CHECK enum status gguf_part_get_u64(const struct gguf_part *p, const char *key, uint64_t *out,
                                         struct error *err);

/* "PATH: key "KEY" at offset N: PROBLEM", for a value that is well formed but wrong. */
MUST_CHECK enum status gguf_part_blame_key(const struct gguf_part *p, const char *key, enum status status,
                                           struct error *err, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* One number of the kind, which lies at `bytes`, into value->u, i or f. */
void gguf_decode(struct gguf_value *value, enum gguf_kind kind, const void *bytes);
size_t gguf_kind_bytes(enum gguf_kind kind);

#endif

/* The GGUF reader: maps a model file (v2 or v3, little-endian, also split into -0000i-of-0000n parts), checks
 * everything in it against its length and against itself, and then hands out pointers into the map.
 *
 * After gguf_open has returned OK, every string, array and tensor of the handle lies inside the map, every
 * count was verified, and every tensor's bytes equal what its type and shape ask for: users need no checks of
 * bounds, only of meaning. Pages are read when touched. The handle is read-only and may be used by any thread
 * and, after a fork, by any child. */
#ifndef WOOLLY_MODEL_GGUF_H
#define WOOLLY_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/kernels/weight.h"

enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

/* Text inside the map: not terminated, any bytes. */
struct gguf_string {
    const char *text;
    uint64_t len;
};

struct gguf_value {
    enum gguf_kind kind;
    enum gguf_kind element; /* of an array */
    uint64_t count;         /* of an array */
    uint64_t offset;        /* in the file, of the value */
    union {
        uint64_t u; /* every unsigned kind, and bool as 0 or 1 */
        int64_t i;  /* every signed kind */
        double f;   /* F32 and F64 */
        struct gguf_string string;
        const void *elements;              /* array of numbers: packed, little-endian, maybe unaligned */
        const struct gguf_string *strings; /* array of strings */
    };
};

struct gguf_entry {
    struct gguf_string key;
    struct gguf_value value;
};

enum { GGUF_MAX_DIMS = 4 };

struct gguf_tensor {
    struct gguf_string name;
    enum weight_type type;
    int n_dims;
    uint64_t dims[GGUF_MAX_DIMS]; /* dims[0] is the contiguous one; unused ones are 1 */
    const void *data;             /* in the map, aligned to the file's alignment (8 bytes at least) */
    uint64_t bytes;
    uint64_t offset; /* of the data, in its file */
    int part;        /* which file of a split model */
};

/* What tells a part from others, and from itself when it is changed. */
struct gguf_origin {
    const void *bytes;     /* the map */
    uint64_t header_bytes; /* of it, all before the tensors' data */
    uint64_t file_bytes;
    int64_t modified_ns; /* since 1970; 0 for a file that lies in memory */
    int fd;              /* open for reading as long as the handle; -1 for a file that lies in memory */
};

struct gguf;

/* Opens the file, or every part when it is one part of a split model (any part may be named). On failure *out
 * is NULL and err holds one line that names file, field and offset. */
MUST_CHECK enum status gguf_open(struct gguf **out, const char *path, struct error *err);

/* As gguf_open for a file that lies in memory, which must outlive the handle. Tensors are as well aligned as
 * `bytes` is. For the fuzzer and tests. */
MUST_CHECK enum status gguf_open_memory(struct gguf **out, const void *bytes, size_t len, struct error *err);
void gguf_close(struct gguf *g);

const char *gguf_path(const struct gguf *g); /* as it was named to gguf_open */
uint32_t gguf_version(const struct gguf *g);
uint64_t gguf_file_bytes(const struct gguf *g); /* all parts */
int gguf_n_parts(const struct gguf *g);
struct gguf_origin gguf_origin(const struct gguf *g, int part);

/* The metadata of a split model is that of its first part. */
uint64_t gguf_n_entries(const struct gguf *g);
const struct gguf_entry *gguf_entry(const struct gguf *g, uint64_t i);
uint64_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, uint64_t i);

/* NULL when there is none. Both are hash lookups. */
const struct gguf_value *gguf_find(const struct gguf *g, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* Typed reads of a value, converting between the integer kinds and between the float kinds where nothing is
 * lost. E_NOTFOUND without an error text when the key is absent (*out keeps its value, so a default can be
 * set first); E_FORMAT with one when it is of another kind or out of range. */
MUST_CHECK enum status gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err);
MUST_CHECK enum status gguf_get_double(const struct gguf *g, const char *key, double *out, struct error *err);
MUST_CHECK enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err);
MUST_CHECK enum status gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                                       struct error *err);

/* Elements of a numeric array, converted; i < count. What no int64_t can hold becomes the nearest one. */
double gguf_array_double(const struct gguf_value *array, uint64_t i);
int64_t gguf_array_int(const struct gguf_value *array, uint64_t i);

bool gguf_string_is(struct gguf_string s, const char *text);

/* Writes s for a person's eyes: valid UTF-8 stays, control characters and broken bytes become escapes, what
 * does not fit in `size` (8 at least) becomes "...". Returns out. */
const char *gguf_printable(struct gguf_string s, char *out, size_t size);
const char *gguf_kind_name(enum gguf_kind kind);

#endif

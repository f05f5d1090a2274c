/* Messages as tables: one row per field says its key, type, place in a C struct and bounds, and both
 * directions of the codec follow from it. The bytes are msgpack
 * (https://github.com/msgpack/msgpack/blob/master/spec.md).
 *
 * Decoding trusts nothing: the whole message is checked for structure, depth and number of objects before it
 * is unpacked, every field for type and range; unknown keys are skipped. What a decoded struct points to lies
 * in the message's bytes or in the decoder, until the next decode with it. In steady state neither direction
 * allocates. */
#ifndef WOOLLY_PROTO_SCHEMA_H
#define WOOLLY_PROTO_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buffer.h"
#include "common/status.h"

/* Borrowed bytes; data is NULL when the field is absent. */
struct slice {
    const char *data;
    size_t len;
};

struct id_array {
    const int32_t *ids;
    uint32_t n;
};

struct slice_array {
    const struct slice *items;
    uint32_t n;
};

struct float_array {
    const float *values;
    uint32_t n;
};

/* An array of structs whose fields another table describes. */
struct struct_array {
    const void *items;
    uint32_t n;
};

enum field_type {
    FIELD_U64,    /* uint64_t, min..max */
    FIELD_U32,    /* uint32_t, min..max */
    FIELD_ID,     /* int32_t, 0..INT32_MAX */
    FIELD_FLOAT,  /* float, finite, fmin..fmax; integers are taken too */
    FIELD_DOUBLE, /* double, as FIELD_FLOAT */
    FIELD_BOOL,   /* bool */
    FIELD_TEXT,   /* struct slice, valid UTF-8, at most max bytes */
    FIELD_BYTES,  /* struct slice, msgpack bin, at most max bytes */
    FIELD_IDS,    /* struct id_array, at most max */
    FIELD_TEXTS,  /* struct slice_array of at most max texts, none empty, each at most FIELD_TEXTS_BYTES */
    FIELD_BINS,   /* the same of msgpack bin */
    FIELD_FLOATS, /* struct float_array of finite numbers, at most max */
    FIELD_STRUCT, /* a struct inside this one */
    FIELD_LIST,   /* struct struct_array, at most max */
};

enum { FIELD_TEXTS_BYTES = 256 };

struct schema;

struct field {
    const char *key;
    enum field_type type;
    bool is_required;
    size_t offset;
    size_t present; /* offset of a bool that tells whether an optional field was there; 0 for none */
    uint64_t min, max;
    double fmin, fmax;
    double fallback; /* of an optional number or bool that is absent; such a value is not sent */
    const struct schema *inner;
};

struct schema {
    size_t size; /* of the struct */
    const struct field *fields;
    int n_fields;
};

struct decoder;

struct decoder *decoder_create(void);
void decoder_destroy(struct decoder *d);

/* A message is a map with "v" (version) and "type" (text). decoder_open checks the structure and finds those
 * two; *type is NULL-terminated and valid until the next open. A failed open may still have found the "id".
 */
MUST_CHECK enum status decoder_open(struct decoder *d, const void *bytes, size_t len, const char **type,
                                    struct error *err);

/* The "id" of the message last opened, or 0: so that an error can be answered to the right request. */
uint64_t decoder_id(const struct decoder *d);

/* Fills `out` (of schema->size) from the opened message; the error names the field. */
MUST_CHECK enum status decoder_read(struct decoder *d, const struct schema *schema, void *out,
                                    struct error *err);

/* Replaces the contents of `out` with the message. */
void schema_encode(struct buffer *out, const char *type, const struct schema *schema, const void *in);

#endif

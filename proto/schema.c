#include "proto/schema.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "common/xalloc.h"
#include "proto/messages.h"

enum {
    MAX_DEPTH = 8,
    MAX_TYPE_NAME = 32,
    ZONE_CHUNK_BYTES = 64 * 1024,
};

struct decoder {
    msgpack_zone zone; /* unpacked objects and decoded arrays of the open message */
    msgpack_object root;
    char type[MAX_TYPE_NAME + 1];
    uint64_t id;
};

struct decoder *decoder_create(void)
{
    struct decoder *d = xcalloc(1, sizeof *d);
    if (!msgpack_zone_init(&d->zone, ZONE_CHUNK_BYTES))
        abort();
    return d;
}

void decoder_destroy(struct decoder *d)
{
    if (d) {
        msgpack_zone_destroy(&d->zone);
        free(d);
    }
}

uint64_t decoder_id(const struct decoder *d)
{
    return d->id;
}

/* ---- structure: checked before anything is allocated ---- */

struct cursor {
    const unsigned char *at, *end;
};

static bool take(struct cursor *c, size_t n)
{
    if ((size_t)(c->end - c->at) < n)
        return false;
    c->at += n;
    return true;
}

static bool take_number(struct cursor *c, int bytes, uint64_t *out)
{
    const unsigned char *p = c->at;
    if (!take(c, (size_t)bytes))
        return false;
    *out = 0;
    for (int i = 0; i < bytes; i++)
        *out = *out << 8 | p[i];
    return true;
}

/* Passes one object's head and, unless it is a container, its body. *inside gets the number of objects that
 * follow inside it. False for a truncated or reserved one. */
static bool take_object(struct cursor *c, uint64_t *inside)
{
    uint64_t n = 0;
    *inside = 0;
    if (c->at == c->end)
        return false;
    unsigned char head = *c->at++;
    if (head <= 0x7f || head >= 0xe0) /* fixint */
        return true;
    if (head <= 0x8f) { /* fixmap */
        *inside = 2 * (uint64_t)(head & 0x0f);
        return true;
    }
    if (head <= 0x9f) { /* fixarray */
        *inside = head & 0x0f;
        return true;
    }
    if (head <= 0xbf) /* fixstr */
        return take(c, head & 0x1f);
    switch (head) {
    case 0xc0: /* nil */
    case 0xc2: /* false */
    case 0xc3: /* true */
        return true;
    case 0xc4: /* bin 8, 16, 32 */
    case 0xc5:
    case 0xc6:
        return take_number(c, 1 << (head - 0xc4), &n) && take(c, n);
    case 0xc7: /* ext 8, 16, 32 */
    case 0xc8:
    case 0xc9:
        return take_number(c, 1 << (head - 0xc7), &n) && take(c, n + 1);
    case 0xca: /* float 32, 64 */
    case 0xcb:
        return take(c, (size_t)4 << (head - 0xca));
    case 0xcc: /* uint 8 to 64 */
    case 0xcd:
    case 0xce:
    case 0xcf:
        return take(c, (size_t)1 << (head - 0xcc));
    case 0xd0: /* int 8 to 64 */
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return take(c, (size_t)1 << (head - 0xd0));
    case 0xd4: /* fixext 1 to 16 */
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return take(c, ((size_t)1 << (head - 0xd4)) + 1);
    case 0xd9: /* str 8, 16, 32 */
    case 0xda:
    case 0xdb:
        return take_number(c, 1 << (head - 0xd9), &n) && take(c, n);
    case 0xdc: /* array 16, 32 */
    case 0xdd:
        return take_number(c, 2 << (head - 0xdc), inside);
    case 0xde: /* map 16, 32 */
    case 0xdf:
        if (!take_number(c, 2 << (head - 0xde), &n))
            return false;
        *inside = 2 * n;
        return true;
    }
    return false; /* 0xc1 is reserved */
}

static enum status check_structure(const void *bytes, size_t len, struct error *err)
{
    struct cursor c = { .at = bytes, .end = (const unsigned char *)bytes + len };
    uint64_t left[MAX_DEPTH + 1] = { 1 }; /* objects still to come at each depth */
    int depth = 0;

    for (uint64_t objects = 0;; objects++) {
        while (depth >= 0 && !left[depth])
            depth--;
        if (depth < 0)
            break;
        left[depth]--;
        uint64_t inside;
        if (objects >= MAX_MESSAGE_OBJECTS)
            return error_set(err, E_LIMIT, "message: more than %d msgpack objects", MAX_MESSAGE_OBJECTS);
        if (!take_object(&c, &inside))
            return error_set(err, E_FORMAT, "message: not msgpack, or cut short, at byte %zu of %zu",
                             (size_t)(c.at - (const unsigned char *)bytes), len);
        if (inside > (uint64_t)(c.end - c.at))
            return error_set(err, E_FORMAT, "message: an array or map at byte %zu is longer than the message",
                             (size_t)(c.at - (const unsigned char *)bytes));
        if (inside) {
            if (++depth > MAX_DEPTH)
                return error_set(err, E_LIMIT, "message: nested more than %d deep", MAX_DEPTH);
            left[depth] = inside;
        }
    }
    if (c.at != c.end)
        return error_set(err, E_FORMAT, "message: %zu bytes after its end", (size_t)(c.end - c.at));
    return OK;
}

/* ---- decoding ---- */

static const msgpack_object *map_find(const msgpack_object *map, const char *key)
{
    size_t len = strlen(key);
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        if (kv->key.type == MSGPACK_OBJECT_STR && kv->key.via.str.size == len &&
            !memcmp(kv->key.via.str.ptr, key, len))
            return kv->val.type == MSGPACK_OBJECT_NIL ? NULL : &kv->val;
    }
    return NULL;
}

enum status decoder_open(struct decoder *d, const void *bytes, size_t len, const char **type,
                         struct error *err)
{
    d->id = 0;
    d->type[0] = 0;
    *type = d->type;
    d->root = (msgpack_object){ 0 };
    msgpack_zone_clear(&d->zone);

    enum status s = check_structure(bytes, len, err);
    if (s != OK)
        return s;
    size_t offset = 0;
    if (msgpack_unpack(bytes, len, &offset, &d->zone, &d->root) != MSGPACK_UNPACK_SUCCESS)
        return error_set(err, E_FORMAT, "message: not msgpack");
    if (d->root.type != MSGPACK_OBJECT_MAP)
        return error_set(err, E_FORMAT, "message: a map is expected at the top");

    const msgpack_object *id = map_find(&d->root, "id");
    if (id && id->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        d->id = id->via.u64;
    const msgpack_object *version = map_find(&d->root, "v");
    if (!version || version->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return error_set(err, E_FORMAT, "v: the protocol version is missing (this is version %d)",
                         PROTOCOL_VERSION);
    if (version->via.u64 != PROTOCOL_VERSION)
        return error_set(err, E_UNSUPPORTED, "v: version %llu is not spoken here, version %d is",
                         (unsigned long long)version->via.u64, PROTOCOL_VERSION);
    const msgpack_object *name = map_find(&d->root, "type");
    if (!name || name->type != MSGPACK_OBJECT_STR || name->via.str.size > MAX_TYPE_NAME)
        return error_set(err, E_FORMAT, "type: the message's type is missing or no short text");
    memcpy(d->type, name->via.str.ptr, name->via.str.size);
    d->type[name->via.str.size] = 0;
    return OK;
}

static enum status wrong_kind(const struct field *f, const char *expected, struct error *err)
{
    return error_set(err, E_FORMAT, "%s: %s is expected", f->key, expected);
}

static enum status read_unsigned(const msgpack_object *o, const struct field *f, uint64_t type_max,
                                 uint64_t *out, struct error *err)
{
    uint64_t max = f->max ? f->max : type_max;
    if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong_kind(f, "a non-negative integer", err);
    if (o->via.u64 < f->min || o->via.u64 > max)
        return error_set(err, E_LIMIT, "%s: %llu is not between %llu and %llu", f->key,
                         (unsigned long long)o->via.u64, (unsigned long long)f->min, (unsigned long long)max);
    *out = o->via.u64;
    return OK;
}

static enum status read_real(const msgpack_object *o, const struct field *f, double *out, struct error *err)
{
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        *out = (double)o->via.u64;
    else if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *out = (double)o->via.i64;
    else if (o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64)
        *out = o->via.f64;
    else
        return wrong_kind(f, "a number", err);
    if (f->type != FIELD_DOUBLE && fabs(*out) > FLT_MAX) /* a float could not hold it */
        return wrong_kind(f, "a finite float", err);
    bool is_bounded = f->fmin != 0 || f->fmax != 0;
    if (!isfinite(*out) || (is_bounded && (*out < f->fmin || *out > f->fmax)))
        return error_set(err, E_LIMIT, "%s: %g is not between %g and %g", f->key, *out, f->fmin, f->fmax);
    return OK;
}

static enum status read_text(const msgpack_object *o, const struct field *f, size_t max, struct slice *out,
                             struct error *err)
{
    if (o->type != MSGPACK_OBJECT_STR)
        return wrong_kind(f, "text", err);
    if (max && o->via.str.size > max)
        return error_set(err, E_LIMIT, "%s: %u bytes are more than %zu", f->key, o->via.str.size, max);
    if (!utf8_is_valid(o->via.str.ptr, o->via.str.size))
        return error_set(err, E_FORMAT, "%s: the text is not valid UTF-8", f->key);
    /* An empty text is present: its data is not NULL. */
    *out = (struct slice){ o->via.str.size ? o->via.str.ptr : "", o->via.str.size };
    return OK;
}

/* Checks that o is an array of at most f->max and finds room for its elements. */
static enum status read_array(struct decoder *d, const msgpack_object *o, const struct field *f,
                              size_t element, void **items, struct error *err)
{
    if (o->type != MSGPACK_OBJECT_ARRAY)
        return wrong_kind(f, "an array", err);
    if (f->max && o->via.array.size > f->max)
        return error_set(err, E_LIMIT, "%s: %u elements are more than %llu", f->key, o->via.array.size,
                         (unsigned long long)f->max);
    *items = NULL;
    if (o->via.array.size && !(*items = msgpack_zone_malloc(&d->zone, o->via.array.size * element)))
        return error_set(err, E_NOMEM, "%s: out of memory", f->key);
    return OK;
}

static enum status read_ids(struct decoder *d, const msgpack_object *o, const struct field *f,
                            struct id_array *out, struct error *err)
{
    void *room;
    enum status s = read_array(d, o, f, sizeof(int32_t), &room, err);
    if (s != OK)
        return s;
    int32_t *ids = room;
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        const msgpack_object *e = &o->via.array.ptr[i];
        if (e->type != MSGPACK_OBJECT_POSITIVE_INTEGER || e->via.u64 > INT32_MAX)
            return error_set(err, E_FORMAT, "%s: element %u is no token id", f->key, i);
        ids[i] = (int32_t)e->via.u64;
    }
    *out = (struct id_array){ ids, o->via.array.size };
    return OK;
}

static enum status read_bytes(const msgpack_object *o, const struct field *f, size_t max, struct slice *out,
                              struct error *err)
{
    if (o->type != MSGPACK_OBJECT_BIN)
        return wrong_kind(f, "bin", err);
    if (max && o->via.bin.size > max)
        return error_set(err, E_LIMIT, "%s: %u bytes are more than %zu", f->key, o->via.bin.size, max);
    *out = (struct slice){ o->via.bin.size ? o->via.bin.ptr : "", o->via.bin.size };
    return OK;
}

static enum status read_floats(struct decoder *d, const msgpack_object *o, const struct field *f,
                               struct float_array *out, struct error *err)
{
    void *room;
    double real;
    enum status s = read_array(d, o, f, sizeof(float), &room, err);
    if (s != OK)
        return s;
    float *values = room;
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        if ((s = read_real(&o->via.array.ptr[i], f, &real, err)) != OK)
            return s;
        values[i] = (float)real;
    }
    *out = (struct float_array){ values, o->via.array.size };
    return OK;
}

/* Of text or of bin. */
static enum status read_slices(struct decoder *d, const msgpack_object *o, const struct field *f,
                               struct slice_array *out, struct error *err)
{
    void *room;
    enum status s = read_array(d, o, f, sizeof(struct slice), &room, err);
    if (s != OK)
        return s;
    struct slice *items = room;
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        const msgpack_object *e = &o->via.array.ptr[i];
        s = f->type == FIELD_BINS ? read_bytes(e, f, FIELD_TEXTS_BYTES, &items[i], err)
                                  : read_text(e, f, FIELD_TEXTS_BYTES, &items[i], err);
        if (s != OK)
            return s;
        if (!items[i].len)
            return error_set(err, E_INVALID, "%s: element %u is empty", f->key, i);
    }
    *out = (struct slice_array){ items, o->via.array.size };
    return OK;
}

static enum status read_struct(struct decoder *d, const msgpack_object *map, const struct schema *schema,
                               void *out, struct error *err);

static enum status read_list(struct decoder *d, const msgpack_object *o, const struct field *f,
                             struct struct_array *out, struct error *err)
{
    void *room;
    enum status s = read_array(d, o, f, f->inner->size, &room, err);
    if (s != OK)
        return s;
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        const msgpack_object *e = &o->via.array.ptr[i];
        if (e->type != MSGPACK_OBJECT_MAP)
            return error_set(err, E_FORMAT, "%s: element %u is no map", f->key, i);
        if ((s = read_struct(d, e, f->inner, (char *)room + i * f->inner->size, err)) != OK)
            return s;
    }
    *out = (struct struct_array){ room, o->via.array.size };
    return OK;
}

static enum status read_field(struct decoder *d, const msgpack_object *o, const struct field *f, void *at,
                              struct error *err)
{
    enum status s;
    uint64_t u = 0;
    double real;

    switch (f->type) {
    case FIELD_U64:
        return read_unsigned(o, f, UINT64_MAX, at, err);
    case FIELD_U32:
        if ((s = read_unsigned(o, f, UINT32_MAX, &u, err)) == OK)
            *(uint32_t *)at = (uint32_t)u;
        return s;
    case FIELD_ID:
        if ((s = read_unsigned(o, f, INT32_MAX, &u, err)) == OK)
            *(int32_t *)at = (int32_t)u;
        return s;
    case FIELD_FLOAT:
        if ((s = read_real(o, f, &real, err)) == OK)
            *(float *)at = (float)real;
        return s;
    case FIELD_DOUBLE:
        return read_real(o, f, at, err);
    case FIELD_BOOL:
        if (o->type != MSGPACK_OBJECT_BOOLEAN)
            return wrong_kind(f, "true or false", err);
        *(bool *)at = o->via.boolean;
        return OK;
    case FIELD_TEXT:
        return read_text(o, f, f->max, at, err);
    case FIELD_BYTES:
        return read_bytes(o, f, f->max, at, err);
    case FIELD_IDS:
        return read_ids(d, o, f, at, err);
    case FIELD_TEXTS:
    case FIELD_BINS:
        return read_slices(d, o, f, at, err);
    case FIELD_FLOATS:
        return read_floats(d, o, f, at, err);
    case FIELD_STRUCT:
        if (o->type != MSGPACK_OBJECT_MAP)
            return wrong_kind(f, "a map", err);
        return read_struct(d, o, f->inner, at, err);
    case FIELD_LIST:
        return read_list(d, o, f, at, err);
    }
    return E_INTERNAL;
}

static void set_fallback(const struct field *f, void *at)
{
    switch (f->type) {
    case FIELD_U64:
        *(uint64_t *)at = (uint64_t)f->fallback;
        break;
    case FIELD_U32:
        *(uint32_t *)at = (uint32_t)f->fallback;
        break;
    case FIELD_ID:
        *(int32_t *)at = (int32_t)f->fallback;
        break;
    case FIELD_FLOAT:
        *(float *)at = (float)f->fallback;
        break;
    case FIELD_DOUBLE:
        *(double *)at = f->fallback;
        break;
    case FIELD_BOOL:
        *(bool *)at = f->fallback != 0;
        break;
    default: /* the struct was zeroed */
        break;
    }
}

static enum status read_struct(struct decoder *d, const msgpack_object *map, const struct schema *schema,
                               void *out, struct error *err)
{
    memset(out, 0, schema->size);
    for (int i = 0; i < schema->n_fields; i++) {
        const struct field *f = &schema->fields[i];
        void *at = (char *)out + f->offset;
        const msgpack_object *o = map_find(map, f->key);
        if (!o) {
            if (f->is_required)
                return error_set(err, E_FORMAT, "%s: missing", f->key);
            set_fallback(f, at);
            continue;
        }
        enum status s = read_field(d, o, f, at, err);
        if (s != OK)
            return s;
        if (f->present)
            *(bool *)((char *)out + f->present) = true;
    }
    return OK;
}

enum status decoder_read(struct decoder *d, const struct schema *schema, void *out, struct error *err)
{
    assert(d->root.type == MSGPACK_OBJECT_MAP);
    return read_struct(d, &d->root, schema, out, err);
}

/* ---- encoding ---- */

static int write_to_buffer(void *buffer, const char *bytes, size_t len)
{
    buffer_append(buffer, bytes, len);
    return 0;
}

static bool is_sent(const struct field *f, const void *in)
{
    const void *at = (const char *)in + f->offset;
    if (f->is_required)
        return true;
    if (f->present)
        return *(const bool *)((const char *)in + f->present);
    switch (f->type) {
    case FIELD_U64:
        return (double)*(const uint64_t *)at != f->fallback;
    case FIELD_U32:
        return *(const uint32_t *)at != f->fallback;
    case FIELD_ID:
        return *(const int32_t *)at != f->fallback;
    case FIELD_FLOAT:
        return *(const float *)at != (float)f->fallback;
    case FIELD_DOUBLE:
        return *(const double *)at != f->fallback;
    case FIELD_BOOL:
        return *(const bool *)at != (f->fallback != 0);
    case FIELD_TEXT:
    case FIELD_BYTES:
        return ((const struct slice *)at)->data != NULL;
    case FIELD_IDS:
        return ((const struct id_array *)at)->n > 0;
    case FIELD_TEXTS:
    case FIELD_BINS:
        return ((const struct slice_array *)at)->n > 0;
    case FIELD_FLOATS:
        return ((const struct float_array *)at)->n > 0;
    case FIELD_LIST:
        return ((const struct struct_array *)at)->n > 0;
    case FIELD_STRUCT:
        return true;
    }
    return false;
}

static void write_fields(msgpack_packer *p, const struct schema *schema, const void *in);

static size_t count_fields(const struct schema *schema, const void *in)
{
    size_t n = 0;
    for (int i = 0; i < schema->n_fields; i++)
        n += is_sent(&schema->fields[i], in);
    return n;
}

static void write_text(msgpack_packer *p, struct slice s)
{
    msgpack_pack_str(p, s.len);
    msgpack_pack_str_body(p, s.data, s.len);
}

static void write_bytes(msgpack_packer *p, struct slice s)
{
    msgpack_pack_bin(p, s.len);
    msgpack_pack_bin_body(p, s.data, s.len);
}

static void write_value(msgpack_packer *p, const struct field *f, const void *at)
{
    switch (f->type) {
    case FIELD_U64:
        msgpack_pack_uint64(p, *(const uint64_t *)at);
        break;
    case FIELD_U32:
        msgpack_pack_uint32(p, *(const uint32_t *)at);
        break;
    case FIELD_ID:
        msgpack_pack_int32(p, *(const int32_t *)at);
        break;
    case FIELD_FLOAT:
        msgpack_pack_float(p, *(const float *)at);
        break;
    case FIELD_DOUBLE:
        msgpack_pack_double(p, *(const double *)at);
        break;
    case FIELD_BOOL:
        if (*(const bool *)at)
            msgpack_pack_true(p);
        else
            msgpack_pack_false(p);
        break;
    case FIELD_TEXT:
        write_text(p, *(const struct slice *)at);
        break;
    case FIELD_BYTES:
        write_bytes(p, *(const struct slice *)at);
        break;
    case FIELD_IDS: {
        const struct id_array *a = at;
        msgpack_pack_array(p, a->n);
        for (uint32_t i = 0; i < a->n; i++)
            msgpack_pack_int32(p, a->ids[i]);
        break;
    }
    case FIELD_TEXTS: {
        const struct slice_array *a = at;
        msgpack_pack_array(p, a->n);
        for (uint32_t i = 0; i < a->n; i++)
            write_text(p, a->items[i]);
        break;
    }
    case FIELD_BINS: {
        const struct slice_array *a = at;
        msgpack_pack_array(p, a->n);
        for (uint32_t i = 0; i < a->n; i++)
            write_bytes(p, a->items[i]);
        break;
    }
    case FIELD_FLOATS: {
        const struct float_array *a = at;
        msgpack_pack_array(p, a->n);
        for (uint32_t i = 0; i < a->n; i++)
            msgpack_pack_float(p, a->values[i]);
        break;
    }
    case FIELD_STRUCT:
        msgpack_pack_map(p, count_fields(f->inner, at));
        write_fields(p, f->inner, at);
        break;
    case FIELD_LIST: {
        const struct struct_array *a = at;
        msgpack_pack_array(p, a->n);
        for (uint32_t i = 0; i < a->n; i++) {
            const void *item = (const char *)a->items + i * f->inner->size;
            msgpack_pack_map(p, count_fields(f->inner, item));
            write_fields(p, f->inner, item);
        }
        break;
    }
    }
}

static void write_key(msgpack_packer *p, const char *key)
{
    write_text(p, (struct slice){ key, strlen(key) });
}

static void write_fields(msgpack_packer *p, const struct schema *schema, const void *in)
{
    for (int i = 0; i < schema->n_fields; i++) {
        const struct field *f = &schema->fields[i];
        if (is_sent(f, in)) {
            write_key(p, f->key);
            write_value(p, f, (const char *)in + f->offset);
        }
    }
}

void schema_encode(struct buffer *out, const char *type, const struct schema *schema, const void *in)
{
    msgpack_packer p;
    buffer_clear(out);
    msgpack_packer_init(&p, out, write_to_buffer);
    msgpack_pack_map(&p, 2 + count_fields(schema, in));
    write_key(&p, "v");
    msgpack_pack_uint32(&p, PROTOCOL_VERSION);
    write_key(&p, "type");
    write_key(&p, type);
    write_fields(&p, schema, in);
}

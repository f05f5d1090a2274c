/* Reading and checking the bytes of one GGUF file, in file order:
 *
 *     magic "GGUF", version u32, tensor count u64, key count u64
 *     per key:     name, kind u32, value     (an array: element kind u32, count u64, elements)
 *     per tensor:  name, dimension count u32, dimensions u64 each, type u32, offset of its data u64
 *     padding to general.alignment, then the data; a tensor's offset counts from here
 *
 * A text is its length as u64 and then its bytes. Counts are believed one element at a time: memory grows
 * with what was really read, so it stays in proportion to the file whatever the counts say. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/model/gguf_part.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights are used as they lie in the file, which is little-endian"
#endif

enum {
    OLDEST_VERSION = 2,
    NEWEST_VERSION = 3,
    MAX_NAME = 65535,    /* from the format's description */
    MAX_ITEMS = 1 << 24, /* keys or tensors; a guess far above any model */
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8, /* so that every weight type may be read in place */
    MAX_ALIGNMENT = 1 << 20,
};

static const struct {
    const char *name;
    size_t bytes; /* 0: no fixed size */
} kinds[] = {
    [GGUF_U8] = { "u8", 1 },       [GGUF_I8] = { "i8", 1 },     [GGUF_U16] = { "u16", 2 },
    [GGUF_I16] = { "i16", 2 },     [GGUF_U32] = { "u32", 4 },   [GGUF_I32] = { "i32", 4 },
    [GGUF_F32] = { "f32", 4 },     [GGUF_BOOL] = { "bool", 1 }, [GGUF_STRING] = { "string", 0 },
    [GGUF_ARRAY] = { "array", 0 }, [GGUF_U64] = { "u64", 8 },   [GGUF_I64] = { "i64", 8 },
    [GGUF_F64] = { "f64", 8 },
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

/* Where the reading is, and what an error would blame. */
struct cursor {
    const struct gguf_part *part;
    uint64_t at;
    const char *item;        /* "key", "tensor" or, in the header, "" */
    uint64_t number;         /* of the item, from 0 */
    struct gguf_string name; /* of the item; text is NULL while it is not known */
    struct error *err;
};

static enum status fail(const struct cursor *c, enum status status, const char *field, uint64_t offset,
                        const char *format, ...) __attribute__((format(printf, 5, 6)));

static enum status fail(const struct cursor *c, enum status status, const char *field, uint64_t offset,
                        const char *format, ...)
{
    char problem[160], name[64], item[96] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(problem, sizeof problem, format, args);
    va_end(args);
    if (c->name.text)
        snprintf(item, sizeof item, "%s \"%s\" ", c->item, gguf_printable(c->name, name, sizeof name));
    else if (*c->item)
        snprintf(item, sizeof item, "%s #%llu ", c->item, (unsigned long long)c->number);
    return error_set(c->err, status, "%s: %s%s at offset %llu: %s", c->part->shown, item, field,
                     (unsigned long long)offset, problem);
}

static uint64_t bytes_left(const struct cursor *c)
{
    return c->part->len - c->at;
}

static enum status take(struct cursor *c, const char *field, uint64_t bytes, const char **out)
{
    *out = c->part->bytes + c->at;
    if (bytes > bytes_left(c))
        return fail(c, E_FORMAT, field, c->at, "needs %llu bytes, the file has %llu in all",
                    (unsigned long long)bytes, (unsigned long long)c->part->len);
    c->at += bytes;
    return OK;
}

static enum status take_u32(struct cursor *c, const char *field, uint32_t *out)
{
    const char *bytes;
    enum status s = take(c, field, sizeof *out, &bytes);
    if (s == OK)
        memcpy(out, bytes, sizeof *out);
    return s;
}

static enum status take_u64(struct cursor *c, const char *field, uint64_t *out)
{
    const char *bytes;
    enum status s = take(c, field, sizeof *out, &bytes);
    if (s == OK)
        memcpy(out, bytes, sizeof *out);
    return s;
}

static enum status take_string(struct cursor *c, const char *field, struct gguf_string *out)
{
    enum status s = take_u64(c, field, &out->len);
    return s == OK ? take(c, field, out->len, &out->text) : s;
}

static enum status take_name(struct cursor *c)
{
    struct gguf_string name;
    uint64_t start = c->at;
    enum status s = take_string(c, "name", &name);
    if (s != OK)
        return s;
    if (!name.len || name.len > MAX_NAME)
        return fail(c, E_FORMAT, "name", start, "is %llu bytes long, must be 1 to %d",
                    (unsigned long long)name.len, MAX_NAME);
    c->name = name;
    return OK;
}

/* Room for one more in an array that doubles. */
static enum status grow(struct cursor *c, void **items, uint64_t count, size_t item_bytes)
{
    if (count && (count & (count - 1)))
        return OK;
    void *bigger = realloc(*items, (count ? 2 * count : 1) * item_bytes);
    if (!bigger)
        return fail(c, E_NOMEM, "entry", c->at, "no memory left");
    *items = bigger;
    return OK;
}

void gguf_decode(struct gguf_value *value, enum gguf_kind kind, const void *bytes)
{
    union {
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        float f32;
        double f64;
    } raw = { .u64 = 0 };

    memcpy(&raw, bytes, kinds[kind].bytes);
    switch (kind) {
    case GGUF_I8:
        value->i = (int8_t)raw.u64;
        break;
    case GGUF_I16:
        value->i = (int16_t)raw.u16;
        break;
    case GGUF_I32:
        value->i = (int32_t)raw.u32;
        break;
    case GGUF_I64:
        value->i = (int64_t)raw.u64;
        break;
    case GGUF_F32:
        value->f = (double)raw.f32;
        break;
    case GGUF_F64:
        value->f = raw.f64;
        break;
    default:
        value->u = raw.u64;
        break;
    }
}

size_t gguf_kind_bytes(enum gguf_kind kind)
{
    return kinds[kind].bytes;
}

const char *gguf_kind_name(enum gguf_kind kind)
{
    return kinds[kind].name;
}

static enum status check_bools(const struct cursor *c, const char *bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if ((unsigned char)bytes[i] > 1)
            return fail(c, E_FORMAT, "value", (uint64_t)(bytes - c->part->bytes) + i,
                        "is %u, not a truth value", (unsigned char)bytes[i]);
    return OK;
}

/* The elements are walked twice, so that nothing is allocated for a count that the file does not hold. */
static enum status take_strings(struct cursor *c, struct gguf_value *value)
{
    struct cursor ahead = *c;
    enum status s;
    struct gguf_string unused;

    for (uint64_t i = 0; i < value->count; i++)
        if ((s = take_string(&ahead, "element", &unused)) != OK)
            return s;
    struct gguf_string *strings = malloc(value->count * sizeof *strings + 1);
    if (!strings)
        return fail(c, E_NOMEM, "elements", c->at, "no memory left");
    for (uint64_t i = 0; i < value->count; i++) {
        s = take_string(c, "element", &strings[i]);
        assert(s == OK);
    }
    value->strings = strings;
    return OK;
}

static enum status take_kind(struct cursor *c, const char *field, enum gguf_kind *out)
{
    uint32_t kind;
    uint64_t start = c->at;
    enum status s = take_u32(c, field, &kind);
    if (s != OK)
        return s;
    if (kind >= N_KINDS)
        return fail(c, E_FORMAT, field, start, "unknown kind of value %u", kind);
    *out = (enum gguf_kind)kind;
    return OK;
}

static enum status take_array(struct cursor *c, struct gguf_value *value)
{
    const char *bytes;
    uint64_t start = c->at;
    enum status s;

    if ((s = take_kind(c, "element kind", &value->element)) != OK)
        return s;
    if (value->element == GGUF_ARRAY)
        return fail(c, E_UNSUPPORTED, "element kind", start, "arrays of arrays are not supported");
    start = c->at;
    if ((s = take_u64(c, "element count", &value->count)) != OK)
        return s;
    uint64_t least = value->element == GGUF_STRING ? sizeof(uint64_t) : kinds[value->element].bytes;
    if (value->count > bytes_left(c) / least)
        return fail(
            c, E_FORMAT, "element count", start, "%llu elements of type %s do not fit in the %llu bytes left",
            (unsigned long long)value->count, kinds[value->element].name, (unsigned long long)bytes_left(c));
    if (value->element == GGUF_STRING)
        return take_strings(c, value);
    if ((s = take(c, "elements", value->count * least, &bytes)) != OK)
        return s;
    value->elements = bytes;
    return value->element == GGUF_BOOL ? check_bools(c, bytes, value->count) : OK;
}

static enum status take_value(struct cursor *c, struct gguf_value *value)
{
    const char *bytes;
    enum status s;

    *value = (struct gguf_value){ .kind = GGUF_U8 };
    if ((s = take_kind(c, "kind", &value->kind)) != OK)
        return s;
    value->offset = c->at;
    if (value->kind == GGUF_STRING)
        return take_string(c, "value", &value->string);
    if (value->kind == GGUF_ARRAY)
        return take_array(c, value);
    if ((s = take(c, "value", kinds[value->kind].bytes, &bytes)) != OK)
        return s;
    gguf_decode(value, value->kind, bytes);
    return value->kind == GGUF_BOOL ? check_bools(c, bytes, 1) : OK;
}

static enum status read_entries(struct gguf_part *p, struct cursor *c, uint64_t count)
{
    enum status s;
    uint64_t twice;

    c->item = "key";
    for (; p->n_entries < count; p->n_entries++) {
        struct gguf_entry e;
        c->number = p->n_entries;
        c->name.text = NULL;
        if ((s = take_name(c)) != OK)
            return s;
        e.key = c->name;
        void *entries = p->entries;
        s = grow(c, &entries, p->n_entries, sizeof *p->entries);
        p->entries = entries;
        if (s != OK || (s = take_value(c, &e.value)) != OK)
            return s;
        p->entries[p->n_entries] = e;
    }
    s = gguf_index_build(&p->keys, p->entries, p->n_entries, sizeof *p->entries, &twice);
    if (s == E_INVALID) {
        c->name = p->entries[twice].key;
        return fail(c, E_FORMAT, "value", p->entries[twice].value.offset, "the key appears twice");
    }
    return s == OK ? OK : fail(c, s, "name", c->at, "no memory left");
}

static enum status read_alignment(const struct gguf_part *p, struct error *err, uint64_t *out)
{
    static const char key[] = "general.alignment";
    *out = DEFAULT_ALIGNMENT;
    enum status s = gguf_part_get_u64(p, key, out, err);
    if (s != OK && s != E_NOTFOUND)
        return s;
    if (*out < MIN_ALIGNMENT || *out > MAX_ALIGNMENT || (*out & (*out - 1)))
        return gguf_part_blame_key(p, key, E_FORMAT, err, "is %llu, must be a power of two from %d to %d",
                                   (unsigned long long)*out, MIN_ALIGNMENT, MAX_ALIGNMENT);
    return OK;
}

static enum status read_shape(struct cursor *c, struct gguf_tensor *t)
{
    uint32_t n_dims;
    uint64_t elements = 1, start = c->at;
    enum status s = take_u32(c, "dimension count", &n_dims);

    if (s != OK)
        return s;
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS)
        return fail(c, E_FORMAT, "dimension count", start, "is %u, must be 1 to %d", n_dims, GGUF_MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < GGUF_MAX_DIMS; i++) {
        t->dims[i] = 1;
        start = c->at;
        if (i < t->n_dims && (s = take_u64(c, "dimension", &t->dims[i])) != OK)
            return s;
        if (!t->dims[i])
            return fail(c, E_FORMAT, "dimension", start, "dimension %d is 0", i);
        if (__builtin_mul_overflow(elements, t->dims[i], &elements) || elements > INT64_MAX)
            return fail(c, E_FORMAT, "dimension", start, "dimension %d is %llu: too many elements to count",
                        i, (unsigned long long)t->dims[i]);
    }
    return OK;
}

static enum status read_type(struct cursor *c, struct gguf_tensor *t)
{
    uint32_t type;
    uint64_t start = c->at;
    enum status s = take_u32(c, "type", &type);

    if (s != OK)
        return s;
    const struct weight_info *info = weight_info(type);
    if (!info)
        return fail(c, E_UNSUPPORTED, "type", start, "unknown type %u", type);
    t->type = (enum weight_type)type;
    uint64_t block_len = (uint64_t)info->block_len;
    if (t->dims[0] % block_len)
        return fail(c, E_FORMAT, "type", start, "rows of %llu elements are no multiple of %s's block of %d",
                    (unsigned long long)t->dims[0], info->name, info->block_len);
    /* The element count fits 63 bits, so the number of blocks does too. */
    uint64_t blocks = t->dims[0] / block_len * t->dims[1] * t->dims[2] * t->dims[3];
    if (__builtin_mul_overflow(blocks, (uint64_t)info->block_bytes, &t->bytes))
        return fail(c, E_FORMAT, "type", start, "the shape takes more bytes than can be counted");
    return OK;
}

static enum status read_directory(struct gguf_part *p, struct cursor *c, uint64_t count, uint64_t alignment)
{
    enum status s;

    c->item = "tensor";
    for (; p->n_tensors < count; p->n_tensors++) {
        struct gguf_tensor t = { 0 };
        c->number = p->n_tensors;
        c->name.text = NULL;
        if ((s = take_name(c)) != OK)
            return s;
        t.name = c->name;
        if ((s = read_shape(c, &t)) != OK || (s = read_type(c, &t)) != OK)
            return s;
        uint64_t start = c->at;
        if ((s = take_u64(c, "data offset", &t.offset)) != OK)
            return s;
        if (t.offset % alignment)
            return fail(c, E_FORMAT, "data offset", start, "is %llu, no multiple of the alignment %llu",
                        (unsigned long long)t.offset, (unsigned long long)alignment);
        void *tensors = p->tensors;
        s = grow(c, &tensors, p->n_tensors, sizeof *p->tensors);
        p->tensors = tensors;
        if (s != OK)
            return s;
        p->tensors[p->n_tensors] = t;
    }
    return OK;
}

/* Turns offsets that count from the data's start into places in the file. */
static enum status place_data(struct gguf_part *p, struct cursor *c, uint64_t alignment)
{
    uint64_t data_start = (c->at + alignment - 1) & ~(alignment - 1);

    p->header_len = data_start < p->len ? data_start : p->len;
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        struct gguf_tensor *t = &p->tensors[i];
        c->name = t->name;
        if (__builtin_add_overflow(t->offset, data_start, &t->offset))
            t->offset = UINT64_MAX;
        if (t->offset > p->len || t->bytes > p->len - t->offset)
            return fail(c, E_FORMAT, "data", t->offset, "needs %llu bytes, the file has %llu in all",
                        (unsigned long long)t->bytes, (unsigned long long)p->len);
        t->data = p->bytes + t->offset;
    }
    return OK;
}

static enum status read_version(struct gguf_part *p, struct cursor *c)
{
    const char *magic;
    uint64_t start;
    enum status s = take(c, "magic", 4, &magic);

    if (s != OK)
        return s;
    if (memcmp(magic, "GGUF", 4))
        return fail(c, E_FORMAT, "magic", 0, "is not \"GGUF\": this is no GGUF file");
    start = c->at;
    if ((s = take_u32(c, "version", &p->version)) != OK)
        return s;
    uint32_t swapped = __builtin_bswap32(p->version);
    if (swapped >= 1 && swapped <= NEWEST_VERSION)
        return fail(c, E_UNSUPPORTED, "version", start, "big-endian files are unsupported");
    if (p->version < OLDEST_VERSION || p->version > NEWEST_VERSION)
        return fail(c, E_UNSUPPORTED, "version", start, "is %u, supported are %d to %d", p->version,
                    OLDEST_VERSION, NEWEST_VERSION);
    return OK;
}

/* A count of items, each of which takes at least `least` bytes. */
static enum status read_count(struct cursor *c, const char *field, uint64_t least, uint64_t *out)
{
    uint64_t start = c->at;
    enum status s = take_u64(c, field, out);
    if (s != OK)
        return s;
    if (*out > bytes_left(c) / least)
        return fail(c, E_FORMAT, field, start, "is %llu, but only %llu bytes follow",
                    (unsigned long long)*out, (unsigned long long)bytes_left(c));
    if (*out > MAX_ITEMS)
        return fail(c, E_LIMIT, field, start, "is %llu, more than %d", (unsigned long long)*out, MAX_ITEMS);
    return OK;
}

enum status gguf_part_read(struct gguf_part *p, struct error *err)
{
    /* Length, one letter, kind and a byte; length, one letter, one dimension, type and offset. */
    enum { LEAST_KEY = 8 + 1 + 4 + 1, LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8 };
    struct cursor c = { .part = p, .item = "", .err = err };
    uint64_t n_entries, n_tensors, alignment;
    enum status s;

    if ((s = read_version(p, &c)) != OK ||
        (s = read_count(&c, "tensor count", LEAST_TENSOR, &n_tensors)) != OK ||
        (s = read_count(&c, "key count", LEAST_KEY, &n_entries)) != OK ||
        (s = read_entries(p, &c, n_entries)) != OK || (s = read_alignment(p, err, &alignment)) != OK ||
        (s = read_directory(p, &c, n_tensors, alignment)) != OK)
        return s;
    return place_data(p, &c, alignment);
}

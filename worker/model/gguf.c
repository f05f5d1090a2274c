/* The model as users see it: one part or several joined, names looked up, values converted. */
#include "worker/model/gguf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/model/gguf_part.h"

struct gguf {
    char *path;
    struct gguf_part *parts; /* the first one's metadata is the model's */
    uint64_t n_parts;
    struct gguf_tensor *tensors; /* of all parts */
    uint64_t n_tensors;
    struct gguf_index names; /* of tensors */
};

/* What a part says of the split it belongs to; count is 1 for a file of its own. */
struct split {
    uint64_t number, count;
};

static enum status read_split(const struct gguf_part *p, struct split *split, struct error *err)
{
    enum status s;

    *split = (struct split){ 0, 1 };
    s = gguf_part_get_u64(p, "split.count", &split->count, err);
    if (s == E_NOTFOUND || (s == OK && split->count <= 1)) {
        *split = (struct split){ 0, 1 };
        return OK;
    }
    if (s != OK)
        return s;
    if (split->count > 99999)
        return gguf_part_blame_key(p, "split.count", E_FORMAT, err, "is %llu, more than names have room for",
                                   (unsigned long long)split->count);
    s = gguf_part_get_u64(p, "split.no", &split->number, err);
    if (s == E_NOTFOUND)
        return gguf_part_blame_key(p, "split.count", E_FORMAT, err, "is %llu, but split.no is missing",
                                   (unsigned long long)split->count);
    if (s == OK && split->number >= split->count)
        return gguf_part_blame_key(p, "split.no", E_FORMAT, err, "is %llu, but split.count is %llu",
                                   (unsigned long long)split->number, (unsigned long long)split->count);
    return s;
}

static void split_suffix(struct split split, char *out, size_t size)
{
    snprintf(out, size, "-%05llu-of-%05llu.gguf", (unsigned long long)split.number + 1,
             (unsigned long long)split.count);
}

/* Opens the parts that were not named. The one that was is closed by the caller if this fails before it has
 * moved into g->parts. */
static enum status open_other_parts(struct gguf *g, struct split named, struct error *err)
{
    char suffix[64];
    split_suffix(named, suffix, sizeof suffix);
    size_t len = strlen(g->path), tail = strlen(suffix);
    if (len < tail || strcmp(g->path + len - tail, suffix))
        return gguf_part_blame_key(&g->parts[named.number], "split.no", E_FORMAT, err,
                                   "part %llu of %llu: the file's name must end in \"%s\"",
                                   (unsigned long long)named.number + 1, (unsigned long long)named.count,
                                   suffix);
    for (struct split want = { 0, named.count }; want.number < want.count; want.number++) {
        struct split has;
        if (want.number == named.number)
            continue;
        split_suffix(want, suffix, sizeof suffix);
        char *path = xasprintf("%.*s%s", (int)(len - tail), g->path, suffix);
        struct gguf_part *p = &g->parts[want.number];
        enum status s = gguf_part_open(p, path, err);
        free(path);
        if (s != OK || (s = read_split(p, &has, err)) != OK)
            return s;
        if (has.count != want.count || has.number != want.number)
            return gguf_part_blame_key(p, "split.no", E_FORMAT, err,
                                       "says part %llu of %llu, the name says part %llu of %llu",
                                       (unsigned long long)has.number + 1, (unsigned long long)has.count,
                                       (unsigned long long)want.number + 1, (unsigned long long)want.count);
    }
    return OK;
}

static enum status check_tensor_total(const struct gguf *g, struct error *err)
{
    static const char key[] = "split.tensors.count";
    uint64_t total;
    enum status s = gguf_part_get_u64(&g->parts[0], key, &total, err);

    if (s == E_NOTFOUND || g->n_parts == 1)
        return OK;
    if (s == OK && total != g->n_tensors)
        return gguf_part_blame_key(&g->parts[0], key, E_FORMAT, err, "is %llu, the parts have %llu tensors",
                                   (unsigned long long)total, (unsigned long long)g->n_tensors);
    return s;
}

static enum status join_parts(struct gguf *g, struct error *err)
{
    uint64_t total = 0, twice;

    for (uint64_t i = 0; i < g->n_parts; i++)
        total += g->parts[i].n_tensors;
    g->tensors = malloc(total * sizeof *g->tensors + 1);
    if (!g->tensors)
        return error_set(err, E_NOMEM, "%s: no memory for %llu tensors", g->parts[0].shown,
                         (unsigned long long)total);
    for (uint64_t i = 0; i < g->n_parts; i++) {
        struct gguf_part *p = &g->parts[i];
        for (uint64_t k = 0; k < p->n_tensors; k++) {
            g->tensors[g->n_tensors] = p->tensors[k];
            g->tensors[g->n_tensors++].part = (int)i;
        }
        free(p->tensors);
        p->tensors = NULL;
    }
    enum status s = gguf_index_build(&g->names, g->tensors, g->n_tensors, sizeof *g->tensors, &twice);
    if (s == E_INVALID) {
        char name[80];
        const struct gguf_tensor *t = &g->tensors[twice];
        return error_set(err, E_FORMAT, "%s: tensor \"%s\" data at offset %llu: the name appears twice",
                         g->parts[t->part].shown, gguf_printable(t->name, name, sizeof name),
                         (unsigned long long)t->offset);
    }
    if (s != OK)
        return error_set(err, s, "%s: no memory for %llu tensors", g->parts[0].shown,
                         (unsigned long long)total);
    return check_tensor_total(g, err);
}

/* Makes room for as many parts as the first one opened says, and moves that one to its place. */
static void adopt_part(struct gguf *g, const struct gguf_part *part, struct split split)
{
    g->n_parts = split.count;
    g->parts = xcalloc(split.count, sizeof *g->parts);
    g->parts[split.number] = *part;
}

enum status gguf_open(struct gguf **out, const char *path, struct error *err)
{
    struct gguf *g = xcalloc(1, sizeof *g);
    struct gguf_part part;
    struct split split;
    enum status s;

    *out = NULL;
    g->path = xstrdup(path);
    if ((s = gguf_part_open(&part, path, err)) != OK)
        goto fail;
    if ((s = read_split(&part, &split, err)) != OK) {
        gguf_part_close(&part);
        goto fail;
    }
    adopt_part(g, &part, split);
    if (split.count > 1 && (s = open_other_parts(g, split, err)) != OK)
        goto fail;
    if ((s = join_parts(g, err)) != OK)
        goto fail;
    *out = g;
    return OK;

fail:
    gguf_close(g);
    return s;
}

enum status gguf_open_memory(struct gguf **out, const void *bytes, size_t len, struct error *err)
{
    struct gguf *g = xcalloc(1, sizeof *g);
    struct gguf_part part;
    struct split split;
    enum status s;

    *out = NULL;
    g->path = xstrdup("(memory)");
    if ((s = gguf_part_open_memory(&part, bytes, len, err)) != OK)
        goto fail;
    s = read_split(&part, &split, err);
    if (s == OK && split.count > 1)
        s = gguf_part_blame_key(&part, "split.count", E_UNSUPPORTED, err,
                                "is %llu, a split model cannot be read from memory",
                                (unsigned long long)split.count);
    if (s != OK) {
        gguf_part_close(&part);
        goto fail;
    }
    adopt_part(g, &part, split);
    if ((s = join_parts(g, err)) != OK)
        goto fail;
    *out = g;
    return OK;

fail:
    gguf_close(g);
    return s;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (uint64_t i = 0; i < g->n_parts; i++)
        gguf_part_close(&g->parts[i]);
    gguf_index_fini(&g->names);
    free(g->tensors);
    free(g->parts);
    free(g->path);
    free(g);
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->parts[0].version;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < g->n_parts; i++)
        bytes += g->parts[i].len;
    return bytes;
}

int gguf_n_parts(const struct gguf *g)
{
    return (int)g->n_parts;
}

struct gguf_origin gguf_origin(const struct gguf *g, int part)
{
    const struct gguf_part *p = &g->parts[part];
    return (struct gguf_origin){ p->bytes, p->header_len, p->len, p->modified_ns, p->is_mapped ? p->fd : -1 };
}

uint64_t gguf_n_entries(const struct gguf *g)
{
    return g->parts[0].n_entries;
}

const struct gguf_entry *gguf_entry(const struct gguf *g, uint64_t i)
{
    assert(i < g->parts[0].n_entries);
    return &g->parts[0].entries[i];
}

uint64_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, uint64_t i)
{
    assert(i < g->n_tensors);
    return &g->tensors[i];
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    return gguf_part_find(&g->parts[0], key);
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    return gguf_index_find(&g->names, (struct gguf_string){ name, strlen(name) });
}

enum status gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err)
{
    return gguf_part_get_u64(&g->parts[0], key, out, err);
}

static enum status blame_kind(const struct gguf *g, const char *key, const struct gguf_value *v,
                              const char *wanted, struct error *err)
{
    return gguf_part_blame_key(&g->parts[0], key, E_FORMAT, err, "is of type %s, must be %s",
                               gguf_kind_name(v->kind), wanted);
}

enum status gguf_get_double(const struct gguf *g, const char *key, double *out, struct error *err)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return E_NOTFOUND;
    if (v->kind != GGUF_F32 && v->kind != GGUF_F64)
        return blame_kind(g, key, v, "f32 or f64", err);
    *out = v->f;
    return OK;
}

enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return E_NOTFOUND;
    if (v->kind != GGUF_BOOL)
        return blame_kind(g, key, v, "bool", err);
    *out = v->u != 0;
    return OK;
}

enum status gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct error *err)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return E_NOTFOUND;
    if (v->kind != GGUF_STRING)
        return blame_kind(g, key, v, "string", err);
    *out = v->string;
    return OK;
}

static struct gguf_value element(const struct gguf_value *array, uint64_t i)
{
    assert(array->kind == GGUF_ARRAY && array->element != GGUF_STRING && i < array->count);
    struct gguf_value v = { .kind = array->element };
    gguf_decode(&v, array->element, (const char *)array->elements + i * gguf_kind_bytes(array->element));
    return v;
}

static bool is_signed(enum gguf_kind kind)
{
    return kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
}

double gguf_array_double(const struct gguf_value *array, uint64_t i)
{
    struct gguf_value v = element(array, i);
    if (v.kind == GGUF_F32 || v.kind == GGUF_F64)
        return v.f;
    return is_signed(v.kind) ? (double)v.i : (double)v.u;
}

int64_t gguf_array_int(const struct gguf_value *array, uint64_t i)
{
    struct gguf_value v = element(array, i);
    if (v.kind == GGUF_F32 || v.kind == GGUF_F64) {
        /* A conversion out of range is undefined, and a file may hold anything. */
        if (!(v.f > -0x1p63))
            return INT64_MIN;
        return v.f < 0x1p63 ? (int64_t)v.f : INT64_MAX;
    }
    return is_signed(v.kind) || v.u <= INT64_MAX ? v.i : INT64_MAX;
}

bool gguf_string_is(struct gguf_string s, const char *text)
{
    return s.len == strlen(text) && !memcmp(s.text, text, s.len);
}

/* Controls, and the characters that turn the direction of a line or break it: a name holding them could
 * forge what stands around it. */
static bool is_printable(uint32_t code)
{
    return code >= 0x20 && !(code >= 0x7f && code < 0xa0) && code != 0x061c && code != 0xfeff &&
           !(code >= 0x200b && code <= 0x200f) && !(code >= 0x2028 && code <= 0x202e) &&
           !(code >= 0x2060 && code <= 0x206f);
}

/* One character of `in` as it may be shown; returns the bytes of `in` it took. */
static int show_character(const char *in, uint64_t len, char *out, size_t size)
{
    uint32_t code;
    int n = utf8_next(in, len, &code);

    if (n <= 0 || (n == 1 && !is_printable(code))) {
        const char *short_form = *in == '\n' ? "\\n" : *in == '\t' ? "\\t" : NULL;
        if (short_form)
            snprintf(out, size, "%s", short_form);
        else
            snprintf(out, size, "\\x%02X", (unsigned char)*in);
        return 1;
    }
    if (!is_printable(code))
        snprintf(out, size, "\\u%04X", (unsigned)code);
    else if (code == '"' || code == '\\')
        snprintf(out, size, "\\%c", (char)code);
    else
        snprintf(out, size, "%.*s", n, in);
    return n;
}

const char *gguf_printable(struct gguf_string s, char *out, size_t size)
{
    size_t used = 0, cut = 0; /* cut: the last end that leaves room for "..." */

    assert(size >= 8);
    out[0] = 0;
    while (s.len) {
        char piece[8];
        int taken = show_character(s.text, s.len, piece, sizeof piece);
        size_t n = strlen(piece);
        if (used + n + 1 > size) {
            memcpy(out + cut, "...", sizeof "...");
            break;
        }
        memcpy(out + used, piece, n + 1);
        used += n;
        if (used + sizeof "..." <= size)
            cut = used;
        s.text += taken;
        s.len -= (uint64_t)taken;
    }
    return out;
}

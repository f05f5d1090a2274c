/* woolly-gguf inspect: what stands in a model file, as text or as JSON. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/model/gguf.h"
#include "worker/tools/commands.h"

enum {
    SHOWN_NAME = 72,    /* bytes of a key or tensor name in text */
    SHOWN_TEXT = 120,   /* of a string value */
    SHOWN_TOKEN = 24,   /* of a string in an array */
    SHOWN_ELEMENTS = 6, /* of an array, in text */
    JSON_ELEMENTS = 64, /* a longer array is only counted in JSON */
};

static struct type_total {
    uint64_t tensors, bytes;
} * count_types(const struct gguf *g, uint64_t *parameters)
{
    struct type_total *totals = xcalloc(WEIGHT_TYPES, sizeof *totals);
    *parameters = 0;
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        totals[t->type].tensors++;
        totals[t->type].bytes += t->bytes;
        *parameters += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
    return totals;
}

static bool is_float(enum gguf_kind kind)
{
    return kind == GGUF_F32 || kind == GGUF_F64;
}

static bool is_signed(enum gguf_kind kind)
{
    return kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
}

/* Text */

static void print_number(double number, enum gguf_kind kind)
{
    printf(kind == GGUF_F32 ? "%.7g" : "%.16g", number);
}

static void print_string(struct gguf_string s, size_t most)
{
    char shown[SHOWN_TEXT];
    printf("\"%s\"", gguf_printable(s, shown, most));
}

static void print_element(const struct gguf_value *v, uint64_t i)
{
    if (v->element == GGUF_STRING)
        print_string(v->strings[i], SHOWN_TOKEN);
    else if (v->element == GGUF_BOOL)
        printf("%s", gguf_array_int(v, i) ? "true" : "false");
    else if (is_float(v->element))
        print_number(gguf_array_double(v, i), v->element);
    else
        printf("%" PRId64, gguf_array_int(v, i));
}

static void print_value(const struct gguf_value *v)
{
    if (v->kind == GGUF_ARRAY) {
        printf("[");
        for (uint64_t i = 0; i < v->count && i < SHOWN_ELEMENTS; i++) {
            printf("%s", i ? ", " : "");
            print_element(v, i);
        }
        printf(v->count > SHOWN_ELEMENTS ? ", ...]" : "]");
    } else if (v->kind == GGUF_STRING) {
        print_string(v->string, SHOWN_TEXT);
    } else if (v->kind == GGUF_BOOL) {
        printf("%s", v->u ? "true" : "false");
    } else if (is_float(v->kind)) {
        print_number(v->f, v->kind);
    } else if (is_signed(v->kind)) {
        printf("%" PRId64, v->i);
    } else {
        printf("%" PRIu64, v->u);
    }
}

/* "u32", or "string[32000]". */
static const char *value_type(const struct gguf_value *v, char *out, size_t size)
{
    if (v->kind == GGUF_ARRAY)
        snprintf(out, size, "%s[%" PRIu64 "]", gguf_kind_name(v->element), v->count);
    else
        snprintf(out, size, "%s", gguf_kind_name(v->kind));
    return out;
}

/* "64 x 512", the contiguous dimension first. */
static const char *shape(const struct gguf_tensor *t, char *out, size_t size)
{
    size_t used = 0;
    for (int d = 0; d < t->n_dims; d++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRIu64, d ? " x " : "", t->dims[d]);
    return out;
}

static int wider(int width, const char *text)
{
    int n = (int)strlen(text);
    return n > width ? n : width;
}

static void print_metadata(const struct gguf *g)
{
    char name[SHOWN_NAME], type[40];
    int name_width = 0, type_width = 0;

    printf("\nmetadata: %" PRIu64 " keys\n", gguf_n_entries(g));
    for (uint64_t i = 0; i < gguf_n_entries(g); i++) {
        const struct gguf_entry *e = gguf_entry(g, i);
        name_width = wider(name_width, gguf_printable(e->key, name, sizeof name));
        type_width = wider(type_width, value_type(&e->value, type, sizeof type));
    }
    for (uint64_t i = 0; i < gguf_n_entries(g); i++) {
        const struct gguf_entry *e = gguf_entry(g, i);
        printf("  %-*s  %-*s  ", name_width, gguf_printable(e->key, name, sizeof name), type_width,
               value_type(&e->value, type, sizeof type));
        print_value(&e->value);
        printf("\n");
    }
}

static void print_tensors(const struct gguf *g)
{
    char name[SHOWN_NAME], dims[100];
    int name_width = 0, dims_width = 0;

    printf("\ntensors: %" PRIu64 "\n", gguf_n_tensors(g));
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        name_width = wider(name_width, gguf_printable(t->name, name, sizeof name));
        dims_width = wider(dims_width, shape(t, dims, sizeof dims));
    }
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        printf("  %-*s  %-7s  %-*s  %12" PRIu64 " bytes", name_width,
               gguf_printable(t->name, name, sizeof name), weight_name(t->type), dims_width,
               shape(t, dims, sizeof dims), t->bytes);
        if (gguf_n_parts(g) > 1)
            printf("  part %d", t->part + 1);
        printf("\n");
    }
}

static void print_summary(const struct gguf *g)
{
    uint64_t parameters;
    struct type_total *totals = count_types(g, &parameters);

    printf("\nsummary\n  %-10s  %16" PRIu64 "\n", "parameters", parameters);
    for (enum weight_type type = 0; type < WEIGHT_TYPES; type++)
        if (totals[type].tensors)
            printf("  %-10s  %16" PRIu64 " bytes in %" PRIu64 " tensors\n", weight_name(type),
                   totals[type].bytes, totals[type].tensors);
    free(totals);
}

static void print_text(const struct gguf *g)
{
    char path[1024];
    const char *given = gguf_path(g);

    printf("%s\n", gguf_printable((struct gguf_string){ given, strlen(given) }, path, sizeof path));
    printf("  GGUF v%u, %" PRIu64 " bytes in %d file%s\n", gguf_version(g), gguf_file_bytes(g),
           gguf_n_parts(g), gguf_n_parts(g) > 1 ? "s" : "");
    print_metadata(g);
    print_tensors(g);
    print_summary(g);
}

/* JSON */

/* A text that is no UTF-8 is shown with escapes, as JSON cannot hold it. */
static json_t *json_text(struct gguf_string s)
{
    if (utf8_is_valid(s.text, s.len))
        return json_stringn(s.text, s.len);
    size_t room = 4 * s.len + 8; /* "\xNN" for each byte */
    char *shown = xmalloc(room);
    json_t *j = json_string(gguf_printable(s, shown, room));
    free(shown);
    return j;
}

/* JSON has neither infinities nor NaN, and jansson no integer above INT64_MAX: these become strings. */
static json_t *json_float(double f)
{
    char text[32];
    if (isfinite(f))
        return json_real(f);
    snprintf(text, sizeof text, "%g", f);
    return json_string(text);
}

static json_t *json_unsigned(uint64_t u)
{
    char text[32];
    if (u <= INT64_MAX)
        return json_integer((json_int_t)u);
    snprintf(text, sizeof text, "%" PRIu64, u);
    return json_string(text);
}

static json_t *json_element(const struct gguf_value *v, uint64_t i)
{
    if (v->element == GGUF_STRING)
        return json_text(v->strings[i]);
    if (v->element == GGUF_BOOL)
        return json_boolean(gguf_array_int(v, i));
    if (is_float(v->element))
        return json_float(gguf_array_double(v, i));
    return json_integer(gguf_array_int(v, i));
}

static json_t *json_array_of(const struct gguf_value *v)
{
    if (v->count > JSON_ELEMENTS)
        return json_pack("{s:s, s:I}", "type", gguf_kind_name(v->element), "count", (json_int_t)v->count);
    json_t *array = json_array();
    for (uint64_t i = 0; i < v->count; i++)
        json_array_append_new(array, json_element(v, i));
    return array;
}

static json_t *json_value(const struct gguf_value *v)
{
    if (v->kind == GGUF_ARRAY)
        return json_array_of(v);
    if (v->kind == GGUF_STRING)
        return json_text(v->string);
    if (v->kind == GGUF_BOOL)
        return json_boolean(v->u);
    if (is_float(v->kind))
        return json_float(v->f);
    return is_signed(v->kind) ? json_integer(v->i) : json_unsigned(v->u);
}

static json_t *json_metadata(const struct gguf *g)
{
    json_t *metadata = json_object();
    for (uint64_t i = 0; i < gguf_n_entries(g); i++) {
        const struct gguf_entry *e = gguf_entry(g, i);
        json_t *key = json_text(e->key);
        json_object_setn_new(metadata, json_string_value(key), json_string_length(key),
                             json_value(&e->value));
        json_decref(key);
    }
    return metadata;
}

static json_t *json_tensors(const struct gguf *g)
{
    json_t *tensors = json_array();
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        json_t *dims = json_array();
        for (int d = 0; d < t->n_dims; d++)
            json_array_append_new(dims, json_integer((json_int_t)t->dims[d]));
        json_array_append_new(tensors,
                              json_pack("{s:o, s:s, s:o, s:I, s:I, s:i}", "name", json_text(t->name), "type",
                                        weight_name(t->type), "shape", dims, "bytes", (json_int_t)t->bytes,
                                        "offset", (json_int_t)t->offset, "part", t->part));
    }
    return tensors;
}

static json_t *json_summary(const struct gguf *g)
{
    uint64_t parameters;
    struct type_total *totals = count_types(g, &parameters);
    json_t *types = json_object();

    for (enum weight_type type = 0; type < WEIGHT_TYPES; type++)
        if (totals[type].tensors)
            json_object_set_new(types, weight_name(type),
                                json_pack("{s:I, s:I}", "tensors", (json_int_t)totals[type].tensors, "bytes",
                                          (json_int_t)totals[type].bytes));
    free(totals);
    return json_pack("{s:o, s:o}", "parameters", json_unsigned(parameters), "types", types);
}

static void print_json(const struct gguf *g)
{
    const char *path = gguf_path(g);
    json_t *all = json_pack(
        "{s:o, s:i, s:I, s:i, s:o, s:o, s:o}", "path", json_text((struct gguf_string){ path, strlen(path) }),
        "version", (int)gguf_version(g), "bytes", (json_int_t)gguf_file_bytes(g), "parts", gguf_n_parts(g),
        "metadata", json_metadata(g), "tensors", json_tensors(g), "summary", json_summary(g));
    json_dumpf(all, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(all);
}

static const char help[] =
    "Usage: woolly-gguf inspect FILE [--json]\n\n"
    "Shows the metadata and tensors of a GGUF file, or of all files of a split model.\n"
    "Text is shortened to fit a line. With --json one object is printed: path, version, bytes, parts,\n"
    "metadata (arrays of more than 64 elements only as their type and count), tensors (shape begins with "
    "the\n"
    "contiguous dimension) and summary.\n";

int command_inspect(int argc, char **argv)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, 'j' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    bool is_json = false;
    struct gguf *g;
    struct error err;

    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'j':
            is_json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return command_done();
        default:
            return command_misused(argv[0], "unknown option %s", argv[optind - 1]);
        }
    }
    if (optind != argc - 1)
        return command_misused(argv[0], "wants one file");
    if (gguf_open(&g, argv[optind], &err) != OK)
        return command_failed(&err);
    if (is_json)
        print_json(g);
    else
        print_text(g);
    gguf_close(g);
    return command_done();
}

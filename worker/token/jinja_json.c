/* Values from JSON, and to JSON as Python's json.dumps writes it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_value.h"

/* Copied, because the arena may outlive the JSON. */
static struct jinja_value from_string(struct jinja_run *r, const char *text, size_t len)
{
    jinja_charge_bytes(r, len);
    return jinja_string(r, memcpy(jinja_alloc(r, len), text, len), len);
}

static struct jinja_value from_array(struct jinja_run *r, const json_t *j)
{
    struct jinja_value list = jinja_list_new(r, JINJA_LIST, json_array_size(j));

    for (size_t i = 0; i < json_array_size(j); i++)
        jinja_list_push(r, list.list, jinja_from_json(r, json_array_get(j, i)));
    return list;
}

static struct jinja_value from_object(struct jinja_run *r, const json_t *j)
{
    struct jinja_value dict = jinja_dict_new(r);
    const char *name;
    json_t *member;

    json_object_foreach((json_t *)(uintptr_t)j, name, member)
    {
        jinja_dict_put(r, dict.dict, from_string(r, name, strlen(name)), jinja_from_json(r, member));
    }
    return dict;
}

struct jinja_value jinja_from_json(struct jinja_run *r, const json_t *j)
{
    struct jinja_value v = jinja_none();

    jinja_enter(r);
    jinja_charge(r, 1);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = from_object(r, j);
        break;
    case JSON_ARRAY:
        v = from_array(r, j);
        break;
    case JSON_STRING:
        v = from_string(r, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER:
        v = jinja_int(json_integer_value(j));
        break;
    case JSON_REAL:
        v = jinja_float(json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jinja_bool(json_is_true(j));
        break;
    case JSON_NULL:
        break;
    }
    r->depth--;
    return v;
}

static void print_escape(struct jinja_run *r, struct jinja_text *out, uint32_t code)
{
    static const char named[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    const char *p = code && code < 0x80 ? strchr(named, (int)code) : NULL;
    char text[16];

    if (p)
        snprintf(text, sizeof text, "\\%c", letters[p - named]);
    else if (code < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", code);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                 0xdc00 + ((code - 0x10000) & 0x3ff));
    jinja_text_puts(r, out, text);
}

static void print_json_string(struct jinja_run *r, struct jinja_text *out, struct jinja_value v, bool ascii)
{
    size_t plain = 0; /* where the run of characters begins that need no escape */

    jinja_text_puts(r, out, "\"");
    for (size_t i = 0; i < v.len;) {
        uint32_t code = 0;
        int n = utf8_next(v.text + i, v.len - i, &code);
        n = n > 0 ? n : 1;
        if (code < 0x20 || code == '"' || code == '\\' || (ascii && code >= 0x7f)) {
            jinja_text_append(r, out, v.text + plain, i - plain);
            print_escape(r, out, code);
            plain = i + (size_t)n;
        }
        i += (size_t)n;
    }
    jinja_text_append(r, out, v.text + plain, v.len - plain);
    jinja_text_puts(r, out, "\"");
}

static void new_line(struct jinja_run *r, struct jinja_text *out, const struct jinja_json_style *style,
                     int level)
{
    if (!style->has_indent)
        return;
    jinja_text_puts(r, out, "\n");
    for (int i = 0; i < level; i++)
        jinja_text_append(r, out, style->indent.text, style->indent.len);
}

static void print_at(struct jinja_run *r, struct jinja_text *out, struct jinja_value v,
                     const struct jinja_json_style *style, int level);

static void print_separator(struct jinja_run *r, struct jinja_text *out, const struct jinja_json_style *style,
                            int level, bool is_first)
{
    if (!is_first)
        jinja_text_append(r, out, style->item_separator.text, style->item_separator.len);
    new_line(r, out, style, level);
}

static void print_array(struct jinja_run *r, struct jinja_text *out, const struct jinja_list *l,
                        const struct jinja_json_style *style, int level)
{
    jinja_text_puts(r, out, "[");
    for (size_t i = 0; i < l->n; i++) {
        print_separator(r, out, style, level + 1, i == 0);
        print_at(r, out, l->items[i], style, level + 1);
    }
    if (l->n)
        new_line(r, out, style, level);
    jinja_text_puts(r, out, "]");
}

/* Names are strings; numbers, truth values and none become such. */
static void print_name(struct jinja_run *r, struct jinja_text *out, struct jinja_value key,
                       const struct jinja_json_style *style)
{
    bool is_string = key.kind == JINJA_STRING;

    if (!is_string)
        jinja_text_puts(r, out, "\"");
    print_at(r, out, key, style, 0);
    if (!is_string)
        jinja_text_puts(r, out, "\"");
}

static void print_object(struct jinja_run *r, struct jinja_text *out, const struct jinja_dict *d,
                         const struct jinja_json_style *style, int level)
{
    struct jinja_value *keys = jinja_alloc_array(r, d->n + 1, sizeof *keys);
    struct jinja_value *values = jinja_alloc_array(r, d->n + 1, sizeof *values);

    for (size_t i = 0; i < d->n; i++) {
        keys[i] = d->pairs[i].key;
        values[i] = d->pairs[i].value;
    }
    if (style->sort_keys)
        jinja_sort(r, keys, values, d->n, false);
    jinja_text_puts(r, out, "{");
    for (size_t i = 0; i < d->n; i++) {
        print_separator(r, out, style, level + 1, i == 0);
        print_name(r, out, keys[i], style);
        jinja_text_append(r, out, style->colon_separator.text, style->colon_separator.len);
        print_at(r, out, values[i], style, level + 1);
    }
    if (d->n)
        new_line(r, out, style, level);
    jinja_text_puts(r, out, "}");
}

static void print_at(struct jinja_run *r, struct jinja_text *out, struct jinja_value v,
                     const struct jinja_json_style *style, int level)
{
    jinja_enter(r);
    jinja_charge(r, 1);
    if (v.kind == JINJA_NONE)
        jinja_text_puts(r, out, "null");
    else if (v.kind == JINJA_BOOL)
        jinja_text_puts(r, out, v.truth ? "true" : "false");
    else if (v.kind == JINJA_FLOAT && isnan(v.f))
        jinja_text_puts(r, out, "NaN");
    else if (v.kind == JINJA_FLOAT && isinf(v.f))
        jinja_text_puts(r, out, v.f < 0 ? "-Infinity" : "Infinity");
    else if (jinja_is_number(v))
        jinja_print(r, out, v);
    else if (v.kind == JINJA_STRING)
        print_json_string(r, out, v, style->ascii);
    else if (v.kind == JINJA_LIST || v.kind == JINJA_TUPLE)
        print_array(r, out, v.list, style, level);
    else if (v.kind == JINJA_DICT)
        print_object(r, out, v.dict, style, level);
    else
        jinja_fail(r, E_INVALID, "tojson: a%s %s has no JSON form", v.kind == JINJA_UNDEFINED ? "n" : "",
                   jinja_kind_name(v));
    r->depth--;
}

void jinja_print_json(struct jinja_run *r, struct jinja_text *out, struct jinja_value v,
                      const struct jinja_json_style *style)
{
    print_at(r, out, v, style, 0);
}

/* How templates look into values: length, attribute, element, slice. */
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_text.h"
#include "worker/token/jinja_value.h"

bool jinja_length(struct jinja_run *r, struct jinja_value v, int64_t *out)
{
    switch ((enum jinja_kind)v.kind) {
    case JINJA_STRING:
        jinja_charge_bytes(r, v.len);
        *out = (int64_t)jinja_text_count(v.text, v.len);
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
        *out = (int64_t)v.list->n;
        return true;
    case JINJA_DICT:
        *out = (int64_t)v.dict->n;
        return true;
    case JINJA_LOOP:
        *out = (int64_t)v.loop->items->n;
        return true;
    case JINJA_UNDEFINED:
        *out = 0;
        return true;
    default:
        return false;
    }
}

static struct jinja_value loop_attribute(struct jinja_value v, struct jinja_value name)
{
    const struct jinja_loop *l = v.loop;
    int64_t i = (int64_t)l->index, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        struct jinja_value value;
    } numbers[] = {
        { "index", jinja_int(i + 1) },         { "index0", jinja_int(i) }, { "first", jinja_bool(i == 0) },
        { "last", jinja_bool(i + 1 == n) },    { "length", jinja_int(n) }, { "revindex", jinja_int(n - i) },
        { "revindex0", jinja_int(n - i - 1) }, { "depth", jinja_int(1) },  { "depth0", jinja_int(0) },
    };

    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
        if (jinja_is_text(name, numbers[k].name))
            return numbers[k].value;
    }
    if (jinja_is_text(name, "previtem") && i > 0)
        return l->items->items[i - 1];
    if (jinja_is_text(name, "nextitem") && i + 1 < n)
        return l->items->items[i + 1];
    return jinja_undefined(name, &v);
}

/* The element of a dictionary or namespace, or undefined. */
static struct jinja_value member(struct jinja_run *r, struct jinja_value object, struct jinja_value key)
{
    bool can_be_key = key.kind == JINJA_STRING || key.kind == JINJA_NONE || jinja_is_number(key);
    const struct jinja_value *found = NULL;

    if (can_be_key && (object.kind == JINJA_DICT || object.kind == JINJA_NAMESPACE))
        found = jinja_dict_find(r, object.dict, key);
    return found ? *found : jinja_undefined(key, &object);
}

/* What an object has by its kind rather than by its contents: methods and the facts about a loop. */
static struct jinja_value builtin(struct jinja_run *r, struct jinja_value object, struct jinja_value name)
{
    const struct jinja_entry *method = jinja_find_method(object, name);

    if (method)
        return jinja_bind(r, method, object);
    if (object.kind == JINJA_LOOP)
        return loop_attribute(object, name);
    if (object.kind == JINJA_CALLABLE && object.callable->macro && jinja_is_text(name, "name"))
        return jinja_macro_name(object.callable);
    return jinja_undefined(name, &object);
}

struct jinja_value jinja_attribute(struct jinja_run *r, struct jinja_value object, struct jinja_value name)
{
    if (object.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, object);
    struct jinja_value found = builtin(r, object, name);
    return found.kind == JINJA_UNDEFINED ? member(r, object, name) : found;
}

static struct jinja_value element(struct jinja_run *r, struct jinja_value object, struct jinja_value key)
{
    int64_t i = jinja_to_int(key), n = 0;

    if (object.kind == JINJA_LIST || object.kind == JINJA_TUPLE) {
        n = (int64_t)object.list->n;
        i += i < 0 ? n : 0;
        if (i >= 0 && i < n)
            return object.list->items[i];
    } else {
        jinja_length(r, object, &n);
        i += i < 0 ? n : 0;
        if (i >= 0 && i < n) {
            size_t from = jinja_text_offset(object.text, object.len, (size_t)i);
            int bytes = utf8_next(object.text + from, object.len - from, NULL);
            return jinja_string(r, object.text + from, (size_t)bytes);
        }
    }
    return jinja_undefined(key, &object);
}

struct jinja_value jinja_subscript(struct jinja_run *r, struct jinja_value object, struct jinja_value key)
{
    if (object.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, object);
    if (object.kind == JINJA_DICT || object.kind == JINJA_NAMESPACE) {
        struct jinja_value found = member(r, object, key);
        if (found.kind != JINJA_UNDEFINED || key.kind != JINJA_STRING)
            return found;
    } else if (key.kind == JINJA_INT || key.kind == JINJA_BOOL) {
        bool has_elements =
            object.kind == JINJA_LIST || object.kind == JINJA_TUPLE || object.kind == JINJA_STRING;
        return has_elements ? element(r, object, key) : jinja_undefined(key, &object);
    }
    return key.kind == JINJA_STRING ? builtin(r, object, key) : jinja_undefined(key, &object);
}

/* An end of a slice, brought into 0..n (-1..n-1 for a negative step). */
static int64_t slice_end(struct jinja_run *r, struct jinja_value v, int64_t when_absent, int64_t n,
                         bool is_backward)
{
    if (v.kind == JINJA_ABSENT || v.kind == JINJA_NONE)
        return when_absent;
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        jinja_fail(r, E_INVALID, "a slice needs integers, not a %s", jinja_kind_name(v));
    int64_t i = jinja_to_int(v), low = is_backward ? -1 : 0, high = is_backward ? n - 1 : n;
    if (i < 0)
        i += n;
    return i < low ? low : i > high ? high : i;
}

static struct jinja_value slice_list(struct jinja_run *r, const struct jinja_list *l, enum jinja_kind kind,
                                     int64_t start, int64_t stop, int64_t step)
{
    struct jinja_value out = jinja_list_new(r, kind, 0);

    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
        jinja_charge(r, 1);
        jinja_list_push(r, out.list, l->items[i]);
    }
    return out;
}

struct jinja_value jinja_slice(struct jinja_run *r, struct jinja_value object, struct jinja_value start,
                               struct jinja_value stop, struct jinja_value step)
{
    int64_t n = 0, by = 1;

    if (object.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, object);
    if (object.kind != JINJA_LIST && object.kind != JINJA_TUPLE && object.kind != JINJA_STRING)
        jinja_fail(r, E_INVALID, "a %s cannot be sliced", jinja_kind_name(object));
    jinja_length(r, object, &n);
    if (step.kind == JINJA_INT || step.kind == JINJA_BOOL)
        by = jinja_to_int(step);
    else if (step.kind != JINJA_ABSENT && step.kind != JINJA_NONE)
        jinja_fail(r, E_INVALID, "a slice needs integers, not a %s", jinja_kind_name(step));
    if (!by)
        jinja_fail(r, E_INVALID, "the step of a slice cannot be 0");
    /* No step goes further than over the end, so that adding it to an index cannot overflow. */
    by = by > n + 1 ? n + 1 : by < -n - 1 ? -n - 1 : by;
    int64_t from = slice_end(r, start, by > 0 ? 0 : n - 1, n, by < 0);
    int64_t to = slice_end(r, stop, by > 0 ? n : -1, n, by < 0);
    if (object.kind != JINJA_STRING)
        return slice_list(r, object.list, object.kind, from, to, by);
    if (by == 1) {
        size_t begin = jinja_text_offset(object.text, object.len, (size_t)from);
        size_t end = from < to ? jinja_text_offset(object.text, object.len, (size_t)to) : begin;
        return jinja_string(r, object.text + begin, end - begin);
    }
    struct jinja_value parts = slice_list(r, jinja_items(r, object), JINJA_LIST, from, to, by);
    struct jinja_text text = { 0 };
    for (size_t i = 0; i < parts.list->n; i++)
        jinja_text_append(r, &text, parts.list->items[i].text, parts.list->items[i].len);
    return jinja_text_value(r, &text);
}

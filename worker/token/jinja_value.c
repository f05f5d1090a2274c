#include "worker/token/jinja_value.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/keyed_hash.h"
#include "common/utf8.h"
#include "worker/token/jinja_call.h"

/* Smaller dictionaries are searched from the front. */
enum { HASHED_FROM = 12 };

char *jinja_text_reserve(struct jinja_run *r, struct jinja_text *t, size_t more)
{
    if (t->cap - t->len < more) {
        size_t cap = t->cap ? t->cap : 64;
        while (cap - t->len < more)
            cap *= 2;
        t->data = jinja_realloc(r, t->data, t->cap, cap);
        t->cap = cap;
    }
    return t->data + t->len;
}

void jinja_text_append(struct jinja_run *r, struct jinja_text *t, const char *text, size_t len)
{
    if (!len)
        return;
    if (len > r->limit)
        jinja_charge(r, r->steps_left + 1);
    jinja_charge_bytes(r, len);
    memcpy(jinja_text_reserve(r, t, len), text, len);
    t->len += len;
}

void jinja_text_puts(struct jinja_run *r, struct jinja_text *t, const char *text)
{
    jinja_text_append(r, t, text, strlen(text));
}

struct jinja_value jinja_text_value(struct jinja_run *r, const struct jinja_text *t)
{
    return jinja_string(r, t->data, t->len);
}

struct jinja_value jinja_string(struct jinja_run *r, const char *text, size_t len)
{
    if (len > UINT32_MAX)
        jinja_fail(r, E_LIMIT, "a string of %zu bytes is too long", len);
    return (struct jinja_value){ .kind = JINJA_STRING, .len = (uint32_t)len, .text = len ? text : "" };
}

struct jinja_value jinja_string_z(struct jinja_run *r, const char *text)
{
    return jinja_string(r, text, strlen(text));
}

struct jinja_value jinja_undefined(struct jinja_value name, const struct jinja_value *object)
{
    struct jinja_value v = { .kind = JINJA_UNDEFINED, .of = object ? object->kind : JINJA_ABSENT };

    v.text = name.kind == JINJA_STRING ? name.text : "element";
    v.len = name.kind == JINJA_STRING ? name.len : 7;
    return v;
}

struct jinja_value jinja_list_new(struct jinja_run *r, enum jinja_kind kind, size_t room)
{
    struct jinja_list *l = jinja_alloc(r, sizeof *l);

    *l = (struct jinja_list){ .cap = room };
    if (room)
        l->items = jinja_alloc_array(r, room, sizeof *l->items);
    return (struct jinja_value){ .kind = kind, .list = l };
}

void jinja_list_push(struct jinja_run *r, struct jinja_list *l, struct jinja_value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        l->items = jinja_realloc(r, l->items, l->cap * sizeof v, cap * sizeof v);
        l->cap = cap;
    }
    l->items[l->n++] = v;
}

struct jinja_value jinja_pair_new(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    struct jinja_value pair = jinja_list_new(r, JINJA_TUPLE, 2);

    jinja_list_push(r, pair.list, a);
    jinja_list_push(r, pair.list, b);
    return pair;
}

struct jinja_value jinja_dict_new(struct jinja_run *r)
{
    return (struct jinja_value){ .kind = JINJA_DICT,
                                 .dict = jinja_alloc_zeroed(r, sizeof(struct jinja_dict)) };
}

/* Equal numbers are one key whatever their kind, as in Python. */
static struct jinja_value normal_key(struct jinja_run *r, struct jinja_value key)
{
    if (key.kind == JINJA_BOOL)
        return jinja_int(key.truth);
    if (key.kind == JINJA_FLOAT && fabs(key.f) < 9e15 && key.f == floor(key.f))
        return jinja_int((int64_t)key.f);
    if (key.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, key);
    if (key.kind != JINJA_STRING && key.kind != JINJA_INT && key.kind != JINJA_FLOAT &&
        key.kind != JINJA_NONE)
        jinja_fail(r, E_INVALID, "a %s cannot be the key of a dict", jinja_kind_name(key));
    return key;
}

static bool same_key(struct jinja_value a, struct jinja_value b)
{
    if (b.kind == JINJA_BOOL)
        b = jinja_int(b.truth);
    if (a.kind == JINJA_STRING)
        return b.kind == JINJA_STRING && a.len == b.len && !memcmp(a.text, b.text, a.len);
    if (a.kind == JINJA_NONE || b.kind == JINJA_NONE || b.kind == JINJA_STRING)
        return a.kind == b.kind;
    if (a.kind == JINJA_INT && b.kind == JINJA_INT)
        return a.i == b.i;
    return jinja_to_double(a) == jinja_to_double(b);
}

static uint64_t key_hash(const struct jinja_run *r, struct jinja_value key)
{
    if (key.kind == JINJA_STRING)
        return keyed_hash(r->hash_point, key.text, key.len);
    return keyed_hash(r->hash_point, (const char *)&key.i, sizeof key.i);
}

static size_t find_slot(const struct jinja_run *r, const struct jinja_dict *d, struct jinja_value key)
{
    size_t i = key_hash(r, key) & (d->n_slots - 1);

    while (d->slots[i] && !same_key(key, d->pairs[d->slots[i] - 1].key))
        i = (i + 1) & (d->n_slots - 1);
    return i;
}

struct jinja_value *jinja_dict_find(struct jinja_run *r, const struct jinja_dict *d, struct jinja_value key)
{
    key = normal_key(r, key);
    if (d->n_slots) {
        uint32_t index = d->slots[find_slot(r, d, key)];
        return index ? &d->pairs[index - 1].value : NULL;
    }
    for (size_t i = 0; i < d->n; i++) {
        if (same_key(key, d->pairs[i].key))
            return &d->pairs[i].value;
    }
    return NULL;
}

static void rehash(struct jinja_run *r, struct jinja_dict *d)
{
    d->n_slots = 4 * HASHED_FROM;
    while (d->n_slots < 3 * d->n)
        d->n_slots *= 2;
    d->slots = jinja_alloc_zeroed(r, d->n_slots * sizeof *d->slots);
    for (size_t i = 0; i < d->n; i++)
        d->slots[find_slot(r, d, normal_key(r, d->pairs[i].key))] = (uint32_t)i + 1;
}

void jinja_dict_put(struct jinja_run *r, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value)
{
    struct jinja_value *old = jinja_dict_find(r, d, key);

    if (old) {
        *old = value;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        d->pairs = jinja_realloc(r, d->pairs, d->cap * sizeof *d->pairs, cap * sizeof *d->pairs);
        d->cap = cap;
    }
    d->pairs[d->n++] = (struct jinja_pair){ key, value };
    if (d->n_slots && d->n * 2 <= d->n_slots)
        d->slots[find_slot(r, d, normal_key(r, key))] = (uint32_t)d->n;
    else if (d->n >= HASHED_FROM)
        rehash(r, d);
}

bool jinja_is_text(struct jinja_value v, const char *text)
{
    return v.kind == JINJA_STRING && v.len == strlen(text) && !memcmp(v.text, text, v.len);
}

bool jinja_is_number(struct jinja_value v)
{
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT || v.kind == JINJA_FLOAT;
}

bool jinja_is_list(struct jinja_value v)
{
    return v.kind == JINJA_LIST || v.kind == JINJA_TUPLE || v.kind == JINJA_GENERATOR;
}

double jinja_to_double(struct jinja_value v)
{
    return v.kind == JINJA_FLOAT ? v.f : (double)jinja_to_int(v);
}

int64_t jinja_to_int(struct jinja_value v)
{
    return v.kind == JINJA_BOOL ? v.truth : v.i;
}

const char *jinja_kind_name(struct jinja_value v)
{
    static const char *const names[] = {
        [JINJA_UNDEFINED] = "Undefined", [JINJA_ABSENT] = "",           [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",           [JINJA_INT] = "int",           [JINJA_FLOAT] = "float",
        [JINJA_STRING] = "str",          [JINJA_LIST] = "list",         [JINJA_TUPLE] = "tuple",
        [JINJA_GENERATOR] = "generator", [JINJA_DICT] = "dict",         [JINJA_NAMESPACE] = "Namespace",
        [JINJA_LOOP] = "LoopContext",    [JINJA_CALLABLE] = "function",
    };
    return names[v.kind];
}

noreturn void jinja_fail_undefined(struct jinja_run *r, struct jinja_value v)
{
    int len = v.len < 200 ? (int)v.len : 200;

    if (v.of == JINJA_ABSENT)
        jinja_fail(r, E_INVALID, "'%.*s' is undefined", len, v.text);
    jinja_fail(r, E_INVALID, "'%s object' has no attribute '%.*s'",
               jinja_kind_name((struct jinja_value){ .kind = v.of }), len, v.text);
}

bool jinja_truth(struct jinja_value v)
{
    switch ((enum jinja_kind)v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_ABSENT:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.truth;
    case JINJA_INT:
        return v.i != 0;
    case JINJA_FLOAT:
        return v.f != 0;
    case JINJA_STRING:
        return v.len > 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
        return v.list->n > 0;
    case JINJA_DICT:
        return v.dict->n > 0;
    case JINJA_GENERATOR:
    case JINJA_NAMESPACE:
    case JINJA_LOOP:
    case JINJA_CALLABLE:
        return true;
    }
    return false;
}

static bool equal_lists(struct jinja_run *r, const struct jinja_list *a, const struct jinja_list *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!jinja_equal(r, a->items[i], b->items[i]))
            return false;
    }
    return true;
}

static bool equal_dicts(struct jinja_run *r, const struct jinja_dict *a, const struct jinja_dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct jinja_value *other = jinja_dict_find(r, b, a->pairs[i].key);
        if (!other || !jinja_equal(r, a->pairs[i].value, *other))
            return false;
    }
    return true;
}

bool jinja_equal(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    bool is_equal = false;

    jinja_charge(r, 1);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT)
            return jinja_to_int(a) == jinja_to_int(b);
        return jinja_to_double(a) == jinja_to_double(b);
    }
    if (a.kind != b.kind)
        return false;
    jinja_enter(r);
    if (a.kind == JINJA_STRING) {
        jinja_charge_bytes(r, a.len);
        is_equal = a.len == b.len && !memcmp(a.text, b.text, a.len);
    } else if (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE) {
        is_equal = equal_lists(r, a.list, b.list);
    } else if (a.kind == JINJA_DICT) {
        is_equal = equal_dicts(r, a.dict, b.dict);
    } else if (a.kind == JINJA_UNDEFINED || a.kind == JINJA_NONE) {
        is_equal = true;
    } else {
        is_equal = (const void *)a.list == (const void *)b.list;
    }
    r->depth--;
    return is_equal;
}

static int compare_strings(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    size_t shorter = a.len < b.len ? a.len : b.len;

    jinja_charge_bytes(r, shorter);
    int order = memcmp(a.text, b.text, shorter); /* the order of UTF-8 is that of code points */
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

int jinja_compare(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    jinja_charge(r, 1);
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, a.kind == JINJA_UNDEFINED ? a : b);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT) {
            int64_t x = jinja_to_int(a), y = jinja_to_int(b);
            return (x > y) - (x < y);
        }
        double x = jinja_to_double(a), y = jinja_to_double(b);
        return (x > y) - (x < y);
    }
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING)
        return compare_strings(r, a, b);
    if (a.kind != b.kind || (a.kind != JINJA_LIST && a.kind != JINJA_TUPLE))
        jinja_fail(r, E_INVALID, "a %s and a %s have no order", jinja_kind_name(a), jinja_kind_name(b));
    jinja_enter(r);
    int order = (a.list->n > b.list->n) - (a.list->n < b.list->n);
    for (size_t i = 0; i < a.list->n && i < b.list->n; i++) {
        if (!jinja_equal(r, a.list->items[i], b.list->items[i])) {
            order = jinja_compare(r, a.list->items[i], b.list->items[i]);
            break;
        }
    }
    r->depth--;
    return order;
}

bool jinja_contains(struct jinja_run *r, struct jinja_value b, struct jinja_value a)
{
    if (b.kind == JINJA_STRING) {
        if (a.kind == JINJA_UNDEFINED)
            jinja_fail_undefined(r, a);
        if (a.kind != JINJA_STRING)
            jinja_fail(r, E_INVALID, "'in <string>' needs a string on its left, not a %s",
                       jinja_kind_name(a));
        jinja_charge_bytes(r, b.len);
        return memmem(b.text, b.len, a.text, a.len) != NULL;
    }
    if (b.kind == JINJA_DICT)
        return a.kind != JINJA_UNDEFINED && jinja_dict_find(r, b.dict, a) != NULL;
    const struct jinja_list *items = jinja_items(r, b);
    for (size_t i = 0; i < items->n; i++) {
        if (jinja_equal(r, items->items[i], a))
            return true;
    }
    return false;
}

bool jinja_is_iterable(struct jinja_value v)
{
    return jinja_is_list(v) || v.kind == JINJA_STRING || v.kind == JINJA_DICT || v.kind == JINJA_UNDEFINED;
}

struct jinja_list *jinja_items(struct jinja_run *r, struct jinja_value v)
{
    struct jinja_list *l = v.list;

    if (v.kind == JINJA_LIST || v.kind == JINJA_TUPLE)
        return l;
    if (!jinja_is_iterable(v))
        jinja_fail(r, E_INVALID, "'%s' object is not iterable", jinja_kind_name(v));
    struct jinja_list *out = jinja_list_new(r, JINJA_LIST, 0).list;
    if (v.kind == JINJA_GENERATOR) {
        *out = *l;
        *l = (struct jinja_list){ 0 };
    } else if (v.kind == JINJA_DICT) {
        jinja_charge(r, v.dict->n);
        for (size_t i = 0; i < v.dict->n; i++)
            jinja_list_push(r, out, v.dict->pairs[i].key);
    } else if (v.kind == JINJA_STRING) {
        jinja_charge(r, v.len);
        for (size_t i = 0; i < v.len;) {
            int n = utf8_next(v.text + i, v.len - i, NULL);
            assert(n > 0);
            jinja_list_push(r, out, jinja_string(r, v.text + i, (size_t)n));
            i += (size_t)n;
        }
    }
    return out;
}

/* The filters of lists and dictionaries. */
#include <stdlib.h>
#include <string.h>

#include "worker/token/jinja_call.h"
#include "worker/token/jinja_operate.h"
#include "worker/token/jinja_text.h"

/* Merges two sorted runs of places into `out`. */
static void merge(struct jinja_run *r, const struct jinja_value *keys, const size_t *in, size_t from,
                  size_t middle, size_t to, size_t *out, bool is_descending)
{
    size_t a = from, b = middle;

    for (size_t i = from; i < to; i++) {
        bool takes_a = b == to;
        if (a < middle && b < to) {
            int order = jinja_compare(r, keys[in[a]], keys[in[b]]);
            takes_a = is_descending ? order >= 0 : order <= 0;
        }
        out[i] = takes_a ? in[a++] : in[b++];
    }
}

static void move_by(struct jinja_run *r, struct jinja_value *values, const size_t *places, size_t n)
{
    struct jinja_value *old = memcpy(jinja_alloc_array(r, n, sizeof *old), values, n * sizeof *old);

    for (size_t i = 0; i < n; i++)
        values[i] = old[places[i]];
}

void jinja_sort(struct jinja_run *r, struct jinja_value *keys, struct jinja_value *items, size_t n,
                bool is_descending)
{
    if (n < 2)
        return;
    size_t *places = jinja_alloc_array(r, n, sizeof *places), *other = jinja_alloc_array(r, n, sizeof *other);
    for (size_t i = 0; i < n; i++)
        places[i] = i;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t middle = from + width < n ? from + width : n;
            size_t to = from + 2 * width < n ? from + 2 * width : n;
            merge(r, keys, places, from, middle, to, other, is_descending);
        }
        size_t *swapped = places;
        places = other;
        other = swapped;
    }
    move_by(r, items, places, n);
    if (keys != items)
        move_by(r, keys, places, n);
}

/* "a.b.0" looked up step by step; a number is itself the key. What is not there becomes *missing, if that is
 * not NULL, and is then looked into like all else. */
static struct jinja_value look_into_or(struct jinja_run *r, struct jinja_value item, struct jinja_value path,
                                       const struct jinja_value *missing)
{
    if (path.kind != JINJA_STRING) {
        item = jinja_subscript(r, item, path);
        return missing && item.kind == JINJA_UNDEFINED ? *missing : item;
    }
    for (size_t from = 0; from <= path.len;) {
        const char *dot = memchr(path.text + from, '.', path.len - from);
        size_t to = dot ? (size_t)(dot - path.text) : path.len;
        struct jinja_value part = jinja_string(r, path.text + from, to - from);
        bool is_number = part.len > 0 && part.len < 10;
        int64_t number = 0;
        for (size_t i = 0; i < part.len && is_number; i++) {
            is_number = part.text[i] >= '0' && part.text[i] <= '9';
            number = number * 10 + (part.text[i] - '0');
        }
        jinja_charge(r, 1);
        item = jinja_subscript(r, item, is_number ? jinja_int(number) : part);
        if (missing && item.kind == JINJA_UNDEFINED)
            item = *missing;
        from = to + 1;
    }
    return item;
}

static struct jinja_value look_into(struct jinja_run *r, struct jinja_value item, struct jinja_value path)
{
    return look_into_or(r, item, path, NULL);
}

static const struct jinja_value *named_argument(const struct jinja_args *a, const char *name)
{
    for (size_t i = 0; i < a->n_named; i++) {
        if (jinja_is_text(a->named[i].key, name))
            return &a->named[i].value;
    }
    return NULL;
}

static struct jinja_value do_map(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_value *attribute = named_argument(a, "attribute"),
                             *other = named_argument(a, "default");
    const struct jinja_list *items = jinja_items(r, a->self);
    struct jinja_value out = jinja_list_new(r, JINJA_GENERATOR, items->n);

    if (!attribute && (!a->n || a->v[0].kind != JINJA_STRING))
        jinja_fail(r, E_INVALID, "map needs the name of a filter or attribute=");
    for (size_t i = 0; i < items->n; i++) {
        struct jinja_value v = items->items[i];
        jinja_charge(r, 1);
        v = attribute ? look_into_or(r, v, *attribute, other) : jinja_apply_filter(r, a->v[0], v, a, 1);
        jinja_list_push(r, out.list, v);
    }
    return out;
}

/* select, reject and their kin: keeps the items for which the test (or plain truth) gives `wanted`. */
static struct jinja_value choose(struct jinja_run *r, const struct jinja_args *a, bool wanted,
                                 bool by_attribute)
{
    const struct jinja_list *items = jinja_items(r, a->self);
    struct jinja_value out = jinja_list_new(r, JINJA_GENERATOR, 0);
    size_t at = by_attribute ? 1 : 0;

    if (a->n < at)
        jinja_fail(r, E_INVALID, "%s needs the name of an attribute", a->entry->name);
    if (a->n > at && a->v[at].kind != JINJA_STRING)
        jinja_fail(r, E_INVALID, "%s needs the name of a test", a->entry->name);
    for (size_t i = 0; i < items->n; i++) {
        struct jinja_value v = by_attribute ? look_into(r, items->items[i], a->v[0]) : items->items[i];
        jinja_charge(r, 1);
        if ((a->n > at ? jinja_apply_test(r, a->v[at], v, a, at + 1) : jinja_truth(v)) == wanted)
            jinja_list_push(r, out.list, items->items[i]);
    }
    return out;
}

static struct jinja_value do_select(struct jinja_run *r, const struct jinja_args *a)
{
    return choose(r, a, true, false);
}

static struct jinja_value do_reject(struct jinja_run *r, const struct jinja_args *a)
{
    return choose(r, a, false, false);
}

static struct jinja_value do_selectattr(struct jinja_run *r, const struct jinja_args *a)
{
    return choose(r, a, true, true);
}

static struct jinja_value do_rejectattr(struct jinja_run *r, const struct jinja_args *a)
{
    return choose(r, a, false, true);
}

static struct jinja_value do_length(struct jinja_run *r, const struct jinja_args *a)
{
    int64_t n;

    if (!jinja_length(r, a->self, &n))
        jinja_fail(r, E_INVALID, "length: object of type '%s' has no length", jinja_kind_name(a->self));
    return jinja_int(n);
}

static struct jinja_value do_join(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_list *items = jinja_items(r, a->self);

    if (jinja_has(a, 1)) {
        struct jinja_list *parts = jinja_list_new(r, JINJA_LIST, items->n).list;
        for (size_t i = 0; i < items->n; i++)
            jinja_list_push(r, parts, look_into(r, items->items[i], a->bound[1]));
        items = parts;
    }
    return jinja_join(r, jinja_has(a, 0) ? jinja_to_string(r, a->bound[0]) : jinja_string(r, "", 0), items);
}

static struct jinja_value do_first(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_list *items = jinja_items(r, a->self);
    return items->n ? items->items[0] : jinja_undefined(jinja_string_z(r, "first"), &a->self);
}

static struct jinja_value do_last(struct jinja_run *r, const struct jinja_args *a)
{
    if (a->self.kind == JINJA_GENERATOR)
        jinja_fail(r, E_INVALID, "last: a 'generator' object is not reversible");
    const struct jinja_list *items = jinja_items(r, a->self);
    return items->n ? items->items[items->n - 1] : jinja_undefined(jinja_string_z(r, "last"), &a->self);
}

static struct jinja_value copy_list(struct jinja_run *r, const struct jinja_list *l, enum jinja_kind kind)
{
    struct jinja_value out = jinja_list_new(r, kind, l->n);

    jinja_charge(r, l->n);
    for (size_t i = 0; i < l->n; i++)
        jinja_list_push(r, out.list, l->items[i]);
    return out;
}

static struct jinja_value do_list(struct jinja_run *r, const struct jinja_args *a)
{
    return copy_list(r, jinja_items(r, a->self), JINJA_LIST);
}

static struct jinja_value do_reverse(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value step = jinja_int(-1), absent = { .kind = JINJA_ABSENT }, out;

    if (a->self.kind == JINJA_STRING)
        return jinja_slice(r, a->self, absent, absent, step);
    out = copy_list(r, jinja_items(r, a->self), JINJA_GENERATOR);
    for (size_t i = 0, k = out.list->n; i + 1 < k; i++) {
        struct jinja_value swapped = out.list->items[i];
        out.list->items[i] = out.list->items[--k];
        out.list->items[k] = swapped;
    }
    return out;
}

/* What an item is ordered by: strings without regard to case unless asked for. */
static struct jinja_value sort_key(struct jinja_run *r, struct jinja_value item, struct jinja_value attribute,
                                   bool minds_case)
{
    if (attribute.kind != JINJA_ABSENT && attribute.kind != JINJA_NONE)
        item = look_into(r, item, attribute);
    if (item.kind == JINJA_STRING && !minds_case)
        item = jinja_change_case(r, item, jinja_lower);
    return item;
}

static struct jinja_value *sort_keys(struct jinja_run *r, const struct jinja_list *l,
                                     struct jinja_value attribute, bool minds_case)
{
    struct jinja_value *keys = jinja_alloc_array(r, l->n + 1, sizeof *keys);

    for (size_t i = 0; i < l->n; i++)
        keys[i] = sort_key(r, l->items[i], attribute, minds_case);
    return keys;
}

static struct jinja_value do_sort(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value out = do_list(r, a);

    jinja_sort(r, sort_keys(r, out.list, a->bound[2], jinja_arg_truth(a, 1, false)), out.list->items,
               out.list->n, jinja_arg_truth(a, 0, false));
    return out;
}

static struct jinja_value do_unique(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_list *items = jinja_items(r, a->self);
    const struct jinja_value *keys = sort_keys(r, items, a->bound[1], jinja_arg_truth(a, 0, false));
    struct jinja_value out = jinja_list_new(r, JINJA_GENERATOR, 0), seen = jinja_dict_new(r);

    for (size_t i = 0; i < items->n; i++) {
        if (jinja_dict_find(r, seen.dict, keys[i]))
            continue;
        jinja_dict_put(r, seen.dict, keys[i], jinja_none());
        jinja_list_push(r, out.list, items->items[i]);
    }
    return out;
}

/* The smallest (sign -1) or largest item. */
static struct jinja_value extreme(struct jinja_run *r, const struct jinja_args *a, int sign)
{
    const struct jinja_list *items = jinja_items(r, a->self);
    const struct jinja_value *keys = sort_keys(r, items, a->bound[1], jinja_arg_truth(a, 0, false));
    size_t best = 0;

    for (size_t i = 1; i < items->n; i++) {
        int order = jinja_compare(r, keys[i], keys[best]);
        if (sign < 0 ? order < 0 : order > 0)
            best = i;
    }
    return items->n ? items->items[best] : jinja_undefined(jinja_string_z(r, a->entry->name), &a->self);
}

static struct jinja_value do_min(struct jinja_run *r, const struct jinja_args *a)
{
    return extreme(r, a, -1);
}

static struct jinja_value do_max(struct jinja_run *r, const struct jinja_args *a)
{
    return extreme(r, a, 1);
}

static struct jinja_value do_sum(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_list *items = jinja_items(r, a->self);
    struct jinja_value total = a->bound[1].kind == JINJA_ABSENT ? jinja_int(0) : a->bound[1];

    for (size_t i = 0; i < items->n; i++) {
        jinja_charge(r, 1);
        total = jinja_operate(r, '+', total,
                              jinja_has(a, 0) ? look_into(r, items->items[i], a->bound[0]) : items->items[i]);
    }
    return total;
}

static struct jinja_value pairs_of(struct jinja_run *r, const struct jinja_dict *d, enum jinja_kind kind)
{
    struct jinja_value out = jinja_list_new(r, kind, d->n);

    jinja_charge(r, d->n);
    for (size_t i = 0; i < d->n; i++)
        jinja_list_push(r, out.list, jinja_pair_new(r, d->pairs[i].key, d->pairs[i].value));
    return out;
}

static void need_dict(struct jinja_run *r, const struct jinja_args *a)
{
    if (a->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, a->self);
    if (a->self.kind != JINJA_DICT)
        jinja_fail(r, E_INVALID, "%s needs a dict, not a '%s'", a->entry->name, jinja_kind_name(a->self));
}

static struct jinja_value do_items(struct jinja_run *r, const struct jinja_args *a)
{
    if (a->self.kind == JINJA_UNDEFINED)
        return jinja_list_new(r, JINJA_GENERATOR, 0);
    need_dict(r, a);
    return pairs_of(r, a->self.dict, JINJA_GENERATOR);
}

static struct jinja_value do_dictsort(struct jinja_run *r, const struct jinja_args *a)
{
    bool by_value = jinja_has(a, 1) && jinja_is_text(a->bound[1], "value");

    need_dict(r, a);
    struct jinja_value out = pairs_of(r, a->self.dict, JINJA_LIST);
    const struct jinja_value *keys =
        sort_keys(r, out.list, jinja_int(by_value), jinja_arg_truth(a, 0, false));
    jinja_sort(r, (struct jinja_value *)(uintptr_t)keys, out.list->items, out.list->n,
               jinja_arg_truth(a, 2, false));
    return out;
}

static struct jinja_value do_batch(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_list *items = jinja_items(r, a->self);
    int64_t size = jinja_arg_int(r, a, 0, 1);
    struct jinja_value out = jinja_list_new(r, JINJA_GENERATOR, 0), row = { 0 };

    if (size < 1)
        jinja_fail(r, E_INVALID, "batch needs a number above 0");
    for (size_t i = 0; i < items->n; i++) {
        jinja_charge(r, 1);
        if (i % (size_t)size == 0) {
            row = jinja_list_new(r, JINJA_LIST, 0);
            jinja_list_push(r, out.list, row);
        }
        jinja_list_push(r, row.list, items->items[i]);
    }
    while (items->n && jinja_has(a, 1) && row.list->n < (size_t)size) {
        jinja_charge(r, 1);
        jinja_list_push(r, row.list, a->bound[1]);
    }
    return out;
}

static struct jinja_value do_attr(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_attribute(r, a->self, jinja_arg_string(r, a, 0));
}

/* (grouper, list) for each value of the attribute, in its order. */
static struct jinja_value do_groupby(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value sorted = do_list(r, a), out = jinja_list_new(r, JINJA_LIST, 0), group = { 0 };
    struct jinja_value *keys = sort_keys(r, sorted.list, a->bound[0], false);

    jinja_sort(r, keys, sorted.list->items, sorted.list->n, false);
    for (size_t i = 0; i < sorted.list->n; i++) {
        struct jinja_value item = sorted.list->items[i];
        if (!i || !jinja_equal(r, keys[i], keys[i - 1])) {
            group = jinja_list_new(r, JINJA_LIST, 0);
            jinja_list_push(r, out.list, jinja_pair_new(r, look_into(r, item, a->bound[0]), group));
        }
        jinja_list_push(r, group.list, item);
    }
    return out;
}

const struct jinja_entry jinja_list_filters[] = {
    { "length", do_length, { NULL }, 0, false },
    { "count", do_length, { NULL }, 0, false },
    { "join", do_join, { "d", "attribute" }, 0, false },
    { "first", do_first, { NULL }, 0, false },
    { "last", do_last, { NULL }, 0, false },
    { "list", do_list, { NULL }, 0, false },
    { "map", do_map, { NULL }, 0, true },
    { "select", do_select, { NULL }, 0, true },
    { "reject", do_reject, { NULL }, 0, true },
    { "selectattr", do_selectattr, { NULL }, 0, true },
    { "rejectattr", do_rejectattr, { NULL }, 0, true },
    { "items", do_items, { NULL }, 0, false },
    { "dictsort", do_dictsort, { "case_sensitive", "by", "reverse" }, 0, false },
    { "sort", do_sort, { "reverse", "case_sensitive", "attribute" }, 0, false },
    { "unique", do_unique, { "case_sensitive", "attribute" }, 0, false },
    { "reverse", do_reverse, { NULL }, 0, false },
    { "min", do_min, { "case_sensitive", "attribute" }, 0, false },
    { "max", do_max, { "case_sensitive", "attribute" }, 0, false },
    { "sum", do_sum, { "attribute", "start" }, 0, false },
    { "batch", do_batch, { "linecount", "fill_with" }, 1, false },
    { "attr", do_attr, { "name" }, 1, false },
    { "groupby", do_groupby, { "attribute" }, 1, false },
    { 0 },
};

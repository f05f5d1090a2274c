/* The methods of strings, dictionaries, lists and loops. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_text.h"

static struct jinja_value strip_with(struct jinja_run *r, const struct jinja_args *a, bool left, bool right)
{
    struct jinja_value chars = jinja_has(a, 0) ? jinja_arg_string(r, a, 0) : jinja_none();
    return jinja_strip(r, a->self, chars, left, right);
}

static struct jinja_value str_strip(struct jinja_run *r, const struct jinja_args *a)
{
    return strip_with(r, a, true, true);
}

static struct jinja_value str_lstrip(struct jinja_run *r, const struct jinja_args *a)
{
    return strip_with(r, a, true, false);
}

static struct jinja_value str_rstrip(struct jinja_run *r, const struct jinja_args *a)
{
    return strip_with(r, a, false, true);
}

static void push_part(struct jinja_run *r, struct jinja_list *l, struct jinja_value s, size_t from, size_t to)
{
    jinja_charge(r, 1);
    jinja_list_push(r, l, jinja_string(r, s.text + from, to - from));
}

/* At runs of white space. */
static void split_words(struct jinja_run *r, struct jinja_list *out, struct jinja_value s, int64_t limit)
{
    size_t i = jinja_space_before(s.text, s.len);

    while (i < s.len) {
        size_t end = i;
        uint32_t code = 0;
        while (end < s.len && limit) {
            int n = utf8_next(s.text + end, s.len - end, &code);
            if (jinja_is_space(code))
                break;
            end += (size_t)n;
        }
        if (!limit)
            end = s.len;
        push_part(r, out, s, i, end);
        limit--;
        i = end + jinja_space_before(s.text + end, s.len - end);
    }
}

static void split_at(struct jinja_run *r, struct jinja_list *out, struct jinja_value s,
                     struct jinja_value separator, int64_t limit)
{
    size_t from = 0;

    for (; limit; limit--) {
        const char *found = memmem(s.text + from, s.len - from, separator.text, separator.len);
        if (!found)
            break;
        push_part(r, out, s, from, (size_t)(found - s.text));
        from = (size_t)(found - s.text) + separator.len;
    }
    push_part(r, out, s, from, s.len);
}

static struct jinja_value split_separator(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value separator = jinja_has(a, 0) ? jinja_arg_string(r, a, 0) : jinja_none();

    if (separator.kind == JINJA_STRING && !separator.len)
        jinja_fail(r, E_INVALID, "%s: empty separator", a->entry->name);
    return separator;
}

static struct jinja_value str_split(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value list = jinja_list_new(r, JINJA_LIST, 0), separator = split_separator(r, a);
    int64_t limit = jinja_arg_int(r, a, 1, -1);

    jinja_charge_bytes(r, a->self.len);
    if (separator.kind == JINJA_STRING)
        split_at(r, list.list, a->self, separator, limit);
    else
        split_words(r, list.list, a->self, limit);
    return list;
}

/* The last place of `needle` in the first `len` bytes of s, or len + 1. */
static size_t find_last(struct jinja_run *r, struct jinja_value s, size_t len, struct jinja_value needle)
{
    for (size_t i = len >= needle.len ? len - needle.len + 1 : 0; i-- > 0;) {
        if (s.text[i] != needle.text[0])
            continue;
        jinja_charge_bytes(r, needle.len);
        if (!memcmp(s.text + i, needle.text, needle.len))
            return i;
    }
    return len + 1;
}

/* From the right: as split where there is no limit, and at the last places where there is one. */
static struct jinja_value str_rsplit(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value list, backward = jinja_list_new(r, JINJA_LIST, 0), separator = split_separator(r, a);
    int64_t limit = jinja_arg_int(r, a, 1, -1);
    size_t end = a->self.len;

    if (limit < 0)
        return str_split(r, a);
    if (separator.kind != JINJA_STRING)
        jinja_fail(r, E_UNSUPPORTED, "rsplit with a limit needs a separator");
    jinja_charge_bytes(r, a->self.len + separator.len);
    for (; limit; limit--) {
        size_t at = find_last(r, a->self, end, separator);
        if (at > end)
            break;
        push_part(r, backward.list, a->self, at + separator.len, end);
        end = at;
    }
    push_part(r, backward.list, a->self, 0, end);
    list = jinja_list_new(r, JINJA_LIST, backward.list->n);
    for (size_t i = backward.list->n; i-- > 0;)
        jinja_list_push(r, list.list, backward.list->items[i]);
    return list;
}

static struct jinja_value cut_in_three(struct jinja_run *r, struct jinja_value s, size_t at,
                                       struct jinja_value separator, bool found)
{
    struct jinja_value list = jinja_list_new(r, JINJA_TUPLE, 3);
    size_t behind = found ? at + separator.len : at;

    push_part(r, list.list, s, 0, at);
    jinja_list_push(r, list.list, found ? separator : jinja_string(r, "", 0));
    push_part(r, list.list, s, behind, s.len);
    return list;
}

static struct jinja_value str_partition(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value separator = split_separator(r, a);
    const char *found = memmem(a->self.text, a->self.len, separator.text, separator.len);

    jinja_charge_bytes(r, a->self.len);
    return cut_in_three(r, a->self, found ? (size_t)(found - a->self.text) : a->self.len, separator, found);
}

static struct jinja_value str_rpartition(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value separator = split_separator(r, a);
    size_t at = find_last(r, a->self, a->self.len, separator);

    jinja_charge_bytes(r, a->self.len + separator.len);
    return cut_in_three(r, a->self, at > a->self.len ? 0 : at, separator, at <= a->self.len);
}

static struct jinja_value str_splitlines(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_split_lines(r, a->self, jinja_arg_truth(a, 0, false));
}

static bool has_affix(struct jinja_value s, struct jinja_value affix, bool at_end)
{
    return affix.len <= s.len && !memcmp(at_end ? s.text + s.len - affix.len : s.text, affix.text, affix.len);
}

/* startswith and endswith take one string or a tuple of them. */
static struct jinja_value check_affix(struct jinja_run *r, const struct jinja_args *a, bool at_end)
{
    struct jinja_value affix = a->bound[0];

    if (affix.kind != JINJA_TUPLE)
        return jinja_bool(has_affix(a->self, jinja_arg_string(r, a, 0), at_end));
    jinja_charge(r, affix.list->n);
    for (size_t i = 0; i < affix.list->n; i++) {
        if (affix.list->items[i].kind != JINJA_STRING)
            jinja_fail(r, E_INVALID, "%s needs strings", a->entry->name);
        if (has_affix(a->self, affix.list->items[i], at_end))
            return jinja_bool(true);
    }
    return jinja_bool(false);
}

static struct jinja_value str_startswith(struct jinja_run *r, const struct jinja_args *a)
{
    return check_affix(r, a, false);
}

static struct jinja_value str_endswith(struct jinja_run *r, const struct jinja_args *a)
{
    return check_affix(r, a, true);
}

static struct jinja_value str_removeprefix(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value affix = jinja_arg_string(r, a, 0), s = a->self;
    return has_affix(s, affix, false) ? jinja_string(r, s.text + affix.len, s.len - affix.len) : s;
}

static struct jinja_value str_removesuffix(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value affix = jinja_arg_string(r, a, 0), s = a->self;
    return has_affix(s, affix, true) ? jinja_string(r, s.text, s.len - affix.len) : s;
}

static struct jinja_value str_upper(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_change_case(r, a->self, jinja_upper);
}

static struct jinja_value str_lower(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_change_case(r, a->self, jinja_lower);
}

static struct jinja_value str_capitalize(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_capitalize(r, a->self);
}

static bool is_letter(uint32_t c)
{
    return jinja_is_upper(c) || jinja_is_lower(c);
}

static struct jinja_value str_title(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_text out = { 0 };
    bool in_word = false;
    char bytes[4];

    for (size_t i = 0; i < a->self.len;) {
        uint32_t code = 0;
        i += (size_t)utf8_next(a->self.text + i, a->self.len - i, &code);
        jinja_text_append(r, &out, bytes,
                          (size_t)utf8_put(in_word ? jinja_lower(code) : jinja_upper(code), bytes));
        in_word = is_letter(code);
    }
    jinja_charge(r, a->self.len / 8);
    return jinja_text_value(r, &out);
}

static struct jinja_value str_replace(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_replace(r, a->self, jinja_arg_string(r, a, 0), jinja_arg_string(r, a, 1),
                         jinja_arg_int(r, a, 2, -1));
}

/* find, rfind and index count in code points. */
static int64_t find_from_left(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value needle = jinja_arg_string(r, a, 0), s = a->self;
    size_t from = jinja_text_offset(s.text, s.len, (size_t)jinja_arg_int(r, a, 1, 0));

    jinja_charge_bytes(r, s.len);
    if (jinja_arg_int(r, a, 1, 0) < 0)
        jinja_fail(r, E_UNSUPPORTED, "%s: a start before the string is not supported", a->entry->name);
    const char *found = memmem(s.text + from, s.len - from, needle.text, needle.len);
    return found ? (int64_t)jinja_text_count(s.text, (size_t)(found - s.text)) : -1;
}

static struct jinja_value str_find(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_int(find_from_left(r, a));
}

static struct jinja_value str_index(struct jinja_run *r, const struct jinja_args *a)
{
    int64_t at = find_from_left(r, a);

    if (at < 0)
        jinja_fail(r, E_INVALID, "index: substring not found");
    return jinja_int(at);
}

static struct jinja_value str_rfind(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value needle = jinja_arg_string(r, a, 0), s = a->self;
    size_t at = needle.len ? find_last(r, s, s.len, needle) : s.len;

    jinja_charge_bytes(r, s.len + needle.len);
    return jinja_int(at > s.len ? -1 : (int64_t)jinja_text_count(s.text, at));
}

static struct jinja_value str_count(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value needle = jinja_arg_string(r, a, 0), s = a->self;
    int64_t n = 0;
    const char *at = s.text, *end = s.text + s.len;

    jinja_charge_bytes(r, s.len);
    if (!needle.len)
        return jinja_int((int64_t)jinja_text_count(s.text, s.len) + 1);
    while ((at = memmem(at, (size_t)(end - at), needle.text, needle.len))) {
        at += needle.len;
        n++;
    }
    return jinja_int(n);
}

static struct jinja_value str_join(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_list *items = jinja_items(r, a->bound[0]);

    for (size_t i = 0; i < items->n; i++) {
        if (items->items[i].kind != JINJA_STRING)
            jinja_fail(r, E_INVALID, "join: element %zu is no string but a '%s'", i,
                       jinja_kind_name(items->items[i]));
    }
    return jinja_join(r, a->self, items);
}

/* True when all code points are of the kind and there is one. */
static struct jinja_value check_all(const struct jinja_args *a, bool (*is_kind)(uint32_t))
{
    for (size_t i = 0; i < a->self.len;) {
        uint32_t code = 0;
        i += (size_t)utf8_next(a->self.text + i, a->self.len - i, &code);
        if (!is_kind(code))
            return jinja_bool(false);
    }
    return jinja_bool(a->self.len > 0);
}

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(uint32_t c)
{
    return is_digit(c) || is_letter(c);
}

static struct jinja_value str_isdigit(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_charge_bytes(r, a->self.len);
    return check_all(a, is_digit);
}

static struct jinja_value str_isalpha(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_charge_bytes(r, a->self.len);
    return check_all(a, is_letter);
}

static struct jinja_value str_isalnum(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_charge_bytes(r, a->self.len);
    return check_all(a, is_alnum);
}

static struct jinja_value str_isspace(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_charge_bytes(r, a->self.len);
    return check_all(a, jinja_is_space);
}

static struct jinja_value str_isupper(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_charge_bytes(r, a->self.len);
    return jinja_bool(jinja_is_case(a->self, true));
}

static struct jinja_value str_islower(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_charge_bytes(r, a->self.len);
    return jinja_bool(jinja_is_case(a->self, false));
}

/* The argument that "{}", "{0}" or "{name}" stands for. */
static struct jinja_value format_field(struct jinja_run *r, const struct jinja_args *a, const char *name,
                                       size_t len, size_t *next)
{
    size_t i = *next;

    if (len && isdigit((unsigned char)name[0])) {
        i = (size_t)strtoul(name, NULL, 10);
    } else if (len) {
        for (size_t k = 0; k < a->n_named; k++) {
            struct jinja_value key = a->named[k].key;
            if (key.len == len && !memcmp(key.text, name, len))
                return a->named[k].value;
        }
        jinja_fail(r, E_INVALID, "format: there is no argument '%.*s'", len < 99 ? (int)len : 99, name);
    } else {
        ++*next;
    }
    if (i >= a->n)
        jinja_fail(r, E_INVALID, "format: there is no argument %zu", i);
    return a->v[i];
}

static struct jinja_value str_format(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_text out = { 0 };
    struct jinja_value s = a->self;
    size_t next = 0;

    for (size_t i = 0; i < s.len; i++) {
        char c = s.text[i];
        if ((c == '{' || c == '}') && i + 1 < s.len && s.text[i + 1] == c) {
            jinja_text_append(r, &out, &c, 1);
            i++;
        } else if (c == '{') {
            const char *end = memchr(s.text + i, '}', s.len - i);
            if (!end)
                jinja_fail(r, E_INVALID, "format: a '{' has no '}'");
            size_t len = (size_t)(end - s.text) - i - 1;
            if (memchr(s.text + i, ':', len + 1) || memchr(s.text + i, '!', len + 1))
                jinja_fail(r, E_UNSUPPORTED, "format: only plain fields are supported");
            jinja_charge(r, 1 + a->n_named);
            jinja_print(r, &out, format_field(r, a, s.text + i + 1, len, &next));
            i += len + 1;
        } else if (c == '}') {
            jinja_fail(r, E_INVALID, "format: a '}' has no '{'");
        } else {
            jinja_text_append(r, &out, &c, 1);
        }
    }
    jinja_charge(r, s.len / 8);
    return jinja_text_value(r, &out);
}

static const struct jinja_entry string_methods[] = {
    { "strip", str_strip, { "chars" }, 0, false },
    { "lstrip", str_lstrip, { "chars" }, 0, false },
    { "rstrip", str_rstrip, { "chars" }, 0, false },
    { "split", str_split, { "sep", "maxsplit" }, 0, false },
    { "rsplit", str_rsplit, { "sep", "maxsplit" }, 0, false },
    { "splitlines", str_splitlines, { "keepends" }, 0, false },
    { "partition", str_partition, { "sep" }, 1, false },
    { "rpartition", str_rpartition, { "sep" }, 1, false },
    { "startswith", str_startswith, { "prefix" }, 1, false },
    { "endswith", str_endswith, { "suffix" }, 1, false },
    { "removeprefix", str_removeprefix, { "prefix" }, 1, false },
    { "removesuffix", str_removesuffix, { "suffix" }, 1, false },
    { "upper", str_upper, { NULL }, 0, false },
    { "lower", str_lower, { NULL }, 0, false },
    { "capitalize", str_capitalize, { NULL }, 0, false },
    { "title", str_title, { NULL }, 0, false },
    { "replace", str_replace, { "old", "new", "count" }, 2, false },
    { "find", str_find, { "sub", "start" }, 1, false },
    { "rfind", str_rfind, { "sub" }, 1, false },
    { "index", str_index, { "sub", "start" }, 1, false },
    { "count", str_count, { "sub" }, 1, false },
    { "join", str_join, { "iterable" }, 1, false },
    { "format", str_format, { NULL }, 0, true },
    { "isdigit", str_isdigit, { NULL }, 0, false },
    { "isnumeric", str_isdigit, { NULL }, 0, false },
    { "isalpha", str_isalpha, { NULL }, 0, false },
    { "isalnum", str_isalnum, { NULL }, 0, false },
    { "isspace", str_isspace, { NULL }, 0, false },
    { "isupper", str_isupper, { NULL }, 0, false },
    { "islower", str_islower, { NULL }, 0, false },
    { 0 },
};

static struct jinja_value dict_get(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value key = a->bound[0];
    const struct jinja_value *found =
        key.kind == JINJA_UNDEFINED ? NULL : jinja_dict_find(r, a->self.dict, key);

    if (found)
        return *found;
    return a->bound[1].kind == JINJA_ABSENT ? jinja_none() : a->bound[1];
}

static struct jinja_value dict_items(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_dict *d = a->self.dict;
    struct jinja_value list = jinja_list_new(r, JINJA_LIST, d->n);

    jinja_charge(r, d->n);
    for (size_t i = 0; i < d->n; i++)
        jinja_list_push(r, list.list, jinja_pair_new(r, d->pairs[i].key, d->pairs[i].value));
    return list;
}

static struct jinja_value dict_keys(struct jinja_run *r, const struct jinja_args *a)
{
    return (struct jinja_value){ .kind = JINJA_LIST, .list = jinja_items(r, a->self) };
}

static struct jinja_value dict_values(struct jinja_run *r, const struct jinja_args *a)
{
    const struct jinja_dict *d = a->self.dict;
    struct jinja_value list = jinja_list_new(r, JINJA_LIST, d->n);

    jinja_charge(r, d->n);
    for (size_t i = 0; i < d->n; i++)
        jinja_list_push(r, list.list, d->pairs[i].value);
    return list;
}

/* Values never change, so one that may not be changed is as good as its copy. */
static struct jinja_value any_copy(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return a->self;
}

static struct jinja_value change_refused(struct jinja_run *r, const struct jinja_args *a)
{
    jinja_fail(r, E_UNSUPPORTED, "%s: a %s cannot be changed in a template", a->entry->name,
               jinja_kind_name(a->self));
}

static const struct jinja_entry dict_methods[] = {
    { "get", dict_get, { "key", "default" }, 1, false },
    { "items", dict_items, { NULL }, 0, false },
    { "keys", dict_keys, { NULL }, 0, false },
    { "values", dict_values, { NULL }, 0, false },
    { "copy", any_copy, { NULL }, 0, false },
    { "pop", change_refused, { NULL }, 0, true },
    { "popitem", change_refused, { NULL }, 0, true },
    { "update", change_refused, { NULL }, 0, true },
    { "setdefault", change_refused, { NULL }, 0, true },
    { "clear", change_refused, { NULL }, 0, true },
    { 0 },
};

static struct jinja_value list_index(struct jinja_run *r, const struct jinja_args *a)
{
    for (size_t i = 0; i < a->self.list->n; i++) {
        if (jinja_equal(r, a->self.list->items[i], a->bound[0]))
            return jinja_int((int64_t)i);
    }
    jinja_fail(r, E_INVALID, "index: the value is not in the list");
}

static struct jinja_value list_count(struct jinja_run *r, const struct jinja_args *a)
{
    int64_t n = 0;

    for (size_t i = 0; i < a->self.list->n; i++)
        n += jinja_equal(r, a->self.list->items[i], a->bound[0]);
    return jinja_int(n);
}

static const struct jinja_entry list_methods[] = {
    { "index", list_index, { "value" }, 1, false },   { "count", list_count, { "value" }, 1, false },
    { "copy", any_copy, { NULL }, 0, false },         { "append", change_refused, { NULL }, 0, true },
    { "extend", change_refused, { NULL }, 0, true },  { "insert", change_refused, { NULL }, 0, true },
    { "pop", change_refused, { NULL }, 0, true },     { "remove", change_refused, { NULL }, 0, true },
    { "reverse", change_refused, { NULL }, 0, true }, { "sort", change_refused, { NULL }, 0, true },
    { "clear", change_refused, { NULL }, 0, true },   { 0 },
};

static struct jinja_value loop_cycle(struct jinja_run *r, const struct jinja_args *a)
{
    if (!a->n)
        jinja_fail(r, E_INVALID, "loop.cycle needs something to go through");
    return a->v[a->self.loop->index % a->n];
}

static struct jinja_value loop_changed(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value now = jinja_list_new(r, JINJA_TUPLE, a->n);

    for (size_t i = 0; i < a->n; i++)
        jinja_list_push(r, now.list, a->v[i]);
    bool is_new = !jinja_equal(r, now, a->self.loop->changed);
    a->self.loop->changed = now;
    return jinja_bool(is_new);
}

static const struct jinja_entry loop_methods[] = {
    { "cycle", loop_cycle, { NULL }, 0, true },
    { "changed", loop_changed, { NULL }, 0, true },
    { 0 },
};

const struct jinja_entry *jinja_find_method(struct jinja_value object, struct jinja_value name)
{
    switch ((enum jinja_kind)object.kind) {
    case JINJA_STRING:
        return jinja_find_entry(string_methods, name);
    case JINJA_DICT:
        return jinja_find_entry(dict_methods, name);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return jinja_find_entry(list_methods, name);
    case JINJA_LOOP:
        return jinja_find_entry(loop_methods, name);
    default:
        return NULL;
    }
}

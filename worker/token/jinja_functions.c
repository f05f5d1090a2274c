/* The functions every template knows. */
#include <string.h>
#include <time.h>

#include "worker/token/jinja_call.h"

static struct jinja_value call_range(struct jinja_run *r, const struct jinja_args *a)
{
    bool has_start = a->bound[1].kind != JINJA_ABSENT;
    int64_t start = has_start ? jinja_arg_int(r, a, 0, 0) : 0;
    int64_t stop = jinja_arg_int(r, a, has_start ? 1 : 0, 0), step = jinja_arg_int(r, a, 2, 1);
    struct jinja_value list = jinja_list_new(r, JINJA_LIST, 0);

    if (!step)
        jinja_fail(r, E_INVALID, "range: the step cannot be 0");
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        jinja_charge(r, 1);
        jinja_list_push(r, list.list, jinja_int(i));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return list;
}

/* dict(a=1) and namespace(a=1) take one dictionary first if they like. */
static struct jinja_value make_dict(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value dict = jinja_dict_new(r);

    if (a->n > 1 || (a->n && a->v[0].kind != JINJA_DICT))
        jinja_fail(r, E_INVALID, "%s takes one dict and arguments with names", a->entry->name);
    for (size_t i = 0; a->n && i < a->v[0].dict->n; i++) {
        jinja_charge(r, 1);
        jinja_dict_put(r, dict.dict, a->v[0].dict->pairs[i].key, a->v[0].dict->pairs[i].value);
    }
    for (size_t i = 0; i < a->n_named; i++)
        jinja_dict_put(r, dict.dict, a->named[i].key, a->named[i].value);
    return dict;
}

static struct jinja_value call_namespace(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value v = make_dict(r, a);

    v.kind = JINJA_NAMESPACE;
    return v;
}

static struct jinja_value call_raise_exception(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value message = jinja_to_string(r, a->bound[0]);

    jinja_fail(r, E_INVALID, "%.*s", message.len < 450 ? (int)message.len : 450, message.text);
}

/* One conversion at a time, so that what strftime is given is known to fit. */
static struct jinja_value call_strftime_now(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value format = jinja_arg_string(r, a, 0);
    struct jinja_text out = { 0 };
    char text[100];

    jinja_charge(r, format.len);
    for (size_t i = 0; i < format.len; i++) {
        char one[4] = { '%' };
        if (format.text[i] != '%') {
            jinja_text_append(r, &out, format.text + i, 1);
            continue;
        }
        bool is_bare = i + 1 < format.len && format.text[i + 1] == '-';
        i += is_bare ? 2 : 1;
        if (i >= format.len || !format.text[i] ||
            !strchr("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%", format.text[i]))
            jinja_fail(r, E_INVALID, "strftime_now does not know this format");
        one[1] = is_bare ? '-' : format.text[i];
        one[2] = is_bare ? format.text[i] : '\0';
        jinja_text_append(r, &out, text, strftime(text, sizeof text, one, r->now));
    }
    return jinja_text_value(r, &out);
}

/* A joiner prints nothing the first time it is called and its separator afterwards. */
static struct jinja_value call_joiner_again(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_list *state = a->self.list;

    if (state->n == 1) {
        jinja_list_push(r, state, jinja_bool(true));
        return jinja_string(r, "", 0);
    }
    return state->items[0];
}

static struct jinja_value call_joiner(struct jinja_run *r, const struct jinja_args *a)
{
    static const struct jinja_entry again = { "joiner", call_joiner_again, { NULL }, 0, false };
    struct jinja_value state = jinja_list_new(r, JINJA_LIST, 2);

    jinja_list_push(r, state.list, jinja_has(a, 0) ? jinja_arg_string(r, a, 0) : jinja_string(r, ", ", 2));
    return jinja_bind(r, &again, state);
}

static const struct jinja_entry functions[] = {
    { "range", call_range, { "start", "stop", "step" }, 1, false },
    { "namespace", call_namespace, { NULL }, 0, true },
    { "dict", make_dict, { NULL }, 0, true },
    { "raise_exception", call_raise_exception, { "message" }, 1, false },
    { "strftime_now", call_strftime_now, { "format" }, 1, false },
    { "joiner", call_joiner, { "sep" }, 0, false },
    { 0 },
};

const struct jinja_entry *jinja_find_function(struct jinja_value name)
{
    return jinja_find_entry(functions, name);
}

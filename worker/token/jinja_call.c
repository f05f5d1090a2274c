#include "worker/token/jinja_call.h"

#include <string.h>

const struct jinja_entry *jinja_find_entry(const struct jinja_entry *table, struct jinja_value name)
{
    for (; table->name; table++) {
        if (jinja_is_text(name, table->name))
            return table;
    }
    return NULL;
}

const struct jinja_entry *jinja_find_filter(struct jinja_value name)
{
    const struct jinja_entry *e = jinja_find_entry(jinja_text_filters, name);
    return e ? e : jinja_find_entry(jinja_list_filters, name);
}

struct jinja_value jinja_bind(struct jinja_run *r, const struct jinja_entry *entry, struct jinja_value self)
{
    struct jinja_callable *c = jinja_alloc_zeroed(r, sizeof *c);

    c->entry = entry;
    c->self = self;
    return (struct jinja_value){ .kind = JINJA_CALLABLE, .callable = c };
}

static int find_parameter(const struct jinja_entry *entry, struct jinja_value name)
{
    for (int i = 0; i < JINJA_MAX_PARAMETERS && entry->parameters[i]; i++) {
        if (jinja_is_text(name, entry->parameters[i]))
            return i;
    }
    return -1;
}

static void bind_arguments(struct jinja_run *r, const struct jinja_entry *entry, struct jinja_args *args)
{
    size_t n_parameters = 0;

    while (n_parameters < JINJA_MAX_PARAMETERS && entry->parameters[n_parameters])
        n_parameters++;
    if (args->n > n_parameters)
        jinja_fail(r, E_INVALID, "%s takes at most %zu argument(s), not %zu", entry->name, n_parameters,
                   args->n);
    for (size_t i = 0; i < args->n; i++)
        args->bound[i] = args->v[i];
    for (size_t i = 0; i < args->n_named; i++) {
        int k = find_parameter(entry, args->named[i].key);
        if (k < 0)
            jinja_fail(r, E_INVALID, "%s has no argument named %.*s", entry->name,
                       (int)args->named[i].key.len, args->named[i].key.text);
        args->bound[k] = args->named[i].value;
    }
    for (size_t i = 0; i < entry->required; i++) {
        if (args->bound[i].kind == JINJA_ABSENT)
            jinja_fail(r, E_INVALID, "%s needs its argument %s", entry->name, entry->parameters[i]);
    }
}

struct jinja_value jinja_call_entry(struct jinja_run *r, const struct jinja_entry *entry,
                                    struct jinja_args *args)
{
    args->entry = entry;
    for (int i = 0; i < JINJA_MAX_PARAMETERS; i++)
        args->bound[i] = (struct jinja_value){ .kind = JINJA_ABSENT };
    if (!entry->is_free)
        bind_arguments(r, entry, args);
    return entry->call(r, args);
}

/* What is left of the arguments of map, select and the like for the filter or test they name. */
static struct jinja_args rest_of(const struct jinja_args *args, struct jinja_value self, size_t from)
{
    size_t skipped = from < args->n ? from : args->n;

    return (struct jinja_args){ .self = self,
                                .v = skipped ? args->v + skipped : args->v,
                                .n = args->n - skipped,
                                .named = args->named,
                                .n_named = args->n_named };
}

struct jinja_value jinja_apply_filter(struct jinja_run *r, struct jinja_value name, struct jinja_value self,
                                      const struct jinja_args *args, size_t from)
{
    const struct jinja_entry *entry = jinja_find_filter(name);

    if (!entry)
        jinja_fail(r, E_UNSUPPORTED, "there is no filter named '%.*s'", name.len < 99 ? (int)name.len : 99,
                   name.text);
    struct jinja_args rest = rest_of(args, self, from);
    return jinja_call_entry(r, entry, &rest);
}

bool jinja_apply_test(struct jinja_run *r, struct jinja_value name, struct jinja_value self,
                      const struct jinja_args *args, size_t from)
{
    const struct jinja_entry *entry = jinja_find_test(name);

    if (!entry)
        jinja_fail(r, E_UNSUPPORTED, "there is no test named '%.*s'", name.len < 99 ? (int)name.len : 99,
                   name.text);
    struct jinja_args rest = rest_of(args, self, from);
    return jinja_truth(jinja_call_entry(r, entry, &rest));
}

bool jinja_has(const struct jinja_args *args, int i)
{
    return args->bound[i].kind != JINJA_ABSENT && args->bound[i].kind != JINJA_NONE;
}

int64_t jinja_arg_int(struct jinja_run *r, const struct jinja_args *args, int i, int64_t when_absent)
{
    struct jinja_value v = args->bound[i];

    if (!jinja_has(args, i))
        return when_absent;
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, v);
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        jinja_fail(r, E_INVALID, "%s needs an integer as its argument %s, not a %s", args->entry->name,
                   args->entry->parameters[i], jinja_kind_name(v));
    return jinja_to_int(v);
}

bool jinja_arg_truth(const struct jinja_args *args, int i, bool when_absent)
{
    return args->bound[i].kind == JINJA_ABSENT ? when_absent : jinja_truth(args->bound[i]);
}

struct jinja_value jinja_arg_string(struct jinja_run *r, const struct jinja_args *args, int i)
{
    struct jinja_value v = args->bound[i];

    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, v);
    if (v.kind != JINJA_STRING)
        jinja_fail(r, E_INVALID, "%s needs a string as its argument %s, not a %s", args->entry->name,
                   args->entry->parameters[i], jinja_kind_name(v));
    return v;
}

/* The tests behind "is". */
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_text.h"

static struct jinja_value is_defined(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind != JINJA_UNDEFINED);
}

static struct jinja_value is_undefined(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_UNDEFINED);
}

static struct jinja_value is_none(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_NONE);
}

static struct jinja_value is_string(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_STRING);
}

static struct jinja_value is_mapping(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_DICT);
}

static struct jinja_value is_iterable(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(jinja_is_iterable(a->self));
}

static struct jinja_value is_sequence(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(jinja_is_iterable(a->self) && a->self.kind != JINJA_GENERATOR);
}

static struct jinja_value is_number(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(jinja_is_number(a->self));
}

static struct jinja_value is_integer(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_INT);
}

static struct jinja_value is_float(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_FLOAT);
}

static struct jinja_value is_boolean(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_BOOL);
}

static struct jinja_value is_true(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_BOOL && a->self.truth);
}

static struct jinja_value is_false(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_BOOL && !a->self.truth);
}

static struct jinja_value is_callable(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_CALLABLE || a->self.kind == JINJA_UNDEFINED);
}

static int64_t whole(struct jinja_run *r, const struct jinja_args *a, struct jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, v);
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        jinja_fail(r, E_INVALID, "%s needs an integer, not a '%s'", a->entry->name, jinja_kind_name(v));
    return jinja_to_int(v);
}

static struct jinja_value is_even(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(whole(r, a, a->self) % 2 == 0);
}

static struct jinja_value is_odd(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(whole(r, a, a->self) % 2 != 0);
}

static struct jinja_value is_divisibleby(struct jinja_run *r, const struct jinja_args *a)
{
    int64_t by = whole(r, a, a->bound[0]), n = whole(r, a, a->self);

    if (!by)
        jinja_fail(r, E_INVALID, "divisibleby: division by zero");
    return jinja_bool(by == -1 || n % by == 0);
}

static struct jinja_value is_equal(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(jinja_equal(r, a->self, a->bound[0]));
}

static struct jinja_value is_unequal(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(!jinja_equal(r, a->self, a->bound[0]));
}

static struct jinja_value is_less(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(jinja_compare(r, a->self, a->bound[0]) < 0);
}

static struct jinja_value is_at_most(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(jinja_compare(r, a->self, a->bound[0]) <= 0);
}

static struct jinja_value is_greater(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(jinja_compare(r, a->self, a->bound[0]) > 0);
}

static struct jinja_value is_at_least(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(jinja_compare(r, a->self, a->bound[0]) >= 0);
}

static struct jinja_value is_in(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_bool(jinja_contains(r, a->bound[0], a->self));
}

/* The same object; for what has no identity here, the same value. */
static struct jinja_value is_sameas(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value b = a->bound[0];

    if (a->self.kind != b.kind)
        return jinja_bool(false);
    if (jinja_is_list(b) || b.kind == JINJA_DICT)
        return jinja_bool((const void *)a->self.list == (const void *)b.list);
    return jinja_bool(jinja_equal(r, a->self, b));
}

static struct jinja_value is_upper(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value s = jinja_to_string(r, a->self);
    jinja_charge_bytes(r, s.len);
    return jinja_bool(jinja_is_case(s, true));
}

static struct jinja_value is_lower(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value s = jinja_to_string(r, a->self);
    jinja_charge_bytes(r, s.len);
    return jinja_bool(jinja_is_case(s, false));
}

static struct jinja_value is_filter(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_STRING && jinja_find_filter(a->self));
}

static struct jinja_value is_test(struct jinja_run *r, const struct jinja_args *a)
{
    (void)r;
    return jinja_bool(a->self.kind == JINJA_STRING && jinja_find_test(a->self));
}

static const struct jinja_entry tests[] = {
    { "defined", is_defined, { NULL }, 0, false },
    { "undefined", is_undefined, { NULL }, 0, false },
    { "none", is_none, { NULL }, 0, false },
    { "string", is_string, { NULL }, 0, false },
    { "mapping", is_mapping, { NULL }, 0, false },
    { "iterable", is_iterable, { NULL }, 0, false },
    { "sequence", is_sequence, { NULL }, 0, false },
    { "number", is_number, { NULL }, 0, false },
    { "integer", is_integer, { NULL }, 0, false },
    { "float", is_float, { NULL }, 0, false },
    { "boolean", is_boolean, { NULL }, 0, false },
    { "true", is_true, { NULL }, 0, false },
    { "false", is_false, { NULL }, 0, false },
    { "callable", is_callable, { NULL }, 0, false },
    { "even", is_even, { NULL }, 0, false },
    { "odd", is_odd, { NULL }, 0, false },
    { "divisibleby", is_divisibleby, { "num" }, 1, false },
    { "equalto", is_equal, { "other" }, 1, false },
    { "eq", is_equal, { "other" }, 1, false },
    { "==", is_equal, { "other" }, 1, false },
    { "ne", is_unequal, { "other" }, 1, false },
    { "!=", is_unequal, { "other" }, 1, false },
    { "lt", is_less, { "other" }, 1, false },
    { "lessthan", is_less, { "other" }, 1, false },
    { "<", is_less, { "other" }, 1, false },
    { "le", is_at_most, { "other" }, 1, false },
    { "<=", is_at_most, { "other" }, 1, false },
    { "gt", is_greater, { "other" }, 1, false },
    { "greaterthan", is_greater, { "other" }, 1, false },
    { ">", is_greater, { "other" }, 1, false },
    { "ge", is_at_least, { "other" }, 1, false },
    { ">=", is_at_least, { "other" }, 1, false },
    { "in", is_in, { "seq" }, 1, false },
    { "sameas", is_sameas, { "other" }, 1, false },
    { "upper", is_upper, { NULL }, 0, false },
    { "lower", is_lower, { NULL }, 0, false },
    { "filter", is_filter, { NULL }, 0, false },
    { "test", is_test, { NULL }, 0, false },
    { 0 },
};

const struct jinja_entry *jinja_find_test(struct jinja_value name)
{
    return jinja_find_entry(tests, name);
}
